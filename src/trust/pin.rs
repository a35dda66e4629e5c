//! What a person compares before a device pins a root: its keys, by their ids, and its digest.

use super::tuf;
use crate::bundle::files::sha256;
use crate::domain::{Digest, Reason};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Longest root, bytes.
pub use super::tuf::MAX_ROOT;

/// A root that a device can pin, as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pinned {
    /// SHA-256 of the file, as `sha256sum` prints it.
    pub sha256: Digest,
    /// Its version; the first one of a repository is 1.
    pub version: u64,
    /// Until when its keys are good; a later root that they have signed is taken all the same.
    pub expires: Option<Timestamp>,
    /// Its keys, by their ids.
    pub keys: Vec<PinnedKey>,
    /// How many of its keys each role needs.
    pub thresholds: BTreeMap<String, u64>,
}

/// A key of a root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PinnedKey {
    /// The TUF key id, 64 hexadecimal digits.
    pub id: String,
    /// Such as `ed25519`.
    pub scheme: String,
    /// What it may sign: `root`, `targets`, `snapshot`, `timestamp`.
    pub roles: Vec<String>,
}

/// Reads a `root.json`; `what` is said of it in errors.
///
/// # Errors
/// As for every root: `Malformed`, `SignatureInvalid`, `SizeMismatch`. An expired one is no error: what
/// counts is the newest root that follows from it.
pub fn examine(bytes: &[u8], what: &str) -> Result<Pinned, Reason> {
    tuf::check_root(bytes, what)?;
    // It has been read once already, so that nothing here can be missing; what were is left out.
    let root: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let signed = &root["signed"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let roles = || signed["roles"].as_object().into_iter().flatten();
    let lists = |role: &Value, id: &str| {
        role["keyids"].as_array().into_iter().flatten().any(|listed| listed.as_str() == Some(id))
    };
    let key = |(id, key): (&String, &Value)| PinnedKey {
        id: id.clone(),
        scheme: text(&key["scheme"]),
        roles: roles().filter(|(_, role)| lists(role, id)).map(|(name, _)| name.clone()).collect(),
    };
    Ok(Pinned {
        sha256: sha256(bytes),
        version: signed["version"].as_u64().unwrap_or_default(),
        expires: signed["expires"].as_str().and_then(|time| time.parse().ok()),
        keys: signed["keys"].as_object().into_iter().flatten().map(key).collect(),
        thresholds: roles()
            .filter_map(|(name, role)| Some((name.clone(), role["threshold"].as_u64()?)))
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ReasonCode;
    use crate::trust::{InitOptions, Publisher};

    fn root() -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let now = "2026-06-01T12:00:00Z".parse().unwrap();
        let (repository, keys) = (dir.path().join("fleet"), dir.path().join("keys"));
        let publisher = Publisher::init(&repository, &keys, InitOptions::default(), now).unwrap();
        std::fs::read(publisher.pinned_root()).unwrap()
    }

    #[test]
    fn a_root_shows_its_keys_and_what_they_may_sign() {
        let bytes = root();
        let pinned = examine(&bytes, "root.json").unwrap();
        assert_eq!((pinned.version, pinned.keys.len()), (1, 1));
        assert_eq!(pinned.sha256, sha256(&bytes));
        assert_eq!(pinned.keys[0].scheme, "ed25519");
        assert_eq!(pinned.keys[0].id.len(), 64);
        assert_eq!(pinned.keys[0].roles, ["root", "snapshot", "targets", "timestamp"]);
        assert_eq!(pinned.thresholds["root"], 1);
        assert_eq!(pinned.expires.unwrap().to_string(), "2029-05-31T12:00:00Z");
    }

    #[test]
    fn what_is_no_root_is_refused() {
        let good = String::from_utf8(root()).unwrap();
        let long = format!("{good}{}", " ".repeat(MAX_ROOT as usize));
        for (bytes, code) in [
            ("", ReasonCode::Malformed),
            ("{}", ReasonCode::Malformed),
            ("not json", ReasonCode::Malformed),
            (&good.replace("\"_type\": \"root\"", "\"_type\": \"targets\""), ReasonCode::Malformed),
            (&good.replace("\"version\": 1", "\"version\": 2"), ReasonCode::SignatureInvalid),
            (&long, ReasonCode::SizeMismatch),
        ] {
            assert_ne!(bytes, good, "the text to replace is not there");
            let reason = examine(bytes.as_bytes(), "root metadata x.json").unwrap_err();
            assert_eq!(reason.code, code, "{reason}");
            assert!(reason.detail.starts_with("root metadata x.json: "), "{reason}");
            assert!(reason.code.is_trust());
        }
    }
}
