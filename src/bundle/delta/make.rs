//! Packing: from the new file, and the old one where there is one, to a delta. At the publisher's desk; takes its
//! time.

use super::DeltaError;
use super::Method;
use super::apply::Old;
use super::choose::{self, CHUNK, Region};
use super::format::{Head, Kind, MAGIC, MAX_BLOCK, MAX_PIECES, MAX_PREFIX, Piece, put};
use super::layout::Tensor;
use super::planes::{self, Places};
use super::zstd;
use std::io::Write;

/// The level of zstd: its highest that needs no more memory to unpack.
pub const LEVEL: i32 = 19;
/// Shortest prefix: what is plain is mostly like what stood near it.
const LEAST_PREFIX: u64 = 1 << 20;
/// A prefix is so many times as long as what it helps to pack.
const PREFIX_TIMES: u64 = 16;

/// A file, and where its numbers lie as far as that is known.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// Its bytes.
    pub bytes: &'a dyn Old,
    /// Where its numbers lie; may be wrong.
    pub tensors: &'a [Tensor],
}

/// Writes the delta that leads from `old` (or from nothing) to `new`, and tells what it is made of. `level`: of
/// zstd. `progress` hears the bytes of the new file done so far.
///
/// # Errors
/// Of reading and writing, and of a machine without memory.
pub fn make(
    old: Option<Source<'_>>,
    new: Source<'_>,
    level: i32,
    out: &mut dyn Write,
    progress: &dyn Fn(u64),
) -> Result<Method, DeltaError> {
    let length = new.bytes.length();
    let regions =
        choose::regions(length, new.tensors, old.map(|source| (source.bytes.length(), source.tensors)));
    out.write_all(&MAGIC).map_err(DeltaError::Write)?;
    let old = old.map(|source| source.bytes);
    let mut maker =
        Maker { old, level, out, progress, done: 0, block: Block::default(), method: Method::Zstd };
    let is_free = regions.iter().all(|region| region.width.is_none());
    for region in &regions {
        maker.region(new.bytes, region, is_free)?;
    }
    maker.flush()?;
    maker.out.write_all(&[0]).map_err(DeltaError::Write)?;
    Ok(maker.method)
}

/// The block that is being gathered.
#[derive(Default)]
struct Block {
    bytes: Vec<u8>,
    pieces: Vec<Piece>,
    /// Where the plain bytes begin and end in it, and where in the old file the first of them may stand.
    plain: Option<(usize, usize, u64)>,
}

struct Maker<'a> {
    old: Option<&'a dyn Old>,
    level: i32,
    out: &'a mut dyn Write,
    progress: &'a dyn Fn(u64),
    /// Bytes of the new file in blocks that are written.
    done: u64,
    block: Block,
    method: Method,
}

impl Maker<'_> {
    fn region(&mut self, new: &dyn Old, region: &Region, is_free: bool) -> Result<(), DeltaError> {
        let (mut at, mut end) = (region.at, region.at + region.length);
        let (mut front, mut tail) = (region.front, 0);
        if let (Some(old), false) = (self.old, region.is_paired) {
            if let Some(begin) = front {
                let same = choose::same_front(new, at, old, begin, end - at)?;
                self.copy(new, at, begin, same)?;
                at += same;
                front = Some(begin + same);
            }
            if let Some(back) = region.back {
                tail = choose::same_back(new, end, old, back, end - at)?;
                end -= tail;
                // What was taken away or put in stands before the end.
                front = front.or(Some((back - tail).saturating_sub(end - at)));
            }
        }
        while at < end {
            let length = (end - at).min(CHUNK as u64) as usize;
            let mut chunk = vec![0; length];
            new.read_at(&mut chunk, at).map_err(DeltaError::Read)?;
            let kind = choose::kind(&chunk, self.old, front, region, is_free)?;
            self.add(kind, &chunk, front.unwrap_or(0))?;
            at += length as u64;
            front = front.map(|front| front + length as u64);
        }
        if let (Some(back), 1..) = (region.back, tail) {
            self.copy(new, end, back - tail, tail)?;
        }
        Ok(())
    }

    fn copy(&mut self, new: &dyn Old, mut at: u64, mut from: u64, mut length: u64) -> Result<(), DeltaError> {
        let mut chunk = vec![0; length.min(CHUNK as u64) as usize];
        while length > 0 {
            let part = length.min(CHUNK as u64) as usize;
            new.read_at(&mut chunk[..part], at).map_err(DeltaError::Read)?;
            self.add(Kind::Copy, &chunk[..part], from)?;
            at += part as u64;
            from += part as u64;
            length -= part as u64;
        }
        Ok(())
    }

    /// Adds a piece; `from`: where it is, or may be, in the old file.
    fn add(&mut self, kind: Kind, bytes: &[u8], from: u64) -> Result<(), DeltaError> {
        if self.block.bytes.len() + bytes.len() > MAX_BLOCK || self.block.pieces.len() == MAX_PIECES {
            self.flush()?;
        }
        let block = &mut self.block;
        let begin = block.bytes.len();
        block.bytes.extend_from_slice(bytes);
        if kind == Kind::Plain {
            let (first, _, hint) = block.plain.unwrap_or((begin, begin, from));
            block.plain = Some((first, block.bytes.len(), hint));
        }
        let old = if kind.is_old() { from } else { 0 };
        match block.pieces.last_mut() {
            Some(last) if last.kind == kind && (!kind.is_old() || last.old + last.length as u64 == from) => {
                last.length += bytes.len();
            }
            _ => block.pieces.push(Piece { kind, length: bytes.len(), old }),
        }
        Ok(())
    }

    /// Writes the block.
    fn flush(&mut self) -> Result<(), DeltaError> {
        let Block { bytes, pieces, plain: span } = std::mem::take(&mut self.block);
        if bytes.is_empty() {
            return Ok(());
        }
        let mut plain = Vec::new();
        let mut at = 0;
        for piece in &pieces {
            if piece.kind == Kind::Plain {
                plain.extend_from_slice(&bytes[at..at + piece.length]);
            }
            at += piece.length;
        }
        let (prefix_at, prefix) = self.prefix(plain.len() as u64, span)?;
        let packed = zstd::pack(&plain, &prefix, self.level)?;
        let apart = self.apart(&bytes, &pieces)?;
        let numbers = zstd::pack(&apart, &[], self.level)?;

        for piece in &pieces {
            self.method = self.method.max(match piece.kind {
                Kind::Plain | Kind::Split(_) => Method::Zstd,
                Kind::Copy => Method::ZstdPatch,
                Kind::Delta(_) => Method::Planes,
            });
        }
        if !prefix.is_empty() {
            self.method = self.method.max(Method::ZstdPatch);
        }
        let head =
            Head { prefix_at, prefix: prefix.len(), plain: packed.len(), planes: numbers.len(), pieces };
        let head = head.write(self.done);
        let mut length = Vec::new();
        put(&mut length, head.len() as u64);
        for part in [length, head, packed, numbers] {
            self.out.write_all(&part).map_err(DeltaError::Write)?;
        }
        self.done += bytes.len() as u64;
        (self.progress)(self.done);
        Ok(())
    }

    /// The part of the old file that the plain bytes of a block may be like.
    fn prefix(&self, plain: u64, span: Option<(usize, usize, u64)>) -> Result<(u64, Vec<u8>), DeltaError> {
        let (Some(old), Some((first, last, hint))) = (self.old, span) else { return Ok((0, Vec::new())) };
        let most = old.length().min(MAX_PREFIX as u64);
        let length = (plain * PREFIX_TIMES + LEAST_PREFIX).min(most);
        let middle = hint + (last - first) as u64 / 2;
        let at = middle.saturating_sub(length / 2).min(old.length() - length);
        let mut bytes = vec![0; length as usize];
        old.read_at(&mut bytes, at).map_err(DeltaError::Old)?;
        Ok((at, bytes))
    }

    /// The planes of a block.
    fn apart(&self, bytes: &[u8], pieces: &[Piece]) -> Result<Vec<u8>, DeltaError> {
        let places = Places::of(pieces);
        let mut apart = vec![0; places.length];
        let mut read = Ok(());
        places.walk(pieces, |piece, at, first, step| {
            let Some(width) = piece.kind.width() else { return };
            let mut before = None;
            if let (Some(old), true) = (self.old, piece.kind.is_old()) {
                let mut bytes = vec![0; piece.length];
                if let Err(error) = old.read_at(&mut bytes, piece.old) {
                    read = Err(DeltaError::Old(error));
                    return;
                }
                before = Some(bytes);
            }
            let new = &bytes[at..at + piece.length];
            planes::split(new, before.as_deref(), width, &mut apart[first..], step);
        });
        read.map(|()| apart)
    }
}
