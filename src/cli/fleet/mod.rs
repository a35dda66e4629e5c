//! `edgewarden fleet`: the operator's side, for one device or many. Nothing but the broker is needed.
//!
//! What devices say is read by [`crate::domain::fleet`]; here it is fetched and shown. All of it is text of
//! strangers: it is made safe before it is printed, for people ([`text::shown`]) and as JSON (`print_json`).

mod access;
mod ask;
mod list;
mod logs;
mod progress;
mod send;
mod show;
mod sign;
mod snapshot;
mod table;
mod watch;
mod words;

use super::ui;
use crate::domain::fleet::text;
use crate::domain::fleet::{Fleet, Heard, Kind};
use crate::mqtt::message::Received;
use crate::mqtt::operator::Whole;
use crate::mqtt::topics::{Said, Topic, Topics};
use anyhow::Context;
use std::time::Duration;

/// Most devices that are kept; of more, it is said that there are more.
const MOST_DEVICES: usize = 100_000;

/// What is below a device's topic that a table of devices is made of.
const OVERVIEW: [&str; 4] = ["availability", "birth", "health", "model/+/state"];
/// Longest goodbye to the broker.
const GOODBYE: Duration = Duration::from_secs(1);
/// As many messages as a mosquitto without settings of its own keeps for a client at once: 20 on their way
/// (`max_inflight_messages`) and 1000 that wait (`max_queued_messages`). It says nothing of those beyond.
const MOSQUITTO: usize = 1020;

const EXAMPLES: &str = "\
Examples:
  edgewarden fleet list --broker mqtts://anna@broker.works --password-file anna.txt
  edgewarden fleet watch --group line-3 --sort problem
  edgewarden fleet send group:line-3 update detector belt@1.2.0 --key anna.pem
  edgewarden fleet snapshot press-7 -o press-7.jpg

The broker may be named once and for all in EDGEWARDEN_BROKER or in ~/.config/edgewarden/fleet.toml, with the keys
broker, password_file, ca, cert, cert_key, root, key, signer and signer_key.";

/// The commands, in the order of the help.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Command {
    /// List the devices: which are online, what they run, what is wrong
    List(list::Args),
    /// The same, live
    Watch(watch::Args),
    /// All that is known of one device
    Show(show::Args),
    /// Send a command to a device or a group, and show the answers
    Send(Box<send::Args>),
    /// The last lines of a device's log
    Logs(logs::Args),
    /// Save what a device sees as a JPEG
    Snapshot(snapshot::Args),
}

/// Runs the command.
pub fn run(command: Command) -> anyhow::Result<()> {
    // With threads of its own, so that what comes in is taken while something else is printed.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.context("start the asynchronous runtime")?;
    let done = runtime.block_on(async {
        match command {
            Command::List(args) => list::run(args).await,
            Command::Watch(args) => watch::run(args).await,
            Command::Show(args) => show::run(args).await,
            Command::Send(args) => send::run(*args).await,
            Command::Logs(args) => logs::run(args).await,
            Command::Snapshot(args) => snapshot::run(args).await,
        }
    });
    // Nothing is left that is worth waiting for.
    runtime.shutdown_background();
    done
}

/// The filters for what a table of devices is made of.
fn overview(topics: &Topics) -> Vec<String> {
    OVERVIEW.map(|below| topics.of_every_device(below)).into()
}

/// Says on standard error where devices are missing, or may be, of what the broker has kept; `remedy` for where it was
/// still sending.
fn tell_how_whole(whole: Whole, fleet: &Fleet, remedy: &str) {
    let devices = fleet.devices().len();
    match whole {
        Whole::No => anstream::eprintln!(
            "edgewarden: the broker was still sending when the time was over; some devices may be missing{remedy}"
        ),
        Whole::Dropped => anstream::eprintln!(
            "edgewarden: the broker has dropped a part of what it had to send, and devices are missing: let it hold more \
             messages for a client than there are devices (for mosquitto: max_queued_messages)"
        ),
        Whole::Yes if devices == MOSQUITTO => anstream::eprintln!(
            "edgewarden: these are {MOSQUITTO} devices, and a mosquitto gives no more unless it is told to: if you have \
             more, raise its max_queued_messages"
        ),
        Whole::Yes => {}
    }
}

/// Folds a message in, if it is one of ours.
fn take(fleet: &mut Fleet, topics: &Topics, message: &Received) {
    let Some(Topic::Said { device, said }) = topics.parse(&message.topic) else { return };
    let kind = match said {
        Said::Availability => Kind::Availability,
        Said::Birth => Kind::Birth,
        Said::Health => Kind::Health,
        Said::SlotState(slot) => Kind::Slot(slot),
        // What passes by, and belongs to no table.
        _ => return,
    };
    fleet.take(Heard {
        device: &device,
        kind: &kind,
        payload: &message.payload,
        retained: message.retained,
        now_ms: now_ms(),
    });
}

/// Reads a span of time as it stands on the command line.
fn span(text: &str) -> Result<Duration, String> {
    let bounds = Duration::from_secs(1)..=Duration::from_secs(366 * 86_400);
    let span = crate::config::span(text).filter(|span| bounds.contains(span));
    span.ok_or_else(|| "write a number and its unit, such as 90s, 10m, 2h or 1d".to_owned())
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// One JSON value on one line, with what a terminal would obey written as escapes.
fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut line = text::shown_json(&serde_json::to_string(value)?);
    line.push('\n');
    ui::print(&line)
}
