//! Children: starting, feeding and watching them, and the shared memory that carries frames.
//!
//! This folder knows neither what a model nor what a camera is, and it decides nothing about
//! updates.

pub mod protocol;

pub mod child;
pub mod codec;
pub mod cost;
pub mod exit;
pub mod frames;
