//! The audit log as a chain: who commanded what, when, and what became of it. Pure; the hash is an argument.
//!
//! A line is one JSON object. Each carries its own SHA-256 (`sha256`, over the line without that field) and that
//! of the line before it (`previous`), so that a line which was changed, left out, put in or moved breaks the
//! chain at its place. The oldest lines are dropped to keep the log small; the number and hash of the last one
//! dropped ([`Anchor`]) are kept, so that the rest can still be checked from its first line on.
//!
//! Who owns the disk can write a whole new chain. That is found by whoever has kept the number and hash of a
//! line ([`Head`]): each answer to the `audit` command gives them.

use super::id::{Digest, OperatorName};
use super::reason::Reason;
use super::refusal::RefusalKind;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest arguments that are kept, bytes of JSON.
const MAX_ARGUMENTS: usize = 1024;
/// Longest sentence that is kept, letters.
const MAX_DETAIL: usize = 400;
/// What stands before the hash of a line.
const MARK: &str = ",\"sha256\":\"";

/// Who gave a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// An operator whom the repository lists.
    Operator {
        /// The name on the list.
        name: OperatorName,
        /// The key id.
        key: Digest,
    },
    /// Somebody who names a key that is not listed, or did not sign with the one that is named.
    Unproved {
        /// The key id that was named.
        key: Digest,
    },
    /// Somebody who may publish to the broker; no signature.
    Anonymous,
    /// Somebody on this machine, over the agent's socket.
    Local {
        /// The user's number, where the kernel told it.
        uid: Option<u32>,
    },
    /// The agent itself.
    Agent,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Let in; the end has a line of its own.
    Admitted,
    /// Done.
    Successful,
    /// Not done.
    Failed {
        /// Why.
        reason: Reason,
    },
    /// Not let in.
    Refused {
        /// The kind.
        refusal: RefusalKind,
        /// Why.
        reason: Reason,
    },
    /// Something about the log itself.
    Noted {
        /// What.
        note: String,
    },
}

/// What is to be written: a line without its place in the chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    /// When, by the device's clock: RFC 3339.
    pub at: String,
    /// Who.
    pub who: Who,
    /// To whom it was said: the device, or `group:NAME`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub to: String,
    /// The command's name, and the sender's name for it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub command: String,
    /// The sender's name for it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// What it takes; absent where nothing.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub arguments: Value,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Lines before this one that were not written: too many refusals in a short time, or a disk that refused.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Draft {
    /// The same with everything that a sender can make long cut short.
    pub fn bounded(mut self) -> Self {
        let cut = |text: &mut String| {
            if let Some((at, _)) = text.char_indices().nth(MAX_DETAIL) {
                text.truncate(at);
                text.push('…');
            }
        };
        let arguments = self.arguments.to_string();
        if arguments.len() > MAX_ARGUMENTS {
            let start: String = arguments.chars().take(MAX_DETAIL).collect();
            self.arguments = Value::String(format!("{start}… ({} bytes)", arguments.len()));
        }
        match &mut self.outcome {
            Outcome::Failed { reason } | Outcome::Refused { reason, .. } => cut(&mut reason.detail),
            Outcome::Noted { note } => cut(note),
            Outcome::Admitted | Outcome::Successful => {}
        }
        self
    }
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number, from 1 on.
    pub seq: u64,
    /// What it says.
    #[serde(flatten)]
    pub draft: Draft,
    /// The hash of the line before it; all zeros for the first.
    pub previous: Digest,
}

/// A line's number and hash: the newest line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its number; 0 before the first.
    pub seq: u64,
    /// Its hash; all zeros before the first.
    pub sha256: Digest,
}

/// The last line that was dropped.
pub type Anchor = Head;

impl Default for Head {
    fn default() -> Self {
        Self { seq: 0, sha256: Digest::from_bytes([0; 32]) }
    }
}

/// The line that comes after `head`, without a line break, and the head that it makes.
///
/// # Errors
/// Serialisation's, which none of our types has.
pub fn line(
    head: Head,
    draft: Draft,
    hash: impl Fn(&[u8]) -> Digest,
) -> Result<(String, Head), serde_json::Error> {
    let entry = Entry { seq: head.seq + 1, draft, previous: head.sha256 };
    let body = serde_json::to_string(&entry)?;
    let sha256 = hash(body.as_bytes());
    let open = body.strip_suffix('}').unwrap_or(&body);
    Ok((format!("{open}{MARK}{sha256}\"}}"), Head { seq: entry.seq, sha256 }))
}

/// Reads a line: what it says, and its hash as it states it; `None` for what is none.
pub fn read(line: &str) -> Option<(Entry, Digest)> {
    let (body, stated) = parts(line)?;
    Some((serde_json::from_str(&body).ok()?, stated))
}

/// The bytes that are hashed, and the hash as it is stated.
fn parts(line: &str) -> Option<(String, Digest)> {
    let (open, rest) = line.rsplit_once(MARK)?;
    Some((format!("{open}}}"), rest.strip_suffix("\"}")?.parse().ok()?))
}

/// Where the chain is broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// The line, counted from 1 among those that are kept.
    pub line: usize,
    /// The number that it should have.
    pub seq: u64,
    /// What is wrong.
    pub why: String,
}

/// Follows the chain from the anchor through all lines that are kept, and tells the newest.
///
/// # Errors
/// The first place where it is broken.
pub fn verify<'a>(
    anchor: Anchor,
    lines: impl IntoIterator<Item = &'a str>,
    hash: impl Fn(&[u8]) -> Digest,
) -> Result<Head, Broken> {
    let mut head = anchor;
    let mut begun = false;
    for (index, line) in lines.into_iter().enumerate() {
        let seq = head.seq + 1;
        let broken = |why: &str| Broken { line: index + 1, seq, why: why.to_owned() };
        let Some(((entry, stated), (body, _))) = read(line).zip(parts(line)) else {
            return Err(broken("it is no line of this log; it was changed or damaged"));
        };
        if hash(body.as_bytes()) != stated {
            return Err(broken("its content does not match its hash; it was changed"));
        }
        if !begun && entry.seq <= anchor.seq {
            // Dropped, and a power cut came before its file was removed.
            if entry.seq == anchor.seq && stated != anchor.sha256 {
                return Err(broken("it is not the line that was dropped under this number; it was changed"));
            }
            continue;
        }
        begun = true;
        if entry.seq != seq {
            return Err(broken(&format!("it has the number {}; lines are missing or were moved", entry.seq)));
        }
        if entry.previous != head.sha256 {
            return Err(broken("it does not follow the line before it; that one was exchanged"));
        }
        head = Head { seq, sha256: stated };
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ReasonCode;
    use proptest::prelude::*;

    /// Any function of all bytes will do for the chain.
    fn hash(bytes: &[u8]) -> Digest {
        let mut state = [7u8; 32];
        for (index, byte) in bytes.iter().enumerate() {
            let at = index % 32;
            state[at] = state[at].wrapping_mul(31).wrapping_add(*byte).wrapping_add(state[(at + 31) % 32]);
        }
        Digest::from_bytes(state)
    }

    fn draft(n: usize) -> Draft {
        Draft {
            at: format!("2026-01-01T00:00:{:02}Z", n % 60),
            who: match n % 4 {
                0 => Who::Anonymous,
                1 => Who::Local { uid: Some(1000) },
                2 => Who::Operator { name: "anna".parse().unwrap(), key: Digest::from_bytes([1; 32]) },
                _ => Who::Agent,
            },
            to: "pi-1".into(),
            command: "pause".into(),
            id: n.to_string(),
            arguments: serde_json::json!({ "sha256": ",\"sha256\":\"x\"}" }),
            outcome: match n % 3 {
                0 => Outcome::Admitted,
                1 => Outcome::Successful,
                _ => Outcome::Refused {
                    refusal: RefusalKind::Replayed,
                    reason: Reason::new(ReasonCode::Replayed, "seen"),
                },
            },
            left_out: 0,
        }
    }

    fn chain(count: usize) -> Vec<String> {
        let mut head = Head::default();
        (0..count)
            .map(|n| {
                let (line, next) = line(head, draft(n), hash).unwrap();
                head = next;
                line
            })
            .collect()
    }

    fn check(lines: &[String]) -> Result<Head, Broken> {
        verify(Anchor::default(), lines.iter().map(String::as_str), hash)
    }

    #[test]
    fn a_whole_chain_is_good_and_its_lines_read_back() {
        let lines = chain(9);
        let head = check(&lines).unwrap();
        assert_eq!(head.seq, 9);
        for (n, line) in lines.iter().enumerate() {
            let (entry, _) = read(line).unwrap();
            assert_eq!((entry.seq, entry.draft), (n as u64 + 1, draft(n)));
        }
        assert_eq!(check(&[]), Ok(Head::default()));
    }

    #[test]
    fn what_is_left_out_moved_or_exchanged_is_found_at_its_place() {
        let lines = chain(6);
        let mut missing = lines.clone();
        missing.remove(2);
        assert_eq!(check(&missing).unwrap_err().line, 3);
        let mut moved = lines.clone();
        moved.swap(1, 3);
        assert_eq!(check(&moved).unwrap_err().line, 2);
        // A line that is whole in itself, in the place of another.
        let mut exchanged = lines.clone();
        let (other, _) = line(Head { seq: 2, sha256: read(&lines[1]).unwrap().1 }, draft(77), hash).unwrap();
        exchanged[2] = other;
        let broken = check(&exchanged).unwrap_err();
        assert!(broken.line == 4 && broken.why.contains("exchanged"), "{broken:?}");
        assert_eq!(check(&lines[1..]).unwrap_err().line, 1, "the first ones are missing");
    }

    #[test]
    fn the_rest_is_good_from_its_anchor_on() {
        let lines = chain(6);
        let (entry, sha256) = read(&lines[2]).unwrap();
        let anchor = Anchor { seq: entry.seq, sha256 };
        let from = |lines: &[String]| verify(anchor, lines.iter().map(String::as_str), hash);
        assert_eq!(from(&lines[3..]).unwrap().seq, 6);
        assert_eq!(from(&lines).unwrap().seq, 6, "what was to be removed is still there");
        assert_eq!(from(&lines[4..]).unwrap_err().line, 1);
        assert_eq!(from(&[]).unwrap(), anchor);
    }

    #[test]
    fn what_a_sender_makes_long_is_cut() {
        let mut long = draft(2);
        long.arguments = serde_json::json!({ "x": "é".repeat(9000) });
        long.outcome =
            Outcome::Failed { reason: Reason::new(ReasonCode::BadRequest, "ü".repeat(MAX_DETAIL + 1)) };
        let (line, _) = line(Head::default(), long.bounded(), hash).unwrap();
        assert!(line.len() < 4096 && read(&line).is_some(), "{line}");
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_found_in_its_line(at in 0usize..5, position in 0usize..200, byte in 33u8..126) {
            let mut lines = chain(5);
            let mut bytes = lines[at].clone().into_bytes();
            let position = position % bytes.len();
            prop_assume!(bytes[position] != byte);
            bytes[position] = byte;
            // Hexadecimal digits of the two cases mean the same hash.
            prop_assume!(!bytes[position].eq_ignore_ascii_case(&lines[at].as_bytes()[position]));
            lines[at] = String::from_utf8(bytes).unwrap();
            prop_assert_eq!(check(&lines).unwrap_err().line, at + 1);
        }

        #[test]
        fn no_line_makes_it_panic(text in ".{0,80}") {
            let _ = check(&[text]);
        }
    }
}
