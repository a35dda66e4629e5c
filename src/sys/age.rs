//! Files encrypted for holders of keys: the `age` format, version 1 (<https://age-encryption.org/v1>), with
//! X25519 recipients, so that the tools `age` and `age-keygen` read and write the same files and keys.
//!
//! Only the format is written here: X25519 is `x25519-dalek`'s; HKDF, HMAC and ChaCha20-Poly1305 are those of
//! `ring`, which the program has for TLS. The crate `age` (0.11.5, without any feature) adds half a megabyte to a
//! program that only encrypts and decrypts one file, built as ours is, and 67 packages that we do not have, among
//! them a second X25519 and a second SHA-2 of an older generation, scrypt, and the translation of its messages.
//! `hpke` would leave all of the file's format to us, and no tool that people have opens it. The tests run this
//! against the tool `age` and the format's public test vectors.
//!
//! A file is a header, which wraps the file's own key for each recipient (`header`), and the content in
//! pieces (`stream`). Whoever opens the header holds a [`ContentKey`]: it opens this one file, and says
//! nothing about the key that opened it.

mod header;
mod stream;

pub use header::MAX_RECIPIENTS;

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32, Hrp};
use ring::hkdf::{HKDF_SHA256, Salt};
use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// Beginning of a recipient's text.
const RECIPIENT: &str = "age";
/// Beginning of an identity's text.
const IDENTITY: &str = "AGE-SECRET-KEY-";
/// Room for the file of one key, bytes: it takes 154.
const KEY_FILE: usize = 256;
/// Longest file with identities, bytes.
pub const MAX_KEY_FILE: u64 = 64 << 10;

/// Why a file cannot be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum AgeError {
    /// It is no such file, or was changed or cut short.
    #[error("{0}")]
    Damaged(&'static str),
    /// It was encrypted for others.
    #[error("none of the keys opens it")]
    NoKey,
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The system gives no random numbers.
    #[error("no random numbers: {0}")]
    Random(getrandom::Error),
}

/// Whom a file can be encrypted for: a public X25519 key, as text `age1…`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Recipient([u8; 32]);

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            &bech32::encode::<Bech32>(Hrp::parse_unchecked(RECIPIENT), &self.0).map_err(|_| fmt::Error)?,
        )
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Recipient {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown: String = text.chars().take(80).collect();
        let fault =
            || format!("\"{shown}\" is no recipient; write age1… with 58 letters and digits behind it");
        let bytes = decoded(text, RECIPIENT).ok_or_else(fault)?;
        let recipient = Self(**bytes);
        // One spelling for one key, so that texts can be compared.
        if recipient.to_string() == text { Ok(recipient) } else { Err(fault()) }
    }
}

/// What opens files that were encrypted for its recipient: a private X25519 key. Wiped when it goes, and in one
/// place until then: a list of keys that grows, and a key that is handed on, move a pointer.
#[derive(Clone)]
pub struct Identity(Box<StaticSecret>);

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity of {}", self.recipient())
    }
}

impl Identity {
    /// A new key from the system's random numbers.
    ///
    /// # Errors
    /// `Random`.
    pub fn generate() -> Result<Self, AgeError> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut_slice()).map_err(AgeError::Random)?;
        Ok(Self(Box::new(StaticSecret::from(*bytes))))
    }

    /// Whom to encrypt for, so that this key opens it.
    pub fn recipient(&self) -> Recipient {
        Recipient(*PublicKey::from(&*self.0).as_bytes())
    }

    /// A key file with this key, as `age-keygen` writes it.
    pub fn key_file(&self) -> Zeroizing<String> {
        // Room for all of it: growing would leave pieces behind.
        let mut text = Zeroizing::new(String::with_capacity(KEY_FILE));
        *text += &format!("# public key: {}\n", self.recipient());
        let identity = Hrp::parse_unchecked(IDENTITY);
        // Its length is fixed and within what the encoding allows.
        let _ = bech32::encode_upper_to_fmt::<Bech32, String>(&mut text, identity, self.0.as_bytes());
        *text += "\n";
        text
    }

    /// The keys of a key file: one a line, beside comments and empty lines.
    ///
    /// # Errors
    /// The line that is no key, without what stands in it.
    pub fn of_key_file(text: &str) -> Result<Vec<Self>, String> {
        let mut found = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = decoded(line, IDENTITY).filter(|_| line.starts_with(IDENTITY)).ok_or_else(|| {
                format!("line {} is no key; expected {IDENTITY}1…, as `age-keygen` writes it", at + 1)
            })?;
            found.push(Self(Box::new(StaticSecret::from(**key))));
        }
        if found.is_empty() { Err("holds no key; `age-keygen` writes one".into()) } else { Ok(found) }
    }
}

/// The 32 bytes of a text with this beginning.
fn decoded(text: &str, beginning: &str) -> Option<Box<Zeroizing<[u8; 32]>>> {
    let parsed = CheckedHrpstring::new::<Bech32>(text).ok()?;
    if parsed.hrp() != Hrp::parse_unchecked(beginning) {
        return None;
    }
    let mut bytes = Box::new(Zeroizing::new([0; 32]));
    let mut all = parsed.byte_iter();
    for byte in bytes.iter_mut() {
        *byte = all.next()?;
    }
    all.next().is_none().then_some(bytes)
}

/// What opens the content of one file.
#[derive(Clone, PartialEq, Eq)]
pub struct ContentKey {
    key: Zeroizing<[u8; 32]>,
    /// Where the content begins, bytes.
    at: u64,
}

impl fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContentKey")
    }
}

impl ContentKey {
    /// Reads the header of a file with whichever of the keys opens it.
    ///
    /// # Errors
    /// `NoKey`, `Damaged`, or what reading says.
    pub fn of(file: &mut dyn Read, identities: &[Identity]) -> Result<Self, AgeError> {
        let mut file = io::BufReader::new(file);
        let header = header::Header::read(&mut file)?;
        let file_key = header.file_key(identities)?;
        let mut nonce = [0; NONCE];
        file.read_exact(&mut nonce).map_err(cut_short)?;
        Ok(Self { key: content_key(&file_key, &nonce), at: header.length() + NONCE as u64 })
    }

    /// Decrypts the content of the whole file into memory: `size` bytes, which is made room for once, so
    /// that nothing of it is left behind by growing. It is wiped when it goes.
    ///
    /// # Errors
    /// `Damaged` for another length and for bytes that were changed, or what reading says.
    pub fn decrypt(&self, file: &mut dyn Read, size: usize) -> Result<Zeroizing<Vec<u8>>, AgeError> {
        io::copy(&mut Read::take(&mut *file, self.at), &mut io::sink())?;
        stream::decrypt(&self.key, file, size)
    }
}

/// Encrypts all that `from` gives for the recipients. `progress` hears the bytes done so far.
///
/// # Errors
/// What reading and writing say, and `Damaged` where there is no recipient or one is no point of the curve's
/// large group.
pub fn encrypt(
    from: &mut dyn Read,
    to: &mut dyn Write,
    recipients: &[Recipient],
    progress: &dyn Fn(u64),
) -> Result<(), AgeError> {
    let file_key = Zeroizing::new(random::<FILE_KEY>()?);
    let nonce = random::<NONCE>()?;
    to.write_all(&header::write(&file_key, recipients)?)?;
    to.write_all(&nonce)?;
    stream::encrypt(&content_key(&file_key, &nonce), from, to, progress)
}

/// Bytes of a file's own key, and of the nonce that its content's key is derived with.
const FILE_KEY: usize = 16;
const NONCE: usize = 16;

fn content_key(file_key: &[u8; FILE_KEY], nonce: &[u8; NONCE]) -> Zeroizing<[u8; 32]> {
    derived(file_key, nonce, b"payload")
}

/// HKDF with SHA-256: 32 bytes.
fn derived(secret: &[u8], salt: &[u8], info: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    let extracted = Salt::new(HKDF_SHA256, salt).extract(secret);
    let info = [info];
    let filled = extracted.expand(&info, HKDF_SHA256).and_then(|okm| okm.fill(key.as_mut_slice()));
    filled.unwrap_or_else(|_| unreachable!("it is as long as one hash"));
    key
}

fn random<const N: usize>() -> Result<[u8; N], AgeError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(AgeError::Random)?;
    Ok(bytes)
}

fn cut_short(error: io::Error) -> AgeError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => AgeError::Damaged("cut short"),
        _ => AgeError::Io(error),
    }
}

#[cfg(test)]
mod tests;
