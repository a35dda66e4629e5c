//! What the agent must remember over restarts and power cuts: typed values under names, in one `sled`
//! database. The only file that names `sled`.
//!
//! - Every value carries a version byte, its length and a CRC-32 over its key and its bytes.
//! - `sled` 0.34.7 keeps a leaf of up to 17 values as one record and writes a record above 128 KiB
//!   into a file of its own that it never syncs (`pagecache/blob_io.rs`). So a value is cut into
//!   pieces of `PIECE` bytes, and no record grows that large.
//! - Its `flush` uses `sync_file_range` (`pagecache/iobuf.rs`), which does not empty the disk's cache:
//!   [`Store::sync`] adds an `fsync` of the database file.
//! - What is changed by [`Store::batch`] is durable and whole when it returns. The other changes are
//!   durable after the next [`Store::sync`] (or batch), in the order they were made.
//! - Where a record of the newest part of its log is damaged, `sled` takes it for the log's end and says
//!   nothing. So every sync is counted in the database, and the count is written beside it (`mark`)
//!   once the database is durable: a database that is behind its mark has lost something.
//! - A store that cannot be read is put aside as `store.corrupt-<n>` and a new one is made: which model
//!   runs is told by the slots' links, so the device lives on, and the caller reports the loss.
//!
//! Measured: 40 000 messages of 1 KB pushed and removed, a sync every 20, keep the file below 3 MiB.
//! All calls block; from async code use `tokio::task::spawn_blocking`.

use super::durable::{self, DurableError};
use crate::domain::{Reason, ReasonCode};
use rustix::fs::{FlockOperation, flock};
use serde::{Serialize, de::DeserializeOwned};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// Longest value, bytes of JSON.
pub const MAX_VALUE: usize = 4 << 20;

/// Bytes of one piece of a value: 17 of them stay below `sled`'s 128 KiB.
const PIECE: usize = 6 << 10;

/// Longest key of a value, bytes.
const MAX_KEY: usize = 200;

/// The version of the encoding below.
const VERSION: u8 = 1;

/// Tree of the counts, and the key of the count of syncs in it.
const COUNTS: &str = "counts";
const SYNCS: &str = "\u{1}syncs";

/// Version byte, CRC-32 and length before a value's first byte.
const HEADER: usize = 9;

/// So many stores put aside are kept; older ones are dropped, so that a bad disk is not filled too.
const KEPT_ASIDE: usize = 2;

/// What went wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("open store {}: another agent uses this state folder; stop it, or give this one its own", .0.display())]
    InUse(PathBuf),
    /// A file operation beside the database failed.
    #[error(transparent)]
    File(#[from] DurableError),
    /// The database failed; nothing is said about its content.
    #[error("{act} store {}: {source}", path.display())]
    Database {
        /// Such as "sync".
        act: &'static str,
        /// The store's folder.
        path: PathBuf,
        /// The database's answer.
        source: sled::Error,
    },
    /// A stored value is not what was written.
    #[error("read \"{key}\" from the store: {fault}; the disk may be failing")]
    Damaged {
        /// Tree and key.
        key: String,
        /// What is wrong with it.
        fault: String,
    },
    /// A value or a key is too long, or the value has no JSON form.
    #[error("write \"{key}\" to the store: {fault}")]
    Unfit {
        /// Tree and key.
        key: String,
        /// What is wrong with it.
        fault: String,
    },
}

impl From<StoreError> for Reason {
    fn from(error: StoreError) -> Self {
        let full = match &error {
            StoreError::Database { source: sled::Error::Io(error), .. } => durable::is_disk_full(error),
            StoreError::File(error) => error.is_disk_full(),
            StoreError::Database { .. }
            | StoreError::InUse(_)
            | StoreError::Damaged { .. }
            | StoreError::Unfit { .. } => false,
        };
        Reason::new(if full { ReasonCode::DiskFull } else { ReasonCode::Internal }, error.to_string())
    }
}

/// What [`Store::open`] found.
#[derive(Debug)]
pub struct Opened {
    /// Ready for use.
    pub store: Store,
    /// Set when something that was stored is lost, for health to tell: why, and where what was there
    /// is kept.
    pub quarantined: Option<String>,
}

/// The open store; clones share it.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    db: sled::Db,
    /// `<dir>/db`, opened for `fsync`.
    file: File,
    /// `<dir>/mark`: how many syncs were made, for certain.
    mark: File,
    path: PathBuf,
    /// One writer at a time; readers take it too, so that none sees a value half replaced.
    turn: Mutex<()>,
    /// Locked for as long as the store is open. After `db`: dropped last.
    _lock: File,
}

impl Store {
    /// Opens the store in folder `dir` and reads every value once; makes the folder when it is
    /// missing. A store that cannot be read is put aside.
    ///
    /// Errors: in use by another process; no room or no right to write.
    pub fn open(dir: &Path) -> Result<Opened, StoreError> {
        let parent = dir.parent().unwrap_or(Path::new("."));
        durable::create_dir_synced(parent)?;
        let lock_path = with_suffix(dir, ".lock");
        let lock = File::create(&lock_path).map_err(durable::failed("create", &lock_path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| StoreError::InUse(dir.to_owned()))?;
        let fault = match open_checked(dir) {
            Ok(db) => return Self::finish(db, dir, lock, None),
            Err(Fault::Environment(error)) => return Err(error),
            Err(Fault::Content(fault)) => fault,
        };
        let aside = put_aside(dir)?;
        let db = open_checked(dir).map_err(|again| match again {
            Fault::Environment(error) => error,
            Fault::Content(fault) => StoreError::Damaged { key: dir.display().to_string(), fault },
        })?;
        let told =
            format!("store {} could not be read ({fault}); kept as {}", dir.display(), aside.display());
        Self::finish(db, dir, lock, Some(told))
    }

    fn finish(
        db: sled::Db,
        dir: &Path,
        lock: File,
        mut quarantined: Option<String>,
    ) -> Result<Opened, StoreError> {
        let path = dir.join("db");
        let file = File::open(&path).map_err(durable::failed("open", &path))?;
        let path = dir.join("mark");
        let mark = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mark = mark.map_err(durable::failed("open", &path))?;
        let marked = read_mark(&mark);
        // The names of what was made in the folder.
        durable::sync_dir(dir)?;
        let inner = Inner { db, file, mark, path: dir.to_owned(), turn: Mutex::new(()), _lock: lock };
        let store = Self(Arc::new(inner));
        let counted = store.tree::<u64>(COUNTS).get(SYNCS)?.unwrap_or(0);
        if counted < marked {
            let lost = marked - counted;
            let told =
                format!("store {} lost its newest {lost} changes; the disk may be failing", dir.display());
            quarantined.get_or_insert(told);
        }
        Ok(Opened { store, quarantined })
    }

    /// Values of type `T` under keys. `name` says which; the same name gives the same values.
    pub fn tree<T: Serialize + DeserializeOwned>(&self, name: &'static str) -> Tree<T> {
        Tree { store: self.clone(), name, of: PhantomData }
    }

    /// Values of type `T` in the order they came.
    pub fn queue<T: Serialize + DeserializeOwned>(&self, name: &'static str) -> Queue<T> {
        Queue { tree: self.tree(name) }
    }

    /// Makes all changes so far durable.
    pub fn sync(&self) -> Result<(), StoreError> {
        let turn = self.turn();
        let counts = self.tree::<u64>(COUNTS);
        let syncs = counts.get_with(SYNCS, &turn)?.unwrap_or(0) + 1;
        let mut batch = Batch::default();
        batch.put(&counts, SYNCS, &syncs)?;
        self.apply_with(batch, &turn)?;
        self.0.db.flush().map_err(self.failed("sync"))?;
        self.0.file.sync_all().map_err(durable::failed("sync file", &self.0.path.join("db")))?;
        // Not synced: a mark that a power cut takes back only notices less.
        let count = syncs.to_le_bytes();
        let mark = [&count[..], &crc32fast::hash(&count).to_le_bytes()].concat();
        Ok(self.0.mark.write_all_at(&mark, 0).map_err(durable::failed("write", &self.0.path.join("mark")))?)
    }

    /// Makes all changes of the batch, or none; they are durable when this returns.
    pub fn batch(&self, batch: Batch) -> Result<(), StoreError> {
        self.apply(batch)?;
        self.sync()
    }

    /// The next number of the count called `name`: 1, 2, … and never again one that was given out,
    /// whatever happens. Durable when this returns.
    pub fn next_id(&self, name: &'static str) -> Result<u64, StoreError> {
        let turn = self.turn();
        let counts = self.tree::<u64>(COUNTS);
        let next = counts.get_with(name, &turn)?.unwrap_or(0) + 1;
        let mut batch = Batch::default();
        batch.put(&counts, name, &next)?;
        self.apply_with(batch, &turn)?;
        drop(turn);
        self.sync()?;
        Ok(next)
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        // What a panicking holder left behind is whole: `sled` applies a batch as one.
        self.0.turn.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        self.apply_with(batch, &self.turn())
    }

    fn apply_with(&self, batch: Batch, _turn: &MutexGuard<'_, ()>) -> Result<(), StoreError> {
        let mut writes = sled::Batch::default();
        for (prefix, value) in batch.0 {
            for piece in self.0.db.scan_prefix(&prefix).keys() {
                writes.remove(piece.map_err(self.failed("read"))?);
            }
            for (number, piece) in value.iter().flat_map(|value| value.chunks(PIECE).enumerate()) {
                writes.insert([&prefix[..], &(number as u16).to_be_bytes()].concat(), piece);
            }
        }
        self.0.db.apply_batch(writes).map_err(self.failed("write"))
    }

    fn failed(&self, act: &'static str) -> impl Fn(sled::Error) -> StoreError {
        let path = self.0.path.clone();
        move |source| StoreError::Database { act, path: path.clone(), source }
    }
}

/// A value's prefix and its new bytes; `None` removes it.
type Change = (Vec<u8>, Option<Vec<u8>>);

/// Changes that are made together.
#[derive(Debug, Default)]
pub struct Batch(Vec<Change>);

impl Batch {
    /// Sets a value.
    pub fn put<T: Serialize>(&mut self, tree: &Tree<T>, key: &str, value: &T) -> Result<(), StoreError> {
        let name = format!("{}/{key}", tree.name);
        let unfit = |fault: String| StoreError::Unfit { key: name.clone(), fault };
        if key.len() > MAX_KEY || key.contains('\0') {
            return Err(unfit(format!("a key has {MAX_KEY} bytes at most and no NUL")));
        }
        let json = serde_json::to_vec(value).map_err(|error| unfit(error.to_string()))?;
        if json.len() > MAX_VALUE {
            return Err(unfit(format!("{} bytes are more than {MAX_VALUE}", json.len())));
        }
        let prefix = tree.prefix(key);
        let value = encode(&prefix, &json);
        self.0.push((prefix, Some(value)));
        Ok(())
    }

    /// Removes a value; no error when there is none.
    pub fn remove<T>(&mut self, tree: &Tree<T>, key: &str) {
        self.0.push((tree.prefix(key), None));
    }
}

/// Values of one type under text keys.
#[derive(Debug)]
pub struct Tree<T> {
    store: Store,
    name: &'static str,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Tree<T> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), name: self.name, of: PhantomData }
    }
}

impl<T> Tree<T> {
    fn prefix(&self, key: &str) -> Vec<u8> {
        [self.name.as_bytes(), b"\0", key.as_bytes(), b"\0"].concat()
    }

    /// How many values there are.
    pub fn len(&self) -> Result<usize, StoreError> {
        let _turn = self.store.turn();
        let mut count = 0;
        for key in self.store.0.db.scan_prefix([self.name.as_bytes(), b"\0"].concat()).keys() {
            // Piece 0 stands for its value.
            count += usize::from(key.map_err(self.store.failed("read"))?.ends_with(&[0, 0]));
        }
        Ok(count)
    }

    /// True when there is none.
    pub fn is_empty(&self) -> Result<bool, StoreError> {
        Ok(self.len()? == 0)
    }

    /// Removes a value; no error when there is none. Durable after the next sync.
    pub fn remove(&self, key: &str) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        batch.remove(self, key);
        self.store.apply(batch)
    }
}

impl<T: Serialize + DeserializeOwned> Tree<T> {
    /// The value under `key`.
    pub fn get(&self, key: &str) -> Result<Option<T>, StoreError> {
        self.get_with(key, &self.store.turn())
    }

    /// Sets the value under `key`. Durable after the next sync.
    pub fn put(&self, key: &str, value: &T) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        batch.put(self, key, value)?;
        self.store.apply(batch)
    }

    /// All keys with their values, in the order of the keys.
    pub fn entries(&self) -> Result<Vec<(String, T)>, StoreError> {
        self.starting_at("", usize::MAX)
    }

    fn get_with(&self, key: &str, _turn: &MutexGuard<'_, ()>) -> Result<Option<T>, StoreError> {
        let found = values(self.store.0.db.scan_prefix(self.prefix(key))).next();
        found.map(|value| self.typed(value).map(|(_, value)| value)).transpose()
    }

    /// At most `count` values whose key is `first` or comes after it.
    fn starting_at(&self, first: &str, count: usize) -> Result<Vec<(String, T)>, StoreError> {
        let _turn = self.store.turn();
        let start = [self.name.as_bytes(), b"\0", first.as_bytes()].concat();
        let end = [self.name.as_bytes(), b"\x01"].concat();
        values(self.store.0.db.range(start..end)).take(count).map(|value| self.typed(value)).collect()
    }

    fn typed(&self, value: Result<(Vec<u8>, Vec<u8>), ValueFault>) -> Result<(String, T), StoreError> {
        match value {
            Ok((prefix, json)) => {
                let key =
                    String::from_utf8_lossy(&prefix[self.name.len() + 1..prefix.len() - 1]).into_owned();
                let value = serde_json::from_slice(&json).map_err(|error| StoreError::Damaged {
                    key: format!("{}/{key}", self.name),
                    fault: error.to_string(),
                })?;
                Ok((key, value))
            }
            Err(ValueFault::Database(error)) => Err(self.store.failed("read")(error)),
            Err(ValueFault::Damaged(key, fault)) => Err(StoreError::Damaged { key, fault }),
        }
    }
}

/// Values of one type in the order they came, each with a number that rises and is never used again.
#[derive(Debug)]
pub struct Queue<T> {
    tree: Tree<T>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { tree: self.tree.clone() }
    }
}

impl<T> Queue<T> {
    /// How many values there are; reads all keys.
    pub fn len(&self) -> Result<usize, StoreError> {
        self.tree.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> Result<bool, StoreError> {
        self.tree.is_empty()
    }

    /// Removes the value with this number; no error when there is none. Durable after the next sync.
    pub fn remove(&self, number: u64) -> Result<(), StoreError> {
        self.tree.remove(&numbered(number))
    }
}

impl<T: Serialize + DeserializeOwned> Queue<T> {
    /// Appends a value and tells its number. Durable after the next sync, together with all that came
    /// before it.
    pub fn push(&self, value: &T) -> Result<u64, StoreError> {
        let store = &self.tree.store;
        let turn = store.turn();
        let counts = store.tree::<u64>(COUNTS);
        let number = counts.get_with(self.tree.name, &turn)?.unwrap_or(0) + 1;
        let mut batch = Batch::default();
        batch.put(&counts, self.tree.name, &number)?;
        batch.put(&self.tree, &numbered(number), value)?;
        store.apply_with(batch, &turn)?;
        Ok(number)
    }

    /// The oldest `count` values with their numbers.
    pub fn first(&self, count: usize) -> Result<Vec<(u64, T)>, StoreError> {
        self.after(0, count)
    }

    /// The oldest `count` values with a number above `number`.
    pub fn after(&self, number: u64, count: usize) -> Result<Vec<(u64, T)>, StoreError> {
        let found = self.tree.starting_at(&numbered(number.saturating_add(1)), count)?;
        Ok(found
            .into_iter()
            .map(|(key, value)| (u64::from_str_radix(&key, 16).unwrap_or(0), value))
            .collect())
    }

    /// The value with this number.
    pub fn get(&self, number: u64) -> Result<Option<T>, StoreError> {
        self.tree.get(&numbered(number))
    }
}

/// The count in a mark file; 0 where there is none or it is torn.
fn read_mark(mark: &File) -> u64 {
    let mut bytes = [0; 12];
    if mark.read_exact_at(&mut bytes, 0).is_err() {
        return 0;
    }
    let (count, sum) = bytes.split_at(8);
    if sum != crc32fast::hash(count).to_le_bytes() {
        return 0;
    }
    count.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

/// A number as a key: the order of the texts is the order of the numbers.
fn numbered(number: u64) -> String {
    format!("{number:016x}")
}

fn checksum(prefix: &[u8], json: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(prefix);
    hasher.update(json);
    hasher.finalize().to_le_bytes()
}

fn encode(prefix: &[u8], json: &[u8]) -> Vec<u8> {
    [&[VERSION][..], &checksum(prefix, json), &(json.len() as u32).to_le_bytes(), json].concat()
}

fn decode(prefix: &[u8], bytes: &[u8]) -> Result<Vec<u8>, String> {
    if bytes.len() < HEADER {
        return Err(format!("{} bytes are too few", bytes.len()));
    }
    let (header, json) = bytes.split_at(HEADER);
    if header[0] != VERSION {
        return Err(format!("written by another version of this program ({})", header[0]));
    }
    if header[5..9] != (json.len() as u32).to_le_bytes() || header[1..5] != checksum(prefix, json) {
        return Err("checksum differs".to_owned());
    }
    Ok(json.to_vec())
}

enum ValueFault {
    Database(sled::Error),
    Damaged(String, String),
}

/// Joins the pieces of each value and checks it. Ends after the first failure of the database.
fn values(pieces: sled::Iter) -> impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), ValueFault>> {
    let mut pieces = pieces.peekable();
    let mut broken = false;
    std::iter::from_fn(move || {
        if broken {
            return None;
        }
        let prefix_of = |key: &sled::IVec| key[..key.len().saturating_sub(2)].to_vec();
        let (first, mut bytes) = match pieces.next()? {
            Ok((key, piece)) => (key, piece.to_vec()),
            Err(error) => {
                broken = true;
                return Some(Err(ValueFault::Database(error)));
            }
        };
        let prefix = prefix_of(&first);
        while let Some(Ok((_, piece))) =
            pieces.next_if(|next| next.as_ref().is_ok_and(|(key, _)| prefix_of(key) == prefix))
        {
            bytes.extend_from_slice(&piece);
        }
        Some(decode(&prefix, &bytes).map(|json| (prefix.clone(), json)).map_err(|fault| {
            let key = String::from_utf8_lossy(&prefix).trim_end_matches('\0').replace('\0', "/");
            ValueFault::Damaged(key, fault)
        }))
    })
}

/// Why the database was not opened.
enum Fault {
    /// It may be good; something around it is not.
    Environment(StoreError),
    /// What it holds cannot be read.
    Content(String),
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

fn with_suffix(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    dir.with_file_name(name)
}

#[cfg(test)]
mod tests;
