//! A repository to be attacked, and what is tried on it.

mod attacks;
mod carrying;
mod delegations;
mod floors;
mod metadata;
mod operators;
mod publishing;
mod recovery;
mod teams;

use super::keys::{self, Key};
use super::publish::{InitOptions, Published, Publisher, at_once};
use super::transport::{BoxFuture, OnBytes, Transport};
use super::{RepositoryClient, SignedManifest, Verified, roles};
use crate::bundle::files::sha256;
use crate::domain::manifest::*;
use crate::domain::{Digest, Manifest, Reason, ReasonCode, Release};
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// The files of a repository by their paths.
type Files = BTreeMap<String, Vec<u8>>;

/// A folder with a repository and its keys, at a fixed time.
struct Lab {
    dir: tempfile::TempDir,
    now: Timestamp,
}

impl Lab {
    /// An empty repository.
    fn new() -> Self {
        let lab = Self { dir: tempfile::tempdir().unwrap(), now: "2026-06-01T12:00:00Z".parse().unwrap() };
        Publisher::init(&lab.repository(), &lab.keys(), InitOptions::default(), lab.now).unwrap();
        lab
    }

    /// A repository with `detector@1.0.0`.
    fn with_one() -> Self {
        let lab = Self::new();
        lab.publish("detector@1.0.0").unwrap();
        lab
    }

    fn repository(&self) -> PathBuf {
        self.dir.path().join("fleet")
    }

    fn keys(&self) -> PathBuf {
        self.dir.path().join("fleet-keys")
    }

    fn publisher(&self) -> Publisher {
        Publisher::open(&self.repository(), &self.keys()).unwrap()
    }

    fn publish(&self, release: &str) -> Result<Published, Reason> {
        let bundle = self.bundle(release, release.as_bytes());
        self.publisher().publish(&bundle, self.now, &|_| {})
    }

    /// A bundle folder whose model is `model`; every bundle shares the file `labels.txt`.
    fn bundle(&self, release: &str, model: &[u8]) -> PathBuf {
        let dir = self.dir.path().join("bundles").join(release);
        let release: Release = release.parse().unwrap();
        fs::create_dir_all(dir.join("golden")).unwrap();
        let files = [("golden/a.txt", &b"shared by all"[..]), ("model.onnx", model)];
        let files = files.map(|(path, bytes)| {
            fs::write(dir.join(path), bytes).unwrap();
            FileEntry { path: path.to_owned(), sha256: sha256(bytes), size: bytes.len() as u64 }
        });
        let manifest = Manifest {
            format: FORMAT,
            name: release.name,
            version: release.version,
            description: "finds things".to_owned(),
            license: String::new(),
            model: "model.onnx".to_owned(),
            files: files.into(),
            inputs: vec![InputSpec {
                name: "input".to_owned(),
                shape: vec![1, 3, 8, 8],
                element: ElementType::F32,
                layout: Layout::Nchw,
                fit: Fit::Stretch,
                color: Color::Rgb,
                scale: 1.0,
                mean: vec![],
                std: vec![],
                jpeg: Default::default(),
            }],
            series: None,
            decode: Decode::Raw { outputs: vec![] },
            labels: vec![],
            needs: Needs::default(),
            runtime: RuntimeHints::default(),
            golden: vec![],
            tolerance: Tolerance::default(),
            encryption: None,
        };
        fs::write(dir.join("manifest.json"), serde_json::to_vec_pretty(&manifest).unwrap()).unwrap();
        dir
    }

    /// Every file of the repository.
    fn files(&self) -> Files {
        tree(&self.repository())
    }

    fn root(&self) -> Vec<u8> {
        fs::read(self.repository().join("metadata/1.root.json")).unwrap()
    }

    fn key(&self) -> Key {
        keys::load_all(&self.keys()).unwrap().remove(0)
    }

    /// A device that remembers in a folder of its own.
    fn device(&self, transport: Arc<dyn Transport>) -> RepositoryClient {
        RepositoryClient::new(transport, self.root(), self.dir.path().join("seen"))
    }

    /// What a device without a memory makes of `files`.
    fn resolve(&self, files: Files) -> Result<Verified<SignedManifest>, Reason> {
        let client = RepositoryClient::forgetful(Arc::new(Served::new(files)), self.root());
        at_once(client.resolve(&"detector@1.0.0".parse().unwrap(), self.now))
    }

    /// The code of its refusal.
    fn refusal(&self, files: Files) -> ReasonCode {
        self.resolve(files).expect_err("accepted").code
    }

    /// Signs `payloads` with this repository's key (or `key`) as a repository; for forgeries of which
    /// the publisher is not capable.
    fn forge(&self, forge: impl FnOnce(&mut Forgery)) -> Files {
        let files = self.files();
        let newest = |role: &str| {
            let mut names: Vec<_> =
                files.keys().filter(|name| name.ends_with(&format!(".{role}.json"))).collect();
            names.sort_by_key(|name| {
                name.trim_start_matches("metadata/").split('.').next().unwrap().parse::<u64>().unwrap()
            });
            payload(&files[*names.last().unwrap()])
        };
        let root = newest("root");
        let key = self.key();
        let mut forgery = Forgery {
            targets: newest("targets"),
            snapshot: newest("snapshot"),
            timestamp: payload(&files["metadata/timestamp.json"]),
            signer: Key::from_seed(&key.seed()).unwrap(),
            roots: vec![],
            root,
            files,
        };
        forge(&mut forgery);
        forgery.finish()
    }
}

/// Metadata to be changed and then signed with a real key.
struct Forgery {
    /// The newest root, by which the other roles are signed.
    root: Value,
    targets: Value,
    snapshot: Value,
    timestamp: Value,
    signer: Key,
    /// Further roots with all keys that sign them.
    roots: Vec<(Value, Vec<Key>)>,
    files: Files,
}

impl Forgery {
    /// Signs all of it, the pins made to fit.
    fn finish(mut self) -> Files {
        let mut files = self.files;
        for (root, keys) in &self.roots {
            files.insert(format!("metadata/{}.root.json", root["version"]), signed(root, keys.iter()));
        }
        let bytes = signed(&self.targets, [&self.signer]);
        let version = roles::version(&self.targets);
        files.insert(format!("metadata/{version}.targets.json"), bytes.clone());
        self.snapshot["meta"]["targets.json"] = roles::pin(version, &bytes);
        let bytes = signed(&self.snapshot, [&self.signer]);
        let version = roles::version(&self.snapshot);
        files.insert(format!("metadata/{version}.snapshot.json"), bytes.clone());
        self.timestamp["meta"]["snapshot.json"] = roles::pin(version, &bytes);
        files.insert("metadata/timestamp.json".to_owned(), signed(&self.timestamp, [&self.signer]));
        files
    }
}

/// A signed file, whoever may sign it.
fn signed<'a>(payload: &Value, keys: impl IntoIterator<Item = &'a Key>) -> Vec<u8> {
    let bytes = super::tuf::canonical(payload).unwrap();
    let signatures: Vec<Value> =
        keys.into_iter().map(|key| json!({ "keyid": key.id(), "sig": key.sign(&bytes) })).collect();
    serde_json::to_vec(&json!({ "signatures": signatures, "signed": payload })).unwrap()
}

fn payload(file: &[u8]) -> Value {
    serde_json::from_slice::<Value>(file).unwrap()["signed"].take()
}

/// Every file below a folder.
fn tree(root: &Path) -> Files {
    fn walk(root: &Path, dir: &Path, files: &mut Files) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, files);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    let mut files = Files::new();
    walk(root, root, &mut files);
    files
}

/// A server in memory that keeps to no limit.
struct Served {
    files: Mutex<Files>,
    asked: Mutex<Vec<(String, u64)>>,
}

impl Served {
    fn new(files: Files) -> Self {
        Self { files: Mutex::new(files), asked: Mutex::default() }
    }
}

impl Transport for Served {
    fn get<'a>(&'a self, path: &'a str, max: u64) -> BoxFuture<'a, Result<Option<Vec<u8>>, Reason>> {
        self.asked.lock().unwrap().push((path.to_owned(), max));
        let found = self.files.lock().unwrap().get(path).cloned();
        Box::pin(async { Ok(found) })
    }

    fn download<'a>(
        &'a self,
        _: &'a str,
        _: u64,
        _: &'a Path,
        _: OnBytes<'a>,
    ) -> BoxFuture<'a, Result<(), Reason>> {
        unreachable!("the client moves metadata and manifests only")
    }
}

/// `days` after `time`.
fn later(time: Timestamp, days: i64) -> Timestamp {
    time + (days * 24).hours()
}
