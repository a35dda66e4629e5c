//! What is asked of metadata by itself: may it be pinned, who has signed it, is one key listed twice.

use super::{MAX_ROOT, reason_of};
use crate::domain::{Reason, ReasonCode};
use serde_json::Value;
use sigstore_tuf::{Error, Key, Metadata, RoleKeys, Root, Snapshot, Targets, Timestamp, TrustedMetadataSet};
use std::collections::{BTreeMap, BTreeSet};

/// Whether a device can pin these bytes as its root: no longer than a root may be, well formed, signed to
/// its own threshold, no key under two ids. `what` is said of them in errors.
pub(in crate::trust) fn check_root(bytes: &[u8], what: &str) -> Result<(), Reason> {
    crate::trust::provider::install();
    if bytes.len() as u64 > MAX_ROOT {
        let detail = format!("{what}: more than {MAX_ROOT} bytes, which no root has");
        return Err(Reason::new(ReasonCode::SizeMismatch, detail));
    }
    one_id_a_key(bytes, what)?;
    TrustedMetadataSet::from_root(bytes).map(drop).map_err(|error| reason_of(&error, what))
}

/// Whether the metadata file has a good signature by the key `key` under the id `id`. For metadata that is
/// still to be published; what is published is counted by the library itself.
///
/// # Errors
/// `Malformed` where it is no metadata.
pub(in crate::trust) fn is_signed_by(file: &Value, id: &str, key: &Value) -> Result<bool, Reason> {
    crate::trust::provider::install();
    let (Ok(bytes), Ok(key)) = (serde_json::to_vec(file), serde_json::from_value::<Key>(key.clone())) else {
        return Ok(false);
    };
    let keys = BTreeMap::from([(id.to_owned(), key)]);
    let alone = serde_json::from_value::<RoleKeys>(serde_json::json!({ "keyids": [id], "threshold": 1 }));
    let alone = alone.map_err(|error| Reason::new(ReasonCode::Internal, format!("count keys: {error}")))?;
    let held = match file.pointer("/signed/_type").and_then(Value::as_str) {
        Some("root") => {
            Metadata::<Root>::from_slice(&bytes).and_then(|file| file.verify_threshold(&keys, &alone, "root"))
        }
        Some("timestamp") => Metadata::<Timestamp>::from_slice(&bytes)
            .and_then(|file| file.verify_threshold(&keys, &alone, "timestamp")),
        Some("snapshot") => Metadata::<Snapshot>::from_slice(&bytes)
            .and_then(|file| file.verify_threshold(&keys, &alone, "snapshot")),
        Some(_) | None => Metadata::<Targets>::from_slice(&bytes)
            .and_then(|file| file.verify_threshold(&keys, &alone, "targets")),
    };
    match held {
        Ok(()) => Ok(true),
        Err(Error::ThresholdNotMet { .. }) => Ok(false),
        Err(error) => Err(reason_of(&error, "metadata to be signed")),
    }
}

/// Refuses metadata that lists one key under two ids: the library counts ids, so one stolen key would
/// reach a threshold of two.
pub(super) fn one_id_a_key(bytes: &[u8], what: &str) -> Result<(), Reason> {
    // What is no JSON is refused where it is read.
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return Ok(()) };
    for keys in [value.pointer("/signed/keys"), value.pointer("/signed/delegations/keys")] {
        let mut known = BTreeSet::new();
        for (id, key) in keys.and_then(Value::as_object).into_iter().flatten() {
            // A key that cannot be used counts for nothing.
            let usable =
                serde_json::from_value::<Key>(key.clone()).ok().and_then(|key| key.verification_key().ok());
            if let Some(key) = usable
                && !known.insert(key.as_bytes().to_vec())
            {
                let id: String = id.chars().take(12).collect();
                let detail =
                    format!("{what}: key {id}… is listed under another id as well; it may count only once");
                return Err(Reason::new(ReasonCode::SignatureInvalid, detail));
            }
        }
    }
    Ok(())
}
