//! The public part of a signing key: in a file of its own, in metadata, and known by its TUF key id.

use super::keys::{MAX_FILE, key_id, public_value};
use crate::domain::{Reason, ReasonCode};
use crate::sys::durable::failed;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// What precedes the 32 bytes of the key in the DER of RFC 8410, section 4.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";

/// A public ed25519 key with its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    id: String,
    bytes: [u8; 32],
}

impl PublicKey {
    /// The key with these 32 bytes (RFC 8032). Errors: `BadRequest` where they are no key, or a weak one,
    /// under which signatures of others could hold as well.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, Reason> {
        match VerifyingKey::from_bytes(&bytes) {
            Ok(key) if !key.is_weak() => Ok(Self { id: key_id(&public_value(&bytes))?, bytes }),
            Ok(_) | Err(_) => {
                Err(Reason::new(ReasonCode::BadRequest, "public key: it is no ed25519 key, or a weak one"))
            }
        }
    }

    /// A key whose id was computed already.
    pub(super) fn known(id: String, bytes: [u8; 32]) -> Self {
        Self { id, bytes }
    }

    /// Reads a file with a public key: PEM, as `openssl pkey -pubout` and `edgewarden repo key new` write
    /// it, or 64 hexadecimal digits. Errors: `BadRequest` for anything else.
    pub fn load(path: &Path) -> Result<Self, Reason> {
        let bad = |what: &str| {
            Reason::new(ReasonCode::BadRequest, format!("public key file {}: {what}", path.display()))
        };
        let mut text = String::new();
        let file = File::open(path).map_err(failed("read public key file", path))?;
        let read = file.take(MAX_FILE + 1).read_to_string(&mut text);
        if read.map_err(|error| bad(&error.to_string()))? as u64 > MAX_FILE {
            return Err(bad("too long for a key"));
        }
        if text.contains("PRIVATE KEY") {
            return Err(bad(
                "this is a private key; `edgewarden repo key show` prints its public part, to be put into a file of its own",
            ));
        }
        let expected = || {
            bad(
                "expected an ed25519 public key, in PEM as `openssl pkey -pubout` writes it or as 64 hexadecimal digits",
            )
        };
        let bytes: Vec<u8> = match text.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END)) {
            Some((body, _)) => {
                let body: String = body.split_whitespace().collect();
                let der = STANDARD.decode(body).map_err(|_| expected())?;
                der.strip_prefix(&SPKI_PREFIX).ok_or_else(expected)?.to_vec()
            }
            None => hex::decode(text.trim()).map_err(|_| expected())?,
        };
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| expected())?;
        Self::from_bytes(bytes).map_err(|reason| bad(&reason.detail))
    }

    /// The key of TUF metadata; `None` where it is not ed25519, or no key.
    pub(super) fn of_value(value: &Value) -> Option<Self> {
        if value.get("scheme")?.as_str()? != "ed25519" {
            return None;
        }
        let bytes = hex::decode(value.pointer("/keyval/public")?.as_str()?).ok()?;
        Self::from_bytes(bytes.try_into().ok()?).ok()
    }

    /// The TUF key id, 64 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// As TUF metadata carries it.
    pub fn value(&self) -> Value {
        public_value(&self.bytes)
    }

    /// In PEM.
    pub fn pem(&self) -> String {
        let der = [&SPKI_PREFIX[..], &self.bytes].concat();
        format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(der))
    }

    /// Whether these 64 bytes are its signature of `bytes`.
    pub(super) fn has_signed(&self, bytes: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(&self.bytes)
            .is_ok_and(|key| key.verify_strict(bytes, &Signature::from_bytes(signature)).is_ok())
    }
}

/// The first digits of a key id, as people see it.
pub fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::keys::Key;
    use std::fs;

    #[test]
    fn a_public_key_survives_its_file_in_both_forms() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pub");
        let key = Key::generate().unwrap();
        for text in [key.public_key().pem(), format!("{}\n", key.public_hex())] {
            fs::write(&path, text).unwrap();
            let read = PublicKey::load(&path).unwrap();
            assert_eq!((read.id(), read.value()), (key.id(), key.public()));
            assert_eq!(PublicKey::of_value(&read.value()), Some(read));
        }
    }

    #[test]
    fn what_is_no_public_key_is_refused_with_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pub");
        let long = "a".repeat(5000);
        for (text, words) in [
            ("", "expected"),
            ("00", "expected"),
            (&"00".repeat(32), "weak"),
            (&format!("{BEGIN}\nAAAA\n{END}"), "expected"),
            (&Key::generate().unwrap().pem(), "private key"),
            (&long, "too long"),
        ] {
            fs::write(&path, text).unwrap();
            let reason = PublicKey::load(&path).unwrap_err();
            assert_eq!(reason.code, ReasonCode::BadRequest);
            assert!(reason.detail.contains(words), "{reason}");
        }
    }
}
