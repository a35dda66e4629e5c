//! The bundle: a folder with a model and all that is needed to run, check and watch it, and the one
//! file that people carry.
//!
//! Opening one checks every word of `manifest.json` and every byte of every file it lists. The SHA-256
//! of the manifest's bytes is the bundle's identity. This folder runs no model, knows no signing key and
//! never opens a socket: who may say that a bundle is good is `trust/`'s matter. What opens an encrypted model is
//! read in [`secret`] and nowhere else.

pub mod archive;
pub mod checked;
pub mod delta;
pub mod draft;
pub mod files;
pub mod intake;
pub mod layout;
pub mod manifest;
pub mod model;
pub mod onnx;
pub mod path;
pub mod secret;

pub use files::seal;
pub use manifest::{parse_manifest, write_manifest};

use crate::domain::{Digest, Manifest, Reason, ReasonCode};
use std::path::{Path, PathBuf};

/// The manifest's name in a bundle.
pub const MANIFEST: &str = "manifest.json";
/// The name in a bundle of the signature that the model's maker made.
pub const MODEL_SIGNATURE: &str = "model.sig";
/// Largest manifest, bytes.
pub const MAX_MANIFEST: u64 = 8 << 20;
/// Most files of a bundle.
pub const MAX_FILES: usize = 256;
/// Largest file of a bundle, bytes.
pub const MAX_FILE: u64 = 8 << 30;

/// A bundle whose manifest and files were all checked.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenBundle {
    /// Its folder.
    pub dir: PathBuf,
    /// What it says of itself.
    pub manifest: Manifest,
    /// SHA-256 of `manifest.json`.
    pub digest: Digest,
    /// What opens its encrypted model, once it was unlocked.
    pub secrets: Option<secret::Secrets>,
}

impl OpenBundle {
    /// Where a file of the bundle lies; `path` as the manifest writes it.
    pub fn file(&self, path: &str) -> PathBuf {
        self.dir.join(path)
    }

    /// The ONNX file.
    pub fn model(&self) -> PathBuf {
        self.file(&self.manifest.model)
    }
}

/// Opens the bundle in `dir` and checks all of it: the manifest's size, words and identity (when one
/// is `expected`), then the size and SHA-256 of every file.
///
/// # Errors
/// `NotFound` without a manifest, `Malformed` where the format's rules are broken, `DigestMismatch` and
/// `SizeMismatch` where bytes are not the stated ones.
pub fn open(dir: &Path, expected: Option<Digest>) -> Result<OpenBundle, Reason> {
    let (manifest, digest) = read(dir)?;
    if let Some(expected) = expected
        && expected != digest
    {
        return Err(Reason::new(
            ReasonCode::DigestMismatch,
            format!(
                "bundle {}: its manifest has SHA-256 {}…, expected {}…; it was changed after it was staged",
                dir.display(),
                digest.short(),
                expected.short()
            ),
        ));
    }
    for entry in &manifest.files {
        files::verify(dir, entry)?;
    }
    Ok(OpenBundle { dir: dir.to_owned(), manifest, digest, secrets: None })
}

/// Reads and checks the manifest alone; the files are not looked at.
pub fn read(dir: &Path) -> Result<(Manifest, Digest), Reason> {
    let bytes = files::read_manifest(dir)?;
    let manifest = parse_manifest(&bytes).map_err(|reason| {
        Reason::new(reason.code, format!("{}: {}", dir.join(MANIFEST).display(), reason.detail))
    })?;
    Ok((manifest, files::sha256(&bytes)))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::domain::manifest::*;

    /// A manifest that is good as far as no files are looked at.
    pub(crate) fn sample() -> Manifest {
        let model = b"not really a model";
        Manifest {
            format: FORMAT,
            name: "detector".parse().unwrap(),
            version: semver::Version::new(1, 2, 0),
            description: String::new(),
            license: String::new(),
            model: "model.onnx".into(),
            files: vec![FileEntry {
                path: "model.onnx".into(),
                sha256: files::sha256(model),
                size: model.len() as u64,
            }],
            inputs: vec![InputSpec {
                name: "input".into(),
                shape: vec![1, 3, 240, 320],
                element: ElementType::F32,
                layout: Layout::Nchw,
                fit: Fit::Stretch,
                color: Color::Rgb,
                scale: 1.0,
                mean: vec![127.0],
                std: vec![128.0],
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
        }
    }

    fn folder() -> (tempfile::TempDir, Manifest) {
        let dir = tempfile::tempdir().unwrap();
        let manifest = sample();
        std::fs::write(dir.path().join("model.onnx"), b"not really a model").unwrap();
        write_manifest(dir.path(), &manifest).unwrap();
        (dir, manifest)
    }

    #[test]
    fn opens_what_it_wrote() {
        let (dir, manifest) = folder();
        let bundle = open(dir.path(), None).unwrap();
        assert_eq!(bundle.manifest, manifest);
        assert_eq!(open(dir.path(), Some(bundle.digest)).unwrap(), bundle);
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let (dir, _) = folder();
        let digest = open(dir.path(), None).unwrap().digest;
        let model = dir.path().join("model.onnx");

        std::fs::write(&model, b"not really a modeL").unwrap();
        assert_eq!(open(dir.path(), None).unwrap_err().code, ReasonCode::DigestMismatch);
        std::fs::write(&model, b"not really a model, longer").unwrap();
        assert_eq!(open(dir.path(), None).unwrap_err().code, ReasonCode::SizeMismatch);
        std::fs::remove_file(&model).unwrap();
        assert_eq!(open(dir.path(), None).unwrap_err().code, ReasonCode::NotFound);
        std::fs::write(dir.path().join("elsewhere"), b"not really a model").unwrap();
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &model).unwrap();
        assert_eq!(open(dir.path(), None).unwrap_err().code, ReasonCode::Malformed);

        std::fs::remove_file(&model).unwrap();
        std::fs::write(&model, b"not really a model").unwrap();
        let mut text = std::fs::read(dir.path().join(MANIFEST)).unwrap();
        text.push(b'\n');
        std::fs::write(dir.path().join(MANIFEST), text).unwrap();
        assert_eq!(open(dir.path(), Some(digest)).unwrap_err().code, ReasonCode::DigestMismatch);
    }

    #[test]
    fn a_link_in_place_of_a_folder_or_the_manifest_is_refused() {
        let (dir, mut manifest) = folder();
        let outside = tempfile::tempdir().unwrap();
        std::fs::rename(dir.path().join("model.onnx"), outside.path().join("model.onnx")).unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("sub")).unwrap();
        manifest.model = "sub/model.onnx".into();
        manifest.files[0].path = "sub/model.onnx".into();
        write_manifest(dir.path(), &manifest).unwrap();
        assert_eq!(open(dir.path(), None).unwrap_err().code, ReasonCode::Malformed);

        std::fs::rename(dir.path().join(MANIFEST), outside.path().join(MANIFEST)).unwrap();
        std::os::unix::fs::symlink(outside.path().join(MANIFEST), dir.path().join(MANIFEST)).unwrap();
        assert_eq!(open(dir.path(), None).unwrap_err().code, ReasonCode::Malformed);
    }

    #[test]
    fn no_manifest_and_a_huge_one_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(open(dir.path(), None).unwrap_err().code, ReasonCode::NotFound);
        let file = std::fs::File::create(dir.path().join(MANIFEST)).unwrap();
        file.set_len(MAX_MANIFEST + 1).unwrap();
        assert_eq!(open(dir.path(), None).unwrap_err().code, ReasonCode::Malformed);
    }
}
