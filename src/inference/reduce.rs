//! A small grey picture of a frame, cheaply: what the motion gate looks at.
//!
//! A JPEG is decoded at a fraction of its size, brightness only; of raw pictures only some pixels are
//! read. The memory is kept from frame to frame.

use super::pixels::{MAX_PIXELS, MAX_SCANS};
use crate::domain::FrameFormat;
use crate::domain::frame::FrameView;
use crate::domain::motion::Grey;
use crate::domain::{Reason, ReasonCode};
use turbojpeg::{Decompressor, Image, PixelFormat, ScalingFactor};

/// A reduced picture has at least half of this across, where the frame has as many, and at most about
/// four times this of raw pixels.
const WIDTH: usize = 160;

/// Makes small grey pictures.
#[derive(Default)]
pub struct Reducer {
    decompressor: Option<Decompressor>,
    values: Vec<u8>,
}

impl Reducer {
    /// The frame in small and grey; `None` for what is no picture.
    ///
    /// # Errors
    /// When a JPEG cannot be decoded.
    #[unsafe(export_name = "hot_grey")]
    pub fn grey(&mut self, frame: FrameView<'_>) -> Result<Option<Grey<'_>>, Reason> {
        let (width, height) = (frame.meta.width as usize, frame.meta.height as usize);
        // No pixels in four thousand million rows would be counted one by one.
        if frame.meta.format != FrameFormat::Jpeg && (width == 0 || height == 0) {
            return Ok(None);
        }
        let (pixel, first) = match frame.meta.format {
            FrameFormat::Jpeg => return self.jpeg(frame.bytes).map(Some),
            FrameFormat::Samples => return Ok(None),
            // Green is most of the brightness.
            FrameFormat::Rgb8 => (3, 1),
            FrameFormat::Yuyv => (2, 0),
            FrameFormat::Grey8 | FrameFormat::Nv12 | FrameFormat::I420 => (1, 0),
        };
        let step = (width / (2 * WIDTH)).max(1);
        let size = (width / step, height / step);
        self.values.clear();
        for y in 0..size.1 {
            let row = y * step * width * pixel;
            let row = frame.bytes.get(row..row + width * pixel).unwrap_or_default();
            self.values.extend(row.iter().skip(first).step_by(step * pixel).take(size.0));
        }
        Ok(Some(Grey { width: size.0, height: size.1, values: &self.values }))
    }

    fn jpeg(&mut self, bytes: &[u8]) -> Result<Grey<'_>, Reason> {
        let fault = |error: turbojpeg::Error| {
            let detail = format!("look for motion: not a readable JPEG ({error})");
            Reason::new(ReasonCode::BadRequest, detail)
        };
        // One that has failed is not used again: it tells the size of an earlier picture.
        let mut decompressor = match self.decompressor.take() {
            Some(decompressor) => decompressor,
            None => {
                let mut new = Decompressor::new().map_err(fault)?;
                new.set_scan_limit(MAX_SCANS).map_err(fault)?;
                new
            }
        };
        let header = decompressor.read_header(bytes).map_err(fault)?;
        if header.width as u64 * header.height as u64 > MAX_PIXELS {
            let (width, height) = (header.width, header.height);
            let detail =
                format!("look for motion: a JPEG of {width}×{height} pixels; use at most {MAX_PIXELS}");
            return Err(Reason::new(ReasonCode::BadRequest, detail));
        }
        let smaller = [ScalingFactor::ONE_EIGHTH, ScalingFactor::ONE_QUARTER, ScalingFactor::ONE_HALF];
        let scale = smaller.into_iter().find(|scale| scale.scale(header.width) >= WIDTH / 2);
        let scale = scale.filter(|_| !header.is_lossless).unwrap_or(ScalingFactor::ONE);
        decompressor.set_scaling_factor(scale).map_err(fault)?;
        let (width, height) = (scale.scale(header.width), scale.scale(header.height));
        self.values.resize(width * height, 0);
        let image = Image {
            pixels: self.values.as_mut_slice(),
            width,
            pitch: width,
            height,
            format: PixelFormat::GRAY,
        };
        decompressor.decompress(bytes, image).map_err(fault)?;
        self.decompressor = Some(decompressor);
        Ok(Grey { width, height, values: &self.values })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::FrameMeta;

    fn grey(
        format: FrameFormat,
        width: u32,
        height: u32,
        bytes: &[u8],
    ) -> Result<(usize, usize, Vec<u8>), Reason> {
        let meta = FrameMeta { seq: 1, captured_unix_ns: 0, captured_mono_ns: 0, width, height, format };
        let mut reducer = Reducer::default();
        let grey = reducer.grey(FrameView { meta, bytes })?.expect("a picture");
        assert_eq!(grey.values.len(), grey.width * grey.height);
        Ok((grey.width, grey.height, grey.values.to_vec()))
    }

    #[test]
    fn every_format_of_pictures_gives_its_brightness() {
        let (w, h) = (640u32, 480u32);
        let pixels = (w * h) as usize;
        let of = |format, bytes: Vec<u8>| {
            let (width, height, values) = grey(format, w, h, &bytes).unwrap();
            assert_eq!((width, height), (320, 240), "{format:?}");
            assert!(values.iter().all(|value| *value == 90), "{format:?}");
        };
        of(FrameFormat::Grey8, vec![90; pixels]);
        of(FrameFormat::Rgb8, [1, 90, 2].repeat(pixels));
        of(FrameFormat::Yuyv, [90, 1, 90, 2].repeat(pixels / 2));
        for format in [FrameFormat::Nv12, FrameFormat::I420] {
            of(format, [vec![90; pixels], vec![7; pixels / 2]].concat());
        }
    }

    #[test]
    fn a_jpeg_is_decoded_at_the_fraction_that_is_enough() {
        for (w, h, wanted) in [(1280usize, 720usize, (160, 90)), (320, 240, (80, 60)), (64, 48, (64, 48))] {
            let pixels = vec![120u8; w * h];
            let image =
                Image { pixels: pixels.as_slice(), width: w, pitch: w, height: h, format: PixelFormat::GRAY };
            let jpeg = turbojpeg::compress(image, 90, turbojpeg::Subsamp::Gray).unwrap();
            let (width, height, values) = grey(FrameFormat::Jpeg, w as u32, h as u32, &jpeg).unwrap();
            assert_eq!((width, height), wanted);
            assert!(values.iter().all(|value| value.abs_diff(120) <= 1));
        }
        let error = grey(FrameFormat::Jpeg, 8, 8, b"no").unwrap_err();
        assert!(error.detail.contains("look for motion"), "{error}");
    }

    #[test]
    fn a_picture_without_pixels_is_none_however_many_rows_it_states() {
        let (width, height) = (0, 0xf300_0000);
        let format = FrameFormat::Nv12;
        let meta = FrameMeta { seq: 1, captured_unix_ns: 0, captured_mono_ns: 0, width, height, format };
        assert!(Reducer::default().grey(FrameView { meta, bytes: &[] }).unwrap().is_none());
    }

    /// A JPEG's segment.
    fn segment(code: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len() + 2).unwrap().to_be_bytes();
        [&[0xff, code], &length[..], content].concat()
    }

    /// The head of a JPEG of one channel, up to its first scan; `kind` is the frame's marker.
    fn head(kind: u8, width: u16, height: u16) -> Vec<u8> {
        let ([h, i], [w, x]) = (height.to_be_bytes(), width.to_be_bytes());
        let one_code = |table: u8| [&[table, 1][..], &[0; 15], &[0]].concat();
        [
            vec![0xff, 0xd8],
            segment(0xdb, &[&[0][..], &[1; 64]].concat()),
            segment(kind, &[8, h, i, w, x, 1, 1, 0x11, 0]),
            segment(0xc4, &one_code(0x00)),
            segment(0xc4, &one_code(0x10)),
        ]
        .concat()
    }

    #[test]
    fn a_jpeg_that_states_a_huge_size_takes_no_memory() {
        // Lossless ones cannot be reduced while they are decoded: four gigabytes.
        for kind in [0xc0, 0xc3] {
            let scan = segment(0xda, if kind == 0xc3 { &[1, 1, 0, 1, 0, 0] } else { &[1, 1, 0, 0, 63, 0] });
            let jpeg = [head(kind, 65_500, 65_500), scan, vec![0, 0xff, 0xd9]].concat();
            let mut reducer = Reducer::default();
            let meta = FrameMeta {
                seq: 1,
                captured_unix_ns: 0,
                captured_mono_ns: 0,
                width: 65_500,
                height: 65_500,
                format: FrameFormat::Jpeg,
            };
            let error = reducer.grey(FrameView { meta, bytes: &jpeg }).map(|_| ()).unwrap_err();
            assert!(error.detail.contains("65500×65500 pixels"), "{error}");
            assert!(reducer.values.capacity() < 1 << 20);
        }
    }

    #[test]
    fn a_jpeg_of_endless_scans_is_given_up() {
        let first = [segment(0xda, &[1, 1, 0, 0, 0, 0]), vec![0x7f]].concat();
        let more = [segment(0xda, &[1, 1, 0, 1, 63, 0]), vec![0x7f]].concat();
        let jpeg = [head(0xc2, 8, 8), first, more.repeat(100_000), vec![0xff, 0xd9]].concat();
        let error = grey(FrameFormat::Jpeg, 8, 8, &jpeg).unwrap_err();
        assert!(error.detail.contains("scans"), "{error}");
    }
}
