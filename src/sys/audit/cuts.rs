//! A power cut at every operation of the log, and again while the log recovers: it opens, it is one chain, no line
//! that was accepted is missing, none is there that was never written, and the next one follows.

use super::tests::draft;
use super::*;
use crate::sys::durable::aftermath::{Left, after};
use crate::sys::durable::recorded::{Fault, Record, Recorder};
use rustix::io::Errno;
use std::collections::HashSet;
use std::ops::Range;

/// What each cut leaves.
const LEFT: [Left; 12] = [
    Left::All,
    Left::Synced,
    Left::Names,
    Left::Zeroes,
    Left::Random(0),
    Left::Random(1),
    Left::Random(2),
    Left::Random(3),
    Left::Random(4),
    Left::Random(5),
    Left::Random(6),
    Left::Random(7),
];

/// A log that was written on a recorded disk.
struct Play {
    record: Record,
    /// After so many operations, lines up to this number had been accepted.
    accepted: Vec<(usize, u64)>,
    /// Every line that was ever to be written.
    written: HashSet<String>,
}

/// Who writes in a play.
struct Writer<'a> {
    folder: PathBuf,
    recorder: Recorder,
    play: &'a mut Play,
}

impl Writer<'_> {
    fn open(&self) -> AuditLog {
        AuditLog::open(&self.folder).unwrap().0
    }

    fn append(&mut self, log: &mut AuditLog, drafts: Range<usize>) -> Result<(), Reason> {
        let mut head = log.head();
        for draft in drafts.clone().map(draft) {
            let (line, next) = audit::line(head, draft.bounded(), hash).unwrap();
            self.play.written.insert(line);
            head = next;
        }
        log.append(drafts.map(draft))?;
        assert_eq!(log.head(), head);
        self.play.accepted.push((self.recorder.count(), head.seq));
        Ok(())
    }
}

impl Play {
    /// Writes below a folder of which lines up to `least` were accepted, and all of `written` exist.
    fn of(root: &Path, least: u64, written: HashSet<String>, write: impl FnOnce(&mut Writer)) -> Self {
        let mut play = Self { record: Record::default(), accepted: vec![(0, least)], written };
        let (folder, recorder) = (root.join(FOLDER), Recorder::at(root));
        let mut writer = Writer { folder, recorder, play: &mut play };
        write(&mut writer);
        play.record = writer.recorder.record();
        play
    }

    /// Gives every disk that a cut may leave to `judge`, with the number of the last line that had been accepted.
    fn cut_everywhere(&self, mut judge: impl FnMut(&Path, u64) -> Result<(), String>) -> usize {
        let (mut seen, mut faults) = (HashSet::new(), Vec::new());
        for count in 0..=self.record.operations.len() {
            let before = self.accepted.iter().filter(|(at, _)| *at <= count);
            let least = before.map(|(_, seq)| *seq).max().unwrap();
            for left in LEFT {
                let disk = after(&self.record, count, left);
                if !seen.insert(disk.clone()) {
                    continue;
                }
                let dir = tempfile::tempdir().unwrap();
                disk.write_to(dir.path());
                if let Err(fault) = judge(dir.path(), least) {
                    let last = count.checked_sub(1).map(|at| self.record.operations[at].what.as_str());
                    faults.push(format!("after {count} ({last:?}), {left:?}: {fault}"));
                }
            }
        }
        assert!(faults.is_empty(), "{} faults\n{}", faults.len(), faults[..faults.len().min(12)].join("\n"));
        seen.len()
    }

    /// From each of them the log recovers.
    fn survives(&self) -> usize {
        self.cut_everywhere(|root, least| recovers(&root.join(FOLDER), least, &self.written))
    }
}

/// As at three boots, each with a line.
fn recovers(folder: &Path, least: u64, written: &HashSet<String>) -> Result<(), String> {
    let told = |error: Reason| error.to_string();
    let mut ours = 0;
    for boot in 0..3 {
        let (mut log, _) = AuditLog::open(folder).map_err(told)?;
        if boot == 0 {
            ours = log.head().seq;
        }
        if log.head().seq < least || log.head().seq != ours + boot {
            return Err(format!("boot {boot}: line {least} was accepted, the newest is {}", log.head().seq));
        }
        log.append([draft(9000)]).map_err(told)?;
        let kept = Kept::read(folder).map_err(told)?;
        let head = kept.verify().map_err(|broken| format!("boot {boot}: {broken:?}"))?;
        if head != log.head() {
            return Err(format!("boot {boot}: the chain ends at {head:?}, the log at {:?}", log.head()));
        }
        let before = kept.lines.len() - 1 - boot as usize;
        if let Some(line) = kept.lines[..before].iter().find(|line| !written.contains(*line)) {
            return Err(format!("boot {boot}: nobody wrote: {line}"));
        }
    }
    Ok(())
}

/// From nothing over some files, with lines alone and many at once.
fn grows(writer: &mut Writer) {
    let mut log = writer.open();
    for drafts in [0..1, 1..2, 2..60] {
        writer.append(&mut log, drafts).unwrap();
    }
    let mut log = writer.open();
    for drafts in [60..61, 61..300, 300..301, 301..340] {
        writer.append(&mut log, drafts).unwrap();
    }
}

#[test]
fn no_power_cut_breaks_the_chain_or_loses_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let play = Play::of(dir.path(), 0, HashSet::new(), grows);
    let disks = play.survives();
    assert!(disks > play.record.operations.len(), "{disks}");
}

#[test]
fn nor_does_one_while_the_oldest_file_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join(FOLDER);
    let (mut log, _) = AuditLog::open(&folder).unwrap();
    for n in 0..SEGMENTS {
        log.append((n * 200..(n + 1) * 200).map(draft)).unwrap();
    }
    assert_eq!((log.segments.len(), log.size >= SEGMENT), (SEGMENTS, true));
    let written = Kept::read(&folder).unwrap().lines.into_iter().collect();
    let play = Play::of(dir.path(), log.head().seq, written, |writer| {
        writer.append(&mut log, 2000..2020).unwrap();
        writer.append(&mut log, 2020..2021).unwrap();
    });
    assert!(play.record.operations.iter().any(|one| one.what.starts_with("remove")), "one was dropped");
    play.survives();
}

#[test]
fn nor_does_a_second_one_while_it_recovers_from_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let play = Play::of(dir.path(), 0, HashSet::new(), grows);
    let mut number = 0;
    let again = play.cut_everywhere(|root, least| {
        number += 1;
        if number % 2 != 0 {
            return Ok(());
        }
        let second = Play::of(root, least, play.written.clone(), |writer| {
            let mut log = writer.open();
            writer.append(&mut log, 5000..5001).unwrap();
        });
        second.survives();
        Ok(())
    });
    assert!(again > 20, "{again}");
}

/// A disk that fails at any operation, once or for a while, takes no line, and leaves none.
#[test]
fn nor_does_one_after_a_line_that_failed() {
    let mut met = 0;
    for (at, lasting) in (0..).flat_map(|at| [(at, false), (at, true)]) {
        let dir = tempfile::tempdir().unwrap();
        let mut failed = false;
        let play = Play::of(dir.path(), 0, HashSet::new(), |writer| {
            let mut log = writer.open();
            writer.append(&mut log, 0..40).unwrap();
            let at = writer.recorder.count() + at;
            writer.recorder.set_fault(Some(Fault { at, error: Errno::IO, lasting }));
            // Long ones, and then a short one in their place.
            for drafts in [100..180, 200..330, 400..401] {
                failed |= writer.append(&mut log, drafts).is_err();
            }
            writer.recorder.set_fault(None);
            writer.append(&mut log, 500..501).unwrap();
            writer.append(&mut log, 501..502).unwrap();
        });
        if !failed {
            break;
        }
        met += 1;
        play.survives();
    }
    assert!(met > 10, "{met}");
}
