//! No memory is asked for per frame after the first few: the engine's way of a frame, and the message
//! with its answer, under an allocator that counts.
//!
//! Only this program's own allocations are counted; what ONNX Runtime and TurboJPEG do with the C
//! library's `malloc` is theirs. What may be allocated is the answer: the test compares with what a copy
//! of it costs, so it allows not one more.

#[path = "it/support/colour_model.rs"]
mod colour_model;

use edgewarden::bundle;
use edgewarden::domain::frame::FrameView;
use edgewarden::domain::manifest::{Decode, ElementType, Fit, Provider};
use edgewarden::domain::runtime::{RuntimeSettings, Tuning};
use edgewarden::domain::{FrameFormat, FrameMeta, FrameResult, Manifest};
use edgewarden::inference::Engine;
use edgewarden::process::codec::Writer;
use edgewarden::process::protocol::FromInfer;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::PathBuf;

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is handed to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn counted<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let before = COUNT.get();
    let done = work();
    (done, COUNT.get() - before)
}

/// An engine for a model that averages colours, its raw output as the answer; `None` where there is no
/// runtime.
fn engine(model: &str, edit: impl FnOnce(&mut Manifest)) -> Option<Engine> {
    let root = env!("CARGO_MANIFEST_DIR");
    let library = std::env::var_os("EDGEWARDEN_ONNXRUNTIME")
        .map_or_else(|| format!("{root}/.deps/onnxruntime/libonnxruntime.so").into(), PathBuf::from);
    if !library.exists() {
        println!("skipped: no ONNX Runtime at {} (packaging/setup.sh fetches it)", library.display());
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    colour_model::colour_bundle(dir.path());
    let mut manifest = bundle::open(dir.path(), None).unwrap().manifest;
    std::fs::copy(format!("{root}/tests/data/models/{model}.onnx"), dir.path().join("model.onnx")).unwrap();
    manifest.inputs[0].name = "x".into();
    manifest.decode = Decode::Raw { outputs: vec!["y".into()] };
    edit(&mut manifest);
    bundle::write_manifest(dir.path(), &manifest).unwrap();
    bundle::seal(dir.path()).unwrap();
    let settings = RuntimeSettings {
        library,
        providers: vec![Provider::Cpu],
        required: true,
        intra_threads: Some(1),
        engine_cache: dir.path().to_owned(),
        tuning: Tuning::default(),
    };
    Some(Engine::load(&bundle::open(dir.path(), None).unwrap(), &settings).unwrap())
}

/// A picture in each format that a camera gives.
fn frames() -> Vec<(FrameFormat, Vec<u8>)> {
    let (w, h) = (64, 48);
    let pixels: Vec<u8> = (0..w * h * 3).map(|at| (at % 251) as u8).collect();
    let image = turbojpeg::Image {
        pixels: &pixels[..],
        width: w,
        pitch: w * 3,
        height: h,
        format: turbojpeg::PixelFormat::RGB,
    };
    let jpeg = turbojpeg::compress(image, 90, turbojpeg::Subsamp::Sub2x2).unwrap().to_vec();
    vec![
        (FrameFormat::Jpeg, jpeg),
        (FrameFormat::Yuyv, pixels[..w * h * 2].to_vec()),
        (FrameFormat::Nv12, pixels[..w * h * 3 / 2].to_vec()),
        (FrameFormat::I420, pixels[..w * h * 3 / 2].to_vec()),
        (FrameFormat::Grey8, pixels[..w * h].to_vec()),
        (FrameFormat::Rgb8, pixels),
    ]
}

fn view<'a>(format: FrameFormat, bytes: &'a [u8], seq: u64) -> FrameView<'a> {
    let meta = FrameMeta { seq, captured_unix_ns: 0, captured_mono_ns: 0, width: 64, height: 48, format };
    FrameView { meta, bytes }
}

#[test]
fn a_frame_allocates_nothing_but_its_answer() {
    let letterbox =
        |m: &mut Manifest| m.inputs[0].fit = Fit::Letterbox { value: 114, position: Default::default() };
    let f16 = |m: &mut Manifest| m.inputs[0].element = ElementType::F16;
    let engines = [engine("mean_f32", letterbox), engine("mean_f16", f16)];
    for engine in engines.into_iter().flatten() {
        let (mut preparer, mut executor) = engine.split();
        let mut spare = executor.spare_input().unwrap();
        for (format, bytes) in frames() {
            for seq in 1..=40 {
                let frame = view(format, &bytes, seq);
                let (prepared, preparing) = counted(|| preparer.prepare(frame, &mut spare).unwrap());
                let (answer, answering) = counted(|| {
                    executor.exchange(&mut spare);
                    executor.answer(&prepared).unwrap()
                });
                let (copy, made) = counted(|| answer.0.clone());
                assert_eq!(copy.tensors.len(), 1);
                // The first frames of a format find the sizes that memory needs.
                if seq > 3 {
                    assert_eq!((preparing, answering), (0, made), "{format:?}, frame {seq}");
                }
            }
        }
    }
}

#[test]
fn the_message_with_an_answer_allocates_nothing() {
    let Some(mut engine) = engine("mean_f32", |_| {}) else { return };
    let (format, bytes) = frames().remove(0);
    let mut writer = Writer::new(std::io::sink());
    for seq in 1..=40 {
        let frame = view(format, &bytes, seq);
        let (output, timing_ms) = engine.run(frame).unwrap();
        let result =
            FrameResult { seq, captured_unix_ns: 1, latency_ms: 1.5, size: [64, 48], output, timing_ms };
        let message = FromInfer::Frame { seq, skipped: 0, result: Ok(result) };
        let (_, writing) = counted(|| writer.write(&message).unwrap());
        assert!(seq <= 3 || writing == 0, "message {seq}: {writing}");
    }
}
