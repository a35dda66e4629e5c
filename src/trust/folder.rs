//! A repository in a folder of this machine: a mounted share, a stick, a test.

use super::transport::{BoxFuture, OnBytes, Transport};
use crate::domain::{Reason, ReasonCode};
use crate::sys::durable;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

/// Reads the files of a repository from a folder.
#[derive(Debug, Clone)]
pub struct FolderTransport {
    root: PathBuf,
}

impl FolderTransport {
    /// For the repository in the folder `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// For a `file://` address. Errors: `BadRequest` where it names no folder of this machine.
    pub fn from_url(url: &url::Url) -> Result<Self, Reason> {
        let bad = || {
            let detail = format!("repository {url}: expected file:///absolute/folder");
            Reason::new(ReasonCode::BadRequest, detail)
        };
        if url.scheme() != "file" {
            return Err(bad());
        }
        Ok(Self::new(url.to_file_path().map_err(|()| bad())?))
    }

    /// Opens a regular file below the root; `None` where there is none.
    fn open(&self, path: &str) -> Result<Option<(File, u64)>, Reason> {
        if path.is_empty() || !Path::new(path).components().all(|part| matches!(part, Component::Normal(_))) {
            let detail =
                format!("repository path \"{}\": leads out of the repository", path.escape_default());
            return Err(Reason::new(ReasonCode::Malformed, detail));
        }
        let full = self.root.join(path);
        let unreachable = |error: io::Error| {
            let detail = format!("read {}: {error}; is the folder mounted and readable?", full.display());
            Reason::new(ReasonCode::RepositoryUnreachable, detail)
        };
        let file = match File::open(&full) {
            // A missing file answers a question; a missing repository does not.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.root.is_dir() => return Ok(None),
            other => other.map_err(unreachable)?,
        };
        let metadata = file.metadata().map_err(unreachable)?;
        if !metadata.is_file() {
            return Err(unreachable(io::Error::other("not a regular file")));
        }
        Ok(Some((file, metadata.len())))
    }

    fn get_now(&self, path: &str, max: u64) -> Result<Option<Vec<u8>>, Reason> {
        let Some((file, _)) = self.open(path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| unreadable(path, error))?;
        if bytes.len() as u64 > max {
            let detail =
                format!("{path}: more than the {max} bytes allowed; the repository is damaged or hostile");
            return Err(Reason::new(ReasonCode::SizeMismatch, detail));
        }
        Ok(Some(bytes))
    }
}

/// Appends to `into` what it lacks of a file with `length` bytes, which must be `size`, and syncs it.
/// `open_at` opens the source at an offset. Lets other tasks run between two pieces.
pub(super) async fn resume<R: Read + Send>(
    path: &str,
    length: u64,
    size: u64,
    open_at: impl FnOnce(u64) -> Result<R, Reason> + Send,
    into: &Path,
    progress: OnBytes<'_>,
) -> Result<(), Reason> {
    if length != size {
        let detail = format!(
            "{path}: {length} bytes instead of the signed {size}; the repository is damaged or hostile"
        );
        return Err(Reason::new(ReasonCode::SizeMismatch, detail));
    }
    let mut file = durable::File::open(into)?;
    let mut done = file.seek(SeekFrom::End(0))?;
    if done > size {
        // Not a first part of this file: begin again.
        file.set_len(0)?;
        done = file.seek(SeekFrom::Start(0))?;
    }
    let mut source = open_at(done)?.take(size - done);
    let mut buffer = vec![0; 256 << 10];
    progress(done);
    while done < size {
        let n = source.read(&mut buffer).map_err(|error| unreadable(path, error))?;
        if n == 0 {
            return Err(unreadable(path, io::ErrorKind::UnexpectedEof.into()));
        }
        file.write_all(&buffer[..n])?;
        done += n as u64;
        progress(done);
        tokio::task::yield_now().await;
    }
    Ok(file.sync()?)
}

fn unreadable(path: &str, error: io::Error) -> Reason {
    Reason::new(ReasonCode::RepositoryUnreachable, format!("read {path} of the repository: {error}"))
}

impl Transport for FolderTransport {
    fn get<'a>(&'a self, path: &'a str, max: u64) -> BoxFuture<'a, Result<Option<Vec<u8>>, Reason>> {
        Box::pin(async move { self.get_now(path, max) })
    }

    fn download<'a>(
        &'a self,
        path: &'a str,
        size: u64,
        into: &'a Path,
        progress: OnBytes<'a>,
    ) -> BoxFuture<'a, Result<(), Reason>> {
        Box::pin(async move {
            let Some((mut file, length)) = self.open(path)? else {
                let detail = format!("{path}: missing in the repository {}", self.root.display());
                return Err(Reason::new(ReasonCode::RepositoryUnreachable, detail));
            };
            let open_at = |offset| {
                file.seek(SeekFrom::Start(offset)).map_err(|error| unreadable(path, error))?;
                Ok(file)
            };
            resume(path, length, size, open_at, into, progress).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn a_download_goes_on_where_it_ended_and_a_wrong_size_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("blobs")).unwrap();
        fs::write(dir.path().join("blobs/a"), b"0123456789").unwrap();
        let transport = FolderTransport::new(dir.path());
        let into = dir.path().join("part");
        for before in ["", "01234", "0123456789", "01234567890123"] {
            fs::write(&into, before).unwrap();
            block_on(transport.download("blobs/a", 10, &into, &|_| {})).unwrap();

            assert_eq!(fs::read_to_string(&into).unwrap(), "0123456789");
        }
        for size in [9, 11] {
            let error = block_on(transport.download("blobs/a", size, &into, &|_| {})).unwrap_err();
            assert_eq!(error.code, ReasonCode::SizeMismatch);
        }
    }

    #[test]
    fn a_path_out_of_the_folder_a_long_file_and_a_missing_folder_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), b"0123456789").unwrap();
        let transport = FolderTransport::new(dir.path());
        assert_eq!(block_on(transport.get("a", 10)).unwrap().unwrap().len(), 10);
        assert_eq!(block_on(transport.get("a", 9)).unwrap_err().code, ReasonCode::SizeMismatch);
        assert_eq!(block_on(transport.get("b", 9)).unwrap(), None);
        for path in ["../a", "/etc/passwd", "", "a/../../b"] {
            assert_eq!(block_on(transport.get(path, 9)).unwrap_err().code, ReasonCode::Malformed, "{path}");
        }
        let gone = FolderTransport::new(dir.path().join("gone"));
        assert_eq!(block_on(gone.get("a", 9)).unwrap_err().code, ReasonCode::RepositoryUnreachable);
    }
}
