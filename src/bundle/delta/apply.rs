//! From a delta and the old file to the new one, a block at a time.

use super::DeltaError;
use super::format::{self, Head, Kind, MAX_HEAD, MIN_BLOCK, take};
use super::planes::{self, Places};
use super::zstd;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

/// A file that is read wherever a delta says.
pub trait Old {
    /// Its bytes.
    fn length(&self) -> u64;
    /// Fills `buffer` from `at` on. Errors: also where it has fewer bytes.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()>;
}

/// An old file on a disk; read where it is needed, never held.
#[derive(Debug)]
pub struct OldFile {
    file: File,
    length: u64,
}

impl OldFile {
    /// Takes an open file.
    ///
    /// # Errors
    /// What the system says when it is asked for its length.
    pub fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { file, length })
    }
}

impl Old for OldFile {
    fn length(&self) -> u64 {
        self.length
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, at)
    }
}

impl Old for &[u8] {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let range = usize::try_from(at).ok().and_then(|at| self.get(at..)?.get(..buffer.len()));
        buffer.copy_from_slice(range.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Buffers that are used again for each block.
#[derive(Default)]
struct Buffers {
    packed: Vec<u8>,
    prefix: Vec<u8>,
    plain: Vec<u8>,
    planes: Vec<u8>,
    out: Vec<u8>,
}

/// Writes the file that `delta` leads to: exactly `size` bytes, or an error after fewer. Whether they are the right
/// ones is the caller's to check. `progress` hears the bytes written so far.
///
/// # Errors
/// What is wrong with the delta or with the files.
pub fn apply(
    old: Option<&dyn Old>,
    delta: &mut dyn Read,
    size: u64,
    out: &mut dyn Write,
    progress: &dyn Fn(u64),
) -> Result<(), DeltaError> {
    let mut magic = [0; format::MAGIC.len()];
    fill(delta, &mut magic)?;
    if magic != format::MAGIC {
        return Err(DeltaError::Malformed("it does not begin as one"));
    }
    let empty: &[u8] = &[];
    let old = old.unwrap_or(&empty);
    let mut buffers = Buffers::default();
    let mut done = 0;
    loop {
        let length = number(delta)?;
        if length == 0 {
            break;
        }
        let length = usize::try_from(length).ok().filter(|length| *length <= MAX_HEAD);
        let mut head = vec![0; length.ok_or(DeltaError::Malformed("a head is too long"))?];
        fill(delta, &mut head)?;
        let head = Head::read(&head, done)?;
        let gives = head.length() as u64;
        let left = size - done;
        if gives > left {
            return Err(DeltaError::Size);
        }
        if gives < MIN_BLOCK as u64 && gives < left {
            return Err(DeltaError::Malformed("a block is too short"));
        }
        block(&head, old, delta, &mut buffers)?;
        out.write_all(&buffers.out).map_err(DeltaError::Write)?;
        done += gives;
        progress(done);
    }
    if done == size { Ok(()) } else { Err(DeltaError::Size) }
}

/// Makes a block's bytes in `buffers.out`.
fn block(head: &Head, old: &dyn Old, delta: &mut dyn Read, buffers: &mut Buffers) -> Result<(), DeltaError> {
    let Buffers { packed, prefix, plain, planes, out } = buffers;
    let places = Places::of(&head.pieces);

    sized(prefix, head.prefix);
    old_bytes(old, head.prefix_at, prefix)?;
    sized(packed, head.plain);
    fill(delta, packed)?;
    sized(plain, head.plain_length());
    zstd::unpack(packed, prefix, plain)?;

    sized(packed, head.planes);
    fill(delta, packed)?;
    sized(planes, places.length);
    zstd::unpack(packed, &[], planes)?;

    sized(out, head.length());
    let (mut at, mut used) = (0, 0);
    for piece in &head.pieces {
        let into = &mut out[at..at + piece.length];
        match piece.kind {
            Kind::Plain => {
                into.copy_from_slice(&plain[used..used + piece.length]);
                used += piece.length;
            }
            Kind::Copy | Kind::Delta(_) => old_bytes(old, piece.old, into)?,
            Kind::Split(_) => {}
        }
        at += piece.length;
    }
    places.walk(&head.pieces, |piece, at, first, step| {
        if let Some(width) = piece.kind.width() {
            let is_delta = piece.kind.is_old();
            planes::join(&planes[first..], step, width, is_delta, &mut out[at..at + piece.length]);
        }
    });
    Ok(())
}

/// Makes a buffer so long; what is in it is written over.
fn sized(buffer: &mut Vec<u8>, length: usize) {
    buffer.resize(length, 0);
}

fn old_bytes(old: &dyn Old, at: u64, buffer: &mut [u8]) -> Result<(), DeltaError> {
    if buffer.is_empty() {
        return Ok(());
    }
    if at.checked_add(buffer.len() as u64).is_none_or(|end| end > old.length()) {
        return Err(DeltaError::Malformed("it asks for what the old file does not have"));
    }
    old.read_at(buffer, at).map_err(DeltaError::Old)
}

fn fill(delta: &mut dyn Read, buffer: &mut [u8]) -> Result<(), DeltaError> {
    delta.read_exact(buffer).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => DeltaError::Malformed("it is cut short"),
        _ => DeltaError::Read(error),
    })
}

/// The next number of the delta itself.
fn number(delta: &mut dyn Read) -> Result<u64, DeltaError> {
    let mut bytes = Vec::with_capacity(10);
    loop {
        let mut byte = [0];
        fill(delta, &mut byte)?;
        bytes.push(byte[0]);
        if byte[0] & 0x80 == 0 || bytes.len() == 10 {
            return take(&mut &bytes[..]).ok_or(DeltaError::Malformed("a number is too long"));
        }
    }
}
