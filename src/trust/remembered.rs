//! What the metadata that was last seen says of a release, asked without a network: whether the owner has
//! taken it off the list since it came here.

use super::transport::{BoxFuture, OnBytes, Transport};
use super::tuf::RepositoryClient;
use crate::bundle::layout;
use crate::domain::{Digest, Reason, ReasonCode, Release};
use jiff::Timestamp;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The digest that the release had in the list that `metadata_dir` remembers; `Ok(None)` where that list
/// no longer has it. Age is not judged.
///
/// # Errors
/// Where that cannot be told: nothing was seen yet, or a delegation would have to be asked, whose list is
/// not remembered.
pub async fn listed_digest(
    pinned_root: Vec<u8>,
    metadata_dir: PathBuf,
    release: &Release,
) -> Result<Option<Digest>, Reason> {
    let memory = Arc::new(Memory(metadata_dir.clone()));
    let client = RepositoryClient::new(memory, pinned_root, metadata_dir);
    client.listed_digest(&layout::target(release), Timestamp::MIN).await
}

/// The folder where a client keeps what it has seen, as if it were the repository.
struct Memory(PathBuf);

impl Memory {
    fn get_now(&self, path: &str, max: u64) -> Result<Option<Vec<u8>>, Reason> {
        let unknown = |what: String| Err(Reason::new(ReasonCode::RepositoryUnreachable, what));
        let name = path.strip_prefix("metadata/").unwrap_or(path);
        // Kept without their versions, which the client checks; there is no newer root than the one kept.
        let kept = match name.trim_start_matches(|c: char| c.is_ascii_digit()) {
            ".root.json" => return Ok(None),
            ".snapshot.json" => "snapshot.json",
            ".targets.json" => "targets.json",
            "timestamp.json" => "timestamp.json",
            _ => return unknown(format!("{path}: not remembered")),
        };
        match fs::read(self.0.join(kept)) {
            Ok(bytes) if bytes.len() as u64 <= max => Ok(Some(bytes)),
            Ok(_) => unknown(format!("{path}: too long")),
            Err(error) => unknown(format!("{path}: {error}")),
        }
    }
}

impl Transport for Memory {
    fn get<'a>(&'a self, path: &'a str, max: u64) -> BoxFuture<'a, Result<Option<Vec<u8>>, Reason>> {
        Box::pin(async move { self.get_now(path, max) })
    }

    fn download<'a>(
        &'a self,
        path: &'a str,
        _: u64,
        _: &'a Path,
        _: OnBytes<'a>,
    ) -> BoxFuture<'a, Result<(), Reason>> {
        Box::pin(async move {
            let detail = format!("{path}: files are not remembered");
            Err(Reason::new(ReasonCode::RepositoryUnreachable, detail))
        })
    }
}
