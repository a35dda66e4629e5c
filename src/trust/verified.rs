//! The mark of what was checked against the pinned root.

use crate::domain::manifest::Manifest;
use crate::domain::{Digest, Release};

/// A value that was reached from the pinned root by signatures and digests. Only this folder can
/// make one; whatever unpacks, stages or loads takes nothing else.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// Marks a value; for the verifier beside this file alone.
    pub(super) fn mark(value: T) -> Self {
        Self(value)
    }

    /// Marks a value that a test made up.
    #[cfg(test)]
    pub(crate) fn for_tests(value: T) -> Self {
        Self(value)
    }

    /// The value; what is done with parts of it is no longer under the mark.
    pub fn get(&self) -> &T {
        &self.0
    }
}

/// A manifest with the bytes that were signed.
#[derive(Debug, Clone, PartialEq)]
pub struct SignedManifest {
    /// As read.
    pub manifest: Manifest,
    /// SHA-256 of `bytes`: the bundle's identity.
    pub digest: Digest,
    /// As published.
    pub bytes: Vec<u8>,
}

impl SignedManifest {
    /// Name and version.
    pub fn release(&self) -> Release {
        self.manifest.release()
    }
}
