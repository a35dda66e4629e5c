//! The cryptography under the TUF client: ed25519 and SHA-2, nothing else.
//!
//! The only file that names `sigstore_crypto` and `sigstore_types`. Other schemes are refused, so a key
//! of another kind counts for no threshold. The conformance program (`tests/conformance`) takes this file in
//! and adds a scheme for itself alone.

use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use sigstore_crypto::{CryptoProvider, Error, HashContext, Result, SigningScheme};
use sigstore_types::HashAlgorithm;

/// Makes this process verify with [`Provider`]; calling it again changes nothing.
pub(super) fn install() {
    // An error means that a provider is installed already: this one, or the conformance program's.
    let _ = sigstore_crypto::install_default_provider(&Provider);
}

/// ed25519 by `ed25519-dalek`, SHA-2 by `sha2`.
#[derive(Debug)]
pub(super) struct Provider;

/// A running SHA-2.
struct Running<H>(H);

impl<H: sha2::Digest + Send> HashContext for Running<H> {
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn finalize(self: Box<Self>) -> Vec<u8> {
        self.0.finalize().to_vec()
    }
}

impl CryptoProvider for Provider {
    fn hash(&self, algorithm: HashAlgorithm) -> Result<Box<dyn HashContext>> {
        match algorithm {
            HashAlgorithm::Sha2256 => Ok(Box::new(Running(Sha256::new()))),
            HashAlgorithm::Sha2384 => Ok(Box::new(Running(Sha384::new()))),
            HashAlgorithm::Sha2512 => Ok(Box::new(Running(Sha512::new()))),
            other => Err(Error::UnsupportedAlgorithm(other.to_string())),
        }
    }

    fn verify_raw(&self, scheme: SigningScheme, key: &[u8], data: &[u8], signature: &[u8]) -> Result<()> {
        if scheme != SigningScheme::Ed25519 {
            return Err(Error::UnsupportedAlgorithm(scheme.name().to_owned()));
        }
        let key: &[u8; 32] = key.try_into().map_err(|_| Error::InvalidKey("not 32 bytes".to_owned()))?;
        let key = VerifyingKey::from_bytes(key).map_err(|error| Error::InvalidKey(error.to_string()))?;
        let signature =
            Signature::from_slice(signature).map_err(|error| Error::Verification(error.to_string()))?;
        // Strict: weak keys and malleable signatures, which some verifiers let pass, are refused.
        key.verify_strict(data, &signature).map_err(|error| Error::Verification(error.to_string()))
    }

    fn verify_prehashed(&self, scheme: SigningScheme, _: &[u8], _: &[u8], _: &[u8]) -> Result<()> {
        Err(Error::UnsupportedAlgorithm(format!("{} over a digest", scheme.name())))
    }
}
