//! Edgewarden.
#![warn(missing_docs)]

pub mod agent;
pub mod bundle;
pub mod children;
pub mod cli;
pub mod config;
pub mod demo;
pub mod domain;
pub mod inference;
pub mod mqtt;
pub mod process;
pub mod sys;
pub mod telemetry;
pub mod trust;
pub mod update;
