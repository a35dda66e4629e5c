//! Bundles of the tiny models of time series: three channels of 16 samples.

use super::{Edgewarden, root};
use serde_json::{Value, json};
use std::path::Path;

/// The model file `series_mean.onnx` (the mean of each channel) or `series_clip.onnx` (what lies within
/// −1 to 1 is given back).
pub fn onnx(name: &str) -> String {
    root().join(format!("tests/data/models/{name}.onnx")).display().to_string()
}

/// Drafts a bundle with the real program and edits it.
pub fn bundle(dir: &Path, name: &str, edit: impl FnOnce(&mut Value)) {
    let made = Edgewarden::run(["bundle", "init", &onnx(name), &dir.display().to_string()]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let path = dir.join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    edit(&mut manifest);
    std::fs::write(&path, serde_json::to_vec_pretty(&manifest).unwrap()).unwrap();
    edgewarden::bundle::seal(dir).expect("seal the bundle");
}

/// The means of the channels as numbers with names; a gap is a zero.
pub fn means(manifest: &mut Value) {
    manifest["labels"] = json!([]);
    manifest["series"]["gap"] = json!("zero");
    manifest["decode"] = json!({ "kind": "values", "output": "y", "values": [
        { "name": "x", "unit": "m/s²" },
        { "name": "y", "unit": "m/s²", "scale": 10 },
        { "name": "n" },
    ] });
}
