//! From a frame's bytes to pixels, no larger than the model needs.
//!
//! A JPEG is decoded by TurboJPEG at the smallest of the sizes 1/1, 1/2, 1/4 and 1/8 that is still at or
//! above the needed one: those have fast transforms in the library (the eighths between have not), and
//! a transform of fewer coefficients is at the same time the right low-pass filter for the size.
//!
//! Where the picture is resized next, its luminance and colour stay apart, as they lie in the file: what
//! the resizing leaves out then need not be interpolated and turned into red, green and blue first.

use crate::domain::frame::FrameView;
use crate::domain::{PixelFormat, Reason, ReasonCode};
use turbojpeg::{Colorspace, DecompressHeader, Decompressor, Image, ScalingFactor, Subsamp, YuvImage};

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

/// One of the three parts of a colour JPEG.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plane<'a> {
    /// A byte a sample, rows of `width`.
    pub bytes: &'a [u8],
    /// Samples across, padding included.
    pub width: u32,
    /// Samples down, padding included.
    pub height: u32,
    /// Samples across and down that show the picture.
    pub used: [f64; 2],
}

/// A picture as luminance and two differences of colour (Y, Cb, Cr of JFIF), each in its own size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Planes<'a> {
    /// Y, Cb, Cr.
    pub planes: [Plane<'a>; 3],
    /// Width and height of the picture as it was taken.
    pub original: (u32, u32),
}

/// A frame as it is best resized.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Decoded<'a> {
    /// Grey or red, green, blue.
    Pixels(Pixels<'a>),
    /// A colour JPEG.
    Planes(Planes<'a>),
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
        if frame.meta.format != PixelFormat::Jpeg {
            return raw(frame);
        }
        let header = self.header(frame)?;
        let scaled = self.scale(&header, needed)?;
        self.decode_pixels(frame, grey, &header, scaled)
    }

    /// As [`PixelDecoder::decode`], in planes where the frame is a JPEG that has them.
    ///
    /// # Errors
    /// As [`PixelDecoder::decode`].
    pub fn decode_to_resize<'a>(
        &'a mut self,
        frame: FrameView<'a>,
        grey: bool,
        needed: impl FnOnce(u32, u32) -> (u32, u32),
    ) -> Result<Decoded<'a>, Reason> {
        if frame.meta.format != PixelFormat::Jpeg {
            return Ok(Decoded::Pixels(raw(frame)?));
        }
        let header = self.header(frame)?;
        let scaled = self.scale(&header, needed)?;
        let apart =
            matches!(header.subsamp, Subsamp::None | Subsamp::Sub2x1 | Subsamp::Sub2x2 | Subsamp::Sub1x2);
        if !grey && apart && header.colorspace == Colorspace::YCbCr && !header.is_lossless {
            self.decode_planes(frame, &header, scaled).map(Decoded::Planes)
        } else {
            self.decode_pixels(frame, grey, &header, scaled).map(Decoded::Pixels)
        }
    }

    /// Reads the header of a JPEG and checks what it says.
    fn header(&mut self, frame: FrameView<'_>) -> Result<DecompressHeader, Reason> {
        if std::mem::replace(&mut self.spoiled, true) {
            self.jpeg = decompressor()?;
        }
        let header = self.jpeg.read_header(frame.bytes).or_else(|error| bad(not_jpeg(&error)))?;
        let original = (size(header.width), size(header.height));
        check_size(original.0, original.1)?;
        if original.0 > frame.meta.width || original.1 > frame.meta.height {
            return bad(format!(
                "a JPEG of {}×{} in a frame stated as {}×{}",
                original.0, original.1, frame.meta.width, frame.meta.height
            ));
        }
        Ok(header)
    }

    /// Chooses the scale and returns the width and height at it.
    fn scale(
        &mut self,
        header: &DecompressHeader,
        needed: impl FnOnce(u32, u32) -> (u32, u32),
    ) -> Result<(usize, usize), Reason> {
        let (least_width, least_height) = needed(size(header.width), size(header.height));
        let smaller = [ScalingFactor::ONE_EIGHTH, ScalingFactor::ONE_QUARTER, ScalingFactor::ONE_HALF];
        let factor = smaller.into_iter().find(|factor| {
            !header.is_lossless
                && factor.scale(header.width) >= least_width as usize
                && factor.scale(header.height) >= least_height as usize
        });
        let factor = factor.unwrap_or(ScalingFactor::ONE);
        self.jpeg.set_scaling_factor(factor).or_else(|error| bad(not_jpeg(&error)))?;
        Ok((factor.scale(header.width), factor.scale(header.height)))
    }

    fn decode_pixels<'a>(
        &'a mut self,
        frame: FrameView<'a>,
        grey: bool,
        header: &DecompressHeader,
        (width, height): (usize, usize),
    ) -> Result<Pixels<'a>, Reason> {
        let channels = if grey { 1 } else { 3 };
        let format = if grey { turbojpeg::PixelFormat::GRAY } else { turbojpeg::PixelFormat::RGB };
        let pixels = room(&mut self.buffer, width * height * channels);
        let image = Image { pixels: &mut *pixels, width, pitch: width * channels, height, format };
        self.spoiled = !is_whole(self.jpeg.decompress(frame.bytes, image))?;
        Ok(Pixels {
            bytes: pixels,
            channels,
            width: size(width),
            height: size(height),
            original: (size(header.width), size(header.height)),
        })
    }

    fn decode_planes<'a>(
        &'a mut self,
        frame: FrameView<'a>,
        header: &DecompressHeader,
        (width, height): (usize, usize),
    ) -> Result<Planes<'a>, Reason> {
        let subsamp = header.subsamp;
        let length =
            turbojpeg::yuv_pixels_len(width, 1, height, subsamp).or_else(|error| bad(not_jpeg(&error)))?;
        let buffer = room(&mut self.buffer, length);
        let mut image = YuvImage { pixels: buffer, width, align: 1, height, subsamp };
        self.spoiled = !is_whole(self.jpeg.decompress_to_yuv(frame.bytes, image.as_deref_mut()))?;
        let (whole, colour) = (image.y_size(), image.uv_size());
        let (luma, colours) = image.pixels.split_at(whole.0 * whole.1);
        let (blue, red) = colours.split_at(colour.0 * colour.1);
        let used = [width as f64, height as f64];
        let shrunk = [used[0] / subsamp.width() as f64, used[1] / subsamp.height() as f64];
        let plane = |bytes, (width, height): (usize, usize), used| Plane {
            bytes,
            width: size(width),
            height: size(height),
            used,
        };
        Ok(Planes {
            planes: [plane(luma, whole, used), plane(blue, colour, shrunk), plane(red, colour, shrunk)],
            original: (size(header.width), size(header.height)),
        })
    }
}

/// A frame that is pixels already.
fn raw(frame: FrameView<'_>) -> Result<Pixels<'_>, Reason> {
    let (width, height) = (frame.meta.width, frame.meta.height);
    let channels = if frame.meta.format == PixelFormat::Grey8 { 1 } else { 3 };
    check_size(width, height)?;
    if frame.meta.format.exact_len(width, height) != Some(frame.bytes.len()) {
        return bad(format!(
            "a {width}×{height} frame of {channels} bytes a pixel has {} bytes; the source pads its rows or lost a \
             part",
            frame.bytes.len()
        ));
    }
    Ok(Pixels { bytes: frame.bytes, channels, width, height, original: (width, height) })
}

/// The first `length` bytes of a buffer that only grows.
fn room(buffer: &mut Vec<u8>, length: usize) -> &mut [u8] {
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
    &mut buffer[..length]
}

fn size(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// What the decoder says of a picture: true when it was flawless, false when nothing is missing though.
fn is_whole(result: Result<(), turbojpeg::Error>) -> Result<bool, Reason> {
    match result {
        Ok(()) => Ok(true),
        // Cheap cameras write a few spare bytes between the parts of a JPEG; nothing is missing then.
        Err(error) if error.to_string().contains("extraneous bytes before marker") => Ok(false),
        Err(error) => bad(not_jpeg(&error)),
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
    pub(crate) fn meta(format: PixelFormat, width: u32, height: u32) -> FrameMeta {
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
        let frame = FrameView { meta: meta(PixelFormat::Jpeg, 640, 480), bytes: &bytes };
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
    fn a_colour_jpeg_comes_in_planes_and_others_do_not() {
        let mut decoder = PixelDecoder::new().unwrap();
        for subsamp in [Subsamp::None, Subsamp::Sub2x1, Subsamp::Sub2x2, Subsamp::Sub1x2] {
            let pixels = [0, 0, 255].repeat(33 * 21);
            let format = turbojpeg::PixelFormat::RGB;
            let image = Image { pixels: &pixels[..], width: 33, pitch: 99, height: 21, format };
            let bytes = turbojpeg::compress(image, 95, subsamp).unwrap();
            let frame = FrameView { meta: meta(PixelFormat::Jpeg, 33, 21), bytes: &bytes };
            let Decoded::Planes(found) = decoder.decode_to_resize(frame, false, |w, h| (w, h)).unwrap()
            else {
                panic!("{subsamp:?} in one piece")
            };
            assert_eq!((found.original, found.planes[0].used), ((33, 21), [33.0, 21.0]));
            for (plane, value) in found.planes.iter().zip([29u8, 255, 107]) {
                assert_eq!(plane.bytes.len(), (plane.width * plane.height) as usize);
                assert!(plane.bytes.iter().all(|byte| byte.abs_diff(value) < 4), "{subsamp:?} {plane:?}");
            }
            let grey = decoder.decode_to_resize(frame, true, |w, h| (w, h)).unwrap();
            assert!(matches!(grey, Decoded::Pixels(Pixels { channels: 1, .. })));
        }
        let frame = FrameView { meta: meta(PixelFormat::Rgb8, 1, 1), bytes: &[1, 2, 3] };
        assert!(matches!(decoder.decode_to_resize(frame, false, |w, h| (w, h)), Ok(Decoded::Pixels(_))));
    }

    #[test]
    fn what_is_no_whole_picture_is_an_error_at_every_length() {
        let bytes = jpeg(64, 48);
        let mut decoder = PixelDecoder::new().unwrap();
        for length in (0..bytes.len() - 2).step_by(7) {
            let frame = FrameView { meta: meta(PixelFormat::Jpeg, 64, 48), bytes: &bytes[..length] };
            let reason = decoder.decode(frame, false, |_, _| (64, 48)).unwrap_err();
            assert_eq!(reason.code, ReasonCode::BadRequest, "{length}");
            let reason = decoder.decode_to_resize(frame, false, |_, _| (64, 48)).unwrap_err();
            assert_eq!(reason.code, ReasonCode::BadRequest, "{length}");
        }
        let frame = FrameView { meta: meta(PixelFormat::Jpeg, 64, 48), bytes: b"not a picture at all" };
        assert!(decoder.decode(frame, false, |_, _| (64, 48)).is_err());
        let larger = FrameView { meta: meta(PixelFormat::Jpeg, 63, 48), bytes: &bytes };
        assert!(decoder.decode(larger, false, |_, _| (1, 1)).is_err());
    }

    #[test]
    fn spare_bytes_between_the_parts_do_no_harm() {
        let mut bytes = jpeg(64, 48);
        let end = bytes.len() - 2;
        bytes.splice(end..end, [0, 0, 0]);
        let frame = FrameView { meta: meta(PixelFormat::Jpeg, 64, 48), bytes: &bytes };
        assert!(PixelDecoder::new().unwrap().decode(frame, false, |_, _| (64, 48)).is_ok());
    }

    #[test]
    fn raw_frames_must_have_their_exact_length() {
        let mut decoder = PixelDecoder::new().unwrap();
        let bytes = [7; 12];
        let frame = FrameView { meta: meta(PixelFormat::Rgb8, 2, 2), bytes: &bytes };
        assert_eq!(decoder.decode(frame, false, |_, _| (1, 1)).unwrap().bytes, bytes);
        for (format, width, height) in
            [(PixelFormat::Rgb8, 2, 3), (PixelFormat::Grey8, 3, 3), (PixelFormat::Grey8, 0, 12)]
        {
            let frame = FrameView { meta: meta(format, width, height), bytes: &bytes };
            assert!(decoder.decode(frame, false, |_, _| (1, 1)).is_err());
        }
    }
}
