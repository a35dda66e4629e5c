//! The device's side of MQTT.
pub mod client;
pub mod commands;
pub mod payloads;
pub mod spool;
pub mod topics;
