//! What waits for the broker: bounds, order, over restarts, and on a store that refuses.

use super::*;
use crate::domain::ReasonCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn message(text: &str, replaces: Option<&str>) -> Spooled {
    Spooled {
        topic: "t".into(),
        retain: false,
        payload: text.into(),
        correlation: None,
        replaces: replaces.map(Into::into),
        class: Importance::default(),
        timed: false,
    }
}

fn spool(messages: usize, bytes: usize) -> Spool {
    Spool::with_bounds(MemoryStore::default(), SpoolBounds { messages, bytes })
}

fn texts(spool: &mut Spool) -> Vec<String> {
    spool.after(0, usize::MAX).into_iter().map(|(_, m)| m.payload).collect()
}

fn push(spool: &mut Spool, list: &[(&str, Option<&str>)]) {
    let list = list.iter().map(|(text, key)| message(text, *key)).collect();
    spool.push(list, &HashSet::new());
}

#[test]
fn the_oldest_go_first_and_are_counted() {
    let mut s = spool(3, 1000);
    push(&mut s, &[("a", None), ("b", None), ("c", None), ("d", None)]);
    assert_eq!(
        (texts(&mut s), s.dropped().total(), s.len(), s.bytes()),
        (vec!["b".into(), "c".into(), "d".into()], 1, 3, 6)
    );
    let mut s = spool(100, 10);
    push(&mut s, &[("1234", None), ("5678", None), ("90", None)]);
    assert_eq!(
        (texts(&mut s), s.dropped().total()),
        (vec!["5678".into(), "90".into()], 1),
        "10 bytes at most"
    );
    s.push(vec![message("12345678901", None)], &HashSet::new());
    assert!(
        s.dropped().total() == 2 && s.len() == 2,
        "larger than all of it, and nothing else is lost by it"
    );
}

#[test]
fn a_newer_message_takes_the_place_of_an_older_one_with_its_key() {
    let mut s = spool(10, 1000);
    push(&mut s, &[("40", Some("p")), ("x", None), ("50", Some("p")), ("60", Some("q"))]);
    assert_eq!(texts(&mut s), ["x", "50", "60"]);
    assert_eq!(s.dropped().total(), 0);
}

#[test]
fn what_is_on_its_way_is_neither_replaced_nor_dropped() {
    let mut s = spool(2, 1000);
    push(&mut s, &[("1", Some("p")), ("2", None)]);
    let busy: HashSet<u64> = s.after(0, 1).iter().map(|(id, _)| *id).collect();
    s.push(vec![message("3", Some("p"))], &busy);
    assert_eq!(texts(&mut s), ["1", "3"]);
    s.remove(*busy.iter().next().unwrap());
    assert_eq!((texts(&mut s), s.bytes()), (vec!["3".to_owned()], 2));
}

#[test]
fn what_a_store_holds_is_taken_up() {
    let mut store = MemoryStore::default();
    for n in 0..150 {
        store.exchange(&[&message(&n.to_string(), None)], &[]).unwrap();
    }
    let mut s = Spool::open(store);
    assert_eq!(s.len(), 150);
    assert_eq!(s.bytes(), texts(&mut s).iter().map(|t| t.len() + 1).sum::<usize>());
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
        class: Importance::Reply,
        timed: true,
    };
    {
        let opened = Store::open(dir.path()).unwrap();
        let mut s = Spool::open(DiskStore::new(&opened.store));
        s.push(vec![message("gone", None), full.clone()], &HashSet::new());
        let (id, _) = s.after(0, 1).remove(0);
        s.remove(id);
        s.sync();
    }
    let opened = Store::open(dir.path()).unwrap();
    let mut s = Spool::open(DiskStore::new(&opened.store));
    let (id, back) = s.after(0, 9).remove(0);
    assert_eq!((s.len(), &back), (1, &full));
    s.push(vec![message("new", None)], &HashSet::new());
    assert!(s.newest() > id);
}

#[test]
fn waiting_retained_messages_are_known_by_topic() {
    let mut s = spool(10, 1000);
    s.push(vec![Spooled { retain: true, ..message("x", None) }], &HashSet::new());
    assert!(s.has_retained("t") && !s.has_retained("u"));
}

fn of(class: Importance, text: &str) -> Spooled {
    Spooled { class, ..message(text, None) }
}

#[test]
fn the_least_important_class_is_dropped_first_and_each_is_counted() {
    let mut s = spool(4, 1000);
    let none = HashSet::new();
    let all = [
        of(Importance::Event, "e1"),
        of(Importance::Deployment, "d1"),
        of(Importance::Event, "e2"),
        of(Importance::Reply, "r1"),
    ];
    s.push(all.to_vec(), &none);
    s.push(vec![of(Importance::Health, "h1")], &none);
    assert_eq!(texts(&mut s), ["d1", "e2", "r1", "h1"]);
    s.push(vec![of(Importance::Health, "h2"), of(Importance::Reply, "r2")], &none);
    assert_eq!(texts(&mut s), ["d1", "h1", "h2", "r2"], "first the event, then the older reply");
    s.push(vec![of(Importance::Event, "e3")], &none);
    assert_eq!(texts(&mut s), ["d1", "h1", "h2", "r2"], "all others matter more than this one");
    s.push(vec![of(Importance::Deployment, "d2"), of(Importance::Deployment, "d3")], &none);
    assert_eq!(texts(&mut s), ["d1", "h2", "d2", "d3"]);
    assert_eq!(s.dropped(), Dropped { event: 3, reply: 2, health: 1, deployment: 0 });
    assert!(!s.has_room());
}

#[test]
fn what_is_on_its_way_holds_its_class_up_by_itself_only() {
    let mut s = spool(2, 1000);
    s.push(vec![of(Importance::Event, "e1"), of(Importance::Event, "e2")], &HashSet::new());
    let busy: HashSet<u64> = s.after(0, 9).iter().map(|(id, _)| *id).collect();
    for text in ["e3", "e4", "e5"] {
        s.push(vec![of(Importance::Event, text)], &busy);
    }
    assert_eq!(texts(&mut s), ["e1", "e2", "e5"]);
    assert_eq!(s.dropped().event, 2);
}

#[test]
fn narrower_bounds_hold_for_what_a_store_kept() {
    let mut store = MemoryStore::default();
    for n in 0..10 {
        let class = if n % 2 == 0 { Importance::Event } else { Importance::Deployment };
        store.exchange(&[&of(class, &n.to_string())], &[]).unwrap();
    }
    let mut s = Spool::with_bounds(store, SpoolBounds { messages: 4, bytes: 1000 });
    assert_eq!(texts(&mut s), ["3", "5", "7", "9"]);
    assert_eq!(s.dropped(), Dropped { event: 5, deployment: 1, ..Dropped::default() });
}

#[test]
fn a_message_of_an_agent_before_there_were_classes_is_taken_as_it_is() {
    let old = r#"{"topic":"t","retain":false,"payload":"{\"sent_at\":\"then\"}"}"#;
    let message: Message = serde_json::from_str::<Spooled>(old).unwrap().into();
    assert_eq!(message.payload, "{\"sent_at\":\"then\"}", "its time was written when it was made");
    let timed = Spooled { timed: true, ..message_of("{\"a\":1}") };
    let text = String::from_utf8(Message::from(timed).payload.to_vec()).unwrap();
    assert!(text.starts_with("{\"sent_at\":\"2") && text.ends_with("\",\"a\":1}"), "{text}");
}

fn message_of(text: &str) -> Spooled {
    message(text, None)
}

/// A walk over all that wait at each step would take minutes here.
#[test]
fn fifty_thousand_messages_wait_and_go_without_a_walk_over_them() {
    let mut s = Spool::with_bounds(MemoryStore::default(), SpoolBounds::default());
    let none = HashSet::new();
    for n in 0..60_000_u32 {
        let retain = n % 100 == 0;
        let key = format!("key {}", n % 40_000);
        s.push(vec![Spooled { retain, ..message("x", Some(&key)) }], &none);
        assert!(s.has_retained("t"));
    }
    assert_eq!((s.len(), s.dropped().total()), (40_000, 0));
    s.push(vec![message("x", None); 20_000], &none);
    assert_eq!((s.len(), s.dropped().total()), (50_000, 10_000));
    while let Some((id, _)) = s.after(0, 1).pop() {
        s.remove(id);
    }
    assert_eq!((s.len(), s.bytes(), s.newest(), s.has_retained("t")), (0, 0, 0, false));
}

/// A store on a disk that can be filled: then it takes nothing, and tells nothing where it was not opened.
#[derive(Default)]
struct Disk {
    kept: MemoryStore,
    full: Arc<AtomicBool>,
    closed: Arc<AtomicBool>,
}

impl Disk {
    fn refuses(&self, writes: bool) -> Result<(), Reason> {
        match (writes && self.full.load(Ordering::SeqCst)) || self.closed.load(Ordering::SeqCst) {
            true => Err(Reason::new(ReasonCode::DiskFull, "write store: no space; make room")),
            false => Ok(()),
        }
    }
}

impl SpoolStore for Disk {
    fn exchange(&mut self, new: &[&Spooled], gone: &[u64]) -> Result<Vec<u64>, Reason> {
        self.refuses(true)?;
        self.kept.exchange(new, gone)
    }

    fn after(&self, after: u64, count: usize) -> Result<Vec<(u64, Spooled)>, Reason> {
        self.refuses(false)?;
        self.kept.after(after, count)
    }

    fn get(&self, id: u64) -> Result<Option<Spooled>, Reason> {
        self.refuses(false)?;
        self.kept.get(id)
    }
}

#[test]
fn on_a_full_disk_messages_wait_in_memory_and_reach_the_store_with_room_again() {
    let disk = Disk::default();
    let full = disk.full.clone();
    let mut s = Spool::with_bounds(disk, SpoolBounds { messages: 4, bytes: 1000 });
    push(&mut s, &[("a", None), ("b", None)]);
    full.store(true, Ordering::SeqCst);
    push(&mut s, &[("c", None), ("40", Some("p")), ("50", Some("p"))]);
    assert_eq!(texts(&mut s), ["a", "b", "c", "50"], "in their order, and the newer in place of the older");
    assert!(s.is_behind() && s.dropped().total() == 0);
    push(&mut s, &[("d", None)]);
    assert_eq!(
        (texts(&mut s).join(""), s.dropped().total()),
        ("bc50d".to_owned(), 1),
        "bounded all the same"
    );
    let (first, _) = s.after(0, 1).remove(0);
    s.remove(first);
    assert_eq!(texts(&mut s), ["c", "50", "d"]);

    full.store(false, Ordering::SeqCst);
    assert!(s.is_behind(), "until it is tried");
    s.sync();
    assert!(!s.is_behind());
    push(&mut s, &[("e", None)]);
    assert_eq!(texts(&mut s), ["c", "50", "d", "e"]);
    let stored: Vec<String> = s.store.after(0, 99).unwrap().into_iter().map(|(_, m)| m.payload).collect();
    assert_eq!(stored, ["c", "50", "d", "e"], "what was removed meanwhile is gone there too");
}

#[test]
fn a_store_that_opens_late_gives_what_it_held_without_what_was_said_anew() {
    let mut disk = Disk::default();
    disk.kept.exchange(&[&message("old answer", None)], &[]).unwrap();
    disk.kept.exchange(&[&Spooled { retain: true, ..message("old state", None) }], &[]).unwrap();
    let closed = disk.closed.clone();
    closed.store(true, Ordering::SeqCst);
    let mut s = Spool::open(disk);
    assert!(s.is_behind() && s.is_empty());
    push(&mut s, &[("new", None)]);
    assert_eq!(texts(&mut s), ["new"]);
    closed.store(false, Ordering::SeqCst);
    s.sync();
    assert_eq!(texts(&mut s), ["new", "old answer"], "an old state must not have the last word");
    assert_eq!(s.store.after(0, 99).unwrap().len(), 2);
    assert!(!s.is_behind());
}
