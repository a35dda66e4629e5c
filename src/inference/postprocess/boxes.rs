//! `boxes_scores`: one tensor with boxes, one with a score a class (SSD, UltraFace, DETR exports).
//!
//! Each box is given its best class; a box is not reported for two classes.

use super::{Candidate, TensorView, best, misfit};
use crate::domain::Reason;
use crate::domain::manifest::{BoxFormat, BoxUnits, Keep};

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

/// Boxes at or above the score threshold. The shapes were checked.
pub(super) fn decode(
    boxes: &TensorView<'_>,
    scores: &TensorView<'_>,
    format: BoxFormat,
    units: BoxUnits,
    background: Option<usize>,
    keep: &Keep,
    (width, height): (u32, u32),
) -> Vec<Candidate> {
    let rows = boxes.values.len() / 4;
    let columns = scores.values.len().checked_div(rows).unwrap_or(0).max(1);
    let (width, height) = match units {
        BoxUnits::Pixels => (1.0, 1.0),
        BoxUnits::Normalized => (width as f32, height as f32),
    };
    let mut found = Vec::new();
    for (bbox, row) in boxes.values.chunks_exact(4).zip(scores.values.chunks_exact(columns)) {
        let classes = row.iter().enumerate().filter(|&(column, _)| Some(column) != background);
        let Some((class, score)) = best(classes.map(|(_, &score)| score)) else { continue };
        if score < keep.score_threshold {
            continue;
        }
        let [a, b, c, d] = [bbox[0] * width, bbox[1] * height, bbox[2] * width, bbox[3] * height];
        let bbox = match format {
            BoxFormat::Corners => [a, b, c, d],
            BoxFormat::Center => [a - c / 2.0, b - d / 2.0, a + c / 2.0, b + d / 2.0],
        };
        found.push(Candidate { bbox, class: class as u32, score });
    }
    found
}
