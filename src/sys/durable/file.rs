//! Files and folders that are written in more than one step: a download, a bundle that is put together.

use super::disk::OpenFile;
use super::{DurableError, TEMPORARY, disk, failed, parent_of, rename_synced};
use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use tokio::task::JoinHandle;

/// A file that is open for writing.
pub struct File {
    path: PathBuf,
    open: Box<dyn OpenFile>,
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("File").field("path", &self.path).finish_non_exhaustive()
    }
}

impl File {
    /// Opens a file at its front; what it holds stays. It is made where it is missing.
    pub fn open(path: &Path) -> Result<Self, DurableError> {
        let open = disk(path).open(path).map_err(failed("open", path))?;
        Ok(Self { path: path.to_owned(), open })
    }

    /// Makes a new file; one that is there already is an error.
    pub fn create_new(path: &Path) -> Result<Self, DurableError> {
        let open = disk(path).create_new(path, 0o666).map_err(failed("create", path))?;
        Ok(Self { path: path.to_owned(), open })
    }

    /// Goes to a place in it and tells its distance from the front.
    pub fn seek(&mut self, to: SeekFrom) -> Result<u64, DurableError> {
        self.open.seek(to).map_err(failed("look at", &self.path))
    }

    /// Cuts it to so many bytes.
    pub fn set_len(&mut self, len: u64) -> Result<(), DurableError> {
        self.open.set_len(len).map_err(failed("shorten", &self.path))
    }

    /// Writes all the bytes where it stands.
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<(), DurableError> {
        self.open.write_all(bytes).map_err(failed("write", &self.path))
    }

    /// Makes what was written durable; its name is the folder's matter.
    pub fn sync(&mut self) -> Result<(), DurableError> {
        self.open.sync_all().map_err(failed("sync file", &self.path))
    }
}

/// A file that comes in pieces, from async code: while one is written, the next may come.
#[derive(Debug)]
pub struct Incoming {
    path: PathBuf,
    state: State,
}

#[derive(Debug)]
enum State {
    Idle(File),
    Writing(JoinHandle<Result<File, DurableError>>),
    /// The piece before could not be written.
    Broken,
}

impl Incoming {
    /// Opens the file, which is made where it is missing, to go on at `at` bytes from its front.
    pub async fn open(path: &Path, at: u64) -> Result<Self, DurableError> {
        let opened = {
            let path = path.to_owned();
            tokio::task::spawn_blocking(move || {
                let mut file = File::open(&path)?;
                file.seek(SeekFrom::Start(at))?;
                Ok(file)
            })
        };
        let mut incoming = Self { path: path.to_owned(), state: State::Writing(opened) };
        incoming.state = State::Idle(incoming.settle().await?);
        Ok(incoming)
    }

    /// Begins to write a piece, once the one before is written. A fault of that one is told here.
    pub async fn write(&mut self, piece: bytes::Bytes) -> Result<(), DurableError> {
        let mut file = self.settle().await?;
        self.state = State::Writing(tokio::task::spawn_blocking(move || {
            file.write_all(&piece)?;
            Ok(file)
        }));
        Ok(())
    }

    /// Waits for the last piece. Nothing is synced.
    pub async fn close(mut self) -> Result<(), DurableError> {
        self.settle().await.map(drop)
    }

    /// Waits for what is written, and takes the file.
    async fn settle(&mut self) -> Result<File, DurableError> {
        let gone = || std::io::Error::other("an earlier piece could not be written");
        match &mut self.state {
            State::Writing(writing) => {
                let written = writing.await;
                self.state = State::Broken;
                written.map_err(|error| failed("write", &self.path)(std::io::Error::other(error)))?
            }
            State::Idle(_) | State::Broken => match std::mem::replace(&mut self.state, State::Broken) {
                State::Idle(file) => Ok(file),
                State::Writing(_) | State::Broken => Err(failed("write", &self.path)(gone())),
            },
        }
    }
}

/// A folder under a temporary name; gone with all that is in it unless it is kept.
#[derive(Debug)]
pub struct TemporaryDir {
    path: PathBuf,
    kept: bool,
}

impl TemporaryDir {
    /// Makes an empty one in the folder `dir`, for all to read.
    pub fn in_dir(dir: &Path) -> Result<Self, DurableError> {
        let path = super::at_temporary(&dir.join(TEMPORARY), |path| {
            disk(path).create_dir(path).map_err(failed("make folder", path))
        })?;
        let made = Self { path, kept: false };
        disk(&made.path).set_mode(&made.path, 0o755).map_err(failed("open up", &made.path))?;
        Ok(made)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its name, durably. What is in it must be synced already.
    pub fn keep_as(mut self, path: &Path) -> Result<(), DurableError> {
        rename_synced(&self.path, path)?;
        self.kept = true;
        Ok(())
    }

    /// Takes the place of the folder at `path`, durably, which is removed: at one stroke where the file system can
    /// exchange two names. What is in it must be synced already.
    pub fn take_place_of(mut self, path: &Path) -> Result<(), DurableError> {
        if path.is_dir() && super::exchange_synced(&self.path, path).is_ok() {
            self.kept = true;
            return super::remove_dir_synced(&self.path);
        }
        super::remove_dir_synced(path)?;
        self.keep_as(path)
    }
}

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        if !self.kept {
            let _ = disk(&self.path).remove_dir_all(&self.path);
        }
    }
}

/// Copies a file that is not there yet; neither its content nor its name is synced.
pub fn copy(from: &Path, to: &Path) -> Result<(), DurableError> {
    let mut source = std::fs::File::open(from).map_err(failed("copy", from))?;
    let mut copy = disk(to).create_new(to, 0o666).map_err(failed("create", to))?;
    std::io::copy(&mut source, &mut copy).map(drop).map_err(failed("copy", from))
}

/// Gives a file a second name; not synced. Errors: also where the file system cannot.
pub fn hard_link(from: &Path, to: &Path) -> Result<(), DurableError> {
    disk(to).hard_link(from, to).map_err(failed("link", to))
}

/// Makes a folder and its missing parents; their names are not synced. No error when it exists.
pub fn create_dir_all(path: &Path) -> Result<(), DurableError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = parent_of(path);
    if parent != path {
        create_dir_all(parent)?;
    }
    disk(path).create_dir(path).map_err(failed("make folder", path))
}

/// Writes a file that is not there yet; neither its content nor its name is synced.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<(), DurableError> {
    File::create_new(path)?.write_all(bytes)
}
