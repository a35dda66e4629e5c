//! The one file that names zstd: whole frames, at one stroke, into memory of a known size.
//!
//! Nothing is streamed: a streaming decoder takes memory as the frame asks for it, this one the buffers that it is
//! given.

use super::DeltaError;
use zstd_safe::{CCtx, CParameter, DCtx, compress_bound};

/// Reaches over the longest prefix and the longest block together.
const WINDOW_LOG: u32 = 24;

/// From this length of a prefix on, its beginning counts as far.
const FAR: usize = 128 << 10;

/// Packs bytes into one frame; `prefix` is what they may be like.
pub(super) fn pack(bytes: &[u8], prefix: &[u8], level: i32) -> Result<Vec<u8>, DeltaError> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut packer = CCtx::try_create().ok_or(DeltaError::Memory)?;
    let parameters = [
        CParameter::CompressionLevel(level),
        CParameter::WindowLog(WINDOW_LOG),
        // What stands far back in the prefix is found so at every level.
        CParameter::EnableLongDistanceMatching(prefix.len() >= FAR),
        // The digest of the file is what counts.
        CParameter::ChecksumFlag(false),
        CParameter::ContentSizeFlag(true),
    ];
    let set = parameters.into_iter().try_for_each(|one| packer.set_parameter(one).map(drop));
    let mut packed = Vec::with_capacity(compress_bound(bytes.len()));
    set.and_then(|()| packer.ref_prefix(prefix))
        .and_then(|_| packer.compress2(&mut packed, bytes))
        .map_err(|_| DeltaError::Memory)?;
    Ok(packed)
}

/// Unpacks one frame, which must give exactly `bytes.len()` bytes.
pub(super) fn unpack(packed: &[u8], prefix: &[u8], bytes: &mut [u8]) -> Result<(), DeltaError> {
    if bytes.is_empty() && packed.is_empty() {
        return Ok(());
    }
    let mut unpacker = DCtx::try_create().ok_or(DeltaError::Memory)?;
    let length = unpacker
        .ref_prefix(prefix)
        .and_then(|_| unpacker.decompress(bytes, packed))
        .map_err(|_| DeltaError::Malformed("a frame of zstd is none, or gives too much"))?;
    if length == bytes.len() { Ok(()) } else { Err(DeltaError::Malformed("a frame gives too little")) }
}

/// How small bytes become, quickly and about.
pub(super) fn estimate(bytes: &[u8], prefix: &[u8]) -> Result<usize, DeltaError> {
    pack(bytes, prefix, 3).map(|packed| packed.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_comes_back_and_nothing_else_does() {
        let prefix: Vec<u8> =
            (0..100_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        // A copy: what overlaps in memory counts as changed.
        let bytes = prefix[1000..300_000].to_vec();
        let mut out = vec![0; bytes.len()];
        for level in [1, 3, 19] {
            let packed = pack(&bytes, &prefix, level).unwrap();
            assert!(packed.len() < 100, "{level}: {}", packed.len());
            unpack(&packed, &prefix, &mut out).unwrap();
            assert_eq!(out, bytes);
        }
        let packed = pack(&bytes, &prefix, 3).unwrap();
        unpack(&packed, &prefix, &mut out).unwrap();
        assert_eq!(out, bytes);
        for wrong in [bytes.len() - 1, bytes.len() + 1, 0] {
            assert!(unpack(&packed, &prefix, &mut vec![0; wrong]).is_err(), "{wrong}");
        }
        assert!(unpack(&packed[..packed.len() - 1], &prefix, &mut out).is_err());
        assert!(unpack(b"", b"", &mut out).is_err());
        unpack(b"", b"", &mut []).unwrap();
    }
}
