//! Who may sign a role, and who has.

use super::public_key::PublicKey;
use super::tuf;
use crate::domain::{Reason, ReasonCode};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The roles that the root gives keys to, in the order in which people think of them.
pub(super) const TOP_LEVEL: [&str; 4] = ["root", "targets", "snapshot", "timestamp"];

/// The keys that a role's signatures count by, and how many of them are needed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Authority {
    /// Public keys as metadata carries them, by their ids.
    pub(super) keys: BTreeMap<String, Value>,
    pub(super) threshold: u64,
}

impl Authority {
    /// Of one of the four roles, by the payload of a root. Errors: `Malformed` where that has no such role.
    pub(super) fn of_root(root: &Value, role: &str) -> Result<Self, Reason> {
        let listed = root.pointer(&format!("/roles/{role}"));
        listed.and_then(|listed| Self::of(listed, root.get("keys")?)).ok_or_else(|| {
            Reason::new(ReasonCode::Malformed, format!("root metadata: it has no role {role} with keys"))
        })
    }

    /// Of a role that the payload of a list delegates to; `None` where it does not.
    pub(super) fn of_delegation(targets: &Value, role: &str) -> Option<Self> {
        let listed = delegations(targets).find(|listed| name_of(listed) == Some(role))?;
        Self::of(listed, targets.pointer("/delegations/keys")?)
    }

    fn of(listed: &Value, keys: &Value) -> Option<Self> {
        let ids = listed.get("keyids")?.as_array()?.iter().filter_map(Value::as_str);
        let keys = ids.filter_map(|id| Some((id.to_owned(), keys.get(id)?.clone()))).collect();
        Some(Self { keys, threshold: listed.get("threshold")?.as_u64()?.max(1) })
    }

    /// Whether the key is among them, under this id and with these bytes.
    pub(super) fn has(&self, key: &PublicKey) -> bool {
        self.keys.get(key.id()).and_then(PublicKey::of_value).is_some_and(|listed| listed == *key)
    }

    /// The ids whose signatures of the file hold. Errors: `Malformed` where it is no metadata.
    pub(super) fn signers(&self, file: &Value) -> Result<Vec<String>, Reason> {
        let mut ids = Vec::new();
        for (id, key) in &self.keys {
            if tuf::is_signed_by(file, id, key)? {
                ids.push(id.clone());
            }
        }
        Ok(ids)
    }

    /// Whether the file has signatures enough.
    pub(super) fn is_met_by(&self, file: &Value) -> Result<bool, Reason> {
        Ok(self.signers(file)?.len() as u64 >= self.threshold)
    }
}

/// The delegations in the payload of a list.
pub(super) fn delegations(targets: &Value) -> impl Iterator<Item = &Value> {
    targets.pointer("/delegations/roles").and_then(Value::as_array).into_iter().flatten()
}

/// The name of a delegation.
pub(super) fn name_of(delegation: &Value) -> Option<&str> {
    delegation.get("name")?.as_str()
}

/// Takes the keys that none of `roles` lists out of `keys`.
pub(super) fn drop_unlisted<'a>(keys: &mut Map<String, Value>, roles: impl Iterator<Item = &'a Value>) {
    let ids = roles.filter_map(|role| role.get("keyids")?.as_array()).flatten();
    let listed: Vec<String> = ids.filter_map(Value::as_str).map(str::to_owned).collect();
    keys.retain(|id, _| listed.contains(id));
}

/// The metadata file of a payload, still without a signature.
pub(super) fn unsigned(payload: Value) -> Value {
    json!({ "signatures": [], "signed": payload })
}
