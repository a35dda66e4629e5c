//! Bundle files that the agent cannot open itself: a unit that is closed sees neither `/home` nor the
//! `/tmp` of others, and another user's file may be closed to it. Who asks can read the file, and sends it
//! over the socket.
//!
//! It lies in a folder of its own below the state folder until its command has ended, so that a deployment
//! goes on with it after a restart. It is trusted no more than any other file.

use crate::domain::{Reason, ReasonCode};
use crate::sys::blocking::blocking;
use crate::sys::durable;
use axum::body::Body;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

/// What a bundle file has beside its files, at most: signed metadata and the headers of an archive.
const AROUND: u64 = 16 << 20;
/// A client that sends nothing for so long is given up.
const STALL: Duration = Duration::from_secs(30);
/// Longest file name that is kept, for people.
const MAX_NAME: usize = 80;

/// Which file is meant, as whoever asks sees it: behind the same path the agent may see another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Number of the file system.
    pub device: u64,
    /// Number of the file on it.
    pub inode: u64,
    /// Its bytes.
    pub size: u64,
}

impl From<&Metadata> for Identity {
    fn from(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino(), size: metadata.len() }
    }
}

/// Whether the agent can take that file by its path.
///
/// # Errors
/// Why not; whoever asks is to hand it over.
pub async fn readable(path: PathBuf, identity: Identity) -> Result<(), Reason> {
    blocking(move || {
        let told = |why: &str| {
            let detail = format!("install {}: {why}; hand the file over", path.display());
            Reason::new(ReasonCode::NotFound, detail)
        };
        let found = std::fs::File::open(&path).and_then(|file| file.metadata());
        match found {
            Err(error) => Err(told(&format!("the agent cannot open it ({error})"))),
            Ok(found) if Identity::from(&found) != identity => {
                Err(told("the agent sees another file under this path"))
            }
            Ok(_) => Ok(()),
        }
    })
    .await
}

/// The folder of what was handed over; clones share it.
#[derive(Debug, Clone)]
pub struct HandedOver {
    folder: PathBuf,
    /// Largest file, bytes.
    most: u64,
    /// Bytes of the disk that stay free.
    reserve: u64,
    /// One at a time.
    turn: Arc<Semaphore>,
}

impl HandedOver {
    /// Below this state folder; a bundle has `max_bundle` bytes at most, and `reserve` bytes stay free.
    pub fn new(state: &Path, max_bundle: u64, reserve: u64) -> Self {
        let most = max_bundle.saturating_add(AROUND);
        Self { folder: state.join("handed-over"), most, reserve, turn: Arc::new(Semaphore::new(1)) }
    }

    /// Drops what an earlier agent left behind, but for what deployments under way still need. Blocks.
    pub fn clean(&self, needed: &[PathBuf]) {
        // Where there is no folder, nothing was handed over.
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if !needed.contains(&path)
                && let Err(error) = std::fs::remove_file(&path)
            {
                tracing::warn!(path = %path.display(), %error, "a file that was handed over stays");
            }
        }
    }

    /// The command of a file has ended; one that was not handed over is left alone.
    pub async fn done(&self, file: &Path) {
        if file.parent() == Some(&self.folder) {
            let _ = tokio::fs::remove_file(file).await;
        }
    }

    /// Whether a file of `size` bytes can be taken.
    ///
    /// # Errors
    /// `Unsupported` for one that is too large, `DiskFull`.
    pub async fn fits(&self, name: &str, size: u64) -> Result<(), Reason> {
        let told = |code, why: String| Reason::new(code, format!("install {name}: {why}"));
        if size > self.most {
            let why = format!("{size} bytes are more than update.max_bundle allows");
            return Err(told(ReasonCode::Unsupported, why));
        }
        let (folder, reserve) = (self.folder.clone(), self.reserve);
        let free = blocking(move || {
            durable::create_dir_synced(&folder)?;
            Ok(durable::free_bytes(&folder)?)
        })
        .await?;
        if size.saturating_add(reserve) > free {
            let (mib, have, keep) = (size >> 20, free >> 20, reserve >> 20);
            let why = format!(
                "{mib} MiB to hand over, {have} MiB free, of which {keep} MiB stay free; make room, or put \
                 the file where the agent can read it"
            );
            return Err(told(ReasonCode::DiskFull, why));
        }
        Ok(())
    }

    /// Takes a file of `size` bytes, `name` as its sender calls it; tells where it lies.
    ///
    /// # Errors
    /// `Busy`, `Unsupported` for one that is too large, `DiskFull`; nothing stays of it then.
    pub async fn take(&self, name: &str, size: u64, body: Body) -> Result<PathBuf, Reason> {
        let told = |code, why: String| Reason::new(code, format!("install {name}: {why}"));
        self.fits(name, size).await?;
        let Ok(_turn) = self.turn.clone().try_acquire_owned() else {
            return Err(told(
                ReasonCode::Busy,
                "another file is being handed over; try again then".to_owned(),
            ));
        };
        let path = self.folder.join(format!("{}-{}", uuid::Uuid::now_v7().simple(), plain(name)));
        let partial = Partial(Some(path.clone()));
        receive(&path, size, body).await.map_err(|fault| match fault {
            Fault::Disk(error) => {
                let code = match durable::is_disk_full(&error) {
                    true => ReasonCode::DiskFull,
                    false => ReasonCode::Internal,
                };
                told(code, format!("write {}: {error}", path.display()))
            }
            Fault::Sender(why) => told(ReasonCode::BadRequest, why),
        })?;
        Ok(partial.keep().unwrap_or(path))
    }
}

enum Fault {
    Disk(std::io::Error),
    Sender(String),
}

async fn receive(path: &Path, size: u64, body: Body) -> Result<(), Fault> {
    let mut file = tokio::fs::File::create_new(path).await.map_err(Fault::Disk)?;
    let mut bytes = body.into_data_stream();
    let mut received: u64 = 0;
    loop {
        let next = tokio::time::timeout(STALL, bytes.next()).await;
        let chunk = match next.map_err(|_| Fault::Sender(format!("nothing came for {STALL:?}")))? {
            None => break,
            Some(chunk) => chunk.map_err(|error| Fault::Sender(format!("its way broke off: {error}")))?,
        };
        received += chunk.len() as u64;
        if received > size {
            break;
        }
        file.write_all(&chunk).await.map_err(Fault::Disk)?;
    }
    if received != size {
        return Err(Fault::Sender(format!("{size} bytes were announced, others came")));
    }
    // A deployment may go on with it after a power cut.
    file.sync_all().await.map_err(Fault::Disk)
}

/// A file that is gone again unless it is kept.
struct Partial(Option<PathBuf>);

impl Partial {
    fn keep(mut self) -> Option<PathBuf> {
        self.0.take()
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A file name without what could be anything else.
fn plain(name: &str) -> String {
    let safe =
        |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@') { c } else { '_' };
    name.chars().take(MAX_NAME).map(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &HandedOver) -> usize {
        std::fs::read_dir(&folder.folder).map_or(0, Iterator::count)
    }

    #[tokio::test]
    async fn a_file_is_taken_whole_or_not_at_all() {
        let state = tempfile::tempdir().unwrap();
        let handed = HandedOver::new(state.path(), 1 << 20, 0);
        let bytes = vec![7; 100_000];
        let path = handed.take("../a b.bundle", 100_000, Body::from(bytes.clone())).await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        assert_eq!(path.parent(), Some(state.path().join("handed-over").as_path()));
        assert!(path.to_str().unwrap().ends_with("-.._a_b.bundle"), "{}", path.display());
        for (size, code) in [
            (100_001, ReasonCode::BadRequest),
            (99_999, ReasonCode::BadRequest),
            (AROUND + (2 << 20), ReasonCode::Unsupported),
        ] {
            let reason = handed.take("b", size, Body::from(bytes.clone())).await.unwrap_err();
            assert_eq!(reason.code, code, "{reason}");
        }
        let greedy = HandedOver::new(state.path(), 1 << 20, u64::MAX);
        let reason = greedy.take("b", 5, Body::from("hello")).await.unwrap_err();
        assert!(reason.code == ReasonCode::DiskFull && reason.detail.contains("make room"), "{reason}");
        assert_eq!(files(&handed), 1, "of what was refused nothing stays");

        let other = handed.take("c", 5, Body::from("hello")).await.unwrap();
        handed.done(&state.path().join("elsewhere")).await;
        handed.clean(std::slice::from_ref(&path));
        assert!(path.exists() && !other.exists());
        handed.done(&path).await;
        assert_eq!(files(&handed), 0);
    }

    #[tokio::test]
    async fn only_one_comes_at_a_time_and_one_that_is_broken_off_leaves_nothing() {
        let state = tempfile::tempdir().unwrap();
        let handed = HandedOver::new(state.path(), 1 << 20, 0);
        let endless =
            futures_util::stream::once(async { Ok::<_, std::io::Error>(axum::body::Bytes::from("h")) })
                .chain(futures_util::stream::pending());
        let first = tokio::spawn({
            let handed = handed.clone();
            async move { handed.take("a", 5, Body::from_stream(endless)).await }
        });
        while files(&handed) == 0 {
            tokio::task::yield_now().await;
        }
        let reason = handed.take("b", 5, Body::from("hello")).await.unwrap_err();
        assert_eq!(reason.code, ReasonCode::Busy);
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        assert_eq!(files(&handed), 0);
        handed.take("b", 5, Body::from("hello")).await.unwrap();
    }

    #[tokio::test]
    async fn a_path_counts_only_for_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        for path in [&one, &two] {
            std::fs::write(path, "x").unwrap();
        }
        let identity = |path: &Path| Identity::from(&std::fs::metadata(path).unwrap());
        assert!(readable(one.clone(), identity(&one)).await.is_ok());
        let other = readable(one.clone(), identity(&two)).await.unwrap_err();
        assert!(other.detail.contains("another file"), "{other}");
        std::fs::remove_file(&one).unwrap();
        let gone = readable(one.clone(), identity(&two)).await.unwrap_err();
        assert!(gone.detail.contains("cannot open it"), "{gone}");
    }
}
