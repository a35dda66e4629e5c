//! The four TUF roles as the publisher writes them.
//!
//! Payloads are JSON values, so that what this version does not know (delegations, fields of other
//! tools) is carried on unchanged.

use super::public_key::PublicKey;
use crate::bundle::files::sha256;
use crate::domain::{Reason, ReasonCode};
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The version of the TUF specification that is written.
const SPECIFICATION: &str = "1.0.31";
/// The field of the root that carries the [`Expiry`], so that every publisher keeps to it.
const EXPIRY_FIELD: &str = "x-edgewarden-expiry-days";
/// Longest validity accepted, days: a hundred years.
const MAX_DAYS: u32 = 36_500;

/// How many days each role stays valid after it was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expiry {
    /// The keys.
    pub root: u32,
    /// The list of releases.
    pub targets: u32,
    /// Which list is the newest.
    pub snapshot: u32,
    /// That it still is: for so long can somebody who controls the network hide a newer release.
    pub timestamp: u32,
}

impl Default for Expiry {
    fn default() -> Self {
        Self { root: 1095, targets: 365, snapshot: 90, timestamp: 90 }
    }
}

impl Expiry {
    /// Each role's days within 1 and a hundred years.
    pub(super) fn check(&self) -> Result<(), Reason> {
        for days in [self.root, self.targets, self.snapshot, self.timestamp] {
            if !(1..=MAX_DAYS).contains(&days) {
                let detail = format!("expiry of {days} days: use 1 to {MAX_DAYS}");
                return Err(Reason::new(ReasonCode::BadRequest, detail));
            }
        }
        Ok(())
    }

    /// As a root states it; the default where it does not.
    pub(super) fn of_root(root: &Value) -> Self {
        root.get(EXPIRY_FIELD)
            .and_then(|value| serde_json::from_value(value.clone()).ok())
            .filter(|expiry: &Self| expiry.check().is_ok())
            .unwrap_or_default()
    }
}

/// `days` after `now`, in whole seconds, as TUF writes times.
pub(super) fn expires(now: Timestamp, days: u32) -> Result<Value, Reason> {
    let failed = |error: jiff::Error| Reason::new(ReasonCode::Internal, format!("expiry date: {error}"));
    let whole = Timestamp::from_second(now.as_second()).map_err(failed)?;
    Ok(json!(whole.checked_add((i64::from(days) * 24).hours()).map_err(failed)?.to_string()))
}

/// The first root: for each of the four roles its keys and how many of them it needs.
pub(super) fn first_root<'a>(
    roles: impl Iterator<Item = (&'a str, &'a [PublicKey], u64)>,
    expiry: &Expiry,
    now: Timestamp,
) -> Result<Value, Reason> {
    let (mut public, mut listed) = (BTreeMap::new(), BTreeMap::new());
    for (role, keys, threshold) in roles {
        let ids: BTreeSet<&str> = keys.iter().map(PublicKey::id).collect();
        public.extend(keys.iter().map(|key| (key.id().to_owned(), key.value())));
        listed.insert(role, json!({ "keyids": ids, "threshold": threshold }));
    }
    Ok(json!({
        "_type": "root",
        "spec_version": SPECIFICATION,
        "version": 1,
        "expires": expires(now, expiry.root)?,
        "consistent_snapshot": true,
        "keys": public,
        "roles": listed,
        EXPIRY_FIELD: expiry,
    }))
}

/// A first payload of one of the other roles, without content.
pub(super) fn first(role: &str, content: &str) -> Value {
    json!({ "_type": role, "spec_version": SPECIFICATION, "version": 0, "expires": "", content: {} })
}

/// The version of a payload.
pub(super) fn version(payload: &Value) -> u64 {
    payload.get("version").and_then(Value::as_u64).unwrap_or(0)
}

/// When a payload expires.
pub(super) fn expiry_of(payload: &Value) -> Option<Timestamp> {
    payload.get("expires")?.as_str()?.parse().ok()
}

/// A first list of a delegation, without releases.
pub(super) fn first_list() -> Value {
    first("targets", "targets")
}

/// How long the signatures of a role are good, days.
pub(super) fn days_of(role: &str, expiry: &Expiry) -> u32 {
    match role {
        "root" => expiry.root,
        "snapshot" => expiry.snapshot,
        "timestamp" => expiry.timestamp,
        _ => expiry.targets,
    }
}

/// Makes the next version of a payload, valid for `days` from `now`.
pub(super) fn renew(payload: &mut Value, days: u32, now: Timestamp) -> Result<(), Reason> {
    payload["version"] = json!(version(payload) + 1);
    payload["expires"] = expires(now, days)?;
    Ok(())
}

/// True when less than half of the `days` that a payload is valid for are left.
pub(super) fn is_half_over(payload: &Value, days: u32, now: Timestamp) -> bool {
    let left = expiry_of(payload).map_or(0, |expires| expires.as_second() - now.as_second());
    left < i64::from(days) * 43_200
}

/// How a file is pinned by the role above it.
pub(super) fn pin(version: u64, bytes: &[u8]) -> Value {
    json!({ "version": version, "length": bytes.len(), "hashes": { "sha256": sha256(bytes) } })
}
