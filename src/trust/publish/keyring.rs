//! Who may sign what: keys added, taken away, and how many of them a role needs.
//!
//! Keys of the four roles stand in the root, whose next version is signed by enough keys of the present
//! one and by enough of its own. Keys of a delegation stand in the list of releases.

use super::super::authority::{self, Authority, TOP_LEVEL, drop_unlisted};
use super::super::public_key::{PublicKey, short};
use super::super::roles::{self, Expiry};
use super::super::state::unknown_role;
use super::{Outcome, Publisher};
use crate::domain::{Reason, ReasonCode};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Most keys of a role.
const MAX_KEYS: usize = 32;

/// A change of who may sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// This key may sign for the role as well.
    Add {
        /// One of the four roles, or a delegation.
        role: String,
        /// The key.
        key: PublicKey,
    },
    /// This key may no longer sign for the role.
    Revoke {
        /// One of the four roles, or a delegation.
        role: String,
        /// The key's id, or so much of its beginning that no other key of the role has the same.
        id: String,
    },
    /// The role needs so many signatures.
    Threshold {
        /// One of the four roles, or a delegation.
        role: String,
        /// How many.
        threshold: u64,
    },
}

impl Edit {
    /// The role that it is about.
    pub fn role(&self) -> &str {
        match self {
            Self::Add { role, .. } | Self::Revoke { role, .. } | Self::Threshold { role, .. } => role,
        }
    }
}

impl Publisher {
    /// Changes who may sign, all in one change; without edits the root is only renewed. What stands
    /// signed by too few of the keys that are left is signed anew.
    ///
    /// Errors: `BadRequest` for a role, key or threshold that cannot be; as for
    /// [`Publisher::publish_all`].
    pub fn rotate(&mut self, edits: &[Edit], now: Timestamp) -> Result<Outcome, Reason> {
        let state = self.state()?;
        let mut change = self.begin(&state)?;
        let (mut root, mut list) = (state.payloads.root.clone(), state.payloads.targets.clone());
        let (mut of_root, mut of_list) = (edits.is_empty(), false);
        for edit in edits {
            let role = edit.role();
            if TOP_LEVEL.contains(&role) {
                of_root = true;
                edit_root(&mut root, role, edit)?;
            } else {
                of_list = true;
                let place = authority::delegations(&list)
                    .position(|one| authority::name_of(one) == Some(role))
                    .ok_or_else(|| unknown_role(&state, role))?;
                edit_delegation(&mut list, place, edit)?;
            }
        }
        for role in edits.iter().map(Edit::role) {
            let entry = match TOP_LEVEL.contains(&role) {
                true => root["roles"].get(role),
                false => authority::delegations(&list).find(|one| authority::name_of(one) == Some(role)),
            };
            let keys = entry.and_then(|entry| entry["keyids"].as_array()).map_or(0, Vec::len);
            let threshold = entry.and_then(|entry| entry["threshold"].as_u64()).unwrap_or(0);
            check_threshold(role, threshold, keys)?;
        }
        if of_root {
            let roles_left: Vec<Value> =
                root["roles"].as_object().into_iter().flatten().map(|(_, role)| role.clone()).collect();
            if let Some(keys) = root["keys"].as_object_mut() {
                drop_unlisted(keys, roles_left.iter());
            }
            roles::renew(&mut root, Expiry::of_root(&state.payloads.root).root, now)?;
            change.set("root", root.clone());
        }
        if of_list {
            self.advance_delegations(&mut change, &state, list, now)?;
        } else if let Some(file) = state.file("targets")
            && !Authority::of_root(&root, "targets")?.is_met_by(file)?
        {
            roles::renew(&mut list, Expiry::of_root(&state.payloads.root).targets, now)?;
            change.set("targets", list);
        }
        self.advance(change, Some(&state), now)
    }
}

fn edit_root(root: &mut Value, role: &str, edit: &Edit) -> Result<(), Reason> {
    let (mut entry, mut keys) = (root["roles"][role].take(), root["keys"].take());
    apply(edit, &mut entry, &mut keys)?;
    root["roles"][role] = entry;
    root["keys"] = keys;
    Ok(())
}

fn edit_delegation(list: &mut Value, place: usize, edit: &Edit) -> Result<(), Reason> {
    let delegations = &mut list["delegations"];
    let (mut entry, mut keys) = (delegations["roles"][place].take(), delegations["keys"].take());
    apply(edit, &mut entry, &mut keys)?;
    delegations["roles"][place] = entry;
    delegations["keys"] = keys;
    Ok(())
}

/// Changes a role's entry, and the keys that it may name.
fn apply(edit: &Edit, entry: &mut Value, keys: &mut Value) -> Result<(), Reason> {
    let refuse = |detail: String| Err(Reason::new(ReasonCode::BadRequest, detail));
    let ids: Vec<String> = entry["keyids"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|id| id.as_str().map(str::to_owned))
        .collect();
    match edit {
        Edit::Add { role, key } => {
            if ids.iter().any(|id| keys.get(id).and_then(PublicKey::of_value).as_ref() == Some(key)) {
                return refuse(format!("key {}: may sign for {role} already", short(key.id())));
            }
            if ids.len() >= MAX_KEYS {
                return refuse(format!("role {role}: has {MAX_KEYS} keys, which is the most"));
            }
            let all: Vec<&str> = ids.iter().map(String::as_str).chain([key.id()]).collect();
            entry["keyids"] = json!(all);
            keys[key.id()] = key.value();
        }
        Edit::Revoke { role, id } => {
            let named: Vec<&String> = ids.iter().filter(|known| known.starts_with(id.as_str())).collect();
            let [named] = named.as_slice() else {
                let known: Vec<String> = ids.iter().map(|id| short(id)).collect();
                return refuse(format!(
                    "key {}: names {} of the keys of {role}, which has {}",
                    short(id),
                    if named.is_empty() { "none" } else { "more than one" },
                    known.join(", ")
                ));
            };
            entry["keyids"] = json!(ids.iter().filter(|id| id != named).collect::<Vec<_>>());
        }
        Edit::Threshold { threshold, .. } => entry["threshold"] = json!(threshold),
    }
    Ok(())
}

/// Refuses a threshold that nobody could reach.
pub(super) fn check_threshold(role: &str, threshold: u64, keys: usize) -> Result<(), Reason> {
    if threshold >= 1 && threshold <= keys as u64 && keys <= MAX_KEYS {
        return Ok(());
    }
    let detail = format!(
        "role {role}: needs {threshold} of {keys} keys, which cannot be; a role has 1 to {MAX_KEYS} keys and needs 1 to all of them (--threshold)"
    );
    Err(Reason::new(ReasonCode::BadRequest, detail))
}
