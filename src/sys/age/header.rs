//! The header of an encrypted file: the file's own key, wrapped for each recipient, and a MAC over all of it.
//!
//! ```text
//! age-encryption.org/v1
//! -> X25519 <ephemeral share>
//! <wrapped file key>
//! --- <MAC>
//! ```
//!
//! Binary parts are unpadded base64 of the one canonical spelling, in lines of 64 letters. Stanzas of other
//! kinds are read and passed over, so that a file may have further recipients that the tool `age` knows.

use super::{AgeError, FILE_KEY, Identity, Recipient, derived, random};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use std::io::{BufRead, Read};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

const VERSION: &str = "age-encryption.org/v1";
const KIND: &str = "X25519";
/// Who knows a passphrase must be the only one: else the others' files could be made to look like theirs.
const PASSPHRASE: &str = "scrypt";
const INFO: &[u8] = b"age-encryption.org/v1/X25519";
/// Bytes of the MAC.
const MAC: usize = 32;
/// Letters of a full line.
const LINE: usize = 64;
/// Longest header, bytes: some hundreds of recipients.
const MAX_HEADER: u64 = 256 << 10;
/// Most recipients of one file.
pub const MAX_RECIPIENTS: usize = 256;

/// A header that was read and not opened yet.
pub struct Header {
    stanzas: Vec<Stanza>,
    mac: [u8; MAC],
    /// All of it up to the MAC, which covers it.
    covered: Vec<u8>,
    length: u64,
}

/// The file's key for one recipient: share and wrapped key.
struct Stanza {
    share: [u8; 32],
    wrapped: [u8; FILE_KEY + 16],
}

impl Header {
    /// Reads a header and nothing behind it.
    ///
    /// # Errors
    /// `Damaged`, or what reading says.
    pub fn read(file: &mut dyn BufRead) -> Result<Self, AgeError> {
        let mut lines = Lines { file: file.take(MAX_HEADER), read: Vec::new() };
        if lines.next()? != VERSION {
            return Err(AgeError::Damaged("not encrypted with age"));
        }
        let (mut stanzas, mut count, mut alone) = (Vec::new(), 0, false);
        loop {
            let before = lines.read.len();
            let line = lines.next()?;
            if let Some(mac) = line.strip_prefix("--- ") {
                let mac: [u8; MAC] = binary(mac)?.try_into().map_err(|_| FAULT)?;
                if alone && count > 1 {
                    return Err(FAULT);
                }
                let covered = lines.read[..before + "---".len()].to_vec();
                return Ok(Self { stanzas, mac, covered, length: lines.read.len() as u64 });
            }
            let arguments = line.strip_prefix("-> ").ok_or(FAULT)?.to_owned();
            let body = lines.body()?;
            count += 1;
            alone |= arguments.split(' ').next() == Some(PASSPHRASE);
            stanzas.extend(Stanza::of(&arguments, &body)?);
        }
    }

    /// Its length, bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The file's own key, by whichever of the keys opens it; the MAC was checked with it.
    ///
    /// # Errors
    /// `NoKey`, or `Damaged` where the MAC is another.
    pub fn file_key(&self, identities: &[Identity]) -> Result<Zeroizing<[u8; FILE_KEY]>, AgeError> {
        for stanza in &self.stanzas {
            for identity in identities {
                let Some(key) = stanza.open(identity)? else { continue };
                hmac::verify(&mac_key(&key), &self.covered, &self.mac)
                    .map_err(|_| AgeError::Damaged("its header was changed"))?;
                return Ok(key);
            }
        }
        Err(AgeError::NoKey)
    }
}

const FAULT: AgeError = AgeError::Damaged("its header breaks the rules of age");

impl Stanza {
    /// `None` for one of another kind.
    fn of(arguments: &str, body: &[u8]) -> Result<Option<Self>, AgeError> {
        let mut words = arguments.split(' ');
        if words.clone().any(|word| word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(FAULT);
        }
        if words.next() != Some(KIND) {
            return Ok(None);
        }
        let (Some(share), None) = (words.next(), words.next()) else { return Err(FAULT) };
        let share: [u8; 32] = binary(share)?.try_into().map_err(|_| FAULT)?;
        Ok(Some(Self { share, wrapped: body.try_into().map_err(|_| FAULT)? }))
    }

    /// The wrapped key; `None` where it was wrapped for another.
    fn open(&self, identity: &Identity) -> Result<Option<Zeroizing<[u8; FILE_KEY]>>, AgeError> {
        let shared = identity.0.diffie_hellman(&PublicKey::from(self.share));
        if !shared.was_contributory() {
            return Err(FAULT);
        }
        let key = wrapping_key(shared.as_bytes(), &self.share, &identity.recipient());
        let mut bytes = Zeroizing::new(self.wrapped);
        let Ok(opened) = key.open_in_place(zero(), Aad::empty(), bytes.as_mut_slice()) else {
            return Ok(None);
        };
        let mut file_key = Zeroizing::new([0; FILE_KEY]);
        file_key.copy_from_slice(opened);
        Ok(Some(file_key))
    }
}

/// A header that wraps the key for each recipient.
///
/// # Errors
/// `Damaged` where there are none or too many, or where one is no point of the curve's large group; `Random`.
pub fn write(file_key: &[u8; FILE_KEY], recipients: &[Recipient]) -> Result<Vec<u8>, AgeError> {
    if recipients.is_empty() || recipients.len() > MAX_RECIPIENTS {
        return Err(AgeError::Damaged("use 1 to 256 recipients; many devices share a group's key"));
    }
    let mut text = format!("{VERSION}\n");
    for recipient in recipients {
        let secret = StaticSecret::from(*Zeroizing::new(random::<32>()?));
        let share = *PublicKey::from(&secret).as_bytes();
        let shared = secret.diffie_hellman(&PublicKey::from(recipient.0));
        if !shared.was_contributory() {
            return Err(AgeError::Damaged("a recipient is no usable key"));
        }
        let key = wrapping_key(shared.as_bytes(), &share, recipient);
        let mut wrapped = file_key.to_vec();
        key.seal_in_place_append_tag(zero(), Aad::empty(), &mut wrapped)
            .unwrap_or_else(|_| unreachable!("16 bytes are not too many"));
        let body = BASE64.encode(wrapped);
        text += &format!("-> {KIND} {}\n{body}\n", BASE64.encode(share));
    }
    text += "---";
    let mac = hmac::sign(&mac_key(file_key), text.as_bytes());
    text += &format!(" {}\n", BASE64.encode(mac));
    Ok(text.into_bytes())
}

/// What a file's key is wrapped with for one recipient; used once, so the nonce may be zero.
fn wrapping_key(shared: &[u8; 32], share: &[u8; 32], recipient: &Recipient) -> LessSafeKey {
    aead(&derived(shared, &[&share[..], &recipient.0[..]].concat(), INFO))
}

/// ChaCha20-Poly1305.
pub(super) fn aead(key: &[u8; 32]) -> LessSafeKey {
    let key = UnboundKey::new(&CHACHA20_POLY1305, key);
    LessSafeKey::new(key.unwrap_or_else(|_| unreachable!("32 bytes are a key")))
}

fn zero() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

fn mac_key(file_key: &[u8; FILE_KEY]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, derived(file_key, &[], b"header").as_slice())
}

/// Canonical base64 without padding.
fn binary(text: &str) -> Result<Vec<u8>, AgeError> {
    BASE64.decode(text).map_err(|_| FAULT)
}

/// The lines of a header, all kept.
struct Lines<'a> {
    file: std::io::Take<&'a mut dyn BufRead>,
    read: Vec<u8>,
}

impl Lines<'_> {
    /// The next one without its end.
    fn next(&mut self) -> Result<&str, AgeError> {
        let before = self.read.len();
        self.file.read_until(b'\n', &mut self.read)?;
        let line = self.read[before..].strip_suffix(b"\n");
        line.and_then(|line| std::str::from_utf8(line).ok()).ok_or(if before == 0 {
            AgeError::Damaged("not encrypted with age")
        } else {
            AgeError::Damaged("its header is cut short or too long")
        })
    }

    /// A stanza's body: full lines and one that is not.
    fn body(&mut self) -> Result<Vec<u8>, AgeError> {
        let mut body = Vec::new();
        loop {
            let line = self.next()?;
            if line.len() > LINE {
                return Err(FAULT);
            }
            body.extend(binary(line)?);
            if line.len() < LINE {
                return Ok(body);
            }
        }
    }
}
