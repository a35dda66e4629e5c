//! What is known in memory of the messages that wait: by number, by class, by key, by retained topic. Every
//! question is answered without a walk over all of them, as there may be many thousands.

use super::Spooled;
use crate::domain::importance::Importance;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Where a message's content is.
#[derive(Debug)]
pub(super) enum Place {
    /// In the store, under this number.
    Stored(u64),
    /// Here, because the store did not take it.
    Afloat(Box<Spooled>),
}

/// A message that waits.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) place: Place,
    pub(super) bytes: usize,
    pub(super) class: Importance,
    /// Its topic, where it is retained.
    topic: Option<Arc<str>>,
    replaces: Option<Arc<str>>,
}

/// The messages that wait, oldest first.
#[derive(Debug, Default)]
pub(super) struct Index {
    slots: BTreeMap<u64, Slot>,
    by_class: BTreeMap<Importance, BTreeSet<u64>>,
    /// Those with each `replaces` key; more than one only while older ones are on their way.
    by_key: HashMap<Arc<str>, Vec<u64>>,
    /// How many wait for each retained topic.
    retained: HashMap<Arc<str>, usize>,
    /// Those that the store has not taken yet.
    afloat: BTreeSet<u64>,
    bytes: usize,
}

impl Index {
    /// Adds a message that is newer than all before it, in the store under `number` or nowhere yet.
    pub(super) fn add(&mut self, id: u64, number: Option<u64>, message: Spooled) {
        let (bytes, class) = (message.size(), message.class);
        self.bytes += bytes;
        self.by_class.entry(class).or_default().insert(id);
        let topic = message.retain.then(|| match self.retained.get_key_value(message.topic.as_str()) {
            Some((known, _)) => known.clone(),
            None => Arc::from(message.topic.as_str()),
        });
        if let Some(topic) = &topic {
            *self.retained.entry(topic.clone()).or_default() += 1;
        }
        let replaces = message.replaces.as_deref().map(|key| match self.by_key.get_key_value(key) {
            Some((known, _)) => known.clone(),
            None => Arc::from(key),
        });
        if let Some(key) = &replaces {
            self.by_key.entry(key.clone()).or_default().push(id);
        }
        let place = match number {
            Some(number) => Place::Stored(number),
            None => {
                self.afloat.insert(id);
                Place::Afloat(Box::new(message))
            }
        };
        self.slots.insert(id, Slot { place, bytes, class, topic, replaces });
    }

    /// Takes a message out.
    pub(super) fn remove(&mut self, id: u64) -> Option<Slot> {
        let slot = self.slots.remove(&id)?;
        self.bytes -= slot.bytes;
        self.afloat.remove(&id);
        if let Some(ids) = self.by_class.get_mut(&slot.class) {
            ids.remove(&id);
        }
        if let Some(key) = &slot.replaces
            && let Some(ids) = self.by_key.get_mut(key)
        {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_key.remove(key);
            }
        }
        if let Some(topic) = &slot.topic
            && let Some(count) = self.retained.get_mut(topic)
        {
            *count -= 1;
            if *count == 0 {
                self.retained.remove(topic);
            }
        }
        Some(slot)
    }

    /// The message took its place in the store.
    pub(super) fn stored(&mut self, id: u64, number: u64) {
        self.afloat.remove(&id);
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.place = Place::Stored(number);
        }
    }

    /// The messages that the store has not taken, oldest first.
    pub(super) fn afloat(&self) -> impl Iterator<Item = (u64, &Spooled)> {
        self.afloat.iter().filter_map(|id| match &self.slots.get(id)?.place {
            Place::Afloat(message) => Some((*id, message.as_ref())),
            Place::Stored(_) => None,
        })
    }

    /// Those with this key besides `newest` that are not on their way.
    pub(super) fn replaced(&self, key: &str, newest: u64, busy: &HashSet<u64>) -> Vec<u64> {
        let ids = self.by_key.get(key).into_iter().flatten().copied();
        ids.filter(|id| *id != newest && !busy.contains(id)).collect()
    }

    /// What a full spool drops: the oldest of the least important class that is not on its way. That may be
    /// `newest` itself, where all others matter more. `None` where everything else of its class is on its
    /// way: that is gone soon.
    pub(super) fn victim(&self, newest: u64, busy: &HashSet<u64>) -> Option<u64> {
        for ids in self.by_class.values().filter(|ids| !ids.is_empty()) {
            let free = ids.iter().find(|id| **id != newest && !busy.contains(id));
            if let Some(oldest) = free {
                return Some(*oldest);
            }
            if ids.contains(&newest) {
                return (ids.len() == 1 && self.slots.len() > 1).then_some(newest);
            }
        }
        None
    }

    /// Those above `after`, oldest first.
    pub(super) fn above(&self, after: u64) -> impl Iterator<Item = (u64, &Slot)> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.slots.range((Excluded(after), Unbounded)).map(|(id, slot)| (*id, slot))
    }

    pub(super) fn class_of(&self, id: u64) -> Option<Importance> {
        self.slots.get(&id).map(|slot| slot.class)
    }

    pub(super) fn has_retained(&self, topic: &str) -> bool {
        self.retained.contains_key(topic)
    }

    pub(super) fn newest(&self) -> u64 {
        self.slots.last_key_value().map_or(0, |(id, _)| *id)
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
