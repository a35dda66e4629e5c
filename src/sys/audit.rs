//! The audit log on the disk: files of lines in a folder of the state folder, in the order of their names.
//!
//! ```text
//! audit/log-0000000001.jsonl    named by the number of its first line
//! audit/log-0000000187.jsonl
//! audit/anchor.json             the number and hash of the last line that was dropped
//! ```
//!
//! Lines are only ever added at the end, a batch and one sync at a time. When there are too many files, the
//! oldest is dropped: its last number and hash are made durable as the anchor first, so that after a power cut
//! the rest can be checked from the anchor on, whether the file is still there or not. What a power cut left of
//! lines that were being written is cut off at the next start, and that is noted in the log: the piece of a last
//! line, and all from a page of zeroes on, which can stand before lines that did get there. That takes nothing
//! from the proof: whoever could write the zeroes could cut the file.
//!
//! What is in a line, and what a good chain is, is told by [`crate::domain::audit`].

use super::durable::{self, DurableError, failed};
use crate::domain::audit::{self, Anchor, Broken, Draft, Head};
use crate::domain::{Digest, Reason, ReasonCode};
use sha2::{Digest as _, Sha256};
use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read, SeekFrom};
use std::path::{Path, PathBuf};

/// A file that has grown so large is followed by a new one, bytes.
const SEGMENT: u64 = 64 << 10;
/// Most files that are kept.
const SEGMENTS: usize = 8;
/// Longest file that is read; a longer one was not written here.
const MAX_SEGMENT: u64 = 4 * SEGMENT;
/// The last line that was dropped.
const ANCHOR: &str = "anchor.json";

/// The folder below the state folder.
pub const FOLDER: &str = "audit";

fn hash(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

/// The log, open for more.
#[derive(Debug)]
pub struct AuditLog {
    folder: PathBuf,
    /// First numbers of the files, the oldest first.
    segments: VecDeque<u64>,
    head: Head,
    /// The newest file, once something was written to it.
    file: Option<durable::File>,
    /// Its length.
    size: u64,
}

impl AuditLog {
    /// Opens the log of this folder, which is made where it is missing. What a power cut left of a last line is
    /// cut off; its length in bytes is told.
    ///
    /// # Errors
    /// What cannot be read or written.
    pub fn open(folder: &Path) -> Result<(Self, Option<u64>), Reason> {
        durable::create_dir_synced(folder)?;
        durable::remove_temporaries(folder)?;
        let segments: VecDeque<u64> = segments(folder)?.into();
        let mut log =
            Self { folder: folder.to_owned(), segments, head: anchor(folder)?, file: None, size: 0 };
        let Some(newest) = log.segments.back() else { return Ok((log, None)) };
        let path = path(folder, *newest);
        let text = read_file(&path)?;
        let written = text.split_once('\0').map_or(text.as_str(), |(before, _)| before);
        log.size = written.rfind('\n').map_or(0, |at| at as u64 + 1);
        let torn = text.len() as u64 - log.size;
        if torn > 0 {
            log.cut(&path)?;
        }
        // The newest line that can be read; damage before it is for `verify` to find.
        for first in log.segments.iter().rev() {
            let text = read_file(&self::path(folder, *first))?;
            if let Some(last) = last_readable(&text) {
                if last.seq >= log.head.seq {
                    log.head = last;
                }
                break;
            }
        }
        Ok((log, (torn > 0).then_some(torn)))
    }

    /// The number and hash of the newest line.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Adds lines, durably. Where that fails none of them counts.
    ///
    /// # Errors
    /// What the disk says.
    pub fn append(&mut self, drafts: impl IntoIterator<Item = Draft>) -> Result<(), Reason> {
        let mut head = self.head;
        let mut lines = String::new();
        for draft in drafts {
            let (line, next) = audit::line(head, draft.bounded(), hash)
                .map_err(|error| Reason::new(ReasonCode::Internal, format!("audit log: {error}")))?;
            head = next;
            lines += &line;
            lines.push('\n');
        }
        if self.segments.is_empty() || self.size >= SEGMENT {
            self.turn()?;
        }
        if let Err(error) = self.write(lines.as_bytes()) {
            // What did get there must not stand after the next line; if this fails too, the next write does it.
            if let Some(newest) = self.segments.back() {
                let _ = self.cut(&path(&self.folder, *newest));
            }
            self.file = None;
            return Err(error.into());
        }
        (self.head, self.size) = (head, self.size + lines.len() as u64);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), DurableError> {
        let mut file = match (self.file.take(), self.segments.back()) {
            (Some(file), _) => file,
            (None, newest) => {
                let mut file = durable::File::open(&path(&self.folder, newest.copied().unwrap_or(1)))?;
                // What is left of lines that failed; gone for certain before others stand in its place.
                if file.seek(SeekFrom::End(0))? > self.size {
                    file.set_len(self.size)?;
                    file.sync()?;
                }
                file
            }
        };
        file.seek(SeekFrom::Start(self.size))?;
        file.write_all(bytes)?;
        file.sync()?;
        self.file = Some(file);
        Ok(())
    }

    fn cut(&self, path: &Path) -> Result<(), DurableError> {
        let mut file = durable::File::open(path)?;
        file.set_len(self.size)?;
        file.sync()
    }

    /// Begins a new file, and drops the oldest where there are too many.
    fn turn(&mut self) -> Result<(), Reason> {
        let first = self.head.seq + 1;
        // One that is there is empty: an earlier try came no farther.
        drop(durable::File::open(&path(&self.folder, first))?);
        durable::sync_dir(&self.folder)?;
        if self.segments.back() != Some(&first) {
            self.segments.push_back(first);
        }
        (self.file, self.size) = (None, 0);
        while self.segments.len() > SEGMENTS {
            let Some(oldest) = self.segments.front().copied() else { break };
            let doomed = path(&self.folder, oldest);
            let text = read_file(&doomed)?;
            if let Some(anchor) = last_readable(&text) {
                let bytes = serde_json::to_vec(&anchor).unwrap_or_default();
                durable::write_atomic(&self.folder.join(ANCHOR), &bytes)?;
            }
            durable::remove_file_synced(&doomed)?;
            self.segments.pop_front();
        }
        Ok(())
    }
}

/// All that is kept, as text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    anchor: Anchor,
    /// The lines, the oldest first.
    pub lines: Vec<String>,
}

impl Kept {
    /// Reads all that is kept; nothing is changed, so it may be done beside a running agent.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn read(folder: &Path) -> Result<Self, Reason> {
        let mut kept = Self { anchor: anchor(folder)?, lines: Vec::new() };
        for first in segments(folder)? {
            match read_file(&path(folder, first)) {
                Ok(text) => kept.lines.extend(text.lines().map(str::to_owned)),
                // Dropped meanwhile: the anchor that belongs to it was written before.
                Err(error) if error.source.kind() == io::ErrorKind::NotFound => kept.anchor = anchor(folder)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(kept)
    }

    /// Follows the chain.
    ///
    /// # Errors
    /// The first place where it is broken.
    pub fn verify(&self) -> Result<Head, Broken> {
        audit::verify(self.anchor, self.lines.iter().map(String::as_str), hash)
    }
}

/// The last line of a file's text that can be read.
fn last_readable(text: &str) -> Option<Head> {
    let (entry, sha256) = text.lines().rev().find_map(audit::read)?;
    Some(Head { seq: entry.seq, sha256 })
}

fn path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("log-{first:010}.jsonl"))
}

/// First numbers of the files, the oldest first; none where there is no folder.
fn segments(folder: &Path) -> Result<Vec<u64>, Reason> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("list", folder)(error).into()),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed("list", folder))?.file_name();
        let number: Option<u64> =
            name.to_str().and_then(|name| name.strip_prefix("log-")?.strip_suffix(".jsonl")?.parse().ok());
        found.extend(number);
    }
    found.sort_unstable();
    Ok(found)
}

fn anchor(folder: &Path) -> Result<Anchor, Reason> {
    let path = folder.join(ANCHOR);
    match fs::read(&path) {
        // One that cannot be read is as none: the chain then does not begin at its first line, which is told.
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Anchor::default()),
        Err(error) => Err(failed("read", &path)(error).into()),
    }
}

/// A file's text; what is no text is shown as such, so that it does not hide the rest.
fn read_file(path: &Path) -> Result<String, DurableError> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(failed("read", path))?;
    file.take(MAX_SEGMENT).read_to_end(&mut bytes).map_err(failed("read", path))?;
    Ok(match String::from_utf8(bytes) {
        Ok(text) => text,
        // Byte for byte, so that lengths are those of the file.
        Err(error) => error
            .into_bytes()
            .iter()
            .map(|byte| if byte.is_ascii() { char::from(*byte) } else { '?' })
            .collect(),
    })
}

#[cfg(test)]
mod cuts;
#[cfg(test)]
mod tests;
