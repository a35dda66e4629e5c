//! The open database, and how it is opened again after a write that failed.

use super::bounded::{self, unless_it_panics};
use super::open::{self, Base};
use super::{Change, PIECE, StoreError, durable};
use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

/// Shortest and longest wait before the database is opened again.
const WAIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// Free bytes below which it is not tried: opening needs some, and a database that still answers reads is
/// better than one that cannot be opened.
const ROOM: u64 = 1 << 20;

/// A database and what it still owes to the disk.
#[derive(Debug)]
pub(super) struct Live {
    /// Or why it could not be opened.
    base: Result<Base, sled::Error>,
    /// Accepted and not durable yet, in their order.
    unsynced: Vec<Change>,
    bytes: usize,
    /// Since a write failed: when to open it again, and the wait after that.
    ill: Option<(Instant, Duration)>,
}

impl Live {
    pub(super) fn new(base: Base) -> Self {
        Self { base: Ok(base), unsynced: Vec::new(), bytes: 0, ill: None }
    }

    /// One that could not be opened yet.
    pub(super) fn closed(why: &StoreError) -> Self {
        let ill = Some((Instant::now() + WAIT.0, WAIT.0));
        Self { base: Err(plain(why)), unsynced: Vec::new(), bytes: 0, ill }
    }

    pub(super) fn base(&self) -> Result<&Base, sled::Error> {
        self.base.as_ref().map_err(Clone::clone)
    }

    pub(super) fn db(&self) -> Result<&sled::Db, sled::Error> {
        self.base().map(|base| &base.db)
    }

    /// It is not to be trusted until it was opened again.
    pub(super) fn fell_ill(&mut self) {
        self.ill.get_or_insert((Instant::now(), WAIT.0));
    }

    /// Makes changes together, in memory.
    pub(super) fn write(&mut self, changes: &[Change]) -> Result<(), sled::Error> {
        let written = self.db().and_then(|db| unless_it_panics(|| write(db, changes)));
        written.inspect_err(|_| self.fell_ill())
    }

    /// Writes all changes to the file.
    pub(super) fn flush(&mut self) -> Result<(), sled::Error> {
        let flushed = self.db().and_then(|db| {
            let db = db.clone();
            bounded::flush(move || db.flush().map(drop))
        });
        flushed.inspect_err(|_| self.fell_ill())
    }

    /// How many changes are kept.
    pub(super) fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    pub(super) fn unsynced_bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps changes until they are durable.
    pub(super) fn remember(&mut self, changes: Vec<Change>) {
        self.bytes += changes.iter().map(size).sum::<usize>();
        self.unsynced.extend(changes);
    }

    /// Keeps the first `count` changes only.
    pub(super) fn forget_after(&mut self, count: usize) {
        self.unsynced.truncate(count);
        self.bytes = self.unsynced.iter().map(size).sum();
    }

    /// True when it is to be opened again: a write has failed, the wait is over, and there is room.
    pub(super) fn is_due(&self, dir: &Path) -> bool {
        self.ill.is_some_and(|(again, _)| Instant::now() >= again) && has_room(dir)
    }

    /// Opens it anew and makes what it owes once more; where that fails, the next try comes later. Tells
    /// what was put aside because it could not be read.
    pub(super) fn open_again(&mut self, dir: &Path) -> Result<Option<String>, sled::Error> {
        let wait = self.ill.map_or(WAIT.0, |(_, wait)| wait);
        // Closed first: nothing can be open twice.
        let closed = std::mem::replace(&mut self.base, Err(busy()));
        bounded::let_go(closed);
        let opened = open::base(dir).or_else(|error| {
            if !open::is_locked(&error) {
                return Err(error);
            }
            open::leave_lock(dir)?;
            open::base(dir)
        });
        let opened = opened.map_err(|error| plain(&error));
        let told = opened.map(|(base, told)| {
            self.base = Ok(base);
            told
        });
        let told = told.inspect_err(|error| self.base = Err(error.clone()));
        let caught_up = told.and_then(|told| {
            let db = self.db()?;
            unless_it_panics(|| write(db, &self.unsynced)).map(|()| told)
        });
        match &caught_up {
            Ok(_) => {
                self.ill = None;
                tracing::info!("store {}: opened, and takes changes again", dir.display());
            }
            Err(error) => {
                self.ill = Some((Instant::now() + wait, (wait * 2).min(WAIT.1)));
                tracing::error!("store {}: cannot be opened again: {error}", dir.display());
            }
        }
        caught_up
    }
}

/// A fault as the database would tell it.
fn plain(error: &StoreError) -> sled::Error {
    match error {
        StoreError::Database { source, .. } => source.clone(),
        StoreError::File(error) => {
            sled::Error::Io(std::io::Error::new(error.source.kind(), error.to_string()))
        }
        other => sled::Error::ReportableBug(other.to_string()),
    }
}

fn busy() -> sled::Error {
    sled::Error::Io(std::io::Error::other("it is being opened again"))
}

/// Makes changes together. Of several changes of one key the last one counts: the pieces of those before
/// it are not there to be removed.
fn write(db: &sled::Db, changes: &[Change]) -> Result<(), sled::Error> {
    let mut writes = sled::Batch::default();
    let mut done = HashSet::new();
    for (prefix, value) in changes.iter().rev() {
        if !done.insert(prefix) {
            continue;
        }
        for piece in db.scan_prefix(prefix).keys() {
            writes.remove(piece?);
        }
        for (number, piece) in value.iter().flat_map(|value| value.chunks(PIECE).enumerate()) {
            writes.insert([&prefix[..], &(number as u16).to_be_bytes()].concat(), piece);
        }
    }
    db.apply_batch(writes)
}

fn size((prefix, value): &Change) -> usize {
    prefix.len() + value.as_ref().map_or(0, Vec::len)
}

/// True also where it cannot be told.
fn has_room(dir: &Path) -> bool {
    // The folder itself may not be there yet.
    let there = if dir.exists() { dir } else { dir.parent().unwrap_or(dir) };
    durable::free_bytes(there).map_or(true, |free| free >= ROOM)
}
