//! Values over restarts, and what becomes of a damaged store.

use super::*;
use crate::sys::small_disk::{fill, small_disk};
use rustix::fs::{FlockOperation, flock};
use std::fs;
use std::time::Duration;

fn open(dir: &Path) -> Store {
    let opened = Store::open(&dir.join("store")).unwrap();
    assert_eq!(opened.quarantined, None);
    opened.store
}

/// Closing one leaves its file locked for a moment longer, until its threads have ended.
#[test]
fn a_database_that_is_still_being_closed_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let closing = File::open(dir.path().join("store/db")).unwrap();
    flock(&closing, FlockOperation::LockExclusive).unwrap();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        drop(closing);
    });
    open(dir.path());
}

#[test]
fn values_are_there_again_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (names, numbers) = (store.tree::<String>("names"), store.tree::<u32>("numbers"));
    names.put("a", &"x".repeat(100_000)).unwrap();
    numbers.put("a", &1).unwrap();
    let mut batch = Batch::default();
    batch.put(&names, "b", &"short".to_owned()).unwrap();
    batch.put(&numbers, "b", &2).unwrap();
    batch.remove(&numbers, "a");
    store.batch(batch).unwrap();
    drop((store, names, numbers));

    let store = open(dir.path());
    let (names, numbers) = (store.tree::<String>("names"), store.tree::<u32>("numbers"));
    assert_eq!(names.get("a").unwrap().unwrap().len(), 100_000);
    assert_eq!(numbers.entries().unwrap(), [("b".to_owned(), 2)]);
    assert_eq!((names.len().unwrap(), numbers.len().unwrap()), (2, 1));
    names.put("a", &"now short".to_owned()).unwrap();
    assert_eq!(names.get("a").unwrap().unwrap(), "now short");
    assert_eq!(names.len().unwrap(), 2);
    assert_eq!(names.get("none").unwrap(), None);
}

#[test]
fn keys_that_begin_alike_are_kept_apart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (one, two) = (store.tree::<u32>("a"), store.tree::<u32>("ab"));
    one.put("k", &1).unwrap();
    one.put("kk", &2).unwrap();
    two.put("k", &3).unwrap();
    one.remove("k").unwrap();
    assert_eq!(one.get("k").unwrap(), None);
    assert_eq!(one.entries().unwrap(), [("kk".to_owned(), 2)]);
    assert_eq!(two.entries().unwrap(), [("k".to_owned(), 3)]);
    assert!(one.put(&"k".repeat(500), &1).is_err());
}

#[test]
fn a_queue_keeps_its_order_and_never_gives_a_number_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let queue = store.queue::<String>("spool");
    let numbers: Vec<u64> = (0..300).map(|n| queue.push(&format!("m{n}")).unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(queue.first(2).unwrap(), [(1, "m0".to_owned()), (2, "m1".to_owned())]);
    assert_eq!(queue.after(299, 5).unwrap(), [(300, "m299".to_owned())]);
    for number in numbers {
        queue.remove(number).unwrap();
    }
    assert!(queue.is_empty().unwrap());
    store.sync().unwrap();
    drop((store, queue));
    assert_eq!(open(dir.path()).queue::<String>("spool").push(&"m".to_owned()).unwrap(), 301);
}

#[test]
fn a_count_goes_on_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(open(dir.path()).next_id("deployment").unwrap(), 1);
    assert_eq!(open(dir.path()).next_id("deployment").unwrap(), 2);
    assert_eq!(open(dir.path()).next_id("other").unwrap(), 1);
}

#[test]
fn a_second_opener_is_refused_and_the_store_is_not_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let error = Store::open(&dir.path().join("store")).unwrap_err();
    assert!(matches!(error, StoreError::InUse(_)), "{error}");
    drop(store);
    open(dir.path());
}

#[test]
fn a_value_that_is_not_what_was_written_is_told() {
    let good = encode(b"tree\0key\0", b"{\"a\":1}");
    assert_eq!(decode(b"tree\0key\0", &good).unwrap(), b"{\"a\":1}");
    assert!(decode(b"tree\0other\0", &good).is_err());
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(decode(b"tree\0key\0", &bad).is_err(), "bit 0 of byte {at}");
    }
    for len in 0..good.len() {
        assert!(decode(b"tree\0key\0", &good[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn a_store_that_cannot_be_read_is_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    for round in 1..=4 {
        let store = Store::open(&path).unwrap().store;
        let tree = store.tree::<u32>("a");
        tree.put("a", &1).unwrap();
        store.turn().db().unwrap().insert([tree.prefix("a"), vec![0, 0]].concat(), b"rubbish").unwrap();
        store.sync().unwrap();
        drop((store, tree));
        let opened = Store::open(&path).unwrap();
        let told = opened.quarantined.unwrap();
        assert!(told.contains(&format!("store.corrupt-{round}")), "{told}");
        assert!(opened.store.tree::<u32>("a").is_empty().unwrap());
    }
    let mut aside: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|one| one.unwrap().file_name()).collect();
    aside.retain(|name| name.to_string_lossy().contains("corrupt"));
    aside.sort();
    assert_eq!(aside, ["store.corrupt-3", "store.corrupt-4"], "no more than two are kept, and no empty ones");
}

/// Whatever is done to the database file, the agent gets a store that works: the old values, or
/// an empty one together with the word that something was lost.
#[test]
fn a_damaged_store_works_and_its_loss_is_told() {
    let mut told = 0;
    for round in 0..12_usize {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let store = open(dir.path());
        let tree = store.tree::<String>("names");
        for n in 0..200 {
            tree.put(&format!("k{n}"), &"y".repeat(500)).unwrap();
        }
        store.sync().unwrap();
        drop((store, tree));
        let file = path.join("db");
        let mut bytes = fs::read(&file).unwrap();
        let at = 40 + round * 9_000;
        match round % 3 {
            0 => bytes[at..at + 2000].fill(0),
            1 => bytes[at..at + 2000].fill(0xa5),
            _ => bytes[at] ^= 0x10,
        }
        fs::write(&file, bytes).unwrap();
        let opened = Store::open(&path).unwrap();
        let tree = opened.store.tree::<String>("names");
        let len = tree.len().unwrap();
        assert!(tree.entries().unwrap().iter().all(|(_, value)| value.len() == 500));
        assert_eq!(len == 200, opened.quarantined.is_none(), "{len} left: {:?}", opened.quarantined);
        told += usize::from(opened.quarantined.is_some());
        tree.put("new", &"z".to_owned()).unwrap();
        opened.store.sync().unwrap();
    }
    assert!(told > 6, "of 12 damages only {told} hit something");
}

#[test]
fn with_room_again_on_a_full_disk_it_goes_on_by_itself_and_has_lost_nothing() {
    let Some((dir, _mount)) = small_disk("with_room_again_on_a_full_disk_it_goes_on") else { return };
    let store = open(dir.path());
    let (queue, names) = (store.queue::<String>("spool"), store.tree::<String>("names"));
    let text = "x".repeat(2000);
    for round in 0..3 {
        let filler = dir.path().join("filler");
        let mut file = File::create(&filler).unwrap();
        while std::io::Write::write_all(&mut file, &[1; 512]).is_ok() {}
        drop(file);
        // Accepted as long as it is, and some of it never durable on the full disk.
        let mut accepted = Vec::new();
        let fault = (0..5000)
            .find_map(|_| match queue.push(&text) {
                Ok(number) => {
                    accepted.push(number);
                    store.sync().err()
                }
                Err(fault) => Some(fault),
            })
            .expect("the disk is full");
        assert_eq!(Reason::from(fault).code, ReasonCode::DiskFull);
        let mut refused = Batch::default();
        refused.put(&names, "refused", &text).unwrap();
        store.batch(refused).expect_err("no room yet");

        std::fs::remove_file(&filler).unwrap();
        let start = std::time::Instant::now();
        while let Err(fault) = store.sync() {
            assert!(start.elapsed() < std::time::Duration::from_secs(60), "round {round}: {fault}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert_eq!(names.get("refused").unwrap(), None, "who was told no is not surprised later");
        let kept: Vec<u64> = queue.first(10_000).unwrap().into_iter().map(|(number, _)| number).collect();
        assert_eq!(kept, accepted, "round {round}");
        for number in kept {
            queue.remove(number).unwrap();
        }
        let next = queue.push(&text).unwrap();
        assert!(accepted.last().is_none_or(|last| next > *last), "no number twice");
        queue.remove(next).unwrap();
        store.sync().unwrap();
    }
    names.put("a", &"after it".to_owned()).unwrap();
    store.sync().unwrap();
    drop((store, queue, names));
    let store = open(dir.path());
    assert_eq!(store.tree::<String>("names").get("a").unwrap().unwrap(), "after it");
}

/// Tries until it goes.
fn until_it_goes<T>(mut act: impl FnMut() -> Result<T, StoreError>) -> T {
    let start = std::time::Instant::now();
    loop {
        match act() {
            Ok(done) => return done,
            Err(fault) => assert!(start.elapsed() < Duration::from_secs(60), "{fault}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A batch that fills a segment of the database (512 KiB) is written by another thread than the rest of it,
/// whose failure must be heard of too.
#[test]
fn a_batch_over_the_end_of_a_segment_is_refused_on_a_full_disk_and_nothing_hangs() {
    let Some((dir, _mount)) = small_disk("a_batch_over_the_end_of_a_segment") else { return };
    let store = open(dir.path());
    let names = store.tree::<String>("names");
    for round in 0..12_usize {
        // So that the end of a segment lies somewhere else in the batch each time.
        names.put("before", &"y".repeat(1 + round * 40_000)).unwrap();
        store.sync().unwrap();
        let filler = fill(dir.path());
        let refused = (0..20).find_map(|_| {
            let mut batch = Batch::default();
            for number in 0..5 {
                batch.put(&names, &format!("k{number}"), &"x".repeat(120_000)).unwrap();
            }
            store.batch(batch).err()
        });
        assert!(refused.expect("the disk is full").is_disk_full());
        assert_eq!(store.condition().refuses.unwrap().code, ReasonCode::DiskFull);
        fs::remove_file(filler).unwrap();
        until_it_goes(|| store.sync());
        assert_eq!(store.condition(), Condition::default());
        assert_eq!(names.get("before").unwrap().unwrap().len(), 1 + round * 40_000);
    }
}

#[test]
fn a_store_whose_disk_is_full_at_the_start_opens_by_itself_with_all_that_it_held() {
    let Some((dir, _mount)) = small_disk("a_store_whose_disk_is_full_at_the_start") else { return };
    let path = dir.path().join("store");
    let store = open(dir.path());
    let names = store.tree::<String>("names");
    names.put("a", &"kept".to_owned()).unwrap();
    store.sync().unwrap();
    drop((store, names));
    let filler = fill(dir.path());
    assert!(Store::open(&path).unwrap_err().is_disk_full());

    let Opened { store, quarantined } = Store::open_or_later(&path).unwrap();
    assert_eq!(quarantined, None);
    let names = store.tree::<String>("names");
    assert!(names.get("a").unwrap_err().is_disk_full());
    let refused = Reason::from(names.put("b", &"lost".to_owned()).unwrap_err());
    assert!(refused.code == ReasonCode::DiskFull && refused.detail.contains("make room"), "{refused}");
    assert!(store.condition().refuses.is_some());
    assert!(matches!(Store::open_or_later(&path), Err(StoreError::InUse(_))), "it is ours all the same");

    fs::remove_file(filler).unwrap();
    until_it_goes(|| {
        store.tend();
        names.get("a")
    });
    assert_eq!(names.get("a").unwrap().unwrap(), "kept");
    assert_eq!((names.get("b").unwrap(), store.condition()), (None, Condition::default()));
    names.put("b", &"new".to_owned()).unwrap();
    store.sync().unwrap();
    drop((store, names));
    assert_eq!(open(dir.path()).tree::<String>("names").get("b").unwrap().unwrap(), "new");
}

#[test]
fn a_store_that_became_unreadable_while_its_disk_was_full_is_put_aside() {
    let Some((dir, _mount)) = small_disk("a_store_that_became_unreadable") else { return };
    let path = dir.path().join("store");
    let store = open(dir.path());
    let names = store.tree::<String>("names");
    names.put("a", &"lost".to_owned()).unwrap();
    store.turn().db().unwrap().insert([names.prefix("b"), vec![0, 0]].concat(), b"rubbish").unwrap();
    store.sync().unwrap();
    drop((store, names));
    let filler = fill(dir.path());
    let store = Store::open_or_later(&path).unwrap().store;
    fs::remove_file(filler).unwrap();
    let names = store.tree::<String>("names");
    until_it_goes(|| names.put("c", &"new".to_owned()));
    let told = store.condition().lost.unwrap();
    assert!(told.contains("store.corrupt-1"), "{told}");
    assert_eq!(names.len().unwrap(), 1);
}

#[test]
fn of_two_changes_of_one_key_the_later_counts() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let names = store.tree::<String>("names");
    let mut batch = Batch::default();
    batch.put(&names, "a", &"long".repeat(10_000)).unwrap();
    batch.put(&names, "a", &"short".to_owned()).unwrap();
    store.batch(batch).unwrap();
    assert_eq!(names.get("a").unwrap().unwrap(), "short");
}
