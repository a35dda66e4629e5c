//! A picture from a file, as a frame: what `predict` and the golden inputs are read from.
//!
//! Photographs are turned as their Exif data asks for, as OpenCV's `imread` does; answers are then in
//! pixels of the turned picture. Frames of a source are not: a camera that is mounted upside down says so
//! nowhere.

use super::pixels::{MAX_PIXELS, PixelDecoder};
use crate::domain::frame::FrameView;
use crate::domain::{FrameFormat, FrameMeta, Reason, ReasonCode};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder as _};
use std::io::{Cursor, Read};
use std::path::Path;

/// Largest file read, bytes.
const MAX_FILE: u64 = 256 << 20;

/// A frame that owns its bytes.
#[derive(Debug, Clone)]
pub struct Picture {
    meta: FrameMeta,
    bytes: Vec<u8>,
}

impl Picture {
    /// Reads a JPEG (which stays one unless it has to be turned), PNG, WebP, BMP or PNM file.
    ///
    /// # Errors
    /// `NotFound` when there is no such file, `BadRequest` when it is no whole picture.
    pub fn read(path: &Path) -> Result<Self, Reason> {
        let unreadable = |error: std::io::Error| {
            let code = match error.kind() {
                std::io::ErrorKind::NotFound => ReasonCode::NotFound,
                _ => ReasonCode::BadRequest,
            };
            Reason::new(code, format!("picture {}: {error}", path.display()))
        };
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        let bad =
            |what: String| Reason::new(ReasonCode::BadRequest, format!("picture {}: {what}", path.display()));
        if bytes.len() as u64 > MAX_FILE {
            return Err(bad(format!("larger than {} MiB", MAX_FILE >> 20)));
        }
        Self::parse(bytes).map_err(bad)
    }

    fn parse(bytes: Vec<u8>) -> Result<Self, String> {
        if bytes.is_empty() {
            return Err("the file is empty".into());
        }
        if bytes.starts_with(b"\xff\xd8") {
            let header =
                turbojpeg::read_header(&bytes).map_err(|error| format!("not a readable JPEG ({error})"))?;
            let size = |length: usize| u32::try_from(length).map_err(|_| "too large".to_owned());
            let (width, height) = (size(header.width)?, size(header.height)?);
            let picture = Self { meta: meta(FrameFormat::Jpeg, width, height), bytes };
            return match exif(&picture.bytes).and_then(Orientation::from_exif_chunk) {
                None | Some(Orientation::NoTransforms) => Ok(picture),
                Some(orientation) => picture.turned(orientation),
            };
        }
        let known = "use a JPEG, PNG, WebP, BMP or PNM file";
        let mut reader = image::ImageReader::new(Cursor::new(bytes.as_slice()))
            .with_guessed_format()
            .map_err(|error| format!("not a picture ({error}); {known}"))?;
        if reader.format().is_none() {
            return Err(format!("not a picture that is known here; {known}"));
        }
        let mut limits = image::Limits::default();
        // Sixteen bytes a pixel: the widest format in between.
        limits.max_alloc = Some(MAX_PIXELS * 16);
        reader.limits(limits);
        let unreadable = |error: image::ImageError| format!("not a readable picture ({error})");
        let mut decoder = reader.into_decoder().map_err(unreadable)?;
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let mut image = DynamicImage::from_decoder(decoder).map_err(unreadable)?;
        image.apply_orientation(orientation);
        Ok(Self::of(image))
    }

    /// The same picture, decoded and turned.
    fn turned(self, orientation: Orientation) -> Result<Self, String> {
        let mut decoder = PixelDecoder::new().map_err(|reason| reason.detail)?;
        let whole = |width, height| (width, height);
        let pixels = decoder.decode(self.view(), false, whole).map_err(|reason| reason.detail)?;
        let image = image::RgbImage::from_raw(pixels.width, pixels.height, pixels.bytes.to_vec())
            .ok_or("the decoded picture has another size")?;
        let mut image = DynamicImage::from(image);
        image.apply_orientation(orientation);
        Ok(Self::of(image))
    }

    fn of(image: DynamicImage) -> Self {
        let image = image.into_rgb8();
        let (width, height) = image.dimensions();
        Self { meta: meta(FrameFormat::Rgb8, width, height), bytes: image.into_raw() }
    }

    /// One whose bytes are at hand, such as a frame of a film.
    pub fn of_bytes(format: FrameFormat, width: u32, height: u32, bytes: Vec<u8>) -> Self {
        Self { meta: meta(format, width, height), bytes }
    }

    /// The picture as a frame.
    pub fn view(&self) -> FrameView<'_> {
        FrameView { meta: self.meta, bytes: &self.bytes }
    }
}

/// A fault of a picture, with the picture's file in front.
pub fn named(path: &Path, reason: Reason) -> Reason {
    Reason::new(reason.code, format!("picture {}: {}", path.display(), reason.detail))
}

/// The Exif data of a JPEG: that of its first segment `APP1` that holds some (JEITA CP-3451, 4.7.2).
fn exif(jpeg: &[u8]) -> Option<&[u8]> {
    /// Start of scan: pictures follow, and no more data on them.
    const SOS: u8 = 0xda;
    const APP1: u8 = 0xe1;
    let mut rest = jpeg.get(2..)?;
    loop {
        let &[0xff, marker, ref after @ ..] = rest else { return None };
        if marker == 0xff {
            // Fill bytes may stand before a marker.
            rest = &rest[1..];
            continue;
        }
        let &[high, low, ..] = after else { return None };
        let segment = after.get(2..usize::from(u16::from_be_bytes([high, low])))?;
        match (marker, segment.strip_prefix(b"Exif\0\0")) {
            (SOS, _) => return None,
            (APP1, Some(exif)) => return Some(exif),
            (_, _) => rest = &after[2 + segment.len()..],
        }
    }
}

/// A frame that no source took: number 1, at no time.
fn meta(format: FrameFormat, width: u32, height: u32) -> FrameMeta {
    FrameMeta { seq: 1, captured_unix_ns: 0, captured_mono_ns: 0, width, height, format }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Picture, Reason> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        Picture::read(file.path())
    }

    #[test]
    fn reads_jpeg_and_png_by_content() {
        let jpeg = read(&super::super::pixels::tests::jpeg(64, 48)).unwrap();
        assert_eq!((jpeg.view().meta.format, jpeg.view().meta.width), (FrameFormat::Jpeg, 64));
        let mut png = Cursor::new(Vec::new());
        image::RgbaImage::from_pixel(3, 2, image::Rgba([1, 2, 3, 4]))
            .write_to(&mut png, image::ImageFormat::Png)
            .unwrap();
        let png = read(png.get_ref()).unwrap();
        assert_eq!(png.view().bytes, [1, 2, 3].repeat(6));
    }

    #[test]
    fn a_photograph_is_turned_as_its_exif_data_asks() {
        let jpeg = super::super::pixels::tests::jpeg(64, 48);
        let with = |orientation: u8| {
            // A TIFF header and one entry: tag 0x0112, one 16-bit number.
            let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
            exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
            let length = (exif.len() as u16 + 2).to_be_bytes();
            let segment = [b"\xff\xff\xe1", &length[..], &exif].concat();
            [&jpeg[..2], &segment, &jpeg[2..]].concat()
        };
        // Red is on the left; turned clockwise by a quarter it is on top.
        let picture = read(&with(6)).unwrap();
        let view = picture.view();
        assert_eq!((view.meta.format, view.meta.width, view.meta.height), (FrameFormat::Rgb8, 48, 64));
        assert!(view.bytes[0] > 240 && view.bytes[2] < 15, "{:?}", &view.bytes[..3]);
        assert!(view.bytes[view.bytes.len() - 1] > 240, "and blue below");
        for untouched in [0, 1, 9] {
            assert_eq!(read(&with(untouched)).unwrap().view().meta.format, FrameFormat::Jpeg);
        }
        let whole = with(6);
        for length in 0..whole.len() {
            let _ = exif(&whole[..length]);
        }
    }

    #[test]
    fn what_is_no_picture_is_told() {
        for bad in [&b""[..], b"hello, this is text", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\ncut"] {
            assert_eq!(read(bad).unwrap_err().code, ReasonCode::BadRequest);
        }
        assert_eq!(Picture::read(Path::new("/nonexistent.jpg")).unwrap_err().code, ReasonCode::NotFound);
        assert!(Picture::read(Path::new("/")).is_err());
    }
}
