//! Deltas: how a file of a release is packed for the way to a device, alone or as what differs from a file that the
//! device has.
//!
//! A delta carries no trust. It is hostile input that says how bytes may be put together; whoever uses the result
//! holds it against the signed size and digest first. So a delta may be made, and made anew, by anybody at any time,
//! and needs no key. A wrong old file is not looked for here, either: what it leads to has another digest.
//!
//! One format serves all methods, because the method is chosen again for each piece of a file: one delta for a pair
//! of files is then never larger than the best that one method alone would give, and a second one has no use. The
//! [`Method`] of a delta is only a name for the most that it uses.
//!
//! # Format
//!
//! Eight bytes `EWDELTA1`, then blocks, then a 0. Numbers are LEB128 (as in protocol buffers), at most 64 bits; a
//! signed one is zigzagged first.
//!
//! ```text
//! block   = head_length head plain planes
//! head    = prefix_at prefix_length plain_length planes_length count piece…
//! piece   = kind (one byte: what × 4 + log2 of the width) length [signed old_at]
//! ```
//!
//! A block gives the next `MIN_BLOCK` to `MAX_BLOCK` bytes of the file (the last one may give fewer), one piece after
//! the other:
//!
//! | what | piece | comes from |
//! | --- | --- | --- |
//! | 0 | plain | the next bytes of `plain`: one zstd frame, whose prefix is the stated range of the old file |
//! | 1 | copy | the old file, from `old_at` on |
//! | 2 | delta | `planes`, added to the numbers of the old file from `old_at` on |
//! | 3 | split | `planes` alone |
//!
//! `old_at` counts from where the piece before it that has one ended (the first one: from the block's own place).
//!
//! `planes` is one zstd frame with the numbers of all delta and split pieces, each number taken apart into its bytes:
//! first the lowest bytes of all deltas of width 1, then for width 2 the lowest and then the next ones, and so on for
//! 4 and 8, then the same of the split pieces. A delta is the difference of the two little-endian whole numbers of
//! that width, whatever they stand for, modulo the width, zigzagged. Weights that were trained a little further
//! differ little as whole numbers, too, also as floats: their high bytes become zeros. And the high bytes of floats
//! that are of one tensor are alike even where nothing old is at hand.
//!
//! # Bounds
//!
//! [`apply()`] holds one block at a time: the prefix (8 MiB at most), the two packed streams, the two unpacked ones and
//! the output (4 MiB at most each), however large the files are. It writes no byte beyond the size that it is given.
//! Blocks have a least size, so that its work is bounded by that size, too.
//!
//! # Which decoder
//!
//! zstd is the C library, also on the device, where what it reads is hostile. A decoder in Rust (`ruzstd`) was
//! considered: it has no prefixes and decodes into buffers of its own that follow the frame's window, where the C
//! library decodes a frame at one stroke into a buffer of ours. The publisher needs the C library to pack in any case.
//! What remains is met by where it runs: in a child that is locked in, without network, keys or files beyond the
//! three that are open, with a limit on its memory ([`children::rebuild`](crate::children::rebuild)).

mod apply;
mod choose;
mod format;
pub mod layout;
mod make;
pub mod offers;
mod planes;
mod zstd;

pub use apply::{Old, OldFile, apply};
pub use layout::{Layout, Tensor};
pub use make::{LEVEL, Source, make};

use std::io;

/// What a delta is made of, at the most.
pub use crate::domain::delta::Method;

/// Why a delta cannot be made or applied.
#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    /// It is not what a delta can be.
    #[error("the delta is damaged or hostile: {0}")]
    Malformed(&'static str),
    /// It leads to another number of bytes than are wanted.
    #[error("the delta gives another size than was signed")]
    Size,
    /// The delta or the new file cannot be read.
    #[error("read: {0}")]
    Read(#[source] io::Error),
    /// The old file cannot be read there.
    #[error("read the old file: {0}")]
    Old(#[source] io::Error),
    /// What comes of it cannot be written.
    #[error("write: {0}")]
    Write(#[source] io::Error),
    /// The system gives no memory.
    #[error("no memory")]
    Memory,
}

#[cfg(test)]
mod tests;
