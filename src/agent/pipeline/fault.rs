//! How long an error holds: until what had it works again, and has had no other for a while.
//!
//! The source works when it gives a good frame, the model when it answers one. Were the error forgotten at
//! the first of them, a pipeline that fails at every fourth frame would be well and unwell by turns; so the
//! good frame has to come `STEADY` after the error. What happened is kept by the counters and in the log.

use super::Sink;
use super::actor::Actor;
use crate::domain::Reason;
use std::time::{Duration, Instant};

/// A good frame this long after the newest error shows that it is over.
const STEADY: Duration = Duration::from_secs(5);

/// Who had an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The camera, the folder, the sensor.
    Source,
    /// The model, its process, or a frame that it was given.
    Model,
}

impl<S: Sink> Actor<S> {
    /// Something went wrong.
    pub(super) fn failed(&mut self, origin: Origin, reason: Reason) {
        self.status.last_error = Some(reason);
        self.erred = Some((Instant::now(), origin));
    }

    /// Something did what it is for.
    pub(super) fn works(&mut self, what: Origin) {
        if self.erred.is_some_and(|(since, origin)| origin == what && since.elapsed() >= STEADY) {
            self.status.last_error = None;
            self.erred = None;
        }
    }
}
