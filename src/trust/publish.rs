//! Making a repository: files first, metadata last, `timestamp.json` very last.
//!
//! Until the new `timestamp.json` has its name, every client sees the old repository, whole; nothing
//! that it refers to is ever changed or removed. So a publish may be interrupted anywhere and run
//! again. What would be published goes through our own client before that last step.
//!
//! The key folder belongs to one repository and must not lie inside it:
//!
//! ```text
//! KEYS/signing.pem   the private key (more may be there; all that a role lists are used)
//! KEYS/root.json     the root that this publisher pins, as devices do
//! KEYS/seen/         what it has seen, so that it never builds on an older copy of the repository
//! KEYS/lock          held while a publisher is at work
//! ```

use super::folder::FolderTransport;
use super::keys::{self, Key};
use super::roles::{self, Expiry};
use super::transport::{BoxFuture, OnBytes, Transport};
use super::tuf::{Payloads, RepositoryClient};
use crate::bundle::checked::{self, NewFile};
use crate::bundle::{self, layout};
use crate::domain::{Digest, Manifest, Reason, ReasonCode, Release};
use crate::sys::durable::{self, failed};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod operators;

/// How a repository is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InitOptions {
    /// How long signatures are good; kept in the root.
    pub expiry: Expiry,
}

/// What a publish did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Published {
    /// Name and version.
    pub release: Release,
    /// SHA-256 of its manifest.
    pub digest: Digest,
    /// False where exactly this was published before: nothing was changed but missing files.
    pub fresh: bool,
    /// Files that the repository did not have yet.
    pub new_files: usize,
    /// Their bytes.
    pub new_bytes: u64,
    /// Bytes of all files.
    pub total_bytes: u64,
}

/// What a refresh signed again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Resigned {
    /// The role.
    pub role: &'static str,
    /// Its new version.
    pub version: u64,
    /// Its new expiry.
    pub expires: Timestamp,
}

/// Adds releases to a repository in a folder. One at a time works on a key folder.
#[derive(Debug)]
pub struct Publisher {
    repository: PathBuf,
    key_folder: PathBuf,
    keys: Vec<Key>,
    pinned_root: Vec<u8>,
    /// Locked while this value lives.
    _lock: File,
}

impl Publisher {
    /// Begins a repository in the folder `repository`, with the keys of `key_folder`, or a new one where
    /// it has none. Errors: `BadRequest` where there is a repository already, where the key folder is
    /// another repository's or inside this one; `Busy`; `DiskFull`; `Internal`.
    pub fn init(
        repository: &Path,
        key_folder: &Path,
        options: InitOptions,
        now: Timestamp,
    ) -> Result<Self, Reason> {
        let refuse = |detail: String| Err(Reason::new(ReasonCode::BadRequest, detail));
        options.expiry.check()?;
        let first_root = repository.join(layout::metadata("1.root.json"));
        if first_root.exists() {
            return refuse(format!(
                "repository {}: exists already; go on with `edgewarden repo publish`",
                repository.display()
            ));
        }
        durable::create_dir_synced(repository)?;
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(key_folder).map_err(failed("make folder", key_folder))?;
        if real(key_folder)?.starts_with(real(repository)?) {
            let keys = key_folder.display();
            return refuse(format!(
                "key folder {keys}: inside the repository, where all the world could read it; name another with --keys"
            ));
        }
        let lock = lock(key_folder)?;
        if key_folder.join("seen").exists() {
            let keys = key_folder.display();
            return refuse(format!(
                "key folder {keys}: belongs to another repository; name another with --keys"
            ));
        }
        if keys::files(key_folder)?.is_empty() {
            Key::generate()?.save(&key_folder.join("signing.pem"))?;
        }
        let keys = keys::load_all(key_folder)?;
        for folder in [layout::METADATA, layout::TARGETS, layout::BLOBS] {
            durable::create_dir_synced(&repository.join(folder))?;
        }
        let root = roles::first_root(&keys, &options.expiry, now)?;
        let mut payloads = Payloads {
            root: root.clone(),
            timestamp: roles::first("timestamp", "meta"),
            snapshot: roles::first("snapshot", "meta"),
            targets: roles::first("targets", "targets"),
        };
        let pinned_root = roles::sign("root", &root, &root, &keys)?;
        let mut files = next_metadata(&mut payloads, &keys, true, now)?;
        let timestamp = files.pop();
        for (name, bytes) in files.iter().chain(&timestamp) {
            durable::write_atomic(&repository.join(name), bytes)?;
        }
        // The repository's first root is the mark that all the rest is there; see the refusal above.
        durable::write_atomic(&key_folder.join("root.json"), &pinned_root)?;
        durable::write_atomic(&first_root, &pinned_root)?;
        let (repository, key_folder) = (repository.to_owned(), key_folder.to_owned());
        let publisher = Self { repository, key_folder, keys, pinned_root, _lock: lock };
        publisher.payloads()?;
        Ok(publisher)
    }

    /// Opens a repository that [`Publisher::init`] began. Errors: `BadRequest` where the key folder has
    /// no keys or no `root.json`; `Busy` where another publisher is at work.
    pub fn open(repository: &Path, key_folder: &Path) -> Result<Self, Reason> {
        if !repository.join(layout::METADATA).is_dir() {
            let detail = format!(
                "repository {}: there is none; begin one with `edgewarden repo init`",
                repository.display()
            );
            return Err(Reason::new(ReasonCode::BadRequest, detail));
        }
        let root = key_folder.join("root.json");
        let Ok(pinned_root) = fs::read(&root) else {
            let detail = format!(
                "key folder {}: no root.json; name the folder that `repo init` made with --keys",
                key_folder.display()
            );
            return Err(Reason::new(ReasonCode::BadRequest, detail));
        };
        let lock = lock(key_folder)?;
        let keys = keys::load_all(key_folder)?;
        let (repository, key_folder) = (repository.to_owned(), key_folder.to_owned());
        Ok(Self { repository, key_folder, keys, pinned_root, _lock: lock })
    }

    /// The `root.json` that devices of this repository pin.
    pub fn pinned_root(&self) -> PathBuf {
        self.repository.join(layout::metadata("1.root.json"))
    }

    /// Adds the bundle in the folder `bundle_dir`. The same bundle again is no error and changes nothing.
    /// `progress` hears the bytes of all its files done so far.
    ///
    /// Errors: `BadRequest` where the version is there with another content, or keys are missing; those
    /// of [`RepositoryClient::resolve`] where the repository was tampered with or the result would not
    /// be accepted; those of opening a bundle; `DiskFull`; `Internal`.
    pub fn publish(
        &mut self,
        bundle_dir: &Path,
        now: Timestamp,
        progress: OnBytes<'_>,
    ) -> Result<Published, Reason> {
        let open = bundle::open(bundle_dir, None)?;
        let path = open.dir.join(bundle::MANIFEST);
        let bytes = fs::read(&path).map_err(failed("read", &path))?;
        let release = open.manifest.release();
        let mut payloads = self.payloads()?;
        let target = layout::target(&release);
        let listed = payloads.targets["targets"].get(&target).and_then(|old| old.pointer("/hashes/sha256"));
        let fresh = match listed.and_then(|digest| digest.as_str()) {
            None => true,
            Some(digest) if digest == open.digest.to_string() => false,
            Some(_) => {
                let detail = format!(
                    "release {release}: published already with another content; give the bundle a new version"
                );
                return Err(Reason::new(ReasonCode::BadRequest, detail));
            }
        };
        let (new_files, new_bytes) = self.place_blobs(&open.dir, &open.manifest, progress)?;
        let place = self.repository.join(layout::manifest(&release, &open.digest));
        durable::create_dir_synced(place.parent().unwrap_or(&self.repository))?;
        let mut file = NewFile::in_dir(place.parent().unwrap_or(&self.repository))?;
        let size = bytes.len() as u64;
        let what = path.display().to_string();
        checked::copy(&what, &mut bytes.as_slice(), &open.digest, size, file.file(), &|_| {})?;
        file.keep_as(&place)?;
        if fresh {
            payloads.targets["targets"][&target] =
                json!({ "length": size, "hashes": { "sha256": open.digest } });
            self.commit(payloads, true, Some(&release), now)?;
        }
        let total_bytes = open.manifest.total_size();
        Ok(Published { release, digest: open.digest, fresh, new_files, new_bytes, total_bytes })
    }

    /// Signs again what expires first: timestamp and snapshot, and the list and the root where less
    /// than half of their time is left. Errors: as [`Publisher::publish`].
    pub fn refresh(&mut self, now: Timestamp) -> Result<Vec<Resigned>, Reason> {
        let payloads = self.payloads()?;
        let days = Expiry::of_root(&payloads.root);
        let targets = roles::is_half_over(&payloads.targets, days.targets, now);
        let before: Vec<u64> = payloads.all().iter().map(|(_, payload)| roles::version(payload)).collect();
        let after = self.commit(payloads, targets, None, now)?;
        let roles = after.all().into_iter().zip(before);
        Ok(roles
            .filter(|((_, payload), before)| roles::version(payload) != *before)
            .map(|((role, payload), _)| Resigned {
                role,
                version: roles::version(payload),
                expires: roles::expiry_of(payload).unwrap_or(now),
            })
            .collect())
    }

    /// The repository's verified state. Expiry is not judged: an expired repository is to be mended here.
    fn payloads(&self) -> Result<Payloads, Reason> {
        let transport = Arc::new(FolderTransport::new(&self.repository));
        let client = RepositoryClient::new(transport, self.pinned_root.clone(), self.key_folder.join("seen"));
        at_once(client.payloads(Timestamp::MIN))
    }

    /// Copies what `blobs/` lacks, each file checked; tells how many and how many bytes.
    fn place_blobs(
        &self,
        dir: &Path,
        manifest: &Manifest,
        progress: OnBytes<'_>,
    ) -> Result<(usize, u64), Reason> {
        let (mut seen, mut done, mut new_files, mut new_bytes) = (BTreeSet::new(), 0, 0, 0);
        for entry in &manifest.files {
            let place = self.repository.join(layout::blob(&entry.sha256));
            if seen.insert(entry.sha256) && !is_whole(&place, &entry.sha256, entry.size) {
                let source = dir.join(&entry.path);
                let mut reader = File::open(&source).map_err(failed("open", &source))?;
                let mut file = NewFile::in_dir(&self.repository.join(layout::BLOBS))?;
                let what = source.display().to_string();
                let told = |bytes| progress(done + bytes);
                checked::copy(&what, &mut reader, &entry.sha256, entry.size, file.file(), &told)?;
                file.keep_as(&place)?;
                new_files += 1;
                new_bytes += entry.size;
            }
            done += entry.size;
            progress(done);
        }
        Ok((new_files, new_bytes))
    }

    /// Signs the next version of the metadata, lets our own client check it together with what lies in
    /// the folder, and only then writes it, the timestamp last.
    fn commit(
        &self,
        mut payloads: Payloads,
        targets: bool,
        release: Option<&Release>,
        now: Timestamp,
    ) -> Result<Payloads, Reason> {
        let files = next_metadata(&mut payloads, &self.keys, targets, now)?;
        let overlay = Overlay {
            folder: FolderTransport::new(&self.repository),
            files: files.iter().cloned().collect(),
        };
        let client = RepositoryClient::forgetful(Arc::new(overlay), self.pinned_root.clone());
        match release {
            Some(release) => drop(at_once(client.resolve(release, now))?),
            None => drop(at_once(client.list(now))?),
        }
        for (name, bytes) in &files {
            durable::write_atomic(&self.repository.join(name), bytes)?;
        }
        self.payloads()
    }
}

/// The next metadata files in the order in which they are to be written. `payloads` are brought up to
/// date; the root only where less than half of its time is left.
fn next_metadata(
    payloads: &mut Payloads,
    keys: &[Key],
    targets: bool,
    now: Timestamp,
) -> Result<Vec<(String, Vec<u8>)>, Reason> {
    let days = Expiry::of_root(&payloads.root);
    let mut files = Vec::new();
    let root = &mut payloads.root;
    if roles::is_half_over(root, days.root, now) {
        roles::renew(root, days.root, now)?;
        files.push((
            layout::metadata(&format!("{}.root.json", roles::version(root))),
            roles::sign("root", root, root, keys)?,
        ));
    }
    if targets {
        roles::renew(&mut payloads.targets, days.targets, now)?;
        let (version, bytes) =
            (roles::version(&payloads.targets), roles::sign("targets", &payloads.targets, root, keys)?);
        payloads.snapshot["meta"]["targets.json"] = roles::pin(version, &bytes);
        files.push((layout::metadata(&format!("{version}.targets.json")), bytes));
    }
    roles::renew(&mut payloads.snapshot, days.snapshot, now)?;
    let (version, bytes) =
        (roles::version(&payloads.snapshot), roles::sign("snapshot", &payloads.snapshot, root, keys)?);
    payloads.timestamp["meta"]["snapshot.json"] = roles::pin(version, &bytes);
    files.push((layout::metadata(&format!("{version}.snapshot.json")), bytes));
    roles::renew(&mut payloads.timestamp, days.timestamp, now)?;
    files.push((
        layout::metadata("timestamp.json"),
        roles::sign("timestamp", &payloads.timestamp, root, keys)?,
    ));
    Ok(files)
}

/// True where the file is there with this content; a damaged one is replaced.
fn is_whole(path: &Path, digest: &Digest, size: u64) -> bool {
    let Ok(mut file) = File::open(path) else { return false };
    checked::copy("", &mut file, digest, size, &mut std::io::sink(), &|_| {}).is_ok()
}

/// The path without links, so that two can be compared.
fn real(path: &Path) -> Result<PathBuf, Reason> {
    Ok(path.canonicalize().map_err(failed("look at", path))?)
}

/// Takes the key folder for this publisher, until the file is dropped.
fn lock(key_folder: &Path) -> Result<File, Reason> {
    let path = key_folder.join("lock");
    let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let mut file = opened.map_err(failed("open", &path))?;
    if file.try_lock().is_err() {
        let detail =
            format!("key folder {}: another publisher is at work; wait for it", key_folder.display());
        return Err(Reason::new(ReasonCode::Busy, detail));
    }
    // For a person who wonders who it is.
    let _ = file.set_len(0).and_then(|()| file.write_all(std::process::id().to_string().as_bytes()));
    Ok(file)
}

/// A folder with files that are not there yet.
struct Overlay {
    folder: FolderTransport,
    files: BTreeMap<String, Vec<u8>>,
}

impl Transport for Overlay {
    fn get<'a>(&'a self, path: &'a str, max: u64) -> BoxFuture<'a, Result<Option<Vec<u8>>, Reason>> {
        match self.files.get(path) {
            Some(bytes) => Box::pin(async { Ok(Some(bytes.clone())) }),
            None => self.folder.get(path, max),
        }
    }

    fn download<'a>(
        &'a self,
        path: &'a str,
        size: u64,
        into: &'a Path,
        progress: OnBytes<'a>,
    ) -> BoxFuture<'a, Result<(), Reason>> {
        self.folder.download(path, size, into, progress)
    }
}

/// The value of a future over a folder, which never waits for anything; so it needs no runtime and may
/// be asked for inside one.
pub(super) fn at_once<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        std::thread::yield_now();
    }
}
