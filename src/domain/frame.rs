//! One frame on its way through the device, as its source gave it: a picture, or a window of sensor
//! samples.

use serde::{Deserialize, Serialize};

/// Largest frame, bytes: a 10-megapixel RGB picture.
pub const MAX_FRAME: usize = 32 << 20;

/// How the bytes of a frame are to be read. Rows are without padding in the raw formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u32)]
pub enum FrameFormat {
    /// A JPEG file, of any size up to the frame's stated width and height.
    Jpeg = 1,
    /// 3 bytes a pixel: red, green, blue.
    Rgb8 = 2,
    /// 1 byte a pixel: luminance.
    Grey8 = 3,
    /// 4 bytes for two neighbouring pixels: luminance, blue, luminance, red difference (4:2:2; the
    /// kernel's `YUYV`). The width is even.
    Yuyv = 4,
    /// A plane of luminance, then one of blue and red difference in turn for each 2×2 pixels (4:2:0;
    /// the kernel's `NV12`). Width and height are even.
    Nv12 = 5,
    /// A plane of luminance, then one of blue and one of red difference, each a quarter in size (4:2:0;
    /// Y4M's `C420`, the kernel's `YU12`). Width and height are even.
    I420 = 6,
    /// A window of sensor samples: little-endian 32-bit floats, one channel after the other; `width`
    /// is the samples of a channel, `height` the number of channels. A gap is a NaN.
    Samples = 7,
}

impl FrameFormat {
    /// Every format.
    pub const ALL: [FrameFormat; 7] = [
        FrameFormat::Jpeg,
        FrameFormat::Rgb8,
        FrameFormat::Grey8,
        FrameFormat::Yuyv,
        FrameFormat::Nv12,
        FrameFormat::I420,
        FrameFormat::Samples,
    ];

    /// Bytes that a frame of this format must have, where the format fixes it; more than any frame has where
    /// the number is too large to be counted, which is what another process may state.
    pub fn exact_len(self, width: u32, height: u32) -> Option<usize> {
        let pixels = (width as usize).saturating_mul(height as usize);
        match self {
            FrameFormat::Jpeg => None,
            FrameFormat::Rgb8 => Some(pixels.saturating_mul(3)),
            FrameFormat::Grey8 => Some(pixels),
            FrameFormat::Yuyv => Some(pixels.saturating_mul(2)),
            FrameFormat::Nv12 | FrameFormat::I420 => Some((pixels / 2).saturating_mul(3)),
            FrameFormat::Samples => Some(pixels.saturating_mul(4)),
        }
    }

    /// True for pictures, false for samples.
    pub fn is_picture(self) -> bool {
        self != FrameFormat::Samples
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
    pub format: FrameFormat,
}

/// A borrowed frame: what is known of it, and its bytes.
#[derive(Debug, Clone, Copy)]
pub struct FrameView<'a> {
    /// What is known of it.
    pub meta: FrameMeta,
    /// The bytes, in `meta.format`.
    pub bytes: &'a [u8],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stated_size_that_overflows_fits_no_frame() {
        for format in FrameFormat::ALL.into_iter().filter(|format| *format != FrameFormat::Jpeg) {
            // 2^31 × 2^31 × 4 bytes is 2^64, which is 0 where it is cut off.
            for (width, height) in [(1 << 31, 1 << 31), (u32::MAX, u32::MAX), (u32::MAX, 1 << 31)] {
                assert!(format.exact_len(width, height) > Some(MAX_FRAME), "{format:?} {width}x{height}");
            }
        }
        assert_eq!(FrameFormat::I420.exact_len(640, 480), Some(460_800));
    }
}
