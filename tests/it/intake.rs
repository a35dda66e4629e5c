//! Model intake with the real program: what makes a model slow is told, mended, and proved.

use crate::support::Edgewarden;
use crate::support::colour_model::colour_bundle;
use edgewarden::bundle::onnx::graph::{Model, field};
use edgewarden::bundle::onnx::wire::{Field, Message};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn json(command: &mut Command) -> Value {
    serde_json::from_slice(&run(command.arg("--json")).stdout).unwrap()
}

fn kinds(report: &Value) -> Vec<&str> {
    report["slow"].as_array().unwrap().iter().map(|finding| finding["kind"].as_str().unwrap()).collect()
}

fn message(number: u32, fields: Vec<Field<'static>>) -> Field<'static> {
    Field::bytes(number, Message { fields }.to_bytes())
}

fn weight(name: &str, shape: &[i64]) -> Field<'static> {
    let count = shape.iter().product::<i64>();
    // Numbers of no pattern, all above zero: variances are among them.
    let raw = (0..count).flat_map(|at| (0.1 + (at * 37 % 11) as f32 / 7.0).to_le_bytes()).collect::<Vec<_>>();
    let mut fields: Vec<_> = shape.iter().map(|axis| Field::number(1, *axis)).collect();
    fields.extend([Field::number(2, 1), Field::text(8, name), Field::bytes(9, raw)]);
    message(field::INITIALIZER, fields)
}

fn node(op: &str, inputs: &[&str], output: &str, attributes: Vec<Field<'static>>) -> Field<'static> {
    let mut fields: Vec<_> = inputs.iter().map(|name| Field::text(1, name)).collect();
    fields.extend([Field::text(2, output), Field::text(4, op)]);
    fields.extend(attributes);
    message(field::NODE, fields)
}

fn port(number: u32, name: &str, axes: &[&str]) -> Field<'static> {
    let axis = |axis: &&str| match axis.parse() {
        Ok(length) => message(1, vec![Field::number(1, length)]),
        Err(_) => message(1, vec![Field::text(2, axis)]),
    };
    let shape = message(2, axes.iter().map(axis).collect());
    message(
        number,
        vec![Field::text(1, name), message(2, vec![message(1, vec![Field::number(1, 1), shape])])],
    )
}

/// A convolution and a transposed one, each with batch normalisation, as an exporter with the old habit
/// writes them: an open batch, and every weight listed as an input.
fn old_habit(path: &Path) {
    let (norm1, norm2) = (["s1", "b1", "m1", "v1"], ["s2", "b2", "m2", "v2"]);
    let weights: Vec<(&str, Vec<i64>)> =
        [("w1", vec![4, 3, 3, 3]), ("w2", vec![4, 2, 2, 2]), ("o2", vec![2])]
            .into_iter()
            .chain(norm1.map(|name| (name, vec![4])))
            .chain(norm2.map(|name| (name, vec![2])))
            .collect();
    let batch_norm = |from: &'static str, names: [&'static str; 4], to: &str| {
        node("BatchNormalization", &[&[from], &names[..]].concat(), to, Vec::new())
    };
    let mut graph = vec![
        Field::text(2, "old habit"),
        node("Conv", &["x", "w1"], "c1", Vec::new()),
        batch_norm("c1", norm1, "n1"),
        node("ConvTranspose", &["n1", "w2", "o2"], "c2", Vec::new()),
        batch_norm("c2", norm2, "n2"),
        node("GlobalAveragePool", &["n2"], "p", Vec::new()),
        node("Flatten", &["p"], "y", Vec::new()),
    ];
    graph.push(port(field::INPUT, "x", &["batch", "3", "16", "16"]));
    for (name, shape) in &weights {
        graph.push(weight(name, shape));
        let axes: Vec<_> = shape.iter().map(i64::to_string).collect();
        graph.push(port(field::INPUT, name, &axes.iter().map(String::as_str).collect::<Vec<_>>()));
    }
    graph.push(port(field::OUTPUT, "y", &["batch", "2"]));
    let opset = message(field::MODEL_OPSET, vec![Field::number(2, 13)]);
    let fields = vec![Field::number(field::MODEL_IR, 8), message(field::MODEL_GRAPH, graph), opset];
    std::fs::write(path, Message { fields }.to_bytes()).unwrap();
}

#[test]
fn a_slow_model_is_found_mended_and_proved() {
    let temp = tempfile::tempdir().unwrap();
    let (model, bundle, better) =
        (temp.path().join("old.onnx"), temp.path().join("old"), temp.path().join("old-optimized"));
    old_habit(&model);
    let drafted = json(Edgewarden::command().args(["bundle", "init"]).arg(&model).arg(&bundle));
    let all = ["weights_as_inputs", "open_axes", "unfused_batch_norm", "missing_shapes"];
    assert_eq!(kinds(&drafted), all);
    let grey = temp.path().join("grey.png");
    image::RgbImage::from_pixel(16, 16, image::Rgb([90, 120, 30])).save(&grey).unwrap();
    run(Edgewarden::command().args(["bundle", "golden"]).arg(&bundle).arg(&grey));
    let told = run(Edgewarden::command().args(["bundle", "check"]).arg(&bundle));
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("slow ") && told.contains("edgewarden bundle optimize"), "{told}");

    let before = std::fs::read(bundle.join("model.onnx")).unwrap();
    let report = json(Edgewarden::command().args(["bundle", "optimize"]).arg(&bundle));
    assert_eq!(report["output"], better.to_str().unwrap());
    assert_eq!((&report["samples"], &report["golden"]), (&5.into(), &1.into()));
    assert!(report["difference"]["relative"].as_f64().unwrap() <= 1e-5, "{report:#}");
    assert_eq!(report["done"].as_array().unwrap().len(), 3, "{report:#}");
    assert_eq!(std::fs::read(bundle.join("model.onnx")).unwrap(), before, "the original is only read");
    let checked = json(Edgewarden::command().args(["bundle", "check"]).arg(&better));
    assert_eq!(kinds(&checked), ["missing_shapes"], "nothing mendable is left: {checked:#}");
    assert!(checked["passed"].to_string().contains("1 golden sample "), "{checked:#}");
    let view = Model::parse(&std::fs::read(better.join("model.onnx")).unwrap()).unwrap();
    assert_eq!(view.graph.nodes.len(), 4, "both batch normalisations are gone");

    // A second time there is nothing to do; onto something there is nothing done.
    let again = json(Edgewarden::command().args(["bundle", "optimize"]).arg(&better));
    assert!(again["output"].is_null() && again["done"].as_array().unwrap().is_empty(), "{again:#}");
    assert!(!temp.path().join("old-optimized-optimized").exists());
    let output = Edgewarden::command().args(["bundle", "optimize"]).arg(&bundle).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && told.contains("is there already"), "{told}");
}

#[test]
fn other_answers_are_refused_and_nothing_is_left_behind() {
    let temp = tempfile::tempdir().unwrap();
    let model = temp.path().join("old.onnx");
    old_habit(&model);
    // Rounding alone differs by more than nothing.
    let mut command = Edgewarden::command();
    command.args(["bundle", "optimize", "--limit", "0"]).arg(&model);
    let output = command.output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && told.contains("answers otherwise"), "{told}");
    assert!(told.lines().count() == 1, "{told}");
    let left: Vec<_> = std::fs::read_dir(temp.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["old.onnx"]);

    // A bare file is mended as well, with a batch of one.
    let report = json(Edgewarden::command().args(["bundle", "optimize"]).arg(&model));
    let made = PathBuf::from(report["output"].as_str().unwrap());
    assert_eq!(made.file_name().unwrap(), "old-optimized.onnx");
    let view = Model::parse(&std::fs::read(made).unwrap()).unwrap();
    assert_eq!(view.graph.inputs.len(), 1);
}

#[test]
fn a_public_face_detector_loses_its_listed_weights() {
    let model =
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data/ultraface/version-RFB-320.onnx"));
    if !model.is_file() {
        return println!("skipped: no {}", model.display());
    }
    let temp = tempfile::tempdir().unwrap();
    let bundle = temp.path().join("faces");
    let drafted = json(Edgewarden::command().args(["bundle", "init"]).arg(model).arg(&bundle));
    assert_eq!(kinds(&drafted), ["weights_as_inputs", "unfused_batch_norm", "missing_shapes"]);
    assert!(drafted["slow"][0]["what"].as_str().unwrap().starts_with("244 weights "));
    let picture = model.with_file_name("../frames/f00.jpg");
    run(Edgewarden::command().args(["bundle", "golden"]).arg(&bundle).arg(&picture));
    let report = json(Edgewarden::command().args(["bundle", "optimize"]).arg(&bundle));
    let ms = |at: usize| report["run_ms"][at].as_f64().unwrap();
    println!("bare run {:.2} ms before, {:.2} ms after; {}", ms(0), ms(1), report["difference"]);
    assert!(report["difference"]["relative"].as_f64().unwrap() <= 1e-5, "{report:#}");
    assert_eq!(report["golden"], 1);
    assert!(
        report["left"].as_array().unwrap().iter().all(|finding| finding["mendable"] == false),
        "{report:#}"
    );
}

#[test]
fn check_tells_what_the_fast_decoding_of_jpegs_would_change() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("bundle");
    std::fs::create_dir(&bundle).unwrap();
    colour_bundle(&bundle);
    // 32 by 24 pixels for an input of 8 by 8.
    let checked = json(Edgewarden::command().args(["bundle", "check"]).arg(&bundle));
    let compared = &checked["jpeg"];
    assert_eq!((compared["pictures"].as_u64(), compared["within_tolerance"].as_u64()), (Some(1), Some(1)));
    assert!(compared["exact_ms"].as_f64().unwrap() > 0.0 && compared["fast_ms"].as_f64().unwrap() > 0.0);
    assert!(compared["score"].as_f64().unwrap() < 0.05, "one colour stays one colour: {compared}");
    let told = run(Edgewarden::command().args(["bundle", "check"]).arg(&bundle)).stdout;
    let told = String::from_utf8(told).unwrap();
    assert!(
        told.contains("note   jpeg = \"fast\" takes ") && told.contains("all within the tolerance"),
        "{told}"
    );

    // A picture that is no JPEG is decoded alike either way: nothing to tell.
    let other = folder.path().join("other.png");
    image::RgbImage::from_pixel(640, 480, image::Rgb([10, 230, 20])).save(&other).unwrap();
    run(Edgewarden::command().args(["bundle", "golden"]).arg(&bundle).arg(&other));
    let checked = json(Edgewarden::command().args(["bundle", "check"]).arg(&bundle));
    assert_eq!(checked["jpeg"], Value::Null, "no JPEG, no choice");
}
