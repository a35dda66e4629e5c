//! Boxes with their labels drawn on a picture, for people.

use super::picture::Picture;
use super::pixels::PixelDecoder;
use crate::domain::{Detection, Reason, ReasonCode};
use font8x8::UnicodeFonts as _;
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
/// Pixels of a letter, across and down, before it is enlarged.
const LETTER: usize = 8;
/// Letters of a label at most.
const MAX_LETTERS: usize = 48;
/// Quality of the JPEG.
const QUALITY: i32 = 92;

/// Writes the picture with the boxes, their labels and scores on it to the JPEG file `to`.
///
/// # Errors
/// `BadRequest` for what is no picture, `Internal` when the file cannot be written.
pub fn write(picture: &Picture, detections: &[Detection], to: &Path) -> Result<(), Reason> {
    let mut decoder = PixelDecoder::new()?;
    let pixels = decoder.decode(picture.view(), false, |width, height| (width, height))?;
    let (width, height) = (pixels.width as usize, pixels.height as usize);
    let mut rgb = pixels.bytes.to_vec();
    boxes(&mut rgb, (width, height), detections, [1.0, 1.0]);
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

/// Draws boxes with their labels and scores on RGB pixels; `scale` brings their coordinates to these pixels.
pub fn boxes(rgb: &mut [u8], (width, height): (usize, usize), detections: &[Detection], scale: [f32; 2]) {
    let thick = (width.max(height) / 400).clamp(1, 8);
    let enlarged = (width.max(height) / 640).clamp(1, 8);
    // The best one last, on top.
    for found in detections.iter().rev() {
        let colour = COLOURS[found.class as usize % COLOURS.len()];
        let [left, top, right, bottom] = found.bbox;
        let bbox = [left * scale[0], top * scale[1], right * scale[0], bottom * scale[1]];
        outline(rgb, (width, height), bbox, thick, colour);
        let label: String = found.label.chars().take(MAX_LETTERS).collect();
        name(rgb, (width, height), bbox, &format!("{label} {:.2}", found.score), enlarged, colour);
    }
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

/// Writes a text on a ground of the box's colour: above the box, or inside where there is no room above.
fn name(
    rgb: &mut [u8],
    (width, height): (usize, usize),
    bbox: [f32; 4],
    text: &str,
    enlarged: usize,
    colour: [u8; 3],
) {
    let tall = (LETTER + 2) * enlarged;
    let wide = (text.chars().count() * LETTER + 2) * enlarged;
    let (left, top) = (bbox[0].max(0.0) as usize, bbox[1].max(0.0) as usize);
    let left = left.min(width.saturating_sub(wide));
    let top = top.checked_sub(tall).unwrap_or(top);
    let light = colour.iter().zip([299, 587, 114]).map(|(&c, share)| usize::from(c) * share).sum::<usize>();
    let ink = if light > 128_000 { [0; 3] } else { [255; 3] };
    let letters: Vec<[u8; 8]> = text.chars().map(letter).collect();
    for y in top..(top + tall).min(height) {
        for x in left..(left + wide).min(width) {
            // A pixel of ground around; letters have theirs between them.
            let (column, row) = ((x - left) / enlarged, (y - top) / enlarged);
            let lit = match (column.checked_sub(1), row.checked_sub(1)) {
                (Some(column), Some(row)) if row < LETTER => {
                    letters.get(column / LETTER).is_some_and(|bits| bits[row] >> (column % LETTER) & 1 == 1)
                }
                (_, _) => false,
            };
            let pixel = (y * width + x) * 3;
            rgb[pixel..pixel + 3].copy_from_slice(if lit { &ink } else { &colour });
        }
    }
}

/// The rows of a letter, the leftmost pixel in the lowest bit; a question mark for those not known.
fn letter(letter: char) -> [u8; 8] {
    let unknown = || font8x8::BASIC_FONTS.get('?').unwrap_or_default();
    let basic = font8x8::BASIC_FONTS.get(letter);
    basic
        .or_else(|| font8x8::LATIN_FONTS.get(letter))
        .or_else(|| font8x8::GREEK_FONTS.get(letter))
        .unwrap_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_is_above_the_box_and_inside_the_picture() {
        let (width, height) = (40, 60);
        let mut rgb = vec![9; width * height * 3];
        name(&mut rgb, (width, height), [3.0, 30.0, 30.0, 50.0], "I", 1, [200, 200, 200]);
        let at = |x: usize, y: usize| rgb[(y * width + x) * 3];
        assert_eq!([at(2, 25), at(3, 25), at(12, 25), at(13, 25)], [9, 200, 200, 9]);
        assert_eq!([at(5, 19), at(5, 20), at(5, 29), at(5, 30)], [9, 200, 200, 9]);
        assert!((20..30).any(|y| (3..13).any(|x| at(x, y) == 0)), "black on a light ground");
        // No room above, no room to the right, no room at all, and letters that the font has not.
        for (bbox, text) in [
            ([0.0, 0.0, 40.0, 60.0], "ok"),
            ([39.0, 59.0, 40.0, 60.0], "washer 0.99"),
            ([-5.0, 90.0, 900.0, 900.0], "歯車 ü"),
        ] {
            name(&mut rgb, (width, height), bbox, text, 3, [0, 0, 0]);
        }
        assert_eq!(letter('歯'), letter('?'));
        assert_ne!(letter('ü'), letter('?'));
    }

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
