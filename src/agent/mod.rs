//! The agent at work: the only place that wires rooms together.
//!
//! `assemble` builds everything in its order and `run` is what happens until the end. No model and no
//! picture decoder runs in this process: children do that (`pipeline`).

mod assemble;
pub mod audit;
pub mod authority;
mod bundles;
pub mod camera;
mod commands;
mod diagnose;
mod events;
mod homeassistant;
mod host;
mod identify;
pub mod local;
mod outlet;
pub mod pipeline;
mod rebuild;
pub mod remote;
mod report;
mod run;
mod tally;

#[cfg(test)]
mod survive;

pub use run::{End, run};
