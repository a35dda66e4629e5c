//! A repository with some releases of a detector, made by our own publisher.

use crate::config::settings::{AccessSettings, RepositorySettings};
use crate::domain::{Digest, Release};
use crate::trust::{InitOptions, Publisher, SignedManifest, export};
use jiff::Timestamp;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// The releases that are published from the beginning, and those that come before the scenario.
const EARLY: [&str; 2] = ["1.0.0", "2.0.0"];
const LATE: [&str; 3] = ["3.0.0", "4.0.0", "5.0.0"];

/// Bytes of a model: more than two pages of a disk.
const MODEL: usize = 9000;

pub(super) fn release(version: &str) -> Release {
    format!("detector@{version}").parse().unwrap()
}

pub(super) struct Fleet {
    dir: TempDir,
    /// The manifests as they were signed.
    pub(super) signed: BTreeMap<Digest, SignedManifest>,
}

impl Fleet {
    /// With the early releases.
    pub(super) fn new() -> Self {
        let mut fleet = Self { dir: super::folder(), signed: BTreeMap::new() };
        Publisher::init(&fleet.repository(), &fleet.keys(), InitOptions::default(), Timestamp::now())
            .unwrap();
        fleet.publish(&EARLY);
        fleet
    }

    /// Publishes the late releases.
    pub(super) fn go_on(&mut self) {
        self.publish(&LATE);
    }

    fn publish(&mut self, versions: &[&str]) {
        let folders: Vec<PathBuf> = versions.iter().map(|version| self.bundle(version)).collect();
        let folders: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
        let now = Timestamp::now();
        let mut publisher = Publisher::open(&self.repository(), &self.keys()).unwrap();
        publisher.publish_all(&folders, None, now, &|_| {}).unwrap();
        drop(publisher);
        for version in versions {
            let found = export::resolve(&self.repository(), &release(version), None, now).unwrap();
            self.signed.insert(found.get().digest, found.get().clone());
        }
    }

    /// A bundle with a model of its own, and labels that all share.
    fn bundle(&self, version: &str) -> PathBuf {
        let dir = self.dir.path().join("bundles").join(version);
        fs::create_dir_all(dir.join("extra")).unwrap();
        let model: Vec<u8> =
            format!("model {version} ").into_bytes().into_iter().cycle().take(MODEL).collect();
        let files = [("extra/labels.txt", b"labels ".repeat(50)), ("model.onnx", model)];
        let files = files.map(|(path, bytes)| {
            fs::write(dir.join(path), &bytes).unwrap();
            let digest = Digest::from_bytes(Sha256::digest(&bytes).into());
            json!({ "path": path, "sha256": digest, "size": bytes.len() })
        });
        let manifest = json!({
            "format": 1, "name": "detector", "version": version, "model": "model.onnx", "files": files,
            "inputs": [{ "name": "image", "shape": [1, 3, 4, 4], "type": "f32", "layout": "nchw",
                         "fit": "stretch", "color": "rgb" }],
            "decode": { "kind": "raw" },
        });
        fs::write(dir.join("manifest.json"), manifest.to_string()).unwrap();
        dir
    }

    pub(super) fn repository(&self) -> PathBuf {
        self.dir.path().join("fleet")
    }

    fn keys(&self) -> PathBuf {
        self.dir.path().join("keys")
    }

    /// A release in a file, as it is carried on a stick.
    pub(super) fn file(&self, version: &str) -> PathBuf {
        let out = self.dir.path().join(format!("{version}.bundle"));
        if !out.exists() {
            export::export(&self.repository(), &release(version), &out, Timestamp::now(), &|_| {}).unwrap();
        }
        out
    }

    /// How a device reaches it; over HTTP where an address is given.
    pub(super) fn settings(&self, address: Option<std::net::SocketAddr>) -> RepositorySettings {
        let url = match address {
            Some(address) => format!("http://{address}/").parse().unwrap(),
            None => url::Url::from_directory_path(self.repository()).unwrap(),
        };
        RepositorySettings {
            url: Some(url),
            root: self.repository().join("metadata/1.root.json"),
            stall_timeout: Duration::from_secs(10),
            retries: 1,
            rate_limit: 0,
            access: AccessSettings::default(),
        }
    }
}
