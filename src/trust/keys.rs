//! Signing keys on disk: ed25519, PKCS#8 in PEM, as `openssl pkey` reads and writes them.
//!
//! A key is known by its TUF key id: the SHA-256 of the canonical JSON of its public part, as
//! securesystemslib and python-tuf compute it.

use super::public_key::PublicKey;
use crate::bundle::files::sha256;
use crate::domain::{Digest, Reason, ReasonCode};
use crate::sys::durable::{self, failed};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Longest key file read, bytes.
pub(super) const MAX_FILE: u64 = 4096;
/// What precedes the 32 bytes of the seed in the DER of RFC 8410, section 7.
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// A private key with its id. Its `Debug` shows the id alone.
pub struct Key {
    signing: SigningKey,
    id: String,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Key {
    /// A new key from the system's random numbers.
    pub fn generate() -> Result<Self, Reason> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)
            .map_err(|error| Reason::new(ReasonCode::Internal, format!("make a signing key: {error}")))?;
        Self::from_seed(&seed)
    }

    /// The key of a 32-byte seed (RFC 8032).
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, Reason> {
        let signing = SigningKey::from_bytes(seed);
        let id = key_id(&public_value(signing.verifying_key().as_bytes()))?;
        Ok(Self { signing, id })
    }

    /// The TUF key id, 64 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The 32 secret bytes.
    #[cfg(test)]
    pub(super) fn seed(&self) -> [u8; 32] {
        self.signing.to_bytes()
    }

    /// The public part as TUF metadata carries it.
    pub fn public(&self) -> Value {
        public_value(self.signing.verifying_key().as_bytes())
    }

    /// The public part by itself.
    pub fn public_key(&self) -> PublicKey {
        PublicKey::known(self.id.clone(), *self.signing.verifying_key().as_bytes())
    }

    /// The signature of `bytes`, 128 hexadecimal digits.
    pub fn sign(&self, bytes: &[u8]) -> String {
        hex::encode(self.signing.sign(bytes).to_bytes())
    }

    /// The private key in PKCS#8 PEM.
    pub(super) fn pem(&self) -> String {
        let der = [&PKCS8_PREFIX[..], self.signing.as_bytes()].concat();
        format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(der))
    }

    /// The public part, 64 hexadecimal digits.
    pub fn public_hex(&self) -> String {
        hex::encode(self.signing.verifying_key().as_bytes())
    }

    /// Writes the private key to a new file that only its owner can read. Errors: `BadRequest` where
    /// there is a file already: a key is never overwritten.
    pub fn save(&self, path: &Path) -> Result<(), Reason> {
        match durable::create_key_file(path, self.pem().as_bytes()) {
            Err(error) if error.source.kind() == std::io::ErrorKind::AlreadyExists => {
                let detail =
                    format!("key file {}: exists already; keys are never overwritten", path.display());
                Err(Reason::new(ReasonCode::BadRequest, detail))
            }
            written => Ok(written?),
        }
    }

    /// Reads a private key. Errors: `BadRequest` where the file is no ed25519 key in PKCS#8 PEM or where
    /// others than its owner may read it.
    pub fn load(path: &Path) -> Result<Self, Reason> {
        let bad =
            |what: &str| Reason::new(ReasonCode::BadRequest, format!("key file {}: {what}", path.display()));
        let metadata = fs::metadata(path).map_err(failed("read key file", path))?;
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(bad("others than its owner may read it; run chmod 600 on it"));
        }
        if metadata.len() > MAX_FILE {
            return Err(bad("too long for a key; expected PKCS#8 PEM"));
        }
        let text = fs::read_to_string(path).map_err(failed("read key file", path))?;
        let expected = "expected an unencrypted ed25519 key in PKCS#8 PEM, as `openssl genpkey -algorithm ed25519` writes it";
        let body =
            text.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END)).ok_or_else(|| bad(expected))?.0;
        let body: String = body.split_whitespace().collect();
        let der = STANDARD.decode(body).map_err(|_| bad(expected))?;
        let seed = der.strip_prefix(&PKCS8_PREFIX).ok_or_else(|| bad(expected))?;
        Self::from_seed(seed.try_into().map_err(|_| bad(expected))?)
    }
}

/// Every `*.pem` key of a folder, in the order of the names, a copy of one only once.
pub fn load_all(dir: &Path) -> Result<Vec<Key>, Reason> {
    let mut keys: Vec<Key> = Vec::new();
    for path in files(dir)? {
        let key = Key::load(&path)?;
        if keys.iter().all(|known| known.id() != key.id()) {
            keys.push(key);
        }
    }
    Ok(keys)
}

/// The `*.pem` files of a folder, sorted; none where there is no folder.
pub fn files(dir: &Path) -> Result<Vec<PathBuf>, Reason> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed("list key folder", dir))?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed("list key folder", dir))?.path();
        if path.extension().is_some_and(|extension| extension == "pem") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// A public key as TUF metadata carries it.
pub(super) fn public_value(key: &[u8; 32]) -> Value {
    json!({
        "keytype": "ed25519",
        "scheme": "ed25519",
        "keyval": { "public": hex::encode(key) },
    })
}

/// The key id of a public key.
pub(super) fn id_of(public: &[u8; 32]) -> Result<Digest, Reason> {
    Ok(sha256(&super::tuf::canonical(&public_value(public))?))
}

/// The key id of a public key as TUF metadata carries it.
pub(super) fn key_id(public: &Value) -> Result<String, Reason> {
    Ok(sha256(&super::tuf::canonical(public)?).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_file_which_only_its_owner_can_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pem");
        let key = Key::generate().unwrap();
        key.save(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(key.save(&path).unwrap_err().code, ReasonCode::BadRequest);
        let again = &load_all(dir.path()).unwrap()[0];
        assert_eq!(again.id(), key.id());
        assert_eq!(again.sign(b"x"), key.sign(b"x"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Key::load(&path).unwrap_err().detail.contains("chmod 600"));
    }

    #[test]
    fn the_example_of_rfc_8410_is_read_and_rubbish_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pem");
        let write = |text: &str| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        };
        write(&format!("{BEGIN}\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n{END}\n"));
        let public = Key::load(&path).unwrap().public();
        // The public key of RFC 8410, section 10.1.
        assert_eq!(
            public["keyval"]["public"],
            "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1"
        );
        for bad in ["", "x", &format!("{BEGIN}\nAAAA\n{END}"), &format!("{BEGIN}{END}")] {
            write(bad);
            assert_eq!(Key::load(&path).unwrap_err().code, ReasonCode::BadRequest, "{bad}");
        }
    }
}
