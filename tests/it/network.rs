//! Bad networks between the real daemon and its repository, fault by fault, with the requests and the bytes
//! counted; downloads over kills; aborts while a server holds its answer; and networks that are to be spared.

/// An abort is answered though the network hangs.
mod abort;
/// Every fault at every kind of file, and the table of what happened.
mod faults;
/// A download over `kill -9` of the daemon.
mod resume;
/// Maintenance windows, metered connections, a fleet that begins spread.
mod sparing;

use crate::support::device::{Options, Repository, model, variant};
use crate::support::faulty_web::FaultyWeb;
use crate::support::mosquitto::Mosquitto;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A repository with releases whose files have nothing in common, behind a server that plays faults.
struct Bench {
    broker: Mosquitto,
    repository: Repository,
    web: FaultyWeb,
    folders: Vec<PathBuf>,
}

impl Bench {
    /// With belt-inspector@1.0.0 and so many others.
    fn new(others: usize) -> Self {
        let mut repository = Repository::with(&["v1"]);
        let folders: Vec<PathBuf> = (0..others)
            .map(|number| {
                let folder = repository.dir.path().join(format!("bundle-{number}"));
                variant(&model("v2"), &folder, &version(number), |folder, _| unlike(folder, number));
                folder
            })
            .collect();
        let paths: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
        if !paths.is_empty() {
            let now = jiff::Timestamp::now();
            repository.publisher.publish_all(&paths, None, now, &|_| {}).expect("publish the variants");
        }
        let web = FaultyWeb::start(&repository.folder());
        Self { broker: Mosquitto::start(), repository, web, folders }
    }

    fn options(&self) -> Options {
        Options::new(&self.broker, &self.repository).set("repository.url", self.web.url())
    }

    /// Where the repository keeps the model of the nth of the others, and its bytes.
    fn blob(&self, number: usize) -> (String, u64) {
        let manifest = std::fs::read(self.folders[number].join("manifest.json")).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let files = manifest["files"].as_array().unwrap();
        let model = files.iter().find(|file| file["path"] == "model.onnx").unwrap();
        (format!("blobs/{}", model["sha256"].as_str().unwrap()), model["size"].as_u64().unwrap())
    }
}

fn version(number: usize) -> String {
    format!("{}.0.0", 10 + number)
}

fn release(number: usize) -> String {
    format!("belt-inspector@{}", version(number))
}

/// The same model in other bytes: with another text of documentation (field 6 of an ONNX model).
fn unlike(folder: &Path, number: usize) {
    let path = folder.join("model.onnx");
    let mut bytes = std::fs::read(&path).unwrap();
    let text = format!("variant {number:04}");
    bytes.extend([0x32, u8::try_from(text.len()).unwrap()]);
    bytes.extend(text.as_bytes());
    std::fs::write(&path, bytes).unwrap();
}
