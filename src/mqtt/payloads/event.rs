//! The payloads of `event/<pipeline>` and `counts/<pipeline>`.

use crate::domain::PipelineName;
use crate::domain::event::{Counts, Event, Kind};
use serde::{Deserialize, Serialize};

/// The payload of `event/<pipeline>`: one flat object. What is told of one event carries the same `id`; it begins
/// with a `new`, goes on with any number of `update`, and is over with one `end`. Only a device that was cut off in the
/// moment of an `end` may say it again, with the reason `agent_restarted`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventMessage {
    /// Whose model saw it.
    pub pipeline: PipelineName,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The event as it is now.
    #[serde(flatten)]
    pub event: Event,
}

/// The payload of `counts/<pipeline>`, which the broker keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CountsMessage {
    /// The pipeline.
    pub pipeline: PipelineName,
    /// Its events by label.
    pub counts: Counts,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::EndReason;
    use crate::mqtt::payloads::Stamped;
    use serde::de::DeserializeOwned;

    /// An example that people read is a message of ours, and has all that we would write.
    fn example<T: DeserializeOwned + Serialize>(name: &str) -> T {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/examples/mqtt");
        let text = std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let message = Stamped::<T>::read(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let ours = serde_json::to_value(&message).unwrap();
        let told: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&told), keys(&ours), "{name}");
        message.body
    }

    #[test]
    fn the_examples_are_ours() {
        let message: EventMessage = example("event.json");
        assert_eq!((message.kind, message.event.reason), (Kind::End, Some(EndReason::Lost)));
        assert_eq!(message.event.end, Some(message.event.seen));
        let counts: CountsMessage = example("counts.json");
        assert!(!counts.counts.is_empty());
    }
}
