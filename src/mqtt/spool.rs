//! What must arrive: kept in the order it was said until the broker has acknowledged it.
//!
//! Bounded by count and bytes; the oldest is dropped first, and counted. A message may name a
//! `replaces` key: it then takes the place of an older one with the same key that is not on its way
//! (a progress of 40 % that nobody has heard yet is worth nothing once 50 % is known).
//!
//! The content lives in a [`SpoolStore`]; only ids, keys and sizes are held here. A store that refuses (its
//! disk is full) makes nobody silent: what it does not take is kept in memory, in its order and within the
//! same bounds, and put into the store as soon as that takes it.

use super::message::Message;
use crate::domain::Reason;
use crate::sys::store::{Queue, Store};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet, VecDeque};

/// Most messages kept.
pub const MAX_MESSAGES: usize = 2000;
/// Most bytes of payload and topic kept.
pub const MAX_BYTES: usize = 8 << 20;

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
}

impl Spooled {
    /// What counts against [`MAX_BYTES`].
    fn size(&self) -> usize {
        self.topic.len() + self.payload.len() + self.correlation.as_ref().map_or(0, Vec::len)
    }
}

impl From<Spooled> for Message {
    fn from(spooled: Spooled) -> Self {
        Message {
            topic: spooled.topic,
            payload: spooled.payload.into_bytes().into(),
            retain: spooled.retain,
            content_type: Some("application/json".to_owned()),
            response_topic: None,
            correlation: spooled.correlation.map(Into::into),
        }
    }
}

/// Where spooled messages are kept. Ids rise and are never used again while the store lives.
/// All calls may block.
pub trait SpoolStore: Send + 'static {
    /// Appends a message and tells its id.
    ///
    /// # Errors
    /// The store's, with the remedy.
    fn push(&mut self, message: &Spooled) -> Result<u64, Reason>;
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
    /// Removes a message; no error when there is none.
    ///
    /// # Errors
    /// The store's, with the remedy.
    fn remove(&mut self, id: u64) -> Result<(), Reason>;
    /// Makes all changes so far survive a power cut.
    ///
    /// # Errors
    /// The store's, with the remedy.
    fn sync(&mut self) -> Result<(), Reason>;
}

/// Keeps messages as long as the process lives: for operators, and for tests.
#[derive(Debug, Default)]
pub struct MemoryStore {
    last: u64,
    messages: BTreeMap<u64, Spooled>,
}

impl SpoolStore for MemoryStore {
    fn push(&mut self, message: &Spooled) -> Result<u64, Reason> {
        self.last += 1;
        self.messages.insert(self.last, message.clone());
        Ok(self.last)
    }

    fn after(&self, after: u64, count: usize) -> Result<Vec<(u64, Spooled)>, Reason> {
        Ok(self.messages.range(after + 1..).take(count).map(|(id, m)| (*id, m.clone())).collect())
    }

    fn get(&self, id: u64) -> Result<Option<Spooled>, Reason> {
        Ok(self.messages.get(&id).cloned())
    }

    fn remove(&mut self, id: u64) -> Result<(), Reason> {
        self.messages.remove(&id);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Reason> {
        Ok(())
    }
}

/// Keeps messages over restarts and power cuts, in the agent's store.
#[derive(Debug)]
pub struct DiskStore {
    store: Store,
    queue: Queue<Spooled>,
}

impl DiskStore {
    /// The spool's part of the store.
    pub fn new(store: &Store) -> Self {
        Self { store: store.clone(), queue: store.queue("spool") }
    }
}

impl SpoolStore for DiskStore {
    fn push(&mut self, message: &Spooled) -> Result<u64, Reason> {
        Ok(self.queue.push(message)?)
    }

    fn after(&self, after: u64, count: usize) -> Result<Vec<(u64, Spooled)>, Reason> {
        Ok(self.queue.after(after, count)?)
    }

    fn get(&self, id: u64) -> Result<Option<Spooled>, Reason> {
        Ok(self.queue.get(id)?)
    }

    fn remove(&mut self, id: u64) -> Result<(), Reason> {
        Ok(self.queue.remove(id)?)
    }

    fn sync(&mut self) -> Result<(), Reason> {
        Ok(self.store.sync()?)
    }
}

#[derive(Debug)]
struct Slot {
    /// Rises from message to message while the process lives; the store has numbers of its own.
    id: u64,
    place: Place,
    bytes: usize,
    topic: String,
    retain: bool,
    replaces: Option<String>,
}

/// Where a message's content is.
#[derive(Debug)]
enum Place {
    /// In the store, under this number.
    Stored(u64),
    /// Here, because the store did not take it.
    Afloat(Box<Spooled>),
}

/// The queue.
pub struct Spool {
    store: Box<dyn SpoolStore>,
    slots: VecDeque<Slot>,
    last_id: u64,
    bytes: usize,
    dropped: u64,
    max_messages: usize,
    max_bytes: usize,
    /// What the store held at the start was not read yet: it could not be.
    unread: bool,
    /// Numbers that the store has still to remove.
    owed: VecDeque<u64>,
    /// True since the store has refused something, which is told once.
    refused: bool,
}

impl Spool {
    /// Takes up what the store holds; where it cannot be read, later.
    pub fn open(store: impl SpoolStore) -> Self {
        Self::with_bounds(Box::new(store), MAX_MESSAGES, MAX_BYTES)
    }

    fn with_bounds(store: Box<dyn SpoolStore>, max_messages: usize, max_bytes: usize) -> Self {
        let mut spool = Self {
            store,
            slots: VecDeque::new(),
            last_id: 0,
            bytes: 0,
            dropped: 0,
            max_messages,
            max_bytes,
            unread: true,
            owed: VecDeque::new(),
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
                self.owed.push_back(number);
            } else {
                self.note(Some(number), message);
            }
        }
        Ok(())
    }

    /// Makes good what the store has refused so far.
    fn catch_up(&mut self) -> Result<(), Reason> {
        if self.unread {
            self.read()?;
        }
        while let Some(number) = self.owed.front() {
            self.store.remove(*number)?;
            self.owed.pop_front();
        }
        for slot in &mut self.slots {
            if let Place::Afloat(message) = &slot.place {
                slot.place = Place::Stored(self.store.push(message)?);
            }
        }
        Ok(())
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
        let mut stored = self.catch_up();
        for message in messages {
            if message.size() > self.max_bytes {
                tracing::error!(
                    "mqtt spool: message to {}: larger than the whole spool; dropped",
                    message.topic
                );
                self.dropped += 1;
                continue;
            }
            // First in, then out: a power cut in between leaves a double, never a gap. Once one is afloat,
            // all that come after it are, so that the store has them in their order.
            let mut number = None;
            if stored.is_ok() {
                match self.store.push(&message) {
                    Ok(given) => number = Some(given),
                    Err(reason) => stored = Err(reason),
                }
            }
            let replaces = message.replaces.clone();
            let id = self.note(number, message);
            if let Some(key) = replaces {
                let older = |slot: &Slot| {
                    slot.id != id && slot.replaces.as_ref() == Some(&key) && !busy.contains(&slot.id)
                };
                let ids: Vec<u64> = self.slots.iter().filter(|s| older(s)).map(|s| s.id).collect();
                ids.into_iter().for_each(|id| self.remove(id));
            }
            while self.slots.len() > self.max_messages || self.bytes > self.max_bytes {
                let free = |other: &u64| *other != id && !busy.contains(other);
                let Some(oldest) = self.slots.iter().map(|s| s.id).find(free) else { break };
                self.remove(oldest);
                self.dropped += 1;
            }
        }
        let synced = stored.and_then(|()| self.store.sync());
        self.told(synced);
    }

    /// Appends a message that is in the store under a number, or nowhere.
    fn note(&mut self, number: Option<u64>, message: Spooled) -> u64 {
        self.last_id += 1;
        let bytes = message.size();
        self.bytes += bytes;
        let (topic, retain, replaces) = (message.topic.clone(), message.retain, message.replaces.clone());
        let place = number.map_or_else(|| Place::Afloat(Box::new(message)), Place::Stored);
        self.slots.push_back(Slot { id: self.last_id, place, bytes, topic, retain, replaces });
        self.last_id
    }

    /// At most `count` messages with an id above `after`, oldest first. What the store does not give now is
    /// left out: it waits for [`Spool::is_behind`] to end.
    pub fn after(&mut self, after: u64, count: usize) -> Vec<(u64, Spooled)> {
        let mut found = Vec::new();
        let (mut missing, mut refused) = (Vec::new(), None);
        for slot in self.slots.iter().filter(|slot| slot.id > after) {
            match &slot.place {
                Place::Afloat(message) => found.push((slot.id, message.as_ref().clone())),
                Place::Stored(number) => match self.store.get(*number) {
                    Ok(Some(message)) => found.push((slot.id, message)),
                    Ok(None) => missing.push(slot.id),
                    Err(reason) => refused = Some(reason),
                },
            }
            if found.len() == count {
                break;
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
        let Some(at) = self.slots.iter().position(|slot| slot.id == id) else { return };
        let Some(slot) = self.slots.remove(at) else { return };
        self.bytes -= slot.bytes;
        let Place::Stored(number) = slot.place else { return };
        if let Err(reason) = self.store.remove(number) {
            self.owed.push_back(number);
            self.told(Err(reason));
        }
    }

    /// Removes a message that can never arrive, and counts it as dropped.
    pub fn give_up(&mut self, id: u64) {
        self.dropped += 1;
        self.remove(id);
    }

    /// Makes all so far durable: what was kept in memory, and the removals too.
    pub fn sync(&mut self) {
        let synced = self.catch_up().and_then(|()| self.store.sync());
        self.told(synced);
    }

    /// True since the store has refused something, until a [`Spool::sync`] or push finds that it has all.
    pub fn is_behind(&self) -> bool {
        self.refused
    }

    /// True while a retained message to this topic waits: what was said there last is not the newest.
    pub fn has_retained(&self, topic: &str) -> bool {
        self.slots.iter().any(|slot| slot.retain && slot.topic == topic)
    }

    /// The newest message's id; 0 when none waits.
    pub fn newest(&self) -> u64 {
        self.slots.back().map_or(0, |slot| slot.id)
    }

    /// Messages that wait.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// True when none waits.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Their bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Messages dropped since the agent started.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests;
