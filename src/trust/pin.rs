//! What a person compares before a device pins a root: its keys, by their ids, and its digest.

use super::public_key::PublicKey;
use super::{keys, tuf};
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
    /// The TUF key id, 64 hexadecimal digits, computed from the key: not the name that the file gives it.
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
    let text = |value: &Value| plain(value.as_str().unwrap_or_default());
    let roles = || signed["roles"].as_object().into_iter().flatten();
    let lists = |role: &Value, id: &str| {
        role["keyids"].as_array().into_iter().flatten().any(|listed| listed.as_str() == Some(id))
    };
    let key = |(id, key): (&String, &Value)| PinnedKey {
        id: computed_id(key),
        scheme: text(&key["scheme"]),
        roles: roles().filter(|(_, role)| lists(role, id)).map(|(name, _)| plain(name)).collect(),
    };
    Ok(Pinned {
        sha256: sha256(bytes),
        version: signed["version"].as_u64().unwrap_or_default(),
        expires: signed["expires"].as_str().and_then(|time| time.parse().ok()),
        keys: signed["keys"].as_object().into_iter().flatten().map(key).collect(),
        thresholds: roles()
            .filter_map(|(name, role)| Some((plain(name), role["threshold"].as_u64()?)))
            .collect(),
    })
}

/// The id of a key in metadata by what the key is: whoever wrote the metadata chose the name that it stands
/// under there.
pub(super) fn computed_id(key: &Value) -> String {
    match PublicKey::of_value(key) {
        Some(key) => key.id().to_owned(),
        None => keys::key_id(key).unwrap_or_default(),
    }
}

/// Text from outside for a terminal: nothing in it moves the cursor, and nothing is invisible.
pub(super) fn plain(text: &str) -> String {
    let escaped = |c: char| match c {
        '"' | '\'' | '\\' => c.to_string(),
        _ => c.escape_debug().to_string(),
    };
    text.chars().map(escaped).collect()
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
    fn a_key_is_shown_by_what_it_is_and_not_by_the_name_it_was_given() {
        let first = crate::trust::keys::Key::generate().unwrap();
        let mut root: Value = serde_json::from_slice(&root()).unwrap();
        let signed = &mut root["signed"];
        let known = first.id();
        for role in ["root", "targets", "snapshot", "timestamp"] {
            signed["roles"][role]["keyids"] = serde_json::json!([known]);
        }
        // Another key under the name of the one that is expected, written so that only some programs read it.
        let other = crate::trust::keys::Key::generate().unwrap();
        let mut value = other.public();
        value["keyval"]["public"] = format!(" {}", other.public_hex()).into();
        signed["keys"] = serde_json::json!({ known: value });
        let bytes = tuf::canonical(signed).unwrap();
        root["signatures"] = serde_json::json!([{ "keyid": known, "sig": other.sign(&bytes) }]);
        let pinned = examine(&serde_json::to_vec(&root).unwrap(), "root.json").unwrap();
        assert_ne!(pinned.keys[0].id, known);
        assert_eq!(pinned.keys[0].id.len(), 64);
        assert_eq!(pinned.keys[0].roles.len(), 4);
    }

    #[test]
    fn text_from_outside_is_made_visible_and_stays_readable() {
        assert_eq!(plain("a\u{1b}[2K\n\u{9b}1A\u{7f}\u{202e}b"), r"a\u{1b}[2K\n\u{9b}1A\u{7f}\u{202e}b");
        assert_eq!(plain("is \"it's\" é*?"), "is \"it's\" é*?");
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
