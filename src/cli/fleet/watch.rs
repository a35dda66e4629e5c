//! `edgewarden fleet watch`: the table of devices, live.

use super::access::AccessArgs;
use super::table::{self, Wanted};
use super::{GOODBYE, MOST_DEVICES, list, now_ms, print_json, take};
use crate::cli::exit::Interrupted;
use crate::cli::ui::{self, Json};
use crate::domain::DeviceId;
use crate::domain::fleet::Fleet;
use crate::domain::fleet::row::Row;
use crate::mqtt::message::State;
use crate::mqtt::operator::{Operator, Patience};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;
use tokio::time::Instant;

/// Between two pictures of the table, or two looks for what has changed.
const EVERY: Duration = Duration::from_millis(500);

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    access: AccessArgs,
}

/// Runs the command until Ctrl-C. On a terminal the table is drawn again in place; else, and with `--json`, a
/// device is one line of JSON each time it has changed, and one with `"gone": true` when it is shown no more.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let operator = args.access.ready()?.connect().await?;
    let mut fleet = Fleet::new(MOST_DEVICES);
    let screen = !args.json.json && std::io::stdout().is_terminal();
    list::read(&operator, &mut fleet, Patience::default()).await?;
    let mut show = if screen { Show::Screen(Screen::open()?) } else { Show::Lines(BTreeMap::new()) };
    let topics = operator.topics().clone();
    let mut ended = std::pin::pin!(tokio::signal::ctrl_c());
    let mut due = Instant::now();
    loop {
        let wait = due.saturating_duration_since(Instant::now());
        let message = tokio::select! {
            // When it is time to show something, messages that never end do not keep it away.
            biased;
            _ = &mut ended => break,
            () = tokio::time::sleep(wait) => None,
            message = operator.next(EVERY) => message,
        };
        if let Some(message) = message {
            take(&mut fleet, &topics, &message);
        }
        if Instant::now() >= due {
            let rows = args.wanted.rows(&fleet, now_ms());
            show.rows(&rows, &operator, &fleet)?;
            due = Instant::now() + EVERY;
        }
    }
    drop(show);
    operator.close(GOODBYE).await;
    Err(Interrupted.into())
}

/// How it is shown.
enum Show {
    Screen(Screen),
    /// What was last told of each device.
    Lines(BTreeMap<DeviceId, Row>),
}

impl Show {
    fn rows(&mut self, rows: &[Row], operator: &Operator, fleet: &Fleet) -> anyhow::Result<()> {
        match self {
            Show::Screen(screen) => screen.draw(rows, operator, fleet),
            Show::Lines(last) => {
                for row in rows {
                    if last.get(&row.device).is_none_or(|last| changed(last, row)) {
                        print_json(row)?;
                        last.insert(row.device.clone(), row.clone());
                    }
                }
                if rows.len() < last.len() {
                    let shown: std::collections::BTreeSet<&DeviceId> =
                        rows.iter().map(|row| &row.device).collect();
                    let gone: Vec<DeviceId> =
                        last.keys().filter(|device| !shown.contains(device)).cloned().collect();
                    for device in gone {
                        print_json(&serde_json::json!({ "device": device, "gone": true }))?;
                        last.remove(&device);
                    }
                }
                Ok(())
            }
        }
    }
}

/// Whether a row says something new; that time goes by is none.
fn changed(last: &Row, row: &Row) -> bool {
    Row { age_s: None, ..last.clone() } != Row { age_s: None, ..row.clone() }
}

/// The terminal while the table is on it; put back when it goes.
struct Screen {
    last: String,
}

impl Screen {
    /// Another page, without cursor, and without lines that break: a line is a device.
    fn open() -> anyhow::Result<Self> {
        ui::print("\x1b[?1049h\x1b[?25l\x1b[?7l")?;
        Ok(Self { last: String::new() })
    }

    fn draw(&mut self, rows: &[Row], operator: &Operator, fleet: &Fleet) -> anyhow::Result<()> {
        let height = rustix::termios::tcgetwinsize(std::io::stdout()).map_or(24, |size| size.ws_row);
        let room = usize::from(height).saturating_sub(4).max(1);
        let shown = &rows[..rows.len().min(room)];
        let mut lines = vec![ui::styled(ui::DIM, head(rows, operator, fleet))];
        lines.extend(table::lines(shown, true));
        if rows.len() > shown.len() {
            lines.push(format!(" … and {} more", rows.len() - shown.len()));
        }
        let text = lines.join("\x1b[K\n");
        if text != self.last {
            // Over what is there, line by line, so that nothing flickers.
            ui::print(&format!("\x1b[H{text}\x1b[K\x1b[J"))?;
            self.last = text;
        }
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that has gone.
        let _ = ui::print("\x1b[?7h\x1b[?25h\x1b[?1049l");
    }
}

fn head(rows: &[Row], operator: &Operator, fleet: &Fleet) -> String {
    let mut told = table::summary(rows);
    if fleet.beyond() > 0 {
        told.push_str(" (there are more than can be kept)");
    }
    match &*operator.state().borrow() {
        State::Up { .. } => told + "; Ctrl-C ends",
        State::Connecting => told + "; connecting again",
        State::Down { reason } => format!("{told}; no connection: {}", reason.detail),
    }
}
