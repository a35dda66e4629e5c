//! From a frame's bytes to pixels, no larger than the model needs.
//!
//! A JPEG is decoded by TurboJPEG at the smallest of the sizes 1/1, 1/2, 1/4 and 1/8 that is still at or
//! above the needed one: those have fast transforms in the library (the eighths between have not), and
//! a transform of fewer coefficients is at the same time the right low-pass filter for the size.
//!
//! For a model it is left in its own luminance and colour differences ([`Planes`]): what converting and
//! smoothing colours costs at the size of a camera is saved, they are converted at the model's size.
//! A raw frame is not touched here at all.

use super::planes::{Planes, Range, Sampler, Want};
use crate::domain::frame::FrameView;
use crate::domain::{FrameFormat, Reason, ReasonCode};
use turbojpeg::{Colorspace, DecompressHeader, Decompressor, Image, ScalingFactor, Subsamp, YuvImage};

/// Most pixels of a picture; a bound on memory, not on quality.
pub const MAX_PIXELS: u64 = 100_000_000;
/// Scans of a progressive JPEG; more is an attack on time.
pub(super) const MAX_SCANS: u32 = 100;

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
    sampler: Sampler,
}

impl PixelDecoder {
    /// A new decoder.
    ///
    /// # Errors
    /// `Internal` when there is no memory for one.
    pub fn new() -> Result<Self, Reason> {
        Ok(Self { jpeg: decompressor()?, spoiled: false, buffer: Vec::new(), sampler: Sampler::default() })
    }

    /// The planes of a frame, for a [`Sampler`]; of a JPEG at a size of at least `needed` (width, height)
    /// where the picture is that large, and without its colours when only luminance is wanted.
    ///
    /// # Errors
    /// As [`PixelDecoder::decode`].
    pub fn planes<'a>(
        &'a mut self,
        frame: FrameView<'a>,
        want: Want,
        needed: impl FnOnce(u32, u32) -> (u32, u32),
    ) -> Result<Planes<'a>, Reason> {
        if frame.meta.format != FrameFormat::Jpeg {
            return raw(frame);
        }
        let jpeg = self.open(frame, needed)?;
        let grey = want == Want::Grey || jpeg.header.subsamp == Subsamp::Gray;
        // What is stored in other colours is rare; the library makes red, green and blue of it. It also
        // knows to reduce colours less where they are coarser, which counts where they are four times so.
        let coarse = matches!(jpeg.header.subsamp, Subsamp::Sub4x1 | Subsamp::Sub1x4)
            && jpeg.size != (jpeg.header.width, jpeg.header.height);
        let convertible = jpeg.header.colorspace == Colorspace::YCbCr
            && jpeg.header.subsamp != Subsamp::Unknown
            && !jpeg.header.is_lossless
            && !coarse;
        if grey || !convertible {
            let pixels = self.packed(frame, &jpeg, grey)?;
            let size = (pixels.width, pixels.height);
            let planes =
                if grey { Planes::grey(pixels.bytes, size) } else { Planes::rgb(pixels.bytes, size) };
            return Ok(planes.of_original(jpeg.original));
        }
        let (width, height) = jpeg.size;
        let mut image =
            YuvImage { pixels: &mut [][..], width, align: 1, height, subsamp: jpeg.header.subsamp };
        let (y_size, chroma) = (image.y_size(), image.uv_size());
        let length = y_size.0 * y_size.1 + 2 * chroma.0 * chroma.1;
        image.pixels = room(&mut self.buffer, length);
        let result = self.jpeg.decompress_to_yuv(frame.bytes, image);
        self.judge(result)?;
        // The rows may be a little longer than the picture: filled up to whole blocks.
        let size = (whole(y_size.0), whole(y_size.1));
        let planes = Planes::yuv(&self.buffer[..length], size, chroma, Range::Full);
        Ok(planes.cropped((whole(width), whole(height))).of_original(jpeg.original))
    }

    /// The pixels of a frame, in one channel when `grey` (a raw frame of one channel or of three as it
    /// is); for a JPEG at a size of at least `needed` (width, height) where the picture is that large.
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
            FrameFormat::Jpeg => {
                let jpeg = self.open(frame, needed)?;
                return self.packed(frame, &jpeg, grey);
            }
            FrameFormat::Yuyv | FrameFormat::Nv12 | FrameFormat::I420 => return self.converted(frame, grey),
            FrameFormat::Rgb8 | FrameFormat::Samples => 3,
            FrameFormat::Grey8 => 1,
        };
        raw(frame)?;
        Ok(Pixels { bytes: frame.bytes, channels, width, height, original: (width, height) })
    }

    /// A raw YUV frame at its own size.
    fn converted(&mut self, frame: FrameView<'_>, grey: bool) -> Result<Pixels<'_>, Reason> {
        let picture = raw(frame)?;
        let ((width, height), channels) = (picture.size, if grey { 1 } else { 3 });
        let want = if grey { Want::Grey } else { Want::Rgb };
        let row = width as usize * channels;
        let bytes = room(&mut self.buffer, row * height as usize);
        self.sampler.sample(&picture, [0.0, 0.0, 1.0, 1.0], picture.size, want, &mut |y, [r, g, b]| {
            let line = &mut bytes[y * row..][..row];
            if grey {
                line.copy_from_slice(r);
            } else {
                for (to, ((r, g), b)) in line.as_chunks_mut::<3>().0.iter_mut().zip(r.iter().zip(g).zip(b)) {
                    *to = [*r, *g, *b];
                }
            }
        });
        Ok(Pixels { bytes, channels, width, height, original: (width, height) })
    }

    /// Reads the header and sets the scale.
    fn open(
        &mut self,
        frame: FrameView<'_>,
        needed: impl FnOnce(u32, u32) -> (u32, u32),
    ) -> Result<Jpeg, Reason> {
        if std::mem::replace(&mut self.spoiled, true) {
            self.jpeg = decompressor()?;
        }
        let header = self.jpeg.read_header(frame.bytes).or_else(|error| bad(not_jpeg(&error)))?;
        let original = (whole(header.width), whole(header.height));
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
        self.jpeg.set_scaling_factor(factor).or_else(|error| bad(not_jpeg(&error)))?;
        let size = (factor.scale(header.width), factor.scale(header.height));
        Ok(Jpeg { header, original, size })
    }

    /// Red, green and blue (or luminance) in turn.
    fn packed(&mut self, frame: FrameView<'_>, jpeg: &Jpeg, grey: bool) -> Result<Pixels<'_>, Reason> {
        let (width, height) = jpeg.size;
        let (channels, format) =
            if grey { (1, turbojpeg::PixelFormat::GRAY) } else { (3, turbojpeg::PixelFormat::RGB) };
        let length = width * height * channels;
        let pixels = room(&mut self.buffer, length);
        let image = Image { pixels, width, pitch: width * channels, height, format };
        let result = self.jpeg.decompress(frame.bytes, image);
        self.judge(result)?;
        let (bytes, width, height) = (&self.buffer[..length], whole(width), whole(height));
        Ok(Pixels { bytes, channels, width, height, original: jpeg.original })
    }

    fn judge(&mut self, result: Result<(), turbojpeg::Error>) -> Result<(), Reason> {
        match result {
            Ok(()) => self.spoiled = false,
            // Cheap cameras write a few spare bytes between the parts of a JPEG; nothing is missing then.
            Err(error) if error.to_string().contains("extraneous bytes before marker") => {}
            Err(error) => return bad(not_jpeg(&error)),
        }
        Ok(())
    }
}

/// What the header of a JPEG says, and the size at which it will be decoded.
struct Jpeg {
    header: DecompressHeader,
    original: (u32, u32),
    size: (usize, usize),
}

/// A frame that is no JPEG, as it lies in its bytes.
fn raw(frame: FrameView<'_>) -> Result<Planes<'_>, Reason> {
    let (bytes, size) = (frame.bytes, (frame.meta.width, frame.meta.height));
    let (width, height) = size;
    check_size(width, height)?;
    let format = frame.meta.format;
    let (even_width, even_height) = match format {
        FrameFormat::Yuyv => (true, false),
        FrameFormat::Nv12 | FrameFormat::I420 => (true, true),
        FrameFormat::Jpeg | FrameFormat::Rgb8 | FrameFormat::Grey8 | FrameFormat::Samples => (false, false),
    };
    if (even_width && width % 2 != 0) || (even_height && height % 2 != 0) {
        return bad(format!("a {width}×{height} frame of format {format:?}; its size must be even"));
    }
    if format.exact_len(width, height) != Some(bytes.len()) {
        return bad(format!(
            "a {width}×{height} frame of format {format:?} has {} bytes; the source pads its rows or lost a part",
            bytes.len()
        ));
    }
    Ok(match format {
        FrameFormat::Rgb8 => Planes::rgb(bytes, size),
        FrameFormat::Grey8 => Planes::grey(bytes, size),
        FrameFormat::Yuyv => Planes::yuyv(bytes, size),
        FrameFormat::Nv12 => Planes::nv12(bytes, size),
        FrameFormat::I420 => {
            Planes::yuv(bytes, size, (width as usize / 2, height as usize / 2), Range::Limited)
        }
        FrameFormat::Jpeg | FrameFormat::Samples => {
            return bad(format!("a frame of format {format:?} is no raw picture"));
        }
    })
}

/// The first `length` bytes of a buffer that grows where it must.
fn room(buffer: &mut Vec<u8>, length: usize) -> &mut [u8] {
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
    &mut buffer[..length]
}

fn whole(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
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
    fn the_planes_of_every_kind_of_jpeg_show_what_the_library_shows() {
        use turbojpeg::{PixelFormat, Subsamp};
        // Odd sizes: the colours then cover more than the picture.
        for (width, height) in [(64, 48), (67, 45), (15, 9), (1, 1)] {
            let pixels: Vec<u8> = (0..width * height)
                .flat_map(|at| [90 + (at % width) as u8, 60 + (at / width * 2) as u8, 120])
                .collect();
            let image =
                Image { pixels: &pixels[..], width, pitch: width * 3, height, format: PixelFormat::RGB };
            for subsampling in [
                Subsamp::None,
                Subsamp::Sub2x1,
                Subsamp::Sub2x2,
                Subsamp::Sub1x2,
                Subsamp::Sub4x1,
                Subsamp::Sub1x4,
                Subsamp::Gray,
            ] {
                let bytes = turbojpeg::compress(image, 95, subsampling).unwrap();
                let meta = meta(FrameFormat::Jpeg, width as u32, height as u32);
                let frame = FrameView { meta, bytes: &bytes };
                let (mut one, mut other) = (PixelDecoder::new().unwrap(), PixelDecoder::new().unwrap());
                for (want, grey) in [(Want::Rgb, false), (Want::Grey, true)] {
                    for needed in [(1, 1), (20, 10), (99, 99)] {
                        let packed = one.decode(frame, grey, |_, _| needed).unwrap();
                        let planes = other.planes(frame, want, |_, _| needed).unwrap();
                        assert_eq!(
                            (planes.size, planes.original),
                            ((packed.width, packed.height), packed.original)
                        );
                        let mut row = packed.bytes.chunks_exact(packed.width as usize * packed.channels);
                        let (mut off, mut count) = (0u64, 0);
                        Sampler::default().sample(
                            &planes,
                            [0., 0., 1., 1.],
                            planes.size,
                            want,
                            &mut |_, [r, g, b]| {
                                for (x, pixel) in
                                    row.next().unwrap().chunks_exact(packed.channels).enumerate()
                                {
                                    let got = [r[x], g[x], b[x]];
                                    off += pixel
                                        .iter()
                                        .zip(got)
                                        .map(|(a, b)| u64::from(a.abs_diff(b)))
                                        .sum::<u64>();
                                    count += packed.channels as u64;
                                }
                            },
                        );
                        assert!(row.next().is_none());
                        // The library smooths colours another way; the shares differ at edges only.
                        assert!(off <= 4 * count, "{subsampling:?} {width}x{height}: {off} of {count}");
                    }
                }
            }
        }
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
