//! The machine underneath: time, memory, files that survive a power cut, the store, secrets and certificates in
//! files, and the lock-down.
//!
//! This folder decides nothing about models, updates or reports, and opens no socket.

pub mod age;
pub mod audit;
pub mod background;
pub mod blocking;
pub mod clock;
pub mod connection;
pub mod durable;
pub mod heap;
pub mod local_time;
pub mod lockdown;
pub mod memory_only;
pub mod monotonic;
pub mod notify;
pub mod program;
pub mod secret;
#[cfg(test)]
pub mod small_disk;
pub mod store;
pub mod time_service;
pub mod tls;
