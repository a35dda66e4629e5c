//! The bytes of a bundle: reading with limits, digests, and sealing a folder for its author.

use super::{MANIFEST, MAX_FILE, MAX_FILES, MAX_MANIFEST, manifest, path};
use crate::domain::manifest::FileEntry;
use crate::domain::{Digest, Manifest, Reason, ReasonCode};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// SHA-256 of bytes in memory.
pub fn sha256(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

/// SHA-256 and length of a file, read in pieces and never past `max` bytes + 1.
pub fn sha256_file(file: &Path, max: u64) -> io::Result<(Digest, u64)> {
    let mut reader = File::open(file)?.take(max.saturating_add(1));
    let mut hash = Sha256::new();
    let mut piece = vec![0; 256 << 10];
    let mut size = 0;
    loop {
        let got = match reader.read(&mut piece) {
            Ok(0) => break,
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hash.update(&piece[..got]);
        size += got as u64;
    }
    Ok((Digest::from_bytes(hash.finalize().into()), size))
}

/// The bytes of `manifest.json`.
pub(super) fn read_manifest(dir: &Path) -> Result<Vec<u8>, Reason> {
    let file = dir.join(MANIFEST);
    let fault = |error: io::Error| unreadable(&file, &error);
    let meta = std::fs::symlink_metadata(&file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Reason::new(
            ReasonCode::NotFound,
            format!(
                "bundle {}: no {MANIFEST} in it; a bundle is a folder made by `edgewarden bundle init`",
                dir.display()
            ),
        ),
        _ => unreadable(&file, &error),
    })?;
    if !meta.is_file() {
        return Err(Reason::new(
            ReasonCode::Malformed,
            format!("{}: not a regular file; links are refused", file.display()),
        ));
    }
    let mut bytes = Vec::new();
    File::open(&file).map_err(fault)?.take(MAX_MANIFEST + 1).read_to_end(&mut bytes).map_err(fault)?;
    if bytes.len() as u64 > MAX_MANIFEST {
        return Err(Reason::new(
            ReasonCode::Malformed,
            format!("{}: more than {} MiB; the limit of a manifest", file.display(), MAX_MANIFEST >> 20),
        ));
    }
    Ok(bytes)
}

/// Checks one listed file: no link on its way, the stated size, the stated SHA-256.
pub(super) fn verify(dir: &Path, entry: &FileEntry) -> Result<(), Reason> {
    let mut at = dir.to_owned();
    let mut parts = entry.path.split('/').peekable();
    while let Some(part) = parts.next() {
        at.push(part);
        let meta = std::fs::symlink_metadata(&at).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Reason::new(
                ReasonCode::NotFound,
                format!("bundle {}: file {} is missing", dir.display(), entry.path),
            ),
            _ => unreadable(&at, &error),
        })?;
        let wanted = if parts.peek().is_some() { meta.is_dir() } else { meta.is_file() };
        if !wanted {
            return Err(Reason::new(
                ReasonCode::Malformed,
                format!("bundle {}: {} is not a regular file; links are refused", dir.display(), entry.path),
            ));
        }
    }
    let (digest, size) = sha256_file(&at, entry.size).map_err(|error| unreadable(&at, &error))?;
    if size != entry.size {
        let more = if size > entry.size { "more" } else { "fewer" };
        return Err(Reason::new(
            ReasonCode::SizeMismatch,
            format!(
                "bundle {}: {} has {more} bytes than the {} that the manifest states; if you changed it, run \
                 `edgewarden bundle seal`",
                dir.display(),
                entry.path,
                entry.size
            ),
        ));
    }
    if digest != entry.sha256 {
        return Err(Reason::new(
            ReasonCode::DigestMismatch,
            format!(
                "bundle {}: {} has SHA-256 {}…, the manifest states {}…; if you changed it, run `edgewarden \
                 bundle seal`",
                dir.display(),
                entry.path,
                digest.short(),
                entry.sha256.short()
            ),
        ));
    }
    Ok(())
}

/// Lists every file of the folder anew, writes the manifest with them, and returns it: for authors who
/// added or changed files. Hidden files are left out. The same files give the same bytes.
///
/// # Errors
/// As [`super::open`], `Malformed` for files whose names a bundle may not hold, and `BadRequest` where an
/// encrypted file is another one now.
pub fn seal(dir: &Path) -> Result<Manifest, Reason> {
    let bytes = read_manifest(dir)?;
    let mut sealed = manifest::parse_words(&bytes).map_err(|reason| {
        Reason::new(reason.code, format!("{}: {}", dir.join(MANIFEST).display(), reason.detail))
    })?;
    let files = entries(dir)?;
    super::secret::still_holds(dir, &sealed, &files)?;
    sealed.files = files;
    manifest::check(&sealed).map_err(|reason| {
        Reason::new(reason.code, format!("{}: {}", dir.join(MANIFEST).display(), reason.detail))
    })?;
    manifest::write_manifest(dir, &sealed)?;
    Ok(sealed)
}

/// Every file of the folder but the manifest and hidden ones, in the order of their paths.
pub fn entries(dir: &Path) -> Result<Vec<FileEntry>, Reason> {
    let mut found = Vec::new();
    collect(dir, "", 0, &mut found)?;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    path::check_all(found.iter().map(|entry| entry.path.as_str()))?;
    Ok(found)
}

/// Folders inside folders that are looked into.
const MAX_DEPTH: usize = 8;

fn collect(dir: &Path, prefix: &str, depth: usize, found: &mut Vec<FileEntry>) -> Result<(), Reason> {
    let malformed = |detail: String| Err(Reason::new(ReasonCode::Malformed, detail));
    if depth > MAX_DEPTH {
        return malformed(format!("bundle: {}: folders are nested too deep", dir.display()));
    }
    for item in std::fs::read_dir(dir).map_err(|error| unreadable(dir, &error))? {
        let item = item.map_err(|error| unreadable(dir, &error))?;
        let Some(name) = item.file_name().to_str().map(str::to_owned) else {
            return malformed(format!("bundle: {}: the name is not UTF-8; rename it", item.path().display()));
        };
        let path = format!("{prefix}{name}");
        if name.starts_with('.') || path == MANIFEST {
            continue;
        }
        let at = item.path();
        let kind = item.file_type().map_err(|error| unreadable(&at, &error))?;
        if kind.is_dir() {
            collect(&at, &format!("{path}/"), depth + 1, found)?;
        } else if kind.is_file() {
            let (sha256, size) = sha256_file(&at, MAX_FILE).map_err(|error| unreadable(&at, &error))?;
            if size > MAX_FILE || found.len() >= MAX_FILES {
                return malformed(format!(
                    "bundle: {path}: at most {MAX_FILES} files of {} GiB each",
                    MAX_FILE >> 30
                ));
            }
            found.push(FileEntry { path, sha256, size });
        } else {
            return malformed(format!(
                "bundle: {}: not a regular file; links are refused, copy the file itself",
                at.display()
            ));
        }
    }
    Ok(())
}

fn unreadable(file: &Path, error: &io::Error) -> Reason {
    Reason::new(ReasonCode::Internal, format!("read {}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    #[test]
    fn sealing_lists_every_file_and_is_reproducible() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("model.onnx"), b"other bytes").unwrap();
        std::fs::create_dir(dir.path().join("golden")).unwrap();
        std::fs::write(dir.path().join("golden/b.jpg"), b"b").unwrap();
        std::fs::write(dir.path().join("golden/a.jpg"), b"a").unwrap();
        std::fs::write(dir.path().join(".hidden"), b"x").unwrap();
        manifest::write_manifest(dir.path(), &sample()).unwrap();

        let sealed = seal(dir.path()).unwrap();
        let paths: Vec<_> = sealed.files.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(paths, ["golden/a.jpg", "golden/b.jpg", "model.onnx"]);
        let first = super::super::open(dir.path(), None).unwrap();
        seal(dir.path()).unwrap();
        assert_eq!(super::super::open(dir.path(), None).unwrap().digest, first.digest);
    }

    #[test]
    fn sealing_refuses_a_bundle_without_its_model() {
        let dir = tempfile::tempdir().unwrap();
        manifest::write_manifest(dir.path(), &sample()).unwrap();
        assert_eq!(seal(dir.path()).unwrap_err().code, ReasonCode::Malformed);
    }
}
