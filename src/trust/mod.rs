//! Who may say what runs here: keys, TUF metadata, and the only maker of [`Verified`] values.
//!
//! This folder loads no model and changes no slot. It reaches the network only through
//! [`transport::Transport`].

pub mod transport;
pub mod verified;

pub mod tuf;

pub mod folder;
pub mod remembered;
pub mod sideload;

pub mod keys;
pub mod public_key;
pub mod signer;

pub mod audit;
pub mod deltas;
pub mod export;
pub mod publish;

pub mod envelope;
pub mod operators;

pub mod identity;
pub mod model_signature;
pub mod pin;

mod authority;
mod floors;
mod provider;
mod roles;
mod seen;
mod state;

#[cfg(test)]
mod tests;

pub use publish::{InitOptions, Published, Publisher};
pub use roles::Expiry;
pub use tuf::{Listed, RepositoryClient, Session, Target};
pub use verified::{SignedManifest, Verified};
