//! The story of `edgewarden demo`: the real program, a real mosquitto, a real ONNX Runtime.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn demo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_edgewarden")).arg("demo").args(arguments).output().unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn every_step_of_the_story_happens() {
    let folder = tempfile::tempdir().unwrap();
    let keep = folder.path().join("kept");
    let output = demo(&["--json", "--seconds", "2", "--keep", keep.to_str().unwrap()]);
    let report = report(&output);
    let log = std::fs::read_to_string(keep.join("agent.log")).unwrap_or_default();
    for step in report["steps"].as_array().unwrap() {
        assert_eq!(step["outcome"], "happened", "{step:#}\n{log}");
    }
    assert!(output.status.success());
    assert_eq!(report["complete"], true);
    assert_eq!(report["steps"].as_array().unwrap().len(), 8);

    let models = report["models"].as_array().unwrap();
    let f1 = |at: usize| models[at]["f1"].as_f64().unwrap();
    assert!(f1(1) > f1(0), "accuracy rises: {models:#?}");
    assert!(f1(1) > 0.85, "the better model is good: {models:#?}");
    let swap = &report["swap"];
    assert!(swap["answered"].as_u64().unwrap() > 0);
    assert!(swap["gaps"].as_u64().unwrap() <= swap["counted"].as_u64().unwrap(), "no frame is lost: {swap}");
}

#[test]
fn a_broker_that_is_not_there_is_named_and_nothing_is_left_running() {
    let output = demo(&["--json", "--broker", "mqtt://127.0.0.1:1", "--seconds", "1"]);
    assert_eq!(output.status.code(), Some(1));
    let report = report(&output);
    assert_eq!(report["steps"][0]["outcome"], "failed");
    let detail = report["steps"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("broker"), "{detail}");
    assert_eq!(report["steps"][1]["outcome"], "not_reached");
    std::fs::remove_dir_all(Path::new(report["folder"].as_str().unwrap()).parent().unwrap()).unwrap();
}
