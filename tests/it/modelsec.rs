//! Models that are their makers' own: signed where they were trained (OpenSSF Model Signing), encrypted for
//! the devices that run them.

/// Encrypted bundles at the desk: sealing, publishing, whose key opens them.
mod desk;
/// Encrypted bundles on a device: update, shadow, rollback, and nothing in plain on its disk.
mod device;
/// Model signatures: ours against the public tool's, and what a device that requires them takes.
mod signature;

use crate::support::device::{copy_tree, model};
use crate::support::{Edgewarden, Ended};
use edgewarden::bundle::{self, secret};
use edgewarden::sys::age::Recipient;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Runs the program, which must end well.
fn good<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Ended {
    let ended = Edgewarden::run(arguments);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended
}

/// A new key file, made by the program, and its recipient.
fn new_key(path: &Path) -> Recipient {
    let ended = good(&["bundle", "key", "--new", path.to_str().unwrap()]);
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    ended.stdout.trim().parse().expect("the recipient and nothing else")
}

/// A copy of a committed bundle under another version, encrypted.
fn encrypted(folder: &Path, name: &str, version: &str, recipients: &[Recipient]) -> PathBuf {
    let (plain, to) = (folder.join(format!("plain-{version}")), folder.join(format!("secret-{version}")));
    copy_tree(&model(name), &plain);
    let mut manifest = bundle::read(&plain).unwrap().0;
    manifest.version = version.parse().unwrap();
    bundle::write_manifest(&plain, &manifest).unwrap();
    secret::encrypted_copy(&bundle::open(&plain, None).unwrap(), &to, recipients, &|_| {}).unwrap();
    to
}

/// Pieces of a model that stand for it: 48 bytes here and there.
fn marks(model: &Path) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(model).unwrap();
    (1..8).map(|part| bytes[bytes.len() * part / 8..][..48].to_vec()).collect()
}

/// The files below a folder that hold one of the marks, and how many files were looked at.
fn holding(folder: &Path, marks: &[Vec<u8>]) -> (Vec<PathBuf>, usize) {
    let (mut found, mut seen) = (Vec::new(), 0);
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            let (below, count) = holding(&path, marks);
            found.extend(below);
            seen += count;
        } else if kind.is_file() {
            // A file may go while it is looked for.
            let Ok(bytes) = std::fs::read(&path) else { continue };
            seen += 1;
            if has(&bytes, marks) {
                found.push(path);
            }
        }
    }
    (found, seen)
}

fn has(bytes: &[u8], marks: &[Vec<u8>]) -> bool {
    marks.iter().any(|mark| memchr::memmem::find(bytes, mark).is_some())
}
