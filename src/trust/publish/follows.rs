//! Whether a change may be signed: it follows from the roots that its signer knows, builds on what is signed,
//! and is nothing else than it says.
//!
//! A key signs bytes, whatever they are called. So what a request names `targets` must be a list and not a
//! root, and snapshot and timestamp must be those that follow from the rest.

use super::super::authority::{self, Authority, TOP_LEVEL};
use super::super::public_key::PublicKey;
use super::super::state::to_bytes;
use super::super::{roles, tuf};
use super::change::{Change, ONLINE};
use super::commit::online_meta;
use crate::domain::{Reason, ReasonCode};
use serde_json::Value;
use std::collections::BTreeSet;

impl Change {
    /// Holds it against itself: each root follows from the one before, what it builds on is signed, each
    /// new version is the next one and what its name says, and each new key stands under its own id. `pinned`
    /// is the root that its reader trusts; without one the change vouches for its own.
    ///
    /// # Errors
    /// `SignatureInvalid`, `Malformed`, `SizeMismatch`: do not sign it.
    pub fn check(&self, pinned: Option<&[u8]>) -> Result<(), Reason> {
        self.check_roots(pinned)?;
        self.check_before()?;
        self.check_founding()?;
        for role in self.roles() {
            let Some(payload) = self.payload(role) else { continue };
            if !is_good_name(role) {
                let what = format!("role \"{}\": a name has A-Z, a-z, 0-9, ., _ and -", role.escape_debug());
                return refuse(ReasonCode::Malformed, what);
            }
            is_what_it_says(role, payload)?;
            let before = self.published(role);
            own_ids(role, before, payload)?;
            one_of_a_name(role, before, payload)?;
            let new = roles::version(payload);
            let follows = match before.map(roles::version) {
                Some(before) => before.checked_add(1) == Some(new),
                // A delegation that is made again goes on where the one before it ended.
                None => new >= 1 && (new == 1 || !TOP_LEVEL.contains(&role)),
            };
            if !follows {
                let what = format!("{role} {new} does not follow on what it builds on");
                return refuse(ReasonCode::Malformed, what);
            }
            let meta = if ONLINE.contains(&role) { Some(online_meta(self, role)?) } else { None };
            if meta.is_some_and(|meta| payload.get("meta") != Some(&meta)) {
                return refuse(ReasonCode::Malformed, format!("{role} is not made of the rest of it"));
            }
        }
        Ok(())
    }

    fn check_roots(&self, pinned: Option<&[u8]>) -> Result<(), Reason> {
        for (index, root) in self.roots.iter().enumerate() {
            let version = index as u64 + 1;
            tuf::check_root(&to_bytes(root)?, &format!("signing request: root {version}"))?;
            if roles::version(&root["signed"]) != version {
                return refuse(ReasonCode::Malformed, format!("root {version} has another version"));
            }
            let before = index.checked_sub(1).and_then(|before| self.roots.get(before));
            if let Some(before) = before
                && !Authority::of_root(&before["signed"], "root")?.is_met_by(root)?
            {
                let what = format!("root {version} is not signed by the keys of the one before");
                return refuse(ReasonCode::SignatureInvalid, what);
            }
        }
        if let Some(pinned) = pinned {
            let pinned: Value = serde_json::from_slice(pinned).unwrap_or_default();
            if !self.roots.iter().any(|root| root["signed"] == pinned["signed"]) {
                let what =
                    "its roots do not lead from the one that is trusted here; it is of another repository";
                return refuse(ReasonCode::SignatureInvalid, what.to_owned());
            }
        }
        Ok(())
    }

    fn check_before(&self) -> Result<(), Reason> {
        let Some(root) = self.published("root") else {
            return match self.before.is_empty() {
                true => Ok(()),
                false => refuse(
                    ReasonCode::Malformed,
                    "it begins a repository, so there is nothing that it could build on".to_owned(),
                ),
            };
        };
        for (role, file) in &self.before {
            is_what_it_says(role, &file["signed"])?;
            let authority = if TOP_LEVEL.contains(&role.as_str()) {
                Some(Authority::of_root(root, role)?)
            } else {
                self.published("targets").and_then(|list| Authority::of_delegation(list, role))
            };
            if !authority.map(|authority| authority.is_met_by(file)).transpose()?.unwrap_or(false) {
                let what = format!("what it builds on ({}) is not signed", role.escape_debug());
                return refuse(ReasonCode::SignatureInvalid, what);
            }
        }
        Ok(())
    }
}

impl Change {
    /// A first list that is signed must be of no use to somebody who shows it to devices of a repository that
    /// exists.
    fn check_founding(&self) -> Result<(), Reason> {
        if !self.is_founding() {
            return Ok(());
        }
        let is_empty = |list: &Value| {
            list.get("delegations").is_none()
                && list.get("targets").and_then(Value::as_object).is_some_and(serde_json::Map::is_empty)
        };
        if self.payload("targets").is_some_and(|list| !is_empty(list)) || !self.roles().all(is_top_level) {
            let what = "it begins a repository, whose first list must be empty".to_owned();
            return refuse(ReasonCode::Malformed, what);
        }
        Ok(())
    }
}

fn is_top_level(role: &str) -> bool {
    TOP_LEVEL.contains(&role)
}

fn is_good_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !name.is_empty() && name.chars().all(good)
}

/// Refuses a payload of another kind than its role has.
fn is_what_it_says(role: &str, payload: &Value) -> Result<(), Reason> {
    let kind = if is_top_level(role) { role } else { "targets" };
    if payload.get("_type").and_then(Value::as_str) == Some(kind) {
        return Ok(());
    }
    refuse(ReasonCode::Malformed, format!("what it calls {} is something else", role.escape_debug()))
}

/// Refuses a new key that is not exactly what we write of a key with its id: a signer compares ids, and other
/// programs would read a key from what this one does not understand.
fn own_ids(role: &str, before: Option<&Value>, payload: &Value) -> Result<(), Reason> {
    for place in ["/keys", "/delegations/keys"] {
        let known = before.and_then(|before| before.pointer(place));
        for (id, key) in payload.pointer(place).and_then(Value::as_object).into_iter().flatten() {
            let is_known = known.and_then(|known| known.get(id)) == Some(key);
            let is_own = || PublicKey::of_value(key).is_some_and(|own| own.id() == id && own.value() == *key);
            if !is_known && !is_own() {
                let what = format!("{role}: key {} is not the one of this id", id.escape_debug());
                return refuse(ReasonCode::Malformed, what);
            }
        }
    }
    Ok(())
}

/// Refuses two delegations of one name, of which each reader might take another, and new ones whose names are
/// none.
fn one_of_a_name(role: &str, before: Option<&Value>, payload: &Value) -> Result<(), Reason> {
    let known: Vec<&str> =
        before.into_iter().flat_map(authority::delegations).filter_map(authority::name_of).collect();
    let mut seen = BTreeSet::new();
    for delegation in authority::delegations(payload) {
        let name = authority::name_of(delegation).unwrap_or_default();
        let shown = name.escape_debug();
        if !seen.insert(name) {
            return refuse(ReasonCode::Malformed, format!("{role}: it delegates to {shown} twice"));
        }
        if !known.contains(&name) && (!is_good_name(name) || is_top_level(name)) {
            let what = format!("{role}: \"{shown}\" can be no name of a delegation");
            return refuse(ReasonCode::Malformed, what);
        }
    }
    Ok(())
}

fn refuse(code: ReasonCode, what: String) -> Result<(), Reason> {
    Err(Reason::new(code, format!("signing request: {what}")))
}
