//! `yolo`: the single output of the YOLO families, before suppression.
//!
//! Sources of the formulas: `non_max_suppression` of `ultralytics/yolov5` (`utils/general.py`) and of
//! `ultralytics/ultralytics` (`utils/nms.py`), with one label a box as their default; `demo_postprocess`
//! of `Megvii-BaseDetection/YOLOX` (`yolox/utils/demo_utils.py`).

use super::{Candidate, TensorView, best, misfit};
use crate::domain::Reason;
use crate::domain::manifest::{Keep, YoloVersion};

/// Steps of YOLOX's three grids, pixels.
const STRIDES: [u32; 3] = [8, 16, 32];

/// Cells of YOLOX's grids for an input of that size.
pub(crate) fn cells((width, height): (u32, u32)) -> i64 {
    STRIDES.iter().map(|stride| i64::from(width / stride) * i64::from(height / stride)).sum()
}

/// Compares the shape with the family's; returns the number of classes.
pub(super) fn check(
    output: &TensorView<'_>,
    version: YoloVersion,
    input: (u32, u32),
) -> Result<usize, Reason> {
    let classes = match (version, output.shape) {
        (YoloVersion::V5, &[1, _, columns]) => columns - 5,
        (YoloVersion::V8, &[1, rows, n]) if rows <= n || n == 0 => rows - 4,
        (YoloVersion::Yolox, &[1, n, columns]) if n == cells(input) => columns - 5,
        (YoloVersion::V5, _) => return misfit(output, "[1, n, 5 + classes] (yolo v5)"),
        (YoloVersion::V8, _) => return misfit(output, "[1, 4 + classes, n] (yolo v8)"),
        (YoloVersion::Yolox, _) => {
            return misfit(output, &format!("[1, {}, 5 + classes] (yolox at this input size)", cells(input)));
        }
    };
    match usize::try_from(classes) {
        Ok(classes) if classes > 0 => Ok(classes),
        _ => misfit(output, "at least one class"),
    }
}

/// Boxes at or above the score threshold. The shape was checked.
pub(super) fn decode(
    output: &TensorView<'_>,
    version: YoloVersion,
    keep: &Keep,
    input: (u32, u32),
) -> Vec<Candidate> {
    let axis = |at: usize| output.shape.get(at).and_then(|&axis| usize::try_from(axis).ok()).unwrap_or(0);
    let values = &output.values[..];
    match version {
        YoloVersion::V5 => rows(values, axis(2), keep, |row| [row[0], row[1], row[2], row[3]]),
        YoloVersion::Yolox => {
            let mut grid = grid(input);
            rows(values, axis(2), keep, |row| {
                // One cell a row, in the same order; the shape was checked to have as many.
                let [x, y, stride] = grid.next().unwrap_or_default();
                [(row[0] + x) * stride, (row[1] + y) * stride, row[2].exp() * stride, row[3].exp() * stride]
            })
        }
        YoloVersion::V8 => columns(values, axis(1), axis(2), keep),
    }
}

/// Rows of centre box, objectness, class scores.
fn rows(
    values: &[f32],
    columns: usize,
    keep: &Keep,
    mut centre: impl FnMut(&[f32]) -> [f32; 4],
) -> Vec<Candidate> {
    let mut found = Vec::new();
    for row in values.chunks_exact(columns.max(6)) {
        let bbox = centre(row);
        // No class can lift a box over its objectness.
        if row[4] < keep.score_threshold {
            continue;
        }
        let Some((class, score)) = best(row[5..].iter().map(|score| score * row[4])) else { continue };
        push(&mut found, bbox, class, score, keep);
    }
    found
}

/// Columns of centre box and class scores: the values of one box lie `n` apart.
fn columns(values: &[f32], rows: usize, n: usize, keep: &Keep) -> Vec<Candidate> {
    let mut found = Vec::new();
    if n == 0 || rows < 5 {
        return found;
    }
    // Row by row, as they lie in memory: the best class of every box so far.
    let mut most = vec![(0u32, f32::NEG_INFINITY); n];
    for (class, scores) in values[4 * n..].chunks_exact(n).enumerate() {
        for (most, &score) in most.iter_mut().zip(scores) {
            if score > most.1 {
                *most = (class as u32, score);
            }
        }
    }
    for (at, (class, score)) in most.into_iter().enumerate() {
        let bbox = [values[at], values[n + at], values[2 * n + at], values[3 * n + at]];
        push(&mut found, bbox, class as usize, score, keep);
    }
    found
}

fn push(found: &mut Vec<Candidate>, [x, y, w, h]: [f32; 4], class: usize, score: f32, keep: &Keep) {
    let bbox = [x - w / 2.0, y - h / 2.0, x + w / 2.0, y + h / 2.0];
    // The exponential of a wild YOLOX output can overflow where the output itself is finite.
    if score >= keep.score_threshold && bbox.iter().all(|value| value.is_finite()) {
        found.push(Candidate { bbox, class: class as u32, score });
    }
}

/// Column, row and stride of every cell: grid by grid, row by row.
fn grid((width, height): (u32, u32)) -> impl Iterator<Item = [f32; 3]> {
    STRIDES.into_iter().flat_map(move |stride| {
        let (columns, rows) = (width / stride, height / stride);
        (0..rows).flat_map(move |y| (0..columns).map(move |x| [x as f32, y as f32, stride as f32]))
    })
}
