//! Round trips of pairs as they come and as nobody would make them, and deltas that lie.

use super::format::{Head, Kind, MAGIC, MAX_BLOCK, Piece, put};
use super::*;
use proptest::prelude::*;
use std::io::Write;

fn packed(old: Option<(&[u8], &[Tensor])>, new: (&[u8], &[Tensor])) -> (Vec<u8>, Method) {
    let mut out = Vec::new();
    let old = old.as_ref().map(|(bytes, tensors)| Source { bytes, tensors });
    let new = Source { bytes: &new.0, tensors: new.1 };
    let method = make(old, new, 3, &mut out, &|_| {}).unwrap();
    (out, method)
}

fn unpacked(old: Option<&[u8]>, mut delta: &[u8], size: usize) -> Result<Vec<u8>, DeltaError> {
    let mut out = Vec::new();
    let old = old.as_ref().map(|bytes| bytes as &dyn Old);
    apply(old, &mut delta, size as u64, &mut out, &|_| {})?;
    Ok(out)
}

/// Floats that look like weights.
fn weights(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed | 1;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 - 0.5
    };
    (0..count).map(|_| (random() + random() + random()) * 0.1).collect()
}

fn bytes_of(weights: &[f32]) -> Vec<u8> {
    weights.iter().flat_map(|weight| weight.to_le_bytes()).collect()
}

fn tensor(name: &str, at: usize, length: usize) -> Tensor {
    Tensor { name: name.into(), at: at as u64, length: length as u64, width: 4 }
}

#[test]
fn weights_that_moved_a_little_take_far_fewer_bytes_than_any_packing_of_them() {
    let old = weights(500_000, 1);
    let noise = weights(500_000, 2);
    let new: Vec<f32> = old.iter().zip(&noise).map(|(weight, noise)| weight * (1.0 + noise * 0.01)).collect();
    let (old, new) = (bytes_of(&old), bytes_of(&new));
    let whole = packed(None, (&new, &[])).0.len();
    // Known to be one tensor, and not known to be anything.
    for tensors in [vec![tensor("w", 0, new.len())], vec![]] {
        let (delta, method) = packed(Some((&old, &tensors)), (&new, &tensors));
        assert_eq!(method, Method::Planes);
        assert!(delta.len() * 10 < whole * 7, "{} of {whole}", delta.len());
        assert_eq!(unpacked(Some(&old), &delta, new.len()).unwrap(), new);
        assert!(unpacked(None, &delta, new.len()).is_err(), "without the old file");
        assert!(unpacked(Some(&old[..1000]), &delta, new.len()).is_err(), "with too short a one");
    }
    // Taken apart, floats pack better also where nothing old is at hand.
    let plain = super::zstd::pack(&new, &[], 19).unwrap().len();
    assert!(whole * 100 < plain * 97, "{whole} of {plain}");
    assert_eq!(unpacked(None, &packed(None, (&new, &[])).0, new.len()).unwrap(), new);
}

#[test]
fn what_moved_or_stayed_costs_next_to_nothing() {
    // Longer than a block, so that the blocks have to meet.
    let old = bytes_of(&weights(1_500_000, 3));
    let mut moved = b"some words in front".to_vec();
    moved.extend_from_slice(&old);
    moved.extend_from_slice(b"and some more behind");
    let cut = [&old[..3_000_000], &old[3_100_000..]].concat();
    let mut touched = old.clone();
    touched[2_000_000..2_000_100].fill(7);
    for (what, new) in [("the same", &old), ("moved", &moved), ("cut", &cut), ("touched", &touched)] {
        let (delta, method) = packed(Some((&old, &[])), (new, &[]));
        assert!(delta.len() < 5000, "{what}: {}", delta.len());
        assert_ne!(method, Method::Zstd);
        assert_eq!(unpacked(Some(&old), &delta, new.len()).unwrap(), *new, "{what}");
    }
    let (delta, method) = packed(Some((&old, &[])), (b"", &[]));
    assert_eq!((delta.len(), method), (MAGIC.len() + 1, Method::Zstd));
    assert_eq!(unpacked(Some(&old), &delta, 0).unwrap(), b"");
}

#[test]
fn a_tensor_is_found_by_its_name_wherever_it_went() {
    let (one, two) = (bytes_of(&weights(100_000, 5)), bytes_of(&weights(100_000, 6)));
    let nudge = |bytes: &[u8]| -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        bytes.chunks_exact_mut(4).for_each(|number| number[0] ^= 1);
        bytes
    };
    let old = [&one[..], b"between", &two].concat();
    let new = [b"xyz", &nudge(&two)[..], b"between", &nudge(&one)].concat();
    let length = one.len();
    let before = [tensor("one", 0, length), tensor("two", length + 7, length)];
    let after = [tensor("two", 3, length), tensor("one", 3 + length + 7, length)];
    let (delta, method) = packed(Some((&old, &before)), (&new, &after));
    assert_eq!(method, Method::Planes);
    assert!(delta.len() < new.len() / 10, "{}", delta.len());
    assert_eq!(unpacked(Some(&old), &delta, new.len()).unwrap(), new);
}

#[test]
fn the_size_decides_and_a_wrong_old_file_gives_other_bytes_of_it() {
    let old = bytes_of(&weights(100_000, 8));
    let mut new = old.clone();
    new[1000] ^= 1;
    let (delta, _) = packed(Some((&old, &[])), (&new, &[]));
    for size in [0, 1, new.len() - 1, new.len() + 1, usize::MAX] {
        let mut out = Vec::new();
        let result = apply(Some(&&old[..]), &mut &delta[..], size as u64, &mut out, &|_| {});
        assert!(matches!(result, Err(DeltaError::Size | DeltaError::Malformed(_))), "{size}");
        assert!(out.len() <= size);
    }
    let wrong = bytes_of(&weights(100_000, 11));
    let got = unpacked(Some(&wrong), &delta, new.len());
    assert!(got.is_err() || got.is_ok_and(|got| got.len() == new.len() && got != new));
}

/// A delta of these blocks: head, plain, planes.
fn forged(blocks: &[(Head, &[u8], &[u8])]) -> Vec<u8> {
    let (mut out, mut at) = (MAGIC.to_vec(), 0);
    for (head, plain, planes) in blocks {
        let bytes = head.write(at);
        at += head.length() as u64;
        put(&mut out, bytes.len() as u64);
        [&bytes[..], plain, planes].iter().for_each(|part| out.extend_from_slice(part));
    }
    out.push(0);
    out
}

#[test]
fn a_delta_that_lies_is_an_error_and_writes_nothing_beyond_the_size() {
    let old = vec![1u8; 1000];
    let piece = |kind, length, old| Piece { kind, length, old };
    let frame = |length: usize| super::zstd::pack(&vec![0u8; length], &[], 1).unwrap();
    let small = frame(100);
    // A few hundred bytes that unpack to 64 MiB.
    let bomb = frame(64 << 20);
    assert!(bomb.len() < 10_000);
    let plain = |length, packed: usize| Head {
        plain: packed,
        pieces: vec![piece(Kind::Plain, length, 0)],
        ..Head::default()
    };
    let split = |length, packed: usize| Head {
        planes: packed,
        pieces: vec![piece(Kind::Split(2), length, 0)],
        ..Head::default()
    };
    let only = |kind, length, old| Head { pieces: vec![piece(kind, length, old)], ..Head::default() };
    let good = forged(&[(plain(100, small.len()), &small, &[])]);
    assert_eq!(unpacked(Some(&old), &good, 100).unwrap(), vec![0; 100]);
    let tiny = (plain(100, small.len()), &small[..], &[][..]);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a frame that gives more", forged(&[(plain(100, bomb.len()), &bomb, &[])])),
        ("planes that give more", forged(&[(split(100, bomb.len()), &[], &bomb)])),
        ("a frame that gives less", forged(&[(plain(200, small.len()), &small, &[])])),
        ("no frame", forged(&[(plain(100, 50), &[9; 50], &[])])),
        ("a frame that is not there", forged(&[(plain(100, 50), &[], &[])])),
        ("a copy beyond the old file", forged(&[(only(Kind::Copy, 100, 901), &[], &[])])),
        ("a copy from beyond all files", forged(&[(only(Kind::Copy, 100, u64::MAX - 200), &[], &[])])),
        ("a delta beyond the old file", forged(&[(only(Kind::Delta(2), 100, 904), &[], &frame(100))])),
        ("a prefix beyond the old file", {
            let head = Head { prefix_at: 999, prefix: 2, ..plain(100, small.len()) };
            forged(&[(head, &small, &[])])
        }),
        ("a prefix from nowhere", {
            let head = Head { prefix_at: u64::MAX, prefix: 2, ..plain(100, small.len()) };
            forged(&[(head, &small, &[])])
        }),
        ("blocks without end", forged(&vec![tiny; 1000])),
        ("a copy that is a block too long", forged(&[(only(Kind::Copy, MAX_BLOCK, 0), &[], &[])])),
        ("nothing", forged(&[])),
        ("no beginning", b"not a delta at all".to_vec()),
        ("a head without end", [&MAGIC[..], &[0xff; 12]].concat()),
    ];
    for (what, delta) in cases {
        struct Counted(usize);
        impl Write for Counted {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0 += bytes.len();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        for size in [100, 50_000] {
            let mut out = Counted(0);
            let result = apply(Some(&&old[..]), &mut &delta[..], size, &mut out, &|_| {});
            assert!(result.is_err(), "{what}");
            assert!(out.0 as u64 <= size, "{what}: {}", out.0);
        }
    }
    for end in 0..good.len() {
        assert!(unpacked(Some(&old), &good[..end], 100).is_err(), "cut short at {end}");
    }
}

/// A file, made of parts of another and of its own, with changes here and there.
fn related(old: Vec<u8>) -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let part = (0usize..4, any::<prop::sample::Index>(), 0usize..3000, any::<u8>());
    prop::collection::vec(part, 0..8).prop_map(move |parts| {
        let mut new = Vec::new();
        for (kind, index, length, byte) in parts {
            let at = index.index(old.len() + 1);
            let from = &old[at..(at + length).min(old.len())];
            match kind {
                0 => new.extend_from_slice(from),
                1 => new.extend(from.iter().map(|old| old.wrapping_add(byte & 3))),
                2 => new.extend(std::iter::repeat_n(byte, length)),
                _ => new.extend((0..length).map(|n| (n as u8).wrapping_mul(byte))),
            }
        }
        (old.clone(), new)
    })
}

proptest! {
    #[test]
    fn whatever_the_files_and_their_layouts_what_was_packed_comes_back(
        (old, new) in prop::collection::vec(any::<u8>(), 0..5000).prop_flat_map(related),
        places in prop::collection::vec((0u64..6000, 0u64..3000, 0usize..4, "[ab]?"), 0..6),
        has_old: bool,
    ) {
        let tensors: Vec<Tensor> = places
            .into_iter()
            .map(|(at, length, width, name)| Tensor { name, at, length, width: 1 << width })
            .collect();
        let (delta, _) = packed(has_old.then_some((&old, &tensors)), (&new, &tensors));
        let got = unpacked(has_old.then_some(&old), &delta, new.len()).unwrap();
        prop_assert_eq!(got, new);
    }

    #[test]
    fn a_changed_delta_gives_an_error_or_no_more_than_the_size(
        (old, new) in prop::collection::vec(any::<u8>(), 1..3000).prop_flat_map(related),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let (mut delta, _) = packed(Some((&old, &[])), (&new, &[]));
        for (index, byte) in changes {
            let at = index.index(delta.len());
            delta[at] = byte;
        }
        if let Ok(got) = unpacked(Some(&old), &delta, new.len()) {
            prop_assert_eq!(got.len(), new.len());
        }
    }
}
