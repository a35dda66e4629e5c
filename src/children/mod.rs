//! The child processes' side: what `edgewarden child capture`, `edgewarden child infer` and `edgewarden child
//! rebuild` do.
//!
//! `capture` reads a source into shared memory (`topic`: a sensor's MQTT topic; `film`: how far a source
//! may go whose every frame is wanted; `snapshot`: one frame as a file; `confine`: how far it is locked in).
//! `infer` runs a model: `worker` hands frames from the thread that prepares them to the one that runs the
//! model, `outbox` keeps the account of them and answers. `rebuild` puts one file together from a delta. `link` is the
//! socket of all.
//!
//! Children are threads without an async runtime, but for the one of the connection of `topic`. They
//! decide nothing: they do what the agent asked for last, and end when its socket closes. They print
//! nothing but log lines.

pub mod capture;
mod confine;
mod film;
pub mod snapshot;
mod topic;

pub mod infer;
pub mod outbox;
pub mod worker;

pub mod rebuild;

pub mod link;
