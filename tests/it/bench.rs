//! `edgewarden bench` with the real program: every setting in a process of its own, and one to paste.

use crate::support::{Edgewarden, root};
use serde_json::Value;

#[test]
fn settings_are_measured_and_the_best_is_told() {
    let temp = tempfile::tempdir().unwrap();
    let bundle = temp.path().join("means");
    let model = root().join("tests/data/models/mean_f32.onnx");
    let init = Edgewarden::run(["bundle".as_ref(), "init".as_ref(), model.as_os_str(), bundle.as_os_str()]);
    assert_eq!(init.code, Some(0), "{init:?}");
    let bundle = bundle.to_str().unwrap();
    let without = Edgewarden::run(["bench", bundle]);
    assert!(without.code == Some(64) && without.stderr.contains("--input"), "{without:?}");

    let picture = temp.path().join("a.png");
    image::RgbImage::from_pixel(64, 48, image::Rgb([9, 99, 200])).save(&picture).unwrap();
    let picture = picture.to_str().unwrap();
    let ask = ["bench", bundle, "--input", picture, "--seconds", "0.1", "--threads", "1,2"];
    let ended = Edgewarden::run([&ask[..], &["--json"]].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    let rows = report["settings"].as_array().unwrap();
    let cpu: Vec<_> = rows.iter().filter(|row| row["provider"] == "cpu").collect();
    assert_eq!(cpu.len(), 2, "{report:#}");
    for row in cpu {
        let measured = &row["measured"];
        assert!(measured["frames"].as_u64().unwrap() >= 3, "{report:#}");
        assert!(measured["peak_bytes"].as_u64().unwrap() > 1 << 20, "{report:#}");
        assert!(measured["saved_load_ms"].is_number() && measured["bare_ms"].is_number(), "{report:#}");
    }
    // Every other provider ran, or says why not.
    for provider in ["tensorrt", "cuda", "openvino", "xnnpack"] {
        let row = rows.iter().find(|row| row["provider"] == provider).unwrap();
        assert!(row["measured"].is_object() || row["fault"].as_str().unwrap().len() > 20, "{row}");
    }
    assert!(report["best"].as_str().unwrap().starts_with("[runtime]\nproviders = ["), "{report:#}");

    let told = Edgewarden::run([&ask[..], &["--providers", "cpu"]].concat());
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.stdout.contains("FRAMES/S") && told.stdout.contains("intra_threads = "), "{}", told.stdout);
    println!("{}", told.stdout);
    let none = Edgewarden::run([&ask[..], &["--runtime", picture]].concat());
    assert!(none.code == Some(1) && none.stdout.contains("not a shared library"), "{none:?}");
}
