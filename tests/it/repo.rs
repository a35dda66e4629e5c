//! The owner's side of trust through the real binary: what one person types, what a team carries from place
//! to place, and what devices and the reference client make of it.

use crate::support::device::{copy_tree, model, variant};
use crate::support::{Edgewarden, Ended};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// One person's way: publishing, delisting, checking, being killed in between.
mod alone;
/// A device that follows a rotation, a delegation, a delisting; bundle files that come late.
mod devices;
/// PyPI's `tuf` fetches from our repositories.
mod reference;
/// Several signers at different places, thresholds, a stolen key.
mod team;

/// A desk with a repository `fleet`, its keys in `fleet-keys`, and whatever else lies there.
struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs `edgewarden` here with these words.
    fn run<S: AsRef<str>>(&self, words: &[S]) -> Ended {
        let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        let output = Edgewarden::command()
            .current_dir(self.dir.path())
            .args(words)
            .output()
            .expect("start the binary");
        Ended {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }

    /// Runs a command line, its words divided by blanks, that must do well; gives what it printed.
    fn good(&self, line: &str) -> String {
        let ended = self.run(&line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(ended.code, Some(0), "{line}: {}{}", ended.stdout, ended.stderr);
        ended.stdout
    }

    /// The same, with the last line of what it printed as JSON.
    fn json(&self, line: &str) -> Value {
        let printed = self.good(&format!("{line} --json"));
        serde_json::from_str(printed.lines().last().unwrap_or_default()).expect("JSON")
    }

    /// Runs a command line that must fail with this status, and one line that holds these words.
    fn bad(&self, line: &str, code: i32, words: &str) {
        let ended = self.run(&line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(ended.code, Some(code), "{line}: {}{}", ended.stdout, ended.stderr);
        assert!(ended.stderr.contains(words), "{line}: {}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{line}: {}", ended.stderr);
    }

    /// A bundle folder `NAME-VERSION`, made of a committed one.
    fn bundle(&self, name: &str, version: &str) -> String {
        let folder = format!("{name}-{version}");
        variant(&model("v1"), &self.path(&folder), version, |_, manifest| manifest["name"] = name.into());
        folder
    }

    /// The releases that the repository lists.
    fn releases(&self) -> Vec<String> {
        let list = self.json("repo list fleet");
        list["releases"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["release"].as_str().unwrap().into())
            .collect()
    }

    /// A key, with its private part in `PLACE/PLACE.pem`; gives its id.
    fn key(&self, place: &str) -> String {
        std::fs::create_dir_all(self.path(place)).unwrap();
        self.json(&format!("repo key new {place}/{place}.pem"))["id"].as_str().unwrap().to_owned()
    }

    /// Carries the change that waits to a place, where its key signs it.
    fn sign_at(&self, place: &str) {
        let request = format!("{place}/pending.json");
        std::fs::copy(self.path("fleet-keys/pending.json"), self.path(&request)).unwrap();
        let root = "fleet/metadata/1.root.json";
        let root = if self.path(root).exists() { format!("--root {root}") } else { String::new() };
        self.good(&format!("repo sign --request {request} {root} --sign-with {place}/{place}.pem"));
    }

    /// Brings it back; gives where the change stands: `live` or `waiting`.
    fn back_from(&self, place: &str) -> String {
        let signed = self.json(&format!("repo sign fleet --request {place}/pending.json"));
        signed["outcome"]["state"].as_str().unwrap().to_owned()
    }

    /// A copy of the whole desk.
    fn copy(&self) -> Self {
        let other = Self::new();
        copy_tree(self.dir.path(), other.dir.path());
        other
    }
}

/// Every file below a folder, with its bytes.
fn tree(root: &Path) -> std::collections::BTreeMap<PathBuf, Vec<u8>> {
    fn walk(folder: &Path, found: &mut std::collections::BTreeMap<PathBuf, Vec<u8>>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.insert(path.clone(), std::fs::read(&path).unwrap());
            }
        }
    }
    let mut found = std::collections::BTreeMap::new();
    walk(root, &mut found);
    found
}
