//! Files and folders that are whole after a power cut.
//!
//! The order is always the same: write under a temporary name, sync the file, rename, sync the
//! folder. A rename without the first sync may leave an empty file; without the second it may be
//! forgotten. Temporary names start with `.tmp-`, so that whoever lists a folder can skip them and a
//! clean-up can drop what a power cut left behind.
//!
//! What changes the disk goes through one trait (`disk`), by the functions here and in `file`. In tests a
//! folder can be given a disk that records every operation, fails where it is told to, and shows what a power
//! cut could leave behind (`recorded`, `aftermath`): whoever writes below that folder writes to it.

use crate::domain::{Reason, ReasonCode};
use rustix::fs::{FlockOperation, flock};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

mod disk;
mod file;

#[cfg(test)]
pub(crate) mod aftermath;
#[cfg(test)]
pub(crate) mod recorded;

pub use disk::{Disk, OpenFile};
pub use file::{File, Incoming, TemporaryDir, copy, create_dir_all, hard_link, write_new};

#[cfg(test)]
use recorded::disk;

/// The disk that holds `path`.
#[cfg(not(test))]
fn disk(_path: &Path) -> &'static dyn Disk {
    &disk::Real
}

/// Start of every temporary name.
pub const TEMPORARY: &str = ".tmp-";

/// So many temporary names may be taken before it is a fault.
const MAX_TAKEN: usize = 1000;

/// What was attempted on which path, and what the system said.
#[derive(Debug, thiserror::Error)]
#[error("{act} {}: {source}{}", path.display(), remedy(source))]
pub struct DurableError {
    /// Such as "write" or "sync folder".
    pub act: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// The system's answer.
    #[source]
    pub source: io::Error,
}

impl DurableError {
    /// True when the disk or the quota is full.
    pub fn is_disk_full(&self) -> bool {
        is_disk_full(&self.source)
    }
}

impl From<DurableError> for Reason {
    fn from(error: DurableError) -> Self {
        let code = if error.is_disk_full() { ReasonCode::DiskFull } else { ReasonCode::Internal };
        Reason::new(code, error.to_string())
    }
}

/// True when `error` says that the disk or the quota is full.
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What a person can do, where the error tells.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free some space on this disk",
        io::ErrorKind::PermissionDenied => "; check the owner and mode of the folder",
        io::ErrorKind::ReadOnlyFilesystem => "; the disk is mounted read-only, often after errors",
        _ => "",
    }
}

/// Names the act and the path of a failed step; for use with `map_err`.
pub fn failed(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DurableError {
    let path = path.to_owned();
    move |source| DurableError { act, path, source }
}

/// Bytes that are free for the agent on the disk that holds `path`.
///
/// # Errors
/// What the system says, such as of a path that is not there.
pub fn free_bytes(path: &Path) -> Result<u64, DurableError> {
    let disk =
        rustix::fs::statvfs(path).map_err(|error| failed("measure free space of", path)(error.into()))?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// A name beside `path` that no other writer of this process uses.
fn temporary_beside(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!("{TEMPORARY}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    parent_of(path).join(name)
}

/// Makes something new under a temporary name beside `path`, and gives that name. One that is taken was left
/// by a writer that a power cut ended: in a container, each agent has the process id of the one before.
fn at_temporary(
    path: &Path,
    mut make: impl FnMut(&Path) -> Result<(), DurableError>,
) -> Result<PathBuf, DurableError> {
    let mut tries = 0;
    loop {
        let temporary = temporary_beside(path);
        match make(&temporary) {
            Err(error) if error.source.kind() == io::ErrorKind::AlreadyExists && tries < MAX_TAKEN => {
                tries += 1;
            }
            made => return made.map(|()| temporary),
        }
    }
}

/// The folder that holds `path`; `.` for a bare name.
pub fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes what was written to the file durable.
pub fn sync_file(path: &Path) -> Result<(), DurableError> {
    disk(path).sync_file(path).map_err(failed("sync file", path))
}

/// Makes durable what a database wrote by itself into its folder; `file` is the one that holds it.
pub fn sync_database(folder: &Path, file: &fs::File) -> Result<(), DurableError> {
    disk(folder).sync_database(folder, file).map_err(failed("sync the database in", folder))
}

/// Makes the names in a folder durable.
pub fn sync_dir(path: &Path) -> Result<(), DurableError> {
    disk(path).sync_dir(path).map_err(failed("sync folder", path))
}

/// Who may read and write a file, whatever the writer's own user and umask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Such as `0o600`.
    pub mode: u32,
    /// User and group; the writer's own when `None`. Only root may give a file away.
    pub owner: Option<(u32, u32)>,
}

/// Replaces the file at `path` by `bytes`: after a power cut it holds the old bytes or the new ones,
/// never a mixture. The folder must exist.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), DurableError> {
    write(path, bytes, None)
}

/// Like [`write_atomic`], for those who `access` says. At no moment can anybody else read it.
pub fn write_atomic_for(path: &Path, bytes: &[u8], access: Access) -> Result<(), DurableError> {
    write(path, bytes, Some(access))
}

/// Writes a new file with a key, which only its owner can read. A file that is there is never written over: the
/// source of the error is of the kind `AlreadyExists` then.
pub fn create_key_file(path: &Path, bytes: &[u8]) -> Result<(), DurableError> {
    let mut file = disk(path).create_new(path, 0o600).map_err(failed("create key file", path))?;
    file.write_all(bytes).map_err(failed("write key file", path))?;
    file.sync_all().map_err(failed("sync key file", path))?;
    sync_dir(parent_of(path))
}

/// Temporary files that a failing disk did not let go. The next write near them removes them.
static LEFT_BEHIND: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// So many of them are remembered; a start finds the others.
const MAX_LEFT_BEHIND: usize = 256;

/// Removes a temporary file, now or later.
fn let_go(temporary: PathBuf) {
    if disk(&temporary).remove_file(&temporary).is_err_and(|error| error.kind() != io::ErrorKind::NotFound) {
        let mut left = LEFT_BEHIND.lock().unwrap_or_else(PoisonError::into_inner);
        if left.len() < MAX_LEFT_BEHIND {
            left.push(temporary);
        }
    }
}

/// Removes what was left behind in the folder of `path`, below it and above it.
fn let_go_near(path: &Path) {
    let folder = parent_of(path);
    let near = |left: &mut PathBuf| left.starts_with(folder) || folder.starts_with(parent_of(left));
    let found: Vec<PathBuf> =
        LEFT_BEHIND.lock().unwrap_or_else(PoisonError::into_inner).extract_if(.., near).collect();
    found.into_iter().for_each(let_go);
}

fn write(path: &Path, bytes: &[u8], access: Option<Access>) -> Result<(), DurableError> {
    let_go_near(path);
    let disk = disk(path);
    let mode = if access.is_some() { 0o600 } else { 0o666 };
    let mut opened = None;
    let temporary = at_temporary(path, |temporary| {
        opened = Some(disk.create_new(temporary, mode).map_err(failed("create", temporary))?);
        Ok(())
    })?;
    let written = opened.map_or(Ok(()), |mut file| {
        if let Some(Access { mode, owner }) = access {
            if let Some((user, group)) = owner {
                file.give_to(user, group).map_err(failed("give away", &temporary))?;
            }
            file.set_mode(mode).map_err(failed("set mode", &temporary))?;
        }
        file.write_all(bytes).map_err(failed("write", &temporary))?;
        file.sync_all().map_err(failed("sync file", &temporary))?;
        drop(file);
        rename_synced(&temporary, path)
    });
    if written.is_err() {
        let_go(temporary);
    }
    written
}

/// Opens a file to be locked, and makes it where it is missing. On a read-only disk one that is there will do.
pub fn create_lock(path: &Path) -> Result<std::fs::File, DurableError> {
    let made = std::fs::File::create(path).or_else(|error| match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => std::fs::File::open(path),
        _ => Err(error),
    });
    made.map_err(failed("create", path))
}

/// A lock that is held for longer is that of a process that is alive.
pub const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Locks a file for this process alone. A process that was killed can hold a lock for a moment longer, by a child that
/// it had forked and that has not yet become another program. Blocks for that long.
///
/// # Errors
/// `WOULDBLOCK` where another process holds the lock, and what the system says.
pub fn lock_soon(file: &fs::File) -> rustix::io::Result<()> {
    let start = Instant::now();
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) if start.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(LOCK_PATIENCE / 40);
            }
            locked => return locked,
        }
    }
}

/// Renames within one file system and makes the new name durable. A file at `to` is replaced; a
/// folder at `to` must be empty. Both folders are synced where they differ.
pub fn rename_synced(from: &Path, to: &Path) -> Result<(), DurableError> {
    disk(to).rename(from, to).map_err(failed("rename to", to))?;
    sync_dir(parent_of(to))?;
    if parent_of(from) != parent_of(to) {
        sync_dir(parent_of(from))?;
    }
    Ok(())
}

/// Points the symbolic link `link` at `target`, whether or not it exists already: after a power cut
/// it points at the old target or the new one. `target` is stored as given.
pub fn symlink_atomic(target: &Path, link: &Path) -> Result<(), DurableError> {
    let_go_near(link);
    let temporary = at_temporary(link, |temporary| {
        disk(link).symlink(target, temporary).map_err(failed("make link", temporary))
    })?;
    let renamed = rename_synced(&temporary, link);
    if renamed.is_err() {
        let_go(temporary);
    }
    renamed
}

/// Lets two names of one folder change places: after a power cut both did or neither. Needs no room.
///
/// # Errors
/// Also where the file system cannot do it.
pub fn exchange_synced(one: &Path, other: &Path) -> Result<(), DurableError> {
    disk(one).exchange(one, other).map_err(failed("exchange with another", one))?;
    sync_dir(parent_of(one))
}

/// Makes a folder and its missing parents, and makes their names durable. No error when it exists.
pub fn create_dir_synced(path: &Path) -> Result<(), DurableError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = parent_of(path);
    if parent != path {
        create_dir_synced(parent)?;
    }
    match disk(path).create_dir(path) {
        Ok(()) => sync_dir(parent),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(failed("make folder", path)(error)),
    }
}

/// Removes a file or link durably. No error when there is none.
pub fn remove_file_synced(path: &Path) -> Result<(), DurableError> {
    match disk(path).remove_file(path) {
        Ok(()) => sync_dir(parent_of(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("remove", path)(error)),
    }
}

/// Removes a folder with all that is in it. It loses its name first, so that after a power cut it is
/// whole or gone under that name. No error when there is none.
pub fn remove_dir_synced(path: &Path) -> Result<(), DurableError> {
    let doomed = temporary_beside(path);
    match disk(path).rename(path, &doomed) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("remove folder", path)(error)),
    }
    sync_dir(parent_of(path))?;
    disk(path).remove_dir_all(&doomed).map_err(failed("remove folder", &doomed))
}

/// Syncs every file and folder of a tree, children before parents.
pub fn sync_tree(path: &Path) -> Result<(), DurableError> {
    for entry in fs::read_dir(path).map_err(failed("list", path))? {
        let entry = entry.map_err(failed("list", path))?;
        let kind = entry.file_type().map_err(failed("look at", path))?;
        if kind.is_dir() {
            sync_tree(&entry.path())?;
        } else if kind.is_file() {
            sync_file(&entry.path())?;
        }
    }
    sync_dir(path)
}

/// Drops what interrupted writers left behind in a folder. Call it where no writer is at work.
pub fn remove_temporaries(dir: &Path) -> Result<(), DurableError> {
    for entry in fs::read_dir(dir).map_err(failed("list", dir))? {
        let entry = entry.map_err(failed("list", dir))?;
        if !entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            continue;
        }
        let path = entry.path();
        let kind = entry.file_type().map_err(failed("look at", &path))?;
        let disk = disk(&path);
        let removed = if kind.is_dir() { disk.remove_dir_all(&path) } else { disk.remove_file(&path) };
        removed.map_err(failed("remove", &path))?;
    }
    Ok(())
}

/// The same in all folders below it, too; no error where there is none.
pub fn remove_temporaries_below(dir: &Path) -> Result<(), DurableError> {
    if !dir.is_dir() {
        return Ok(());
    }
    remove_temporaries(dir)?;
    for entry in fs::read_dir(dir).map_err(failed("list", dir))? {
        let entry = entry.map_err(failed("list", dir))?;
        if entry.file_type().map_err(failed("look at", dir))?.is_dir() {
            remove_temporaries_below(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
