//! Whatever becomes of the files of a store, it opens, holds nothing that was not written, and says what is lost.

use super::*;
use crate::sys::small_disk::small_disk;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

/// A number from a number: the same damages in each run, with the round in what an assertion says.
struct Dice(u64);

impl Dice {
    /// Below `end` (splitmix64).
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }
}

/// What the agent keeps: a journal, a history, numbers of commands, a queue of messages.
fn fill(store: &Store) {
    let (journal, numbers) = (store.tree::<String>("deployments"), store.tree::<u64>("command-numbers"));
    let (history, queue) = (store.tree::<String>("history"), store.queue::<String>("spool"));
    for round in 0..60_u64 {
        let mut batch = Batch::default();
        batch.put(&journal, "detector", &format!("deployment {round} ").repeat(40)).unwrap();
        batch.put(&history, &format!("{round:04}"), &format!("ended {round} ").repeat(60)).unwrap();
        store.batch(batch).unwrap();
        numbers.put("key device", &round).unwrap();
        let number = queue.push(&"m".repeat(900)).unwrap();
        if round % 3 > 0 {
            queue.remove(number).unwrap();
        }
        store.sync().unwrap();
    }
}

/// All that can be read, as it was written; how many values there are.
fn read(store: &Store, round: usize) -> usize {
    let (journal, numbers) = (store.tree::<String>("deployments"), store.tree::<u64>("command-numbers"));
    let (history, queue) = (store.tree::<String>("history"), store.queue::<String>("spool"));
    let history = history.entries().unwrap();
    for (key, value) in &history {
        let number: u64 = key.parse().unwrap();
        assert_eq!(*value, format!("ended {number} ").repeat(60), "round {round}");
    }
    let journal = journal.entries().unwrap();
    for (_, value) in &journal {
        let number: u64 = value.split(' ').nth(1).unwrap().parse().unwrap();
        assert_eq!(*value, format!("deployment {number} ").repeat(40), "round {round}");
    }
    let numbers = numbers.entries().unwrap();
    assert!(numbers.iter().all(|(_, number)| *number < 60), "round {round}");
    let queue = queue.first(1000).unwrap();
    assert!(queue.iter().all(|(_, message)| message.len() == 900), "round {round}");
    let newest = journal.iter().filter(|(_, value)| value.starts_with("deployment 59 ")).count();
    history.len() + queue.len() + newest + numbers.iter().filter(|(_, number)| *number == 59).count()
}

/// Everything: 60 ended deployments, 20 messages, the newest journal entry and the newest number.
const ALL: usize = 82;

#[test]
fn no_damage_of_its_file_keeps_a_store_from_opening_or_passes_unseen() {
    let template = tempfile::tempdir().unwrap();
    let store = Store::open(&template.path().join("store")).unwrap().store;
    fill(&store);
    drop(store);
    let good = fs::read(template.path().join("store/db")).unwrap();
    let mut dice = Dice(1);
    let mut told = 0;
    for round in 0..150 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        fs::create_dir_all(path.join("blobs")).unwrap();
        for file in ["conf", "mark"] {
            fs::copy(template.path().join("store").join(file), path.join(file)).unwrap();
        }
        let mut bytes = good.clone();
        let at = dice.below(bytes.len());
        let length = (1 << dice.below(16)).min(bytes.len() - at);
        let what = ["a bit", "zeros", "junk", "an end", "an older part"][round % 5];
        match what {
            "a bit" => bytes[at] ^= 1 << dice.below(8),
            "zeros" => bytes[at..at + length].fill(0),
            "junk" => bytes[at..at + length].fill_with(|| dice.below(256) as u8),
            "an end" => bytes.truncate(at),
            _ => {
                let from = dice.below(bytes.len() - length);
                bytes.copy_within(from..from + length, at);
            }
        }
        fs::write(path.join("db"), &bytes).unwrap();
        let opened =
            Store::open(&path).unwrap_or_else(|error| panic!("round {round}, {what} at {at}: {error}"));
        let left = read(&opened.store, round);
        assert!(
            left == ALL || opened.quarantined.is_some(),
            "round {round}: {what} at {at}, {length} long: {left} of {ALL} are left, and nobody is told"
        );
        told += usize::from(opened.quarantined.is_some());
        opened.store.tree::<u64>("command-numbers").put("key device", &99).unwrap();
        opened.store.sync().unwrap();
    }
    println!("{told} of 150 damages were told, the others hit nothing that counts");
    assert!(told > 50, "only {told} damages hit something");
}

#[test]
fn a_store_whose_files_are_missing_or_of_another_kind_is_rebuilt() {
    for (round, name) in ["db", "conf", "mark", "blobs", ""].into_iter().enumerate() {
        for how in ["missing", "a folder", "a file", "empty"] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("store");
            let store = Store::open(&path).unwrap().store;
            fill(&store);
            drop(store);
            let victim = path.join(name);
            let victim = if name.is_empty() { path.clone() } else { victim };
            if victim.is_dir() {
                fs::remove_dir_all(&victim).unwrap()
            } else {
                fs::remove_file(&victim).unwrap()
            }
            match how {
                "a folder" => fs::create_dir(&victim).unwrap(),
                "a file" => fs::write(&victim, b"something else").unwrap(),
                "empty" => fs::write(&victim, b"").unwrap(),
                _ => {}
            }
            let opened = Store::open(&path).unwrap_or_else(|error| panic!("{name} {how}: {error}"));
            let left = read(&opened.store, round);
            // The folder as a whole takes its mark with it.
            let untold = left == ALL || (name.is_empty() && matches!(how, "missing" | "a folder"));
            assert!(untold || opened.quarantined.is_some(), "{name} {how}: {left} left, and nobody is told");
            opened.store.tree::<u64>("command-numbers").put("key device", &99).unwrap();
            opened.store.sync().unwrap();
        }
    }
}

#[test]
fn a_store_that_another_user_left_behind_is_put_aside() {
    if rustix::process::geteuid().is_root() {
        // Root reads it all the same; what it would be for another user is told by the kind of the error.
        eprintln!("skipped a_store_that_another_user_left_behind: root may read everything");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    drop(Store::open(&path).unwrap());
    fs::set_permissions(path.join("db"), fs::Permissions::from_mode(0o000)).unwrap();
    let opened = Store::open(&path).unwrap();
    assert!(opened.quarantined.unwrap().contains("store.corrupt-1"));
}

#[test]
fn a_store_on_a_read_only_disk_begins_closed_and_opens_by_itself() {
    let Some((dir, _mount)) = small_disk("a_store_on_a_read_only_disk") else { return };
    let remount = |how: &str| {
        let status = std::process::Command::new("mount").args(["-o", how]).arg(dir.path()).status().unwrap();
        assert!(status.success());
    };
    let path = dir.path().join("store");
    let store = Store::open(&path).unwrap().store;
    store.tree::<String>("names").put("a", &"kept".to_owned()).unwrap();
    store.sync().unwrap();
    drop(store);
    // The threads of the database let go of its file a moment later.
    let start = Instant::now();
    while !std::process::Command::new("mount")
        .args(["-o", "remount,ro"])
        .arg(dir.path())
        .status()
        .unwrap()
        .success()
    {
        assert!(start.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(50));
    }
    let store = Store::open_or_later(&path).unwrap().store;
    let names = store.tree::<String>("names");
    assert!(names.put("b", &"refused".to_owned()).is_err());
    let refuses = store.condition().refuses.unwrap();
    assert!(refuses.detail.contains("ead-only"), "{refuses}");
    remount("remount,rw");
    let start = Instant::now();
    while names.get("a").ok().flatten().is_none_or(|value| value != "kept") {
        assert!(start.elapsed() < Duration::from_secs(60));
        store.tend();
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(store.condition(), Condition::default());
}

/// A thread of the database that hangs holds the lock of its file for as long as the process lives.
#[test]
fn a_lock_that_is_never_let_go_does_not_keep_the_store_closed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = Store::open(&path).unwrap().store;
    let names = store.tree::<String>("names");
    names.put("a", &"kept".to_owned()).unwrap();
    store.sync().unwrap();
    // The old one lives on, with its lock, as one does whose thread never ends.
    let hangs = store.turn().db().unwrap().clone();
    store.turn().fell_ill();
    let start = Instant::now();
    while store.sync().is_err() || names.put("b", &"new".to_owned()).is_err() {
        assert!(start.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(20));
    }
    store.sync().unwrap();
    assert_eq!(
        (names.get("a").unwrap().unwrap().as_str(), store.condition()),
        ("kept", Condition::default())
    );
    drop((store, names));
    let names = Store::open(&path).unwrap().store.tree::<String>("names");
    assert_eq!(names.get("b").unwrap().unwrap(), "new");
    drop(hangs);
}
