//! Who may sign commands: the target `operators.json` of the repository, and what the device keeps of it.
//!
//! ```text
//! {"format": 1, "operators": [
//!   {"name": "anna", "key": 64 HEX DIGITS, "roles": ["observe", "operate", "deploy"],
//!    "groups": ["line-3"], "expires": "2028-01-01T00:00:00Z"}]}
//! ```
//!
//! `key` is the ed25519 public key. Without `groups` every device may be commanded, without `expires` the key
//! is good until it is taken off the list. The list counts only where the top-level role `targets` itself
//! lists it: whom it lets publish models (a delegation) must not be able to appoint operators.
//!
//! While there is no list, the one who may sign for the role `targets` alone is the operator: that key could
//! publish a list at any time, so it gains nothing, and one person with one key need not make one. Where more
//! than one signature is needed for `targets`, there is no operator before there is a list.
//!
//! The list is kept beside the metadata and verified again from the pinned root at each load. Its age is not
//! judged there: a device that does not reach its repository must stay commandable, so a revoked key is
//! refused from the moment the device knows. What it does know counts at once: where the newest list of
//! targets names a list of operators that could not be fetched yet, nobody's signature is taken.

use super::keys;
use super::seen::Seen;
use super::tuf;
use crate::bundle::files::sha256;
use crate::domain::authority::{Operator, Role};
use crate::domain::{DeviceId, Digest, OperatorName, Reason, ReasonCode};
use ed25519_dalek::VerifyingKey;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Its TUF target path.
pub const TARGET: &str = crate::bundle::layout::OPERATORS;
/// Longest list, bytes.
pub const MAX_LIST: u64 = 64 << 10;
/// Most operators.
pub const MAX_OPERATORS: usize = 256;
/// Most groups of one operator.
const MAX_GROUPS: usize = 64;
/// The format of the list.
const FORMAT: u32 = 1;
/// Where the newest list lies among what was seen.
pub(super) const KEPT: &str = "operators.target";

/// The list as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    format: u32,
    operators: Vec<Entry>,
}

/// An operator as it is written in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// For people; unique in the list.
    pub name: OperatorName,
    /// The ed25519 public key, 64 hexadecimal digits.
    pub key: String,
    /// What it is good for.
    pub roles: BTreeSet<Role>,
    /// The groups whose devices it may command; absent: every device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<BTreeSet<DeviceId>>,
    /// Until when it is good; absent: until it is taken off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

/// Those who may sign commands, by the ids of their keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Operators {
    listed: bool,
    by_key: BTreeMap<Digest, ([u8; 32], Operator)>,
}

impl Operators {
    /// Nobody, and no list either.
    pub fn none() -> Self {
        Self::default()
    }

    /// Whether the repository has a list, or the owner's key stands in for one.
    pub fn is_listed(&self) -> bool {
        self.listed
    }

    /// The public key and the rights of the operator with this key id.
    pub fn get(&self, key: &Digest) -> Option<(&[u8; 32], &Operator)> {
        self.by_key.get(key).map(|(public, operator)| (public, operator))
    }

    /// Key ids and operators.
    pub fn iter(&self) -> impl Iterator<Item = (&Digest, &Operator)> {
        self.by_key.iter().map(|(id, (_, operator))| (id, operator))
    }
}

/// Reads a list. Pure.
///
/// # Errors
/// `SizeMismatch` where it is too long, `Malformed` with what is wrong in it.
pub fn parse(bytes: &[u8]) -> Result<Operators, Reason> {
    let bad = |what: String| Reason::new(ReasonCode::Malformed, format!("list of operators: {what}"));
    if bytes.len() as u64 > MAX_LIST {
        let detail = format!("list of operators: {} bytes, {MAX_LIST} are allowed", bytes.len());
        return Err(Reason::new(ReasonCode::SizeMismatch, detail));
    }
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(bad("expected a JSON object".to_owned()));
    }
    let list: Written = serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
    if list.format != FORMAT {
        return Err(bad(format!("format {}, this version reads {FORMAT}; update the agent", list.format)));
    }
    if list.operators.len() > MAX_OPERATORS {
        return Err(bad(format!("more than {MAX_OPERATORS} operators")));
    }
    let mut names = BTreeSet::new();
    let mut by_key = BTreeMap::new();
    for entry in list.operators {
        let Entry { name, key, roles, groups, expires } = entry;
        let public = public_key(&key).ok_or_else(|| {
            bad(format!("key of {name}: expected the 64 hexadecimal digits of an ed25519 public key"))
        })?;
        if roles.is_empty() {
            return Err(bad(format!("roles of {name}: name at least one of observe, operate, deploy")));
        }
        if groups.as_ref().is_some_and(|groups| groups.len() > MAX_GROUPS) {
            return Err(bad(format!("groups of {name}: more than {MAX_GROUPS}")));
        }
        if !names.insert(name.clone()) {
            return Err(bad(format!("{name} is listed twice; give each key a name of its own")));
        }
        let expires_ms = expires.map(Timestamp::as_millisecond);
        let operator = Operator { name: name.clone(), roles, groups, expires_ms };
        if by_key.insert(keys::id_of(&public)?, (public, operator)).is_some() {
            return Err(bad(format!("key of {name}: is listed twice")));
        }
    }
    Ok(Operators { listed: true, by_key })
}

/// An ed25519 public key from its hexadecimal digits; `None` for one that is none, or a weak one.
fn public_key(text: &str) -> Option<[u8; 32]> {
    let bytes: [u8; 32] = hex::decode(text).ok()?.try_into().ok()?;
    VerifyingKey::from_bytes(&bytes).ok().filter(|key| !key.is_weak()).map(|_| bytes)
}

/// Who may command where there is no list: each key that a verified root lets sign for `targets` alone.
fn owners(root: &[u8]) -> Result<Operators, Reason> {
    let root: Value = serde_json::from_slice(root).unwrap_or_default();
    let targets = &root["signed"]["roles"]["targets"];
    if targets["threshold"].as_u64() != Some(1) {
        return Ok(Operators::none());
    }
    let name: OperatorName =
        "owner".parse().map_err(|error| Reason::new(ReasonCode::Internal, format!("{error}")))?;
    let mut by_key = BTreeMap::new();
    for id in targets["keyids"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let key = &root["signed"]["keys"][id];
        if key["scheme"] == "ed25519"
            && let Some(public) = key["keyval"]["public"].as_str().and_then(public_key)
        {
            let operator =
                Operator { name: name.clone(), roles: Role::ALL.into(), groups: None, expires_ms: None };
            by_key.insert(keys::id_of(&public)?, (public, operator));
        }
    }
    Ok(Operators { listed: false, by_key })
}

/// Who may command by what the folder `metadata` holds, verified again from the pinned root (the content of
/// a `root.json`).
///
/// # Errors
/// Where there is a list, or a sign of one, and it does not hold: nobody may command then. What a folder
/// without any sign of a list has wrong with it is no error: there is nobody to be wrong about.
pub fn kept(pinned_root: &[u8], metadata: &Path) -> Result<Operators, Reason> {
    let seen = Seen::in_folder(metadata.to_owned());
    match from_seen(pinned_root, &seen) {
        Err(reason) if !has_sign_of_a_list(&seen) => {
            tracing::warn!("operators: {reason}");
            Ok(Operators::none())
        }
        other => other,
    }
}

fn from_seen(pinned_root: &[u8], seen: &Seen) -> Result<Operators, Reason> {
    let (root, listed) = tuf::kept_target(pinned_root, seen, TARGET)?;
    let kept = seen.load(KEPT)?;
    match (listed, kept) {
        // Nothing was seen yet, or there is no list (any more).
        (None, None) | (Some(None), _) => owners(&root),
        (Some(Some(digest)), Some(bytes)) if sha256(&bytes) == digest => parse(&bytes),
        // With the metadata lost, nothing vouches for the list, and nothing says that there is none.
        (None, Some(_)) | (Some(Some(_)), _) => {
            let detail = "the repository has a new list of operators, which could not be fetched yet; until then \
                          nobody's signature is taken";
            Err(Reason::new(ReasonCode::RepositoryUnreachable, detail))
        }
    }
}

/// The digest of the list in the payload of a `targets` role; `None` where it has none.
pub(super) fn listed_in(targets: &Value) -> Option<Digest> {
    targets["targets"].get(TARGET)?.pointer("/hashes/sha256")?.as_str()?.parse().ok()
}

/// Whether anything there, verified or not, speaks of a list.
fn has_sign_of_a_list(seen: &Seen) -> bool {
    let listed = |bytes: Vec<u8>| {
        let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        value["signed"]["targets"].get(TARGET).is_some()
    };
    // What cannot be read may be one.
    !matches!(seen.load(KEPT), Ok(None))
        || seen.load("targets.json").is_ok_and(|bytes| bytes.is_some_and(listed))
}
