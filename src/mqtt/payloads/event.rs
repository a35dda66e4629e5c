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
