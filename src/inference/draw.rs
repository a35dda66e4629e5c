//! Boxes drawn on a picture, for people.

use super::picture::Picture;
use super::pixels::PixelDecoder;
use crate::domain::{Detection, Reason, ReasonCode};
use std::path::Path;

/// Colours by class number, as far apart as seven can be (Okabe and Ito's, readable for the colour-blind).
const COLOURS: [[u8; 3]; 7] = [
    [230, 159, 0],
    [86, 180, 233],
    [0, 158, 115],
    [240, 228, 66],
    [0, 114, 178],
    [213, 94, 0],
    [204, 121, 167],
];
/// Quality of the JPEG.
const QUALITY: i32 = 92;

/// Writes the picture with the boxes on it to the JPEG file `to`.
///
/// # Errors
/// `BadRequest` for what is no picture, `Internal` when the file cannot be written.
pub fn write(picture: &Picture, detections: &[Detection], to: &Path) -> Result<(), Reason> {
    let mut decoder = PixelDecoder::new()?;
    let pixels = decoder.decode(picture.view(), false, |width, height| (width, height))?;
    let (width, height) = (pixels.width as usize, pixels.height as usize);
    let mut rgb = pixels.bytes.to_vec();
    let thick = (width.max(height) / 400).clamp(1, 8);
    for found in detections {
        let colour = COLOURS[found.class as usize % COLOURS.len()];
        outline(&mut rgb, (width, height), found.bbox, thick, colour);
    }
    let image = turbojpeg::Image {
        pixels: &rgb[..],
        width,
        pitch: width * 3,
        height,
        format: turbojpeg::PixelFormat::RGB,
    };
    let internal =
        |what: String| Reason::new(ReasonCode::Internal, format!("write {}: {what}", to.display()));
    let jpeg = turbojpeg::compress(image, QUALITY, turbojpeg::Subsamp::Sub2x2)
        .map_err(|e| internal(e.to_string()))?;
    std::fs::write(to, &*jpeg).map_err(|error| internal(error.to_string()))
}

/// Draws the four edges of a box, inwards from its corners.
fn outline(rgb: &mut [u8], (width, height): (usize, usize), bbox: [f32; 4], thick: usize, colour: [u8; 3]) {
    let at = |value: f32, most: usize| (value.max(0.0) as usize).min(most);
    let (left, top, right, bottom) =
        (at(bbox[0], width), at(bbox[1], height), at(bbox[2].ceil(), width), at(bbox[3].ceil(), height));
    for y in top..bottom {
        let edge_row = y < top + thick || y + thick >= bottom;
        for x in left..right {
            if edge_row || x < left + thick || x + thick >= right {
                let pixel = (y * width + x) * 3;
                rgb[pixel..pixel + 3].copy_from_slice(&colour);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outline_stays_inside_and_leaves_the_middle() {
        let mut rgb = vec![0; 10 * 8 * 3];
        outline(&mut rgb, (10, 8), [2.0, 1.0, 8.0, 7.0], 1, [9, 9, 9]);
        outline(&mut rgb, (10, 8), [-50.0, -50.0, 500.0, 500.0], 1, [9, 9, 9]);
        let lit = |x: usize, y: usize| rgb[(y * 10 + x) * 3] == 9;
        assert!(lit(2, 1) && lit(7, 6) && lit(2, 4) && lit(0, 0) && lit(9, 7));
        assert!(!lit(4, 4) && !lit(1, 4) && !lit(8, 4));
    }
}
