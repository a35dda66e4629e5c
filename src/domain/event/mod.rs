//! The life of what a model sees: from the answers to single frames to events with a beginning and an end. One
//! car that stands in the picture for an hour is one event.
//!
//! ```text
//! answer → rules (which sights count at all) → assign (which known object is that) → kalman (where it goes)
//!        → watch (seen often enough, in the right zone, not too soon: new, update, end)
//! ```
//!
//! An object with a box is followed by its box, and only by sights with its label, so that a swap of the model
//! for one that knows the same labels interrupts nothing. The class of a whole picture and an anomaly are
//! objects without a box: there is one of each label.
//!
//! Time and ids are arguments. All that is kept is bounded: objects, labels that are counted, waits.

pub mod assign;
pub mod kalman;
pub mod rules;
pub mod watch;
pub mod zone;

#[cfg(test)]
mod tests;

pub use rules::Rules;
pub use watch::{Frame, Watch};
pub use zone::Zone;

use super::id::ZoneName;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The label of an anomaly, which no class has.
pub const ANOMALY: &str = "anomaly";

/// An event's name, the same from its beginning to its end (UUID version 7: they sort by time).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(pub uuid::Uuid);

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is told of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It began. The first thing that is told of it.
    New,
    /// Something of it changed.
    Update,
    /// It is over. The last thing that is told of it.
    End,
}

impl Kind {
    /// Every kind, in the order of a life.
    pub const ALL: [Kind; 3] = [Kind::New, Kind::Update, Kind::End];

    /// The word in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::New => "new",
            Kind::Update => "update",
            Kind::End => "end",
        }
    }
}

/// Why an event is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// Frames came, and it was in none of them for as long as the rules allow.
    Lost,
    /// No frame was answered any more: the source is paused or lost, or no model serves.
    NoFrames,
    /// The agent was told to end.
    AgentStopped,
    /// The agent before this one ended without a word; how the event went on after that is not known.
    AgentRestarted,
}

/// One event, as it is at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its name.
    pub id: EventId,
    /// What the model calls it; `anomaly` for one.
    pub label: String,
    /// Confidence of the newest sight, 0 to 1; for an anomaly its score.
    pub score: f32,
    /// The highest so far.
    pub best_score: f32,
    /// Where it was seen last: left, top, right, bottom in pixels of the original picture. None for what has no
    /// place in it.
    #[serde(rename = "box", default, skip_serializing_if = "Option::is_none")]
    pub bbox: Option<[f32; 4]>,
    /// Pixels across and down of the picture that the box lies in.
    pub size: [u32; 2],
    /// Zones that it is in.
    pub zones: Vec<ZoneName>,
    /// Zones that it was in so far, in the order in which it came into them.
    pub entered_zones: Vec<ZoneName>,
    /// Capture time of the first frame in which it was seen, by the device's clock.
    pub start: Timestamp,
    /// Capture time of the newest frame in which it was seen.
    pub seen: Timestamp,
    /// That of the last one, once it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Timestamp>,
    /// Seconds between its first sight and its newest, by a clock that is never set.
    pub duration_s: f64,
    /// Frames in which it was seen.
    pub frames: u64,
    /// The newest of them, by its number.
    pub seq: u64,
    /// Why it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<EndReason>,
}

impl Event {
    /// The same, over. When it was seen last stays its end.
    pub fn ended(mut self, reason: EndReason) -> Self {
        self.end = Some(self.seen);
        self.reason = Some(reason);
        self
    }
}

/// Something to be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// What happened.
    pub kind: Kind,
    /// To which event.
    pub event: Event,
}

/// How many events of a label there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Begun since the agent started.
    pub begun: u64,
    /// Going on now.
    pub active: u64,
}

/// The counts of a pipeline by label.
pub type Counts = BTreeMap<String, Count>;
