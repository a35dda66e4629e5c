//! From the bytes of `manifest.json` to a checked [`Manifest`], and back.
//!
//! Here stand all checks that need no file: bytes that were downloaded pass them before anything else
//! is fetched.

mod decode;
mod encryption;
mod series;

pub(super) use encryption::without_calibration;

use super::{MANIFEST, MAX_FILE, MAX_FILES, MAX_MANIFEST, path};
use crate::domain::manifest::{ElementType, FORMAT, InputSpec, Layout, RuntimeHints};
use crate::domain::{Manifest, Reason, ReasonCode};
use crate::sys::durable;
use serde::Deserialize;
use std::path::Path;

/// Most golden samples.
const MAX_GOLDEN: usize = 64;
/// Most labels, and the longest of them in bytes.
const MAX_LABELS: (usize, usize) = (100_000, 200);
/// Longest name of an input or output, bytes.
const MAX_PORT: usize = 200;
/// Longest edge of an input picture, pixels.
const MAX_EDGE: i64 = 8192;
/// Most values of an input tensor.
const MAX_VALUES: i64 = 1 << 26;

/// Reads a manifest and checks every word of it.
///
/// # Errors
/// `Malformed` with line and column or with the field, and the remedy; `Unsupported` for a format of a
/// newer agent.
pub fn parse_manifest(bytes: &[u8]) -> Result<Manifest, Reason> {
    let manifest = parse_words(bytes)?;
    check(&manifest)?;
    Ok(manifest)
}

/// Reads a manifest whose file list may be out of date; [`check`] is still to be called.
pub(super) fn parse_words(bytes: &[u8]) -> Result<Manifest, Reason> {
    /// Read first, so that a newer format is told from a mistake.
    #[derive(Deserialize)]
    struct Probe {
        format: u32,
    }
    if bytes.len() as u64 > MAX_MANIFEST {
        return malformed(format!("more than {} MiB", MAX_MANIFEST >> 20));
    }
    let json =
        |error: serde_json::Error| Reason::new(ReasonCode::Malformed, format!("not a manifest: {error}"));
    let Probe { format } = serde_json::from_slice(bytes).map_err(json)?;
    if format != FORMAT {
        return Err(Reason::new(
            ReasonCode::Unsupported,
            format!("manifest format {format}: this agent reads format {FORMAT}; update the agent"),
        ));
    }
    serde_json::from_slice(bytes).map_err(json)
}

/// All checks that need no file.
pub(super) fn check(manifest: &Manifest) -> Result<(), Reason> {
    if manifest.files.is_empty() || manifest.files.len() > MAX_FILES {
        return malformed(format!("files: {} listed; use 1 to {MAX_FILES}", manifest.files.len()));
    }
    path::check_all(manifest.files.iter().map(|entry| entry.path.as_str()))?;
    if let Some(entry) = manifest.files.iter().find(|entry| entry.size > MAX_FILE) {
        return malformed(format!(
            "files: {} states {} bytes; the limit is {} GiB",
            entry.path,
            entry.size,
            MAX_FILE >> 30
        ));
    }
    let listed = |path: &str| manifest.files.iter().any(|entry| entry.path == path);
    if !listed(&manifest.model) {
        return malformed(format!("model: {:?} is not one of `files`", shorten(&manifest.model)));
    }
    match (&manifest.inputs[..], &manifest.series) {
        ([input], None) => check_input(input)?,
        ([], Some(series)) => series::check(series)?,
        (inputs, series) => {
            let and = if series.is_some() { " and a series" } else { "" };
            return Err(Reason::new(
                ReasonCode::Unsupported,
                format!(
                    "inputs: {} listed{and}; this agent runs models with exactly one, the picture or the series",
                    inputs.len()
                ),
            ));
        }
    }
    decode::check(manifest)?;
    if manifest.labels.len() > MAX_LABELS.0 {
        return malformed(format!("labels: {} listed; at most {}", manifest.labels.len(), MAX_LABELS.0));
    }
    if let Some(label) = manifest.labels.iter().find(|label| label.len() > MAX_LABELS.1) {
        return malformed(format!("labels: {:?} is longer than {} bytes", shorten(label), MAX_LABELS.1));
    }
    if let Some(threads) = manifest.runtime.intra_threads
        && !(1..=64).contains(&threads)
    {
        return malformed(format!("runtime.intra_threads: {threads}; use 1 to 64"));
    }
    check_hints(&manifest.runtime, &listed)?;
    let tolerance = manifest.tolerance;
    within("tolerance.score", tolerance.score, 0.0, 1.0)?;
    within("tolerance.iou", tolerance.iou, 0.0, 1.0)?;
    within("tolerance.value", tolerance.value, 0.0, f32::MAX)?;
    if manifest.golden.len() > MAX_GOLDEN {
        return malformed(format!("golden: {} samples; at most {MAX_GOLDEN}", manifest.golden.len()));
    }
    for sample in &manifest.golden {
        if !listed(&sample.input) {
            return malformed(format!("golden: input {:?} is not one of `files`", shorten(&sample.input)));
        }
        if !sample.expected.is_finite() {
            return malformed(format!("golden: {} expects a number that is not finite", sample.input));
        }
    }
    manifest.encryption.as_ref().map_or(Ok(()), |encryption| encryption::check(manifest, encryption))
}

fn check_hints(hints: &RuntimeHints, listed: &dyn Fn(&str) -> bool) -> Result<(), Reason> {
    if let Some((key, fault)) = hints.tuning().faults().into_iter().next() {
        return malformed(format!("runtime.{key}: {fault}"));
    }
    if hints.inter_threads.is_some_and(|threads| !(1..=64).contains(&threads)) {
        return malformed("runtime.inter_threads: use 1 to 64".into());
    }
    if let Some(table) = &hints.tensorrt.calibration_table
        && (!listed(table) || table.contains('/'))
    {
        return malformed(format!(
            "runtime.tensorrt.calibration_table: {:?} is not one of `files` at the top of the bundle",
            shorten(table)
        ));
    }
    let texts = [
        &hints.tensorrt.profile_min,
        &hints.tensorrt.profile_opt,
        &hints.tensorrt.profile_max,
        &hints.openvino.device,
        &hints.openvino.precision,
    ];
    // They are handed to a library that ends texts at a null.
    if texts.into_iter().flatten().any(|text| text.len() > 1000 || text.contains('\0')) {
        return malformed("runtime: a text is longer than 1000 bytes or holds a null".into());
    }
    Ok(())
}

fn check_input(input: &InputSpec) -> Result<(), Reason> {
    let name = shorten(&input.name);
    port("inputs.name", &input.name)?;
    let channels = input.color.channels() as i64;
    let axis = match input.layout {
        Layout::Nchw => 1,
        Layout::Nhwc => 3,
    };
    match input.shape[..] {
        [1, _, _, _] if input.shape[axis] == channels => {}
        _ => {
            return malformed(format!(
                "input {name}: shape {:?} does not fit; a {:?} picture of layout {:?} has four axes, a batch of \
                 1 and {channels} on axis {axis}",
                input.shape, input.color, input.layout
            ));
        }
    }
    let values = input.shape.iter().try_fold(1i64, |product, &axis| product.checked_mul(axis));
    if input.shape.iter().any(|axis| !(1..=MAX_EDGE).contains(axis))
        || values.is_none_or(|values| values > MAX_VALUES)
    {
        return malformed(format!(
            "input {name}: shape {:?}; each axis must be 1 to {MAX_EDGE} and the whole at most {MAX_VALUES} values",
            input.shape
        ));
    }
    match input.element {
        ElementType::F32 | ElementType::F16 | ElementType::U8 | ElementType::I8 => {}
        ElementType::I64 => return malformed(format!("input {name}: type i64; use f32, f16, u8 or i8")),
    }
    within("inputs.scale", input.scale, f32::MIN, f32::MAX)?;
    normalisation(&name, channels, &input.mean, &input.std)
}

fn normalisation(name: &str, channels: i64, mean: &[f32], std: &[f32]) -> Result<(), Reason> {
    for (field, values) in [("mean", mean), ("std", std)] {
        if !matches!(values.len(), 0 | 1) && values.len() as i64 != channels {
            return malformed(format!(
                "input {name}: {field} has {} numbers; use 1, {channels} or none",
                values.len()
            ));
        }
        if values.iter().any(|value| !value.is_finite()) {
            return malformed(format!("input {name}: {field} holds a number that is not finite"));
        }
    }
    if std.contains(&0.0) {
        return malformed(format!("input {name}: std holds 0; values are divided by it"));
    }
    Ok(())
}

fn port(field: &str, name: &str) -> Result<(), Reason> {
    if name.is_empty() || name.len() > MAX_PORT {
        return malformed(format!("{field}: {:?}; use 1 to {MAX_PORT} bytes", shorten(name)));
    }
    Ok(())
}

fn within(field: &str, value: f32, low: f32, high: f32) -> Result<(), Reason> {
    if (low..=high).contains(&value) {
        Ok(())
    } else if high == f32::MAX {
        malformed(format!("{field}: {value}; it must be a finite number in range"))
    } else {
        malformed(format!("{field}: {value}; use {low} to {high}"))
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

fn malformed<T>(detail: String) -> Result<T, Reason> {
    Err(Reason::new(ReasonCode::Malformed, detail))
}

/// The manifest as it is written: the same value gives the same bytes.
pub fn to_bytes(manifest: &Manifest) -> Result<Vec<u8>, Reason> {
    let mut bytes = serde_json::to_vec_pretty(manifest)
        .map_err(|error| Reason::new(ReasonCode::Internal, format!("write {MANIFEST}: {error}")))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Writes `manifest.json` into `dir`, whole or not at all.
///
/// # Errors
/// `Internal` with the file and the system's message.
pub fn write_manifest(dir: &Path, manifest: &Manifest) -> Result<(), Reason> {
    let bytes = to_bytes(manifest)?;
    durable::write_atomic(&dir.join(MANIFEST), &bytes).map_err(Reason::from)
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;
    use crate::domain::Output;
    use crate::domain::manifest::{Decode, GoldenSample, Keep};

    type Edit = fn(&mut Manifest);

    #[test]
    fn what_is_written_is_read_back() {
        let manifest = sample();
        let bytes = to_bytes(&manifest).unwrap();
        assert_eq!(parse_manifest(&bytes).unwrap(), manifest);
        assert_eq!(to_bytes(&parse_manifest(&bytes).unwrap()).unwrap(), bytes);
    }

    #[test]
    fn every_fault_has_a_line_that_names_it() {
        let edits: &[(&str, Edit)] = &[
            ("files", |m| m.files.clear()),
            ("files", |m| m.files[0].size = u64::MAX),
            ("..", |m| m.files[0].path = "../model.onnx".into()),
            ("model", |m| m.model = "other.onnx".into()),
            ("inputs", |m| m.inputs.clear()),
            ("inputs", |m| m.inputs.push(m.inputs[0].clone())),
            ("inputs.name", |m| m.inputs[0].name.clear()),
            ("shape", |m| m.inputs[0].shape = vec![1, 3, 240]),
            ("shape", |m| m.inputs[0].shape = vec![2, 3, 240, 320]),
            ("shape", |m| m.inputs[0].shape = vec![1, 240, 320, 3]),
            ("shape", |m| m.inputs[0].shape = vec![1, 3, 0, 320]),
            ("shape", |m| m.inputs[0].shape = vec![1, 3, -1, 320]),
            ("shape", |m| m.inputs[0].shape = vec![1, 3, i64::MAX, i64::MAX]),
            ("i64", |m| m.inputs[0].element = ElementType::I64),
            ("mean", |m| m.inputs[0].mean = vec![1.0, 2.0]),
            ("mean", |m| m.inputs[0].mean = vec![f32::INFINITY]),
            ("std", |m| m.inputs[0].std = vec![1.0, 0.0, 1.0]),
            ("scale", |m| m.inputs[0].scale = f32::INFINITY),
            ("golden", |m| {
                m.golden.push(GoldenSample { input: "x.jpg".into(), expected: Output::default() })
            }),
            ("tolerance.iou", |m| m.tolerance.iou = 1.5),
            ("labels", |m| m.labels.push("x".repeat(300))),
            ("runtime", |m| m.runtime = RuntimeHints { intra_threads: Some(0), ..Default::default() }),
            ("same output", |m| {
                m.decode = Decode::BoxesScores {
                    boxes: "a".into(),
                    scores: "a".into(),
                    format: crate::domain::manifest::BoxFormat::Corners,
                    units: crate::domain::manifest::BoxUnits::Pixels,
                    background: None,
                    keep: Keep::default(),
                }
            }),
            ("max_detections", |m| {
                m.decode = Decode::Yolo {
                    version: crate::domain::manifest::YoloVersion::V5,
                    output: "a".into(),
                    keep: Keep { max_detections: 0, ..Keep::default() },
                }
            }),
            ("top_k", |m| {
                m.decode = Decode::Classification {
                    output: "a".into(),
                    activation: crate::domain::manifest::Activation::None,
                    top_k: 0,
                    score_threshold: 0.0,
                    class_thresholds: Default::default(),
                }
            }),
        ];
        for (word, edit) in edits {
            let mut manifest = sample();
            edit(&mut manifest);
            let reason = check(&manifest).expect_err(word);
            assert!(reason.detail.contains(word), "{word}: {}", reason.detail);
        }
    }

    #[test]
    fn a_mistake_is_shown_with_its_line_and_a_newer_format_as_such() {
        let text = String::from_utf8(to_bytes(&sample()).unwrap()).unwrap();
        let typo = parse_manifest(text.replace("\"layout\"", "\"layuot\"").as_bytes()).unwrap_err();
        assert!(typo.detail.contains("layuot") && typo.detail.contains("line"), "{}", typo.detail);
        let newer = parse_manifest(text.replace("\"format\": 1", "\"format\": 2").as_bytes()).unwrap_err();
        assert_eq!(newer.code, ReasonCode::Unsupported);
        assert!(parse_manifest(b"").is_err());
        assert!(parse_manifest(&b"[".repeat(100_000)).is_err());
        let twice = text.replacen("\"format\": 1,", "\"format\": 1, \"format\": 1,", 1);
        assert!(parse_manifest(twice.as_bytes()).is_err());
    }
}
