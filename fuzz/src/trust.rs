//! TUF metadata and the `.bundle` file.

use edgewarden::bundle::archive::{Archive, copy_blob};
use edgewarden::bundle::{MAX_MANIFEST, layout, parse_manifest};
use edgewarden::domain::Reason;
use edgewarden::trust::keys::Key;
use edgewarden::trust::transport::{BoxFuture, OnBytes, Transport};
use edgewarden::trust::tuf::{MAX_DELEGATIONS, MAX_ROOT_ROTATIONS, canonical};
use edgewarden::trust::{RepositoryClient, pin};
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::{Value, json};
use std::fs::File;
use std::future::Future;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

/// A root that a person pins.
pub fn root_metadata(data: &[u8]) {
    let _ = pin::examine(data, "root.json");
}

/// What stands between the files of a repository in one input.
const BETWEEN: &[u8] = b"\n%%\n";

/// Timestamp, snapshot, targets, manifest, next root and a delegated role, in this order. What is JSON is
/// signed with the key that the pinned root lists, so that the checks behind the signature are reached;
/// the rest is served as it is.
pub fn repository(data: &[u8]) {
    let mut files = Vec::new();
    let mut rest = data;
    while files.len() < 6 {
        let end = rest.windows(BETWEEN.len()).position(|window| window == BETWEEN);
        let (file, after) = match end {
            Some(end) => (&rest[..end], &rest[end + BETWEEN.len()..]),
            None => (rest, &[][..]),
        };
        files.push(signed(file));
        rest = after;
    }
    let served = Arc::new(Served { files, asked: AtomicU32::new(0) });
    let client = RepositoryClient::forgetful(served.clone(), pinned().to_vec());
    let now = "2026-06-01T12:00:00Z".parse().expect("a time");
    let _ = at_once(client.list(now));
    let release = "detector@1.0.0".parse().expect("a release");
    if let Ok(verified) = at_once(client.resolve(&release, now)) {
        assert_eq!(verified.get().release(), release);
    }
    // Two refreshes, each a chain of roots, three roles, delegations and a manifest.
    let most = 2 * (MAX_ROOT_ROTATIONS + MAX_DELEGATIONS + 8);
    assert!(served.asked.load(Ordering::Relaxed) <= most, "the repository keeps the client busy");
}

fn key() -> &'static Key {
    static KEY: OnceLock<Key> = OnceLock::new();
    KEY.get_or_init(|| Key::from_seed(&[7; 32]).expect("a key"))
}

/// A root that gives every role to the one key.
fn pinned() -> &'static [u8] {
    static ROOT: OnceLock<Vec<u8>> = OnceLock::new();
    ROOT.get_or_init(|| {
        let role = json!({ "keyids": [key().id()], "threshold": 1 });
        let payload = json!({
            "_type": "root", "spec_version": "1.0.31", "version": 1, "expires": "2030-01-01T00:00:00Z",
            "consistent_snapshot": true, "keys": { key().id(): key().public() },
            "roles": { "root": role, "targets": role, "snapshot": role, "timestamp": role },
        });
        signed(payload.to_string().as_bytes())
    })
}

fn signed(file: &[u8]) -> Vec<u8> {
    let payload = serde_json::from_slice::<Value>(file).unwrap_or_default();
    // A manifest is no metadata, and is not signed itself.
    let Some(bytes) = payload.get("_type").and_then(|_| canonical(&payload).ok()) else {
        return file.to_vec();
    };
    let signature = json!({ "keyid": key().id(), "sig": key().sign(&bytes) });
    json!({ "signatures": [signature], "signed": payload }).to_string().into_bytes()
}

struct Served {
    files: Vec<Vec<u8>>,
    asked: AtomicU32,
}

impl Transport for Served {
    fn get<'a>(&'a self, path: &'a str, _max: u64) -> BoxFuture<'a, Result<Option<Vec<u8>>, Reason>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let number = match path.rsplit('/').next().unwrap_or_default() {
            _ if path.starts_with("targets/") => 3,
            name if name.ends_with("timestamp.json") => 0,
            name if name.ends_with("snapshot.json") => 1,
            name if name.ends_with(".targets.json") => 2,
            name if name.ends_with("root.json") => 4,
            _ => 5,
        };
        // Whoever runs the repository keeps to no limit.
        let file = self.files[number].clone();
        Box::pin(async move { Ok((!file.is_empty()).then_some(file)) })
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

/// The value of a future that waits for nothing from outside.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..1000 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
    panic!("it waits for something");
}

/// A `.bundle` file: its table of contents, its manifest, and its blobs as far as the manifest lists them.
pub fn archive(data: &[u8]) {
    let file = memfd_create("archive", MemfdFlags::CLOEXEC).expect("a file in memory");
    let mut file = File::from(file);
    file.write_all(data).expect("write to memory");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let Ok(archive) = Archive::open(Path::new(&path)) else { return };
    let Ok((release, digest)) = archive.claimed_release() else { return };
    let name = layout::manifest(&release, &digest);
    let Ok(Some(bytes)) = archive.read(&name, MAX_MANIFEST) else { return };
    assert_eq!(archive.size(&name), Some(bytes.len() as u64));
    let Ok(manifest) = parse_manifest(&bytes) else { return };
    for file in &manifest.files {
        let mut copied = Vec::new();
        let copy = copy_blob(&archive, &file.path, &file.sha256, file.size, &mut copied, &|_| {});
        assert!(copied.len() <= data.len());
        assert!(copy.is_err() || copied.len() as u64 == file.size);
    }
}
