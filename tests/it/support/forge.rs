//! Metadata signed by hand: what a thief of keys can write, and what an owner with several keys does.

use super::device::Repository;
use edgewarden::trust::keys::{self, Key};
use serde_json::{Value, json};
use std::path::Path;

/// The key that made a repository of [`Repository::with`].
pub fn first_key(repository: &Repository) -> Key {
    keys::load_all(&repository.dir.path().join("keys")).expect("its keys").remove(0)
}

/// The newest signed parts of a repository's four roles, to be changed and signed again.
#[derive(Clone)]
pub struct Metadata {
    pub root: Value,
    pub targets: Value,
    pub snapshot: Value,
    pub timestamp: Value,
}

/// Who signs what.
pub struct Signers<'a> {
    pub targets: Vec<&'a Key>,
    pub snapshot: &'a Key,
    pub timestamp: &'a Key,
}

impl Metadata {
    /// As it lies in a repository's folder.
    pub fn of(folder: &Path) -> Self {
        let roots = (1..).map(|version| folder.join(format!("metadata/{version}.root.json")));
        let root = roots.take_while(|path| path.exists()).last().expect("a first root");
        let timestamp = payload(&folder.join("metadata/timestamp.json"));
        // By their pins, since a thief's numbers leave gaps.
        let snapshot = pinned(folder, &timestamp, "snapshot");
        Self { root: payload(&root), targets: pinned(folder, &snapshot, "targets"), snapshot, timestamp }
    }

    /// Raises the versions of the timestamp and the snapshot.
    pub fn raise(&mut self, by: u64) -> &mut Self {
        for role in [&mut self.snapshot, &mut self.timestamp] {
            role["version"] = json!(version(role) + by);
        }
        self
    }

    /// Raises the version of the list as well.
    pub fn raise_all(&mut self, by: u64) -> &mut Self {
        self.targets["version"] = json!(version(&self.targets) + by);
        self.raise(by)
    }

    /// Makes the pins fit, signs all but the root, and writes it; the timestamp last.
    pub fn write(&self, folder: &Path, signers: &Signers<'_>) {
        let mut all = self.clone();
        let targets = signed(&all.targets, &signers.targets);
        put(folder, &format!("{}.targets.json", version(&all.targets)), &targets);
        all.snapshot["meta"]["targets.json"] = pin(version(&all.targets), &targets);
        all.write_snapshot(folder, signers);
    }

    /// The same, without the list: the pins of the snapshot stay as they are.
    pub fn write_snapshot(&self, folder: &Path, signers: &Signers<'_>) {
        let snapshot = signed(&self.snapshot, &[signers.snapshot]);
        put(folder, &format!("{}.snapshot.json", version(&self.snapshot)), &snapshot);
        let mut timestamp = self.timestamp.clone();
        timestamp["meta"]["snapshot.json"] = pin(version(&self.snapshot), &snapshot);
        put(folder, "timestamp.json", &signed(&timestamp, &[signers.timestamp]));
    }
}

/// A repository whose keys lie apart, as a company's do.
pub struct Team {
    /// Two of these three sign the root and the list of models; in safes.
    pub offline: [Key; 3],
    /// Signs snapshot and timestamp; on the server that publishes.
    pub online: Key,
}

impl Team {
    /// Hands a repository over to such keys, in its next root.
    pub fn over(repository: &Repository) -> Self {
        let key = || Key::generate().expect("a key");
        let team = Self { offline: [key(), key(), key()], online: key() };
        let folder = repository.folder();
        let first = first_key(repository);
        let mut metadata = Metadata::of(&folder);
        metadata.root = team.root(&metadata.root, &team.online);
        let signers = [&first, &team.offline[0], &team.offline[1]];
        put(&folder, &format!("{}.root.json", version(&metadata.root)), &signed(&metadata.root, &signers));
        metadata.raise_all(1).write(&folder, &team.signers());
        team
    }

    /// The root after `before` with this team's offline keys and the given online key.
    fn root(&self, before: &Value, online: &Key) -> Value {
        let mut root = before.clone();
        root["version"] = json!(version(before) + 1);
        let apart = json!({ "keyids": self.offline.each_ref().map(Key::id), "threshold": 2 });
        let alone = json!({ "keyids": [online.id()], "threshold": 1 });
        root["keys"] = json!({});
        for key in self.offline.iter().chain([online]) {
            root["keys"][key.id()] = key.public();
        }
        root["roles"] = json!({ "root": apart, "targets": apart, "snapshot": alone, "timestamp": alone });
        root
    }

    /// Who signs here, when all is well.
    pub fn signers(&self) -> Signers<'_> {
        Signers {
            targets: vec![&self.offline[0], &self.offline[2]],
            snapshot: &self.online,
            timestamp: &self.online,
        }
    }

    /// What the owner does after a theft of the online key: the next root names another one, and all that
    /// the thief signed is signed again from where the owner's own copy stands. `honest` is that copy.
    pub fn rotate_online(&mut self, honest: &Path) {
        let online = Key::generate().expect("a key");
        let mut metadata = Metadata::of(honest);
        metadata.root = self.root(&metadata.root, &online);
        let root = signed(&metadata.root, &[&self.offline[1], &self.offline[2]]);
        put(honest, &format!("{}.root.json", version(&metadata.root)), &root);
        self.online = online;
        metadata.raise(1).write_snapshot(honest, &self.signers());
    }

    /// What the owner does after a theft of an offline key: another one takes its place.
    pub fn replace_offline(&mut self, stolen: usize, folder: &Path) {
        let mut metadata = Metadata::of(folder);
        let kept: Vec<usize> = (0..3).filter(|index| *index != stolen).collect();
        self.offline[stolen] = Key::generate().expect("a key");
        metadata.root = self.root(&metadata.root, &self.online);
        let root = signed(&metadata.root, &[&self.offline[kept[0]], &self.offline[kept[1]]]);
        put(folder, &format!("{}.root.json", version(&metadata.root)), &root);
        let signers = Signers {
            targets: vec![&self.offline[kept[0]], &self.offline[kept[1]]],
            snapshot: &self.online,
            timestamp: &self.online,
        };
        metadata.raise_all(1).write(folder, &signers);
    }
}

/// The version of a signed part.
pub fn version(payload: &Value) -> u64 {
    payload["version"].as_u64().expect("a version")
}

/// A signed file, whoever may sign it.
pub fn signed(payload: &Value, keys: &[&Key]) -> Vec<u8> {
    // Sorted and without spaces, which for these values is their canonical form.
    let bytes = serde_json::to_vec(payload).unwrap();
    let signatures: Vec<Value> =
        keys.iter().map(|key| json!({ "keyid": key.id(), "sig": key.sign(&bytes) })).collect();
    serde_json::to_vec(&json!({ "signatures": signatures, "signed": payload })).unwrap()
}

/// Writes a file of the metadata.
pub fn put(folder: &Path, name: &str, bytes: &[u8]) {
    std::fs::write(folder.join("metadata").join(name), bytes).unwrap();
}

fn payload(path: &Path) -> Value {
    let mut file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    file["signed"].take()
}

fn pinned(folder: &Path, by: &Value, role: &str) -> Value {
    let version = version(&by["meta"][format!("{role}.json")]);
    payload(&folder.join(format!("metadata/{version}.{role}.json")))
}

fn pin(version: u64, bytes: &[u8]) -> Value {
    let digest = edgewarden::bundle::files::sha256(bytes);
    json!({ "version": version, "length": bytes.len(), "hashes": { "sha256": digest.to_string() } })
}
