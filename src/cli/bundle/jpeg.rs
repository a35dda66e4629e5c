//! What `inputs[].jpeg = "fast"` would change: the answers on the bundle's golden pictures, and the time.

use crate::bundle::OpenBundle;
use crate::domain::manifest::JpegDetail;
use crate::domain::result::iou;
use crate::domain::trial::{self, Cut};
use crate::domain::{FrameFormat, Output, Reason};
use crate::inference::Engine;
use crate::inference::given::Given;

/// Each picture is prepared so often; the fastest counts, as other work only makes it slower.
const RUNS: usize = 5;

/// The fast decoding of JPEGs against the exact one, on golden pictures that are more than twice as large
/// as the input: smaller ones are decoded alike.
#[derive(Debug, Default, PartialEq, serde::Serialize)]
pub struct Comparison {
    /// Such pictures.
    pictures: usize,
    /// Milliseconds from a JPEG to the tensor, a picture on average.
    exact_ms: f32,
    /// The same.
    fast_ms: f32,
    /// Pictures whose fast answer is the exact one within the bundle's tolerance.
    within_tolerance: usize,
    /// The first that is not: what differs.
    difference: Option<String>,
    /// How far apart the answers are.
    #[serde(flatten)]
    distance: Distance,
}

/// The largest differences of answers.
#[derive(Debug, Default, PartialEq, serde::Serialize)]
struct Distance {
    /// Boxes and classes that only one of the answers has.
    unmatched: usize,
    /// Of scores, of boxes and classes that both have.
    score: f32,
    /// Least overlap of two boxes that are the same thing, 0 to 1; none where there are no boxes.
    least_iou: Option<f32>,
    /// Of other numbers: values, the anomaly's score, raw outputs.
    number: f32,
}

impl Comparison {
    /// In one line, for people.
    pub fn told(&self) -> String {
        let Distance { unmatched, score, least_iou, number } = &self.distance;
        let boxes = least_iou.map(|iou| format!(", boxes overlap by {iou:.3} or more")).unwrap_or_default();
        let number = if *number > 0.0 { format!(", numbers by {number:.4}") } else { String::new() };
        let verdict = match &self.difference {
            None => "all within the tolerance".to_owned(),
            Some(what) => format!("{} within the tolerance, else {what}", self.within_tolerance),
        };
        format!(
            "jpeg = \"fast\" takes {:.2} ms instead of {:.2} ms a picture from JPEG to tensor; of {} large golden \
             pictures {verdict}; scores differ by {score:.4}{number} at most{boxes}, {unmatched} found by one only",
            self.fast_ms, self.exact_ms, self.pictures
        )
    }
}

/// Compares; `None` where no golden picture is large enough to be decoded differently.
///
/// # Errors
/// A golden picture cannot be read or answered.
pub fn compare(engine: &mut Engine, bundle: &OpenBundle) -> Result<Option<Comparison>, Reason> {
    let manifest = &bundle.manifest;
    let Some((width, height)) = manifest.inputs.first().and_then(|input| input.size()) else {
        return Ok(None);
    };
    let mut large = Vec::new();
    for sample in &manifest.golden {
        let given = Given::read(manifest, &bundle.file(&sample.input))?;
        let meta = given.view().meta;
        if meta.format == FrameFormat::Jpeg && (meta.width > 2 * width || meta.height > 2 * height) {
            large.push((&sample.input, given));
        }
    }
    if large.is_empty() {
        return Ok(None);
    }
    let mut answers = |detail| -> Result<(Vec<Output>, f32), Reason> {
        engine.decode_jpegs(detail)?;
        let mut outputs = Vec::new();
        let mut total = 0.0;
        for (_, given) in &large {
            let mut least = f32::INFINITY;
            for run in 0..RUNS {
                let (output, times) = engine.run(given.view())?;
                least = least.min(times.decode + times.preprocess);
                if run == 0 {
                    outputs.push(output);
                }
            }
            total += least;
        }
        Ok((outputs, total / large.len() as f32))
    };
    let (exact, exact_ms) = answers(JpegDetail::Exact)?;
    let (fast, fast_ms) = answers(JpegDetail::Fast)?;
    if let Some(input) = manifest.inputs.first() {
        engine.decode_jpegs(input.jpeg)?;
    }
    let mut found = Comparison { pictures: large.len(), exact_ms, fast_ms, ..Comparison::default() };
    let cut = Cut::of(&manifest.decode);
    for (((name, _), exact), fast) in large.iter().zip(&exact).zip(&fast) {
        match trial::compare(exact, fast, &manifest.tolerance, cut) {
            Ok(()) => found.within_tolerance += 1,
            Err(what) => drop(found.difference.get_or_insert(format!("{name}: {what}"))),
        }
        found.distance.see(exact, fast);
    }
    Ok(Some(found))
}

impl Distance {
    fn see(&mut self, exact: &Output, fast: &Output) {
        let mut left: Vec<_> = fast.detections.iter().collect();
        for one in &exact.detections {
            let overlap = |at: &usize| iou(one.bbox, left[*at].bbox);
            let same = (0..left.len()).filter(|at| left[*at].label == one.label && overlap(at) > 0.0);
            let Some(best) = same.max_by(|a, b| overlap(a).total_cmp(&overlap(b))) else {
                self.unmatched += 1;
                continue;
            };
            let overlap = overlap(&best);
            let other = left.swap_remove(best);
            self.score = self.score.max((one.score - other.score).abs());
            self.least_iou = Some(self.least_iou.map_or(overlap, |least| least.min(overlap)));
        }
        self.unmatched += left.len();
        for one in &exact.classes {
            match fast.classes.iter().find(|other| other.class == one.class) {
                Some(other) => self.score = self.score.max((one.score - other.score).abs()),
                None => self.unmatched += 1,
            }
        }
        let known = |class: u32| exact.classes.iter().any(|other| other.class == class);
        self.unmatched += fast.classes.iter().filter(|one| !known(one.class)).count();
        let numbers = |output: &Output| {
            let values = output.values.iter().map(|value| value.value);
            let anomaly = output.anomaly.iter().map(|anomaly| anomaly.score);
            let raw = output.tensors.iter().flat_map(|tensor| tensor.values.iter().copied());
            values.chain(anomaly).chain(raw).collect::<Vec<_>>()
        };
        for (one, other) in numbers(exact).into_iter().zip(numbers(fast)) {
            self.number = self.number.max((one - other).abs());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Classification, Detection};

    fn found(label: &str, score: f32, bbox: [f32; 4]) -> Detection {
        Detection { label: label.into(), class: 0, score, bbox }
    }

    #[test]
    fn the_largest_differences_are_told() {
        let box_at = |left: f32| [left, 0.0, left + 10.0, 10.0];
        let classes = |scores: &[f32]| {
            let class = |(class, score): (usize, &f32)| Classification {
                label: class.to_string(),
                class: class as u32,
                score: *score,
            };
            scores.iter().enumerate().map(class).collect::<Vec<_>>()
        };
        let exact = Output {
            detections: vec![
                found("a", 0.9, box_at(0.0)),
                found("a", 0.8, box_at(50.0)),
                found("b", 0.7, box_at(90.0)),
            ],
            classes: classes(&[0.5, 0.4]),
            ..Output::default()
        };
        let fast = Output {
            detections: vec![found("a", 0.6, box_at(50.0)), found("a", 0.9, box_at(5.0))],
            classes: classes(&[0.5, 0.3, 0.1]),
            ..Output::default()
        };
        let mut distance = Distance::default();
        distance.see(&exact, &exact);
        assert_eq!(distance, Distance { least_iou: Some(1.0), ..Distance::default() });
        distance.see(&exact, &fast);
        assert_eq!(distance.unmatched, 2, "a box and a class");
        assert!((distance.score - 0.2).abs() < 1e-6, "{distance:?}");
        assert!((distance.least_iou.unwrap() - 1.0 / 3.0).abs() < 1e-6, "{distance:?}");
    }
}
