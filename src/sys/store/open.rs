//! Opening the database: reads all of it, tells a bad one from a bad disk, and puts a bad one aside. What cannot be
//! read for whatever reason (damaged, another user's, a folder in place of a file) is a bad one: the agent has to start
//! without what it holds.

use super::{StoreError, ValueFault, durable, values};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// So many stores put aside are kept; older ones are dropped, so that a bad disk is not filled too.
const KEPT_ASIDE: usize = 2;

/// Why the database was not opened.
enum Fault {
    /// It may be good; something around it is not.
    Environment(StoreError),
    /// What it holds cannot be read.
    Content(String),
}

/// The open database and the files beside it.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) db: sled::Db,
    /// `<dir>/db`, opened for `fsync`.
    pub(super) file: File,
    /// `<dir>/mark`: how many syncs were made, for certain.
    pub(super) mark: File,
}

/// Opens all of it. A database that cannot be read is put aside, which is told, and a new one is made.
pub(super) fn base(dir: &Path) -> Result<(Base, Option<String>), StoreError> {
    match whole(dir) {
        Ok(base) => Ok((base, None)),
        Err(Fault::Environment(error)) => Err(error),
        Err(Fault::Content(fault)) => {
            let aside = put_aside(dir)?;
            let base = whole(dir).map_err(|again| match again {
                Fault::Environment(error) => error,
                Fault::Content(fault) => StoreError::Damaged { key: dir.display().to_string(), fault },
            })?;
            let told =
                format!("store {} could not be read ({fault}); kept as {}", dir.display(), aside.display());
            Ok((base, Some(told)))
        }
    }
}

/// The database with the files beside it.
fn whole(dir: &Path) -> Result<Base, Fault> {
    let db = open_unlocked(dir)?;
    let beside = |path: &Path, options: &mut OpenOptions| {
        options.open(path).map_err(|error| match is_unreadable(&error) {
            true => Fault::Content(format!("{}: {error}", path.display())),
            false => Fault::Environment(durable::failed("open", path)(error).into()),
        })
    };
    let file = beside(&dir.join("db"), OpenOptions::new().read(true))?;
    let mark =
        beside(&dir.join("mark"), OpenOptions::new().read(true).write(true).create(true).truncate(false))?;
    // The names of what was made in the folder.
    durable::sync_dir(dir).map_err(|error| Fault::Environment(error.into()))?;
    Ok(Base { db, file, mark })
}

/// What another try would find again, and a new database would not.
fn is_unreadable(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    let told = matches!(
        error.kind(),
        UnexpectedEof
            | InvalidData
            | InvalidInput
            | AlreadyExists
            | IsADirectory
            | NotADirectory
            | PermissionDenied
    );
    // A part of the disk that can no longer be read.
    told || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// The same, once the threads of one that was closed just now in this process have let go of its lock. Nobody
/// else can hold it: the store has a lock of its own around it.
fn open_unlocked(dir: &Path) -> Result<sled::Db, Fault> {
    let start = Instant::now();
    loop {
        match open_checked(dir) {
            Err(Fault::Environment(error))
                if start.elapsed() < durable::LOCK_PATIENCE && is_locked(&error) =>
            {
                std::thread::sleep(durable::LOCK_PATIENCE / 100);
            }
            opened => return opened,
        }
    }
}

/// Opens the database and reads all of it once.
fn open_checked(dir: &Path) -> Result<sled::Db, Fault> {
    let opened = std::panic::catch_unwind(|| {
        let db = sled::Config::new().path(dir).cache_capacity(4 << 20).flush_every_ms(None).open()?;
        for value in values(db.iter()) {
            match value {
                Ok(_) => {}
                Err(ValueFault::Database(error)) => return Err(error),
                Err(ValueFault::Damaged(key, fault)) => {
                    return Err(sled::Error::ReportableBug(format!("value \"{key}\": {fault}")));
                }
            }
        }
        Ok(db)
    });
    let environment =
        |source| Fault::Environment(StoreError::Database { act: "open", path: dir.to_owned(), source });
    match opened {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(sled::Error::Io(error))) if is_unreadable(&error) => Err(Fault::Content(error.to_string())),
        Ok(Err(sled::Error::Io(error))) => Err(environment(sled::Error::Io(error))),
        Ok(Err(
            error @ (sled::Error::CollectionNotFound(_)
            | sled::Error::Unsupported(_)
            | sled::Error::ReportableBug(_)
            | sled::Error::Corruption { .. }),
        )) => Err(Fault::Content(error.to_string())),
        // `sled` asserts on some damaged files.
        Err(_) => Err(Fault::Content("the database gave up while opening it".to_owned())),
    }
}

/// Renames the folder to `<dir>.corrupt-<n>`, above the numbers there are, and drops the oldest of too many.
fn put_aside(dir: &Path) -> Result<PathBuf, StoreError> {
    let start = with_suffix(dir, ".corrupt-");
    let start = start.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let parent = durable::parent_of(dir);
    let names = fs::read_dir(parent).map_err(durable::failed("list", parent))?.flatten();
    let mut numbers: Vec<u64> =
        names.filter_map(|entry| entry.file_name().to_str()?.strip_prefix(&start)?.parse().ok()).collect();
    numbers.sort_unstable();
    let aside = parent.join(format!("{start}{}", numbers.last().map_or(1, |last| last.saturating_add(1))));
    durable::rename_synced(dir, &aside)?;
    for old in &numbers[..(numbers.len() + 1).saturating_sub(KEPT_ASIDE)] {
        let old = parent.join(format!("{start}{old}"));
        let dropped = if old.is_dir() { fs::remove_dir_all(&old) } else { fs::remove_file(&old) };
        if let Err(error) = dropped {
            tracing::warn!(path = %old.display(), %error, "an old store that was put aside cannot be dropped");
        }
    }
    Ok(aside)
}

/// Whether somebody holds the lock of the database itself.
pub(super) fn is_locked(error: &StoreError) -> bool {
    matches!(error, StoreError::Database { source: sled::Error::Io(error), .. }
        if error.to_string().contains("could not acquire lock"))
}

/// Gives the database a file that nobody has locked: a thread of `sled` that hangs holds the lock of the one before,
/// and may still write to that, for as long as the process lives.
pub(super) fn leave_lock(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join("db");
    let bytes = fs::read(&path).map_err(durable::failed("read", &path))?;
    Ok(durable::write_atomic(&path, &bytes)?)
}

pub(super) fn with_suffix(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    dir.with_file_name(name)
}
