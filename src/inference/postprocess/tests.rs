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
    for case in cases() {
        let manifest = case.manifest();
        let context = Context { manifest: &manifest, size: case.size };
        check(context, &case.views()).unwrap();
        let output = decode(context, &case.views(), &identity(case.size)).unwrap();
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
    }
}

#[test]
fn boxes_come_back_to_the_original_picture_and_are_cut_at_its_edges() {
    let case = case("yolo v5");
    let manifest = case.manifest();
    // A 200×100 picture, letterboxed into 64×64: scale 0.32, 16 rows of padding above.
    let geometry = Geometry { scale: [0.32, 0.32], offset: [0.0, 16.0], original: [200.0, 100.0] };
    let context = Context { manifest: &manifest, size: case.size };
    let output = decode(context, &case.views(), &geometry).unwrap();
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
            let manifest = case.manifest();
            let context = Context { manifest: &manifest, size: case.size };
            let reason = decode(context, &case.views(), &identity(case.size)).unwrap_err();
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
        let manifest = case.manifest();
        let reason = check(Context { manifest: &manifest, size: case.size }, &case.views()).unwrap_err();
        assert_eq!(reason.code, ReasonCode::LoadFailed, "{}", case.name);
        assert!(reason.detail.contains("[2, 3, 5, 7]"), "{}", reason.detail);
    }
    let yolox = case("yolox");
    let manifest = yolox.manifest();
    assert!(check(Context { manifest: &manifest, size: (64, 64) }, &yolox.views()).is_err());
}

#[test]
fn labels_are_counted_against_the_classes() {
    let case = case("yolo v5");
    let mut manifest = case.manifest();
    for (labels, good) in [(0, true), (3, true), (2, false), (4, false)] {
        manifest.labels = (0..labels).map(|n| format!("thing {n}")).collect();
        let result = check(Context { manifest: &manifest, size: case.size }, &case.views());
        assert_eq!(result.is_ok(), good, "{labels}: {result:?}");
    }
    manifest.labels = ["a", "b", "c"].map(str::to_owned).to_vec();
    let context = Context { manifest: &manifest, size: case.size };
    for found in decode(context, &case.views(), &identity(case.size)).unwrap().detections {
        assert_eq!(found.label, ["a", "b", "c"][found.class as usize]);
    }
}

#[test]
fn raw_outputs_pass_unchanged_and_are_bounded() {
    let mut case = case("centre, pixels");
    case.decode = Decode::Raw { outputs: vec![] };
    let manifest = case.manifest();
    let context = Context { manifest: &manifest, size: case.size };
    let output = decode(context, &case.views(), &identity(case.size)).unwrap();
    assert_eq!(output.tensors.len(), 2);
    assert_eq!(output.tensors[0].values, case.outputs[0].values);
    assert_eq!(output.tensors[1].shape, case.outputs[1].shape);
    case.outputs[0].values = vec![0.0; 1 << 17];
    assert!(check(context, &case.views()).is_err());
}
