//! What this device has already seen of a repository, so that it is never shown something older.
//!
//! The newest verified metadata, one file a role, beside each other in one folder. A write that fails
//! must fail the refresh: a floor that is only in memory is gone after the next restart.

use crate::domain::Reason;
use crate::sys::durable::{self, failed};
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where the newest verified metadata is kept.
#[derive(Debug)]
pub(super) struct Seen {
    place: Place,
    /// The first fault; whoever uses the store asks for it when all is done. Until then nothing more is
    /// written: what follows stands on what is not there.
    fault: Mutex<Option<Reason>>,
    /// The power fails before this write, counted down: for tests of what is left behind.
    #[cfg(test)]
    pub(super) writes_left: Mutex<Option<usize>>,
}

#[derive(Debug)]
enum Place {
    Folder(PathBuf),
    Memory(Mutex<HashMap<String, Vec<u8>>>),
}

impl Seen {
    /// Kept in a folder, which is made when it is first needed.
    pub(super) fn in_folder(dir: PathBuf) -> Self {
        Self::at(Place::Folder(dir))
    }

    /// Kept as long as the process lives.
    pub(super) fn in_memory() -> Self {
        Self::at(Place::Memory(Mutex::default()))
    }

    fn at(place: Place) -> Self {
        Self {
            place,
            fault: Mutex::default(),
            #[cfg(test)]
            writes_left: Mutex::default(),
        }
    }

    /// The file `name`, if there is one. A file that cannot be read is a fault and not a missing one.
    pub(super) fn load(&self, name: &str) -> Result<Option<Vec<u8>>, Reason> {
        let result = match &self.place {
            Place::Memory(map) => Ok(lock(map).get(name).cloned()),
            Place::Folder(dir) => {
                let path = dir.join(name);
                match fs::read(&path) {
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(Reason::from(failed("read", &path)(error))),
                }
            }
        };
        self.note(result)
    }

    /// Replaces the file `name`, durably; the same bytes are not written again, for the card's sake.
    pub(super) fn store(&self, name: &str, bytes: &[u8]) -> Result<(), Reason> {
        self.may_write()?;
        if self.load(name)?.as_deref() == Some(bytes) {
            return Ok(());
        }
        #[cfg(test)]
        self.note(self.power())?;
        let result = match &self.place {
            Place::Memory(map) => {
                lock(map).insert(name.to_owned(), bytes.to_owned());
                Ok(())
            }
            Place::Folder(dir) => {
                let path = dir.join(name);
                let folder = path.parent().unwrap_or(dir);
                durable::create_dir_synced(folder)
                    .and_then(|()| durable::write_atomic(&path, bytes))
                    .map_err(Reason::from)
            }
        };
        self.note(result)
    }

    /// Forgets the file `name`.
    pub(super) fn forget(&self, name: &str) -> Result<(), Reason> {
        self.may_write()?;
        #[cfg(test)]
        self.note(self.power())?;
        let result = match &self.place {
            Place::Memory(map) => {
                lock(map).remove(name);
                Ok(())
            }
            Place::Folder(dir) if dir.is_dir() => {
                durable::remove_file_synced(&dir.join(name)).map_err(Reason::from)
            }
            Place::Folder(_) => Ok(()),
        };
        self.note(result)
    }

    /// Refuses what was to be kept: a fault like one of the disk.
    pub(super) fn refuse(&self, reason: Reason) -> Result<(), Reason> {
        self.note(Err(reason))
    }

    fn may_write(&self) -> Result<(), Reason> {
        lock(&self.fault).clone().map_or(Ok(()), Err)
    }

    /// Fails from the write on at which the power fails.
    #[cfg(test)]
    fn power(&self) -> Result<(), Reason> {
        match &mut *lock(&self.writes_left) {
            Some(0) => Err(Reason::new(crate::domain::ReasonCode::Internal, "the power failed")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Takes the first fault since the last call.
    pub(super) fn fault(&self) -> Option<Reason> {
        lock(&self.fault).take()
    }

    fn note<T>(&self, result: Result<T, Reason>) -> Result<T, Reason> {
        if let Err(reason) = &result {
            lock(&self.fault).get_or_insert_with(|| reason.clone());
        }
        result
    }
}

/// The value behind a lock, also after a panic of another thread: each use of it is one whole step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
