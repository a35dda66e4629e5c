//! Which files of a bundle are encrypted, for whom, and what they are in plain.
//!
//! `files` of the manifest lists what lies on disks and travels: the encrypted bytes. The plain ones are
//! listed here, under the same signature, so that what comes out of the decryption is known before.

use super::{FileEntry, Manifest};
use serde::{Deserialize, Serialize};

/// How a bundle's files are encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Encryption {
    /// The format of the encrypted files.
    pub scheme: Scheme,
    /// Public keys (`age1…`) whose holders can decrypt them: devices, groups of devices, people.
    pub recipients: Vec<String>,
    /// The encrypted files as they are in plain; each path is one of the manifest's `files`.
    pub files: Vec<FileEntry>,
}

/// A format of encrypted files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// `age`, version 1, X25519 recipients.
    Age,
}

impl Manifest {
    /// The plain form of an encrypted file; `None` for one that is not encrypted.
    pub fn plain(&self, path: &str) -> Option<&FileEntry> {
        self.encryption.as_ref()?.files.iter().find(|file| file.path == path)
    }

    /// Every file as it is in plain.
    pub fn plain_files(&self) -> impl Iterator<Item = &FileEntry> {
        self.files.iter().map(|file| self.plain(&file.path).unwrap_or(file))
    }

    /// True where the model itself is encrypted.
    pub fn has_secret_model(&self) -> bool {
        self.plain(&self.model).is_some()
    }
}
