//! The decoders against numbers that `tests/data/postprocess/reference.py` made without them.

use super::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    size: (u32, u32),
    decode: Decode,
    outputs: Vec<Tensor>,
    expected: Vec<Expected>,
    #[serde(default)]
    values: Vec<f32>,
    anomaly: Option<ExpectedAnomaly>,
    #[serde(default)]
    input: Vec<f32>,
    #[serde(default)]
    channels_last: bool,
}

#[derive(Deserialize)]
struct ExpectedAnomaly {
    score: f32,
    is_anomaly: bool,
    channels: Vec<f32>,
}

#[derive(Deserialize)]
struct Tensor {
    name: String,
    shape: Vec<i64>,
    values: Vec<f32>,
}

#[derive(Deserialize)]
struct Expected {
    class: u32,
    score: f32,
    #[serde(rename = "box")]
    bbox: Option<[f32; 4]>,
}

impl Case {
    /// Ready to decode, with the input looked at; `labels` as the bundle has them.
    fn decoding(&self, labels: &[&str]) -> Decoding {
        let (width, height) = self.size;
        let series = !self.input.is_empty();
        let shape = InputShape {
            size: self.size,
            channels: if series { height as usize } else { 3 },
            names: Vec::new(),
            channels_last: self.channels_last,
            values: width as usize * height as usize * if series { 1 } else { 3 },
        };
        let mut manifest = self.manifest();
        manifest.labels = labels.iter().map(|label| (*label).to_owned()).collect();
        let mut decoding = Decoding::new(&manifest, shape);
        decoding.see_input(&TensorMut::F32(&mut self.input.clone()));
        decoding
    }

    fn decode(&self) -> Result<Output, Reason> {
        self.decoding(&[]).decode(&self.views(), &identity(self.size))
    }

    fn manifest(&self) -> Manifest {
        Manifest { decode: self.decode.clone(), ..crate::bundle::tests::sample() }
    }

    fn views(&self) -> Vec<TensorView<'_>> {
        self.outputs
            .iter()
            .map(|tensor| TensorView {
                name: &tensor.name,
                shape: &tensor.shape,
                values: Cow::Borrowed(&tensor.values),
            })
            .collect()
    }
}

fn cases() -> Vec<Case> {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/postprocess/reference.json"));
    serde_json::from_str::<Reference>(text).unwrap().cases
}

fn case(name: &str) -> Case {
    cases().into_iter().find(|case| case.name == name).unwrap()
}

/// The picture is the tensor.
fn identity((width, height): (u32, u32)) -> Geometry {
    Geometry { scale: [1.0, 1.0], offset: [0.0, 0.0], original: [width as f32, height as f32] }
}

#[test]
fn every_family_gives_the_reference_numbers() {
    let near = |got: f32, wanted: f32| (got - wanted).abs() <= 1e-4 * wanted.abs().max(1.0);
    for case in cases() {
        let mut decoding = case.decoding(&[]);
        decoding.check(&case.views()).unwrap();
        // The second time with memory that has been used.
        let output = decoding.decode(&case.views(), &identity(case.size)).unwrap();
        assert_eq!(decoding.decode(&case.views(), &identity(case.size)).unwrap(), output, "{}", case.name);
        let got: Vec<_> = match output.detections.is_empty() {
            true => output.classes.iter().map(|c| (c.class, c.score, None)).collect(),
            false => output.detections.iter().map(|d| (d.class, d.score, Some(d.bbox))).collect(),
        };
        assert_eq!(got.len(), case.expected.len(), "{}", case.name);
        for ((class, score, bbox), expected) in got.into_iter().zip(&case.expected) {
            assert_eq!(class, expected.class, "{}", case.name);
            assert!((score - expected.score).abs() < 1e-5, "{}: {score} {}", case.name, expected.score);
            let (got, wanted) = (bbox.unwrap_or_default(), expected.bbox.unwrap_or_default());
            assert!(
                got.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-3),
                "{}: {got:?} {wanted:?}",
                case.name
            );
        }
        assert_eq!(output.values.len(), case.values.len(), "{}", case.name);
        for (got, wanted) in output.values.iter().zip(&case.values) {
            assert!(near(got.value, *wanted), "{}: {got:?} {wanted}", case.name);
        }
        assert_eq!(output.anomaly.is_some(), case.anomaly.is_some(), "{}", case.name);
        for (got, wanted) in output.anomaly.iter().zip(&case.anomaly) {
            assert!(near(got.score, wanted.score), "{}: {} {}", case.name, got.score, wanted.score);
            assert_eq!(got.is_anomaly, wanted.is_anomaly, "{}", case.name);
            assert_eq!(got.channels.len(), wanted.channels.len());
            for (got, wanted) in got.channels.iter().zip(&wanted.channels) {
                assert!(near(got.value, *wanted), "{}: {got:?} {wanted}", case.name);
            }
        }
    }
}

/// The agent's health, the golden runs and the drafts know every kind; so must the references.
#[test]
fn every_kind_has_a_reference() {
    let mut kinds: Vec<_> = cases().iter().map(|case| case.decode.kind()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, ["anomaly", "boxes_scores", "classification", "detr", "values", "yolo"]);
}

#[test]
fn boxes_come_back_to_the_original_picture_and_are_cut_at_its_edges() {
    let case = case("yolo v5");
    // A 200×100 picture, letterboxed into 64×64: scale 0.32, 16 rows of padding above.
    let geometry = Geometry { scale: [0.32, 0.32], offset: [0.0, 16.0], original: [200.0, 100.0] };
    let output = case.decoding(&[]).decode(&case.views(), &geometry).unwrap();
    let first = output.detections[0].bbox;
    let [l, t, r, b] = case.expected[0].bbox.unwrap();
    let wanted = [l / 0.32, (t - 16.0) / 0.32, r / 0.32, (b - 16.0) / 0.32];
    for (axis, (got, wanted)) in first.into_iter().zip(wanted).enumerate() {
        let wanted = wanted.clamp(0.0, [200.0, 100.0][axis % 2]);
        assert!((got - wanted).abs() < 1e-2, "{first:?}");
    }
    for found in &output.detections {
        let [l, t, r, b] = found.bbox;
        assert!(0.0 <= l && l < r && r <= 200.0 && 0.0 <= t && t < b && b <= 100.0, "{found:?}");
    }
}

#[test]
fn nan_and_infinity_are_named_not_decoded() {
    for mut case in cases() {
        for wild in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let last = case.outputs.last_mut().unwrap();
            let at = last.values.len() - 1;
            let before = std::mem::replace(&mut last.values[at], wild);
            let reason = case.decode().unwrap_err();
            assert_eq!(reason.code, ReasonCode::NotFinite, "{}", case.name);
            assert!(reason.detail.contains(&format!("value {at}")), "{}", reason.detail);
            case.outputs.last_mut().unwrap().values[at] = before;
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused_when_loading() {
    for mut case in cases() {
        let output = &mut case.outputs[0];
        output.shape = vec![2, 3, 5, 7];
        output.values = vec![0.0; 210];
        let reason = case.decoding(&[]).check(&case.views()).unwrap_err();
        assert_eq!(reason.code, ReasonCode::LoadFailed, "{}", case.name);
        assert!(reason.detail.contains("[2, 3, 5, 7]"), "{}", reason.detail);
    }
    let yolox = Case { size: (64, 64), ..case("yolox") };
    assert!(yolox.decoding(&[]).check(&yolox.views()).is_err());
}

#[test]
fn labels_are_counted_against_the_classes() {
    let case = case("yolo v5");
    for (labels, good) in [(0, true), (3, true), (2, false), (4, false)] {
        let result = case.decoding(&["thing"; 4][..labels]).check(&case.views());
        assert_eq!(result.is_ok(), good, "{labels}: {result:?}");
    }
    let mut decoding = case.decoding(&["a", "b", "c"]);
    for found in decoding.decode(&case.views(), &identity(case.size)).unwrap().detections {
        assert_eq!(found.label, ["a", "b", "c"][found.class as usize]);
    }
}

#[test]
fn a_threshold_of_a_class_is_found_by_its_label() {
    let mut case = case("yolo v5");
    let Decode::Yolo { keep, .. } = &mut case.decode else { panic!() };
    keep.class_thresholds.insert("b".to_owned(), 1.0);
    let classes = |case: &Case| -> Vec<u32> {
        let output = case.decoding(&["a", "b", "c"]).decode(&case.views(), &identity(case.size)).unwrap();
        output.detections.iter().map(|found| found.class).collect()
    };
    let without = classes(&case);
    assert!(!without.contains(&1), "{without:?}");
    let Decode::Yolo { keep, .. } = &mut case.decode else { panic!() };
    keep.class_thresholds.clear();
    assert!(classes(&case).contains(&1));
}

#[test]
fn raw_outputs_pass_unchanged_and_are_bounded() {
    let mut case = case("centre, pixels");
    case.decode = Decode::Raw { outputs: vec![] };
    let output = case.decode().unwrap();
    assert_eq!(output.tensors.len(), 2);
    assert_eq!(output.tensors[0].values, case.outputs[0].values);
    assert_eq!(output.tensors[1].shape, case.outputs[1].shape);
    case.outputs[0].values = vec![0.0; 1 << 17];
    assert!(case.decoding(&[]).check(&case.views()).is_err());
}
