//! What a pipeline claims of a source whose every frame is to be answered. See
//! [`domain::credit`](crate::domain::credit).

use super::Sink;
use super::actor::Actor;
use crate::domain::credit::Claim;
use std::time::Duration;

/// A model that was lost is waited for while its restarts come within this wait of each other: three
/// losses without an answer between them. One that never loads holds up no other pipeline.
const PATIENCE: Duration = Duration::from_secs(1);

impl<S: Sink> Actor<S> {
    /// Tells the camera how far it may go, where that matters.
    pub(super) fn tell_claim(&self) {
        if self.camera.plan().channel.every {
            self.camera.claim(&self.plan.name, self.claim());
        }
    }

    /// The first frame that is owed, over a takeover too; `None` when nothing serves and nothing will soon.
    fn claim(&self) -> Option<Claim> {
        let owed = self.runners().filter_map(|runner| runner.span.as_ref()?.owes()).min();
        let serves = self.active.as_ref().is_some_and(|active| active.span.is_some());
        match owed {
            Some(open) if serves => Some(Claim::Open(open)),
            // Its last answers are under way.
            Some(_) => Some(Claim::Soon),
            None => (self.wanted.is_some() && self.backoff.next() <= PATIENCE).then_some(Claim::Soon),
        }
    }
}
