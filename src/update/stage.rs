//! From a verified manifest to a folder that holds exactly what was signed.
//!
//! [`fetch`] looks whether the bundle fits this device before a byte is moved, and brings each file
//! into `downloads/<sha256>`; a file that some other bundle of this device has already is linked
//! instead. [`stage`] builds the folder under a temporary name from files whose digest it has just
//! computed, syncs all of it, and renames it to `models/<digest>`: that name never stands for a bundle
//! that is not whole. Both may be repeated, also after a restart in the middle.

use super::Folders;
use crate::bundle::{checked, layout, parse_manifest};
use crate::domain::manifest::{FileEntry, Manifest, Provider};
use crate::domain::{Digest, Reason, ReasonCode};
use crate::sys::blocking::blocking;
use crate::sys::durable::{self, failed};
use crate::trust::Verified;
use crate::trust::transport::Transport;
use crate::trust::verified::SignedManifest;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

/// The manifest's name in a bundle's folder.
pub const MANIFEST: &str = "manifest.json";

/// Longest manifest that is read from the disk, bytes.
const MAX_MANIFEST: u64 = 16 << 20;

/// Called with the bytes done and the bytes in all.
pub type OnProgress<'a> = &'a (dyn Fn(u64, u64) + Send + Sync);

/// What this device offers to a bundle.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// Execution providers that are configured.
    pub providers: Vec<Provider>,
    /// Largest bundle accepted, bytes.
    pub max_bundle: u64,
    /// Bytes of disk that an update leaves free.
    pub disk_reserve: u64,
    /// Version of this agent.
    pub agent: semver::Version,
}

/// What the machine has at this moment, bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Room {
    /// On the disk, for this user.
    pub disk: u64,
    /// Memory that can be had without swapping, where the system tells.
    pub memory: Option<u64>,
}

impl Room {
    /// Asks the system about the disk that holds `folder` and about the memory.
    pub fn measure(folder: &Path) -> Result<Self, Reason> {
        Ok(Self { disk: durable::free_bytes(folder)?, memory: procfs_memory() })
    }
}

/// `MemAvailable` of `/proc/meminfo`, bytes.
fn procfs_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Does the bundle fit, with `missing` bytes still to be fetched? What only the runtime can tell (opset,
/// IR version, whether a provider really loads) is left to the trial.
pub fn fits(manifest: &Manifest, missing: u64, device: &Device, room: Room) -> Result<(), Reason> {
    let name = format!("bundle {}", manifest.release());
    let unsupported = |detail: String| Err(Reason::new(ReasonCode::Unsupported, format!("{name}: {detail}")));
    let needs = &manifest.needs;
    if let Some(range) = &needs.agent
        && !range.matches(&device.agent)
    {
        return unsupported(format!("needs agent {range}, this is {}; update the agent first", device.agent));
    }
    if !needs.providers.is_empty() && !needs.providers.iter().any(|one| device.providers.contains(one)) {
        let names = |list: &[Provider]| list.iter().map(|one| one.as_str()).collect::<Vec<_>>().join(", ");
        let (wanted, offered) = (names(&needs.providers), names(&device.providers));
        return unsupported(format!("needs one of the providers {wanted}; runtime.providers has {offered}"));
    }
    if manifest.total_size() > device.max_bundle {
        let (size, max) = (manifest.total_size(), device.max_bundle);
        return unsupported(format!("has {size} bytes, update.max_bundle allows {max}"));
    }
    if let (Some(megabytes), Some(available)) = (needs.memory_mb, room.memory)
        && megabytes.saturating_mul(1 << 20) > available
    {
        let have = available >> 20;
        return unsupported(format!(
            "needs {megabytes} MiB of memory beside the model that serves, {have} MiB are free"
        ));
    }
    let write = missing.saturating_add(if missing > 0 { graph(manifest) } else { 0 });
    if write.saturating_add(device.disk_reserve) > room.disk {
        let (mib, have, keep) = (write >> 20, room.disk >> 20, device.disk_reserve >> 20);
        let detail =
            format!("{name}: {mib} MiB to write, {have} MiB free, of which {keep} MiB stay free; make room");
        return Err(Reason::new(ReasonCode::DiskFull, detail));
    }
    Ok(())
}

/// Bytes that the trial may write beside the bundle: the optimised graph of a model is about as large as the model,
/// and is kept where that is not encrypted and not very large (`inference::graph_cache`).
fn graph(manifest: &Manifest) -> u64 {
    const LARGEST: u64 = 1 << 30;
    let model = manifest.files.iter().find(|file| file.path == manifest.model);
    model.map(|file| file.size).filter(|size| *size <= LARGEST && manifest.encryption.is_none()).unwrap_or(0)
}

/// Fetches the files of a bundle that this device lacks.
///
/// Errors: `Unsupported` or `DiskFull` before anything is fetched; those of the transport;
/// `DigestMismatch`. Where the disk fills up under way, what was fetched of this bundle is removed.
pub async fn fetch(
    folders: &Folders,
    bundle: &Verified<SignedManifest>,
    transport: &dyn Transport,
    device: &Device,
    progress: OnProgress<'_>,
) -> Result<(), Reason> {
    let signed = bundle.get();
    let dir = folders.model(&signed.digest);
    let files: BTreeMap<Digest, FileEntry> =
        signed.manifest.files.iter().map(|file| (file.sha256, file.clone())).collect();
    let total = files.values().map(|file| file.size).sum();
    let (here, held, had) = {
        let (folders, signed, files) = (folders.clone(), signed.clone(), files.clone());
        blocking(move || {
            let here = check_folder(&dir, &signed).is_ok();
            let held = if here { BTreeMap::new() } else { held(&folders, &files) };
            let had = if here { total } else { had(&folders, &files, &held) };
            Ok((here, held, had))
        })
        .await?
    };
    fits(&signed.manifest, total - had, device, Room::measure(&folders.models)?)?;
    let mut done = 0;
    progress(if here { total } else { done }, total);
    if here {
        return Ok(());
    }
    for file in files.values() {
        let so_far = |bytes: u64| progress(done + bytes.min(file.size), total);
        let brought =
            fetch_one(folders, &signed.manifest, file, held.get(&file.sha256), transport, &so_far).await;
        if let Err(reason) = brought {
            if reason.code == ReasonCode::DiskFull {
                let (folders, files) = (folders.clone(), files.clone());
                blocking(move || drop_downloads(&folders, files.keys())).await?;
            }
            return Err(reason);
        }
        done += file.size;
        progress(done, total);
    }
    Ok(())
}

/// Bytes of a bundle that [`fetch`] would still move, at most. Blocks.
pub fn missing(folders: &Folders, bundle: &Verified<SignedManifest>) -> u64 {
    let signed = bundle.get();
    let files: BTreeMap<Digest, FileEntry> =
        signed.manifest.files.iter().map(|file| (file.sha256, file.clone())).collect();
    let total: u64 = files.values().map(|file| file.size).sum();
    total - had(folders, &files, &held(folders, &files))
}

/// Bytes of these files that are on the device already.
fn had(folders: &Folders, files: &BTreeMap<Digest, FileEntry>, held: &BTreeMap<Digest, PathBuf>) -> u64 {
    let partial = |file: &FileEntry| size_of(&download(folders, &file.sha256)).min(file.size);
    let had = |file: &FileEntry| if held.contains_key(&file.sha256) { file.size } else { partial(file) };
    files.values().map(had).sum()
}

/// Brings one file to `downloads/<sha256>`, with its digest checked.
async fn fetch_one(
    folders: &Folders,
    manifest: &Manifest,
    file: &FileEntry,
    held: Option<&PathBuf>,
    transport: &dyn Transport,
    progress: &(dyn Fn(u64) + Send + Sync),
) -> Result<(), Reason> {
    let into = download(folders, &file.sha256);
    let what = format!("bundle {}: file {}", manifest.release(), file.path);
    let check = || {
        let (into, file, what) = (into.clone(), file.clone(), what.clone());
        blocking(move || check_file(&into, &file, &what))
    };
    if size_of(&into) == file.size && check().await.is_ok() {
        return Ok(());
    }
    if let Some(held) = held {
        durable::remove_file_synced(&into)?;
        if durable::hard_link(held, &into).is_ok() {
            if check().await.is_ok() {
                return Ok(());
            }
            // Only this name goes: the other bundle keeps its file, such as it is.
            durable::remove_file_synced(&into)?;
        }
    }
    let resumed = size_of(&into) > 0;
    transport.download(&layout::blob(&file.sha256), file.size, &into, progress).await?;
    let Err(mut reason) = check().await else { return Ok(()) };
    durable::remove_file_synced(&into)?;
    if resumed {
        // The first part may be what was wrong.
        transport.download(&layout::blob(&file.sha256), file.size, &into, progress).await?;
        let Err(again) = check().await else { return Ok(()) };
        durable::remove_file_synced(&into)?;
        reason = again;
    }
    Err(reason)
}

/// Puts the bundle in its place from `downloads`, every file checked once more. Blocks.
///
/// Errors: `DigestMismatch` or `SizeMismatch` for a file that is not as signed (it is removed, so that
/// it is fetched anew), `Malformed` for a path that leaves the folder, `DiskFull`.
pub fn stage(folders: &Folders, bundle: &Verified<SignedManifest>) -> Result<(), Reason> {
    let signed = bundle.get();
    let dir = folders.model(&signed.digest);
    if check_folder(&dir, signed).is_ok() {
        return Ok(());
    }
    let staging = durable::TemporaryDir::in_dir(&folders.models)?;
    for file in &signed.manifest.files {
        let from = download(folders, &file.sha256);
        let to = staging.path().join(inside(&file.path)?);
        let what = format!("bundle {}: file {}", signed.release(), file.path);
        durable::create_dir_all(to.parent().unwrap_or(staging.path()))?;
        if durable::hard_link(&from, &to).is_err() {
            durable::copy(&from, &to)?;
        }
        if let Err(reason) = check_file(&to, file, &what) {
            durable::remove_file_synced(&from)?;
            return Err(reason);
        }
    }
    durable::write_new(&staging.path().join(MANIFEST), &signed.bytes)?;
    durable::sync_tree(staging.path())?;
    // What stands there is damaged, or it would have been found good above. A link may name it: where the file system
    // can, the name goes over to the good one at once.
    staging.take_place_of(&dir)?;
    drop_downloads(folders, signed.manifest.files.iter().map(|file| &file.sha256))
}

/// Is the folder the whole bundle, byte for byte? Reads all of it.
pub fn check_folder(dir: &Path, signed: &SignedManifest) -> Result<(), Reason> {
    check_bundle(dir, &signed.digest)
}

/// The same, for a bundle that was verified before: its manifest is known by the digest.
pub fn check_bundle(dir: &Path, digest: &Digest) -> Result<(), Reason> {
    let manifest = read_manifest(dir, digest)?;
    for file in &manifest.files {
        let what = format!("bundle {}: file {}", manifest.release(), file.path);
        check_file(&dir.join(inside(&file.path)?), file, &what)?;
    }
    Ok(())
}

/// The manifest of a bundle's folder, if it has the digest.
pub fn read_manifest(dir: &Path, digest: &Digest) -> Result<Manifest, Reason> {
    let path = dir.join(MANIFEST);
    let mut bytes = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(MAX_MANIFEST).read_to_end(&mut bytes))
        .map_err(failed("read", &path))?;
    if Digest::from_bytes(Sha256::digest(&bytes).into()) != *digest {
        let detail =
            format!("{}: not the manifest that was verified; the disk may be failing", path.display());
        return Err(Reason::new(ReasonCode::DigestMismatch, detail));
    }
    parse_manifest(&bytes)
        .map_err(|fault| Reason::new(fault.code, format!("{}: {}", path.display(), fault.detail)))
}

/// Files of all bundles on this device that have a wanted digest by their manifest.
fn held(folders: &Folders, wanted: &BTreeMap<Digest, FileEntry>) -> BTreeMap<Digest, PathBuf> {
    let mut found = BTreeMap::new();
    let Ok(entries) = fs::read_dir(&folders.models) else { return found };
    for entry in entries.flatten() {
        let Some(digest) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(manifest) = read_manifest(&entry.path(), &digest) else { continue };
        for file in manifest.files {
            if let (true, Ok(path)) = (wanted.contains_key(&file.sha256), inside(&file.path)) {
                let path = entry.path().join(path);
                if size_of(&path) == file.size {
                    found.insert(file.sha256, path);
                }
            }
        }
    }
    found
}

/// A path of a manifest, if it stays inside the bundle's folder and is not the manifest itself.
fn inside(path: &str) -> Result<&Path, Reason> {
    let plain = Path::new(path);
    let normal = plain.components().all(|part| matches!(part, Component::Normal(_)));
    if path.is_empty() || !normal || path == MANIFEST {
        let detail =
            format!("path \"{path}\" leaves the bundle or hides its manifest; the bundle is hostile");
        return Err(Reason::new(ReasonCode::Malformed, detail));
    }
    Ok(plain)
}

/// Has the file its signed size and digest?
pub(super) fn check_file(path: &Path, file: &FileEntry, what: &str) -> Result<(), Reason> {
    let mut reader = File::open(path).map_err(failed("read", path))?;
    checked::copy(what, &mut reader, &file.sha256, file.size, &mut io::sink(), &|_| {})
}

/// Where a file on its way lies.
fn download(folders: &Folders, digest: &Digest) -> PathBuf {
    folders.downloads.join(digest.to_string())
}

/// Bytes of a file; 0 where there is none.
pub(super) fn size_of(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.len())
}

fn drop_downloads<'a>(folders: &Folders, digests: impl Iterator<Item = &'a Digest>) -> Result<(), Reason> {
    for digest in digests {
        durable::remove_file_synced(&download(folders, digest))?;
        durable::remove_file_synced(&folders.downloads.join(format!("{digest}.validator")))?;
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
