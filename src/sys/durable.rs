//! Files and folders that are whole after a power cut.
//!
//! The order is always the same: write under a temporary name, sync the file, rename, sync the
//! folder. A rename without the first sync may leave an empty file; without the second it may be
//! forgotten. Temporary names start with `.tmp-`, so that whoever lists a folder can skip them and a
//! clean-up can drop what a power cut left behind.

use crate::domain::{Reason, ReasonCode};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Start of every temporary name.
pub const TEMPORARY: &str = ".tmp-";

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

/// The folder that holds `path`; `.` for a bare name.
pub fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes what was written to the file durable.
pub fn sync_file(path: &Path) -> Result<(), DurableError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(failed("sync file", path))
}

/// Makes the names in a folder durable.
pub fn sync_dir(path: &Path) -> Result<(), DurableError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(failed("sync folder", path))
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
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.map_err(failed("create key file", path))?;
    file.write_all(bytes).map_err(failed("write key file", path))?;
    file.sync_all().map_err(failed("sync key file", path))?;
    sync_dir(parent_of(path))
}

fn write(path: &Path, bytes: &[u8], access: Option<Access>) -> Result<(), DurableError> {
    let temporary = temporary_beside(path);
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(if access.is_some() { 0o600 } else { 0o666 })
            .open(&temporary)
            .map_err(failed("create", &temporary))?;
        if let Some(Access { mode, owner }) = access {
            if let Some((user, group)) = owner {
                fchown(&file, Some(user), Some(group)).map_err(failed("give away", &temporary))?;
            }
            file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed("set mode", &temporary))?;
        }
        file.write_all(bytes).map_err(failed("write", &temporary))?;
        file.sync_all().map_err(failed("sync file", &temporary))?;
        drop(file);
        rename_synced(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Opens a file to be locked, and makes it where it is missing. On a read-only disk one that is there will do.
pub fn create_lock(path: &Path) -> Result<File, DurableError> {
    let made = File::create(path).or_else(|error| match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => File::open(path),
        _ => Err(error),
    });
    made.map_err(failed("create", path))
}

/// Renames within one file system and makes the new name durable. A file at `to` is replaced; a
/// folder at `to` must be empty. Both folders are synced where they differ.
pub fn rename_synced(from: &Path, to: &Path) -> Result<(), DurableError> {
    fs::rename(from, to).map_err(failed("rename to", to))?;
    sync_dir(parent_of(to))?;
    if parent_of(from) != parent_of(to) {
        sync_dir(parent_of(from))?;
    }
    Ok(())
}

/// Points the symbolic link `link` at `target`, whether or not it exists already: after a power cut
/// it points at the old target or the new one. `target` is stored as given.
pub fn symlink_atomic(target: &Path, link: &Path) -> Result<(), DurableError> {
    let temporary = temporary_beside(link);
    std::os::unix::fs::symlink(target, &temporary).map_err(failed("make link", &temporary))?;
    let renamed = rename_synced(&temporary, link);
    if renamed.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    renamed
}

/// Lets two names of one folder change places: after a power cut both did or neither. Needs no room.
///
/// # Errors
/// Also where the file system cannot do it.
pub fn exchange_synced(one: &Path, other: &Path) -> Result<(), DurableError> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)
        .map_err(|error| failed("exchange with another", one)(error.into()))?;
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
    match fs::create_dir(path) {
        Ok(()) => sync_dir(parent),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(failed("make folder", path)(error)),
    }
}

/// Removes a file or link durably. No error when there is none.
pub fn remove_file_synced(path: &Path) -> Result<(), DurableError> {
    match fs::remove_file(path) {
        Ok(()) => sync_dir(parent_of(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("remove", path)(error)),
    }
}

/// Removes a folder with all that is in it. It loses its name first, so that after a power cut it is
/// whole or gone under that name. No error when there is none.
pub fn remove_dir_synced(path: &Path) -> Result<(), DurableError> {
    let doomed = temporary_beside(path);
    match fs::rename(path, &doomed) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("remove folder", path)(error)),
    }
    sync_dir(parent_of(path))?;
    fs::remove_dir_all(&doomed).map_err(failed("remove folder", &doomed))
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
        let removed = if kind.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(failed("remove", &path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_write_replaces_the_whole_file_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write_atomic(&path, b"a long first text").unwrap();
        write_atomic(&path, b"short").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"short");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_is_for_those_who_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        for mode in [0o600, 0o644, 0o640] {
            write_atomic_for(&path, b"x", Access { mode, owner: None }).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
        }
        let given = write_atomic_for(&path, b"y", Access { mode: 0o600, owner: Some((65534, 65534)) });
        if rustix::process::geteuid().is_root() {
            given.unwrap();
            let metadata = fs::metadata(&path).unwrap();
            assert_eq!((metadata.uid(), metadata.gid()), (65534, 65534));
        } else {
            assert!(given.unwrap_err().to_string().starts_with("give away"));
            assert_eq!(fs::read(&path).unwrap(), b"x");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_keeps_the_old_file_names_the_path_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), b"x").unwrap();
        let error = write_atomic(&path, b"new").unwrap_err();
        assert!(error.to_string().starts_with(&format!("rename to {}: ", path.display())), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_moves_from_one_target_to_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("current");
        symlink_atomic(Path::new("../one"), &link).unwrap();
        symlink_atomic(Path::new("../two"), &link).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("../two"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn removing_what_is_not_there_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        remove_file_synced(&dir.path().join("a")).unwrap();
        remove_dir_synced(&dir.path().join("b")).unwrap();
        create_dir_synced(&dir.path().join("b/c/d")).unwrap();
        create_dir_synced(&dir.path().join("b/c/d")).unwrap();
        fs::write(dir.path().join("b/c/d/file"), b"x").unwrap();
        sync_tree(dir.path()).unwrap();
        remove_dir_synced(&dir.path().join("b")).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_what_interrupted_writers_left_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".tmp-1-1"), b"x").unwrap();
        fs::create_dir(dir.path().join(".tmp-1-2")).unwrap();
        fs::write(dir.path().join("keep"), b"x").unwrap();
        remove_temporaries(dir.path()).unwrap();
        let names: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["keep"]);
    }

    #[test]
    fn a_full_disk_has_its_own_code_and_remedy() {
        let error = failed("write", Path::new("/x"))(io::Error::from(io::ErrorKind::StorageFull));
        let reason = Reason::from(error);
        assert_eq!(reason.code, ReasonCode::DiskFull);
        assert!(reason.detail.contains("/x") && reason.detail.contains("free some space"), "{reason}");
    }

    #[test]
    fn a_file_keeps_the_mode_that_others_can_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write_atomic(&path, b"x").unwrap();
        assert_ne!(fs::metadata(&path).unwrap().permissions().mode() & 0o400, 0);
    }
}
