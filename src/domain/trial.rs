//! Whether an answer is the expected one, within a tolerance.
//!
//! Answers of one model differ a little between processors and providers. A box or class whose score
//! lies within the score tolerance of the least reported one may therefore be there or not; everything
//! else must have its counterpart.

use super::manifest::{ClassThresholds, Decode, Tolerance};
use super::result::{Anomaly, Classification, Detection, Output, RawTensor, Value, iou};

/// What the decoding leaves out: the scores below which, and the number beyond which, nothing is
/// reported.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cut<'a> {
    /// Least reported score.
    pub threshold: f32,
    /// The same for single classes, by label.
    pub classes: Option<&'a ClassThresholds>,
    /// Most entries reported.
    pub most: usize,
}

impl<'a> Cut<'a> {
    /// The cut of a manifest's decoding.
    pub fn of(decode: &'a Decode) -> Self {
        match decode.limits() {
            Some((threshold, classes, most)) => Self { threshold, classes: Some(classes), most },
            None => Self { threshold: 0.0, classes: None, most: usize::MAX },
        }
    }

    /// The score that an entry of a class needs to be reported in an answer with these scores: a full
    /// answer also leaves out what is below its last entry.
    fn least(self, scores: impl ExactSizeIterator<Item = f32>) -> impl Fn(&str) -> f32 {
        let full = scores.len() >= self.most;
        let last = if full { scores.fold(f32::INFINITY, f32::min) } else { f32::NEG_INFINITY };
        move |label| {
            let own = self.classes.and_then(|classes| classes.get(label)).copied();
            own.unwrap_or(self.threshold).max(last)
        }
    }
}

/// Compares an answer with the expected one.
///
/// # Errors
/// The first difference that is too large, in one line.
pub fn compare(expected: &Output, got: &Output, tolerance: &Tolerance, cut: Cut<'_>) -> Result<(), String> {
    compare_detections(&expected.detections, &got.detections, tolerance, cut)?;
    compare_classes(&expected.classes, &got.classes, tolerance, cut)?;
    compare_values("values", &expected.values, &got.values, tolerance)?;
    compare_anomaly(expected.anomaly.as_ref(), got.anomaly.as_ref(), tolerance)?;
    if expected.tensors.len() != got.tensors.len() {
        return Err(format!("{} raw outputs, expected {}", got.tensors.len(), expected.tensors.len()));
    }
    expected.tensors.iter().zip(&got.tensors).try_for_each(|(e, g)| compare_tensor(e, g, tolerance))
}

fn compare_detections(
    expected: &[Detection],
    got: &[Detection],
    tolerance: &Tolerance,
    cut: Cut<'_>,
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
            _ if wanted.score - least(&wanted.label) <= tolerance.score => {}
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
    match free.into_iter().find(|found| found.score - least(&found.label) > tolerance.score) {
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
    cut: Cut<'_>,
) -> Result<(), String> {
    let least = cut.least(got.iter().map(|found| found.score));
    for wanted in expected {
        match got.iter().find(|found| found.class == wanted.class) {
            Some(found) => check_score(&wanted.label, wanted.score, found.score, tolerance)?,
            None if wanted.score - least(&wanted.label) <= tolerance.score => {}
            None => return Err(format!("class {} (score {:.3}) was not given", wanted.label, wanted.score)),
        }
    }
    let least = cut.least(expected.iter().map(|wanted| wanted.score));
    let extra = |found: &&Classification| {
        !expected.iter().any(|wanted| wanted.class == found.class)
            && found.score - least(&found.label) > tolerance.score
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

fn compare_values(
    what: &str,
    expected: &[Value],
    got: &[Value],
    tolerance: &Tolerance,
) -> Result<(), String> {
    if expected.len() != got.len() {
        return Err(format!("{} {what}, expected {}", got.len(), expected.len()));
    }
    for (wanted, found) in expected.iter().zip(got) {
        if wanted.name != found.name {
            return Err(format!("{what}: {:?} where {:?} is expected", found.name, wanted.name));
        }
        let near = (wanted.value - found.value).abs() <= tolerance.value * wanted.value.abs().max(1.0);
        if !near {
            return Err(format!(
                "{what}: {} is {}, expected {} ± {} of it",
                wanted.name, found.value, wanted.value, tolerance.value
            ));
        }
    }
    Ok(())
}

/// Whether it is one follows from the score; near the threshold two processors may differ.
fn compare_anomaly(
    expected: Option<&Anomaly>,
    got: Option<&Anomaly>,
    tolerance: &Tolerance,
) -> Result<(), String> {
    let (wanted, found) = match (expected, got) {
        (None, None) => return Ok(()),
        (Some(wanted), Some(found)) => (wanted, found),
        (Some(_), None) => return Err("no anomaly score, one is expected".to_owned()),
        (None, Some(_)) => return Err("an anomaly score, none is expected".to_owned()),
    };
    let total = |anomaly: &Anomaly| {
        [Value { name: "the whole".to_owned(), value: anomaly.score, unit: String::new() }]
    };
    compare_values("anomaly", &total(wanted), &total(found), tolerance)?;
    compare_values("anomaly channels", &wanted.channels, &found.channels, tolerance)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUT: Cut<'static> = Cut { threshold: 0.5, classes: None, most: 3 };
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

    #[test]
    fn a_class_with_a_threshold_of_its_own_may_be_missing_near_that_one() {
        let classes = ClassThresholds::from([("0".to_owned(), 0.9)]);
        let cut = Cut { classes: Some(&classes), ..CUT };
        let (faint, none) = (detections(&[(0, 0.0, 0.93)]), detections(&[]));
        assert!(compare(&faint, &none, &TOLERANCE, cut).is_ok());
        assert!(compare(&faint, &none, &TOLERANCE, CUT).is_err());
    }

    #[test]
    fn numbers_and_anomalies_have_their_tolerance() {
        let value = |name: &str, value| Value { name: name.into(), value, unit: String::new() };
        let output = |number: f32, score: f32| Output {
            values: vec![value("speed", number)],
            anomaly: Some(Anomaly { score, is_anomaly: false, channels: vec![value("x", score)] }),
            ..Output::default()
        };
        same(&output(200.0, 0.5), &output(201.9, 0.505), true);
        same(&output(200.0, 0.5), &output(203.0, 0.5), false);
        same(&output(200.0, 0.5), &output(200.0, 0.52), false);
        same(&output(200.0, 0.5), &output(f32::NAN, 0.5), false);
        same(&output(200.0, 0.5), &Output::default(), false);
        same(&Output::default(), &output(200.0, 0.5), false);
        let mut other = output(200.0, 0.5);
        other.values[0].name = "other".into();
        same(&output(200.0, 0.5), &other, false);
    }
}
