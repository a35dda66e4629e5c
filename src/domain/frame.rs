//! One picture on its way through the device, as its source gave it.

use serde::{Deserialize, Serialize};

/// Largest frame, bytes: a 10-megapixel RGB picture.
pub const MAX_FRAME: usize = 32 << 20;

/// How the bytes of a frame are to be read. Rows are without padding in the raw formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u32)]
pub enum PixelFormat {
    /// A JPEG file, of any size up to the frame's stated width and height.
    Jpeg = 1,
    /// 3 bytes a pixel: red, green, blue.
    Rgb8 = 2,
    /// 1 byte a pixel: luminance.
    Grey8 = 3,
}

impl PixelFormat {
    /// Bytes that a frame of this format must have, where the format fixes it.
    pub fn exact_len(self, width: u32, height: u32) -> Option<usize> {
        let pixels = width as usize * height as usize;
        match self {
            PixelFormat::Jpeg => None,
            PixelFormat::Rgb8 => Some(pixels * 3),
            PixelFormat::Grey8 => Some(pixels),
        }
    }
}

/// What is known of a frame besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameMeta {
    /// Counts up by one per frame that the source published, from 1, over restarts of the source.
    pub seq: u64,
    /// Capture time, nanoseconds since 1970, UTC, as the system clock told it.
    pub captured_unix_ns: i64,
    /// Capture time on `CLOCK_MONOTONIC`, nanoseconds; the same clock in every process of the machine.
    pub captured_mono_ns: u64,
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// How to read the bytes.
    pub format: PixelFormat,
}

/// A borrowed frame: what is known of it, and its bytes.
#[derive(Debug, Clone, Copy)]
pub struct FrameView<'a> {
    /// What is known of it.
    pub meta: FrameMeta,
    /// The bytes, in `meta.format`.
    pub bytes: &'a [u8],
}
