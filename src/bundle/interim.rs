//! Until the rest of this folder is here: reading a manifest and opening a folder, in the least form.

use crate::domain::{Digest, Manifest, Reason, ReasonCode};
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};

/// Longest manifest accepted, bytes.
pub const MAX_MANIFEST: u64 = 8 << 20;

/// A bundle folder whose files were checked against its manifest.
#[derive(Debug)]
pub struct OpenBundle {
    /// The folder.
    pub dir: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
    /// SHA-256 of the manifest's bytes.
    pub digest: Digest,
}

/// Reads a manifest.
pub fn parse_manifest(bytes: &[u8]) -> Result<Manifest, Reason> {
    let manifest: Manifest = serde_json::from_slice(bytes)
        .map_err(|error| Reason::new(ReasonCode::Malformed, format!("manifest: {error}")))?;
    for file in &manifest.files {
        let path = Path::new(&file.path);
        if file.path.is_empty()
            || !path.components().all(|part| matches!(part, std::path::Component::Normal(_)))
        {
            return Err(Reason::new(ReasonCode::Malformed, format!("manifest: path \"{}\"", file.path)));
        }
    }
    Ok(manifest)
}

/// Opens a bundle folder.
pub fn open(dir: &Path, _expected: Option<Digest>) -> Result<OpenBundle, Reason> {
    let path = dir.join("manifest.json");
    let bytes = std::fs::read(&path)
        .map_err(|error| Reason::new(ReasonCode::NotFound, format!("read {}: {error}", path.display())))?;
    let manifest = parse_manifest(&bytes)?;
    Ok(OpenBundle {
        dir: dir.to_owned(),
        manifest,
        digest: Digest::from_bytes(Sha256::digest(&bytes).into()),
    })
}
