//! The engine with a real ONNX Runtime, on the tiny models of `tests/data/models`.
//!
//! `mean_*` models answer with the mean of each channel of their tensor, so a picture of one colour
//! shows what decoding and pre-processing made of it.

use super::inspect::inspect;
use super::pixels::tests::{jpeg, meta};
use super::{Engine, golden};
use crate::bundle::draft::Input;
use crate::bundle::{self, OpenBundle};
use crate::domain::frame::FrameView;
use crate::domain::manifest::*;
use crate::domain::runtime::{RuntimeSettings, Tuning};
use crate::domain::{FrameFormat, Manifest, Reason, ReasonCode};
use std::path::{Path, PathBuf};

pub(super) fn settings() -> RuntimeSettings {
    let local = concat!(env!("CARGO_MANIFEST_DIR"), "/.deps/onnxruntime/libonnxruntime.so");
    let library = std::env::var_os("EDGEWARDEN_ONNXRUNTIME").unwrap_or_else(|| local.into());
    RuntimeSettings {
        library: library.into(),
        providers: vec![Provider::Cpu],
        required: false,
        intra_threads: None,
        engine_cache: std::env::temp_dir(),
        tuning: Tuning { save_optimized: Some(false), ..Tuning::default() },
    }
}

fn model(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/models")).join(format!("{name}.onnx"))
}

/// A bundle with that model file and the manifest of `mean_f32`, edited.
fn bundle_of(model: &[u8], edit: impl FnOnce(&mut Manifest)) -> (tempfile::TempDir, OpenBundle) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("model.onnx"), model).unwrap();
    let mut manifest = bundle::tests::sample();
    let input = &mut manifest.inputs[0];
    (input.name, input.shape, input.mean, input.std) = ("x".into(), vec![1, 3, 8, 8], vec![], vec![]);
    manifest.decode = Decode::Raw { outputs: vec!["y".into()] };
    edit(&mut manifest);
    bundle::write_manifest(dir.path(), &manifest).unwrap();
    bundle::seal(dir.path()).unwrap();
    let bundle = bundle::open(dir.path(), None).unwrap();
    (dir, bundle)
}

pub(super) fn bundle(name: &str, edit: impl FnOnce(&mut Manifest)) -> (tempfile::TempDir, OpenBundle) {
    bundle_of(&std::fs::read(model(name)).unwrap(), edit)
}

fn load(name: &str, edit: impl FnOnce(&mut Manifest)) -> Result<Engine, Reason> {
    let (_dir, bundle) = bundle(name, edit);
    Engine::load(&bundle, &settings())
}

/// What a `mean_*` model says of a raw picture of 16×16 pixels of one colour.
fn means(engine: &mut Engine, colour: [u8; 3]) -> Vec<f32> {
    let bytes = colour.repeat(16 * 16);
    let frame = FrameView { meta: meta(FrameFormat::Rgb8, 16, 16), bytes: &bytes };
    engine.run(frame).unwrap().0.tensors[0].values.clone()
}

#[track_caller]
fn near(got: &[f32], wanted: &[f32], by: f32) {
    assert!(
        got.len() == wanted.len() && got.iter().zip(wanted).all(|(a, b)| (a - b).abs() <= by),
        "{got:?} {wanted:?}"
    );
}

#[test]
fn colour_and_numbers_reach_the_tensor_as_declared() {
    let colour = [200, 100, 50];
    let mut engine = load("mean_f32", |_| {}).unwrap();
    near(&means(&mut engine, colour), &[200.0, 100.0, 50.0], 1e-3);
    assert_eq!(engine.report().provider, Provider::Cpu);
    assert_eq!(engine.report().fallback, None);
    assert!(engine.report().runtime_version.starts_with("1."));

    let mut engine = load("mean_f32", |m| {
        let input = &mut m.inputs[0];
        (input.color, input.scale) = (Color::Bgr, 1.0 / 255.0);
        (input.mean, input.std) = (vec![0.1, 0.2, 0.3], vec![0.5, 0.25, 2.0]);
    })
    .unwrap();
    let expected = [(50.0 / 255.0 - 0.1) / 0.5, (100.0 / 255.0 - 0.2) / 0.25, (200.0 / 255.0 - 0.3) / 2.0];
    near(&means(&mut engine, colour), &expected, 1e-5);

    let mut engine = load("mean_open", |m| m.inputs[0].mean = vec![127.0]).unwrap();
    near(&means(&mut engine, colour), &[73.0, -27.0, -77.0], 1e-3);
    let mut engine = load("mean_f16", |m| m.inputs[0].element = ElementType::F16).unwrap();
    near(&means(&mut engine, colour), &[200.0, 100.0, 50.0], 0.1);
    let nhwc = |element, mean: f32| {
        move |m: &mut Manifest| {
            let input = &mut m.inputs[0];
            (input.shape, input.layout) = (vec![1, 8, 8, 3], Layout::Nhwc);
            (input.element, input.mean) = (element, vec![mean]);
        }
    };
    let mut engine = load("mean_u8_nhwc", nhwc(ElementType::U8, 0.0)).unwrap();
    near(&means(&mut engine, colour), &[200.0, 100.0, 50.0], 1e-3);
    let mut engine = load("mean_i8_nhwc", nhwc(ElementType::I8, 128.0)).unwrap();
    near(&means(&mut engine, colour), &[72.0, -28.0, -78.0], 1e-3);
    let mut engine = load("mean_grey", |m| {
        (m.inputs[0].shape, m.inputs[0].color) = (vec![1, 1, 8, 8], Color::Grey);
    })
    .unwrap();
    near(&means(&mut engine, colour), &[0.299 * 200.0 + 0.587 * 100.0 + 0.114 * 50.0], 0.6);
}

#[test]
fn every_raw_format_reaches_the_tensor_in_its_colour() {
    // Red, green and blue 204, 51, 102 in BT.601 of limited range.
    let (y, u, v) = (104u8, 128u8, 192u8);
    let frames = [
        (FrameFormat::Yuyv, [y, u, y, v].repeat(16 * 8)),
        (FrameFormat::Nv12, [vec![y; 256], [u, v].repeat(64)].concat()),
        (FrameFormat::I420, [vec![y; 256], vec![u; 64], vec![v; 64]].concat()),
        (FrameFormat::Rgb8, [204, 51, 102].repeat(256)),
    ];
    let mut engine = load("mean_f32", |_| {}).unwrap();
    let mut grey = load("mean_grey", |m| {
        (m.inputs[0].shape, m.inputs[0].color) = (vec![1, 1, 8, 8], Color::Grey);
    })
    .unwrap();
    for (format, bytes) in &frames {
        let frame = FrameView { meta: meta(*format, 16, 16), bytes };
        near(&engine.run(frame).unwrap().0.tensors[0].values, &[204.0, 51.0, 102.0], 2.0);
        near(&grey.run(frame).unwrap().0.tensors[0].values, &[102.5], 1.0);
        let short = FrameView { bytes: &bytes[1..], ..frame };
        assert_eq!(engine.run(short).unwrap_err().code, ReasonCode::BadRequest);
    }
    let luminance = FrameView { meta: meta(FrameFormat::Grey8, 16, 16), bytes: &[77; 256] };
    near(&engine.run(luminance).unwrap().0.tensors[0].values, &[77.0; 3], 1e-3);
    let samples = FrameView { meta: meta(FrameFormat::Samples, 8, 8), bytes: &[0; 256] };
    assert_eq!(engine.run(samples).unwrap_err().code, ReasonCode::BadRequest);
    let odd = FrameView { meta: meta(FrameFormat::Yuyv, 3, 2), bytes: &[0; 12] };
    assert!(engine.run(odd).unwrap_err().detail.contains("must be even"));
}

#[test]
fn a_letterbox_pads_what_the_picture_leaves_and_mends_it_when_the_size_changes() {
    let fit = Fit::Letterbox { value: 40, position: Anchor::Center };
    let mut engine = load("mean_f32", |m| m.inputs[0].fit = fit).unwrap();
    let mut mean_of = |width: u32, height: u32| {
        let bytes = [200, 100, 0].repeat((width * height) as usize);
        let frame = FrameView { meta: meta(FrameFormat::Rgb8, width, height), bytes: &bytes };
        engine.run(frame).unwrap().0.tensors[0].values.clone()
    };
    // 8×4 of the tensor's 8×8 are the picture: half the mean is padding.
    near(&mean_of(32, 16), &[120.0, 70.0, 20.0], 1e-3);
    near(&mean_of(16, 16), &[200.0, 100.0, 0.0], 1e-3);
    near(&mean_of(8, 32), &[80.0, 55.0, 30.0], 1e-3);
    near(&mean_of(32, 16), &[120.0, 70.0, 20.0], 1e-3);
}

#[test]
fn a_centre_crop_leaves_the_sides_out() {
    let mut engine = load("mean_f32", |m| m.inputs[0].fit = Fit::CenterCrop).unwrap();
    // A red quarter, a green half, a red quarter: only the green is in the middle square.
    let row: Vec<u8> =
        (0..32).flat_map(|x| if (8..24).contains(&x) { [0, 250, 0] } else { [250, 0, 0] }).collect();
    let bytes = row.repeat(16);
    let frame = FrameView { meta: meta(FrameFormat::Rgb8, 32, 16), bytes: &bytes };
    let (output, _) = engine.run(frame).unwrap();
    near(&output.tensors[0].values, &[0.0, 250.0, 0.0], 10.0);
}

#[test]
fn a_region_is_all_that_the_model_sees_and_boxes_lie_in_the_whole_picture() {
    // A red quarter on the right, at the bottom a green half of it.
    let pixel = |x: usize, y: usize| match (x >= 24, y >= 8) {
        (false, _) => [0, 0, 250],
        (true, false) => [250, 0, 0],
        (true, true) => [0, 250, 0],
    };
    let bytes: Vec<u8> = (0..16 * 32).flat_map(|at| pixel(at % 32, at / 32)).collect();
    let frame = FrameView { meta: meta(FrameFormat::Rgb8, 32, 16), bytes: &bytes };
    let letterbox = Fit::Letterbox { value: 0, position: Anchor::Center };
    for fit in [Fit::Stretch, Fit::CenterCrop, letterbox] {
        let mut engine = load("mean_f32", |m| m.inputs[0].fit = fit).unwrap();
        let mut seen = |region| {
            engine.limit_to(region);
            engine.run(frame).unwrap().0.tensors[0].values.clone()
        };
        near(&seen(Some([0.75, 0.0, 0.25, 0.5])), &[250.0, 0.0, 0.0], 1.0);
        near(&seen(Some([0.75, 0.5, 0.25, 0.5])), &[0.0, 250.0, 0.0], 1.0);
        assert!(seen(None)[2] > 80.0, "all of it again");
    }
    let jpeg = jpeg(64, 64);
    let frame = FrameView { meta: meta(FrameFormat::Jpeg, 64, 64), bytes: &jpeg };
    let mut engine = load("mean_f32", |_| {}).unwrap();
    for (region, colour) in
        [([0.0, 0.2, 0.4, 0.4], [255.0, 0.0, 0.0]), ([0.6, 0.0, 0.4, 1.0], [0.0, 0.0, 255.0])]
    {
        engine.limit_to(Some(region));
        near(&engine.run(frame).unwrap().0.tensors[0].values, &colour, 12.0);
    }
}

#[test]
fn a_jpeg_at_any_scale_gives_the_same_answer() {
    let mut engine = load("mean_f32", |_| {}).unwrap();
    for edge in [8, 16, 31, 64, 100, 640] {
        let bytes = jpeg(edge, edge);
        let frame = FrameView { meta: meta(FrameFormat::Jpeg, edge as u32, edge as u32), bytes: &bytes };
        let (output, times) = engine.run(frame).unwrap();
        let half = (edge / 2) as f32 / edge as f32 * 255.0;
        near(&output.tensors[0].values, &[half, 0.0, 255.0 - half], 12.0);
        assert!(times.total() > 0.0);
    }
    let bytes = jpeg(64, 64);
    let cut = FrameView { meta: meta(FrameFormat::Jpeg, 64, 64), bytes: &bytes[..bytes.len() / 2] };
    assert_eq!(engine.run(cut).unwrap_err().code, ReasonCode::BadRequest);
    let whole = FrameView { bytes: &bytes, ..cut };
    // The engine goes on after a bad frame.
    engine.run(whole).unwrap();
}

#[track_caller]
pub(super) fn refused(result: Result<Engine, Reason>, code: ReasonCode, words: &str) {
    let Err(reason) = result else { panic!("was loaded") };
    assert_eq!(reason.code, code, "{reason}");
    assert!(
        reason.detail.contains(words) && reason.detail.starts_with("bundle detector@1.2.0: "),
        "{reason}"
    );
}

#[test]
fn broken_and_newer_models_are_told_apart() {
    let whole = std::fs::read(model("mean_f32")).unwrap();
    let noise: Vec<u8> = (0..4096u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for bytes in [&whole[..whole.len() / 2], &noise, b"", b"hello"] {
        let (_dir, bundle) = bundle_of(bytes, |_| {});
        refused(Engine::load(&bundle, &settings()), ReasonCode::LoadFailed, "not an ONNX model");
    }
    refused(load("newer_opset", |_| {}), ReasonCode::Unsupported, "newer than ONNX Runtime");
    refused(load("newer_ir", |_| {}), ReasonCode::Unsupported, "newer than ONNX Runtime");
    refused(load("unknown_operator", |_| {}), ReasonCode::LoadFailed, "Frobnicate");
}

#[test]
fn a_manifest_that_disagrees_with_the_model_says_in_what() {
    let load = |edit: fn(&mut Manifest)| load("mean_f32", edit);
    let code = ReasonCode::LoadFailed;
    refused(load(|m| m.inputs[0].name = "images".into()), code, "no input \"images\"");
    refused(load(|m| m.inputs[0].shape = vec![1, 3, 9, 8]), code, "shape [1, 3, 9, 8]");
    refused(load(|m| m.inputs[0].element = ElementType::F16), code, "type F16");
    refused(load(|m| m.decode = Decode::Raw { outputs: vec!["z".into()] }), code, "no output \"z\"");
    refused(
        load(|m| {
            m.decode = Decode::Yolo { version: YoloVersion::V8, output: "y".into(), keep: Keep::default() };
        }),
        code,
        "output \"y\" has shape [1, 3]",
    );
    refused(
        load(|m| {
            m.decode = Decode::Classification {
                output: "y".into(),
                activation: Activation::None,
                top_k: 1,
                score_threshold: 0.0,
                class_thresholds: Default::default(),
            };
            m.labels = vec!["one".into()];
        }),
        code,
        "labels",
    );
    refused(super::tests::load("two_inputs", |_| {}), code, "also wants input \"z\"");
}

#[test]
fn nan_is_an_error_of_the_frame() {
    let mut engine = load("nan", |m| m.inputs[0].mean = vec![255.0]).unwrap();
    let white = [255u8; 16 * 16 * 3];
    let grey = [100u8; 16 * 16 * 3];
    let frame = |bytes| FrameView { meta: meta(FrameFormat::Rgb8, 16, 16), bytes };
    assert_eq!(engine.run(frame(&white)).unwrap_err().code, ReasonCode::NotFinite);
    assert!(engine.run(frame(&grey)).is_ok());
}

#[test]
fn a_missing_provider_is_never_silent() {
    let (_dir, bundle) = bundle("mean_f32", |_| {});
    let order = vec![Provider::TensorRt, Provider::Cuda, Provider::Cpu];
    let engine = Engine::load(&bundle, &RuntimeSettings { providers: order.clone(), ..settings() }).unwrap();
    if engine.report().provider == Provider::TensorRt {
        return println!("skipped: this machine runs TensorRT");
    }
    let why = engine.report().fallback.clone().unwrap();
    assert!(why.contains("tensorrt: "), "{why}");
    let required = RuntimeSettings { providers: order, required: true, ..settings() };
    refused(Engine::load(&bundle, &required), ReasonCode::LoadFailed, "no provider runs it: tensorrt: ");

    let (_dir, needy) = super::tests::bundle("mean_f32", |m| m.needs.providers = vec![Provider::TensorRt]);
    refused(Engine::load(&needy, &settings()), ReasonCode::Unsupported, "needs provider tensorrt");
}

#[test]
fn one_process_has_one_library() {
    load("mean_f32", |_| {}).unwrap();
    let (_dir, bundle) = bundle("mean_f32", |_| {});
    let other = RuntimeSettings { library: "/elsewhere/libonnxruntime.so".into(), ..settings() };
    refused(Engine::load(&bundle, &other), ReasonCode::LoadFailed, "restart");
}

#[test]
fn golden_samples_pass_until_one_is_off() {
    let picture = jpeg(64, 64);
    let (dir, bundle) = bundle("mean_f32", |_| {});
    std::fs::create_dir(dir.path().join("golden")).unwrap();
    for name in ["a", "b", "c"] {
        std::fs::write(dir.path().join(format!("golden/{name}.jpg")), &picture).unwrap();
    }
    let mut engine = Engine::load(&bundle, &settings()).unwrap();
    let frame = FrameView { meta: meta(FrameFormat::Jpeg, 64, 64), bytes: &picture };
    let (expected, _) = engine.run(frame).unwrap();
    let mut manifest = bundle.manifest.clone();
    let mut run = |spoil: Option<usize>| {
        let sample = |(at, name): (usize, &str)| {
            let mut expected = expected.clone();
            if spoil == Some(at) {
                expected.tensors[0].values[1] += 30.0;
            }
            GoldenSample { input: format!("golden/{name}.jpg"), expected }
        };
        manifest.golden = ["a", "b", "c"].into_iter().enumerate().map(sample).collect();
        bundle::write_manifest(dir.path(), &manifest).unwrap();
        bundle::seal(dir.path()).unwrap();
        let bundle = bundle::open(dir.path(), None).unwrap();
        let mut progress = Vec::new();
        let (verdict, times) =
            golden::run_all(&mut engine, &bundle, |done, total| progress.push((done, total)));
        (verdict, times.len(), progress)
    };
    assert_eq!(run(None), (Ok(()), 3, vec![(1, 3), (2, 3), (3, 3)]));
    let (verdict, times, progress) = run(Some(1));
    let reason = verdict.unwrap_err();
    assert_eq!((reason.code, times, progress.len()), (ReasonCode::GoldenMismatch, 2, 1));
    assert!(reason.detail.contains("golden/b.jpg"), "{reason}");
}

#[test]
fn a_model_is_inspected_without_a_manifest() {
    let seen = inspect(&model("mean_open"), &settings()).unwrap();
    let Input::Picture(picture) = &seen.input else { panic!("{:?}", seen.input) };
    assert_eq!(picture.shape, [1, 3, 224, 224]);
    assert_eq!(seen.samples[0].shape, [1, 3]);
    assert!(seen.samples[0].values.iter().all(|mean| (0.4..0.6).contains(mean)), "noise around a half");
    assert_eq!(inspect(&model("two_inputs"), &settings()).unwrap_err().code, ReasonCode::Unsupported);
}

#[test]
fn a_frame_of_the_other_kind_is_refused_with_the_remedy() {
    let bytes = [0; 3 * 16 * 4];
    let samples = FrameView { meta: meta(FrameFormat::Samples, 16, 3), bytes: &bytes };
    let picture = FrameView { meta: meta(FrameFormat::Rgb8, 8, 8), bytes: &bytes };
    let refused = load("mean_f32", |_| {}).unwrap().run(samples).unwrap_err();
    assert_eq!(refused.code, ReasonCode::BadRequest);
    assert!(refused.detail.contains("the model takes a picture; give the pipeline a camera"), "{refused}");
    let mut engine = load("series_mean", |manifest| {
        manifest.inputs.clear();
        manifest.series = Some(SeriesSpec {
            name: "x".into(),
            shape: vec![1, 3, 16],
            element: ElementType::F32,
            layout: SeriesLayout::Ncl,
            channels: vec![],
            scale: 1.0,
            mean: vec![1.0],
            std: vec![0.5],
            gap: Gap::Hold,
        });
    })
    .unwrap();
    let refused = engine.run(picture).unwrap_err();
    assert!(refused.detail.contains("the model takes 3 channels of 16 samples; give the pipeline a sensor"));
    near(&engine.run(samples).unwrap().0.tensors[0].values, &[-2.0; 3], 1e-6);
}
