//! That the disk for tests shows what a real one may do, and so finds what is written in a wrong order.

use super::*;
use crate::sys::durable::recorded::{Fault, Recorder};
use crate::sys::durable::{self, DurableError, File, TEMPORARY, disk};
use rustix::io::Errno;

const ALL: [Left; 9] = [
    Left::Zeroes,
    Left::All,
    Left::Synced,
    Left::Names,
    Left::Random(1),
    Left::Random(2),
    Left::Random(3),
    Left::Random(4),
    Left::Random(5),
];

/// What each cut of `work` leaves of the file `a`, which holds "old" before.
fn cuts(work: impl Fn(&Path) -> Result<(), DurableError>) -> Vec<(String, Option<Vec<u8>>)> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), b"old").unwrap();
    let recorder = Recorder::at(dir.path());
    work(&dir.path().join("a")).unwrap();
    let record = recorder.record();
    let mut left = Vec::new();
    for count in 0..=record.operations.len() {
        for how in ALL {
            let before = count.checked_sub(1).map_or("the start", |last| &record.operations[last].what);
            let found = after(&record, count, how).read("a").map(<[u8]>::to_vec);
            left.push((format!("after {before}, {how:?}"), found));
        }
    }
    left
}

fn is_whole(found: &Option<Vec<u8>>) -> bool {
    found.as_deref() == Some(b"old") || found.as_deref() == Some(b"the new one")
}

/// Writes as `write_atomic` does, but for what `skip` leaves out.
fn write_without(path: &Path, skip: &str) -> Result<(), DurableError> {
    let temporary = durable::parent_of(path).join(format!("{TEMPORARY}1"));
    let mut file = File::create_new(&temporary)?;
    let rename = || disk(path).rename(&temporary, path).map_err(durable::failed("rename to", path));
    if skip == "order" {
        rename()?;
    }
    file.write_all(b"the new one")?;
    if skip != "sync of the file" {
        file.sync()?;
    }
    if skip != "order" {
        rename()?;
    }
    if skip != "sync of the folder" { durable::sync_dir(durable::parent_of(path)) } else { Ok(()) }
}

#[test]
fn a_file_that_is_written_in_the_right_order_is_the_old_or_the_new_one_at_each_cut() {
    for work in [
        |path: &Path| write_without(path, "nothing"),
        |path: &Path| durable::write_atomic(path, b"the new one"),
    ] {
        let cuts = cuts(work);
        assert!(cuts.iter().all(|(_, found)| is_whole(found)), "{cuts:?}");
        assert_eq!(cuts[0].1.as_deref(), Some(&b"old"[..]));
        let end = &cuts[cuts.len() - ALL.len()..];
        assert!(end.iter().all(|(_, found)| found.as_deref() == Some(b"the new one")), "durable at the end");
    }
}

#[test]
fn each_step_that_is_left_out_is_found() {
    for skip in ["sync of the file", "order"] {
        let cuts = cuts(|path| write_without(path, skip));
        let torn = cuts.iter().filter(|(_, found)| !is_whole(found)).count();
        assert!(torn > 0, "without {skip} nothing was torn: {cuts:?}");
        let empty = cuts.iter().any(|(_, found)| found.as_deref() == Some(b""));
        assert!(empty, "without {skip} it may be empty: {cuts:?}");
    }
    let cuts = cuts(|path| write_without(path, "sync of the folder"));
    assert!(cuts.iter().all(|(_, found)| is_whole(found)));
    let end = &cuts[cuts.len() - ALL.len()..];
    assert!(end.iter().any(|(_, found)| found.as_deref() == Some(b"old")), "it may be forgotten: {end:?}");
}

#[test]
fn names_are_lost_without_their_folder_and_content_without_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::at(dir.path());
    let at = |name: &str| dir.path().join(name);
    durable::create_dir_all(&at("f/g")).unwrap();
    durable::write_new(&at("f/g/a"), b"0123456789").unwrap();
    durable::sync_file(&at("f/g/a")).unwrap();
    durable::hard_link(&at("f/g/a"), &at("b")).unwrap();
    durable::symlink_atomic(Path::new("f"), &at("link")).unwrap();
    let count = recorder.count();
    let told = |count, left| {
        let disk = after(&recorder.record(), count, left);
        disk.paths().map(|path| path.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // The link's sync is that of the top folder: the names in it are durable, those below are not.
    assert_eq!(told(count, Left::Synced), ["b", "f", "link"]);
    assert_eq!(told(count, Left::All), ["b", "f", "f/g", "f/g/a", "link"]);
    let disk = after(&recorder.record(), count, Left::Synced);
    assert_eq!(disk.read("b").unwrap(), b"0123456789");
    // A second name is the same file: what is removed under one stays under the other.
    durable::remove_file_synced(&at("f/g/a")).unwrap();
    let mut file = File::open(&at("b")).unwrap();
    file.set_len(4).unwrap();
    file.seek(std::io::SeekFrom::End(0)).unwrap();
    file.write_all(b"x").unwrap();
    let record = recorder.record();
    let end = record.operations.len();
    assert_eq!(after(&record, end, Left::All).read("b").unwrap(), b"0123x");
    assert_eq!(after(&record, end, Left::Synced).read("b").unwrap(), b"0123456789");
    let random: Vec<_> = (0..60).map(|seed| after(&record, end, Left::Random(seed))).collect();
    let holds = |bytes: &[u8]| random.iter().any(|disk| disk.read("b") == Some(bytes));
    assert!(holds(b"0123x") && holds(b"0123") && holds(b"0123x56789") && holds(b"0123456789"));
    // The record and the real disk are the same where nothing is lost.
    let copy = tempfile::tempdir().unwrap();
    after(&record, end, Left::All).write_to(copy.path());
    assert_eq!(fs::read(copy.path().join("b")).unwrap(), fs::read(at("b")).unwrap());
    assert_eq!(fs::read_link(copy.path().join("link")).unwrap(), Path::new("f"));
}

#[test]
fn a_disk_fails_where_it_is_told_to_and_keeps_what_was_there() {
    let run = |fault: Option<Fault>| {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), b"old").unwrap();
        let recorder = Recorder::at(dir.path());
        recorder.set_fault(fault);
        let written = durable::write_atomic(&dir.path().join("a"), b"the new one");
        let (met, count) = (recorder.was_met(), recorder.count());
        recorder.set_fault(None);
        let names = fs::read_dir(dir.path()).unwrap().count();
        (written, fs::read(dir.path().join("a")).unwrap(), names, met, count)
    };
    let (written, .., count) = run(None);
    written.unwrap();
    assert_eq!(count, 5, "create, write, sync file, rename, sync folder");
    for at in 0..count {
        for lasting in [false, true] {
            let (written, found, names, met, _) = run(Some(Fault { at, error: Errno::IO, lasting }));
            assert_eq!(written.unwrap_err().source.raw_os_error(), Some(Errno::IO.raw_os_error()));
            assert_eq!(found, if at < 4 { &b"old"[..] } else { b"the new one" });
            assert_eq!((met, names), (true, if lasting && (1..4).contains(&at) { 2 } else { 1 }));
        }
        let full = run(Some(Fault { at, error: Errno::NOSPC, lasting: true })).0;
        assert_eq!(full.is_err(), at < 2, "what needs no room goes on");
        assert!(full.err().is_none_or(|error| error.is_disk_full()));
    }
}
