//! ECDSA P-256 keys in PEM, as `openssl` and the tool `model_signing` read and write them. The curve is
//! `ring`'s, which the program has for TLS.

use crate::bundle::files::sha256;
use crate::domain::{Reason, ReasonCode};
use crate::sys::durable::failed;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use rustls::pki_types::pem::{PemObject, SectionKind};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use zeroize::Zeroizing;

/// Longest key file read, bytes.
const MAX_FILE: u64 = 16 << 10;
/// What precedes the 65 bytes of an uncompressed point in the DER of a P-256 public key (RFC 5480).
pub(super) const SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// Algorithm and curve in that DER, as PKCS#8 has them too.
const ALGORITHM: std::ops::Range<usize> = 2..23;
/// Letters of a line in PEM.
const LINE: usize = 64;

/// Whose signatures are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    pub(super) point: Vec<u8>,
}

impl PublicKey {
    /// Reads a public key.
    ///
    /// # Errors
    /// `BadRequest` for a file that cannot be read or is no P-256 public key in PEM.
    pub fn load(path: &Path) -> Result<Self, Reason> {
        let bad = |what: String| {
            Reason::new(ReasonCode::BadRequest, format!("public key {}: {what}", path.display()))
        };
        let mut text = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_FILE).read_to_end(&mut text))
            .map_err(|error| bad(error.to_string()))?;
        Self::of_pem(&text).ok_or_else(|| {
            bad("expected an ECDSA P-256 public key in PEM, as `openssl pkey -pubout` writes it".into())
        })
    }

    fn of_pem(text: &[u8]) -> Option<Self> {
        let (SectionKind::PublicKey, der) = section(text)? else { return None };
        let point = der.strip_prefix(&SPKI)?;
        (point.len() == 65 && point[0] == 4).then(|| Self { point: point.to_vec() })
    }

    /// SHA-256 of its PEM text in hexadecimal digits: how the format names a key.
    pub fn id(&self) -> String {
        let body = BASE64.encode([&SPKI[..], &self.point].concat());
        let mut text = "-----BEGIN PUBLIC KEY-----\n".to_owned();
        for at in (0..body.len()).step_by(LINE) {
            text += &body[at..body.len().min(at + LINE)];
            text.push('\n');
        }
        text += "-----END PUBLIC KEY-----\n";
        sha256(text.as_bytes()).to_string()
    }

    /// Whether this key made the signature (ASN.1 DER) of these bytes.
    pub fn verifies(&self, bytes: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.point).verify(bytes, signature).is_ok()
    }
}

/// The first key in a PEM text.
fn section(text: &[u8]) -> Option<(SectionKind, Vec<u8>)> {
    let mut all = <(SectionKind, Vec<u8>)>::pem_slice_iter(text).map_while(Result::ok);
    all.find(|(kind, _)| {
        matches!(kind, SectionKind::PublicKey | SectionKind::PrivateKey | SectionKind::EcPrivateKey)
    })
}

/// What makes signatures.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey of {}", self.public().id())
    }
}

impl SigningKey {
    /// Reads a private key: PKCS#8 or SEC 1, not encrypted.
    ///
    /// # Errors
    /// `BadRequest` for a file that is no such key or that others than its owner may read.
    pub fn load(path: &Path) -> Result<Self, Reason> {
        let bad =
            |what: &str| Reason::new(ReasonCode::BadRequest, format!("key file {}: {what}", path.display()));
        let expected = "expected an unencrypted ECDSA P-256 key in PEM, as `openssl ecparam -name prime256v1 -genkey \
                        -noout` writes it";
        let file = File::open(path).map_err(failed("open key file", path))?;
        let metadata = file.metadata().map_err(failed("read key file", path))?;
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(bad("others than its owner may read it; run chmod 600 on it"));
        }
        let mut text = Zeroizing::new(Vec::new());
        file.take(MAX_FILE).read_to_end(&mut text).map_err(failed("read key file", path))?;
        let (kind, der) = section(&text).ok_or_else(|| bad(expected))?;
        let der = Zeroizing::new(der);
        let der = match kind {
            SectionKind::PrivateKey => der,
            SectionKind::EcPrivateKey => pkcs8(&der),
            _ => return Err(bad(expected)),
        };
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &der, &random);
        Ok(Self { pair: pair.map_err(|error| bad(&format!("{error}; {expected}")))?, random })
    }

    /// Its public part.
    pub fn public(&self) -> PublicKey {
        PublicKey { point: self.pair.public_key().as_ref().to_vec() }
    }

    /// The signature of these bytes, ASN.1 DER.
    ///
    /// # Errors
    /// `Internal` when the system gives no random numbers.
    pub fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, Reason> {
        let signature = self.pair.sign(&self.random, bytes);
        let signature = signature
            .map_err(|_| Reason::new(ReasonCode::Internal, "sign the model: no random numbers; try again"))?;
        Ok(signature.as_ref().to_vec())
    }
}

/// A SEC 1 key in the envelope of PKCS#8.
fn pkcs8(sec1: &[u8]) -> Zeroizing<Vec<u8>> {
    let version = [0x02, 0x01, 0x00];
    let key = der(0x04, sec1);
    der(0x30, &Zeroizing::new([&version[..], &SPKI[ALGORITHM], &key[..]].concat()))
}

/// A value with its tag and its length, of at most 64 KiB.
fn der(tag: u8, content: &[u8]) -> Zeroizing<Vec<u8>> {
    let length = (content.len() as u16).to_be_bytes();
    let head = match content.len() {
        ..128 => vec![tag, length[1]],
        128..256 => vec![tag, 0x81, length[1]],
        _ => vec![tag, 0x82, length[0], length[1]],
    };
    Zeroizing::new([&head[..], content].concat())
}
