//! What the agent must remember over restarts and power cuts: typed values under names, in one `sled`
//! database. Only this file and the folder beside it name `sled`.
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
//! - After a write that failed `sled` keeps its first error until it is opened anew, so the store does
//!   that (`live`): once there is room, with a growing wait. What was accepted and was not durable yet is
//!   kept in memory until it is, and is made again then. A batch that failed is not. In the same way a
//!   store is opened later that could not be opened at the start, because its disk was full or read-only
//!   ([`Store::open_or_later`]). How it is at the moment is told by [`Store::condition`].
//! - A flush of `sled` may wait for ever for a write that failed (`bounded`), so its patience is bounded
//!   here: a disk that fails must not take with it what only wants to remember something.
//!
//! Measured: 40 000 messages of 1 KB pushed and removed, a sync every 20, keep the file below 3 MiB.
//! All calls block; from async code use [`blocking`](super::blocking). It is opened there, too: the threads
//! of `sled` are made by the one that opens the first database, and inherit its low priority.

use super::durable::{self, DurableError};
use crate::domain::{Reason, ReasonCode};
use live::Live;
use open::with_suffix;
use serde::{Serialize, de::DeserializeOwned};
use std::fs::File;
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

mod bounded;
mod live;
mod open;
mod queue;

pub use queue::Queue;

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

/// Bytes of changes that are kept until they are durable; more are made durable at once.
const MAX_UNSYNCED: usize = 1 << 20;

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
        let code = if error.is_disk_full() { ReasonCode::DiskFull } else { ReasonCode::Internal };
        let remedy = match error {
            StoreError::Database { .. } if code == ReasonCode::DiskFull => "; make room",
            // Those have their own.
            _ => "",
        };
        Reason::new(code, format!("{error}{remedy}"))
    }
}

impl StoreError {
    /// True where nothing is wrong but that there is no room.
    pub fn is_disk_full(&self) -> bool {
        match self {
            StoreError::Database { source: sled::Error::Io(error), .. } => durable::is_disk_full(error),
            StoreError::File(error) => error.is_disk_full(),
            StoreError::Database { .. }
            | StoreError::InUse(_)
            | StoreError::Damaged { .. }
            | StoreError::Unfit { .. } => false,
        }
    }
}

/// How the store is at the moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Condition {
    /// Why nothing can be made durable, while that is so.
    pub refuses: Option<Reason>,
    /// What was lost since it was opened, and where what was there is kept.
    pub lost: Option<String>,
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
    path: PathBuf,
    /// One writer at a time; readers take it too, so that none sees a value half replaced.
    turn: Mutex<Live>,
    /// For those who must not wait for their turn.
    condition: Mutex<Condition>,
    /// Locked for as long as the store is open. After the database: dropped last.
    _lock: File,
}

impl Store {
    /// Opens the store in folder `dir` and reads every value once; makes the folder when it is
    /// missing. A store that cannot be read is put aside.
    ///
    /// Errors: in use by another process; no room or no right to write.
    pub fn open(dir: &Path) -> Result<Opened, StoreError> {
        let lock = Self::lock(dir)?;
        Ok(Self::opened(dir, lock, open::base(dir)?))
    }

    /// The same; but where it cannot be opened (a full disk, a read-only one), the store begins closed and opens by
    /// itself once that is over. Until then nothing can be read of it, and nothing is taken.
    ///
    /// Errors: in use by another process; no right to write.
    pub fn open_or_later(dir: &Path) -> Result<Opened, StoreError> {
        let lock = Self::lock(dir)?;
        match open::base(dir) {
            Ok(base) => Ok(Self::opened(dir, lock, base)),
            Err(error @ StoreError::InUse(_)) => Err(error),
            Err(error) => {
                let store = Self::new(dir, lock, Live::closed(&error));
                store.refuses(&error);
                Ok(Opened { store, quarantined: None })
            }
        }
    }

    fn lock(dir: &Path) -> Result<File, StoreError> {
        let parent = dir.parent().unwrap_or(Path::new("."));
        durable::create_dir_synced(parent)?;
        let lock_path = with_suffix(dir, ".lock");
        let lock = durable::create_lock(&lock_path)?;
        durable::lock_soon(&lock).map_err(|_| StoreError::InUse(dir.to_owned()))?;
        Ok(lock)
    }

    fn new(dir: &Path, lock: File, live: Live) -> Self {
        let (turn, condition) = (Mutex::new(live), Mutex::default());
        Self(Arc::new(Inner { path: dir.to_owned(), turn, condition, _lock: lock }))
    }

    fn opened(dir: &Path, lock: File, (base, told): (open::Base, Option<String>)) -> Opened {
        let store = Self::new(dir, lock, Live::new(base));
        let quarantined = told.or_else(|| store.loss(&store.turn()));
        Opened { store, quarantined }
    }

    /// How it is. Never waits for those who read or write.
    pub fn condition(&self) -> Condition {
        self.0.condition.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Condition)) {
        change(&mut self.0.condition.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    }

    fn refuses(&self, error: &StoreError) {
        let code = if error.is_disk_full() { ReasonCode::DiskFull } else { ReasonCode::Internal };
        self.change(|condition| {
            condition.refuses.get_or_insert_with(|| Reason::new(code, error.to_string()));
        });
    }

    /// What the newest changes of the database are behind those that were durable.
    fn loss(&self, live: &Live) -> Option<String> {
        let marked = live.base().map_or(0, |base| read_mark(&base.mark));
        let counted = self.tree::<u64>(COUNTS).get_with(SYNCS, live).ok()?;
        let lost = marked.saturating_sub(counted.unwrap_or(0));
        let path = self.0.path.display();
        (lost > 0).then(|| format!("store {path} lost its newest {lost} changes; the disk may be failing"))
    }

    /// Values of type `T` under keys. `name` says which; the same name gives the same values.
    pub fn tree<T: Serialize + DeserializeOwned>(&self, name: &'static str) -> Tree<T> {
        Tree { store: self.clone(), name, of: PhantomData }
    }

    /// Values of type `T` in the order they came.
    pub fn queue<T: Serialize + DeserializeOwned>(&self, name: &'static str) -> Queue<T> {
        Queue { tree: self.tree(name) }
    }

    /// Makes all changes so far durable. Where that fails they are kept, and the next sync tries again.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.sync_with(&mut self.turn())
    }

    /// Makes all changes of the batch, or none; they are durable when this returns. Where that fails it
    /// is not tried again.
    pub fn batch(&self, batch: Batch) -> Result<(), StoreError> {
        self.batch_with(batch, &mut self.turn())
    }

    /// The next number of the count called `name`: 1, 2, … and never again one that was given out,
    /// whatever happens. Durable when this returns.
    pub fn next_id(&self, name: &'static str) -> Result<u64, StoreError> {
        let mut live = self.turn();
        let counts = self.tree::<u64>(COUNTS);
        let next = counts.get_with(name, &live)?.unwrap_or(0) + 1;
        let mut batch = Batch::default();
        batch.put(&counts, name, &next)?;
        self.batch_with(batch, &mut live)?;
        Ok(next)
    }

    /// Opens it again where that is due, without anything to read or write; of use while it refuses and
    /// nobody asks for it.
    pub fn tend(&self) {
        drop(self.turn());
    }

    /// The store, mended first where that is due.
    fn turn(&self) -> MutexGuard<'_, Live> {
        // What a panicking holder left behind is whole: `sled` applies a batch as one.
        let mut live = self.0.turn.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if live.is_due(&self.0.path)
            && let Ok(told) = live.open_again(&self.0.path)
        {
            let lost = told.or_else(|| self.loss(&live));
            lost.iter().for_each(|lost| tracing::error!("{lost}"));
            self.change(|condition| {
                condition.refuses = None;
                condition.lost = lost.or(condition.lost.take());
            });
        }
        live
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        self.apply_with(batch, &mut self.turn())
    }

    /// Makes the changes and remembers them until they are durable.
    fn apply_with(&self, batch: Batch, live: &mut Live) -> Result<(), StoreError> {
        self.ill(live.write(&batch.0).map_err(self.failed("write")))?;
        let before = live.unsynced();
        live.remember(batch.0);
        if live.unsynced_bytes() > MAX_UNSYNCED {
            self.sync_with(live).inspect_err(|_| live.forget_after(before))?;
        }
        Ok(())
    }

    fn batch_with(&self, batch: Batch, live: &mut Live) -> Result<(), StoreError> {
        let before = live.unsynced();
        self.apply_with(batch, live)?;
        self.sync_with(live).inspect_err(|_| live.forget_after(before))
    }

    fn sync_with(&self, live: &mut Live) -> Result<(), StoreError> {
        self.commit_with(Batch::default(), live)
    }

    /// Makes the changes and the count of this sync as one, and them and all before durable.
    fn commit_with(&self, mut batch: Batch, live: &mut Live) -> Result<(), StoreError> {
        let counts = self.tree::<u64>(COUNTS);
        let syncs = counts.get_with(SYNCS, live)?.unwrap_or(0) + 1;
        batch.put(&counts, SYNCS, &syncs)?;
        self.ill(live.write(&batch.0).map_err(self.failed("write")))?;
        self.ill(live.flush().map_err(self.failed("sync")))?;
        let base = live.base().map_err(self.failed("sync"))?;
        if let Err(error) = durable::sync_database(&self.0.path, &base.file) {
            // The kernel may have let go of what it could not write.
            live.fell_ill();
            return self.ill(Err(error.into()));
        }
        // Not synced: a mark that a power cut takes back only notices less.
        let count = syncs.to_le_bytes();
        let mark = [&count[..], &crc32fast::hash(&count).to_le_bytes()].concat();
        let marked = base.mark.write_all_at(&mark, 0);
        live.forget_after(0);
        Ok(marked.map_err(durable::failed("write", &self.0.path.join("mark")))?)
    }

    /// Notes for others that a write has failed.
    fn ill<T>(&self, written: Result<T, StoreError>) -> Result<T, StoreError> {
        written.inspect_err(|error| self.refuses(error))
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
        let live = self.store.turn();
        let db = live.db().map_err(self.store.failed("read"))?;
        let mut count = 0;
        for key in db.scan_prefix([self.name.as_bytes(), b"\0"].concat()).keys() {
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

    fn get_with(&self, key: &str, live: &Live) -> Result<Option<T>, StoreError> {
        let db = live.db().map_err(self.store.failed("read"))?;
        let found = values(db.scan_prefix(self.prefix(key))).next();
        found.map(|value| self.typed(value).map(|(_, value)| value)).transpose()
    }

    /// At most `count` values whose key is `first` or comes after it.
    fn starting_at(&self, first: &str, count: usize) -> Result<Vec<(String, T)>, StoreError> {
        let live = self.store.turn();
        let db = live.db().map_err(self.store.failed("read"))?;
        let start = [self.name.as_bytes(), b"\0", first.as_bytes()].concat();
        let end = [self.name.as_bytes(), b"\x01"].concat();
        values(db.range(start..end)).take(count).map(|value| self.typed(value)).collect()
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

#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod tests;
