//! What must arrive: kept in the order it was said until the broker has acknowledged it.
//!
//! Bounded by count and bytes; the oldest is dropped first, and counted. A message may name a
//! `replaces` key: it then takes the place of an older one with the same key that is not on its way
//! (a progress of 40 % that nobody has heard yet is worth nothing once 50 % is known).
//!
//! The content lives in a [`SpoolStore`]; only ids, keys and sizes are held here.

use super::message::Message;
use crate::domain::{Reason, ReasonCode};
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

    fn remove(&mut self, id: u64) -> Result<(), Reason> {
        Ok(self.queue.remove(id)?)
    }

    fn sync(&mut self) -> Result<(), Reason> {
        Ok(self.store.sync()?)
    }
}

#[derive(Debug)]
struct Slot {
    id: u64,
    bytes: usize,
    topic: String,
    retain: bool,
    replaces: Option<String>,
}

/// The queue.
pub struct Spool {
    store: Box<dyn SpoolStore>,
    slots: VecDeque<Slot>,
    bytes: usize,
    dropped: u64,
    max_messages: usize,
    max_bytes: usize,
}

impl Spool {
    /// Takes up what the store holds.
    ///
    /// # Errors
    /// The store's.
    pub fn open(store: impl SpoolStore) -> Result<Self, Reason> {
        Self::with_bounds(Box::new(store), MAX_MESSAGES, MAX_BYTES)
    }

    fn with_bounds(
        store: Box<dyn SpoolStore>,
        max_messages: usize,
        max_bytes: usize,
    ) -> Result<Self, Reason> {
        let mut spool = Self { store, slots: VecDeque::new(), bytes: 0, dropped: 0, max_messages, max_bytes };
        loop {
            let after = spool.slots.back().map_or(0, |slot| slot.id);
            let page = spool.store.after(after, 64)?;
            if page.is_empty() {
                return Ok(spool);
            }
            for (id, message) in page {
                spool.note(id, &message);
            }
        }
    }

    /// Appends messages, and makes them durable together. Those that are on their way (`busy`) are
    /// neither replaced nor dropped.
    ///
    /// # Errors
    /// The store's; the messages that were not taken are counted as dropped.
    pub fn push(&mut self, messages: Vec<Spooled>, busy: &HashSet<u64>) -> Result<(), Reason> {
        let mut left = messages.len() as u64;
        let result = (|| {
            for message in messages {
                self.push_one(message, busy)?;
                left -= 1;
            }
            self.store.sync()
        })();
        self.dropped += left;
        result
    }

    fn push_one(&mut self, message: Spooled, busy: &HashSet<u64>) -> Result<(), Reason> {
        if message.size() > self.max_bytes {
            let detail = format!("message to {}: larger than the whole spool", message.topic);
            return Err(Reason::new(ReasonCode::Internal, detail));
        }
        // First in, then out: a power cut in between leaves a double, never a gap.
        let id = self.store.push(&message)?;
        if let Some(key) = &message.replaces {
            let older = |slot: &Slot| slot.replaces.as_ref() == Some(key) && !busy.contains(&slot.id);
            let ids: Vec<u64> = self.slots.iter().filter(|s| older(s)).map(|s| s.id).collect();
            for id in ids {
                self.remove(id)?;
            }
        }
        self.note(id, &message);
        while self.slots.len() > self.max_messages || self.bytes > self.max_bytes {
            let oldest = self.slots.iter().map(|s| s.id).find(|other| *other != id && !busy.contains(other));
            let Some(oldest) = oldest else { break };
            self.remove(oldest)?;
            self.dropped += 1;
        }
        Ok(())
    }

    fn note(&mut self, id: u64, message: &Spooled) {
        self.bytes += message.size();
        self.slots.push_back(Slot {
            id,
            bytes: message.size(),
            topic: message.topic.clone(),
            retain: message.retain,
            replaces: message.replaces.clone(),
        });
    }

    /// At most `count` messages with an id above `after`, oldest first.
    ///
    /// # Errors
    /// The store's.
    pub fn after(&self, after: u64, count: usize) -> Result<Vec<(u64, Spooled)>, Reason> {
        self.store.after(after, count)
    }

    /// Removes a message that has arrived. Not durable at once: after a power cut it may be sent
    /// again, with the same message id.
    ///
    /// # Errors
    /// The store's.
    pub fn remove(&mut self, id: u64) -> Result<(), Reason> {
        if let Some(at) = self.slots.iter().position(|slot| slot.id == id)
            && let Some(slot) = self.slots.remove(at)
        {
            self.bytes -= slot.bytes;
        }
        self.store.remove(id)
    }

    /// Removes a message that can never arrive, and counts it as dropped.
    ///
    /// # Errors
    /// The store's.
    pub fn give_up(&mut self, id: u64) -> Result<(), Reason> {
        self.dropped += 1;
        self.remove(id)
    }

    /// Makes the removals so far durable, too.
    ///
    /// # Errors
    /// The store's.
    pub fn sync(&mut self) -> Result<(), Reason> {
        self.store.sync()
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
mod tests {
    use super::*;

    fn message(text: &str, replaces: Option<&str>) -> Spooled {
        Spooled {
            topic: "t".into(),
            retain: false,
            payload: text.into(),
            correlation: None,
            replaces: replaces.map(Into::into),
        }
    }

    fn spool(max_messages: usize, max_bytes: usize) -> Spool {
        Spool::with_bounds(Box::new(MemoryStore::default()), max_messages, max_bytes).unwrap()
    }

    fn texts(spool: &Spool) -> Vec<String> {
        spool.after(0, usize::MAX).unwrap().into_iter().map(|(_, m)| m.payload).collect()
    }

    fn push(spool: &mut Spool, list: &[(&str, Option<&str>)]) {
        let list = list.iter().map(|(text, key)| message(text, *key)).collect();
        spool.push(list, &HashSet::new()).unwrap();
    }

    #[test]
    fn the_oldest_go_first_and_are_counted() {
        let mut s = spool(3, 1000);
        push(&mut s, &[("a", None), ("b", None), ("c", None), ("d", None)]);
        assert_eq!(
            (texts(&s), s.dropped(), s.len(), s.bytes()),
            (vec!["b".into(), "c".into(), "d".into()], 1, 3, 6)
        );
        let mut s = spool(100, 10);
        push(&mut s, &[("1234", None), ("5678", None), ("90", None)]);
        assert_eq!((texts(&s), s.dropped()), (vec!["5678".into(), "90".into()], 1), "10 bytes at most");
        let too_large = s.push(vec![message("12345678901", None)], &HashSet::new());
        assert!(too_large.is_err() && s.dropped() == 2 && s.len() == 2, "and nothing else is lost by it");
    }

    #[test]
    fn a_newer_message_takes_the_place_of_an_older_one_with_its_key() {
        let mut s = spool(10, 1000);
        push(&mut s, &[("40", Some("p")), ("x", None), ("50", Some("p")), ("60", Some("q"))]);
        assert_eq!(texts(&s), ["x", "50", "60"]);
        assert_eq!(s.dropped(), 0);
    }

    #[test]
    fn what_is_on_its_way_is_neither_replaced_nor_dropped() {
        let mut s = spool(2, 1000);
        push(&mut s, &[("1", Some("p")), ("2", None)]);
        let busy: HashSet<u64> = s.after(0, 1).unwrap().iter().map(|(id, _)| *id).collect();
        s.push(vec![message("3", Some("p"))], &busy).unwrap();
        assert_eq!(texts(&s), ["1", "3"]);
        s.remove(*busy.iter().next().unwrap()).unwrap();
        assert_eq!((texts(&s), s.bytes()), (vec!["3".to_owned()], 2));
    }

    #[test]
    fn what_a_store_holds_is_taken_up() {
        let mut store = MemoryStore::default();
        for n in 0..150 {
            store.push(&message(&n.to_string(), None)).unwrap();
        }
        let s = Spool::open(store).unwrap();
        assert_eq!(s.len(), 150);
        assert_eq!(s.bytes(), texts(&s).iter().map(|t| t.len() + 1).sum::<usize>());
    }

    #[test]
    fn the_disk_gives_back_what_was_pushed_before_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let full = Spooled {
            topic: "edgewarden/pi/ack/update/1".into(),
            retain: true,
            payload: "x".repeat(crate::mqtt::payloads::MAX_PAYLOAD),
            correlation: Some(vec![0, 255, 7]),
            replaces: Some("k".into()),
        };
        {
            let opened = Store::open(dir.path()).unwrap();
            let mut s = Spool::open(DiskStore::new(&opened.store)).unwrap();
            s.push(vec![message("gone", None), full.clone()], &HashSet::new()).unwrap();
            let (id, _) = s.after(0, 1).unwrap().remove(0);
            s.remove(id).unwrap();
            s.sync().unwrap();
        }
        let opened = Store::open(dir.path()).unwrap();
        let mut s = Spool::open(DiskStore::new(&opened.store)).unwrap();
        let (id, back) = s.after(0, 9).unwrap().remove(0);
        assert_eq!((s.len(), &back), (1, &full));
        s.push(vec![message("new", None)], &HashSet::new()).unwrap();
        assert!(s.newest() > id, "numbers go on over a restart");
    }

    #[test]
    fn waiting_retained_messages_are_known_by_topic() {
        let mut s = spool(10, 1000);
        s.push(vec![Spooled { retain: true, ..message("x", None) }], &HashSet::new()).unwrap();
        assert!(s.has_retained("t") && !s.has_retained("u"));
    }
}
