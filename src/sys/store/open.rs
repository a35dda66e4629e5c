//! Opening the database: reads all of it, tells a bad one from a bad disk, and puts a bad one aside.

use super::{LOCK_PATIENCE, StoreError, ValueFault, durable, values};
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
    let (db, told) = match open_unlocked(dir) {
        Ok(db) => (db, None),
        Err(Fault::Environment(error)) => return Err(error),
        Err(Fault::Content(fault)) => {
            let aside = put_aside(dir)?;
            let db = open_checked(dir).map_err(|again| match again {
                Fault::Environment(error) => error,
                Fault::Content(fault) => StoreError::Damaged { key: dir.display().to_string(), fault },
            })?;
            let told =
                format!("store {} could not be read ({fault}); kept as {}", dir.display(), aside.display());
            (db, Some(told))
        }
    };
    let path = dir.join("db");
    let file = File::open(&path).map_err(durable::failed("open", &path))?;
    let path = dir.join("mark");
    let mark = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mark = mark.map_err(durable::failed("open", &path))?;
    // The names of what was made in the folder.
    durable::sync_dir(dir)?;
    Ok((Base { db, file, mark }, told))
}

/// The same, once the threads of one that was closed just now in this process have let go of its lock. Nobody
/// else can hold it: the store has a lock of its own around it.
fn open_unlocked(dir: &Path) -> Result<sled::Db, Fault> {
    let start = Instant::now();
    loop {
        match open_checked(dir) {
            Err(Fault::Environment(StoreError::Database { source: sled::Error::Io(error), .. }))
                if start.elapsed() < LOCK_PATIENCE
                    && error.to_string().contains("could not acquire lock") =>
            {
                std::thread::sleep(LOCK_PATIENCE / 100);
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
        Ok(Err(sled::Error::Io(error))) => match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                Err(Fault::Content(error.to_string()))
            }
            _ => Err(environment(sled::Error::Io(error))),
        },
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

/// Renames the folder to the first free `<dir>.corrupt-<n>`, and drops the oldest of too many.
fn put_aside(dir: &Path) -> Result<PathBuf, StoreError> {
    let mut number: usize = 1;
    let aside = loop {
        let aside = with_suffix(dir, &format!(".corrupt-{number}"));
        if !aside.exists() {
            break aside;
        }
        number += 1;
    };
    durable::rename_synced(dir, &aside)?;
    for old in 1..=number.saturating_sub(KEPT_ASIDE) {
        let old = with_suffix(dir, &format!(".corrupt-{old}"));
        // Its name stays, so that numbers go on rising; its content is what takes room.
        if let Err(error) = fs::remove_dir_all(&old).and_then(|()| fs::create_dir(&old)) {
            tracing::warn!(path = %old.display(), %error, "an old store that was put aside cannot be dropped");
        }
    }
    Ok(aside)
}

pub(super) fn with_suffix(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    dir.with_file_name(name)
}
