//! The way of a bundle onto this device and, where it is not good enough, off it again.
//!
//! `http` fetches, `deltas` has it fetch less, `stage` puts a verified bundle in its place, `slots` says which one serves,
//! `journal` remembers, and `driver` does what `domain::lifecycle` decides. This folder loads no model
//! and starts no child: the running device is asked through [`driver::Host`]; and it trusts nothing
//! that is not a `Verified` manifest.
//!
//! On disk, below the state folder:
//!
//! ```text
//! models/<digest>/            a verified bundle, never changed; manifest.json has that digest
//! slots/<slot>/current        link to ../../models/<digest>: the truth about which bundle serves
//! slots/<slot>/previous       link to the one before
//! downloads/<sha256>          a file or a delta on its way, whole or in part
//! engines/<sha256>/           what the inference processes made of the model with that SHA-256
//! handed-over/<id>-<name>     a bundle file that came over the agent's socket, while its command lasts
//! ```

pub mod deltas;
pub mod driver;
pub mod http;
pub mod journal;
pub mod slots;
pub mod stage;

use crate::domain::{Digest, Reason};
use crate::sys::durable;
use std::path::{Path, PathBuf};

/// The folders of an update, below the state folder.
#[derive(Debug, Clone)]
pub struct Folders {
    /// Verified bundles.
    pub models: PathBuf,
    /// Links by slot.
    pub slots: PathBuf,
    /// Files on their way.
    pub downloads: PathBuf,
    /// What was made of models for this machine, by the SHA-256 of the model.
    pub engines: PathBuf,
}

impl Folders {
    /// Makes what is missing below `state`, and drops what interrupted writers left behind. Call it
    /// once, before anything works in them.
    pub fn prepare(state: &Path) -> Result<Self, Reason> {
        let folders = Self {
            models: state.join("models"),
            slots: state.join("slots"),
            downloads: state.join("downloads"),
            engines: state.join("engines"),
        };
        for folder in [&folders.models, &folders.slots, &folders.downloads, &folders.engines] {
            durable::create_dir_synced(folder)?;
            if let Err(error) = durable::remove_temporaries(folder) {
                // They take room and do no harm; on a read-only disk the model serves all the same.
                tracing::warn!(%error, "what interrupted writers left stays");
            }
        }
        // Links are made in the folders of the slots.
        durable::remove_temporaries_below(&folders.slots)?;
        Ok(folders)
    }

    /// Where the bundle with this digest lies or will lie.
    pub fn model(&self, digest: &Digest) -> PathBuf {
        self.models.join(digest.to_string())
    }
}
