//! The child processes' side: what `edgewarden child capture` and `edgewarden child infer` do.
//!
//! Children are plain threads without an async runtime. They decide nothing: they do what the agent
//! asked for last, and end when its socket closes. They print nothing but log lines.

pub mod capture;
pub mod desk;
mod film;
pub mod infer;
pub mod lane;
pub mod link;
pub mod snapshot;
mod topic;
