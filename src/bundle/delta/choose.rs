//! Which parts of a new file stand for which parts of an old one, and how each is best packed.

use super::DeltaError;
use super::apply::Old;
use super::format::{Kind, WIDTHS};
use super::layout::Tensor;
use super::planes;
use super::zstd;
use std::collections::{BTreeMap, VecDeque};

/// A piece is chosen for so many bytes at a time.
pub(super) const CHUNK: usize = 256 << 10;
/// Shorter tensors are no tensors here: a piece costs more than it saves.
const LEAST_TENSOR: u64 = 128;
/// Shorter copies are not worth a piece.
const LEAST_COPY: u64 = 64;
/// Bytes of the old file that what is plain is held against while it is chosen.
const NEAR: u64 = 1 << 20;

/// A part of the new file that is looked at as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) at: u64,
    pub(super) length: u64,
    /// Where its beginning and its end may lie in the old file.
    pub(super) front: Option<u64>,
    pub(super) back: Option<u64>,
    /// Index into [`WIDTHS`], where its numbers are known.
    pub(super) width: Option<usize>,
    /// The old file has the same numbers there, older.
    pub(super) is_paired: bool,
}

/// Divides a new file of `length` bytes into regions that cover it.
pub(super) fn regions(length: u64, new: &[Tensor], old: Option<(u64, &[Tensor])>) -> Vec<Region> {
    let (old_length, old) = old.map_or((None, &[][..]), |(length, tensors)| (Some(length), tensors));
    let (new, old) = (in_order(new, length), in_order(old, old_length.unwrap_or(0)));
    let pairs = pair(&new, &old);
    let mut regions = Vec::new();
    let (mut done, mut front) = (0, old_length.map(|_| 0));
    for (tensor, pair) in new.iter().zip(pairs) {
        let begin = pair.map(|pair| old[pair].at);
        if tensor.at > done {
            let (at, length) = (done, tensor.at - done);
            regions.push(Region { at, length, front, back: begin, width: None, is_paired: false });
        }
        let end = pair.map(|pair| old[pair].at + old[pair].length);
        regions.push(Region {
            at: tensor.at,
            length: tensor.length,
            front: begin,
            back: end,
            width: WIDTHS.iter().position(|width| *width == tensor.width),
            is_paired: pair.is_some_and(|pair| old[pair].length == tensor.length),
        });
        done = tensor.at + tensor.length;
        front = end.or(front);
    }
    if length > done {
        let (at, length) = (done, length - done);
        regions.push(Region { at, length, front, back: old_length, width: None, is_paired: false });
    }
    regions
}

/// The tensors that lie in the file, one after the other.
fn in_order(tensors: &[Tensor], length: u64) -> Vec<&Tensor> {
    let mut ordered: Vec<&Tensor> = tensors
        .iter()
        .filter(|one| one.length >= LEAST_TENSOR && one.length % one.width as u64 == 0)
        .filter(|one| one.at.checked_add(one.length).is_some_and(|end| end <= length))
        .collect();
    ordered.sort_by_key(|one| one.at);
    let mut done = 0;
    ordered.retain(|one| {
        let is_after = one.at >= done;
        if is_after {
            done = one.at + one.length;
        }
        is_after
    });
    ordered
}

/// For each new tensor the old one that it was, where there is one: the one of its name and size, else one of its
/// size in the order of the file (exporters number names anew), else one of its name.
fn pair(new: &[&Tensor], old: &[&Tensor]) -> Vec<Option<usize>> {
    let mut pairs = vec![None; new.len()];
    let mut is_taken = vec![false; old.len()];
    for (needs_name, needs_size) in [(true, true), (false, true), (true, false)] {
        let key = |one: &Tensor| {
            let name = if needs_name { one.name.clone() } else { String::new() };
            (name, if needs_size { one.length } else { 0 }, one.width)
        };
        let mut known: BTreeMap<_, VecDeque<usize>> = BTreeMap::new();
        for (index, one) in old.iter().enumerate() {
            let is_nameless = needs_name && one.name.is_empty();
            if !is_taken[index] && !is_nameless {
                known.entry(key(one)).or_default().push_back(index);
            }
        }
        for (index, one) in new.iter().enumerate() {
            let is_named = !needs_name || !one.name.is_empty();
            if pairs[index].is_none()
                && is_named
                && let Some(found) = known.get_mut(&key(one)).and_then(|list| list.pop_front())
            {
                pairs[index] = Some(found);
                is_taken[found] = true;
            }
        }
    }
    pairs
}

/// How many bytes are the same from two places on, `most` at most.
pub(super) fn same_front(
    new: &dyn Old,
    at: u64,
    old: &dyn Old,
    front: u64,
    most: u64,
) -> Result<u64, DeltaError> {
    let most = most.min(old.length().saturating_sub(front));
    let (mut one, mut other) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut done = 0;
    while done < most {
        let length = (most - done).min(CHUNK as u64) as usize;
        new.read_at(&mut one[..length], at + done).map_err(DeltaError::Read)?;
        old.read_at(&mut other[..length], front + done).map_err(DeltaError::Old)?;
        let differs = one[..length].iter().zip(&other[..length]).position(|(a, b)| a != b);
        if let Some(differs) = differs {
            done += differs as u64;
            break;
        }
        done += length as u64;
    }
    Ok(if done >= LEAST_COPY || done == most { done } else { 0 })
}

/// How many bytes are the same before two places, `most` at most.
pub(super) fn same_back(
    new: &dyn Old,
    end: u64,
    old: &dyn Old,
    back: u64,
    most: u64,
) -> Result<u64, DeltaError> {
    let most = most.min(back);
    let (mut one, mut other) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut done = 0;
    while done < most {
        let length = (most - done).min(CHUNK as u64) as usize;
        let before = done + length as u64;
        new.read_at(&mut one[..length], end - before).map_err(DeltaError::Read)?;
        old.read_at(&mut other[..length], back - before).map_err(DeltaError::Old)?;
        let same = one[..length].iter().rev().zip(other[..length].iter().rev()).position(|(a, b)| a != b);
        if let Some(same) = same {
            done += same as u64;
            break;
        }
        done += length as u64;
    }
    Ok(if done >= LEAST_COPY { done } else { 0 })
}

/// How a chunk is packed best. `front`: where it may lie in the old file. `is_free`: nothing is known of the file,
/// so all widths are tried.
pub(super) fn kind(
    chunk: &[u8],
    old: Option<&dyn Old>,
    front: Option<u64>,
    region: &Region,
    is_free: bool,
) -> Result<Kind, DeltaError> {
    let at_hand = old
        .zip(front)
        .filter(|(old, front)| front.checked_add(chunk.len() as u64).is_some_and(|end| end <= old.length()));
    let mut before = Vec::new();
    if let Some((old, front)) = at_hand {
        before.resize(chunk.len(), 0);
        old.read_at(&mut before, front).map_err(DeltaError::Old)?;
        if before == chunk {
            return Ok(Kind::Copy);
        }
    }
    let widths: &[usize] = match region.width {
        Some(width) => &[width][..],
        None if is_free => &[0, 1, 2],
        None => return Ok(Kind::Plain),
    };
    let near = match at_hand {
        Some((old, front)) if !region.is_paired => {
            let from = front.saturating_sub(NEAR);
            let length = old.length().min(front + chunk.len() as u64 + NEAR) - from;
            let mut near = vec![0; length as usize];
            old.read_at(&mut near, from).map_err(DeltaError::Old)?;
            near
        }
        Some(_) | None => Vec::new(),
    };
    let mut best = (zstd::estimate(chunk, &near)?, Kind::Plain);
    for &width in widths {
        let bytes = WIDTHS[width];
        if !chunk.len().is_multiple_of(bytes) {
            continue;
        }
        let before = (!before.is_empty()).then_some(&before[..]);
        for (kind, old) in [(Kind::Delta(width), before), (Kind::Split(width), None)] {
            // One byte taken apart from itself is itself.
            if (old.is_none() && (kind == Kind::Delta(width) || bytes == 1)) || chunk.is_empty() {
                continue;
            }
            let step = chunk.len() / bytes;
            let mut apart = vec![0; chunk.len()];
            planes::split(chunk, old, bytes, &mut apart, step);
            let size: f64 = apart.chunks(step).map(entropy).sum();
            if (size as usize) < best.0 {
                best = (size as usize, kind);
            }
        }
    }
    Ok(best.1)
}

/// Bytes that these take where each is packed by how often it comes.
fn entropy(bytes: &[u8]) -> f64 {
    let mut total = 0.0;
    for part in bytes.chunks(32 << 10) {
        let mut counts = [0u32; 256];
        part.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        let length = part.len() as f64;
        let bits = |count: &u32| f64::from(*count) * (length / f64::from(*count)).log2();
        total += counts.iter().filter(|count| **count > 0).map(bits).sum::<f64>() / 8.0;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, at: u64, length: u64) -> Tensor {
        Tensor { name: name.into(), at, length, width: 4 }
    }

    #[test]
    fn regions_cover_the_file_and_tensors_find_what_they_were() {
        let old = [tensor("a", 100, 400), tensor("b", 600, 800), tensor("", 2000, 800)];
        // Longer before, another name, another size, and two that lie about where they are.
        let new = [
            tensor("a", 200, 400),
            tensor("b2", 700, 800),
            tensor("b", 1600, 804),
            tensor("over", 250, 400),
            tensor("out", 2900, 4000),
        ];
        let regions = regions(3000, &new, Some((3000, &old)));
        let mut at = 0;
        for region in &regions {
            assert_eq!(region.at, at, "{regions:#?}");
            at += region.length;
        }
        assert_eq!(at, 3000);
        let found: Vec<_> = regions.iter().filter(|one| one.width.is_some()).collect();
        let told: Vec<_> = found.iter().map(|one| (one.at, one.front, one.is_paired)).collect();
        assert_eq!(told, [(200, Some(100), true), (700, Some(600), true), (1600, None, false)]);
        let gap = &regions[0];
        assert_eq!((gap.front, gap.back, gap.width), (Some(0), Some(100), None));
    }

    #[test]
    fn a_name_counts_more_than_the_order_and_finds_another_size() {
        let old = [tensor("a", 0, 400), tensor("b", 400, 400), tensor("c", 800, 400)];
        let new = [tensor("b", 0, 400), tensor("a", 400, 400), tensor("c", 800, 804)];
        let refs = |list: &'static [Tensor]| list.iter().collect::<Vec<_>>();
        let (new, old): (&'static [Tensor], &'static [Tensor]) = (new.to_vec().leak(), old.to_vec().leak());
        assert_eq!(pair(&refs(new), &refs(old)), [Some(1), Some(0), Some(2)]);
    }

    #[test]
    fn what_is_the_same_is_counted_from_both_ends() {
        let old: Vec<u8> = (0..200_000u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        let mut new = old.clone();
        new[100_000] ^= 1;
        let (one, other): (&[u8], &[u8]) = (&new, &old);
        let length = old.len() as u64;
        assert_eq!(same_front(&one, 0, &other, 0, length).unwrap(), 100_000);
        assert_eq!(same_back(&one, length, &other, length, length).unwrap(), length - 100_001);
        assert_eq!(same_front(&one, 99_990, &other, 99_990, 100).unwrap(), 0, "too short");
    }
}
