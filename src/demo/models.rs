//! The five bundles of the story, inside the program, so that an installed one needs no checkout.
//!
//! `packaging/models/README.md` tells how they were made and what each is for.

use crate::domain::{Reason, Release};
use crate::sys::durable;
use std::path::Path;

/// The files of one bundle.
#[derive(Debug, Clone, Copy)]
pub struct Embedded {
    /// `1.0.0` and so on.
    pub version: &'static str,
    /// Path inside the bundle, and content in parts that follow one another.
    pub files: &'static [(&'static str, &'static [&'static [u8]])],
}

macro_rules! file {
    ($number:literal, $path:literal) => {
        include_bytes!(concat!("../../packaging/models/v", $number, "/", $path))
    };
}

macro_rules! embedded {
    ($number:literal) => {
        embedded!($number, [file!($number, "model.onnx")])
    };
    ($number:literal, $model:expr) => {
        Embedded {
            version: concat!($number, ".0.0"),
            files: &[
                ("manifest.json", &[file!($number, "manifest.json")]),
                ("model.onnx", &$model),
                ("golden/1.jpg", &[file!($number, "golden/1.jpg")]),
                ("golden/2.jpg", &[file!($number, "golden/2.jpg")]),
                ("golden/3.jpg", &[file!($number, "golden/3.jpg")]),
                ("golden/4.jpg", &[file!($number, "golden/4.jpg")]),
            ],
        }
    };
}

// Statics, not constants: a constant may be in the program once for each place that names it.

// The third and the fourth model are the second but for a few bytes, so only these are in the program, half a
// megabyte less. Where they stand, the test below holds against the digests of the manifests.
static MODEL_2: &[u8] = file!("2", "model.onnx");
static CHANGED_3: [u8; 811] = cut(file!("3", "model.onnx"), 267_484);
static HEAD_4: [u8; 1437] = cut(file!("4", "model.onnx"), 0);
static TAIL_4: [u8; 160] = cut(file!("4", "model.onnx"), 273_545);

/// `N` bytes of a file that itself is not in the program.
const fn cut<const N: usize>(file: &[u8], from: usize) -> [u8; N] {
    let mut part = [0; N];
    let mut at = 0;
    while at < N {
        part[at] = file[from + at];
        at += 1;
    }
    part
}

/// The bytes from `from` to before `to`.
const fn between(file: &'static [u8], from: usize, to: usize) -> &'static [u8] {
    file.split_at(to).0.split_at(from).1
}

/// A first, weak model.
pub static V1: Embedded = embedded!("1");
/// A better one.
pub static V2: Embedded = embedded!("2", [MODEL_2]);
/// Signed, but its answers to its golden inputs are wrong.
pub static V3: Embedded =
    embedded!("3", [between(MODEL_2, 0, 267_484), &CHANGED_3, between(MODEL_2, 268_295, MODEL_2.len())]);
/// Right on its golden inputs, but fails on a busy belt.
pub static V4: Embedded = embedded!("4", [&HEAD_4, between(MODEL_2, 1179, 273_287), &TAIL_4]);
/// As good as the second; the story lets somebody tamper with it.
pub static V5: Embedded = embedded!("5");
/// All of them, in the order of the story.
pub static ALL: [&Embedded; 5] = [&V1, &V2, &V3, &V4, &V5];

/// The name of the model, the same over all versions.
pub const NAME: &str = "belt-inspector";

impl Embedded {
    /// Name and version.
    pub fn release(&self) -> Result<Release, Reason> {
        format!("{NAME}@{}", self.version)
            .parse()
            .map_err(|error| Reason::new(crate::domain::ReasonCode::Internal, format!("demo model: {error}")))
    }

    /// Writes the bundle's files into `folder`, which is made when it is not there.
    pub fn write(&self, folder: &Path) -> Result<(), Reason> {
        for (path, parts) in self.files {
            let path = folder.join(path);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(durable::failed("make folder", parent))?;
            }
            std::fs::write(&path, parts.concat()).map_err(durable::failed("write", &path))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Manifest;
    use crate::inference::source::scene::CLASSES;
    use sha2::{Digest, Sha256};

    #[test]
    fn each_bundle_is_whole_small_and_what_the_story_says() {
        for bundle in ALL {
            let (name, parts) = bundle.files[0];
            assert_eq!(name, "manifest.json");
            let manifest: Manifest = serde_json::from_slice(&parts.concat()).unwrap();
            assert_eq!(manifest.release(), bundle.release().unwrap());
            assert_eq!(manifest.labels, CLASSES, "the truth and the models number the classes alike");
            assert_eq!(manifest.golden.len(), 4);
            assert!(manifest.total_size() < 1 << 20, "under 1 MB");
            let mut listed: Vec<_> = manifest.files.iter().map(|file| file.path.as_str()).collect();
            let mut embedded: Vec<_> = bundle.files[1..].iter().map(|(path, _)| *path).collect();
            listed.sort_unstable();
            embedded.sort_unstable();
            assert_eq!(listed, embedded);
            for entry in &manifest.files {
                let (_, parts) = bundle.files.iter().find(|(path, _)| *path == entry.path).unwrap();
                let content = parts.concat();
                assert_eq!(entry.size, content.len() as u64, "{} {}", bundle.version, entry.path);
                assert_eq!(entry.sha256.to_string(), hex::encode(Sha256::digest(content)));
            }
        }
    }
}
