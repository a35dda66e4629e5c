//! The machine underneath: time, files that survive a power cut, and the store.
//!
//! This folder decides nothing about models, updates or reports, and opens no socket.

pub mod clock;
pub mod durable;
pub mod notify;
pub mod store;
