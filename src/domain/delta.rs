//! What a repository offers in place of whole files, and which of it a device takes. Pure.
//!
//! An offer is unsigned and proves nothing: it says how few bytes might do. A device takes the one that moves the
//! fewest, and goes back to the whole file wherever it leads to something else than what was signed.

use super::id::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most offers of one release that are read.
pub const MAX_OFFERS: usize = 2048;
/// Below so many bytes a file is fetched as it is: another request costs as much.
pub const LEAST_FILE: u64 = 4 << 10;

/// Memory that putting a file together takes at most, bytes: the buffers of one block, and the process around them.
pub const MEMORY: u64 = 64 << 20;

/// May a file be put together with so much memory free? Where the system does not tell, it is tried.
pub fn has_memory(free: Option<u64>) -> bool {
    free.is_none_or(|free| free >= MEMORY)
}

/// What an offer is made of, at the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The whole file, packed; nothing old is needed.
    Zstd,
    /// What is not in the old file, and copies of what is.
    ZstdPatch,
    /// Besides, differences of weights.
    Planes,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Zstd, Self::ZstdPatch, Self::Planes];

    /// Its name in files, metrics and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Zstd => "zstd",
            Method::ZstdPatch => "zstd-patch",
            Method::Planes => "planes",
        }
    }
}

/// One way to a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// SHA-256 of the file that it leads to.
    pub file: Digest,
    /// SHA-256 of the file that it starts from; none where it holds all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Digest>,
    /// What it is made of.
    pub method: Method,
    /// Its bytes.
    pub size: u64,
    /// SHA-256 of those, which is also its name.
    pub sha256: Digest,
}

/// A file that is to be brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Its signed digest.
    pub file: Digest,
    /// Its signed size, bytes.
    pub size: u64,
    /// Bytes of it that have come already.
    pub have: u64,
}

/// The offer that moves the fewest bytes, of those whose old file is at hand; `None` where the file itself, or what
/// is left of it, moves no more.
pub fn choose<'a>(
    wanted: &Wanted,
    offers: &'a [Offer],
    is_held: impl Fn(&Digest) -> bool,
    is_refused: impl Fn(&Digest) -> bool,
) -> Option<&'a Offer> {
    let left = wanted.size.saturating_sub(wanted.have);
    if wanted.size < LEAST_FILE {
        return None;
    }
    offers
        .iter()
        .filter(|offer| offer.file == wanted.file && offer.size < left && offer.size > 0)
        .filter(|offer| offer.from.as_ref().is_none_or(&is_held) && !is_refused(&offer.sha256))
        .min_by_key(|offer| (offer.size, offer.method))
}

/// What an update moved, and what it would have moved without offers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Bytes of files and deltas that came over the wire since the agent began with it.
    pub moved_bytes: u64,
    /// Bytes that did not have to come, because a delta did.
    pub saved_bytes: u64,
    /// Files that came as a delta, by its method.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub deltas: BTreeMap<Method, u32>,
    /// Deltas that led to nothing; the whole files came in their place.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failed: u32,
}

impl Transfer {
    /// Adds another deployment's.
    pub fn add(&mut self, other: &Self) {
        self.moved_bytes += other.moved_bytes;
        self.saved_bytes += other.saved_bytes;
        self.failed += other.failed;
        for (method, count) in &other.deltas {
            *self.deltas.entry(*method).or_default() += count;
        }
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(byte: u8) -> Digest {
        Digest::from_bytes([byte; 32])
    }

    fn offer(from: Option<u8>, size: u64) -> Offer {
        let method = if from.is_some() { Method::Planes } else { Method::Zstd };
        Offer { file: digest(1), from: from.map(digest), method, size, sha256: digest(size as u8) }
    }

    #[test]
    fn the_fewest_bytes_win_and_nothing_is_taken_that_saves_none() {
        let offers = [offer(None, 90), offer(Some(7), 50), offer(Some(8), 10)];
        let sizes = |have, held: &[u8], refused: &[u8]| {
            let wanted = Wanted { file: digest(1), size: LEAST_FILE + 100, have: LEAST_FILE + have };
            let is = |list: &[u8], one: &Digest| list.iter().any(|byte| digest(*byte) == *one);
            choose(&wanted, &offers, |from| is(held, from), |name| is(refused, name)).map(|offer| offer.size)
        };
        assert_eq!(sizes(0, &[7, 8], &[]), Some(10));
        assert_eq!(sizes(0, &[7], &[]), Some(50));
        assert_eq!(sizes(0, &[], &[]), Some(90));
        assert_eq!(sizes(0, &[7, 8], &[10]), Some(50), "one that led to nothing is not tried again");
        assert_eq!(sizes(20, &[], &[]), None, "what is left is less");
        assert_eq!(sizes(60, &[7], &[]), None);
        let other = Wanted { file: digest(2), size: LEAST_FILE, have: 0 };
        assert_eq!(choose(&other, &offers, |_| true, |_| false), None);
        let small = Wanted { file: digest(1), size: LEAST_FILE - 1, have: 0 };
        assert_eq!(choose(&small, &offers, |_| true, |_| false), None);
    }

    #[test]
    fn methods_are_written_by_their_names() {
        for method in Method::ALL {
            assert_eq!(serde_json::to_value(method).unwrap(), method.as_str());
        }
    }
}
