//! A repository in memory that counts what is asked of it, and what becomes of its bundles on disk.

use super::*;
use crate::domain::deployment::BundleRef;
use crate::trust::transport::{BoxFuture, OnBytes};
use crate::update::slots;
use std::sync::Mutex;
use tempfile::TempDir;

/// Folders of a fresh device.
pub(crate) fn folders() -> (TempDir, Folders) {
    let dir = tempfile::tempdir().unwrap();
    let folders = Folders::prepare(dir.path()).unwrap();
    (dir, folders)
}

/// What one download does instead of succeeding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// Leaves half of the file and fails.
    Half,
    /// Writes other bytes of the right length.
    Tampered,
    /// Fails as a full disk does.
    DiskFull,
    /// Leaves half of the file and never ends.
    Hang,
}

/// Bundles and their files, in memory.
#[derive(Debug, Default)]
pub(crate) struct Repository {
    blobs: BTreeMap<String, Vec<u8>>,
    pub(crate) faults: Mutex<Vec<Fault>>,
    pub(crate) asked: Mutex<Vec<String>>,
}

impl Repository {
    /// Adds a release with a model of its own and labels that all releases share.
    pub(crate) fn add(&mut self, version: &str) -> Verified<SignedManifest> {
        let model = format!("model {version}").repeat(100).into_bytes();
        let labels = b"labels ".repeat(50);
        let mut entries = Vec::new();
        for (path, bytes) in [("model.onnx", model), ("extra/labels.txt", labels)] {
            let digest = Digest::from_bytes(Sha256::digest(&bytes).into());
            entries.push(serde_json::json!({ "path": path, "sha256": digest, "size": bytes.len() }));
            self.blobs.insert(layout::blob(&digest), bytes);
        }
        signed(serde_json::json!({
            "format": 1, "name": "detector", "version": version, "model": "model.onnx",
            "files": entries,
            "inputs": [{ "name": "image", "shape": [1, 3, 4, 4], "type": "f32", "layout": "nchw",
                         "fit": "stretch", "color": "rgb" }],
            "decode": { "kind": "raw" },
        }))
    }

    /// A release that is on the device already.
    pub(crate) fn staged(mut self, folders: &Folders, version: &str) -> BundleRef {
        let bundle = self.add(version);
        for (path, bytes) in &self.blobs {
            fs::write(folders.downloads.join(path.strip_prefix("blobs/").unwrap()), bytes).unwrap();
        }
        stage(folders, &bundle).unwrap();
        slots::open(folders, &bundle.get().digest).unwrap()
    }

    pub(crate) fn asked(&self) -> usize {
        std::mem::take(&mut *self.asked.lock().unwrap()).len()
    }
}

pub(crate) fn signed(manifest: serde_json::Value) -> Verified<SignedManifest> {
    let bytes = serde_json::to_vec(&manifest).unwrap();
    let digest = Digest::from_bytes(Sha256::digest(&bytes).into());
    Verified::for_tests(SignedManifest { manifest: serde_json::from_value(manifest).unwrap(), digest, bytes })
}

impl Transport for Repository {
    fn get<'a>(&'a self, _path: &'a str, _max: u64) -> BoxFuture<'a, Result<Option<Vec<u8>>, Reason>> {
        Box::pin(async { Ok(None) })
    }

    fn download<'a>(
        &'a self,
        path: &'a str,
        size: u64,
        into: &'a Path,
        progress: OnBytes<'a>,
    ) -> BoxFuture<'a, Result<(), Reason>> {
        Box::pin(async move {
            self.asked.lock().unwrap().push(path.to_owned());
            let mut bytes = self.blobs[path].clone();
            assert_eq!(bytes.len() as u64, size);
            let have = size_of(into) as usize;
            let fault = self.faults.lock().unwrap().pop();
            match fault {
                None => {}
                Some(Fault::Half) => {
                    fs::write(into, &bytes[..bytes.len() / 2]).unwrap();
                    return Err(Reason::new(ReasonCode::RepositoryUnreachable, "cut"));
                }
                Some(Fault::Hang) => {
                    fs::write(into, &bytes[..bytes.len() / 2]).unwrap();
                    std::future::pending::<()>().await;
                }
                Some(Fault::Tampered) => bytes[0] ^= 1,
                Some(Fault::DiskFull) => {
                    fs::write(into, &bytes[..1]).unwrap();
                    return Err(failed("write", into)(io::ErrorKind::StorageFull.into()).into());
                }
            }
            // As a download that goes on does: what is there already is kept.
            let mut whole = fs::read(into).unwrap_or_default();
            whole.extend_from_slice(&bytes[have..]);
            fs::write(into, whole).unwrap();
            progress(size);
            Ok(())
        })
    }
}

pub(crate) fn device() -> Device {
    Device {
        providers: vec![Provider::Cpu],
        max_bundle: 1 << 20,
        disk_reserve: 0,
        agent: semver::Version::new(1, 2, 0),
    }
}

async fn fetch_it(
    folders: &Folders,
    bundle: &Verified<SignedManifest>,
    repository: &Repository,
) -> Result<(), Reason> {
    fetch(folders, bundle, repository, &device(), &|_, _| {}).await
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_bundle_comes_whole_and_again_costs_nothing() {
    let (_dir, folders) = folders();
    let mut repository = Repository::default();
    let bundle = repository.add("1.0.0");
    let seen = Mutex::new(Vec::new());
    let progress = |done, total| seen.lock().unwrap().push((done, total));
    fetch(&folders, &bundle, &repository, &device(), &progress).await.unwrap();
    let seen = seen.into_inner().unwrap();
    assert!(seen.windows(2).all(|pair| pair[0].0 <= pair[1].0), "{seen:?}");
    assert_eq!(seen.last().unwrap().0, bundle.get().manifest.total_size());
    stage(&folders, &bundle).unwrap();
    let dir = folders.model(&bundle.get().digest);
    assert_eq!(names(&dir), ["extra", "manifest.json", "model.onnx"]);
    assert_eq!(fs::read(dir.join(MANIFEST)).unwrap(), bundle.get().bytes);
    assert_eq!((names(&folders.downloads).len(), names(&folders.models).len()), (0, 1));
    assert_eq!(repository.asked(), 2);
    fetch_it(&folders, &bundle, &repository).await.unwrap();
    stage(&folders, &bundle).unwrap();
    assert_eq!(repository.asked(), 0);
}

#[tokio::test]
async fn a_file_that_another_bundle_has_is_not_fetched_again() {
    let (_dir, folders) = folders();
    Repository::default().staged(&folders, "1.0.0");
    let mut repository = Repository::default();
    let bundle = repository.add("2.0.0");
    fetch_it(&folders, &bundle, &repository).await.unwrap();
    stage(&folders, &bundle).unwrap();
    assert_eq!(repository.asked(), 1, "only the model differs");
    check_folder(&folders.model(&bundle.get().digest), bundle.get()).unwrap();
}

#[tokio::test]
async fn a_damaged_file_of_another_bundle_is_fetched_and_not_shared() {
    let (_dir, folders) = folders();
    let old = Repository::default().staged(&folders, "1.0.0");
    let labels = folders.model(&old.digest).join("extra/labels.txt");
    let mut bytes = fs::read(&labels).unwrap();
    bytes[5] ^= 1;
    fs::write(&labels, &bytes).unwrap();
    let mut repository = Repository::default();
    let bundle = repository.add("2.0.0");
    fetch_it(&folders, &bundle, &repository).await.unwrap();
    stage(&folders, &bundle).unwrap();
    assert_eq!(repository.asked(), 2);
    check_folder(&folders.model(&bundle.get().digest), bundle.get()).unwrap();
    assert_eq!(fs::read(&labels).unwrap(), bytes, "the other bundle's file was left alone");
}

#[tokio::test]
async fn a_fetch_goes_on_where_a_restart_cut_it() {
    let (_dir, folders) = folders();
    let mut repository = Repository::default();
    let bundle = repository.add("1.0.0");
    *repository.faults.lock().unwrap() = vec![Fault::Half];
    let reason = fetch_it(&folders, &bundle, &repository).await.unwrap_err();
    assert_eq!(reason.code, ReasonCode::RepositoryUnreachable);
    assert_eq!(names(&folders.downloads).len(), 1, "the half is kept");
    fetch_it(&folders, &bundle, &repository).await.unwrap();
    stage(&folders, &bundle).unwrap();
}

#[tokio::test]
async fn tampered_bytes_are_refused_and_not_kept() {
    let (_dir, folders) = folders();
    let mut repository = Repository::default();
    let bundle = repository.add("1.0.0");
    *repository.faults.lock().unwrap() = vec![Fault::Tampered];
    let reason = fetch_it(&folders, &bundle, &repository).await.unwrap_err();
    assert_eq!(reason.code, ReasonCode::DigestMismatch);
    assert!(reason.detail.starts_with("bundle detector@1.0.0: file "), "{reason}");
    assert!(names(&folders.downloads).is_empty() && names(&folders.models).is_empty());
    assert_eq!(repository.asked(), 1, "a lie is not asked for again");
}

#[tokio::test]
async fn a_bad_first_part_is_fetched_anew_once() {
    let (_dir, folders) = folders();
    let mut repository = Repository::default();
    let bundle = repository.add("1.0.0");
    let file = &bundle.get().manifest.files[0];
    fs::write(download(&folders, &file.sha256), b"not the first part").unwrap();
    fetch_it(&folders, &bundle, &repository).await.unwrap();
    assert_eq!(repository.asked(), 3);
    stage(&folders, &bundle).unwrap();
}

#[tokio::test]
async fn a_full_disk_leaves_no_part_behind() {
    let (_dir, folders) = folders();
    let mut repository = Repository::default();
    let bundle = repository.add("1.0.0");
    *repository.faults.lock().unwrap() = vec![Fault::DiskFull];
    let reason = fetch_it(&folders, &bundle, &repository).await.unwrap_err();
    assert_eq!(reason.code, ReasonCode::DiskFull);
    assert!(names(&folders.downloads).is_empty());
}

#[tokio::test]
async fn bytes_that_changed_between_fetch_and_stage_are_refused() {
    let (_dir, folders) = folders();
    let mut repository = Repository::default();
    let bundle = repository.add("1.0.0");
    fetch_it(&folders, &bundle, &repository).await.unwrap();
    let file = download(&folders, &bundle.get().manifest.files[0].sha256);
    let mut bytes = fs::read(&file).unwrap();
    bytes[3] ^= 1;
    fs::write(&file, bytes).unwrap();
    assert_eq!(stage(&folders, &bundle).unwrap_err().code, ReasonCode::DigestMismatch);
    assert!(names(&folders.models).is_empty() && !file.exists());
}

#[tokio::test]
async fn a_damaged_bundle_in_its_place_is_replaced() {
    let (_dir, folders) = folders();
    let mut repository = Repository::default();
    let bundle = repository.add("1.0.0");
    Repository::default().staged(&folders, "1.0.0");
    let dir = folders.model(&bundle.get().digest);
    fs::write(dir.join("model.onnx"), b"damaged").unwrap();
    fetch_it(&folders, &bundle, &repository).await.unwrap();
    stage(&folders, &bundle).unwrap();
    check_folder(&dir, bundle.get()).unwrap();
}

#[test]
fn paths_that_leave_the_folder_are_refused() {
    let (dir, folders) = folders();
    for path in ["../out", "/etc/out", "a/../../out", "", "manifest.json"] {
        let bytes = b"x";
        let digest = Digest::from_bytes(Sha256::digest(bytes).into());
        fs::write(download(&folders, &digest), bytes).unwrap();
        let bundle = signed(serde_json::json!({
            "format": 1, "name": "detector", "version": "1.0.0", "model": "model.onnx",
            "files": [{ "path": path, "sha256": digest, "size": 1 }], "inputs": [], "decode": { "kind": "raw" },
        }));
        assert_eq!(stage(&folders, &bundle).unwrap_err().code, ReasonCode::Malformed, "{path:?}");
        assert!(names(&folders.models).is_empty() && !dir.path().join("out").exists());
    }
}

#[test]
fn what_does_not_fit_is_refused_before_a_byte_is_fetched() {
    let room = Room { disk: 1 << 30, memory: Some(512 << 20) };
    let check = |needs: serde_json::Value, missing, device: &Device, room| {
        let manifest: Manifest = serde_json::from_value(serde_json::json!({
            "format": 1, "name": "detector", "version": "1.0.0", "model": "m", "files": [
                { "path": "m", "sha256": "00".repeat(32), "size": 1000 }
            ], "inputs": [], "decode": { "kind": "raw" }, "needs": needs,
        }))
        .unwrap();
        fits(&manifest, missing, device, room).map_err(|reason| reason.code)
    };
    let nothing = serde_json::json!({});
    let device = device();
    assert_eq!(check(nothing.clone(), 1000, &device, room), Ok(()));
    assert_eq!(
        check(serde_json::json!({ "agent": "^1.1", "providers": ["cuda", "cpu"] }), 0, &device, room),
        Ok(())
    );
    for needs in [
        serde_json::json!({ "agent": ">=2" }),
        serde_json::json!({ "providers": ["cuda"] }),
        serde_json::json!({ "memory_mb": 513 }),
    ] {
        assert_eq!(check(needs.clone(), 0, &device, room), Err(ReasonCode::Unsupported), "{needs}");
    }
    let small = Device { max_bundle: 999, ..device.clone() };
    assert_eq!(check(nothing.clone(), 0, &small, room), Err(ReasonCode::Unsupported));
    let careful = Device { disk_reserve: (1 << 30) - 999, ..device };
    assert_eq!(check(nothing.clone(), 1000, &careful, room), Err(ReasonCode::DiskFull));
    assert_eq!(check(nothing.clone(), 999, &careful, room), Err(ReasonCode::DiskFull), "and its graph");
    let just = Device { disk_reserve: (1 << 30) - 1999, ..careful };
    assert_eq!(check(nothing.clone(), 999, &just, room), Ok(()));
    assert_eq!(check(nothing, 0, &Device { disk_reserve: 1 << 30, ..just }, room), Ok(()), "it is here");
}

#[tokio::test]
async fn what_is_missing_is_what_a_fetch_would_move() {
    let (_dir, folders) = folders();
    let mut repository = Repository::default();
    let bundle = repository.add("1.0.0");
    assert_eq!(missing(&folders, &bundle), bundle.get().manifest.total_size());
    fetch_it(&folders, &bundle, &repository).await.unwrap();
    assert_eq!(missing(&folders, &bundle), 0);
    stage(&folders, &bundle).unwrap();
    assert_eq!(missing(&folders, &bundle), 0, "it is in its place");
}

#[test]
fn a_quota_is_a_full_disk() {
    let quota = io::Error::from_raw_os_error(rustix::io::Errno::DQUOT.raw_os_error());
    let reason = Reason::from(failed("write", Path::new("/var/lib/x"))(quota));
    assert_eq!(reason.code, ReasonCode::DiskFull);
    assert!(reason.detail.contains("/var/lib/x") && reason.detail.contains("free some space"), "{reason}");
}

#[test]
fn the_machine_tells_its_room() {
    let room = Room::measure(Path::new("/tmp")).unwrap();
    assert!(room.disk > 0 && room.memory.is_some_and(|bytes| bytes > 0), "{room:?}");
}
