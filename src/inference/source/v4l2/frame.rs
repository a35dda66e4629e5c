//! A frame as the driver left it, made into one without padding. Pure.

use super::kernel::Layout;
use super::offer::{UYVY, readable};
use crate::domain::FrameFormat;
use crate::domain::frame::MAX_FRAME;

/// The rows of one plane in memory.
struct Rows {
    count: usize,
    /// Bytes of the picture in a row, and from one row to the next.
    len: usize,
    stride: usize,
}

/// Copies the frame's bytes into `into`, which is emptied before. A frame that is shorter than its format
/// says is refused: half of it is of an older picture.
pub fn copy(layout: &Layout, bytes: &[u8], into: &mut Vec<u8>) -> Result<(), String> {
    into.clear();
    let Some(format) = readable(layout.format) else {
        return Err(format!("{} cannot be read", layout.format));
    };
    if format == FrameFormat::Jpeg {
        return match bytes {
            [0xff, 0xd8, ..] if bytes.len() <= MAX_FRAME => {
                into.extend_from_slice(bytes);
                Ok(())
            }
            [0xff, 0xd8, ..] => Err(format!("has {} bytes, more than {MAX_FRAME}", bytes.len())),
            _ => Err(format!("is no JPEG ({} bytes)", bytes.len())),
        };
    }
    let planes = planes(format, layout);
    // The last row need not be padded.
    let wanted: usize = planes.iter().map(|plane| plane.count * plane.stride).sum();
    let last = planes.iter().rfind(|plane| plane.count > 0);
    let padding = last.map_or(0, |plane| plane.stride - plane.len);
    if bytes.len() < wanted - padding {
        return Err(format!("has {} bytes of {wanted}", bytes.len()));
    }
    let mut rest = bytes;
    for Rows { count, len, stride } in planes.into_iter().filter(|plane| plane.count > 0) {
        match len == stride {
            true => {
                into.extend_from_slice(&rest[..count * len]);
                rest = &rest[count * len..];
            }
            false => {
                rest.chunks(stride).take(count).for_each(|row| into.extend_from_slice(&row[..len]));
                rest = &rest[(count * stride).min(rest.len())..];
            }
        }
    }
    if layout.format == UYVY {
        into.as_chunks_mut::<2>().0.iter_mut().for_each(|pair| pair.swap(0, 1));
    }
    Ok(())
}

/// Where the rows of a raw frame lie. A driver that tells no stride pads nothing, and neither does one
/// whose stride is shorter than a row.
fn planes(format: FrameFormat, layout: &Layout) -> [Rows; 3] {
    let (width, height) = (layout.size.width as usize, layout.size.height as usize);
    let rows = |count: usize, len: usize, stride: usize| Rows { count, len, stride: stride.max(len) };
    let stride = layout.stride as usize;
    let none = || rows(0, 0, 0);
    match format {
        FrameFormat::Rgb8 => [rows(height, width * 3, stride), none(), none()],
        FrameFormat::Yuyv => [rows(height, width * 2, stride), none(), none()],
        FrameFormat::Grey8 => [rows(height, width, stride), none(), none()],
        // The colour planes' rows have the same stride in bytes where they hold two values a pixel, and
        // half of it where they hold one.
        FrameFormat::Nv12 => [rows(height, width, stride), rows(height / 2, width, stride), none()],
        FrameFormat::I420 => {
            let colour = || rows(height / 2, width / 2, stride / 2);
            [rows(height, width, stride), colour(), colour()]
        }
        FrameFormat::Jpeg | FrameFormat::Samples => [none(), none(), none()],
    }
}

#[cfg(test)]
mod tests {
    use super::super::offer::{FourCc, Size};
    use super::*;

    fn layout(format: &[u8; 4], width: u32, height: u32, stride: u32) -> Layout {
        let (format, size) = (FourCc::new(format), Size::new(width, height));
        Layout { format, size, stride, planes: 1, whole: true }
    }

    /// Padding is 0xee, so that it is seen when it is not removed.
    fn padded(rows: &[(usize, usize, usize)]) -> (Vec<u8>, Vec<u8>) {
        let (mut with, mut without, mut next) = (Vec::new(), Vec::new(), 0u8);
        for (count, len, stride) in rows {
            for _ in 0..*count {
                let row: Vec<u8> = (0..*len).map(|i| next.wrapping_add(i as u8) & 0x7f).collect();
                next = next.wrapping_add(31);
                without.extend_from_slice(&row);
                with.extend_from_slice(&row);
                with.resize(with.len() + stride - len, 0xee);
            }
        }
        (with, without)
    }

    #[test]
    fn padding_is_removed_from_every_plane_of_every_format() {
        for pad in [0usize, 2, 6] {
            let w = 8;
            let (full, half) = (w + pad, (w + pad) / 2);
            for (format, rows, stride) in [
                (b"GREY", vec![(4, w, full)], full),
                (b"YUYV", vec![(4, 2 * w, 2 * w + pad)], 2 * w + pad),
                (b"RGB3", vec![(4, 3 * w, 3 * w + pad)], 3 * w + pad),
                (b"NV12", vec![(4, w, full), (2, w, full)], full),
                (b"YU12", vec![(4, w, full), (2, w / 2, half), (2, w / 2, half)], full),
            ] {
                let layout = layout(format, w as u32, 4, stride as u32);
                let (mut with, without) = padded(&rows);
                let mut into = vec![9; 3];
                copy(&layout, &with, &mut into).unwrap();
                assert_eq!(into, without, "{} with {pad}", layout.format);
                let becomes = readable(layout.format).unwrap();
                assert_eq!(becomes.exact_len(w as u32, 4), Some(into.len()));
                // More than enough, as page-sized buffers have, and a last row without its padding.
                with.extend([0xee; 100]);
                copy(&layout, &with, &mut into).unwrap();
                assert_eq!(into, without);
                let last = rows.last().unwrap();
                with.truncate(with.len() - 100 - (last.2 - last.1));
                copy(&layout, &with, &mut into).unwrap();
                assert_eq!(into, without);
                with.pop();
                let short = copy(&layout, &with, &mut into).unwrap_err();
                assert!(short.starts_with(&format!("has {} bytes of", with.len())), "{short}");
            }
        }
    }

    #[test]
    fn a_driver_without_a_stride_pads_nothing() {
        let (with, without) = padded(&[(2, 8, 8)]);
        let mut into = Vec::new();
        for stride in [0, 1, 8] {
            copy(&layout(b"YUYV", 4, 2, stride), &with, &mut into).unwrap();
            assert_eq!(into, without);
        }
        assert!(copy(&layout(b"YUYV", 4, 2, 0), &[], &mut into).is_err());
    }

    #[test]
    fn colour_first_is_turned_round() {
        let mut into = Vec::new();
        copy(&layout(b"UYVY", 2, 1, 4), &[1, 2, 3, 4], &mut into).unwrap();
        assert_eq!(into, [2, 1, 4, 3]);
    }

    #[test]
    fn a_jpeg_must_begin_as_one_and_be_carried() {
        let (layout, mut into) = (layout(b"MJPG", 640, 480, 0), Vec::new());
        copy(&layout, &[0xff, 0xd8, 1, 2], &mut into).unwrap();
        assert_eq!(into, [0xff, 0xd8, 1, 2]);
        assert_eq!(copy(&layout, &[], &mut into).unwrap_err(), "is no JPEG (0 bytes)");
        assert_eq!(copy(&layout, &[0; 5], &mut into).unwrap_err(), "is no JPEG (5 bytes)");
        let mut huge = vec![0xff; MAX_FRAME + 1];
        huge[1] = 0xd8;
        assert!(copy(&layout, &huge, &mut into).unwrap_err().contains("more than"));
        assert!(into.is_empty());
    }
}
