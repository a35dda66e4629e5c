//! The device's own key: made once on the device, never changed and never sent anywhere; its public part
//! is what an operator knows the device by.

use super::keys::Key;
use crate::domain::{Reason, ReasonCode};
use crate::sys::durable::{self, Access};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Its name in the state folder.
const FILE: &str = "device-key.pem";

/// Who the device is, for those who may see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// Where the private key lies: ed25519, PKCS#8 in PEM.
    pub file: PathBuf,
    /// Its key id, computed as TUF does: 64 hexadecimal digits.
    pub id: String,
    /// The public key, 64 hexadecimal digits.
    pub public: String,
}

impl Identity {
    /// The key in this state folder; `None` where there is none yet.
    ///
    /// # Errors
    /// `BadRequest` for a file that is no such key or that others may read.
    pub fn of(state: &Path) -> Result<Option<Self>, Reason> {
        let file = state.join(FILE);
        match file.symlink_metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            // Whatever else is wrong is told by who reads it.
            Ok(_) | Err(_) => Key::load(&file).map(|key| Some(Self::shown(file, &key))),
        }
    }

    /// Makes a key in this state folder, which must exist, for `owner` alone (user and group; the writer
    /// when `None`).
    ///
    /// # Errors
    /// `BadRequest` where there is a key: it is never overwritten. What the disk says.
    pub fn make(state: &Path, owner: Option<(u32, u32)>) -> Result<Self, Reason> {
        let file = state.join(FILE);
        if file.symlink_metadata().is_ok() {
            let detail = format!("key file {}: exists already; keys are never overwritten", file.display());
            return Err(Reason::new(ReasonCode::BadRequest, detail));
        }
        let key = Key::generate()?;
        durable::write_atomic_for(&file, key.pem().as_bytes(), Access { mode: 0o600, owner })?;
        Ok(Self::shown(file, &key))
    }

    fn shown(file: PathBuf, key: &Key) -> Self {
        Self { file, id: key.id().to_owned(), public: key.public_hex() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_and_found_again() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(Identity::of(state.path()).unwrap(), None);
        let made = Identity::make(state.path(), None).unwrap();
        assert_eq!(made.file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!((made.id.len(), made.public.len()), (64, 64));
        assert_eq!(Identity::of(state.path()).unwrap(), Some(made.clone()));
        assert_eq!(Identity::make(state.path(), None).unwrap_err().code, ReasonCode::BadRequest);
        assert_eq!(Identity::of(state.path()).unwrap(), Some(made.clone()), "it is still the same");
        std::fs::write(&made.file, "torn").unwrap();
        assert_eq!(Identity::of(state.path()).unwrap_err().code, ReasonCode::BadRequest);
    }
}
