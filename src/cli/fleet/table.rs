//! The table of many devices.

use super::millis;
use crate::cli::ui;
use crate::domain::fleet::row::{Filter, Order, Row, SlotDeployment};
use crate::domain::fleet::text::shown;
use crate::domain::fleet::{Fleet, Presence};
use crate::domain::id::DeviceId;
use anstyle::Style;
use comfy_table::ContentArrangement;
use std::fmt::Write;
use std::time::Duration;

/// Longest problem in a table, characters; `show` and `--json` tell all of it.
const PROBLEM: usize = 100;

/// In the order in which they are summed up.
const PRESENCES: [Presence; 4] = [Presence::Online, Presence::Stale, Presence::Offline, Presence::Unknown];

/// Which devices a table shows.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Devices")]
pub struct Wanted {
    /// Only devices of this group; may be given several times
    #[arg(long, value_name = "GROUP")]
    group: Vec<DeviceId>,
    /// Only devices that are not online
    #[arg(long)]
    offline: bool,
    /// Only devices that are not online or not well
    #[arg(long)]
    problem: bool,
    /// What comes first
    #[arg(long, value_name = "BY", default_value = "device")]
    sort: Sort,
    /// A device without a sign of life for so long is shown as stale, whatever the broker says
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = super::span)]
    stale: Duration,
}

/// What comes first.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Sort {
    /// By the id
    Device,
    /// The worst first
    Problem,
    /// By what is served
    Model,
    /// The fewest frames a second first
    Fps,
    /// The hottest first
    Temperature,
}

impl Wanted {
    /// The rows that are wanted, in their order.
    pub(super) fn rows(&self, fleet: &Fleet, now_ms: i64) -> Vec<Row> {
        let filter = Filter {
            groups: self.group.iter().map(ToString::to_string).collect(),
            offline: self.offline,
            problem: self.problem,
        };
        let order = match self.sort {
            Sort::Device => Order::Device,
            Sort::Problem => Order::Problem,
            Sort::Model => Order::Model,
            Sort::Fps => Order::Rate,
            Sort::Temperature => Order::Temperature,
        };
        crate::domain::fleet::row::rows(fleet, &filter, order, now_ms, self.stale_ms())
    }

    /// After so many milliseconds without a sign of life a device is stale.
    pub(super) fn stale_ms(&self) -> i64 {
        millis(self.stale)
    }
}

/// The rows as lines, the first of them the head. `cut`: a line a device, however narrow the terminal is.
pub(super) fn lines(rows: &[Row], cut: bool) -> Vec<String> {
    let mut table =
        ui::table(&["DEVICE", "ONLINE", "STATE", "MODEL", "FPS", "TEMP", "DEPLOYMENT", "PROBLEM"]);
    if cut {
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    for row in rows {
        table.add_row(cells(row));
    }
    let mut painted: Vec<String> = Vec::new();
    for line in table.lines() {
        let line = line.trim_end();
        painted.push(paint(line).unwrap_or_else(|| line.to_owned()));
    }
    painted
}

fn cells(row: &Row) -> [String; 8] {
    let dash = || "-".to_owned();
    let joined = |parts: Vec<String>| if parts.is_empty() { dash() } else { parts.join(", ") };
    let alone = row.models.len() == 1;
    let models = row.models.iter().map(|model| {
        let release = model.release.as_deref().unwrap_or("none");
        if alone { release.to_owned() } else { format!("{} {release}", model.slot) }
    });
    // What went well is told by the model already.
    let told = row.deployments.iter().filter(|one| one.deployment.goes_on() || one.deployment.failed());
    [
        row.device.to_string(),
        row.presence.as_str().to_owned(),
        row.state.clone().unwrap_or_else(dash),
        joined(models.collect()),
        row.frames_per_second.map_or_else(dash, |fps| format!("{fps:.1}")),
        row.temperature_celsius.map_or_else(dash, |heat| format!("{heat:.0} °C")),
        joined(told.map(|one| deployment(one, alone)).collect()),
        row.problem.as_ref().map_or_else(dash, |problem| shown(&problem.detail, PROBLEM)),
    ]
}

/// A deployment in a few words: `belt@2.0.0 fetching 40 %`.
pub(super) fn deployment(one: &SlotDeployment, alone: bool) -> String {
    let SlotDeployment { slot, deployment } = one;
    let mut told = if alone { String::new() } else { format!("{slot} ") };
    told.push_str(deployment.release.as_deref().unwrap_or("?"));
    if let Some(stage) = &deployment.stage {
        let _ = write!(told, " {}", stage.replace('_', " "));
    }
    if let Some(progress) = deployment.progress.filter(|_| deployment.goes_on()) {
        let _ = write!(told, " {:.0} %", progress * 100.0);
    }
    told
}

/// Colours for the second and third word of a device's first line; the table knows no styles.
fn paint(line: &str) -> Option<String> {
    let (device, rest) = word(line)?;
    let (presence, rest) = word(rest)?;
    let known = PRESENCES.into_iter().find(|known| known.as_str() == presence.trim())?;
    let presence = styled(presence_style(known), presence);
    let state = word(rest).and_then(|(state, rest)| Some(styled(state_style(state.trim())?, state) + rest));
    Some(format!("{device}{presence}{}", state.unwrap_or_else(|| rest.to_owned())))
}

/// The colour of a presence.
pub(super) fn presence_style(presence: Presence) -> Style {
    match presence {
        Presence::Online => ui::GOOD,
        Presence::Offline => ui::BAD,
        Presence::Stale => ui::WARN,
        Presence::Unknown => ui::DIM,
    }
}

/// The colour of a state of health; none for one that is not known here.
pub(super) fn state_style(state: &str) -> Option<Style> {
    match state {
        "ok" => Some(ui::GOOD),
        "degraded" => Some(ui::WARN),
        "failed" => Some(ui::BAD),
        _ => None,
    }
}

/// The first word with the blanks before it, and the rest.
fn word(line: &str) -> Option<(&str, &str)> {
    let start = line.len() - line.trim_start().len();
    let end = line[start..].find(' ').map_or(line.len(), |end| start + end);
    (end > start).then(|| line.split_at(end))
}

/// The word in its style, the blanks before it without.
fn styled(style: Style, word: &str) -> String {
    let blanks = word.len() - word.trim_start().len();
    format!("{}{}", &word[..blanks], ui::styled(style, &word[blanks..]))
}

/// How the devices are, all together: `3 devices: 2 online, 1 offline; 1 wants attention`.
pub(super) fn summary(rows: &[Row]) -> String {
    let mut told = ui::count(rows.len(), "device");
    let counts = PRESENCES
        .map(|presence| (rows.iter().filter(|row| row.presence == presence).count(), presence.as_str()));
    let counted: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    if !counted.is_empty() {
        let _ = write!(told, ": {}", counted.join(", "));
    }
    let unwell = rows.iter().filter(|row| row.presence == Presence::Online && !row.is_well()).count();
    if unwell > 0 {
        let _ = write!(told, "; {unwell} of those online not well");
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fleet::Problem;

    fn row(device: &str, presence: Presence, state: &str) -> Row {
        Row {
            device: device.parse().unwrap(),
            presence,
            state: Some(state.to_owned()),
            models: Vec::new(),
            frames_per_second: Some(9.96),
            temperature_celsius: None,
            problem: Some(Problem { code: "x".into(), detail: "word ".repeat(100) }),
            deployments: Vec::new(),
            groups: Vec::new(),
            agent_version: None,
            age_s: None,
        }
    }

    #[test]
    fn colours_change_no_letter_and_stand_on_the_words_alone() {
        let rows = [
            row("online", Presence::Offline, "ok"),
            row("pi", Presence::Online, "failed"),
            row("x", Presence::Stale, "a-word-of-tomorrow"),
        ];
        let painted = lines(&rows, true);
        assert_eq!(painted.len(), 4);
        let bare = painted.iter().map(|line| anstream::adapter::strip_str(line).to_string());
        for (bare, row) in bare.skip(1).zip(&rows) {
            assert!(bare.contains(row.device.as_str()) && bare.contains(row.presence.as_str()), "{bare}");
            assert!(!bare.contains('\u{1b}') && bare.contains("10.0"), "{bare}");
        }
        assert!(painted[1].contains(&format!(" online  {}", ui::styled(ui::BAD, "offline"))), "{painted:?}");
        assert!(painted[2].contains(&ui::styled(ui::BAD, "failed")), "{painted:?}");
        assert_eq!(summary(&rows), "3 devices: 1 online, 1 stale, 1 offline; 1 of those online not well");
    }
}
