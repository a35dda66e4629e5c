//! Files that come as deltas: fewer bytes over the wire, the same bytes on the disk.
//!
//! [`Deltas::bring`] goes before [`stage::fetch`]: where the repository offers a delta that saves bytes, it fetches
//! it, has the file rebuilt in a child (`Host::rebuild`), holds the result against the signed size and digest,
//! and only then gives it the name under which `fetch` looks for it. It never fails: whatever goes wrong is told
//! and counted, and `fetch` brings the whole file. So nothing of a deployment depends on a delta, and the journal
//! knows nothing of it; after a restart in the middle, the delta's download goes on where it stopped.
//!
//! The old file is not hashed before it is used: a rotten one leads to another digest, and then it is looked at,
//! for the log. Encrypted files have no deltas: two encryptions of the same bytes have nothing in common.

use super::Folders;
use super::stage::{self, Device, MANIFEST, OnProgress, Room};
use crate::bundle::delta::offers::{self, MAX_INDEX};
use crate::bundle::layout;
use crate::domain::delta::{self, Method, Offer, Transfer, Wanted};
use crate::domain::manifest::FileEntry;
use crate::domain::{Digest, Reason, ReasonCode};
use crate::sys::blocking::blocking;
use crate::sys::durable::{self, failed};
use crate::trust::Verified;
use crate::trust::transport::{BoxFuture, OnBytes, Transport};
use crate::trust::verified::SignedManifest;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Offers that are tried for one file, so that a repository full of bad ones costs little.
const TRIES: usize = 2;

/// What a child is to put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The file that the device has; none where the delta holds all.
    pub old: Option<PathBuf>,
    /// The delta. Hostile.
    pub delta: PathBuf,
    /// An empty file to write.
    pub out: PathBuf,
    /// Bytes that it must get.
    pub size: u64,
}

/// The deltas of one deployment.
#[derive(Debug, Default)]
pub struct Deltas {
    /// Those that led to nothing.
    refused: BTreeSet<Digest>,
    /// Nothing is expected of them any more.
    given_up: bool,
    saved: u64,
    came: BTreeMap<Method, u32>,
    failed: u32,
}

impl Deltas {
    /// Brings what saves bytes as a delta. `rebuild` does a [`Job`] somewhere safe.
    pub async fn bring<F: Future<Output = Result<(), Reason>>>(
        &mut self,
        folders: &Folders,
        bundle: &Verified<SignedManifest>,
        transport: &dyn Transport,
        device: &Device,
        progress: OnProgress<'_>,
        rebuild: impl Fn(Job) -> F,
    ) {
        let signed = bundle.get();
        if let Err(reason) = self.try_all(folders, signed, transport, device, progress, rebuild).await {
            tracing::warn!(%reason, "{}: no deltas are used", signed.release());
        }
    }

    /// Bytes that [`Deltas::bring`] and the fetch after it move, where every delta that is chosen leads to its file.
    ///
    /// # Errors
    /// Those of the transport.
    pub async fn cost(
        &self,
        folders: &Folders,
        bundle: &Verified<SignedManifest>,
        transport: &dyn Transport,
    ) -> Result<u64, Reason> {
        let signed = bundle.get();
        let found = looked(folders, signed).await?;
        if self.given_up || signed.manifest.encryption.is_some() || found.wanted.is_empty() {
            return Ok(found.missing);
        }
        let offers = match offered(signed, transport).await {
            Err(reason) if reason.code == ReasonCode::Malformed => return Ok(found.missing),
            offers => offers?,
        };
        let saved = found.wanted.iter().filter_map(|wanted| {
            let offer = self.choose(wanted, &offers, &found)?;
            Some(wanted.size - wanted.have - offer.size)
        });
        Ok(found.missing - saved.sum::<u64>())
    }

    /// From now on [`Deltas::cost`] is that of the whole files.
    pub fn give_up(&mut self) {
        self.given_up = true;
    }

    fn choose<'a>(&self, wanted: &Wanted, offers: &'a [Offer], found: &Found) -> Option<&'a Offer> {
        let is_held = |from: &Digest| found.held.contains_key(from);
        delta::choose(wanted, offers, is_held, |name| self.refused.contains(name))
    }

    /// What was moved and saved, with `moved` bytes seen on the wire.
    pub fn transfer(&self, moved: u64) -> Transfer {
        Transfer {
            moved_bytes: moved,
            saved_bytes: self.saved,
            deltas: self.came.clone(),
            failed: self.failed,
        }
    }

    async fn try_all<F: Future<Output = Result<(), Reason>>>(
        &mut self,
        folders: &Folders,
        signed: &SignedManifest,
        transport: &dyn Transport,
        device: &Device,
        progress: OnProgress<'_>,
        rebuild: impl Fn(Job) -> F,
    ) -> Result<(), Reason> {
        let found = looked(folders, signed).await?;
        if signed.manifest.encryption.is_some() || found.wanted.is_empty() {
            return Ok(());
        }
        // Before a byte is asked for; `fetch` tells the reason where it does not fit.
        let room = Room::measure(&folders.models)?;
        if stage::fits(&signed.manifest, found.missing, device, room).is_err() {
            return Ok(());
        }
        if !delta::has_memory(room.memory) {
            let detail = "too little memory is free to put files together";
            return Err(Reason::new(ReasonCode::OutOfMemory, detail));
        }
        let offers = offered(signed, transport).await?;
        let mut done = found.total - found.missing;
        for wanted in &found.wanted {
            for _ in 0..TRIES {
                let Some(offer) = self.choose(wanted, &offers, &found) else { break };
                // The delta lies beside what comes of it.
                let needed = found.missing.saturating_add(offer.size);
                if stage::fits(&signed.manifest, needed, device, Room::measure(&folders.models)?).is_err() {
                    break;
                }
                let file = FileEntry { path: String::new(), size: wanted.size, sha256: wanted.file };
                let old = offer.from.and_then(|from| found.held.get(&from)).cloned();
                let so_far = |bytes: u64| {
                    let share = u128::from(wanted.size) * u128::from(bytes) / u128::from(offer.size.max(1));
                    progress(done + share as u64, found.total);
                };
                let one = One { folders, offer, file: &file, old: old.as_deref() };
                match one.bring(transport, &so_far, &rebuild).await {
                    Ok(()) => {
                        let saved = (wanted.size - wanted.have).saturating_sub(offer.size);
                        tracing::info!(
                            method = offer.method.as_str(),
                            bytes = offer.size,
                            of = wanted.size,
                            "{}: file {} came as a delta",
                            signed.release(),
                            wanted.file.short()
                        );
                        self.saved += saved;
                        *self.came.entry(offer.method).or_default() += 1;
                        done += wanted.size - wanted.have;
                        progress(done, found.total);
                        break;
                    }
                    // Not the delta's fault: the next try goes on with it.
                    Err(reason) if reason.code == ReasonCode::RepositoryUnreachable => return Err(reason),
                    Err(reason) => {
                        let (method, file) = (offer.method.as_str(), wanted.file.short());
                        tracing::warn!(%reason, method, "{}: a delta for file {file} led to nothing", signed.release());
                        self.failed += 1;
                        self.refused.insert(offer.sha256);
                    }
                }
            }
        }
        Ok(())
    }
}

/// What of a bundle is here and what is not.
struct Found {
    /// Files that a delta may bring, one for each content.
    wanted: Vec<Wanted>,
    /// Files of all bundles on this device.
    held: BTreeMap<Digest, PathBuf>,
    /// Bytes of all files.
    total: u64,
    /// Bytes that are still to come.
    missing: u64,
}

/// What the repository offers for a release; nothing where it offers nothing.
async fn offered(signed: &SignedManifest, transport: &dyn Transport) -> Result<Vec<Offer>, Reason> {
    let Some(index) = transport.get(&layout::delta_index(&signed.digest), MAX_INDEX).await? else {
        return Ok(Vec::new());
    };
    let malformed = |error| Reason::new(ReasonCode::Malformed, format!("the list of deltas: {error}"));
    offers::parse(&index).map_err(malformed)
}

async fn looked(folders: &Folders, signed: &SignedManifest) -> Result<Found, Reason> {
    let (folders, signed) = (folders.clone(), signed.clone());
    blocking(move || Ok(look(&folders, &signed))).await
}

fn look(folders: &Folders, signed: &SignedManifest) -> Found {
    let mut found = Found { wanted: Vec::new(), held: BTreeMap::new(), total: 0, missing: 0 };
    if folders.model(&signed.digest).join(MANIFEST).exists() {
        // Whether it is whole, `fetch` finds out; what is damaged comes whole.
        return found;
    }
    found.held = held(folders);
    let files: BTreeMap<Digest, u64> =
        signed.manifest.files.iter().map(|file| (file.sha256, file.size)).collect();
    for (file, size) in files {
        found.total += size;
        let have = fs::metadata(folders.downloads.join(file.to_string())).map_or(0, |meta| meta.len());
        if have >= size || found.held.contains_key(&file) {
            continue;
        }
        found.missing += size - have;
        if size >= delta::LEAST_FILE {
            found.wanted.push(Wanted { file, size, have });
        }
    }
    found
}

/// The files of all bundles on this device by their digests, as their manifests have them.
fn held(folders: &Folders) -> BTreeMap<Digest, PathBuf> {
    let mut held = BTreeMap::new();
    let Ok(entries) = fs::read_dir(&folders.models) else { return held };
    for entry in entries.flatten() {
        let Some(digest) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(manifest) = stage::read_manifest(&entry.path(), &digest) else { continue };
        for file in manifest.files {
            let path = entry.path().join(&file.path);
            // A file behind a link is none of the bundle.
            if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() == file.size) {
                held.insert(file.sha256, path);
            }
        }
    }
    held
}

/// One file that comes as a delta.
struct One<'a> {
    folders: &'a Folders,
    offer: &'a Offer,
    file: &'a FileEntry,
    old: Option<&'a Path>,
}

impl One<'_> {
    async fn bring<F: Future<Output = Result<(), Reason>>>(
        &self,
        transport: &dyn Transport,
        progress: OnBytes<'_>,
        rebuild: &impl Fn(Job) -> F,
    ) -> Result<(), Reason> {
        let offer = self.offer;
        let path = self.folders.downloads.join(offer.sha256.to_string());
        transport.download(&layout::delta(&offer.sha256), offer.size, &path, progress).await?;
        let entry = FileEntry { path: String::new(), size: offer.size, sha256: offer.sha256 };
        let result = match checked(path.clone(), entry, "a delta").await {
            Ok(()) => self.rebuild(&path, rebuild).await,
            Err(reason) => Err(reason),
        };
        durable::remove_file_synced(&path)?;
        result
    }

    async fn rebuild<F: Future<Output = Result<(), Reason>>>(
        &self,
        delta: &Path,
        rebuild: &impl Fn(Job) -> F,
    ) -> Result<(), Reason> {
        let downloads = &self.folders.downloads;
        // Gone with this function, also when it is dropped in the middle, unless it gets its name.
        let out = tempfile::Builder::new()
            .prefix(durable::TEMPORARY)
            .tempfile_in(downloads)
            .map_err(failed("make a file in", downloads))?
            .into_temp_path();
        let job = Job {
            old: self.old.map(Path::to_owned),
            delta: delta.to_owned(),
            out: out.to_path_buf(),
            size: self.file.size,
        };
        rebuild(job).await?;
        if let Err(reason) = checked(out.to_path_buf(), self.file.clone(), "what a delta led to").await {
            return Err(self.blame(reason).await);
        }
        let into = downloads.join(self.file.sha256.to_string());
        let from = out.to_path_buf();
        blocking(move || {
            durable::sync_file(&from)?;
            // What came of the whole file so far is not needed any more; nor is what the server said of it.
            durable::remove_file_synced(&into.with_extension("validator"))?;
            Ok(durable::rename_synced(&from, &into)?)
        })
        .await?;
        // The name that the guard would remove is gone with the rename.
        let _ = out.keep();
        Ok(())
    }

    /// Whose fault it is that something else came of it: the delta's, or that of a disk which has changed the old file.
    async fn blame(&self, reason: Reason) -> Reason {
        let (Some(old), Some(sha256)) = (self.old, self.offer.from) else { return reason };
        let size = fs::metadata(old).map_or(0, |meta| meta.len());
        let entry = FileEntry { path: String::new(), size, sha256 };
        let what = format!("the old file {}", old.display());
        match checked(old.to_owned(), entry, &what).await {
            Ok(()) => reason,
            Err(rotten) => Reason::new(rotten.code, format!("{}; the disk may be failing", rotten.detail)),
        }
    }
}

async fn checked(path: PathBuf, file: FileEntry, what: &str) -> Result<(), Reason> {
    let what = what.to_owned();
    blocking(move || stage::check_file(&path, &file, &what)).await
}

/// A transport that counts what comes over it.
pub struct Counted<'a> {
    inner: &'a dyn Transport,
    bytes: AtomicU64,
}

impl<'a> Counted<'a> {
    /// Over this one.
    pub fn over(inner: &'a dyn Transport) -> Self {
        Self { inner, bytes: AtomicU64::new(0) }
    }

    /// Bytes of files so far; what was there before a download is not among them.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Transport for Counted<'_> {
    fn get<'a>(&'a self, path: &'a str, max: u64) -> BoxFuture<'a, Result<Option<Vec<u8>>, Reason>> {
        Box::pin(async move {
            let got = self.inner.get(path, max).await?;
            self.bytes.fetch_add(got.as_ref().map_or(0, Vec::len) as u64, Ordering::Relaxed);
            Ok(got)
        })
    }

    fn download<'a>(
        &'a self,
        path: &'a str,
        size: u64,
        into: &'a Path,
        progress: OnBytes<'a>,
    ) -> BoxFuture<'a, Result<(), Reason>> {
        Box::pin(async move {
            let last = AtomicU64::new(u64::MAX);
            let count = |bytes: u64| {
                // The first word is of what is there; a download that begins again tells fewer.
                let before = last.swap(bytes, Ordering::Relaxed);
                if before != u64::MAX {
                    self.bytes.fetch_add(bytes.saturating_sub(before), Ordering::Relaxed);
                }
                progress(bytes);
            };
            self.inner.download(path, size, into, &count).await
        })
    }
}
