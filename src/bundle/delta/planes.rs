//! Numbers taken apart into their bytes, and put together again: the lowest bytes of all numbers, then the next ones.

use super::format::{Kind, Piece, WIDTHS, unzigzag, zigzag};

/// Where the numbers of a block's pieces lie among its planes.
#[derive(Debug)]
pub(super) struct Places {
    /// For each kind with numbers: where its first plane begins, and its numbers.
    classes: [(usize, usize); 2 * WIDTHS.len()],
    /// Bytes of all planes.
    pub(super) length: usize,
}

fn class(kind: Kind) -> Option<usize> {
    match kind {
        Kind::Plain | Kind::Copy => None,
        Kind::Delta(width) => Some(width),
        Kind::Split(width) => Some(WIDTHS.len() + width),
    }
}

impl Places {
    pub(super) fn of(pieces: &[Piece]) -> Self {
        let mut classes = [(0, 0); 2 * WIDTHS.len()];
        for piece in pieces {
            if let (Some(class), Some(width)) = (class(piece.kind), piece.kind.width()) {
                classes[class].1 += piece.length / width;
            }
        }
        let mut length = 0;
        for (index, (start, count)) in classes.iter_mut().enumerate() {
            *start = length;
            length += *count * WIDTHS[index % WIDTHS.len()];
        }
        Self { classes, length }
    }

    /// Calls `each` with the pieces that have numbers, in their order: the piece, where its bytes lie in the block,
    /// where its first byte lies among the planes, and how far it is from one plane to the next.
    pub(super) fn walk(&self, pieces: &[Piece], mut each: impl FnMut(&Piece, usize, usize, usize)) {
        let (mut at, mut done) = (0, [0; 2 * WIDTHS.len()]);
        for piece in pieces {
            if let (Some(class), Some(width)) = (class(piece.kind), piece.kind.width()) {
                let (start, count) = self.classes[class];
                each(piece, at, start + done[class], count);
                done[class] += piece.length / width;
            }
            at += piece.length;
        }
    }
}

/// Takes the numbers of `new` apart, less those of `old` where there are any. The byte `j` of number `i` goes to
/// `planes[j * step + i]`.
pub(super) fn split(new: &[u8], old: Option<&[u8]>, width: usize, planes: &mut [u8], step: usize) {
    match width {
        1 => split_by::<1>(new, old, planes, step),
        2 => split_by::<2>(new, old, planes, step),
        4 => split_by::<4>(new, old, planes, step),
        _ => split_by::<8>(new, old, planes, step),
    }
}

/// Puts numbers together in `out`, added to what is there where they are differences.
pub(super) fn join(planes: &[u8], step: usize, width: usize, is_delta: bool, out: &mut [u8]) {
    match width {
        1 => join_1(planes, is_delta, out),
        2 => join_2(planes, step, is_delta, out),
        4 => join_4(planes, step, is_delta, out),
        _ => join_8(planes, step, is_delta, out),
    }
}

fn number<const W: usize>(bytes: &[u8]) -> u64 {
    let mut whole = [0; 8];
    whole[..W].copy_from_slice(&bytes[..W]);
    u64::from_le_bytes(whole)
}

fn split_by<const W: usize>(new: &[u8], old: Option<&[u8]>, planes: &mut [u8], step: usize) {
    // Bits above the width, which the sign of a difference fills.
    let above = 64 - 8 * W as u32;
    for (index, bytes) in new.chunks_exact(W).enumerate() {
        let value = match old {
            None => number::<W>(bytes),
            Some(old) => {
                let less = number::<W>(bytes).wrapping_sub(number::<W>(&old[index * W..]));
                zigzag(((less << above) as i64) >> above)
            }
        };
        for (plane, byte) in value.to_le_bytes().iter().take(W).enumerate() {
            planes[plane * step + index] = *byte;
        }
    }
}

/// One pass over `out`, with a plane beside each byte of its numbers.
fn join_by<const W: usize>(planes: [&[u8]; W], is_delta: bool, out: &mut [u8]) {
    let count = out.len() / W;
    // Said once, so that it is not asked for each byte.
    let planes = planes.map(|plane| &plane[..count]);
    for (index, bytes) in out.chunks_exact_mut(W).enumerate() {
        let mut value = 0u64;
        for (plane, source) in planes.iter().enumerate() {
            value |= u64::from(source[index]) << (8 * plane);
        }
        if is_delta {
            value = number::<W>(bytes).wrapping_add(unzigzag(value) as u64);
        }
        bytes.copy_from_slice(&value.to_le_bytes()[..W]);
    }
}

#[unsafe(export_name = "hot_join_1")]
fn join_1(planes: &[u8], is_delta: bool, out: &mut [u8]) {
    join_by::<1>([planes], is_delta, out);
}

#[unsafe(export_name = "hot_join_2")]
fn join_2(planes: &[u8], step: usize, is_delta: bool, out: &mut [u8]) {
    join_by::<2>([planes, &planes[step..]], is_delta, out);
}

#[unsafe(export_name = "hot_join_4")]
fn join_4(planes: &[u8], step: usize, is_delta: bool, out: &mut [u8]) {
    let at = |plane: usize| &planes[plane * step..];
    join_by::<4>([at(0), at(1), at(2), at(3)], is_delta, out);
}

#[unsafe(export_name = "hot_join_8")]
fn join_8(planes: &[u8], step: usize, is_delta: bool, out: &mut [u8]) {
    let at = |plane: usize| &planes[plane * step..];
    join_by::<8>([at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7)], is_delta, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back_whole(
            pairs in prop::collection::vec((any::<u64>(), any::<u64>()), 1..60),
            is_delta: bool,
        ) {
            for width in WIDTHS {
                let bytes = |second: bool| -> Vec<u8> {
                    let chosen = pairs.iter().map(|(a, b)| if second { *b } else { *a });
                    chosen.flat_map(|number| number.to_le_bytes()[..width].to_vec()).collect()
                };
                let (new, old) = (bytes(false), bytes(true));
                let step = pairs.len() + 3;
                let mut planes = vec![0; width * step];
                split(&new, is_delta.then_some(&old[..]), width, &mut planes, step);
                let mut out = old.clone();
                join(&planes, step, width, is_delta, &mut out);
                prop_assert_eq!(out, new);
            }
        }
    }

    #[test]
    fn small_changes_leave_the_high_planes_empty() {
        let old: Vec<u8> = (0..100u32).flat_map(|n| (n as f32 * 1.37 - 50.0).to_le_bytes()).collect();
        let new: Vec<u8> =
            (0..100u32).flat_map(|n| ((n as f32 * 1.37 - 50.0) * 1.00001).to_le_bytes()).collect();
        let mut planes = vec![1; 400];
        split(&new, Some(&old), 4, &mut planes, 100);
        assert!(planes[200..].iter().all(|byte| *byte == 0));
    }
}
