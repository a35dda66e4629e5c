//! A change that is to be published: the new metadata, who has signed it, and who must still.
//!
//! It is kept in a small file, which is also what is carried to a signer at another place. The file holds
//! what it builds on, too, so that the signer's own program can tell what the change does, and that it
//! follows from the roots that the signer knows. Nothing in it is secret.

use super::super::authority::{Authority, TOP_LEVEL, unsigned};
use super::super::signer::Signer;
use super::super::state::{State, file_name, to_bytes};
use super::super::tuf::{self, canonical};
use super::super::{pin, roles};
use crate::bundle::layout;
use crate::domain::{Reason, ReasonCode};
use crate::sys::durable::{self, failed};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The format of the file.
const FORMAT: u32 = 1;
/// Longest file, bytes: a few lists at their longest.
const MAX_FILE: u64 = 32 << 20;
/// Made by the keys that are online, when all the others have signed.
pub(super) const ONLINE: [&str; 2] = ["snapshot", "timestamp"];

/// What a role's signatures lack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// The role.
    pub role: String,
    /// Signatures that count so far.
    pub have: u64,
    /// Signatures that it needs.
    pub threshold: u64,
    /// The ids of the keys that may sign and have not.
    pub may_sign: Vec<String>,
}

/// A signature that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Made {
    /// The role that was signed.
    pub role: String,
    /// The key's id.
    pub key: String,
}

/// New metadata with its signatures so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    format: u32,
    /// Every root that is published, the first one first; none where the repository is still to be begun.
    pub(super) roots: Vec<Value>,
    /// What is published of the other roles, signed, by their names.
    pub(super) before: BTreeMap<String, Value>,
    /// The new metadata files by their roles.
    roles: BTreeMap<String, Value>,
}

impl Change {
    /// One that begins a repository.
    pub(super) fn founding() -> Self {
        Self { format: FORMAT, roots: Vec::new(), before: BTreeMap::new(), roles: BTreeMap::new() }
    }

    /// One that builds on what is published; `roots` are all roots of it.
    pub(super) fn upon(state: &State, roots: Vec<Value>) -> Self {
        let names = state.lists().map(|(role, _)| role).chain(ONLINE);
        let before = names.filter_map(|role| Some((role.to_owned(), state.file(role)?.clone())));
        Self { format: FORMAT, roots, before: before.collect(), roles: BTreeMap::new() }
    }

    /// Whether it begins a repository.
    pub fn is_founding(&self) -> bool {
        self.roots.is_empty()
    }

    /// Whether it changes anything.
    pub(super) fn is_empty(&self) -> bool {
        self.roles.is_empty()
    }

    /// The roles that it changes.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.roles.keys().map(String::as_str)
    }

    /// The new payload of a role.
    pub(super) fn payload(&self, role: &str) -> Option<&Value> {
        self.roles.get(role)?.get("signed")
    }

    /// The published payload of a role that it builds on.
    pub(super) fn published(&self, role: &str) -> Option<&Value> {
        match role {
            "root" => self.roots.last()?.get("signed"),
            role => self.before.get(role)?.get("signed"),
        }
    }

    /// The payload of a role after the change.
    pub(super) fn after(&self, role: &str) -> Option<&Value> {
        self.payload(role).or_else(|| self.published(role))
    }

    /// The new file of a role, with its signatures.
    pub(super) fn file(&self, role: &str) -> Option<&Value> {
        self.roles.get(role)
    }

    /// Sets the new payload of a role; signatures of another one fall away.
    pub(super) fn set(&mut self, role: &str, payload: Value) {
        if self.payload(role) != Some(&payload) {
            self.roles.insert(role.to_owned(), unsigned(payload));
        }
    }

    /// Builds on the snapshot and the timestamp that are published now; they move on while a change waits.
    pub(super) fn catch_up(&mut self, state: &State) {
        for role in ONLINE {
            if let Some(file) = state.file(role) {
                self.before.insert(role.to_owned(), file.clone());
            }
        }
    }

    /// The same new metadata upon what is published here: what else a request from another place says counts for
    /// nothing, nor do its snapshot and timestamp, which are made here.
    pub(super) fn taken_up(&self, mut upon: Self) -> Self {
        let offline = self.roles.iter().filter(|(role, _)| !ONLINE.contains(&role.as_str()));
        upon.roles = offline.map(|(role, file)| (role.clone(), file.clone())).collect();
        upon
    }

    /// Takes a role out of the change.
    pub(super) fn unset(&mut self, role: &str) {
        self.roles.remove(role);
    }

    /// Every set of keys that must sign a role: a root is signed by the keys of the one before as well.
    fn authorities(&self, role: &str) -> Result<Vec<Authority>, Reason> {
        let malformed = |what: &str| Reason::new(ReasonCode::Malformed, format!("change of {role}: {what}"));
        if TOP_LEVEL.contains(&role) {
            let root = self.after("root").ok_or_else(|| malformed("there is no root"))?;
            let mut all = vec![Authority::of_root(root, role)?];
            if role == "root"
                && let Some(before) = self.published("root")
            {
                let old = Authority::of_root(before, role)?;
                if !all.contains(&old) {
                    all.insert(0, old);
                }
            }
            return Ok(all);
        }
        let authority = self.after("targets").and_then(|list| Authority::of_delegation(list, role));
        Ok(vec![authority.ok_or_else(|| malformed("the list of releases delegates to no such role"))?])
    }

    /// What is missing before it can be published; a root that needs the keys of two roots is told for each.
    pub fn missing(&self) -> Result<Vec<Missing>, Reason> {
        let mut missing = Vec::new();
        for role in self.roles.keys() {
            missing.extend(self.missing_of(role)?);
        }
        Ok(missing)
    }

    fn missing_of(&self, role: &str) -> Result<Vec<Missing>, Reason> {
        let mut missing = Vec::new();
        let Some(file) = self.roles.get(role) else { return Ok(missing) };
        for authority in self.authorities(role)? {
            let signed = authority.signers(file)?;
            let have = signed.len() as u64;
            if have < authority.threshold {
                let may_sign = authority.keys.into_keys().filter(|id| !signed.contains(id)).collect();
                let threshold = authority.threshold;
                missing.push(Missing { role: role.to_owned(), have, threshold, may_sign });
            }
        }
        Ok(missing)
    }

    /// Whether these keys could bring a role to its threshold, without making them sign.
    pub(super) fn is_within_reach(&self, role: &str, signers: &[Signer]) -> Result<bool, Reason> {
        let ours = |authority: &Authority| {
            signers.iter().filter(|signer| authority.has(signer.public())).count() as u64
        };
        Ok(self.authorities(role)?.iter().all(|authority| ours(authority) >= authority.threshold))
    }

    /// Whether one of the keys may sign anything of it.
    pub(super) fn concerns(&self, signers: &[Signer]) -> Result<bool, Reason> {
        let others = self.roles.keys().map(String::as_str).filter(|role| !TOP_LEVEL.contains(role));
        for role in TOP_LEVEL.into_iter().chain(others) {
            let authorities = self.authorities(role)?;
            if signers.iter().any(|signer| authorities.iter().any(|one| one.has(signer.public()))) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Signs what these keys may sign and have not; a role that has all its signatures is left as it is,
    /// because others may have been made over it. Tells each role with the key's id. Errors: those of a
    /// program that signs.
    pub(super) fn sign(&mut self, signers: &[Signer]) -> Result<Vec<Made>, Reason> {
        let mut made = Vec::new();
        let names: Vec<String> = self.roles.keys().cloned().collect();
        for role in names {
            let authorities = self.authorities(&role)?;
            for signer in signers {
                if !authorities.iter().any(|authority| authority.has(signer.public())) {
                    continue;
                }
                if self.missing_of(&role)?.is_empty() {
                    break;
                }
                let Some(file) = self.roles.get_mut(&role) else { continue };
                let value = signer.public().value();
                if tuf::is_signed_by(file, signer.id(), &value)? {
                    continue;
                }
                let bytes = canonical(&file["signed"])?;
                let signature = signer.sign(&role, &bytes)?;
                add_signature(file, signer.id(), signature);
                made.push(Made { role: role.clone(), key: signer.id().to_owned() });
            }
        }
        Ok(made)
    }

    /// Takes over the signatures of the same change that were made elsewhere; tells how many. Errors:
    /// `BadRequest` where it is another change.
    pub(super) fn merge(&mut self, other: &Self) -> Result<usize, Reason> {
        let mut taken = 0;
        for (role, theirs) in &other.roles {
            if ONLINE.contains(&role.as_str()) && self.payload(role) != theirs.get("signed") {
                // Made anew whenever something below them changes.
                continue;
            }
            let same = self.payload(role).is_some() && self.payload(role) == theirs.get("signed");
            if !same {
                let detail = format!(
                    "signing request: its {role} is not the one that waits here; it is of another change, so have the present one signed"
                );
                return Err(Reason::new(ReasonCode::BadRequest, detail));
            }
            let authorities = self.authorities(role)?;
            let keys: BTreeMap<String, Value> = authorities.into_iter().flat_map(|one| one.keys).collect();
            for (id, key) in &keys {
                if self.missing_of(role)?.is_empty() {
                    break;
                }
                let Some(mine) = self.roles.get_mut(role) else { continue };
                if tuf::is_signed_by(mine, id, key)? || !tuf::is_signed_by(theirs, id, key)? {
                    continue;
                }
                if let Some(signature) = signature_of(theirs, id) {
                    add_signature(mine, id, signature);
                    taken += 1;
                }
            }
        }
        Ok(taken)
    }

    /// The keys of the root that it builds on, as people compare them; `None` where it begins a repository.
    pub fn root(&self) -> Option<Result<pin::Pinned, Reason>> {
        let first = self.roots.first()?;
        Some(to_bytes(first).and_then(|bytes| pin::examine(&bytes, "signing request: its first root")))
    }

    /// The files to be written, the one that makes them count last.
    pub(super) fn files(&self) -> Result<Vec<(String, Vec<u8>)>, Reason> {
        let rank = |role: &str| match role {
            "targets" => 1,
            "snapshot" => 2,
            "root" => 3,
            "timestamp" => 4,
            _ => 0,
        };
        let mut names: Vec<&String> = self.roles.keys().collect();
        names.sort_by_key(|role| rank(role));
        let named = |role: &String| -> Result<(String, Vec<u8>), Reason> {
            let file = &self.roles[role];
            let name = layout::metadata(&file_name(role, roles::version(&file["signed"])));
            Ok((name, to_bytes(file)?))
        };
        names.into_iter().map(named).collect()
    }

    /// Reads the file of a change. Errors: `BadRequest` where it is none.
    pub fn load(path: &Path) -> Result<Self, Reason> {
        let bad = |what: String| {
            let detail = format!("signing request {}: {what}", path.display());
            Reason::new(ReasonCode::BadRequest, detail)
        };
        let file = File::open(path).map_err(|error| bad(error.to_string()))?;
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| bad(error.to_string()))?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(bad(format!("more than {MAX_FILE} bytes, which none has")));
        }
        let change: Self = serde_json::from_slice(&bytes).map_err(|error| {
            bad(format!("{error}; expected the pending.json of a key folder, as `edgewarden repo` writes it"))
        })?;
        if change.format != FORMAT {
            return Err(bad(format!("format {} is unknown here; update this program", change.format)));
        }
        Ok(change)
    }

    /// Writes it.
    pub(super) fn save(&self, path: &Path) -> Result<(), Reason> {
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| Reason::new(ReasonCode::Internal, format!("write a change: {error}")))?;
        durable::write_atomic(path, &bytes).map_err(Reason::from)
    }
}

/// Adds or replaces a signature; they are kept in the order of the ids.
fn add_signature(file: &mut Value, id: &str, signature: String) {
    let old = file.get("signatures").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut all: Vec<Value> = old.into_iter().filter(|one| one["keyid"].as_str() != Some(id)).collect();
    all.push(json!({ "keyid": id, "sig": signature }));
    all.sort_by(|a, b| a["keyid"].as_str().cmp(&b["keyid"].as_str()));
    file["signatures"] = Value::Array(all);
}

fn signature_of(file: &Value, id: &str) -> Option<String> {
    let all = file.get("signatures")?.as_array()?;
    let found = all.iter().find(|one| one["keyid"].as_str() == Some(id))?;
    found.get("sig")?.as_str().map(str::to_owned)
}

/// Removes a change's file, if there is one.
pub(super) fn remove(path: &Path) -> Result<(), Reason> {
    if path.exists() {
        durable::remove_file_synced(path).map_err(Reason::from)?;
    }
    Ok(())
}

/// True where there is something; an error where that cannot be told.
pub(super) fn is_there(path: &Path) -> Result<bool, Reason> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("look at", path)(error).into()),
    }
}
