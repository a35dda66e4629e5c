//! The whole story on one machine: a broker, a repository, a real device, updates good and bad.
//!
//! A composition root like `cli`: it uses every room and no room uses it.

pub mod dataset;
