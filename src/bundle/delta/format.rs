//! The bytes of a delta: read as from an enemy, and written.

use super::DeltaError;

/// What a delta begins with.
pub(super) const MAGIC: [u8; 8] = *b"EWDELTA1";
/// Most bytes that a block gives.
pub(super) const MAX_BLOCK: usize = 4 << 20;
/// Fewest bytes that a block gives, but for the last one.
pub(super) const MIN_BLOCK: usize = 256 << 10;
/// Longest prefix of a block.
pub(super) const MAX_PREFIX: usize = 8 << 20;
/// Most pieces of a block.
pub(super) const MAX_PIECES: usize = 16 << 10;
/// Longest head, bytes.
pub(super) const MAX_HEAD: usize = 512 << 10;
/// Most bytes of a frame of zstd with the content of a block.
pub(super) const MAX_FRAME: usize = MAX_BLOCK + (MAX_BLOCK >> 7) + 512;

/// Widths of numbers, bytes.
pub(super) const WIDTHS: [usize; 4] = [1, 2, 4, 8];

/// Where a piece comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The plain stream.
    Plain,
    /// The old file.
    Copy,
    /// Differences to the old file; index into [`WIDTHS`].
    Delta(usize),
    /// Planes alone; index into [`WIDTHS`].
    Split(usize),
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Kind::Plain => 0,
            Kind::Copy => 4,
            Kind::Delta(width) => 8 + width as u8,
            Kind::Split(width) => 12 + width as u8,
        }
    }

    fn of(byte: u8) -> Option<Self> {
        let width = usize::from(byte & 3);
        match byte {
            0 => Some(Kind::Plain),
            4 => Some(Kind::Copy),
            8..=11 => Some(Kind::Delta(width)),
            12..=15 => Some(Kind::Split(width)),
            _ => None,
        }
    }

    /// True when it needs a place in the old file.
    pub(super) fn is_old(self) -> bool {
        matches!(self, Kind::Copy | Kind::Delta(_))
    }

    /// Its numbers' width in bytes, where it has numbers.
    pub(super) fn width(self) -> Option<usize> {
        match self {
            Kind::Plain | Kind::Copy => None,
            Kind::Delta(width) | Kind::Split(width) => Some(WIDTHS[width]),
        }
    }
}

/// A piece of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) kind: Kind,
    /// Bytes; a whole number of numbers where it has numbers.
    pub(super) length: usize,
    /// Where it begins in the old file; 0 where it needs none.
    pub(super) old: u64,
}

/// A block's head.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// Of the old file.
    pub(super) prefix_at: u64,
    pub(super) prefix: usize,
    /// Bytes of the packed streams.
    pub(super) plain: usize,
    pub(super) planes: usize,
    pub(super) pieces: Vec<Piece>,
}

impl Head {
    /// Bytes that the block gives.
    pub(super) fn length(&self) -> usize {
        self.pieces.iter().map(|piece| piece.length).sum()
    }

    /// Bytes of the plain stream, unpacked.
    pub(super) fn plain_length(&self) -> usize {
        self.pieces.iter().filter(|piece| piece.kind == Kind::Plain).map(|piece| piece.length).sum()
    }

    /// Its bytes, for a block that begins at `at`.
    pub(super) fn write(&self, at: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let numbers = [self.prefix_at, self.prefix as u64, self.plain as u64, self.planes as u64];
        numbers.into_iter().for_each(|number| put(&mut out, number));
        put(&mut out, self.pieces.len() as u64);
        let mut expected = at;
        for piece in &self.pieces {
            out.push(piece.kind.byte());
            put(&mut out, piece.length as u64);
            if piece.kind.is_old() {
                put(&mut out, zigzag(piece.old.wrapping_sub(expected) as i64));
                expected = piece.old.wrapping_add(piece.length as u64);
            }
        }
        out
    }

    /// Reads the head of a block that begins at `at`. What it says of the old file is still to be held against it.
    pub(super) fn read(mut bytes: &[u8], at: u64) -> Result<Self, DeltaError> {
        let bad = DeltaError::Malformed;
        let mut next = || take(&mut bytes).ok_or(bad("a head is cut short"));
        let prefix_at = next()?;
        let prefix = bounded(next()?, MAX_PREFIX).ok_or(bad("a prefix is too long"))?;
        let plain = bounded(next()?, MAX_FRAME).ok_or(bad("a frame is too long"))?;
        let planes = bounded(next()?, MAX_FRAME).ok_or(bad("a frame is too long"))?;
        let count = bounded(next()?, MAX_PIECES).ok_or(bad("a block has too many pieces"))?;
        let mut head = Self { prefix_at, prefix, plain, planes, pieces: Vec::with_capacity(count) };
        let (mut expected, mut total) = (at, 0);
        for _ in 0..count {
            let (byte, rest) = bytes.split_first().ok_or(bad("a head is cut short"))?;
            bytes = rest;
            let kind = Kind::of(*byte).ok_or(bad("a piece is of no known kind"))?;
            let length = take(&mut bytes).and_then(|length| bounded(length, MAX_BLOCK - total));
            let length = length.filter(|length| *length > 0).ok_or(bad("a block is too long"))?;
            total += length;
            if kind.width().is_some_and(|width| length % width != 0) {
                return Err(bad("a number is cut in two"));
            }
            let mut old = 0;
            if kind.is_old() {
                let moved = take(&mut bytes).ok_or(bad("a head is cut short"))?;
                old = expected.wrapping_add(unzigzag(moved) as u64);
                expected = old.checked_add(length as u64).ok_or(bad("a piece lies beyond all files"))?;
            }
            head.pieces.push(Piece { kind, length, old });
        }
        if !bytes.is_empty() || count == 0 {
            return Err(bad("a head is not as long as it says"));
        }
        Ok(head)
    }
}

fn bounded(number: u64, most: usize) -> Option<usize> {
    usize::try_from(number).ok().filter(|number| *number <= most)
}

/// Appends a number.
pub(super) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes a number off the front; `None` where there is none of 64 bits.
pub(super) fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for (index, byte) in bytes.iter().enumerate() {
        let bits = u64::from(byte & 0x7f);
        let shift = 7 * index as u32;
        if shift > 63 || (shift == 63 && bits > 1) {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            *bytes = &bytes[index + 1..];
            return Some(number);
        }
    }
    None
}

/// Small numbers of either sign as small numbers.
pub(super) fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

/// The other way.
pub(super) fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kind() -> impl Strategy<Value = Kind> {
        (0u8..16).prop_filter_map("a kind", Kind::of)
    }

    proptest! {
        #[test]
        fn numbers_and_heads_are_read_as_they_were_written(
            numbers in prop::collection::vec(any::<u64>(), 0..20),
            pieces in prop::collection::vec((kind(), 1usize..1000, any::<u32>()), 1..50),
            at in any::<u32>(),
        ) {
            let mut bytes = Vec::new();
            numbers.iter().for_each(|number| put(&mut bytes, *number));
            let mut rest = &bytes[..];
            for number in numbers {
                prop_assert_eq!(take(&mut rest), Some(number));
                prop_assert_eq!(unzigzag(zigzag(number as i64)), number as i64);
            }
            let pieces = pieces.into_iter().map(|(kind, length, old)| Piece {
                kind,
                length: length * 8,
                old: if kind.is_old() { u64::from(old) } else { 0 },
            });
            let head = Head { prefix_at: 7, prefix: 9, plain: 3, planes: 5, pieces: pieces.collect() };
            let bytes = head.write(u64::from(at));
            prop_assert_eq!(&Head::read(&bytes, u64::from(at)).unwrap(), &head);
            for end in 0..bytes.len() {
                prop_assert!(Head::read(&bytes[..end], u64::from(at)).is_err());
            }
        }
    }

    #[test]
    fn a_head_that_asks_for_too_much_is_refused() {
        let head = |change: &dyn Fn(&mut Head)| {
            let pieces = vec![Piece { kind: Kind::Plain, length: 8, old: 0 }];
            let mut head = Head { pieces, ..Head::default() };
            change(&mut head);
            Head::read(&head.write(0), 0)
        };
        head(&|_| {}).unwrap();
        head(&|head| head.prefix = MAX_PREFIX).unwrap();
        assert!(head(&|head| head.prefix = MAX_PREFIX + 1).is_err());
        assert!(head(&|head| head.plain = MAX_FRAME + 1).is_err());
        assert!(head(&|head| head.planes = usize::MAX).is_err());
        assert!(head(&|head| head.pieces.clear()).is_err());
        assert!(head(&|head| head.pieces[0].length = 0).is_err());
        assert!(head(&|head| head.pieces[0].length = MAX_BLOCK + 1).is_err());
        let two = |first: usize| {
            move |head: &mut Head| {
                head.pieces = vec![Piece { kind: Kind::Plain, length: first, old: 0 }, head.pieces[0]];
            }
        };
        head(&two(MAX_BLOCK - 8)).unwrap();
        assert!(head(&two(MAX_BLOCK - 7)).is_err());
        assert!(head(&|head| head.pieces = vec![head.pieces[0]; MAX_PIECES + 1]).is_err());
        assert!(head(&|head| head.pieces[0] = Piece { kind: Kind::Split(3), length: 12, old: 0 }).is_err());
        assert!(
            head(&|head| head.pieces[0] = Piece { kind: Kind::Copy, length: 12, old: u64::MAX - 11 })
                .is_err()
        );
        assert_eq!(take(&mut &[0xff; 10][..]), None);
    }
}
