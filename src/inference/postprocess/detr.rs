//! `detr`: boxes and logits of a transformer that gives each thing once.
//!
//! Sources of the formulas: `post_process_object_detection` of `transformers` for DETR (softmax, the last
//! column left out, the best class of each box) and for RT-DETR (sigmoid, the best of all pairs of box and
//! class).

use super::boxes::{Frame, check, rows};
use super::classification::activate;
use super::nms::best_first;
use super::{Candidate, Decoder, Seen, TensorView, Thresholds, best, find, report};
use crate::domain::manifest::Activation;
use crate::domain::{Output, Reason};

/// Boxes with logits.
pub(super) struct Detr {
    pub(super) boxes: String,
    pub(super) logits: String,
    pub(super) activation: Activation,
    pub(super) background: Option<usize>,
    pub(super) most: usize,
    pub(super) frame: Frame,
    pub(super) thresholds: Thresholds,
    pub(super) found: Vec<Candidate>,
    /// The scores of one box.
    pub(super) row: Vec<f32>,
}

impl Decoder for Detr {
    fn check(&self, outputs: &[TensorView<'_>]) -> Result<Option<usize>, Reason> {
        check(find(outputs, &self.boxes)?, find(outputs, &self.logits)?, self.background).map(Some)
    }

    #[unsafe(export_name = "hot_decode_detr")]
    fn decode(
        &mut self,
        outputs: &[TensorView<'_>],
        seen: Seen<'_>,
        into: &mut Output,
    ) -> Result<(), Reason> {
        let (boxes, logits) = (find(outputs, &self.boxes)?, find(outputs, &self.logits)?);
        self.found.clear();
        for (bbox, logits) in rows(boxes, logits, self.background)? {
            self.row.clear();
            self.row.extend_from_slice(logits);
            activate(self.activation, &mut self.row);
            if let Some(background) = self.background {
                self.row.remove(background);
            }
            let bbox = self.frame.corners(bbox);
            match self.activation {
                Activation::Softmax => {
                    if let Some((class, score)) = best(self.row.iter().copied()) {
                        offer(&mut self.found, &self.thresholds, bbox, class, score);
                    }
                }
                Activation::Sigmoid | Activation::None => {
                    for (class, &score) in self.row.iter().enumerate() {
                        offer(&mut self.found, &self.thresholds, bbox, class, score);
                    }
                }
            }
        }
        best_first(&mut self.found);
        self.found.truncate(self.most);
        report(&self.found, seen, &mut into.detections);
        Ok(())
    }
}

fn offer(found: &mut Vec<Candidate>, thresholds: &Thresholds, bbox: [f32; 4], class: usize, score: f32) {
    let class = class as u32;
    if score >= thresholds.of_class(class) && bbox.iter().all(|value| value.is_finite()) {
        found.push(Candidate { bbox, class, score, order: found.len() as u32 });
    }
}
