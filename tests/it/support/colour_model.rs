//! The smallest model that can be told right from wrong: it averages the colours of a picture. Its ONNX
//! file is made here, so that tests of processes need no other file.

use edgewarden::bundle;
use edgewarden::domain::manifest::{
    Activation, Color, Decode, ElementType, FORMAT, Fit, GoldenSample, InputSpec, Layout, Manifest,
};
use edgewarden::domain::{Classification, Digest, Output};
use std::path::Path;

pub fn jpeg(color: [u8; 3]) -> Vec<u8> {
    let pixels = color.repeat(32 * 24);
    let image = turbojpeg::Image {
        pixels: pixels.as_slice(),
        width: 32,
        pitch: 32 * 3,
        height: 24,
        format: turbojpeg::PixelFormat::RGB,
    };
    turbojpeg::compress(image, 95, turbojpeg::Subsamp::None).unwrap().to_vec()
}

/// A bundle whose model averages the colours: which is the strongest?
pub fn colour_bundle(dir: &Path) -> Digest {
    bundle_of(dir, &onnx::average_colour(8), 1.0 / 255.0)
}

/// A bundle whose model loads, and takes years for any picture that is not black: its value is how often
/// it goes round.
#[allow(dead_code, reason = "only one of the test programs that share this file has a use for it")]
pub fn endless_bundle(dir: &Path) -> Digest {
    bundle_of(dir, &onnx::endless(8), 1e12)
}

/// Pixels of a side of what [`many_classes_bundle`] looks at.
const SPOTS: u8 = 20;

/// A bundle whose model has a class for each value of a small picture: which is the brightest?
#[allow(dead_code, reason = "only one of the test programs that share this file has a use for it")]
pub fn many_classes_bundle(dir: &Path) -> usize {
    let classes = 3 * usize::from(SPOTS).pow(2);
    let labels = (0..classes).map(|class| format!("class {class:04}")).collect();
    bundle_with(dir, &onnx::pixels(SPOTS), 1.0 / 255.0, SPOTS, labels, (spot(7), 7));
    classes
}

/// A picture in which [`many_classes_bundle`] sees this class, of the first 400: a red spot.
pub fn spot(class: usize) -> Vec<u8> {
    let (side, spots) = (8, usize::from(SPOTS));
    let edge = side * spots;
    let red = |at: usize| (at / edge / side, at % edge / side) == (class / spots, class % spots);
    let pixels: Vec<u8> = (0..edge * edge).flat_map(|at| [if red(at) { 255 } else { 0 }, 0, 0]).collect();
    let image = turbojpeg::Image {
        pixels: pixels.as_slice(),
        width: edge,
        pitch: edge * 3,
        height: edge,
        format: turbojpeg::PixelFormat::RGB,
    };
    turbojpeg::compress(image, 95, turbojpeg::Subsamp::None).unwrap().to_vec()
}

fn bundle_of(dir: &Path, model: &[u8], scale: f32) -> Digest {
    let labels: Vec<String> = ["red", "green", "blue"].map(str::to_owned).into();
    bundle_with(dir, model, scale, 8, labels, (jpeg([10, 230, 20]), 1))
}

/// A bundle with one golden picture, and the class that is seen in it with a score of about 0.9.
fn bundle_with(
    dir: &Path,
    model: &[u8],
    scale: f32,
    edge: u8,
    labels: Vec<String>,
    (golden, class): (Vec<u8>, usize),
) -> Digest {
    std::fs::write(dir.join("model.onnx"), model).unwrap();
    std::fs::write(dir.join("golden.jpg"), golden).unwrap();
    let (edge, few) = (i64::from(edge), labels.len() == 3);
    let score = if few { 0.9 } else { 1.0 };
    let expected = Output {
        classes: vec![Classification { label: labels[class].clone(), class: class as u32, score }],
        ..Output::default()
    };
    let manifest = Manifest {
        format: FORMAT,
        name: "colour".parse().unwrap(),
        version: semver::Version::new(1, 0, 0),
        description: String::new(),
        license: String::new(),
        model: "model.onnx".into(),
        files: Vec::new(),
        inputs: vec![InputSpec {
            name: "picture".into(),
            shape: vec![1, 3, edge, edge],
            element: ElementType::F32,
            layout: Layout::Nchw,
            fit: Fit::Stretch,
            color: Color::Rgb,
            scale,
            mean: Vec::new(),
            std: Vec::new(),
            jpeg: Default::default(),
        }],
        series: None,
        decode: Decode::Classification {
            output: "average".into(),
            activation: Activation::None,
            top_k: 1,
            score_threshold: 0.0,
            class_thresholds: Default::default(),
        },
        labels,
        needs: Default::default(),
        runtime: Default::default(),
        golden: vec![GoldenSample { input: "golden.jpg".into(), expected }],
        tolerance: Default::default(),
        encryption: None,
    };
    bundle::write_manifest(dir, &manifest).unwrap();
    bundle::seal(dir).unwrap();
    bundle::open(dir, None).unwrap().digest
}

/// The least of the ONNX format that one small model takes.
mod onnx {
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2];
        let mut len = bytes.len();
        while len >= 0x80 {
            out.push(len as u8 | 0x80);
            len >>= 7;
        }
        out.push(len as u8);
        out.extend_from_slice(bytes);
        out
    }

    fn number(field: u8, value: u8) -> Vec<u8> {
        vec![field << 3, value]
    }

    fn value(name: &str, shape: &[u8]) -> Vec<u8> {
        let shape: Vec<u16> = shape.iter().map(|dim| (*dim).into()).collect();
        large_value(name, &shape)
    }

    /// Sides up to 16383.
    fn large_value(name: &str, shape: &[u16]) -> Vec<u8> {
        let side = |side: u16| match side {
            0..128 => number(1, side as u8),
            _ => [number(1, (side & 127) as u8 | 128), vec![(side >> 7) as u8]].concat(),
        };
        let dims: Vec<u8> = shape.iter().flat_map(|dim| field(1, &side(*dim))).collect();
        let tensor = [number(1, 1), field(2, &dims)].concat();
        [field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat()
    }

    fn typed(name: &str, element: u8) -> Vec<u8> {
        let tensor = [number(1, element), field(2, &[])].concat();
        [field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat()
    }

    /// An attribute: its name, its value's field, and the number of its type.
    fn attribute(name: &str, value: &[u8], kind: u8) -> Vec<u8> {
        field(5, &[&field(1, name.as_bytes()), value, &[0xa0, 1, kind]].concat())
    }

    /// `picture` of `[1, 3, edge, edge]` → `average` of `[1, 3]`, handed on as often as the brightest
    /// value says.
    pub fn endless(edge: u8) -> Vec<u8> {
        let (float, int64, boolean) = (1, 7, 9);
        let body = [
            field(1, &node("Identity", "go", "go_on")),
            field(1, &node("Identity", "x", "y")),
            field(2, b"round"),
            field(11, &typed("i", int64)),
            field(11, &typed("go", boolean)),
            field(11, &value("x", &[1, 3])),
            field(12, &typed("go_on", boolean)),
            field(12, &value("y", &[1, 3])),
        ]
        .concat();
        let (int, graph) = (2, 5);
        let brightest =
            [node("ReduceMax", "picture", "brightest"), attribute("keepdims", &number(3, 0), int)];
        let rounds = [node("Cast", "brightest", "rounds"), attribute("to", &number(3, int64), int)];
        let inputs = ["rounds", "", "flat"].map(|name| field(1, name.as_bytes())).concat();
        let body = attribute("body", &field(6, &body), graph);
        let rounds_of = [inputs, field(2, b"average"), field(4, b"Loop"), body];
        let graph = [
            field(1, &node("GlobalAveragePool", "picture", "pooled")),
            field(1, &node("Flatten", "pooled", "flat")),
            field(1, &brightest.concat()),
            field(1, &rounds.concat()),
            field(1, &rounds_of.concat()),
            field(2, b"endless"),
            field(11, &value("picture", &[float, 3, edge, edge])),
            field(12, &value("average", &[1, 3])),
        ]
        .concat();
        [number(1, 8), field(7, &graph), field(8, &number(2, 13))].concat()
    }

    fn node(op: &str, input: &str, output: &str) -> Vec<u8> {
        [field(1, input.as_bytes()), field(2, output.as_bytes()), field(4, op.as_bytes())].concat()
    }

    /// `picture` of `[1, 3, edge, edge]` → `average` of `[1, 3]`.
    pub fn average_colour(edge: u8) -> Vec<u8> {
        let graph = [
            field(1, &node("GlobalAveragePool", "picture", "pooled")),
            field(1, &node("Flatten", "pooled", "average")),
            field(2, b"colour"),
            field(11, &value("picture", &[1, 3, edge, edge])),
            field(12, &value("average", &[1, 3])),
        ]
        .concat();
        [number(1, 8), field(7, &graph), field(8, &number(2, 13))].concat()
    }

    /// `picture` of `[1, 3, edge, edge]` → `average` of `[1, 3 * edge * edge]`: its values in a row.
    pub fn pixels(edge: u8) -> Vec<u8> {
        let graph = [
            field(1, &node("Flatten", "picture", "average")),
            field(2, b"pixels"),
            field(11, &value("picture", &[1, 3, edge, edge])),
            field(12, &large_value("average", &[1, 3 * u16::from(edge).pow(2)])),
        ]
        .concat();
        [number(1, 8), field(7, &graph), field(8, &number(2, 13))].concat()
    }
}
