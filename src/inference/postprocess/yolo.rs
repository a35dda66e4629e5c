//! `yolo`: the single output of the YOLO families, before suppression.
//!
//! Sources of the formulas: `non_max_suppression` of `ultralytics/yolov5` (`utils/general.py`) and of
//! `ultralytics/ultralytics` (`utils/nms.py`), with one label a box as their default; `demo_postprocess`
//! of `Megvii-BaseDetection/YOLOX` (`yolox/utils/demo_utils.py`).

use super::{Decoder, Seen, Suppression, TensorView, best, find, misfit};
use crate::domain::manifest::YoloVersion;
use crate::domain::{Output, Reason};

/// Steps of YOLOX's three grids, pixels.
const STRIDES: [u32; 3] = [8, 16, 32];

/// Cells of YOLOX's grids for an input of that size.
pub(crate) fn cells((width, height): (u32, u32)) -> i64 {
    STRIDES.iter().map(|stride| i64::from(width / stride) * i64::from(height / stride)).sum()
}

/// One output of a YOLO model.
pub(super) struct Yolo {
    version: YoloVersion,
    output: String,
    input: (u32, u32),
    suppression: Suppression,
    /// Column, row and stride of every cell of YOLOX's grids.
    grid: Vec<[f32; 3]>,
    /// The best class of every box so far, where they lie in columns.
    best: Vec<(u32, f32)>,
}

impl Yolo {
    pub(super) fn new(
        version: YoloVersion,
        output: &str,
        input: (u32, u32),
        suppression: Suppression,
    ) -> Self {
        let grid = match version {
            YoloVersion::Yolox => grid(input).collect(),
            YoloVersion::V5 | YoloVersion::V8 => Vec::new(),
        };
        Self { version, output: output.to_owned(), input, suppression, grid, best: Vec::new() }
    }

    /// Rows of centre box, objectness, class scores.
    fn rows(&mut self, values: &[f32], columns: usize) {
        let least = self.suppression.least();
        for (at, row) in values.chunks_exact(columns.max(6)).enumerate() {
            // No class can lift a box over its objectness.
            if row[4] < least {
                continue;
            }
            let Some((class, score)) = best(row[5..].iter().map(|score| score * row[4])) else { continue };
            if score < least {
                continue;
            }
            // One cell a row, in the same order; the shape was checked to have as many.
            let centre = match self.grid.get(at) {
                None => [row[0], row[1], row[2], row[3]],
                Some(&[x, y, stride]) => [
                    (row[0] + x) * stride,
                    (row[1] + y) * stride,
                    row[2].exp() * stride,
                    row[3].exp() * stride,
                ],
            };
            self.suppression.offer(corners(centre), class, score);
        }
    }

    /// Columns of centre box and class scores: the values of one box lie `n` apart.
    fn columns(&mut self, values: &[f32], rows: usize, n: usize) {
        if n == 0 || rows < 5 {
            return;
        }
        // Row by row, as they lie in memory.
        self.best.clear();
        self.best.resize(n, (0, f32::NEG_INFINITY));
        for (class, scores) in (0..).zip(values[4 * n..].chunks_exact(n)) {
            for (most, &score) in self.best.iter_mut().zip(scores) {
                if score > most.1 {
                    *most = (class, score);
                }
            }
        }
        let least = self.suppression.least();
        for (at, &(class, score)) in self.best.iter().enumerate() {
            if score >= least {
                let centre = [values[at], values[n + at], values[2 * n + at], values[3 * n + at]];
                self.suppression.offer(corners(centre), class as usize, score);
            }
        }
    }
}

impl Decoder for Yolo {
    fn check(&self, outputs: &[TensorView<'_>]) -> Result<Option<usize>, Reason> {
        check(find(outputs, &self.output)?, self.version, self.input).map(Some)
    }

    #[unsafe(export_name = "hot_decode_yolo")]
    fn decode(
        &mut self,
        outputs: &[TensorView<'_>],
        seen: Seen<'_>,
        into: &mut Output,
    ) -> Result<(), Reason> {
        let output = find(outputs, &self.output)?;
        check(output, self.version, self.input)?;
        let axis = |at: usize| output.shape.get(at).and_then(|&axis| usize::try_from(axis).ok()).unwrap_or(0);
        match self.version {
            YoloVersion::V5 | YoloVersion::Yolox => self.rows(&output.values, axis(2)),
            YoloVersion::V8 => self.columns(&output.values, axis(1), axis(2)),
        }
        self.suppression.finish(seen, &mut into.detections);
        Ok(())
    }
}

fn corners([x, y, w, h]: [f32; 4]) -> [f32; 4] {
    [x - w / 2.0, y - h / 2.0, x + w / 2.0, y + h / 2.0]
}

/// Compares the shape with the family's; returns the number of classes.
fn check(output: &TensorView<'_>, version: YoloVersion, input: (u32, u32)) -> Result<usize, Reason> {
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

/// Column, row and stride of every cell: grid by grid, row by row.
fn grid((width, height): (u32, u32)) -> impl Iterator<Item = [f32; 3]> {
    STRIDES.into_iter().flat_map(move |stride| {
        let (columns, rows) = (width / stride, height / stride);
        (0..rows).flat_map(move |y| (0..columns).map(move |x| [x as f32, y as f32, stride as f32]))
    })
}
