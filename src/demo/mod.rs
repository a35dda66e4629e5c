//! The whole story on one machine: a broker, a repository, a real device, updates good and bad.
//!
//! A composition root like `cli`: it uses every room and no room uses it.

pub mod broker;
pub mod dataset;
pub mod score;
pub mod web;
