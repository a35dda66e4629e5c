//! Whether an answer is the expected one, within a tolerance.
//!
//! Answers of one model differ a little between processors and providers. A box or class whose score
//! lies within the score tolerance of the least reported one may therefore be there or not; everything
//! else must have its counterpart.

use super::manifest::{Decode, Tolerance};
use super::result::{Classification, Detection, Output, RawTensor, iou};

/// What the decoding leaves out: the scores below which, and the number beyond which, nothing is
/// reported.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cut {
    /// Least reported score.
    pub threshold: f32,
    /// Most entries reported.
    pub most: usize,
}

impl Cut {
    /// The cut of a manifest's decoding.
    pub fn of(decode: &Decode) -> Self {
        match decode {
            Decode::Classification { output: _, activation: _, top_k, score_threshold } => {
                Self { threshold: *score_threshold, most: *top_k }
            }
            Decode::BoxesScores { keep, .. } | Decode::Yolo { keep, .. } => {
                Self { threshold: keep.score_threshold, most: keep.max_detections }
            }
            Decode::Raw { outputs: _ } => Self { threshold: 0.0, most: usize::MAX },
        }
    }

    /// The score that an entry needs to be reported in an answer with these scores: a full answer also
    /// leaves out what is below its last entry.
    fn least(self, scores: impl ExactSizeIterator<Item = f32>) -> f32 {
        if scores.len() >= self.most {
            scores.fold(f32::INFINITY, f32::min).max(self.threshold)
        } else {
            self.threshold
        }
    }
}

/// Compares an answer with the expected one.
///
/// # Errors
/// The first difference that is too large, in one line.
pub fn compare(expected: &Output, got: &Output, tolerance: &Tolerance, cut: Cut) -> Result<(), String> {
    compare_detections(&expected.detections, &got.detections, tolerance, cut)?;
    compare_classes(&expected.classes, &got.classes, tolerance, cut)?;
    if expected.tensors.len() != got.tensors.len() {
        return Err(format!("{} raw outputs, expected {}", got.tensors.len(), expected.tensors.len()));
    }
    expected.tensors.iter().zip(&got.tensors).try_for_each(|(e, g)| compare_tensor(e, g, tolerance))
}

fn compare_detections(
    expected: &[Detection],
    got: &[Detection],
    tolerance: &Tolerance,
    cut: Cut,
) -> Result<(), String> {
    let mut free: Vec<&Detection> = got.iter().collect();
    let least = cut.least(got.iter().map(|found| found.score));
    for wanted in expected {
        // Best overlap first; the score is judged afterwards, so that the message can name it.
        let nearest = free
            .iter()
            .enumerate()
            .filter(|(_, found)| found.class == wanted.class)
            .map(|(at, found)| (at, iou(found.bbox, wanted.bbox)))
            .max_by(|a, b| a.1.total_cmp(&b.1));
        match nearest {
            Some((at, overlap)) if overlap >= tolerance.iou => {
                let found = free.swap_remove(at);
                check_score(&wanted.label, wanted.score, found.score, tolerance)?;
            }
            _ if wanted.score - least <= tolerance.score => {}
            Some((_, overlap)) => {
                return Err(format!(
                    "{} at {:.0?} (score {:.3}) is off: the nearest box overlaps it by {overlap:.2}, needed {}",
                    wanted.label, wanted.bbox, wanted.score, tolerance.iou
                ));
            }
            None => {
                return Err(format!(
                    "{} at {:.0?} (score {:.3}) was not found",
                    wanted.label, wanted.bbox, wanted.score
                ));
            }
        }
    }
    let least = cut.least(expected.iter().map(|wanted| wanted.score));
    match free.into_iter().find(|found| found.score - least > tolerance.score) {
        Some(found) => Err(format!(
            "{} at {:.0?} (score {:.3}) was found but is not expected",
            found.label, found.bbox, found.score
        )),
        None => Ok(()),
    }
}

fn compare_classes(
    expected: &[Classification],
    got: &[Classification],
    tolerance: &Tolerance,
    cut: Cut,
) -> Result<(), String> {
    let least = cut.least(got.iter().map(|found| found.score));
    for wanted in expected {
        match got.iter().find(|found| found.class == wanted.class) {
            Some(found) => check_score(&wanted.label, wanted.score, found.score, tolerance)?,
            None if wanted.score - least <= tolerance.score => {}
            None => return Err(format!("class {} (score {:.3}) was not given", wanted.label, wanted.score)),
        }
    }
    let least = cut.least(expected.iter().map(|wanted| wanted.score));
    let extra = |found: &&Classification| {
        !expected.iter().any(|wanted| wanted.class == found.class) && found.score - least > tolerance.score
    };
    match got.iter().find(extra) {
        Some(found) => {
            Err(format!("class {} (score {:.3}) was given but is not expected", found.label, found.score))
        }
        None => Ok(()),
    }
}

fn check_score(label: &str, wanted: f32, found: f32, tolerance: &Tolerance) -> Result<(), String> {
    // NaN is on neither side, and must not pass.
    if (wanted - found).abs() <= tolerance.score {
        return Ok(());
    }
    Err(format!("{label} has score {found:.3}, expected {wanted:.3} ± {}", tolerance.score))
}

fn compare_tensor(expected: &RawTensor, got: &RawTensor, tolerance: &Tolerance) -> Result<(), String> {
    if expected.name != got.name || expected.shape != got.shape || expected.values.len() != got.values.len() {
        return Err(format!(
            "raw output {:?} of shape {:?}, expected {:?} of shape {:?}",
            got.name, got.shape, expected.name, expected.shape
        ));
    }
    let off = expected.values.iter().zip(&got.values).position(|(wanted, found)| {
        let difference = (wanted - found).abs();
        difference.is_nan() || difference > tolerance.value * wanted.abs().max(1.0)
    });
    match off {
        Some(at) => Err(format!(
            "raw output {:?} has {} at value {at}, expected {} ± {} of it",
            got.name, got.values[at], expected.values[at], tolerance.value
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUT: Cut = Cut { threshold: 0.5, most: 3 };
    const TOLERANCE: Tolerance = Tolerance { score: 0.05, iou: 0.8, value: 0.01 };

    fn detection(class: u32, left: f32, score: f32) -> Detection {
        Detection { label: class.to_string(), class, score, bbox: [left, 0.0, left + 100.0, 100.0] }
    }

    fn detections(all: &[(u32, f32, f32)]) -> Output {
        let detections = all.iter().map(|&(class, left, score)| detection(class, left, score)).collect();
        Output { detections, ..Output::default() }
    }

    fn classes(all: &[(u32, f32)]) -> Output {
        let class = |&(class, score): &(u32, f32)| Classification { label: class.to_string(), class, score };
        Output { classes: all.iter().map(class).collect(), ..Output::default() }
    }

    #[track_caller]
    fn same(expected: &Output, got: &Output, wanted: bool) {
        let result = compare(expected, got, &TOLERANCE, CUT);
        assert_eq!(result.is_ok(), wanted, "{result:?}");
    }

    #[test]
    fn boxes_must_match_in_place_class_and_score() {
        let one = detections(&[(0, 0.0, 0.9)]);
        same(&one, &one, true);
        same(&one, &detections(&[(0, 5.0, 0.86)]), true);
        same(&one, &detections(&[(0, 20.0, 0.9)]), false);
        same(&one, &detections(&[(1, 0.0, 0.9)]), false);
        same(&one, &detections(&[(0, 0.0, 0.8)]), false);
        same(&one, &detections(&[]), false);
        same(&detections(&[]), &one, false);
        same(&one, &detections(&[(0, 0.0, 0.9), (0, 300.0, 0.9)]), false);
        same(&one, &detections(&[(0, 0.0, f32::NAN)]), false);
    }

    #[test]
    fn boxes_at_the_threshold_may_come_and_go() {
        let one = detections(&[(0, 0.0, 0.9)]);
        let faint = detections(&[(0, 0.0, 0.9), (0, 300.0, 0.53)]);
        same(&one, &faint, true);
        same(&faint, &one, true);
        let clear = detections(&[(0, 0.0, 0.9), (0, 300.0, 0.56)]);
        same(&one, &clear, false);
        same(&clear, &one, false);
    }

    #[test]
    fn a_full_answer_has_a_higher_threshold() {
        let three = detections(&[(0, 0.0, 0.9), (0, 200.0, 0.8), (0, 400.0, 0.70)]);
        let other = detections(&[(0, 0.0, 0.9), (0, 200.0, 0.8), (0, 600.0, 0.72)]);
        same(&three, &other, true);
        let two = detections(&[(0, 0.0, 0.9), (0, 200.0, 0.8)]);
        same(&three, &two, false);
    }

    #[test]
    fn two_expected_boxes_are_not_met_by_one() {
        let two = detections(&[(0, 0.0, 0.9), (0, 10.0, 0.9)]);
        same(&two, &two, true);
        same(&two, &detections(&[(0, 5.0, 0.9)]), false);
    }

    #[test]
    fn classes_must_match_in_score() {
        let ranked = classes(&[(3, 0.8), (1, 0.54)]);
        same(&ranked, &ranked, true);
        same(&ranked, &classes(&[(3, 0.82)]), true);
        same(&ranked, &classes(&[(1, 0.8), (3, 0.54)]), false);
        same(&ranked, &classes(&[]), false);
        same(&classes(&[]), &ranked, false);
    }

    #[test]
    fn raw_values_are_compared_in_proportion() {
        let raw = |values: &[f32]| Output {
            tensors: vec![RawTensor { name: "a".into(), shape: vec![2], values: values.to_vec() }],
            ..Output::default()
        };
        same(&raw(&[0.0, 1000.0]), &raw(&[0.009, 1009.0]), true);
        same(&raw(&[0.0, 1000.0]), &raw(&[0.011, 1000.0]), false);
        same(&raw(&[0.0, 1000.0]), &raw(&[0.0, f32::NAN]), false);
        same(&raw(&[0.0, 1.0]), &raw(&[0.0]), false);
        same(&raw(&[0.0]), &Output::default(), false);
    }
}
