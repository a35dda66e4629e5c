//! Home Assistant finds the device by itself: one retained message on its discovery prefix names all that the
//! device says, in Home Assistant's own words (device-based MQTT discovery).
//!
//! ```text
//! <prefix>/device/<root>_<device>/config    retained: the device, its entities, and how to read them
//! <prefix>/status                           from Home Assistant: `online` when it comes up
//! ```
//!
//! Nothing is said twice: the entities read the topics that are there for everybody, through templates. `entities`
//! builds the message and is pure; nothing here decides when it is sent.
//!
//! Each class that is counted is a sensor there, so the message does not name the classes of a model, which may be a
//! thousand, but those that the rules name or that were seen (the agent says which).

mod entities;
#[cfg(test)]
mod tests;

use super::Handle;
use super::payloads::MAX_PAYLOAD;
use super::pump::Order;
use super::topics::Topics;
use crate::domain::{CommandId, DeviceId, PipelineName, Release, SlotName};

/// What Home Assistant says when it comes up.
pub const ONLINE: &[u8] = b"online";
/// How the names of its commands begin.
pub const COMMANDS: &str = "homeassistant-";
/// Classes that are counted in Home Assistant at most, over all pipelines.
pub const MAX_CLASSES: usize = 64;

/// What of the device is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// The agent's version.
    pub agent_version: String,
    /// The board, as its firmware calls it, or its architecture.
    pub board: String,
    /// Whether the board tells a temperature.
    pub has_temperature: bool,
    /// The pipelines.
    pub pipelines: Vec<PipelineView>,
}

/// A pipeline and its slot.
#[derive(Debug, Clone, PartialEq)]
pub struct PipelineView {
    /// Its name.
    pub name: PipelineName,
    /// The slot whose bundle it runs.
    pub slot: SlotName,
    /// Whether it looks at pictures; sensors have none to show.
    pub has_pictures: bool,
    /// The labels that are counted, of all pipelines at most [`MAX_CLASSES`]; none: it tells of no events.
    pub classes: Option<Vec<String>>,
    /// A newer release of the model that serves, which the repository lists.
    pub offered: Option<Release>,
    /// The name of the command by which that one is installed; none where commands must be signed, which Home
    /// Assistant cannot do.
    pub install: Option<CommandId>,
}

/// The filter under which Home Assistant says that it came up.
pub fn status_topic(prefix: &str) -> String {
    format!("{prefix}/status")
}

/// The topic of the discovery message.
pub fn discovery_topic(prefix: &str, topics: &Topics, device: &DeviceId) -> String {
    format!("{prefix}/device/{}/config", entities::object_id(topics, device))
}

impl Handle {
    /// Makes the device known; only the newest word counts, and it is said again at each connect.
    pub fn show_to_home_assistant(&self, prefix: &str, view: &View) {
        let (topics, device) = (&self.link.topics, &self.link.device);
        let payload = entities::discovery(topics, device, view).to_string();
        if payload.len() > MAX_PAYLOAD {
            tracing::error!(
                "homeassistant: the discovery message has {} bytes, a message holds {MAX_PAYLOAD}; name fewer \
                 classes in the pipelines' events",
                payload.len()
            );
            return;
        }
        let topic = discovery_topic(prefix, topics, device);
        self.link.order(Order::Newest { topic, payload: payload.into_bytes() });
    }

    /// Takes the device away again.
    pub fn hide_from_home_assistant(&self, prefix: &str) {
        let topic = discovery_topic(prefix, &self.link.topics, &self.link.device);
        self.link.order(Order::Newest { topic, payload: Vec::new() });
    }
}
