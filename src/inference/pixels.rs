//! From a frame's bytes to pixels, no larger than the model needs.
//!
//! A JPEG is decoded by TurboJPEG at the smallest of the sizes 1/1, 1/2, 1/4 and 1/8 that is still at or
//! above the needed one: those have fast transforms in the library (the eighths between have not), and
//! a transform of fewer coefficients is at the same time the right low-pass filter for the size.

use crate::domain::frame::FrameView;
use crate::domain::{FrameFormat, Reason, ReasonCode};
use turbojpeg::{Decompressor, Image, ScalingFactor};

/// Most pixels of a picture; a bound on memory, not on quality.
pub const MAX_PIXELS: u64 = 100_000_000;
/// Scans of a progressive JPEG; more is an attack on time.
const MAX_SCANS: u32 = 100;

/// Decoded pixels, rows without padding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pixels<'a> {
    /// 1 or 3 (red, green, blue) bytes a pixel.
    pub bytes: &'a [u8],
    /// 1 or 3.
    pub channels: usize,
    /// Pixels across, at the decoded size.
    pub width: u32,
    /// Pixels down, at the decoded size.
    pub height: u32,
    /// Width and height of the picture as it was taken.
    pub original: (u32, u32),
}

/// A decoder that keeps its memory from frame to frame.
pub struct PixelDecoder {
    jpeg: Decompressor,
    /// The library tells the size of an earlier picture after one that it could not read; it is started
    /// anew then.
    spoiled: bool,
    buffer: Vec<u8>,
}

impl PixelDecoder {
    /// A new decoder.
    ///
    /// # Errors
    /// `Internal` when there is no memory for one.
    pub fn new() -> Result<Self, Reason> {
        Ok(Self { jpeg: decompressor()?, spoiled: false, buffer: Vec::new() })
    }

    /// The pixels of a frame, in one channel when `grey`; for a JPEG at a size of at least `needed`
    /// (width, height) where the picture is that large.
    ///
    /// # Errors
    /// `BadRequest`, with what is wrong with the picture: no JPEG, cut short, too large, or of other
    /// length than its format and size say.
    pub fn decode<'a>(
        &'a mut self,
        frame: FrameView<'a>,
        grey: bool,
        needed: impl FnOnce(u32, u32) -> (u32, u32),
    ) -> Result<Pixels<'a>, Reason> {
        let (width, height) = (frame.meta.width, frame.meta.height);
        let channels = match frame.meta.format {
            FrameFormat::Jpeg => return self.decode_jpeg(frame, grey, needed),
            FrameFormat::Rgb8 => 3,
            FrameFormat::Grey8 => 1,
            FrameFormat::Yuyv | FrameFormat::Nv12 | FrameFormat::I420 | FrameFormat::Samples => {
                return bad(format!(
                    "a frame of format {:?} cannot be read as a picture yet",
                    frame.meta.format
                ));
            }
        };
        check_size(width, height)?;
        if frame.meta.format.exact_len(width, height) != Some(frame.bytes.len()) {
            return bad(format!(
                "a {width}×{height} frame of {channels} bytes a pixel has {} bytes; the source pads its rows or lost \
                 a part",
                frame.bytes.len()
            ));
        }
        Ok(Pixels { bytes: frame.bytes, channels, width, height, original: (width, height) })
    }

    fn decode_jpeg<'a>(
        &'a mut self,
        frame: FrameView<'a>,
        grey: bool,
        needed: impl FnOnce(u32, u32) -> (u32, u32),
    ) -> Result<Pixels<'a>, Reason> {
        if std::mem::replace(&mut self.spoiled, true) {
            self.jpeg = decompressor()?;
        }
        let header = self.jpeg.read_header(frame.bytes).or_else(|error| bad(not_jpeg(&error)))?;
        let size = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let original = (size(header.width), size(header.height));
        check_size(original.0, original.1)?;
        if original.0 > frame.meta.width || original.1 > frame.meta.height {
            return bad(format!(
                "a JPEG of {}×{} in a frame stated as {}×{}",
                original.0, original.1, frame.meta.width, frame.meta.height
            ));
        }
        let (least_width, least_height) = needed(original.0, original.1);
        let smaller = [ScalingFactor::ONE_EIGHTH, ScalingFactor::ONE_QUARTER, ScalingFactor::ONE_HALF];
        let factor = smaller.into_iter().find(|factor| {
            !header.is_lossless
                && factor.scale(header.width) >= least_width as usize
                && factor.scale(header.height) >= least_height as usize
        });
        let factor = factor.unwrap_or(ScalingFactor::ONE);
        let fault = |error: turbojpeg::Error| bad(not_jpeg(&error));
        self.jpeg.set_scaling_factor(factor).or_else(fault)?;
        let (width, height) = (factor.scale(header.width), factor.scale(header.height));
        let channels = if grey { 1 } else { 3 };
        let length = width * height * channels;
        if self.buffer.len() < length {
            self.buffer.resize(length, 0);
        }
        let format = if grey { turbojpeg::PixelFormat::GRAY } else { turbojpeg::PixelFormat::RGB };
        let pixels = &mut self.buffer[..length];
        let image = Image { pixels, width, pitch: width * channels, height, format };
        match self.jpeg.decompress(frame.bytes, image) {
            Ok(()) => self.spoiled = false,
            // Cheap cameras write a few spare bytes between the parts of a JPEG; nothing is missing then.
            Err(error) if error.to_string().contains("extraneous bytes before marker") => {}
            Err(error) => return bad(not_jpeg(&error)),
        }
        Ok(Pixels {
            bytes: &self.buffer[..length],
            channels,
            width: size(width),
            height: size(height),
            original,
        })
    }
}

fn decompressor() -> Result<Decompressor, Reason> {
    let fault = |error: turbojpeg::Error| {
        Reason::new(ReasonCode::Internal, format!("start the JPEG decoder: {error}"))
    };
    let mut jpeg = Decompressor::new().map_err(fault)?;
    jpeg.set_scan_limit(MAX_SCANS).map_err(fault)?;
    Ok(jpeg)
}

fn check_size(width: u32, height: u32) -> Result<(), Reason> {
    if width == 0 || height == 0 || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return bad(format!("a picture of {width}×{height} pixels; use 1 to {MAX_PIXELS}"));
    }
    Ok(())
}

fn not_jpeg(error: &turbojpeg::Error) -> String {
    let text = error.to_string();
    let text = text.trim_start_matches("TurboJPEG error: ");
    if text.contains("remature end") {
        format!("the JPEG is cut short ({text})")
    } else {
        format!("not a readable JPEG ({text})")
    }
}

fn bad<T>(detail: String) -> Result<T, Reason> {
    Err(Reason::new(ReasonCode::BadRequest, detail))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::domain::FrameMeta;

    /// A frame's description for tests.
    pub(crate) fn meta(format: FrameFormat, width: u32, height: u32) -> FrameMeta {
        FrameMeta { seq: 1, captured_unix_ns: 0, captured_mono_ns: 0, width, height, format }
    }

    /// A JPEG whose left half is red and right half blue.
    pub(crate) fn jpeg(width: usize, height: usize) -> Vec<u8> {
        let pixels: Vec<u8> = (0..width * height)
            .flat_map(|at| if at % width < width / 2 { [255, 0, 0] } else { [0, 0, 255] })
            .collect();
        let image = Image {
            pixels: &pixels[..],
            width,
            pitch: width * 3,
            height,
            format: turbojpeg::PixelFormat::RGB,
        };
        turbojpeg::compress(image, 95, turbojpeg::Subsamp::None).unwrap().to_vec()
    }

    #[test]
    fn a_jpeg_is_decoded_no_larger_than_needed() {
        let bytes = jpeg(640, 480);
        let frame = FrameView { meta: meta(FrameFormat::Jpeg, 640, 480), bytes: &bytes };
        let mut decoder = PixelDecoder::new().unwrap();
        for (needed, got) in
            [((160, 120), (160, 120)), ((161, 120), (320, 240)), ((1, 1), (80, 60)), ((9999, 9), (640, 480))]
        {
            let pixels = decoder.decode(frame, false, |_, _| needed).unwrap();
            assert_eq!((pixels.width, pixels.height), got);
            assert_eq!(pixels.original, (640, 480));
            let [r, _, b] = pixels.bytes[..3] else { panic!() };
            assert!(r > 240 && b < 15, "left is red: {r} {b}");
        }
        let grey = decoder.decode(frame, true, |_, _| (160, 120)).unwrap();
        assert_eq!((grey.channels, grey.bytes.len()), (1, 160 * 120));
        assert!(grey.bytes[0].abs_diff(76) < 4, "0.299 × 255: {}", grey.bytes[0]);
    }

    #[test]
    fn what_is_no_whole_picture_is_an_error_at_every_length() {
        let bytes = jpeg(64, 48);
        let mut decoder = PixelDecoder::new().unwrap();
        for length in (0..bytes.len() - 2).step_by(7) {
            let frame = FrameView { meta: meta(FrameFormat::Jpeg, 64, 48), bytes: &bytes[..length] };
            let reason = decoder.decode(frame, false, |_, _| (64, 48)).unwrap_err();
            assert_eq!(reason.code, ReasonCode::BadRequest, "{length}");
        }
        let frame = FrameView { meta: meta(FrameFormat::Jpeg, 64, 48), bytes: b"not a picture at all" };
        assert!(decoder.decode(frame, false, |_, _| (64, 48)).is_err());
        let larger = FrameView { meta: meta(FrameFormat::Jpeg, 63, 48), bytes: &bytes };
        assert!(decoder.decode(larger, false, |_, _| (1, 1)).is_err());
    }

    #[test]
    fn spare_bytes_between_the_parts_do_no_harm() {
        let mut bytes = jpeg(64, 48);
        let end = bytes.len() - 2;
        bytes.splice(end..end, [0, 0, 0]);
        let frame = FrameView { meta: meta(FrameFormat::Jpeg, 64, 48), bytes: &bytes };
        assert!(PixelDecoder::new().unwrap().decode(frame, false, |_, _| (64, 48)).is_ok());
    }

    #[test]
    fn raw_frames_must_have_their_exact_length() {
        let mut decoder = PixelDecoder::new().unwrap();
        let bytes = [7; 12];
        let frame = FrameView { meta: meta(FrameFormat::Rgb8, 2, 2), bytes: &bytes };
        assert_eq!(decoder.decode(frame, false, |_, _| (1, 1)).unwrap().bytes, bytes);
        for (format, width, height) in
            [(FrameFormat::Rgb8, 2, 3), (FrameFormat::Grey8, 3, 3), (FrameFormat::Grey8, 0, 12)]
        {
            let frame = FrameView { meta: meta(format, width, height), bytes: &bytes };
            assert!(decoder.decode(frame, false, |_, _| (1, 1)).is_err());
        }
    }
}
