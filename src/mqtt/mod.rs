//! The device's side of MQTT.
pub mod topics;
