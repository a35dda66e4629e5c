//! The device's own keys: made once on the device, never changed and never sent anywhere; their public parts
//! are what an operator knows the device by, and encrypts models for.

use super::keys::Key;
use crate::bundle::secret;
use crate::config::settings::MODEL_KEY;
use crate::domain::{Reason, ReasonCode};
use crate::sys::age;
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
    /// Whom to encrypt a model for, so that this device can run it (`age1…`); `None` where that key is still
    /// to be made, or is one of `runtime.model_keys`.
    pub recipient: Option<String>,
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
            Ok(_) | Err(_) => {
                let key = Key::load(&file)?;
                Ok(Some(Self::shown(file, &key, recipient(state)?)))
            }
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
        Ok(Self::shown(file, &key, recipient(state)?))
    }

    /// The same with the key for encrypted models, which is made where there is none; its file, where it was.
    ///
    /// # Errors
    /// What the disk says.
    pub fn with_recipient(
        self,
        state: &Path,
        owner: Option<(u32, u32)>,
    ) -> Result<(Self, Option<PathBuf>), Reason> {
        if self.recipient.is_some() {
            return Ok((self, None));
        }
        let made = |error: age::AgeError| Reason::new(ReasonCode::Internal, format!("make a key: {error}"));
        let key = age::Identity::generate().map_err(made)?;
        let file = state.join(MODEL_KEY);
        durable::write_atomic_for(&file, key.key_file().as_bytes(), Access { mode: 0o600, owner })?;
        Ok((Self { recipient: Some(key.recipient().to_string()), ..self }, Some(file)))
    }

    fn shown(file: PathBuf, key: &Key, recipient: Option<String>) -> Self {
        Self { file, id: key.id().to_owned(), public: key.public_hex(), recipient }
    }
}

/// Of the key for encrypted models in this state folder.
fn recipient(state: &Path) -> Result<Option<String>, Reason> {
    let file = state.join(MODEL_KEY);
    if file.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Ok(None);
    }
    let keys = secret::read_keys(&file).map_err(|fault| Reason::new(ReasonCode::BadRequest, fault))?;
    Ok(keys.first().map(|key| key.recipient().to_string()))
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
        assert_eq!(made.recipient, None);
        let (whole, file) = made.clone().with_recipient(state.path(), None).unwrap();
        assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(whole.recipient.as_ref().unwrap().starts_with("age1"), "{whole:?}");
        assert_eq!(Identity::of(state.path()).unwrap(), Some(whole.clone()));
        assert_eq!(whole.clone().with_recipient(state.path(), None).unwrap(), (whole, None), "it stays");
        std::fs::write(&made.file, "torn").unwrap();
        assert_eq!(Identity::of(state.path()).unwrap_err().code, ReasonCode::BadRequest);
    }
}
