//! What a repository in a folder says, all of it verified: the four roles, and the lists that the list of
//! releases delegates to.
//!
//! The four roles are verified by the client itself; so are delegated lists whenever a release is resolved.
//! Here, where they are wanted without a release in mind, they are held against the verified snapshot and the
//! delegation.

use super::authority::{self, Authority, TOP_LEVEL};
use super::folder::FolderTransport;
use super::publish::at_once;
use super::roles;
use super::transport::Transport;
use super::tuf::{MAX_ROOT, MAX_SNAPSHOT, MAX_TARGETS, MAX_TIMESTAMP, Payloads, RepositoryClient};
use crate::bundle::files::sha256;
use crate::bundle::layout;
use crate::domain::{Digest, Reason, ReasonCode, Release};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// A role of a repository, as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RoleState {
    /// `root`, `targets`, `snapshot`, `timestamp`, or the name of a delegation.
    pub role: String,
    /// Its version.
    pub version: u64,
    /// When it expires.
    pub expires: Option<Timestamp>,
    /// Signatures that it needs.
    pub threshold: u64,
    /// The ids of the keys that may sign it.
    pub keys: Vec<String>,
    /// The ids of those that have.
    pub signed_by: Vec<String>,
    /// The patterns of a delegation; empty for the others.
    pub paths: Vec<String>,
}

/// A repository's metadata, verified but for its age.
#[derive(Debug)]
pub(super) struct State {
    pub(super) payloads: Payloads,
    /// The signed files by their roles.
    files: BTreeMap<String, Value>,
    /// The delegated lists, in the order in which they are searched.
    delegated: Vec<String>,
}

impl State {
    /// Reads and verifies the repository in a folder with a client of it. Errors: those of
    /// [`RepositoryClient::resolve`].
    pub(super) fn read(repository: &Path, client: &RepositoryClient) -> Result<Self, Reason> {
        let payloads = at_once(client.payloads(Timestamp::MIN))?;
        let mut state = Self { payloads, files: BTreeMap::new(), delegated: Vec::new() };
        let folder = FolderTransport::new(repository);
        for (role, payload) in state.payloads.all() {
            let name = file_name(role, roles::version(payload));
            let file = read_file(&folder, &name, longest(role))?;
            if file["signed"] != *payload {
                let detail = format!("repository {name}: changed while it was read; try again");
                return Err(Reason::new(ReasonCode::Internal, detail));
            }
            state.files.insert(role.to_owned(), file);
        }
        let names: Vec<String> = authority::delegations(&state.payloads.targets)
            .filter_map(|delegation| authority::name_of(delegation).map(str::to_owned))
            .collect();
        for name in names {
            // One that was never published lists nothing; a client skips it, too.
            let Some(pin) = state.pin(&name).cloned() else { continue };
            let file = state.verified(&folder, &name, &pin)?;
            state.files.insert(name.clone(), file);
            state.delegated.push(name);
        }
        Ok(state)
    }

    /// How the snapshot pins a delegated list, also one that nobody delegates to any more.
    pub(super) fn pin(&self, role: &str) -> Option<&Value> {
        self.payloads.snapshot.get("meta")?.get(format!("{role}.json"))
    }

    fn verified(&self, folder: &FolderTransport, role: &str, pin: &Value) -> Result<Value, Reason> {
        let version = roles::version(pin);
        let name = file_name(role, version);
        let path = layout::metadata(&name);
        let bytes = at_once(folder.get(&path, MAX_TARGETS))?.ok_or_else(|| missing(&path))?;
        let pinned = pin.pointer("/hashes/sha256").and_then(Value::as_str);
        if pinned.is_some_and(|pinned| pinned != sha256(&bytes).to_string()) {
            let detail = format!("repository {path}: its content is not the one that was signed");
            return Err(Reason::new(ReasonCode::DigestMismatch, detail));
        }
        let file = parsed(&path, &bytes)?;
        let met = Authority::of_delegation(&self.payloads.targets, role)
            .map(|authority| authority.is_met_by(&file))
            .transpose()?;
        if met != Some(true) || roles::version(&file["signed"]) != version {
            let detail = format!("repository {path}: signed by too few keys of its delegation");
            return Err(Reason::new(ReasonCode::SignatureInvalid, detail));
        }
        Ok(file)
    }

    /// The signed file of a role; `None` where it is not published.
    pub(super) fn file(&self, role: &str) -> Option<&Value> {
        self.files.get(role)
    }

    /// The signed part of a role.
    pub(super) fn payload(&self, role: &str) -> Option<&Value> {
        self.files.get(role)?.get("signed")
    }

    /// The lists of releases in the order in which a client asks them: the main one, then the delegated.
    pub(super) fn lists(&self) -> impl Iterator<Item = (&str, &Value)> {
        let names = std::iter::once("targets").chain(self.delegated.iter().map(String::as_str));
        names.filter_map(move |name| Some((name, self.payload(name)?)))
    }

    /// The lists that have a release, with the digest that each gives it.
    pub(super) fn listing<'a>(
        &'a self,
        release: &'a Release,
    ) -> impl Iterator<Item = (&'a str, Option<Digest>)> {
        let path = layout::target(release);
        self.lists().filter_map(move |(role, list)| Some((role, digest_of(list.get("targets")?.get(&path)?))))
    }

    /// Who may sign a role, by what is published.
    pub(super) fn authority(&self, role: &str) -> Result<Authority, Reason> {
        if TOP_LEVEL.contains(&role) {
            return Authority::of_root(&self.payloads.root, role);
        }
        Authority::of_delegation(&self.payloads.targets, role).ok_or_else(|| unknown_role(self, role))
    }

    /// Each role with its keys and who has signed. Errors: `Malformed`.
    pub(super) fn roles(&self) -> Result<Vec<RoleState>, Reason> {
        let names = TOP_LEVEL.into_iter().chain(self.delegated.iter().map(String::as_str));
        let mut found = Vec::new();
        for role in names {
            let Some(file) = self.file(role) else { continue };
            let authority = self.authority(role)?;
            let delegation = authority::delegations(&self.payloads.targets)
                .find(|delegation| authority::name_of(delegation) == Some(role));
            let paths = delegation.and_then(|delegation| delegation.get("paths")?.as_array());
            found.push(RoleState {
                role: role.to_owned(),
                version: roles::version(&file["signed"]),
                expires: roles::expiry_of(&file["signed"]),
                threshold: authority.threshold,
                signed_by: authority.signers(file)?,
                keys: authority.keys.into_keys().collect(),
                paths: paths
                    .into_iter()
                    .flatten()
                    .filter_map(|path| path.as_str().map(str::to_owned))
                    .collect(),
            });
        }
        Ok(found)
    }
}

/// That there is no such role, and which there are.
pub(super) fn unknown_role(state: &State, role: &str) -> Reason {
    let known: Vec<&str> = TOP_LEVEL.into_iter().chain(state.delegated.iter().map(String::as_str)).collect();
    let detail = format!("role {role}: there is none; this repository has {}", known.join(", "));
    Reason::new(ReasonCode::BadRequest, detail)
}

/// The signed digest of an entry of a list.
pub(super) fn digest_of(entry: &Value) -> Option<Digest> {
    entry.pointer("/hashes/sha256")?.as_str()?.parse().ok()
}

/// The releases of a list.
pub(super) fn releases(list: &Value) -> impl Iterator<Item = (Release, &Value)> {
    let targets = list.get("targets").and_then(Value::as_object).into_iter().flatten();
    targets.filter_map(|(path, entry)| Some((layout::release_of_target(path)?, entry)))
}

/// The name of a role's file in `metadata/`.
pub(super) fn file_name(role: &str, version: u64) -> String {
    match role {
        "timestamp" => "timestamp.json".to_owned(),
        _ => format!("{version}.{}.json", encoded(role)),
    }
}

/// As clients write the name of a delegation in addresses: other bytes than these are escaped.
fn encoded(role: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    role.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn longest(role: &str) -> u64 {
    match role {
        "root" => MAX_ROOT,
        "timestamp" => MAX_TIMESTAMP,
        "snapshot" => MAX_SNAPSHOT,
        _ => MAX_TARGETS,
    }
}

/// A metadata file of the repository, read and not verified.
pub(super) fn read_file(folder: &FolderTransport, name: &str, max: u64) -> Result<Value, Reason> {
    let path = layout::metadata(name);
    let bytes = at_once(folder.get(&path, max))?.ok_or_else(|| missing(&path))?;
    parsed(&path, &bytes)
}

fn parsed(path: &str, bytes: &[u8]) -> Result<Value, Reason> {
    serde_json::from_slice(bytes).map_err(|error| {
        let detail = format!("repository {path}: {error}; it was damaged, copy it again");
        Reason::new(ReasonCode::Malformed, detail)
    })
}

fn missing(path: &str) -> Reason {
    let detail = format!("repository {path}: missing; the copy is incomplete, copy it again");
    Reason::new(ReasonCode::RepositoryUnreachable, detail)
}

/// The bytes of a metadata file.
pub(super) fn to_bytes(file: &Value) -> Result<Vec<u8>, Reason> {
    let mut bytes = serde_json::to_vec_pretty(&json!({
        "signatures": file["signatures"],
        "signed": file["signed"],
    }))
    .map_err(|error| Reason::new(ReasonCode::Internal, format!("write metadata: {error}")))?;
    bytes.push(b'\n');
    Ok(bytes)
}
