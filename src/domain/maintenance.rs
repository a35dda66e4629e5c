//! When an update may go on: maintenance windows, connections that are paid by the byte, and a delay of its own
//! for each device of a fleet. Pure: what the clock shows and how the network is are arguments.
//!
//! A deployment is held at three points ([`Part`]): before anything is asked for, before files are fetched, and
//! before the candidate is tried. Nothing that is under way is cut by the end of a window but a download, which
//! goes on in the next one. A rollback never waits, nor does the first model of an empty slot for a window.

mod window;

pub use window::{MAX_WINDOWS, Moment, Window};

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What the configuration says about time and connection.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// When a candidate may be tried and take over, device's local time; none: at any time.
    pub windows: Vec<Window>,
    /// Whether files are fetched only in a window, too.
    pub fetch_in_windows: bool,
    /// Which connection the device has.
    pub connection: Connection,
    /// What is fetched over a metered connection.
    pub metered: Metered,
    /// Bytes that still count as small there.
    pub metered_max: u64,
    /// Longest delay before a deployment that a whole group was told.
    pub start_jitter: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            windows: Vec::new(),
            fetch_in_windows: false,
            connection: Connection::Auto,
            metered: Metered::Always,
            metered_max: 1 << 20,
            start_jitter: Duration::ZERO,
        }
    }
}

/// How the device is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// As the system's default route says.
    Auto,
    /// Paid by the byte.
    Metered,
    /// Not so.
    Unmetered,
}

/// What is fetched over a metered connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metered {
    /// Nothing.
    Never,
    /// What is small.
    Small,
    /// Everything.
    Always,
}

/// What an order says about its time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StartWish {
    /// It waits for nothing.
    pub now: bool,
    /// Many devices heard it at once.
    pub spread: bool,
}

/// When a deployment may go on, as it is kept with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// It waits for nothing.
    #[serde(default)]
    pub now: bool,
    /// Seconds since 1970 before which it does not begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<i64>,
}

impl Start {
    /// Of a deployment that is ordered now, at `unix` seconds. `dice`, any number, is drawn once and kept with
    /// the deployment, so that a restart does not draw again.
    pub fn begin(wish: StartWish, rules: &Rules, unix: i64, dice: u64) -> Self {
        let span = rules.start_jitter.as_secs();
        let not_before = (wish.spread && !wish.now && span > 0)
            // `span` is some weeks at most, so neither the remainder nor the sum can leave its type.
            .then(|| unix.saturating_add(i64::try_from(dice % span.saturating_add(1)).unwrap_or(0)));
        Self { now: wish.now, not_before }
    }

    /// After the same was asked for once more: whoever means this device alone ends its delay.
    pub fn again(self, wish: StartWish) -> Self {
        Self { now: self.now || wish.now, not_before: self.not_before.filter(|_| wish.spread && !wish.now) }
    }

    /// Nothing of it needs to be kept.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// Where a deployment may be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Before anything is asked of the repository.
    Begin,
    /// Before so many bytes are fetched from it.
    Fetch {
        /// Bytes.
        bytes: u64,
    },
    /// Before the candidate is tried and takes over.
    Apply,
}

/// What is so at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Facts {
    /// Seconds since 1970 by the system clock.
    pub unix: i64,
    /// The device's local time; `None` while the clock is known to be wrong.
    pub local: Option<Moment>,
    /// Whether the connection is metered.
    pub metered: bool,
    /// The files come from the repository, over the network.
    pub remote: bool,
    /// A model serves that a change would disturb.
    pub serving: bool,
}

/// Why a deployment is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// Its own delay, so that not all devices of a group begin at once.
    Jitter,
    /// No maintenance window is open.
    Window,
    /// The clock is not set, so that nobody knows whether one is open.
    Clock,
    /// The connection is metered.
    Metered,
}

/// That a deployment waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// For what.
    pub hold: Hold,
    /// How long by the local clock, where that is known.
    pub time: Option<Duration>,
}

/// What may be seen of a deployment that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// For what.
    #[serde(rename = "for")]
    pub hold: Hold,
    /// When it goes on, RFC 3339 in the device's local time, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

impl Waiting {
    /// In words: what is waited for, and until when.
    pub fn told(&self) -> String {
        let until = self.until.as_ref().map_or_else(String::new, |until| format!(" until {until}"));
        match self.hold {
            Hold::Jitter => {
                format!("waits{until}, so that not all devices begin at once (update.start_jitter)")
            }
            Hold::Window => format!("waits{until} for a maintenance window (update.windows)"),
            Hold::Clock => {
                "waits for the clock to be set, to know the maintenance windows (update.windows)".to_owned()
            }
            Hold::Metered => {
                "waits for a connection that is not metered (update.metered, update.connection)".to_owned()
            }
        }
    }
}

/// Whether a deployment must wait here, and for what.
pub fn wait(part: Part, rules: &Rules, start: &Start, facts: &Facts) -> Option<Wait> {
    if start.now {
        return None;
    }
    let delay = start.not_before.filter(|_| part == Part::Begin).and_then(|unix| {
        let left = Duration::from_secs(u64::try_from(unix.saturating_sub(facts.unix)).ok()?);
        // A clock that was set back does not make it longer than it can be.
        let left = left.min(rules.start_jitter);
        (left > Duration::ZERO).then_some(Wait { hold: Hold::Jitter, time: Some(left) })
    });
    let windowed = facts.serving
        && match part {
            Part::Begin | Part::Fetch { .. } => facts.remote && rules.fetch_in_windows,
            Part::Apply => true,
        };
    delay.or_else(|| if windowed { closed(&rules.windows, facts.local) } else { None }).or_else(|| {
        let is_held = match (part, rules.metered) {
            (Part::Begin | Part::Apply, _) | (_, Metered::Always) => false,
            (Part::Fetch { bytes }, Metered::Never) => bytes > 0,
            (Part::Fetch { bytes }, Metered::Small) => bytes > rules.metered_max,
        };
        (is_held && facts.remote && facts.metered).then_some(Wait { hold: Hold::Metered, time: None })
    })
}

/// No window is open; the next one may be known.
fn closed(windows: &[Window], local: Option<Moment>) -> Option<Wait> {
    if windows.is_empty() {
        return None;
    }
    let Some(local) = local else { return Some(Wait { hold: Hold::Clock, time: None }) };
    let next = windows.iter().map(|window| window.opens_in(local)).min()?;
    (next > Duration::ZERO).then_some(Wait { hold: Hold::Window, time: Some(next) })
}

#[cfg(test)]
mod tests;
