//! Copying bytes that must have a stated size and SHA-256, and files that appear whole or not at all.

use crate::domain::{Digest, Reason, ReasonCode};
use crate::sys::durable::{self, failed};
use sha2::{Digest as _, Sha256};
use std::fs::{File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Copies exactly `size` bytes with the SHA-256 `digest` and tells the number copied so far. What is
/// written before a fault is found must not be used. Errors: `SizeMismatch`, `DigestMismatch`; `what`
/// names the thing in them.
pub fn copy(
    what: &str,
    reader: &mut dyn Read,
    digest: &Digest,
    size: u64,
    writer: &mut dyn Write,
    progress: &dyn Fn(u64),
) -> Result<(), Reason> {
    let machine = |act: &str, error: std::io::Error| {
        let code = if durable::is_disk_full(&error) { ReasonCode::DiskFull } else { ReasonCode::Internal };
        Reason::new(code, format!("{act} {what}: {error}"))
    };
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 128 << 10];
    let mut done = 0u64;
    loop {
        let n = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(machine("read", error)),
        };
        done += n as u64;
        if done > size {
            let detail =
                format!("{what}: more than the {size} bytes that were signed; it is damaged or hostile");
            return Err(Reason::new(ReasonCode::SizeMismatch, detail));
        }
        hasher.update(&buffer[..n]);
        writer.write_all(&buffer[..n]).map_err(|error| machine("write", error))?;
        progress(done);
    }
    if done < size {
        let detail =
            format!("{what}: only {done} of the {size} bytes that were signed; fetch or copy it again");
        return Err(Reason::new(ReasonCode::SizeMismatch, detail));
    }
    if Digest::from_bytes(hasher.finalize().into()) != *digest {
        let detail = format!("{what}: its content is not the one that was signed; it is damaged or hostile");
        return Err(Reason::new(ReasonCode::DigestMismatch, detail));
    }
    Ok(())
}

/// A file under a temporary name, readable by all as the umask allows; gone unless it is kept.
#[derive(Debug)]
pub struct NewFile(tempfile::NamedTempFile);

impl NewFile {
    /// Makes an empty one in the folder `dir`.
    pub fn in_dir(dir: &Path) -> Result<Self, Reason> {
        let made = tempfile::Builder::new()
            .prefix(durable::TEMPORARY)
            .permissions(Permissions::from_mode(0o644))
            .tempfile_in(dir);
        Ok(Self(made.map_err(failed("make a file in", dir))?))
    }

    /// The open file.
    pub fn file(&mut self) -> &mut File {
        self.0.as_file_mut()
    }

    /// Syncs it and gives it its name, durably.
    pub fn keep_as(self, path: &Path) -> Result<(), Reason> {
        self.0.as_file().sync_all().map_err(failed("sync file", path))?;
        let temporary = self.0.into_temp_path();
        durable::rename_synced(&temporary, path)?;
        // The name that the guard would remove is gone with the rename.
        let _ = temporary.keep();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_bytes_or_another_number_of_them_are_refused() {
        let digest = Digest::from_bytes(Sha256::digest(b"abc").into());
        let code = |bytes: &[u8]| {
            copy("x", &mut &bytes[..], &digest, 3, &mut std::io::sink(), &|_| {})
                .map_err(|reason| reason.code)
        };
        assert_eq!(code(b"abc"), Ok(()));
        assert_eq!(code(b"abd"), Err(ReasonCode::DigestMismatch));
        assert_eq!(code(b"ab"), Err(ReasonCode::SizeMismatch));
        assert_eq!(code(b"abcd"), Err(ReasonCode::SizeMismatch));
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = NewFile::in_dir(dir.path()).unwrap();
        file.file().write_all(b"abc").unwrap();
        file.keep_as(&dir.path().join("a")).unwrap();
        let mut dropped = NewFile::in_dir(dir.path()).unwrap();
        dropped.file().write_all(b"abc").unwrap();
        drop(dropped);
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["a"]);
        assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"abc");
    }
}
