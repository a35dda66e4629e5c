//! What must arrive: kept in the order it was said until the broker has acknowledged it.
//!
//! Bounded by count and bytes; the oldest of the least important class is dropped first ([`Importance`]),
//! and counted by class. A message may name a `replaces` key: it then takes the place of an older one with
//! the same key that is not on its way (a progress of 40 % that nobody has heard yet is worth nothing once
//! 50 % is known).
//!
//! The content lives in a [`SpoolStore`]; only ids, keys and sizes are held here (`index`). A store that
//! refuses (its disk is full) makes nobody silent: what it does not take is kept in memory, in its order and
//! within the same bounds, and put into the store as soon as that takes it.
//!
//! Flash memory wears by what is written: all messages of one [`Spool::push`] are made durable by one sync,
//! and what has arrived is removed from the store with the next one. What was removed and not synced comes
//! again after a kill, with the same message id.

use super::message::Message;
use super::payloads;
use crate::config::settings::SpoolBounds;
use crate::domain::Reason;
use crate::domain::importance::{Dropped, Importance};
use crate::sys::store::{Queue, Store};
use index::{Index, Place};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};

mod index;

/// Messages that are brought to the store by one sync at most.
const AT_ONCE: usize = 256;
/// And their bytes.
const BYTES_AT_ONCE: usize = 1 << 20;

/// A message that must arrive, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spooled {
    /// Topic.
    pub topic: String,
    /// Whether the broker keeps it.
    pub retain: bool,
    /// The payload; JSON text in every case.
    pub payload: String,
    /// What a reply must carry, as the requester gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation: Option<Vec<u8>>,
    /// Takes the place of an older message with this key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// What a full spool goes by.
    #[serde(default)]
    pub class: Importance,
    /// Whether the time of sending is still to be written into the payload.
    #[serde(default)]
    pub timed: bool,
}

impl Spooled {
    /// What counts against the bound of bytes.
    fn size(&self) -> usize {
        self.topic.len() + self.payload.len() + self.correlation.as_ref().map_or(0, Vec::len)
    }
}

impl From<Spooled> for Message {
    /// As it is sent now.
    fn from(spooled: Spooled) -> Self {
        let payload = match spooled.timed {
            true => payloads::sent(spooled.payload.as_bytes(), jiff::Timestamp::now()),
            false => spooled.payload.into_bytes(),
        };
        Message {
            topic: spooled.topic,
            payload: payload.into(),
            retain: spooled.retain,
            content_type: Some("application/json".to_owned()),
            correlation: spooled.correlation.map(Into::into),
            ..Message::default()
        }
    }
}

/// Where spooled messages are kept. Ids rise and are never used again while the store lives.
/// All calls may block.
pub trait SpoolStore: Send + 'static {
    /// Appends messages and removes others, all of it or nothing, and tells the ids of the new ones. What is done
    /// survives a power cut when this returns.
    ///
    /// # Errors
    /// The store's, with the remedy.
    fn exchange(&mut self, new: &[&Spooled], gone: &[u64]) -> Result<Vec<u64>, Reason>;
    /// At most `count` messages with an id above `after`, oldest first.
    ///
    /// # Errors
    /// The store's, with the remedy.
    fn after(&self, after: u64, count: usize) -> Result<Vec<(u64, Spooled)>, Reason>;
    /// The message with this id.
    ///
    /// # Errors
    /// The store's, with the remedy.
    fn get(&self, id: u64) -> Result<Option<Spooled>, Reason>;
}

/// Keeps messages as long as the process lives: for operators, and for tests.
#[derive(Debug, Default)]
pub struct MemoryStore {
    last: u64,
    messages: BTreeMap<u64, Spooled>,
}

impl SpoolStore for MemoryStore {
    fn exchange(&mut self, new: &[&Spooled], gone: &[u64]) -> Result<Vec<u64>, Reason> {
        gone.iter().for_each(|id| drop(self.messages.remove(id)));
        let first = self.last + 1;
        for message in new {
            self.last += 1;
            self.messages.insert(self.last, (*message).clone());
        }
        Ok((first..=self.last).collect())
    }

    fn after(&self, after: u64, count: usize) -> Result<Vec<(u64, Spooled)>, Reason> {
        Ok(self.messages.range(after + 1..).take(count).map(|(id, m)| (*id, m.clone())).collect())
    }

    fn get(&self, id: u64) -> Result<Option<Spooled>, Reason> {
        Ok(self.messages.get(&id).cloned())
    }
}

/// Keeps messages over restarts and power cuts, in the agent's store.
#[derive(Debug)]
pub struct DiskStore {
    queue: Queue<Spooled>,
}

impl DiskStore {
    /// The spool's part of the store.
    pub fn new(store: &Store) -> Self {
        Self { queue: store.queue("spool") }
    }

    /// One of many spools in one store, for a process that plays many devices. The few bytes of its name are never
    /// given back.
    pub fn named(store: &Store, number: usize) -> Self {
        let name: &'static str = Box::leak(format!("spool-{number}").into_boxed_str());
        Self { queue: store.queue(name) }
    }
}

impl SpoolStore for DiskStore {
    fn exchange(&mut self, new: &[&Spooled], gone: &[u64]) -> Result<Vec<u64>, Reason> {
        Ok(self.queue.exchange(new, gone)?)
    }

    fn after(&self, after: u64, count: usize) -> Result<Vec<(u64, Spooled)>, Reason> {
        Ok(self.queue.after(after, count)?)
    }

    fn get(&self, id: u64) -> Result<Option<Spooled>, Reason> {
        Ok(self.queue.get(id)?)
    }
}

/// The queue.
pub struct Spool {
    store: Box<dyn SpoolStore>,
    index: Index,
    /// Rises from message to message while the process lives; the store has numbers of its own.
    last_id: u64,
    dropped: Dropped,
    bounds: SpoolBounds,
    /// What the store held at the start was not read yet: it could not be.
    unread: bool,
    /// Numbers that the store has still to remove: with the next sync.
    owed: Vec<u64>,
    /// True since the store has refused something, which is told once.
    refused: bool,
}

impl Spool {
    /// Takes up what the store holds, with the bounds that a configuration has by itself; where the store
    /// cannot be read, later.
    pub fn open(store: impl SpoolStore) -> Self {
        Self::with_bounds(store, SpoolBounds::default())
    }

    /// The same, with bounds.
    pub fn with_bounds(store: impl SpoolStore, bounds: SpoolBounds) -> Self {
        let mut spool = Self {
            store: Box::new(store),
            index: Index::default(),
            last_id: 0,
            dropped: Dropped::default(),
            bounds,
            unread: true,
            owed: Vec::new(),
            refused: false,
        };
        let read = spool.read();
        spool.told(read);
        spool
    }

    /// Takes up what the store holds. What was retained is left out once something newer was said: the
    /// newest of each such topic is said anew at every start, and must keep the last word.
    fn read(&mut self) -> Result<(), Reason> {
        let mut found = Vec::new();
        loop {
            let after = found.last().map_or(0, |(number, _)| *number);
            let page = self.store.after(after, 64)?;
            if page.is_empty() {
                break;
            }
            found.extend(page);
        }
        self.unread = false;
        let late = self.last_id > 0;
        for (number, message) in found {
            if late && message.retain {
                self.owed.push(number);
            } else {
                self.note(Some(number), message);
                // The bounds may be narrower than they were.
                self.keep_bounds(self.last_id, &HashSet::new());
            }
        }
        Ok(())
    }

    /// Brings the store up to date: what it has not taken yet, and what it has still to remove, by one sync.
    fn settle(&mut self) -> Result<(), Reason> {
        if self.unread {
            self.read()?;
        }
        loop {
            let mut bytes = 0;
            let fits = |(_, message): &(u64, &Spooled)| {
                let first = bytes == 0;
                bytes += message.size();
                first || bytes <= BYTES_AT_ONCE
            };
            let (ids, new): (Vec<u64>, Vec<&Spooled>) =
                self.index.afloat().take(AT_ONCE).take_while(fits).unzip();
            if new.is_empty() && self.owed.is_empty() {
                return Ok(());
            }
            let numbers = self.store.exchange(&new, &self.owed)?;
            self.owed.clear();
            ids.into_iter().zip(numbers).for_each(|(id, number)| self.index.stored(id, number));
        }
    }

    /// Tells the log when the store begins to refuse and when it has taken everything.
    fn told(&mut self, outcome: Result<(), Reason>) {
        match outcome {
            Ok(()) if self.refused => {
                tracing::info!("mqtt spool: the store takes messages again, and has all that wait");
                self.refused = false;
            }
            Err(reason) if !self.refused => {
                tracing::error!(
                    "mqtt spool: {reason}; messages are kept in memory until the store takes them"
                );
                self.refused = true;
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// Appends messages, and makes them durable together, where the store takes them; else they are kept in
    /// memory. Those that are on their way (`busy`) are neither replaced nor dropped. One that is larger
    /// than the whole spool is counted as dropped.
    pub fn push(&mut self, messages: Vec<Spooled>, busy: &HashSet<u64>) {
        let most = self.bounds.bytes;
        let (messages, large): (Vec<_>, Vec<_>) = messages.into_iter().partition(|one| one.size() <= most);
        for message in large {
            tracing::error!("mqtt spool: message to {}: larger than the whole spool; dropped", message.topic);
            self.dropped.add(message.class, 1);
        }
        for message in messages {
            let replaces = message.replaces.clone();
            let id = self.note(None, message);
            if let Some(key) = replaces {
                self.index.replaced(&key, id, busy).into_iter().for_each(|id| self.remove(id));
            }
            self.keep_bounds(id, busy);
        }
        // What comes and what goes in one change: a power cut leaves no gap.
        self.sync();
    }

    /// Drops what is too much.
    fn keep_bounds(&mut self, newest: u64, busy: &HashSet<u64>) {
        while self.index.len() > self.bounds.messages || self.index.bytes() > self.bounds.bytes {
            let Some(victim) = self.index.victim(newest, busy) else { break };
            self.give_up(victim);
        }
    }

    /// Appends a message that is in the store under a number, or nowhere.
    fn note(&mut self, number: Option<u64>, message: Spooled) -> u64 {
        self.last_id += 1;
        self.index.add(self.last_id, number, message);
        self.last_id
    }

    /// At most `count` messages with an id above `after`, oldest first. What the store does not give now is
    /// left out: it waits for [`Spool::is_behind`] to end.
    pub fn after(&mut self, after: u64, count: usize) -> Vec<(u64, Spooled)> {
        let mut found = Vec::new();
        let (mut missing, mut refused) = (Vec::new(), None);
        for (id, slot) in self.index.above(after) {
            if found.len() == count {
                break;
            }
            match &slot.place {
                Place::Afloat(message) => found.push((id, message.as_ref().clone())),
                Place::Stored(number) => match self.store.get(*number) {
                    Ok(Some(message)) => found.push((id, message)),
                    Ok(None) => missing.push(id),
                    Err(reason) => refused = Some(reason),
                },
            }
        }
        for id in missing {
            tracing::error!("mqtt spool: the store has lost a message");
            self.give_up(id);
        }
        if let Some(reason) = refused {
            self.told(Err(reason));
        }
        found
    }

    /// Removes a message that has arrived. Not durable at once: after a power cut it may be sent
    /// again, with the same message id.
    pub fn remove(&mut self, id: u64) {
        let Some(slot) = self.index.remove(id) else { return };
        let Place::Stored(number) = slot.place else { return };
        self.owed.push(number);
    }

    /// Removes a message that can never arrive, and counts it as dropped.
    pub fn give_up(&mut self, id: u64) {
        if let Some(class) = self.index.class_of(id) {
            self.dropped.add(class, 1);
        }
        self.remove(id);
    }

    /// Makes all so far durable: what was kept in memory, and the removals too.
    pub fn sync(&mut self) {
        let settled = self.settle();
        self.told(settled);
    }

    /// True since the store has refused something, until a [`Spool::sync`] or push finds that it has all.
    pub fn is_behind(&self) -> bool {
        self.refused
    }

    /// True while a retained message to this topic waits: what was said there last is not the newest.
    pub fn has_retained(&self, topic: &str) -> bool {
        self.index.has_retained(topic)
    }

    /// The newest message's id; 0 when none waits.
    pub fn newest(&self) -> u64 {
        self.index.newest()
    }

    /// Messages that wait.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// True when none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their bytes.
    pub fn bytes(&self) -> usize {
        self.index.bytes()
    }

    /// Messages dropped since the agent started.
    pub fn dropped(&self) -> Dropped {
        self.dropped
    }

    /// True while less than half of what fits waits: there is room again.
    pub fn has_room(&self) -> bool {
        self.len() <= self.bounds.messages / 2 && self.bytes() <= self.bounds.bytes / 2
    }
}

#[cfg(test)]
mod tests;
