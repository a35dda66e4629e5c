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

fn bundle_of(dir: &Path, model: &[u8], scale: f32) -> Digest {
    std::fs::write(dir.join("model.onnx"), model).unwrap();
    std::fs::write(dir.join("green.jpg"), jpeg([10, 230, 20])).unwrap();
    let labels: Vec<String> = ["red", "green", "blue"].map(str::to_owned).into();
    let expected = Output {
        classes: vec![Classification { label: "green".into(), class: 1, score: 0.9 }],
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
            shape: vec![1, 3, 8, 8],
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
        golden: vec![GoldenSample { input: "green.jpg".into(), expected }],
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
        let dims: Vec<u8> = shape.iter().flat_map(|dim| field(1, &number(1, *dim))).collect();
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
}
