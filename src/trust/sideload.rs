//! A repository inside a `.bundle` file: the same client, the same checks, no second trust path.

use super::folder::resume;
use super::transport::{BoxFuture, OnBytes, Transport};
use super::tuf::RepositoryClient;
use super::verified::{SignedManifest, Verified};
use crate::bundle::archive::{Archive, copy_blob};
use crate::domain::{Reason, ReasonCode};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Reads the files of a repository from a `.bundle` file.
#[derive(Debug, Clone)]
pub struct ArchiveTransport {
    archive: Arc<Archive>,
}

impl ArchiveTransport {
    /// Opens the file. Errors: those of [`Archive::open`].
    pub fn open(path: &Path) -> Result<Self, Reason> {
        Ok(Self { archive: Arc::new(Archive::open(path)?) })
    }

    /// The file's table of contents.
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    fn missing(&self, path: &str) -> Reason {
        let detail = format!(
            "bundle file {}: {path} is missing in it; export it again",
            self.archive.path().display()
        );
        Reason::new(ReasonCode::Malformed, detail)
    }
}

impl Transport for ArchiveTransport {
    fn get<'a>(&'a self, path: &'a str, max: u64) -> BoxFuture<'a, Result<Option<Vec<u8>>, Reason>> {
        Box::pin(async move {
            let found = self.archive.read(path, max)?;
            // The chain of roots ends with one that is not there; all the rest must be.
            if found.is_none() && !path.ends_with(".root.json") {
                return Err(self.missing(path));
            }
            Ok(found)
        })
    }

    fn download<'a>(
        &'a self,
        path: &'a str,
        size: u64,
        into: &'a Path,
        progress: OnBytes<'a>,
    ) -> BoxFuture<'a, Result<(), Reason>> {
        Box::pin(async move {
            let length = self.archive.size(path).ok_or_else(|| self.missing(path))?;
            let open_at = |offset| self.archive.reader(path, offset)?.ok_or_else(|| self.missing(path));
            resume(path, length, size, open_at, into, progress).await
        })
    }
}

/// Verifies a `.bundle` file from the pinned root down to the last byte of its blobs. `metadata_dir` is
/// where the device remembers what it has seen; without one there is no protection against rollback.
///
/// Errors: those of [`RepositoryClient::resolve`] and [`Archive::open`].
pub async fn verify_file(
    path: &Path,
    pinned_root: Vec<u8>,
    metadata_dir: Option<PathBuf>,
    now: jiff::Timestamp,
) -> Result<Verified<SignedManifest>, Reason> {
    let transport = ArchiveTransport::open(path)?;
    let (release, _) = transport.archive().claimed_release()?;
    let carrier: Arc<dyn Transport> = Arc::new(transport.clone());
    let client = match metadata_dir {
        Some(dir) => RepositoryClient::new(carrier, pinned_root, dir),
        None => RepositoryClient::forgetful(carrier, pinned_root),
    };
    let verified = client.resolve(&release, now).await?;
    let files = verified.get().manifest.files.clone();
    let archive = transport.archive;
    let hashing = tokio::task::spawn_blocking(move || {
        files.iter().try_for_each(|file| {
            copy_blob(&archive, &file.path, &file.sha256, file.size, &mut std::io::sink(), &|_| {})
        })
    });
    hashing.await.map_err(|error| {
        Reason::new(ReasonCode::Internal, format!("verify {}: {error}", path.display()))
    })??;
    Ok(verified)
}
