//! Small files that somebody else keeps: tokens, passwords, keys, certificates. They are read bounded, a
//! secret that everybody may read is not taken, and a change of them can be noticed.

use crate::domain::{Reason, ReasonCode};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Longest such file, bytes; a bundle of all public certificate authorities has 250 kB.
const MAX: u64 = 1 << 20;

/// Others than owner and group may do something with it. A file that systemd hands over is readable for a
/// group in name only: that bit is the mask of its access list.
pub fn is_open(metadata: &Metadata) -> bool {
    metadata.mode() & 0o007 != 0
}

/// What to do about such a file.
pub const CLOSE: &str = "every user of this machine may read it; run chmod 600 on it";

/// The content of a secret file that the configuration's `key` names, without the line break at its end.
///
/// # Errors
/// `BadRequest` for one that cannot be read, that every user may read, that is empty or too long.
pub fn read(key: &str, path: &Path) -> Result<Vec<u8>, Reason> {
    let file = File::open(path).map_err(|error| unreadable(key, path, &error))?;
    let metadata = file.metadata().map_err(|error| unreadable(key, path, &error))?;
    if is_open(&metadata) {
        return Err(bad(key, path, CLOSE));
    }
    let mut content = bounded(file, key, path)?;
    while content.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        content.pop();
    }
    if content.is_empty() {
        return Err(bad(key, path, "is empty; write the secret into it"));
    }
    Ok(content)
}

/// The content of a file that is no secret.
///
/// # Errors
/// `BadRequest` for one that cannot be read or is too long.
pub fn read_public(key: &str, path: &Path) -> Result<Vec<u8>, Reason> {
    bounded(File::open(path).map_err(|error| unreadable(key, path, &error))?, key, path)
}

fn bounded(file: File, key: &str, path: &Path) -> Result<Vec<u8>, Reason> {
    let mut content = Vec::new();
    file.take(MAX + 1).read_to_end(&mut content).map_err(|error| unreadable(key, path, &error))?;
    if content.len() as u64 > MAX {
        return Err(bad(key, path, &format!("has more than {MAX} bytes; name another file")));
    }
    Ok(content)
}

/// What to say of such a file that cannot be read.
pub fn unreadable(key: &str, path: &Path, error: &io::Error) -> Reason {
    let remedy = "make it readable for the agent; a credential:NAME needs LoadCredential=NAME:FILE in the unit, \
                  and systemd 247 or newer";
    bad(key, path, &format!("{error}; {remedy}"))
}

/// A fault of a file that the configuration names.
pub fn bad(key: &str, path: &Path, what: &str) -> Reason {
    Reason::new(ReasonCode::BadRequest, format!("{key} {}: {what}", path.display()))
}

/// By what a change of a file is noticed without reading it: another file of the name, or another content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp(Option<[i64; 7]>);

impl Stamp {
    /// That of the file now; one that is not there has its own.
    pub fn of(path: &Path) -> Self {
        Self(path.metadata().ok().map(|now| {
            let (device, inode, size) = (now.dev() as i64, now.ino() as i64, now.size() as i64);
            [device, inode, size, now.mtime(), now.mtime_nsec(), now.ctime(), now.ctime_nsec()]
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_is_for_the_agent_alone_and_said_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let read = || read("repository.token_file", &path);
        assert!(read().unwrap_err().detail.contains("LoadCredential="));
        for (content, mode, wanted) in [
            ("geheim\r\n", 0o600, Ok("geheim")),
            (" with space ", 0o400, Ok(" with space ")),
            // As systemd hands it over.
            ("geheim", 0o440, Ok("geheim")),
            ("geheim", 0o644, Err("chmod 600")),
            ("geheim", 0o602, Err("chmod 600")),
            ("\n", 0o600, Err("is empty")),
        ] {
            let _ = fs::remove_file(&path);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            match (read(), wanted) {
                (Ok(read), Ok(wanted)) => assert_eq!(read, wanted.as_bytes()),
                (Err(reason), Err(wanted)) => {
                    let detail = reason.detail;
                    assert!(
                        detail.starts_with("repository.token_file /") && detail.contains(wanted),
                        "{detail}"
                    );
                    assert!(!detail.contains("geheim"), "{detail}");
                }
                (read, wanted) => panic!("{mode:o}: {read:?}, wanted {wanted:?}"),
            }
        }
        fs::write(&path, vec![b'a'; MAX as usize + 1]).unwrap();
        assert!(read().unwrap_err().detail.contains("more than"));
    }

    #[test]
    fn a_replaced_file_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("a"), dir.path().join("b"));
        let absent = Stamp::of(&path);
        fs::write(&path, "one").unwrap();
        let one = Stamp::of(&path);
        assert_ne!(absent, one);
        assert_eq!(one, Stamp::of(&path));
        // Of the same length, as two tokens are.
        fs::write(&other, "two").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_ne!(one, Stamp::of(&path));
    }
}
