//! Who may say what runs here: keys, TUF metadata, and the only maker of [`Verified`] values.
//!
//! This folder loads no model and changes no slot. It reaches the network only through
//! [`transport::Transport`].

pub mod transport;
pub mod verified;

pub use verified::Verified;
