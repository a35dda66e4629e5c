//! The format of a bundle: the folder people read, and the one file they carry.
//!
//! This folder checks form and digests; it never decides whom to trust, and opens no socket.

pub mod archive;
pub mod checked;
pub mod interim;
pub mod layout;
