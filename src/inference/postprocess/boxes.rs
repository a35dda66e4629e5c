//! `boxes_scores`: one tensor with boxes, one with a score a class (SSD, UltraFace).
//!
//! Each box is given its best class; a box is not reported for two classes.

use super::{Decoder, Seen, Suppression, TensorView, best, find, misfit};
use crate::domain::manifest::{BoxFormat, BoxUnits};
use crate::domain::{Output, Reason};

/// How four numbers of the model become a box in pixels of its input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Frame {
    format: BoxFormat,
    scale: [f32; 2],
}

impl Frame {
    /// For an input of that width and height.
    pub(super) fn new(format: BoxFormat, units: BoxUnits, (width, height): (u32, u32)) -> Self {
        let scale = match units {
            BoxUnits::Pixels => [1.0, 1.0],
            BoxUnits::Normalized => [width as f32, height as f32],
        };
        Self { format, scale }
    }

    /// Left, top, right, bottom.
    pub(super) fn corners(self, bbox: &[f32]) -> [f32; 4] {
        let [x, y] = self.scale;
        let [a, b, c, d] = [bbox[0] * x, bbox[1] * y, bbox[2] * x, bbox[3] * y];
        match self.format {
            BoxFormat::Corners => [a, b, c, d],
            BoxFormat::Center => [a - c / 2.0, b - d / 2.0, a + c / 2.0, b + d / 2.0],
        }
    }
}

/// Boxes with scores.
pub(super) struct Boxes {
    pub(super) boxes: String,
    pub(super) scores: String,
    pub(super) background: Option<usize>,
    pub(super) frame: Frame,
    pub(super) suppression: Suppression,
}

impl Decoder for Boxes {
    fn check(&self, outputs: &[TensorView<'_>]) -> Result<Option<usize>, Reason> {
        check(find(outputs, &self.boxes)?, find(outputs, &self.scores)?, self.background).map(Some)
    }

    #[unsafe(export_name = "hot_decode_boxes")]
    fn decode(
        &mut self,
        outputs: &[TensorView<'_>],
        seen: Seen<'_>,
        into: &mut Output,
    ) -> Result<(), Reason> {
        let (boxes, scores) = (find(outputs, &self.boxes)?, find(outputs, &self.scores)?);
        let least = self.suppression.least();
        for (bbox, row) in rows(boxes, scores, self.background)? {
            // Nearly all rows end here: models give thousands of boxes, of which a few are something.
            let (before, after) = self.background.map_or((row, &[][..]), |at| (&row[..at], &row[at + 1..]));
            if !before.iter().chain(after).any(|&score| score >= least) {
                continue;
            }
            let classes = row.iter().enumerate().filter(|&(column, _)| Some(column) != self.background);
            let Some((class, score)) = best(classes.map(|(_, &score)| score)) else { continue };
            self.suppression.offer(self.frame.corners(bbox), class, score);
        }
        self.suppression.finish(seen, &mut into.detections);
        Ok(())
    }
}

/// Each box with its row of scores, once their shapes are checked.
pub(super) fn rows<'a>(
    boxes: &'a TensorView<'_>,
    scores: &'a TensorView<'_>,
    background: Option<usize>,
) -> Result<impl Iterator<Item = (&'a [f32], &'a [f32])>, Reason> {
    check(boxes, scores, background)?;
    let columns = scores.values.len().checked_div(boxes.values.len() / 4).unwrap_or(0).max(1);
    Ok(boxes.values.chunks_exact(4).zip(scores.values.chunks_exact(columns)))
}

/// `[1, n, 4]` and `[1, n, classes]` (or without the batch axis, or without the class axis when there is
/// one class); returns the number of classes, the background not counted.
pub(super) fn check(
    boxes: &TensorView<'_>,
    scores: &TensorView<'_>,
    background: Option<usize>,
) -> Result<usize, Reason> {
    let rows = match *boxes.shape {
        [1, rows, 4] | [rows, 4] => rows,
        _ => return misfit(boxes, "[1, n, 4]"),
    };
    let columns = match *scores.shape {
        [1, n, columns] | [n, columns] if n == rows => columns,
        [1, n] | [n] if n == rows => 1,
        _ => return misfit(scores, &format!("[1, {rows}, classes]")),
    };
    let columns = usize::try_from(columns).unwrap_or(0);
    match background {
        Some(column) if column >= columns || columns < 2 => {
            misfit(scores, &format!("a column {column} for the background and one more"))
        }
        Some(_) => Ok(columns - 1),
        None if columns == 0 => misfit(scores, "at least one class"),
        None => Ok(columns),
    }
}
