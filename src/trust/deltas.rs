//! Making the deltas of a repository. Needs no keys: what is made is signed by nobody, and a device believes none of it.
//!
//! For a release, each file that a device may lack is packed alone, for those who have nothing, and against the file
//! that it was in each of the releases before. What saves nothing is not kept. The deltas come first, the list that
//! names them last, so that a reader never finds one missing that was promised; what is there already is not made
//! again. Deltas that no listed release names any more are removed.
//!
//! Encrypted files are left out: two encryptions of the same bytes have nothing in common.

use super::export;
use super::publish::lock_repository;
use super::transport::OnBytes;
use super::verified::SignedManifest;
use crate::bundle::checked::NewFile;
use crate::bundle::delta::{self, DeltaError, Layout, Old, OldFile, Source, Tensor, offers};
use crate::bundle::{checked, layout, onnx};
use crate::domain::delta::{LEAST_FILE, Method, Offer};
use crate::domain::manifest::FileEntry;
use crate::domain::{Digest, Reason, ReasonCode, Release};
use crate::sys::durable::{self, failed};
use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

/// Releases that deltas lead from, unless another number is asked for.
pub const BEFORE: usize = 3;
/// Most releases that deltas may lead from.
pub const MOST_BEFORE: usize = 32;
/// A delta is kept where it is shorter than so many hundredths of what it stands for.
const WORTH: u64 = 95;

/// What an update costs on the wire, for files above the least size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// The release that a device has; none where it has nothing.
    pub from: Option<Release>,
    /// Bytes with deltas.
    pub bytes: u64,
    /// Bytes of the files that are not the same in both, as they are.
    pub whole_bytes: u64,
}

/// What was made for a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Made {
    /// The release.
    pub release: Release,
    /// Deltas that were not there before.
    pub new: usize,
    /// Why there are none, where there can be none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub none_because: Option<String>,
    /// What updates to it cost.
    pub updates: Vec<Cost>,
}

/// Bytes that [`make`] has to pack for these releases, for a progress bar; a little more than it will.
///
/// # Errors
/// Those of [`export::overview`].
pub fn effort(repository: &Path, releases: &[Release], before: usize) -> Result<u64, Reason> {
    let overview = export::overview(repository, None)?;
    let sizes = overview.releases.iter().filter(|offer| releases.contains(&offer.release));
    Ok(sizes.map(|offer| offer.size).sum::<u64>() * (before as u64 + 1))
}

/// The newest release of each name.
///
/// # Errors
/// Those of [`export::overview`].
pub fn newest(repository: &Path) -> Result<Vec<Release>, Reason> {
    let mut newest = BTreeMap::new();
    for offer in export::overview(repository, None)?.releases {
        // They come in the order of their versions.
        newest.insert(offer.release.name.clone(), offer.release);
    }
    Ok(newest.into_values().collect())
}

/// Makes the deltas that lead to these releases from the `before` last ones before each, and removes those that no
/// listed release names. `progress` hears the bytes packed so far, of [`effort`].
///
/// # Errors
/// `NotFound` for a release that is not listed; `Busy` where others are made; those of reading and writing.
pub fn make(
    repository: &Path,
    releases: &[Release],
    before: usize,
    progress: OnBytes<'_>,
) -> Result<Vec<Made>, Reason> {
    let overview = export::overview(repository, None)?;
    let folder = repository.join(layout::DELTAS);
    durable::create_dir_synced(&folder)?;
    // Nothing that is signed is touched, so a publisher may be at work meanwhile; another maker may not.
    let _lock = lock_repository(&folder)?;
    durable::remove_temporaries(&folder)?;
    let mut made = Vec::new();
    let mut done = 0;
    for release in releases {
        let Some(offer) = overview.releases.iter().find(|offer| offer.release == *release) else {
            let detail = format!("release {release}: not on the list of {}", repository.display());
            return Err(Reason::new(ReasonCode::NotFound, detail));
        };
        let older: Vec<&Release> = overview
            .releases
            .iter()
            .map(|offer| &offer.release)
            .filter(|other| other.name == release.name && other.version < release.version)
            .collect();
        let older = &older[older.len().saturating_sub(before)..];
        let mut desk = Desk { repository, progress: &|bytes| progress(done + bytes), new: 0, done: 0 };
        made.push(desk.release(release, older)?);
        done += offer.size * (before as u64 + 1);
        progress(done);
    }
    sweep(repository, &overview)?;
    Ok(made)
}

/// Removes the deltas that no listed release names.
///
/// # Errors
/// Of reading the folder.
fn sweep(repository: &Path, overview: &export::Overview) -> Result<(), Reason> {
    let folder = repository.join(layout::DELTAS);
    let mut named: BTreeSet<String> = BTreeSet::new();
    for offer in &overview.releases {
        let index = layout::delta_index(&offer.digest);
        named.extend(listed(repository, &offer.digest).iter().map(|offer| layout::delta(&offer.sha256)));
        named.insert(index);
    }
    for entry in fs::read_dir(&folder).map_err(failed("list", &folder))? {
        let path = entry.map_err(failed("list", &folder))?.path();
        let name = path.strip_prefix(repository).ok().and_then(Path::to_str).map(str::to_owned);
        if name.is_none_or(|name| !named.contains(&name)) {
            durable::remove_file_synced(&path)?;
        }
    }
    Ok(())
}

/// The offers that are published for the release with this manifest; none where they cannot be read.
fn listed(repository: &Path, manifest: &Digest) -> Vec<Offer> {
    let path = repository.join(layout::delta_index(manifest));
    let mut bytes = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(offers::MAX_INDEX).read_to_end(&mut bytes));
    read.ok().and_then(|_| offers::parse(&bytes).ok()).unwrap_or_default()
}

/// What is wrong with the deltas of a release, in words: the list, and each delta put together and held against the
/// signed digest.
pub fn faults(repository: &Path, signed: &SignedManifest) -> Vec<String> {
    let path = repository.join(layout::delta_index(&signed.digest));
    let release = signed.release();
    let Ok(bytes) = fs::read(&path) else { return Vec::new() };
    let known = if bytes.len() as u64 > offers::MAX_INDEX {
        Err("it is too long".to_owned())
    } else {
        offers::parse(&bytes)
    };
    let known = match known {
        Ok(known) => known,
        Err(error) => return vec![format!("release {release}: {}: {error}", path.display())],
    };
    let mut faults = Vec::new();
    for offer in known {
        let Some(file) = signed.manifest.files.iter().find(|file| file.sha256 == offer.file) else {
            continue;
        };
        if let Err(fault) = rebuilds(repository, &offer, file) {
            faults.push(format!(
                "release {release}: delta {} of {}: {fault}",
                offer.sha256.short(),
                file.path
            ));
        }
    }
    faults
}

/// Does the delta lead to the file?
fn rebuilds(repository: &Path, offer: &Offer, file: &FileEntry) -> Result<(), Reason> {
    let path = repository.join(layout::delta(&offer.sha256));
    let mut delta = File::open(&path).map_err(failed("read", &path))?;
    checked::copy("it", &mut delta, &offer.sha256, offer.size, &mut io::sink(), &|_| {})?;
    let old = match &offer.from {
        // The file that it leads from may belong to a release that is gone.
        Some(from) => match open(repository, from)? {
            Some(old) => Some(old),
            None => return Ok(()),
        },
        None => None,
    };
    let mut hasher = Hashed { hasher: Sha256::new() };
    let mut delta = BufReader::new(File::open(&path).map_err(failed("read", &path))?);
    let old = old.as_ref().map(|old| old as &dyn Old);
    delta::apply(old, &mut delta, file.size, &mut hasher, &|_| {})
        .map_err(|error| Reason::new(ReasonCode::Malformed, error.to_string()))?;
    if Digest::from_bytes(hasher.hasher.finalize().into()) != file.sha256 {
        return Err(Reason::new(ReasonCode::DigestMismatch, "it leads to something else"));
    }
    Ok(())
}

struct Hashed {
    hasher: Sha256,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open(repository: &Path, digest: &Digest) -> Result<Option<OldFile>, Reason> {
    let path = repository.join(layout::blob(digest));
    match File::open(&path) {
        Ok(file) => Ok(Some(OldFile::new(file).map_err(failed("look at", &path))?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", &path)(error).into()),
    }
}

/// Where the numbers lie in each file of a bundle, by the file's path.
fn layouts(repository: &Path, signed: &SignedManifest) -> BTreeMap<String, Vec<Tensor>> {
    let mut found = BTreeMap::new();
    for file in signed.manifest.files.iter().filter(|file| file.path.ends_with(".onnx")) {
        let Ok(model) = onnx::read(&repository.join(layout::blob(&file.sha256))) else { continue };
        let Ok(Layout { own, beside }) = Layout::of_model(&model) else { continue };
        let folder = Path::new(&file.path).parent().unwrap_or(Path::new(""));
        found.insert(file.path.clone(), own);
        for (name, tensors) in beside {
            found.insert(folder.join(name).to_string_lossy().into_owned(), tensors);
        }
    }
    found
}

/// The file of an older release that a new one was: the one of its path, and for the model the model.
fn before<'a>(old: &'a SignedManifest, new: &SignedManifest, file: &FileEntry) -> Option<&'a FileEntry> {
    let by_path = |path: &str| old.manifest.files.iter().find(|old| old.path == path);
    by_path(&file.path).or_else(|| (file.path == new.manifest.model).then(|| by_path(&old.manifest.model))?)
}

struct Desk<'a> {
    repository: &'a Path,
    progress: OnBytes<'a>,
    new: usize,
    done: u64,
}

impl Desk<'_> {
    fn release(&mut self, release: &Release, older: &[&Release]) -> Result<Made, Reason> {
        let resolve = |release: &Release| export::resolve(self.repository, release, None, Timestamp::MIN);
        let signed = resolve(release)?;
        let signed = signed.get();
        let mut made = Made { release: release.clone(), new: 0, none_because: None, updates: Vec::new() };
        if signed.manifest.encryption.is_some() {
            made.none_because =
                Some("its files are encrypted, so they share no bytes with others".to_owned());
            return Ok(made);
        }
        let known = listed(self.repository, &signed.digest);
        let own = layouts(self.repository, signed);
        let mut offers: Vec<Offer> = Vec::new();
        let mut costs = Vec::new();
        let files: BTreeMap<Digest, &FileEntry> =
            signed.manifest.files.iter().map(|file| (file.sha256, file)).collect();
        for file in files.values() {
            let found = self.offer(&known, file, &own, None)?;
            offers.extend(found);
        }
        costs.push(cost(None, files.values().copied(), &offers, &|_| false));
        for old in older {
            let old_signed = resolve(old)?;
            let old_signed = old_signed.get();
            let has = |digest: &Digest| old_signed.manifest.files.iter().any(|file| file.sha256 == *digest);
            if old_signed.manifest.encryption.is_none() {
                let layouts = layouts(self.repository, old_signed);
                for file in files.values().filter(|file| !has(&file.sha256)) {
                    let Some(from) = before(old_signed, signed, file) else { continue };
                    let is_there = |one: &Offer| one.file == file.sha256 && one.from == Some(from.sha256);
                    if offers.iter().any(is_there) {
                        continue;
                    }
                    let tensors = layouts.get(&from.path).map_or(&[][..], Vec::as_slice);
                    offers.extend(self.offer(&known, file, &own, Some((from, tensors)))?);
                }
            }
            costs.push(cost(Some((*old).clone()), files.values().copied(), &offers, &has));
        }
        // The nearest release first, as people look for it.
        costs[1..].reverse();
        let path = self.repository.join(layout::delta_index(&signed.digest));
        let bytes = offers::write(&offers);
        if fs::read(&path).ok().as_ref() != Some(&bytes) {
            durable::write_atomic(&path, &bytes)?;
        }
        Ok(Made { new: self.new, updates: costs, ..made })
    }

    /// The delta that leads to a file, made or found; `None` where it saves too little.
    fn offer(
        &mut self,
        known: &[Offer],
        file: &FileEntry,
        own: &BTreeMap<String, Vec<Tensor>>,
        from: Option<(&FileEntry, &[Tensor])>,
    ) -> Result<Option<Offer>, Reason> {
        let begun = self.done;
        self.done += file.size;
        if file.size < LEAST_FILE {
            return Ok(None);
        }
        let is_it = |one: &&Offer| one.file == file.sha256 && one.from == from.map(|(old, _)| old.sha256);
        let is_whole = |one: &&Offer| {
            let path = self.repository.join(layout::delta(&one.sha256));
            fs::metadata(path).is_ok_and(|found| found.len() == one.size)
        };
        if let Some(found) = known.iter().filter(is_it).find(is_whole) {
            return Ok(Some(found.clone()));
        }
        let old = match from {
            // Blobs of older releases may have been cleared away.
            Some((old, _)) => match open(self.repository, &old.sha256)? {
                Some(old) => Some(old),
                None => return Ok(None),
            },
            None => None,
        };
        let Some(new) = open(self.repository, &file.sha256)? else { return Ok(None) };
        let folder = self.repository.join(layout::DELTAS);
        let mut out = NewFile::in_dir(&folder)?;
        let old = old.as_ref().zip(from).map(|(old, (_, tensors))| Source { bytes: old, tensors });
        let new = Source { bytes: &new, tensors: own.get(&file.path).map_or(&[][..], Vec::as_slice) };
        let mut written = Written { file: out.file(), hasher: Sha256::new(), bytes: 0 };
        let told = |bytes: u64| (self.progress)(begun + bytes);
        let method =
            delta::make(old, new, delta::LEVEL, &mut written, &told).map_err(|error| desk(file, &error))?;
        let (size, sha256) = (written.bytes, Digest::from_bytes(written.hasher.finalize().into()));
        if size * 100 >= file.size * WORTH || (from.is_some() && method == Method::Zstd) {
            return Ok(None);
        }
        let offer = Offer { file: file.sha256, from: from.map(|(old, _)| old.sha256), method, size, sha256 };
        out.keep_as(&self.repository.join(layout::delta(&sha256)))?;
        // A fault of ours costs every device a download for nothing.
        rebuilds(self.repository, &offer, file)?;
        self.new += 1;
        Ok(Some(offer))
    }
}

/// What an update costs with these offers.
fn cost<'a>(
    from: Option<Release>,
    files: impl Iterator<Item = &'a FileEntry>,
    offers: &[Offer],
    has: &dyn Fn(&Digest) -> bool,
) -> Cost {
    let mut cost = Cost { from, bytes: 0, whole_bytes: 0 };
    for file in files.filter(|file| !has(&file.sha256)) {
        let best = offers.iter().filter(|one| one.file == file.sha256);
        let best = best.filter(|one| one.from.as_ref().is_none_or(has)).map(|one| one.size).min();
        cost.bytes += best.unwrap_or(file.size).min(file.size);
        cost.whole_bytes += file.size;
    }
    cost
}

fn desk(file: &FileEntry, error: &DeltaError) -> Reason {
    let code = match error {
        DeltaError::Memory => ReasonCode::OutOfMemory,
        DeltaError::Write(source) if durable::is_disk_full(source) => ReasonCode::DiskFull,
        DeltaError::Malformed(_)
        | DeltaError::Size
        | DeltaError::Read(_)
        | DeltaError::Old(_)
        | DeltaError::Write(_) => ReasonCode::Internal,
    };
    Reason::new(code, format!("make a delta of {}: {error}", file.path))
}

/// A file whose digest and length are known when it is written.
struct Written<'a> {
    file: &'a mut File,
    hasher: Sha256,
    bytes: u64,
}

impl Write for Written<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.file.write(bytes)?;
        self.hasher.update(&bytes[..length]);
        self.bytes += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Paths in the repository of the list of a release's deltas, and of what it names.
pub fn named(repository: &Path, signed: &SignedManifest) -> Vec<String> {
    let offers = listed(repository, &signed.digest);
    let deltas = offers.iter().map(|offer| layout::delta(&offer.sha256));
    deltas.chain([layout::delta_index(&signed.digest)]).collect()
}
