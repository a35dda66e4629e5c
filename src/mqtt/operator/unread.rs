//! What was heard and is not read yet.
//!
//! The connection is never made to wait for a reader, as that one may itself wait for an answer of the broker, and
//! signs of life must flow. So all that comes is kept here; for a reader of [`Reading::Newest`] a message that says
//! how a device is now takes the place of the one before it at that topic. However many such messages come, they
//! need no more room than the fleet has topics.

use super::Reading;
use crate::mqtt::message::Received;
use crate::mqtt::topics::{Topic, Topics};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Bytes that are kept at most; what comes beyond is dropped and counted.
const ROOM: usize = 256 << 20;
/// What a message takes beside its text.
const BESIDE: usize = 256;

/// The messages, oldest first.
#[derive(Debug)]
pub(super) struct Unread {
    topics: Topics,
    reading: Reading,
    room: usize,
    kept: Mutex<Kept>,
    came: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    queue: VecDeque<Received>,
    /// Places, counted from the first message of all, of those that a newer one replaces.
    places: HashMap<String, u64>,
    /// The place of the oldest.
    first: u64,
    bytes: usize,
    dropped: u64,
    closed: bool,
}

impl Unread {
    /// None yet.
    pub(super) fn new(topics: Topics, reading: Reading) -> Self {
        Self { topics, reading, room: ROOM, kept: Mutex::default(), came: Notify::new() }
    }

    /// Keeps a message.
    pub(super) fn put(&self, message: Received) {
        // Its bytes may be a small part of what was read from the network, which they would keep in memory.
        let message = Received { payload: Bytes::copy_from_slice(&message.payload), ..message };
        let replaces = self.reading == Reading::Newest && self.tells_how_it_is(&message.topic);
        self.kept().put(message, replaces, self.room);
        self.came.notify_one();
    }

    /// The oldest message, once there is one; `None` when none will come.
    pub(super) async fn next(&self) -> Option<Received> {
        loop {
            // Before the look, so that what comes after it is noticed.
            let came = self.came.notified();
            {
                let mut kept = self.kept();
                if let Some(message) = kept.take() {
                    return Some(message);
                }
                if kept.closed {
                    // For whoever else waits.
                    self.came.notify_one();
                    return None;
                }
            }
            came.await;
        }
    }

    /// None will come any more.
    pub(super) fn close(&self) {
        self.kept().closed = true;
        self.came.notify_one();
    }

    /// Messages that found no room.
    pub(super) fn dropped(&self) -> u64 {
        self.kept().dropped
    }

    /// Of what a broker keeps, too, only the newest counts.
    fn tells_how_it_is(&self, topic: &str) -> bool {
        matches!(self.topics.parse(topic), Some(Topic::Said { said, .. }) if said.is_retained())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn put(&mut self, message: Received, replaces: bool, room: usize) {
        let former = self.places.get(&message.topic).and_then(|place| self.at(*place));
        let freed = former.map_or(0, |at| size(&self.queue[at]));
        if self.bytes - freed + size(&message) > room {
            self.dropped += 1;
            return;
        }
        self.bytes = self.bytes - freed + size(&message);
        if let Some(at) = former {
            self.queue[at] = message;
            return;
        }
        if replaces {
            self.places.insert(message.topic.clone(), self.first + self.queue.len() as u64);
        }
        self.queue.push_back(message);
    }

    /// The index in the queue.
    fn at(&self, place: u64) -> Option<usize> {
        usize::try_from(place.checked_sub(self.first)?).ok()
    }

    fn take(&mut self) -> Option<Received> {
        let message = self.queue.pop_front()?;
        if self.places.get(&message.topic) == Some(&self.first) {
            self.places.remove(&message.topic);
        }
        self.first += 1;
        self.bytes -= size(&message);
        Some(message)
    }
}

fn size(message: &Received) -> usize {
    message.topic.len() + message.payload.len() + BESIDE
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn message(topic: &str, payload: impl Into<Bytes>) -> Received {
        Received {
            topic: format!("edgewarden/{topic}"),
            payload: payload.into(),
            retained: false,
            response_topic: None,
            correlation: None,
        }
    }

    fn unread(reading: Reading, room: usize) -> Unread {
        Unread { room, ..Unread::new(Topics::new("edgewarden").unwrap(), reading) }
    }

    async fn all(unread: &Unread) -> Vec<(String, String)> {
        unread.close();
        let mut all = Vec::new();
        while let Some(message) = unread.next().await {
            let payload = String::from_utf8(message.payload.to_vec()).unwrap();
            all.push((message.topic.strip_prefix("edgewarden/").unwrap().to_owned(), payload));
        }
        assert_eq!(unread.kept().bytes, 0);
        assert!(unread.kept().places.is_empty());
        all
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(topic, payload)| ((*topic).to_owned(), (*payload).to_owned())).collect()
    }

    const SAID: [(&str, &str); 8] = [
        ("a/health", "1"),
        ("a/ack/status/7", "init"),
        ("b/health", "1"),
        ("a/model/detector/state", "1"),
        ("a/health", "2"),
        ("a/ack/status/7", "successful"),
        ("a/event/main", "1"),
        ("a/event/main", "2"),
    ];

    #[tokio::test]
    async fn a_reader_of_everything_gets_each_in_its_order() {
        let unread = unread(Reading::Everything, ROOM);
        SAID.iter().for_each(|(topic, payload)| unread.put(message(topic, *payload)));
        assert_eq!(all(&unread).await, pairs(&SAID));
    }

    #[tokio::test]
    async fn the_newest_takes_the_place_of_what_was_not_read_yet_and_of_nothing_else() {
        let unread = unread(Reading::Newest, ROOM);
        SAID.iter().for_each(|(topic, payload)| unread.put(message(topic, *payload)));
        assert_eq!(unread.next().await.map(|message| message.payload), Some("2".into()));
        unread.put(message("a/health", "3"));
        unread.put(message("b/health", "2"));
        let left = [
            ("a/ack/status/7", "init"),
            ("b/health", "2"),
            ("a/model/detector/state", "1"),
            ("a/ack/status/7", "successful"),
            ("a/event/main", "1"),
            ("a/event/main", "2"),
            ("a/health", "3"),
        ];
        assert_eq!(all(&unread).await, pairs(&left));
    }

    #[tokio::test]
    async fn a_table_needs_no_more_room_than_its_devices() {
        let unread = unread(Reading::Newest, 100 * (BESIDE + 64));
        for n in 0..100_000 {
            unread.put(message(&format!("d{}/health", n % 100), n.to_string()));
        }
        let all = all(&unread).await;
        assert_eq!((all.len(), unread.dropped()), (100, 0));
        assert_eq!(all[7], ("d7/health".to_owned(), "99907".to_owned()));
    }

    #[tokio::test]
    async fn what_finds_no_room_is_counted() {
        let unread = unread(Reading::Everything, 3 * (BESIDE + 64));
        (0..5).for_each(|_| unread.put(message("a/event/main", vec![b'x'; 40])));
        assert_eq!((all(&unread).await.len(), unread.dropped()), (3, 2));
    }

    #[tokio::test]
    async fn a_reader_waits_for_the_next_and_learns_of_the_end() {
        let unread = std::sync::Arc::new(unread(Reading::Everything, ROOM));
        let reader = tokio::spawn({
            let unread = unread.clone();
            async move { (unread.next().await, unread.next().await) }
        });
        tokio::time::sleep(Duration::from_millis(1)).await;
        unread.put(message("a/health", "1"));
        unread.close();
        let (first, second) = reader.await.unwrap();
        assert!(first.is_some() && second.is_none());
    }
}
