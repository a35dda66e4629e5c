//! The log on a real disk: grown, torn, tampered with, cut.

use super::*;
use crate::domain::audit::{Outcome, Who};
use std::io::Write;

pub(super) fn draft(n: usize) -> Draft {
    Draft {
        at: "2026-01-01T00:00:00Z".into(),
        who: Who::Anonymous,
        to: "pi-1".into(),
        command: "pause".into(),
        id: n.to_string(),
        arguments: serde_json::json!({ "filling": "x".repeat(200) }),
        outcome: Outcome::Successful,
        left_out: 0,
    }
}

fn folder_with(count: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, torn) = AuditLog::open(dir.path()).unwrap();
    assert_eq!(torn, None);
    for n in 0..count {
        log.append([draft(n)]).unwrap();
    }
    dir
}

fn newest(folder: &Path) -> PathBuf {
    path(folder, *segments(folder).unwrap().last().unwrap())
}

#[test]
fn it_goes_on_over_restarts_and_is_one_chain() {
    let dir = folder_with(3);
    let (mut log, torn) = AuditLog::open(dir.path()).unwrap();
    assert_eq!((torn, log.head().seq), (None, 3));
    log.append((3..6).map(draft)).unwrap();
    let kept = Kept::read(dir.path()).unwrap();
    assert_eq!((kept.lines.len(), kept.verify()), (6, Ok(log.head())));
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(Kept::read(&empty.path().join("none")).unwrap(), Kept::default());
}

#[test]
fn it_is_bounded_and_the_rest_can_still_be_checked() {
    let dir = folder_with(0);
    let (mut log, _) = AuditLog::open(dir.path()).unwrap();
    for n in 0..150 {
        log.append((0..20).map(|more| draft(n * 20 + more))).unwrap();
    }
    assert_eq!(log.head().seq, 3000);
    let size: u64 = segments(dir.path())
        .unwrap()
        .iter()
        .map(|one| path(dir.path(), *one).metadata().unwrap().len())
        .sum();
    assert!(size <= (SEGMENTS as u64 + 1) * (SEGMENT + (16 << 10)), "{size}");
    let kept = Kept::read(dir.path()).unwrap();
    assert!(kept.lines.len() < 3000 && kept.anchor.seq > 0);
    assert_eq!(kept.verify().unwrap(), log.head());
    // Without its anchor nobody can say where it began.
    fs::remove_file(dir.path().join(ANCHOR)).unwrap();
    assert_eq!(Kept::read(dir.path()).unwrap().verify().unwrap_err().line, 1);
}

#[test]
fn a_file_that_was_to_be_dropped_and_is_still_there_does_no_harm() {
    let dir = folder_with(0);
    let (mut log, _) = AuditLog::open(dir.path()).unwrap();
    log.append((0..300).map(draft)).unwrap();
    log.append((300..600).map(draft)).unwrap();
    let first = read_file(&path(dir.path(), 1)).unwrap();
    let (entry, sha256) = first.lines().last().and_then(audit::read).unwrap();
    let anchor = serde_json::to_vec(&Anchor { seq: entry.seq, sha256 }).unwrap();
    fs::write(dir.path().join(ANCHOR), anchor).unwrap();
    assert_eq!(Kept::read(dir.path()).unwrap().verify().unwrap(), log.head());
}

#[test]
fn a_torn_last_line_is_cut_off_and_told() {
    for torn in ["{\"seq\":4,\"at\":\"2026", "\u{0}\u{0}\u{0}", "{"] {
        let dir = folder_with(3);
        let mut file = fs::File::options().append(true).open(newest(dir.path())).unwrap();
        file.write_all(torn.as_bytes()).unwrap();
        let (mut log, told) = AuditLog::open(dir.path()).unwrap();
        assert_eq!(told, Some(torn.len() as u64));
        log.append([draft(4)]).unwrap();
        let kept = Kept::read(dir.path()).unwrap();
        assert_eq!((kept.lines.len(), kept.verify().unwrap().seq), (4, 4));
    }
}

#[test]
fn zeroes_before_lines_that_were_written_with_them_are_cut_off_too() {
    let dir = folder_with(3);
    let mut bytes = fs::read(newest(dir.path())).unwrap();
    let second = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    bytes[second + 20..second + 40].fill(0);
    fs::write(newest(dir.path()), &bytes).unwrap();
    let (mut log, told) = AuditLog::open(dir.path()).unwrap();
    assert_eq!((told, log.head().seq), (Some((bytes.len() - second) as u64), 1));
    log.append([draft(7)]).unwrap();
    assert_eq!(Kept::read(dir.path()).unwrap().verify(), Ok(log.head()));
}

/// Wherever a power cut ends the file, what was whole stays and the chain goes on.
#[test]
fn wherever_the_file_ends_it_goes_on() {
    let dir = folder_with(2);
    let whole = fs::read(newest(dir.path())).unwrap();
    let breaks: Vec<usize> =
        (0..whole.len()).filter(|at| whole[*at] == b'\n').flat_map(|at| [at, at + 1]).collect();
    for length in (0..whole.len()).filter(|at| at % 11 == 0 || breaks.contains(at)) {
        fs::write(newest(dir.path()), &whole[..length]).unwrap();
        let complete = whole[..length].iter().filter(|byte| **byte == b'\n').count();
        let (mut log, _) = AuditLog::open(dir.path()).unwrap();
        assert_eq!(log.head().seq, complete as u64, "cut at {length}");
        log.append([draft(9)]).unwrap();
        assert_eq!(Kept::read(dir.path()).unwrap().verify().unwrap().seq, complete as u64 + 1);
    }
}

#[test]
fn an_altered_line_is_found_with_its_number() {
    for altered in 0..5 {
        let dir = folder_with(5);
        let text = fs::read_to_string(newest(dir.path())).unwrap();
        let lines: Vec<String> = text
            .lines()
            .enumerate()
            .map(|(n, line)| if n == altered { line.replace("pause", "abort") } else { line.to_owned() })
            .collect();
        fs::write(newest(dir.path()), lines.join("\n") + "\n").unwrap();
        let broken = Kept::read(dir.path()).unwrap().verify().unwrap_err();
        assert_eq!((broken.line, broken.seq), (altered + 1, altered as u64 + 1), "{}", broken.why);
        // What comes after is written all the same, and the place stays known.
        let (mut log, _) = AuditLog::open(dir.path()).unwrap();
        log.append([draft(6)]).unwrap();
        assert_eq!(Kept::read(dir.path()).unwrap().verify().unwrap_err().line, altered + 1);
    }
}

#[test]
fn bytes_that_are_no_text_are_told_as_a_broken_line() {
    let dir = folder_with(2);
    let mut bytes = fs::read(newest(dir.path())).unwrap();
    bytes[20] = 0xff;
    fs::write(newest(dir.path()), bytes).unwrap();
    assert_eq!(Kept::read(dir.path()).unwrap().verify().unwrap_err().line, 1);
    assert_eq!(AuditLog::open(dir.path()).unwrap().0.head().seq, 2);
}

/// A disk that is full takes no line, and with room again the chain goes on without a gap.
#[test]
fn a_full_disk_leaves_a_whole_chain() {
    let Some((disk, _mounted)) = crate::sys::small_disk::small_disk("a_full_disk_leaves_a_whole_chain")
    else {
        return;
    };
    let folder = disk.path().join("audit");
    let (mut log, _) = AuditLog::open(&folder).unwrap();
    log.append([draft(0)]).unwrap();
    let filler = crate::sys::small_disk::fill(disk.path());
    // A page of its file may still have room.
    let refused = (1..100).filter(|n| log.append([draft(*n)]).is_err()).count();
    assert!(refused > 0, "it was full");
    fs::remove_file(filler).unwrap();
    log.append([draft(200)]).unwrap();
    let kept = Kept::read(&folder).unwrap();
    assert_eq!(kept.verify().unwrap(), log.head());
    assert_eq!(kept.lines.len(), 101 - refused);
    assert!(kept.lines.last().unwrap().contains("\"id\":\"200\""));
}
