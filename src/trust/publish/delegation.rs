//! Delegations: others may publish models, but only under the names that are given to them.

use super::super::authority::{self, Authority, TOP_LEVEL, drop_unlisted};
use super::super::public_key::PublicKey;
use super::super::roles::{self, Expiry};
use super::super::state::State;
use super::change::Change;
use super::{Outcome, Publisher, keyring};
use crate::bundle::MANIFEST;
use crate::domain::{Reason, ReasonCode};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Longest name of a delegation.
const MAX_NAME: usize = 40;
/// Most patterns of one.
const MAX_PATTERNS: usize = 64;

/// What others are given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegation {
    /// Its name, which is also that of its metadata file.
    pub name: String,
    /// Patterns of model names, such as `face-*`.
    pub models: Vec<String>,
    /// Who may sign for it.
    pub keys: Vec<PublicKey>,
    /// How many of them are needed.
    pub threshold: u64,
    /// Whether nobody after it in the list is asked about names that it covers.
    pub terminating: bool,
}

impl Publisher {
    /// Makes a delegation, or changes the one of this name, which keeps its releases. Its own keys sign its
    /// first list, too, so that each holds what it was given. Errors: `BadRequest` for a name, pattern or
    /// threshold that cannot be; as for [`Publisher::publish_all`].
    pub fn delegate(&mut self, delegation: &Delegation, now: Timestamp) -> Result<Outcome, Reason> {
        let paths = check(delegation)?;
        let state = self.state()?;
        let mut change = self.begin(&state)?;
        let ids: Vec<&str> = delegation.keys.iter().map(PublicKey::id).collect();
        let mut list = state.payloads.targets.clone();
        if !list["delegations"].is_object() {
            list["delegations"] = json!({ "keys": {}, "roles": [] });
        }
        for key in &delegation.keys {
            list["delegations"]["keys"][key.id()] = key.value();
        }
        let entries = list["delegations"]["roles"].as_array_mut();
        let entries =
            entries.ok_or_else(|| Reason::new(ReasonCode::Malformed, "delegations: they have no roles"))?;
        let known = entries.iter_mut().find(|one| authority::name_of(one) == Some(delegation.name.as_str()));
        let entry = json!({
            "name": delegation.name,
            "keyids": ids,
            "threshold": delegation.threshold,
            "terminating": delegation.terminating,
            "paths": paths,
        });
        match known {
            Some(known) => *known = entry,
            None => entries.push(entry),
        }
        self.advance_delegations(&mut change, &state, list, now)?;
        self.advance(change, Some(&state), now)
    }

    /// Takes a delegation away, and with it all its releases. Errors: `BadRequest` where there is none of
    /// this name; as for [`Publisher::publish_all`].
    pub fn undelegate(&mut self, name: &str, now: Timestamp) -> Result<Outcome, Reason> {
        let state = self.state()?;
        let mut change = self.begin(&state)?;
        let mut list = state.payloads.targets.clone();
        let entries = list.pointer_mut("/delegations/roles").and_then(Value::as_array_mut);
        let before = entries.as_ref().map_or(0, |entries| entries.len());
        let entries = entries.map(|entries| {
            entries.retain(|one| authority::name_of(one) != Some(name));
            entries.len()
        });
        if entries.unwrap_or(0) == before {
            let detail = format!("delegation {name}: there is none of this name");
            return Err(Reason::new(ReasonCode::BadRequest, detail));
        }
        self.advance_delegations(&mut change, &state, list, now)?;
        self.advance(change, Some(&state), now)
    }

    /// Puts a list with other delegations into a change, and with it each delegated list that its keys no
    /// longer cover.
    pub(super) fn advance_delegations(
        &self,
        change: &mut Change,
        state: &State,
        mut list: Value,
        now: Timestamp,
    ) -> Result<(), Reason> {
        let days = Expiry::of_root(&state.payloads.root).targets;
        let entries: Vec<Value> = authority::delegations(&list).cloned().collect();
        if entries.is_empty() {
            if let Some(list) = list.as_object_mut() {
                list.remove("delegations");
            }
        } else if let Some(keys) = list.pointer_mut("/delegations/keys").and_then(Value::as_object_mut) {
            drop_unlisted(keys, entries.iter());
        }
        roles::renew(&mut list, days, now)?;
        change.set("targets", list.clone());
        for name in entries.iter().filter_map(authority::name_of) {
            let authority = Authority::of_delegation(&list, name);
            let file = state.file(name);
            let stands = match (&authority, file) {
                (Some(authority), Some(file)) => authority.is_met_by(file)?,
                (_, _) => false,
            };
            if stands {
                continue;
            }
            let mut below = file.map_or_else(roles::first_list, |file| file["signed"].clone());
            // A name that was used before goes on where it ended: devices remember.
            let floor = state.pin(name).map_or(0, roles::version);
            below["version"] = json!(roles::version(&below).max(floor));
            roles::renew(&mut below, days, now)?;
            change.set(name, below);
        }
        Ok(())
    }
}

/// The patterns of target paths. Errors: `BadRequest`.
fn check(delegation: &Delegation) -> Result<Vec<String>, Reason> {
    let name = &delegation.name;
    let refuse = |what: String| {
        Err(Reason::new(ReasonCode::BadRequest, format!("delegation {}: {what}", name.escape_debug())))
    };
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(good) || name.starts_with('-') {
        return refuse(format!("a name has 1 to {MAX_NAME} of a-z, 0-9 and -, as in acme-cameras"));
    }
    if TOP_LEVEL.contains(&name.as_str()) {
        return refuse("this name is that of a role of the repository itself; choose another".to_owned());
    }
    if delegation.models.is_empty() || delegation.models.len() > MAX_PATTERNS {
        return refuse(format!("give 1 to {MAX_PATTERNS} patterns of model names"));
    }
    let mut paths = Vec::new();
    for model in &delegation.models {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '*' | '?');
        if model.is_empty() || !model.chars().all(good) || model.contains("**") {
            return refuse(format!(
                "pattern \"{}\": expected names of models with * and ?, as in face-*",
                model.escape_debug()
            ));
        }
        paths.push(format!("{model}/*/{MANIFEST}"));
    }
    keyring::check_threshold(name, delegation.threshold, delegation.keys.len())?;
    Ok(paths)
}
