//! The device's side of MQTT.
pub mod commands;
pub mod payloads;
pub mod topics;
