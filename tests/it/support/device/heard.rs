//! What a device says, as it is heard.

use bytes::Bytes;
use edgewarden::domain::FrameResult;
use edgewarden::domain::deployment::{SlotState, Stage};
use edgewarden::domain::health::HealthReport;
use edgewarden::domain::metrics::MetricsReport;
use edgewarden::mqtt::message::Received;
use edgewarden::mqtt::payloads::event::{CountsMessage, EventMessage};
use edgewarden::mqtt::payloads::{Birth, CommandReply, DroppedReport, Stamped};
use edgewarden::mqtt::topics::Said;
use std::collections::BTreeMap;

/// What a device said on MQTT, in the order of arrival.
#[derive(Debug, Default)]
pub struct Heard {
    /// `online`, `offline`.
    pub availability: Vec<String>,
    /// Births.
    pub births: Vec<Birth>,
    /// Health reports.
    pub health: Vec<HealthReport>,
    /// States of the slot.
    pub states: Vec<SlotState>,
    /// Answers to frames.
    pub frames: Vec<FrameResult>,
    /// Figures.
    pub metrics: Vec<MetricsReport>,
    /// The newest message of each topic, without the device's own levels before it.
    pub newest: BTreeMap<String, Bytes>,
    /// What was dropped.
    pub dropped: Vec<DroppedReport>,
    /// What happened to events.
    pub events: Vec<EventMessage>,
    /// Counts of events.
    pub counts: Vec<CountsMessage>,
    /// Pictures.
    pub snapshots: Vec<Bytes>,
    /// Replies to commands without a response topic.
    pub acks: Vec<CommandReply>,
}

impl Heard {
    pub(super) fn take(&mut self, said: Said, message: &Received) {
        fn body<T: serde::de::DeserializeOwned>(message: &Received) -> T {
            let stamped: Stamped<T> = serde_json::from_slice(&message.payload)
                .unwrap_or_else(|error| panic!("{}: {error}", message.topic));
            stamped.body
        }
        self.newest.insert(said.to_string(), message.payload.clone());
        match said {
            Said::Availability => {
                self.availability.push(String::from_utf8(message.payload.to_vec()).unwrap());
            }
            Said::Birth => self.births.push(body(message)),
            Said::Health => self.health.push(body(message)),
            Said::SlotState(_) => self.states.push(body(message)),
            Said::Telemetry(_) => self.frames.push(body(message)),
            Said::Event(_) => self.events.push(body(message)),
            Said::Counts(_) => self.counts.push(body(message)),
            Said::Snapshot(_) => self.snapshots.push(message.payload.clone()),
            Said::Metrics => self.metrics.push(body(message)),
            Said::Dropped => self.dropped.push(body(message)),
            Said::Ack { .. } => self.acks.push(body(message)),
        }
    }

    /// Whether it is online.
    pub fn online(&self) -> bool {
        self.availability.last().is_some_and(|word| word == "online")
    }

    /// The release that serves, as last told.
    pub fn current(&self) -> Option<String> {
        Some(self.states.last()?.current.as_ref()?.release.to_string())
    }

    /// The stage of the newest deployment, as last told.
    pub fn stage(&self) -> Option<Stage> {
        Some(self.states.last()?.deployment.as_ref()?.stage)
    }
}
