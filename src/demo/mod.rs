//! The whole story on one machine: a broker, a repository, a real device, updates good and bad.
//!
//! A composition root like `cli`: it uses every room and no room uses it. It prints nothing: what
//! happens goes to a [`report::Narrator`].

pub mod report;
pub mod story;

pub mod broker;
pub mod device;
pub mod models;
pub mod observer;
pub mod web;

pub mod score;
pub mod seen;

pub mod dataset;
