//! Events and their counts on their way to the broker.

use super::Handle;
use super::payloads::event::{CountsMessage, EventMessage};
use super::topics::Said;
use crate::domain::PipelineName;
use crate::domain::event::{Counts, Event, Kind};
use crate::domain::importance::Importance;

impl Handle {
    /// Says what happened to an event; it arrives. Of the updates that wait only the newest does: its `new` and its
    /// `end` are never left out for them.
    pub fn event(&self, pipeline: &PipelineName, kind: Kind, event: &Event) {
        let said = Said::Event(pipeline.clone());
        let message = EventMessage { pipeline: pipeline.clone(), kind, event: event.clone() };
        let replaces = match kind {
            Kind::Update => Some(event.id.to_string()),
            Kind::New | Kind::End => None,
        };
        self.spooled(&said, message, replaces.as_deref(), Importance::Event);
    }

    /// Says how many events there were and are; the newest counts.
    pub fn counts(&self, pipeline: &PipelineName, counts: &Counts) {
        let message = CountsMessage { pipeline: pipeline.clone(), counts: counts.clone() };
        self.link.newest(&Said::Counts(pipeline.clone()), message);
    }
}
