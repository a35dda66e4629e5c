//! Whether a change may be signed: it follows from the roots that its signer knows, builds on what is signed,
//! and is nothing else than it says.
//!
//! A key signs bytes, whatever they are called. So what a request names `targets` must be a list and not a
//! root, and snapshot and timestamp must be those that follow from the rest.

use super::super::authority::{Authority, TOP_LEVEL};
use super::super::state::to_bytes;
use super::super::{roles, tuf};
use super::change::{Change, ONLINE};
use super::commit::online_meta;
use crate::domain::{Reason, ReasonCode};
use serde_json::Value;

impl Change {
    /// Holds it against itself: each root follows from the one before, what it builds on is signed, each
    /// new version is the next one and what its name says. `pinned` is the root that its reader trusts;
    /// without one the change vouches for its own.
    ///
    /// # Errors
    /// `SignatureInvalid`, `Malformed`, `SizeMismatch`: do not sign it.
    pub fn check(&self, pinned: Option<&[u8]>) -> Result<(), Reason> {
        self.check_roots(pinned)?;
        self.check_before()?;
        for role in self.roles() {
            let Some(payload) = self.payload(role) else { continue };
            let kind = if TOP_LEVEL.contains(&role) { role } else { "targets" };
            if payload.get("_type").and_then(Value::as_str) != Some(kind) {
                return refuse(ReasonCode::Malformed, format!("what it calls {role} is something else"));
            }
            let new = roles::version(payload);
            let follows = match self.published(role).map(roles::version) {
                Some(before) => new == before + 1,
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
        let Some(root) = self.published("root") else { return Ok(()) };
        for (role, file) in &self.before {
            let authority = if TOP_LEVEL.contains(&role.as_str()) {
                Some(Authority::of_root(root, role)?)
            } else {
                self.published("targets").and_then(|list| Authority::of_delegation(list, role))
            };
            if !authority.map(|authority| authority.is_met_by(file)).transpose()?.unwrap_or(false) {
                let what = format!("what it builds on ({role}) is not signed");
                return refuse(ReasonCode::SignatureInvalid, what);
            }
        }
        Ok(())
    }
}

fn refuse(code: ReasonCode, what: String) -> Result<(), Reason> {
    Err(Reason::new(code, format!("signing request: {what}")))
}
