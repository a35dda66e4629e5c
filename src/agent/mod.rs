//! The agent at work: the only place that wires rooms together.
//!
//! No model and no picture decoder runs in this process: children do that.

pub mod local;
pub mod pipeline;
