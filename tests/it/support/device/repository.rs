//! A signed repository that a device pulls from, and the releases in it.

use crate::support::root;
use crate::support::web::Web;
use edgewarden::trust::{InitOptions, Publisher};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A bundle folder of the repository: `v1` to `v5`.
pub fn model(name: &str) -> PathBuf {
    root().join("packaging/models").join(name)
}

/// The release of such a folder.
pub fn release(number: u32) -> String {
    format!("belt-inspector@{number}.0.0")
}

/// A signed repository behind a web server.
pub struct Repository {
    /// Its folder is `repository`, its keys lie in `keys`; tests put what they like beside them.
    pub dir: tempfile::TempDir,
    /// Its server.
    pub web: Web,
    /// For more releases.
    pub publisher: Publisher,
}

impl Repository {
    /// Publishes these of the committed models.
    pub fn with(models: &[&str]) -> Self {
        Self::at(models, InitOptions::default(), jiff::Timestamp::now())
    }

    /// The same, at another time.
    pub fn at(models: &[&str], options: InitOptions, now: jiff::Timestamp) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let (repository, keys) = (dir.path().join("repository"), dir.path().join("keys"));
        let mut publisher = Publisher::init(&repository, &keys, options, now).expect("a new repository");
        for name in models {
            publisher.publish(&model(name), now, &|_| {}).expect("publish a committed model");
        }
        Self { web: Web::start(&repository), dir, publisher }
    }

    /// The repository's folder.
    pub fn folder(&self) -> PathBuf {
        self.dir.path().join("repository")
    }

    /// Copies a bundle folder under a new version, lets `change` spoil it, seals and publishes it; gives
    /// the release.
    pub fn publish_variant(
        &mut self,
        from: &str,
        version: &str,
        change: impl FnOnce(&Path, &mut Value),
    ) -> String {
        let folder = self.dir.path().join(format!("bundle-{version}"));
        variant(&model(from), &folder, version, change);
        self.publisher.publish(&folder, jiff::Timestamp::now(), &|_| {}).expect("publish a variant");
        format!("belt-inspector@{version}")
    }

    /// The same bundle under a new version, signed at another time.
    pub fn publish_at(&mut self, from: &str, version: &str, time: jiff::Timestamp) {
        let folder = self.dir.path().join(format!("bundle-{version}"));
        variant(&model(from), &folder, version, |_, _| {});
        self.publisher.publish(&folder, time, &|_| {}).expect("publish a variant");
    }

    /// Where the repository keeps the model file of a committed bundle.
    pub fn model_blob(name: &str) -> String {
        let manifest: Value =
            serde_json::from_slice(&std::fs::read(model(name).join("manifest.json")).unwrap()).unwrap();
        let files = manifest["files"].as_array().unwrap();
        let model = files.iter().find(|file| file["path"] == "model.onnx").unwrap();
        format!("blobs/{}", model["sha256"].as_str().unwrap())
    }
}

/// Copies a bundle folder, changes its files or its manifest, and lists its files anew.
pub fn variant(from: &Path, to: &Path, version: &str, change: impl FnOnce(&Path, &mut Value)) {
    copy_tree(from, to);
    let path = to.join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    manifest["version"] = version.into();
    change(to, &mut manifest);
    std::fs::write(&path, serde_json::to_vec_pretty(&manifest).unwrap()).unwrap();
    edgewarden::bundle::seal(to).expect("seal the variant");
}

/// Copies a folder with all that is in it.
pub fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (entry, to) = {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            (entry, to)
        };
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), &to).unwrap();
        }
    }
}
