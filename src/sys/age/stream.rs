//! The content of an encrypted file: pieces of 64 KiB, each with a tag, numbered, the last one marked, so that
//! none can be changed, moved, left out or added (the STREAM construction with ChaCha20-Poly1305).

use super::AgeError;
use super::header::aead;
use ring::aead::{Aad, NONCE_LEN, Nonce};
use std::io::{self, Read, Write};
use zeroize::Zeroizing;

/// Bytes of a piece, and of its tag.
const PIECE: usize = 64 << 10;
const TAG: usize = 16;

/// Number and mark of a piece: 11 bytes and 1.
fn nonce(number: u64, last: bool) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[3..11].copy_from_slice(&number.to_be_bytes());
    bytes[11] = u8::from(last);
    Nonce::assume_unique_for_key(bytes)
}

/// Encrypts all that `from` gives. `progress` hears the bytes done so far.
pub fn encrypt(
    key: &[u8; 32],
    from: &mut dyn Read,
    to: &mut dyn Write,
    progress: &dyn Fn(u64),
) -> Result<(), AgeError> {
    let key = aead(key);
    let mut pieces = Pieces::new(from, PIECE);
    let mut done = 0;
    for number in 0.. {
        let (piece, last) = pieces.next()?;
        done += piece.len() as u64;
        let tag = key
            .seal_in_place_separate_tag(nonce(number, last), Aad::empty(), piece)
            .unwrap_or_else(|_| unreachable!("64 KiB are not too much"));
        to.write_all(piece)?;
        to.write_all(tag.as_ref())?;
        progress(done);
        if last {
            break;
        }
    }
    Ok(())
}

/// Decrypts content of `size` bytes.
pub fn decrypt(key: &[u8; 32], from: &mut dyn Read, size: usize) -> Result<Zeroizing<Vec<u8>>, AgeError> {
    let key = aead(key);
    let mut pieces = Pieces::new(from, PIECE + TAG);
    let mut content = Zeroizing::new(Vec::with_capacity(size));
    for number in 0.. {
        let (piece, last) = pieces.next()?;
        let opened = key
            .open_in_place(nonce(number, last), Aad::empty(), piece)
            .map_err(|_| AgeError::Damaged("its content was changed or cut short"))?;
        // An empty piece ends an empty file and no other.
        let wrong = opened.is_empty() && number > 0;
        if wrong || content.len() + opened.len() > size {
            return Err(AgeError::Damaged("its content has another length"));
        }
        content.extend_from_slice(opened);
        if last {
            break;
        }
    }
    if content.len() == size { Ok(content) } else { Err(AgeError::Damaged("its content has another length")) }
}

/// What is read, in pieces of one length but the last, of which it is known that it is the last.
struct Pieces<'a> {
    from: &'a mut dyn Read,
    length: usize,
    /// One byte longer than a piece, to see whether there is another.
    room: Zeroizing<Vec<u8>>,
    /// The first byte of the next piece, where there is one.
    ahead: Option<u8>,
}

impl<'a> Pieces<'a> {
    fn new(from: &'a mut dyn Read, length: usize) -> Self {
        Self { from, length, room: Zeroizing::new(vec![0; length + 1]), ahead: None }
    }

    fn next(&mut self) -> io::Result<(&mut [u8], bool)> {
        let mut held = 0;
        if let Some(first) = self.ahead.take() {
            self.room[0] = first;
            held = 1;
        }
        while held < self.room.len() {
            match self.from.read(&mut self.room[held..]) {
                Ok(0) => break,
                Ok(got) => held += got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if held > self.length {
            self.ahead = Some(self.room[self.length]);
        }
        let last = self.ahead.is_none();
        Ok((&mut self.room[..held.min(self.length)], last))
    }
}
