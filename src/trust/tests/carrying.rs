//! The `.bundle` file: the way there, the way back, and what may not be in it.

use super::*;
use crate::bundle::archive::{Archive, extract};
use crate::trust::export::{export, verify_release};
use crate::trust::sideload::{ArchiveTransport, verify_file};
use ReasonCode::*;

impl Lab {
    fn export(&self) -> PathBuf {
        let out = self.dir.path().join("detector.bundle");
        export(&self.repository(), &"detector@1.0.0".parse().unwrap(), &out, self.now, &|_| {}).unwrap();
        out
    }

    fn verify(&self, path: &Path) -> Result<Verified<SignedManifest>, Reason> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(verify_file(path, self.root(), None, self.now))
    }
}

#[test]
fn an_exported_release_is_accepted_and_comes_back_as_the_same_folder() {
    let lab = Lab::with_one();
    lab.publish("detector@2.0.0").unwrap();
    let path = lab.export();
    let first = fs::read(&path).unwrap();
    assert_eq!(fs::read(lab.export()).unwrap(), first, "not reproducible");
    let verified = lab.verify(&path).unwrap();
    assert_eq!(verified.get().release().to_string(), "detector@1.0.0");
    let into = lab.dir.path().join("unpacked");
    extract(&path, &into).unwrap();
    assert_eq!(tree(&into), tree(&lab.dir.path().join("bundles/detector@1.0.0")));
    assert_eq!(extract(&path, &into).unwrap_err().code, BadRequest);
    let names =
        tree(&lab.repository()).into_keys().filter(|name| Archive::open(&path).unwrap().size(name).is_some());
    assert_eq!(names.count(), 7, "a root, three roles, a manifest, two blobs");
}

#[test]
fn a_bundle_file_counts_as_seen_and_an_older_one_is_refused() {
    let lab = Lab::with_one();
    let old = lab.export();
    lab.publish("detector@1.1.0").unwrap();
    let release: Release = "detector@1.0.0".parse().unwrap();
    at_once(lab.device(Arc::new(Served::new(lab.files()))).resolve(&release, lab.now)).unwrap();
    let device = lab.device(Arc::new(ArchiveTransport::open(&old).unwrap()));
    assert_eq!(at_once(device.resolve(&release, lab.now)).unwrap_err().code, OlderThanSeen);
    let new = lab.export();
    let device = lab.device(Arc::new(ArchiveTransport::open(&new).unwrap()));
    at_once(device.resolve(&release, lab.now)).unwrap();
}

#[test]
fn any_changed_byte_of_a_blob_is_refused_by_every_reader() {
    let lab = Lab::with_one();
    let path = lab.export();
    let whole = fs::read(&path).unwrap();
    for blob in [&b"shared by all"[..], b"detector@1.0.0"] {
        // A blob begins a block.
        let at = (0..whole.len()).step_by(512).find(|at| whole[*at..].starts_with(blob)).unwrap();
        for offset in 0..blob.len() {
            let mut changed = whole.clone();
            changed[at + offset] ^= 1;
            fs::write(&path, &changed).unwrap();
            assert_eq!(lab.verify(&path).unwrap_err().code, DigestMismatch);
            let into = lab.dir.path().join(format!("into-{at}-{offset}"));
            assert_eq!(extract(&path, &into).unwrap_err().code, DigestMismatch);
            assert!(!into.join("manifest.json").exists(), "a bundle without a manifest is none");
        }
    }
    for name in lab.files().keys().filter(|name| name.starts_with("blobs/")) {
        let before = fs::read(lab.repository().join(name)).unwrap();
        fs::write(lab.repository().join(name), b"x").unwrap();
        let release = "detector@1.0.0".parse().unwrap();
        assert_eq!(
            verify_release(&lab.repository(), &release, None, lab.now).unwrap_err().code,
            SizeMismatch
        );
        let out = lab.dir.path().join("never.bundle");
        assert_eq!(
            export(&lab.repository(), &release, &out, lab.now, &|_| {}).unwrap_err().code,
            SizeMismatch
        );
        assert!(!out.exists());
        fs::write(lab.repository().join(name), before).unwrap();
    }
}

#[test]
fn a_bundle_file_that_ends_too_early_is_refused_wherever_it_ends() {
    let lab = Lab::with_one();
    let path = lab.export();
    let whole = fs::read(&path).unwrap();
    // The last two blocks are the end mark, which carries nothing.
    for length in (0..whole.len() - 1024).step_by(256) {
        fs::write(&path, &whole[..length]).unwrap();
        let code = lab.verify(&path).unwrap_err().code;
        assert!(matches!(code, Malformed | SizeMismatch), "{length}: {code:?}");
    }
}

/// A tar with the given entries: name as written (whatever it is), kind, bytes.
fn tar(path: &Path, entries: &[(&str, tar::EntryType, &[u8])]) {
    let mut bytes = Vec::new();
    for (name, kind, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    fs::write(path, bytes).unwrap();
}

#[test]
fn names_and_kinds_that_do_not_belong_into_a_bundle_file_are_refused() {
    use tar::EntryType;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.bundle");
    let blob = format!("blobs/{}", sha256(b"x"));
    let good =
        [("metadata/timestamp.json", EntryType::Regular, &b"{}"[..]), (&blob, EntryType::Regular, b"x")];
    tar(&path, &good);
    Archive::open(&path).unwrap();
    for name in [
        "../evil",
        "/etc/passwd",
        "blobs/../../evil",
        "metadata/../evil.json",
        "metadata/a/b.json",
        "metadata/..json",
        "manifest.json",
        "blobs/x",
        "./metadata/timestamp.json",
        "targets/a/1.0.0/manifest.json",
        "metadata/",
        "",
    ] {
        tar(&path, &[good[0], (name, EntryType::Regular, b"x")]);
        assert_eq!(Archive::open(&path).unwrap_err().code, Malformed, "{name}");
    }
    for kind in [
        EntryType::Link,
        EntryType::Symlink,
        EntryType::Char,
        EntryType::Block,
        EntryType::Directory,
        EntryType::Fifo,
        EntryType::GNULongName,
        EntryType::GNULongLink,
        EntryType::GNUSparse,
        EntryType::XHeader,
        EntryType::XGlobalHeader,
    ] {
        tar(&path, &[(&blob, kind, b"x"), good[0]]);
        assert_eq!(Archive::open(&path).unwrap_err().code, Malformed, "{kind:?}");
    }
    tar(&path, &[good[1], good[0], good[1]]);
    let reason = Archive::open(&path).unwrap_err();
    assert!(reason.detail.contains("twice"), "{reason}");
    let many: Vec<String> = (0..1025).map(|n| format!("metadata/{n}.root.json")).collect();
    tar(&path, &many.iter().map(|name| (name.as_str(), EntryType::Regular, &b""[..])).collect::<Vec<_>>());
    assert_eq!(Archive::open(&path).unwrap_err().code, Malformed);
    assert_eq!(Archive::open(&dir.path().join("none")).unwrap_err().code, NotFound);
}

#[test]
fn a_size_that_lies_is_refused() {
    let lab = Lab::with_one();
    let path = lab.export();
    let whole = fs::read(&path).unwrap();
    for size in [1u64 << 40, u64::MAX / 2, 1] {
        let mut changed = whole.clone();
        let mut header = tar::Header::from_byte_slice(&whole[..512]).clone();
        header.set_size(size);
        header.set_cksum();
        changed[..512].copy_from_slice(header.as_bytes());
        fs::write(&path, &changed).unwrap();
        let code = lab.verify(&path).unwrap_err().code;
        assert!(matches!(code, Malformed | SizeMismatch), "{size}: {code:?}");
    }
}

#[test]
fn a_bundle_file_without_one_of_its_files_is_refused() {
    let lab = Lab::with_one();
    let path = lab.export();
    let archive = Archive::open(&path).unwrap();
    let files: Files = lab
        .files()
        .into_iter()
        .filter(|(name, _)| archive.size(name).is_some() && name != "metadata/1.root.json")
        .collect();
    for missing in files.keys() {
        let rest = files.iter().filter(|(name, _)| *name != missing);
        let contents =
            rest.map(|(name, bytes)| (name.clone(), crate::bundle::archive::Content::Bytes(bytes.clone())));
        crate::bundle::archive::write(&path, &contents.collect(), &|_| {}).unwrap();
        assert_eq!(lab.verify(&path).unwrap_err().code, Malformed, "{missing}");
    }
}
