//! What was seen of a repository, as the library is handed it and hands it over: the floors below which nothing is
//! taken.

use crate::domain::{Reason, ReasonCode};
use crate::trust::floors;
use crate::trust::seen::Seen;
use serde_json::Value;
use sigstore_tuf::{Error, MetadataStore};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What was seen, as the library wants to be handed it.
pub(super) struct Store {
    pub(super) seen: Arc<Seen>,
    pub(super) all: bool,
}

impl MetadataStore for Store {
    fn load(&self, name: &str) -> sigstore_tuf::Result<Option<Vec<u8>>> {
        // Targets are no floors: where they are not kept, none that lies there is looked at.
        if name.starts_with("targets/") && !(self.all && stays_inside(name)) {
            return Ok(None);
        }
        self.seen.load(name).map_err(|reason| Error::transport(reason.detail))
    }

    fn store(&self, name: &str, bytes: &[u8]) -> sigstore_tuf::Result<()> {
        // One writer at a time in this process: another client may use the same folder, and between the
        // look at a floor and its replacement nobody else may raise it.
        let _writing = writing();
        let stored = match name {
            "root.json" => self.adopt_root(bytes),
            "timestamp.json" | "snapshot.json" => self.replace_floor(name, bytes),
            // Only what is read again: the newest of each role and the chain of roots. Floors of delegated
            // roles come from the snapshot.
            "targets.json" => self.seen.store(name, bytes),
            name if name.starts_with("root_history/") => self.seen.store(name, bytes),
            name if self.all && stays_inside(name) && !name.ends_with(".snapshot.json") => {
                self.seen.store(name, bytes)
            }
            _ => Ok(()),
        };
        stored.map_err(|reason| Error::transport(reason.detail))
    }
}

impl Store {
    /// Keeps a verified root, and before that drops the floors that a fast-forward attack with a key
    /// that this root takes away may have raised. In this order a power cut between the two leaves the
    /// old root, and all of it happens again.
    fn adopt_root(&self, bytes: &[u8]) -> Result<(), Reason> {
        let old = self.seen.load("root.json")?;
        let rotated =
            |role: &str| old.as_deref().is_some_and(|old| signers(old, role) != signers(bytes, role));
        if rotated("timestamp") || rotated("snapshot") {
            self.seen.forget("timestamp.json")?;
            self.seen.forget("snapshot.json")?;
        }
        self.seen.store("root.json", bytes)
    }

    /// Keeps a verified timestamp or snapshot, unless something newer is kept already.
    fn replace_floor(&self, name: &str, bytes: &[u8]) -> Result<(), Reason> {
        if let Some(kept) = self.seen.load(name)?
            && let Some(lowered) = floors::lowered(&kept, bytes)
        {
            let detail = format!("repository metadata: {lowered}; the copy is old or somebody replays it");
            return self.seen.refuse(Reason::new(ReasonCode::OlderThanSeen, detail));
        }
        self.seen.store(name, bytes)
    }
}

/// True where a name from the metadata stays below the folder that it is joined to.
fn stays_inside(name: &str) -> bool {
    name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn writing() -> MutexGuard<'static, ()> {
    static WRITING: Mutex<()> = Mutex::new(());
    WRITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The threshold and the keys, with their ids, that a root gives a role.
fn signers(root: &[u8], role: &str) -> Option<Value> {
    let root: Value = serde_json::from_slice(root).ok()?;
    let role = root.pointer(&format!("/signed/roles/{role}"))?;
    let ids = role.get("keyids")?.as_array()?.iter().filter_map(Value::as_str);
    let keys: BTreeMap<&str, Option<&Value>> =
        ids.map(|id| (id, root.pointer("/signed/keys").and_then(|keys| keys.get(id)))).collect();
    Some(serde_json::json!([role.get("threshold"), keys]))
}
