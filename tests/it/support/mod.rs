//! What several tests need: real servers that are started for a test and end with it.

pub mod mosquitto;
