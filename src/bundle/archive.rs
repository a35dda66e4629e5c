//! The `.bundle` file: a plain tar with a slice of a repository, for a USB stick.
//!
//! It holds the layout of [`super::layout`] for one release and nothing else. The same content gives
//! the same bytes: names sorted, times, owners and modes fixed, ustar headers only. A reader takes
//! regular files with known names and refuses all the rest, so that nothing in a tar's header can lead
//! outside of it. What it says is untrusted until `trust` has checked it.

use super::checked::{self, NewFile};
use super::files::sha256;
use super::{MANIFEST, MAX_MANIFEST, layout, parse_manifest};
use crate::domain::{Digest, Reason, ReasonCode, Release};
use crate::sys::durable::failed;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Most files in a `.bundle`.
pub const MAX_ENTRIES: usize = 1024;
/// Longest `.bundle`, bytes.
pub const MAX_ARCHIVE: u64 = 64 << 30;

/// Called with the number of bytes copied so far, of all files together.
pub type OnBytes<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// Where a file lies inside the tar.
#[derive(Debug, Clone, Copy)]
struct Place {
    offset: u64,
    size: u64,
}

/// A `.bundle` file whose table of contents was read and found well-formed.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    places: BTreeMap<String, Place>,
}

impl Archive {
    /// Reads the table of contents. Errors: `NotFound` where there is no such file, `Malformed` for a
    /// name, kind or size that does not belong into a `.bundle`.
    pub fn open(path: &Path) -> Result<Self, Reason> {
        let file = File::open(path).map_err(|error| {
            let code = if error.kind() == io::ErrorKind::NotFound {
                ReasonCode::NotFound
            } else {
                ReasonCode::Internal
            };
            Reason::new(code, format!("open bundle file {}: {error}", path.display()))
        })?;
        let total = file.metadata().map_err(|error| broken(path, error))?.len();
        if total > MAX_ARCHIVE {
            return Err(broken(path, format!("it has {total} bytes; {MAX_ARCHIVE} are the most accepted")));
        }
        if !is_tar(&file).map_err(|error| broken(path, error))? {
            return Err(broken(path, "is no bundle file; `edgewarden repo export` makes one"));
        }
        let mut tar = tar::Archive::new(file);
        let mut places = BTreeMap::new();
        // Raw: long-name and PAX headers are not interpreted but seen, and refused like any other kind.
        for entry in tar.entries_with_seek().map_err(|error| broken(path, error))?.raw(true) {
            let entry = entry.map_err(|error| broken(path, error))?;
            let name = String::from_utf8(entry.path_bytes().into_owned())
                .map_err(|_| broken(path, "a file name in it is not UTF-8"))?;
            if entry.header().entry_type() != tar::EntryType::Regular {
                return Err(broken(path, format!("\"{}\" is not a regular file", shown(&name))));
            }
            if !is_known(&name) {
                return Err(broken(path, format!("\"{}\" does not belong into a bundle file", shown(&name))));
            }
            let place = Place { offset: entry.raw_file_position(), size: entry.size() };
            if place.offset.checked_add(place.size).is_none_or(|end| end > total) {
                return Err(broken(path, format!("it ends within {name}; copy it again")));
            }
            if places.len() == MAX_ENTRIES {
                return Err(broken(path, format!("it holds more than {MAX_ENTRIES} files")));
            }
            if places.insert(name.clone(), place).is_some() {
                return Err(broken(path, format!("it holds {name} twice")));
            }
        }
        Ok(Self { path: path.to_owned(), places })
    }

    /// The file it was opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The size of the file `name`, bytes; `None` where there is none.
    pub fn size(&self, name: &str) -> Option<u64> {
        self.places.get(name).map(|place| place.size)
    }

    /// A reader of the file `name` from `offset` to where the file ends; `None` where there is none.
    pub fn reader(&self, name: &str, offset: u64) -> Result<Option<io::Take<File>>, Reason> {
        let Some(place) = self.places.get(name) else { return Ok(None) };
        let offset = offset.min(place.size);
        let mut file = File::open(&self.path).map_err(|error| broken(&self.path, error))?;
        file.seek(SeekFrom::Start(place.offset + offset)).map_err(|error| broken(&self.path, error))?;
        Ok(Some(file.take(place.size - offset)))
    }

    /// The whole of the small file `name`. More than `max` bytes are refused with `SizeMismatch`.
    pub fn read(&self, name: &str, max: u64) -> Result<Option<Vec<u8>>, Reason> {
        let Some(size) = self.size(name) else { return Ok(None) };
        if size > max {
            let detail = format!(
                "bundle file {}: {name} has {size} bytes, more than the {max} allowed",
                self.path.display()
            );
            return Err(Reason::new(ReasonCode::SizeMismatch, detail));
        }
        let Some(mut reader) = self.reader(name, 0)? else { return Ok(None) };
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map_err(|error| broken(&self.path, error))?;
        if bytes.len() as u64 != size {
            return Err(broken(&self.path, format!("it ends within {name}; copy it again")));
        }
        Ok(Some(bytes))
    }

    /// The one release that it holds, as its file names claim. Not verified.
    pub fn claimed_release(&self) -> Result<(Release, Digest), Reason> {
        let mut found = self.places.keys().filter_map(|name| layout::release_of_manifest(name));
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one),
            (None, _) => Err(broken(&self.path, "it holds no manifest")),
            (Some(_), Some(_)) => Err(broken(&self.path, "it holds more than one manifest")),
        }
    }
}

/// Whether the file begins as every tar that [`Archive`] reads does: "ustar" at byte 257.
///
/// # Errors
/// Those of reading; a file that is too short is no tar.
pub fn is_tar(file: &File) -> io::Result<bool> {
    let mut magic = [0; 5];
    match file.read_exact_at(&mut magic, 257) {
        Ok(()) => Ok(magic == *b"ustar"),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// A bundle file's fault, told with its path.
fn broken(path: &Path, what: impl std::fmt::Display) -> Reason {
    Reason::new(ReasonCode::Malformed, format!("bundle file {}: {what}", path.display()))
}

/// A name from outside, short and without control characters.
fn shown(name: &str) -> String {
    name.chars().take(120).flat_map(char::escape_default).collect()
}

/// True for the names that a slice of a repository consists of.
fn is_known(name: &str) -> bool {
    let metadata = |file: &str| {
        let stem = file.strip_suffix(".json").unwrap_or("");
        !stem.is_empty()
            && stem.len() <= 80
            && !stem.starts_with('.')
            && stem.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '%' | '~'))
    };
    name.strip_prefix("metadata/").is_some_and(metadata)
        || layout::digest_of_blob(name).is_some()
        || layout::release_of_manifest(name).is_some()
        || layout::digest_of_operators(name).is_some()
}

/// What a file of a `.bundle` to be written consists of.
#[derive(Debug)]
pub enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A file on disk that must have this size and SHA-256.
    File {
        /// Where it is.
        path: PathBuf,
        /// Its content.
        sha256: Digest,
        /// Its length in bytes.
        size: u64,
    },
}

impl Content {
    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::File { size, .. } => *size,
        }
    }
}

/// Bytes of a block; headers and contents are padded to it.
const BLOCK: u64 = 512;

/// Writes a `.bundle` with `contents` under their names; it gets its name when it is whole and synced.
/// Errors: `DigestMismatch` or `SizeMismatch` where a file is not what it should be.
pub fn write(path: &Path, contents: &BTreeMap<String, Content>, progress: OnBytes<'_>) -> Result<(), Reason> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = NewFile::in_dir(folder)?;
    let mut out = io::BufWriter::with_capacity(1 << 20, file.file());
    let mut done = 0;
    for (name, content) in contents {
        let size = content.size();
        out.write_all(header(name, size)?.as_bytes()).map_err(failed("write", path))?;
        match content {
            Content::Bytes(bytes) => out.write_all(bytes).map_err(failed("write", path))?,
            Content::File { path: source, sha256, size } => {
                let mut reader = File::open(source).map_err(failed("open", source))?;
                let what = source.display().to_string();
                checked::copy(&what, &mut reader, sha256, *size, &mut out, &|bytes| progress(done + bytes))?;
            }
        }
        let padding = (BLOCK - size % BLOCK) % BLOCK;
        out.write_all(&[0; BLOCK as usize][..padding as usize]).map_err(failed("write", path))?;
        done += size;
        progress(done);
    }
    out.write_all(&[0; 2 * BLOCK as usize]).and_then(|()| out.flush()).map_err(failed("write", path))?;
    drop(out);
    file.keep_as(path)
}

/// A header that is the same wherever and whenever it is made.
fn header(name: &str, size: u64) -> Result<tar::Header, Reason> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name).map_err(|error| {
        Reason::new(ReasonCode::Internal, format!("name {name} in a bundle file: {error}"))
    })?;
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    Ok(header)
}

/// Unpacks the bundle in the `.bundle` file `path` into the empty or missing folder `into`: every file
/// checked against the manifest, the manifest itself against nobody's signature. For work at a desk;
/// a device takes only what `trust` has verified. Errors: those of [`Archive::open`], `DigestMismatch`,
/// `SizeMismatch`, and `BadRequest` where `into` is not empty.
pub fn extract(path: &Path, into: &Path) -> Result<(), Reason> {
    let archive = Archive::open(path)?;
    let (release, digest) = archive.claimed_release()?;
    let name = layout::manifest(&release, &digest);
    let bytes = archive.read(&name, MAX_MANIFEST)?.unwrap_or_default();
    if sha256(&bytes) != digest {
        let detail = format!("bundle file {}: its manifest is not the one its name says", path.display());
        return Err(Reason::new(ReasonCode::DigestMismatch, detail));
    }
    let manifest = parse_manifest(&bytes).map_err(|reason| {
        Reason::new(reason.code, format!("bundle file {}: {}", path.display(), reason.detail))
    })?;
    if manifest.release() != release {
        let detail = format!("its manifest is of {}, its names are of {release}", manifest.release());
        return Err(broken(path, detail));
    }
    fs::create_dir_all(into).map_err(failed("make folder", into))?;
    if fs::read_dir(into).map_err(failed("list", into))?.next().is_some() {
        let detail = format!("unpack into {}: the folder is not empty; name another", into.display());
        return Err(Reason::new(ReasonCode::BadRequest, detail));
    }
    for file in &manifest.files {
        let target = into.join(&file.path);
        let parent = target.parent().unwrap_or(into);
        fs::create_dir_all(parent).map_err(failed("make folder", parent))?;
        let mut out = File::create_new(&target).map_err(failed("create", &target))?;
        copy_blob(&archive, &file.path, &file.sha256, file.size, &mut out, &|_| {})?;
    }
    let target = into.join(MANIFEST);
    fs::write(&target, &bytes).map_err(failed("write", &target))?;
    Ok(())
}

/// Copies the blob `digest` of `size` bytes, checked; `path` is its name in the bundle, for the error.
pub fn copy_blob(
    archive: &Archive,
    path: &str,
    digest: &Digest,
    size: u64,
    out: &mut dyn Write,
    progress: &dyn Fn(u64),
) -> Result<(), Reason> {
    let Some(mut reader) = archive.reader(&layout::blob(digest), 0)? else {
        return Err(broken(archive.path(), format!("{path} is missing in it")));
    };
    let what = format!("bundle file {}: {path}", archive.path().display());
    checked::copy(&what, &mut reader, digest, size, out, progress)
}
