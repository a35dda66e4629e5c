//! A frame as a JPEG for people, no larger than asked for.

use crate::domain::frame::FrameView;
use crate::domain::{FrameFormat, Reason, ReasonCode};
use crate::inference::draw;
use crate::inference::pixels::{PixelDecoder, Pixels};
use crate::inference::shrink::shrink;
use crate::process::protocol::{Boxes, MAX_MESSAGE};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// JPEG quality of what is made here; a camera's own JPEG is passed on as it is.
const QUALITY: i32 = 85;
/// Longest JPEG that fits into a message in base64, with what stands around it.
const MAX_JPEG: usize = (MAX_MESSAGE - 1024) / 4 * 3;

/// The frame as a JPEG in base64 whose longest edge is at most `max_edge` pixels (0: as it is), with boxes drawn
/// on it where there are any.
///
/// # Errors
/// `BadRequest`: the frame is no picture, or the JPEG would be too long for a message.
pub fn jpeg_base64(frame: FrameView<'_>, max_edge: u32, boxes: Option<&Boxes>) -> Result<String, Reason> {
    let jpeg = jpeg(frame, max_edge, boxes.filter(|boxes| !boxes.detections.is_empty()))?;
    if jpeg.len() > MAX_JPEG {
        let detail =
            format!("snapshot: {} bytes are more than {MAX_JPEG}; ask for a shorter edge", jpeg.len());
        return Err(Reason::new(ReasonCode::BadRequest, detail));
    }
    Ok(STANDARD.encode(jpeg))
}

fn jpeg(frame: FrameView<'_>, max_edge: u32, boxes: Option<&Boxes>) -> Result<Vec<u8>, Reason> {
    let meta = frame.meta;
    let (width, height) = fit(meta.width, meta.height, max_edge);
    if boxes.is_none() && meta.format == FrameFormat::Jpeg && (width, height) == (meta.width, meta.height) {
        return Ok(frame.bytes.to_vec());
    }
    let grey = meta.format == FrameFormat::Grey8;
    let mut decoder = PixelDecoder::new()?;
    let pixels = decoder.decode(frame, grey, |_, _| (width, height))?;
    // Of a frame that is smaller than it says, no larger one is made.
    let (width, height) = (width.min(pixels.width), height.min(pixels.height));
    if (pixels.width, pixels.height) == (width, height) {
        return drawn(&pixels, boxes);
    }
    let mut bytes = vec![0; width as usize * height as usize * pixels.channels];
    let size = |width: u32, height: u32| (width as usize, height as usize);
    let (from, to) = (size(pixels.width, pixels.height), size(width, height));
    if !shrink(pixels.bytes, from, pixels.channels, &mut bytes, to) {
        let detail =
            format!("snapshot: cannot bring {}×{} pixels to {width}×{height}", pixels.width, pixels.height);
        return Err(Reason::new(ReasonCode::Internal, detail));
    }
    drawn(&Pixels { bytes: &bytes, width, height, ..pixels }, boxes)
}

/// The pixels as a JPEG, with the boxes on them.
fn drawn(pixels: &Pixels<'_>, boxes: Option<&Boxes>) -> Result<Vec<u8>, Reason> {
    let Some(Boxes { size, detections }) = boxes else { return encode(pixels) };
    let mut rgb: Vec<u8> = match pixels.channels {
        // Boxes have colours.
        1 => pixels.bytes.iter().flat_map(|grey| [*grey; 3]).collect(),
        _three => pixels.bytes.to_vec(),
    };
    let scale = |pixels: u32, of: u32| pixels as f32 / of.max(1) as f32;
    let scale = [scale(pixels.width, size[0]), scale(pixels.height, size[1])];
    draw::boxes(&mut rgb, (pixels.width as usize, pixels.height as usize), detections, scale);
    encode(&Pixels { bytes: &rgb, channels: 3, ..*pixels })
}

fn encode(pixels: &Pixels<'_>) -> Result<Vec<u8>, Reason> {
    let (format, subsampling) = match pixels.channels {
        1 => (turbojpeg::PixelFormat::GRAY, turbojpeg::Subsamp::Gray),
        _three => (turbojpeg::PixelFormat::RGB, turbojpeg::Subsamp::Sub2x2),
    };
    let width = pixels.width as usize;
    let image = turbojpeg::Image {
        pixels: pixels.bytes,
        width,
        pitch: width * pixels.channels,
        height: pixels.height as usize,
        format,
    };
    turbojpeg::compress(image, QUALITY, subsampling)
        .map(|jpeg| jpeg.to_vec())
        .map_err(|e| Reason::new(ReasonCode::Internal, format!("snapshot: make the JPEG: {e}")))
}

/// The size in the same proportion whose longest edge is at most `max_edge`; never larger than it is.
fn fit(width: u32, height: u32, max_edge: u32) -> (u32, u32) {
    let longest = width.max(height);
    if max_edge == 0 || longest <= max_edge {
        return (width, height);
    }
    let scale = |edge: u32| {
        let scaled = u64::from(edge) * u64::from(max_edge) / u64::from(longest);
        u32::try_from(scaled).unwrap_or(max_edge).max(1)
    };
    (scale(width), scale(height))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::FrameMeta;

    fn meta(format: FrameFormat, width: u32, height: u32) -> FrameMeta {
        FrameMeta { seq: 1, captured_unix_ns: 0, captured_mono_ns: 0, width, height, format }
    }

    fn size(jpeg: &[u8]) -> (usize, usize) {
        let header = turbojpeg::read_header(jpeg).unwrap();
        (header.width, header.height)
    }

    #[test]
    fn every_format_becomes_a_jpeg_of_the_asked_size() {
        // 120 of full range is 119 of limited range, with no colour.
        let yuv = [vec![119; 640 * 360], vec![128; 640 * 180]].concat();
        for (format, bytes) in [
            (FrameFormat::Rgb8, vec![120; 640 * 360 * 3]),
            (FrameFormat::Grey8, vec![120; 640 * 360]),
            (FrameFormat::Yuyv, [119, 128].repeat(640 * 360)),
            (FrameFormat::Nv12, yuv.clone()),
            (FrameFormat::I420, yuv),
        ] {
            let frame = FrameView { meta: meta(format, 640, 360), bytes: &bytes };
            assert_eq!(size(&jpeg(frame, 0, None).unwrap()), (640, 360));
            assert_eq!(size(&jpeg(frame, 2000, None).unwrap()), (640, 360), "never larger than it is");
            assert_eq!(size(&jpeg(frame, 100, None).unwrap()), (100, 56));
            let whole = jpeg(frame, 0, None).unwrap();
            let again = FrameView { meta: meta(FrameFormat::Jpeg, 640, 360), bytes: &whole };
            assert_eq!(jpeg(again, 640, None).unwrap(), whole, "a JPEG that fits is passed on");
            let small = jpeg(again, 123, None).unwrap();
            assert_eq!(size(&small), (123, 69));
            let pixels = turbojpeg::decompress(&small, turbojpeg::PixelFormat::RGB).unwrap().pixels;
            assert!(pixels.iter().all(|p| p.abs_diff(120) < 5), "and shows the same");
            assert_eq!(size(&jpeg(again, 1, None).unwrap()), (1, 1));
        }
    }

    #[test]
    fn samples_are_no_picture() {
        let frame = FrameView { meta: meta(FrameFormat::Samples, 2, 2), bytes: &[0; 16] };
        assert_eq!(jpeg(frame, 0, None).unwrap_err().code, ReasonCode::BadRequest);
    }

    #[test]
    fn what_is_no_picture_gives_a_reason() {
        let torn = FrameView { meta: meta(FrameFormat::Jpeg, 64, 64), bytes: b"\xff\xd8 torn" };
        assert_eq!(jpeg_base64(torn, 10, None).unwrap_err().code, ReasonCode::BadRequest);
        let huge = vec![0; MAX_JPEG + 1];
        let huge = FrameView { meta: meta(FrameFormat::Jpeg, 64, 64), bytes: &huge };
        assert!(jpeg_base64(huge, 0, None).unwrap_err().detail.contains("ask for a shorter edge"));
    }

    #[test]
    fn boxes_are_drawn_at_their_place_whatever_the_size_and_format() {
        let found = |bbox| crate::domain::Detection { label: "nut".into(), class: 1, score: 0.9, bbox };
        let boxes = Boxes { size: [640, 360], detections: vec![found([320.0, 180.0, 600.0, 340.0])] };
        for (format, bytes) in
            [(FrameFormat::Rgb8, vec![120; 640 * 360 * 3]), (FrameFormat::Grey8, vec![120; 640 * 360])]
        {
            let frame = FrameView { meta: meta(format, 640, 360), bytes: &bytes };
            for max_edge in [640, 320] {
                let jpeg = jpeg(frame, max_edge, Some(&boxes)).unwrap();
                let image = turbojpeg::decompress(&jpeg, turbojpeg::PixelFormat::RGB).unwrap();
                // Blue is what a grey picture has not.
                let at = |x: usize, y: usize| {
                    let (x, y) = (x * image.width / 640, y * image.height / 360);
                    let pixel = (y * image.width + x) * 3;
                    let [red, _, blue] = [0, 1, 2].map(|channel| i32::from(image.pixels[pixel + channel]));
                    blue - red > 40
                };
                assert!(at(320, 260) && at(460, 180), "{format:?} {max_edge}: its edges");
                assert!(!at(100, 100) && !at(460, 260), "{format:?} {max_edge}: nothing else");
            }
            let none = Boxes { detections: Vec::new(), ..boxes.clone() };
            assert_eq!(jpeg_base64(frame, 0, Some(&none)), jpeg_base64(frame, 0, None));
        }
    }
}
