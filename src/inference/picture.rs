//! A picture from a file, as a frame: what `predict` and the golden inputs are read from.

use super::pixels::MAX_PIXELS;
use crate::domain::frame::FrameView;
use crate::domain::{FrameMeta, PixelFormat, Reason, ReasonCode};
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
    /// Reads a JPEG (which stays one), PNG, WebP, BMP or PNM file.
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
            return Ok(Self { meta: meta(PixelFormat::Jpeg, width, height), bytes });
        }
        let known = "use a JPEG, PNG, WebP, BMP or PNM file";
        let mut reader = image::ImageReader::new(Cursor::new(&bytes))
            .with_guessed_format()
            .map_err(|error| format!("not a picture ({error}); {known}"))?;
        if reader.format().is_none() {
            return Err(format!("not a picture that is known here; {known}"));
        }
        let mut limits = image::Limits::default();
        // Sixteen bytes a pixel: the widest format in between.
        limits.max_alloc = Some(MAX_PIXELS * 16);
        reader.limits(limits);
        let image = reader.decode().map_err(|error| format!("not a readable picture ({error})"))?;
        let image = image.into_rgb8();
        let (width, height) = image.dimensions();
        Ok(Self { meta: meta(PixelFormat::Rgb8, width, height), bytes: image.into_raw() })
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

/// A frame that no source took: number 1, at no time.
fn meta(format: PixelFormat, width: u32, height: u32) -> FrameMeta {
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
        assert_eq!((jpeg.view().meta.format, jpeg.view().meta.width), (PixelFormat::Jpeg, 64));
        let mut png = Cursor::new(Vec::new());
        image::RgbaImage::from_pixel(3, 2, image::Rgba([1, 2, 3, 4]))
            .write_to(&mut png, image::ImageFormat::Png)
            .unwrap();
        let png = read(png.get_ref()).unwrap();
        assert_eq!(png.view().bytes, [1, 2, 3].repeat(6));
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
