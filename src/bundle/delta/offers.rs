//! The file in a repository that tells which deltas there are for a release: unsigned, made anew at any time, read as
//! from an enemy.
//!
//! ```text
//! deltas/<SHA-256 of the release's manifest>.json    {"format":1,"offers":[{"file":…,"from":…,"method":…,…}]}
//! deltas/<SHA-256 of the delta>                      the delta
//! ```
//!
//! A device asks for it by a name that it knows from the signed list, so nothing that is signed has to tell of it. What
//! a device does not understand of it, a method of a later version say, it passes over.

use crate::domain::delta::{MAX_OFFERS, Offer};
use serde::{Deserialize, Serialize};

/// The only version so far.
const FORMAT: u32 = 1;
/// Longest file, bytes.
pub const MAX_INDEX: u64 = 1 << 20;

#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    offers: &'a [Offer],
}

#[derive(Deserialize)]
struct Read {
    format: u32,
    offers: Vec<serde_json::Value>,
}

/// Reads the offers.
///
/// # Errors
/// What it is instead, in words.
pub fn parse(bytes: &[u8]) -> Result<Vec<Offer>, String> {
    let read: Read = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if read.format != FORMAT {
        return Err(format!("its format is {}, this agent knows {FORMAT}", read.format));
    }
    let known = read.offers.into_iter().take(MAX_OFFERS);
    Ok(known.filter_map(|offer| serde_json::from_value(offer).ok()).collect())
}

/// The bytes of the file.
pub fn write(offers: &[Offer]) -> Vec<u8> {
    // Plain values; there is nothing in them that could not be written.
    serde_json::to_vec(&Written { format: FORMAT, offers }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Digest;
    use crate::domain::delta::Method;

    #[test]
    fn offers_are_read_as_written_and_strange_ones_passed_over() {
        let digest = |byte| Digest::from_bytes([byte; 32]);
        let offer = |from, method| Offer { file: digest(1), from, method, size: 7, sha256: digest(3) };
        let offers = [offer(None, Method::Zstd), offer(Some(digest(2)), Method::Planes)];
        let bytes = write(&offers);
        assert_eq!(parse(&bytes).unwrap(), offers);
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(parse(text.replace("planes", "later").as_bytes()).unwrap(), offers[..1]);
        assert!(parse(text.replace("\"format\":1", "\"format\":2").as_bytes()).is_err());
        assert!(parse(b"{}").is_err() && parse(b"[]").is_err() && parse(b"").is_err());
        let many = vec![offers[0].clone(); MAX_OFFERS + 1];
        assert_eq!(parse(&write(&many)).unwrap().len(), MAX_OFFERS);
        assert!((write(&many[1..]).len() as u64) < MAX_INDEX);
    }
}
