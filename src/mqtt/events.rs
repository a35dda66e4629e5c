//! Events and their counts on their way to the broker.

use super::Handle;
use super::payloads::event::{CountsMessage, EventMessage};
use super::pump::Order;
use super::spool::Spooled;
use super::topics::Said;
use crate::domain::PipelineName;
use crate::domain::event::{Counts, Event, Kind};

impl Handle {
    /// Says what happened to an event; it arrives. Of the updates that wait only the newest does: its `new` and its
    /// `end` are never left out for them.
    pub fn event(&self, pipeline: &PipelineName, kind: Kind, event: &Event) {
        let said = Said::Event(pipeline.clone());
        let message = EventMessage { pipeline: pipeline.clone(), kind, event: event.clone() };
        let Some(payload) = self.link.fitting(&said, message) else { return };
        let topic = self.link.topics.said(&self.link.device, &said);
        let replaces = match kind {
            Kind::Update => Some(format!("{topic} {}", event.id)),
            Kind::New | Kind::End => None,
        };
        self.link.order(Order::Spool(Spooled { topic, retain: false, payload, correlation: None, replaces }));
    }

    /// Says how many events there were and are; the newest counts.
    pub fn counts(&self, pipeline: &PipelineName, counts: &Counts) {
        let message = CountsMessage { pipeline: pipeline.clone(), counts: counts.clone() };
        self.link.newest(&Said::Counts(pipeline.clone()), message);
    }
}
