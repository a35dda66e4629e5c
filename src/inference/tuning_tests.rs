//! The runtime's settings and the saved graph, with a real ONNX Runtime.

use super::Engine;
use super::pixels::tests::{jpeg, meta};
use super::prove::{Difference, Range, noise, shapes};
use super::session::bare::Bare;
use super::tests::{bundle, settings};
use crate::bundle::intake::Fixed;
use crate::bundle::intake::edit::{Wishes, mend};
use crate::bundle::intake::tests::conv_norm;
use crate::bundle::{self, OpenBundle};
use crate::domain::frame::FrameView;
use crate::domain::manifest::Provider;
use crate::domain::runtime::{CpuTuning, Optimization, RuntimeSettings, Tuning};
use crate::domain::{FrameFormat, ReasonCode};
use std::path::{Path, PathBuf};

fn tuned(tuning: Tuning) -> RuntimeSettings {
    RuntimeSettings { tuning, ..settings() }
}

/// Settings that keep graphs in this folder.
fn keeping(cache: &Path) -> RuntimeSettings {
    RuntimeSettings { engine_cache: cache.to_owned(), tuning: Tuning::default(), ..settings() }
}

fn answer(engine: &mut Engine) -> Vec<f32> {
    let picture = jpeg(64, 64);
    let frame = FrameView { meta: meta(FrameFormat::Jpeg, 64, 64), bytes: &picture };
    engine.run(frame).unwrap().0.tensors.iter().flat_map(|tensor| tensor.values.clone()).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() { found.extend(files(&entry.path())) } else { found.push(entry.path()) }
    }
    found.sort();
    found
}

#[test]
fn a_second_start_uses_the_graph_of_the_first_and_answers_the_same() {
    let (_dir, bundle) = bundle("mean_f32", |_| {});
    let cache = tempfile::tempdir().unwrap();
    let settings = keeping(cache.path());
    let mut first = Engine::load(&bundle, &settings).unwrap();
    assert!(!first.report().saved_graph);
    let kept = files(cache.path());
    assert_eq!(kept.len(), 2, "the graph and its record: {kept:?}");
    let mut second = Engine::load(&bundle, &settings).unwrap();
    assert!(second.report().saved_graph);
    assert_eq!(answer(&mut first), answer(&mut second));
    assert_eq!(second.report().shares[0].provider, "cpu");

    // One that was changed is not used, and is made anew.
    let graph = kept.iter().find(|path| path.extension().is_some_and(|e| e == "onnx")).unwrap();
    let mut bytes = std::fs::read(graph).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(graph, &bytes).unwrap();
    assert!(!Engine::load(&bundle, &settings).unwrap().report().saved_graph);
    assert!(Engine::load(&bundle, &settings).unwrap().report().saved_graph);

    // What is recorded rightly but does not load, neither.
    std::fs::write(graph, b"no graph").unwrap();
    let record = serde_json::json!({"size": 8, "sha256": bundle::files::sha256(b"no graph")});
    std::fs::write(graph.with_extension("json"), record.to_string()).unwrap();
    let mut again = Engine::load(&bundle, &settings).unwrap();
    assert!(!again.report().saved_graph);
    assert_eq!(answer(&mut first), answer(&mut again));
    assert!(Engine::load(&bundle, &settings).unwrap().report().saved_graph);
}

#[test]
fn another_model_or_setting_has_a_graph_of_its_own() {
    let cache = tempfile::tempdir().unwrap();
    let (_a, one) = bundle("mean_f32", |_| {});
    let settings = keeping(cache.path());
    Engine::load(&one, &settings).unwrap();
    let basic = Tuning { optimization: Some(Optimization::Basic), ..Tuning::default() };
    let basic = RuntimeSettings { tuning: basic, ..settings.clone() };
    assert!(!Engine::load(&one, &basic).unwrap().report().saved_graph);
    let (_b, other) = bundle("mean_open", |_| {});
    assert!(!Engine::load(&other, &settings).unwrap().report().saved_graph);
    assert_eq!(files(cache.path()).len(), 6);
    // The same model under another manifest is the same model.
    let (_c, same) = bundle("mean_f32", |manifest| manifest.description = "another".into());
    assert!(Engine::load(&same, &settings).unwrap().report().saved_graph);
    // Nothing is kept where nothing may be.
    let off = Tuning { optimization: Some(Optimization::Disabled), ..Tuning::default() };
    let off = RuntimeSettings { tuning: off, ..settings };
    Engine::load(&one, &off).unwrap();
    Engine::load(&one, &off).unwrap();
    assert_eq!(files(cache.path()).len(), 6);
}

#[test]
fn a_cache_that_cannot_be_written_stops_no_model() {
    let (_dir, bundle) = bundle("mean_f32", |_| {});
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(!Engine::load(&bundle, &keeping(file.path())).unwrap().report().saved_graph);
}

#[test]
fn every_setting_of_the_processor_runs_and_answers_the_same() {
    let (_dir, bundle) = bundle("mean_f32", |_| {});
    let plain = answer(&mut Engine::load(&bundle, &settings()).unwrap());
    let cpu = |cpu| Tuning { cpu, ..Tuning::default() };
    for tuning in [
        cpu(CpuTuning { arena: Some(false), ..CpuTuning::default() }),
        Tuning { optimization: Some(Optimization::Disabled), ..Tuning::default() },
        Tuning { optimization: Some(Optimization::Extended), ..Tuning::default() },
        Tuning { memory_pattern: Some(false), inter_threads: Some(2), ..Tuning::default() },
        // Last: from here on the process has a limit.
        cpu(CpuTuning { arena_limit: Some(64 << 20), ..CpuTuning::default() }),
    ] {
        let mut engine = Engine::load(&bundle, &tuned(tuning.clone())).unwrap();
        assert_eq!(answer(&mut engine), plain, "{tuning:?}");
    }
    let other = cpu(CpuTuning { arena_limit: Some(32 << 20), ..CpuTuning::default() });
    let reason = Engine::load(&bundle, &tuned(other)).err().unwrap();
    assert!(reason.detail.contains("another limit already"), "{reason}");
}

#[test]
fn a_model_that_needs_more_than_its_arena_fails_with_the_limit_named() {
    let (_dir, bundle) = bundle("mean_f32", |manifest| {
        manifest.inputs[0].shape = vec![1, 3, 8, 8];
        // By the bundle's own hint.
        manifest.runtime.cpu.arena_limit = Some(16);
    });
    let reason = Engine::load(&bundle, &settings()).err().expect("16 bytes are too few");
    assert_eq!(reason.code, ReasonCode::LoadFailed);
    println!("{reason}");
    assert!(reason.detail.contains("memory"), "{reason}");
}

#[test]
fn a_provider_that_the_library_lacks_is_told() {
    let (_dir, bundle) = bundle("mean_f32", |_| {});
    for provider in [Provider::OpenVino, Provider::Xnnpack] {
        let wanted = RuntimeSettings { providers: vec![provider], ..settings() };
        let engine = Engine::load(&bundle, &wanted).unwrap();
        match &engine.report().fallback {
            Some(why) => assert!(why.starts_with(provider.as_str()), "{why}"),
            None => println!("this library has {}", provider.as_str()),
        }
    }
    let tuning = Tuning {
        cpu: CpuTuning { arena: Some(false), arena_limit: Some(1), ..CpuTuning::default() },
        ..Tuning::default()
    };
    let reason = Engine::load(&bundle, &tuned(tuning)).err().unwrap();
    assert!(reason.detail.contains("runtime.cpu.arena_limit"), "{reason}");
}

#[test]
fn a_mended_model_gives_the_same_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old.onnx"), dir.path().join("new.onnx"));
    std::fs::write(&old, conv_norm()).unwrap();
    let fixed = vec![Fixed { name: "x".into(), shape: vec![1, 3, 4, 5] }];
    let edited = mend(&conv_norm(), &Wishes { fixed: fixed.clone(), ..Wishes::default() }).unwrap();
    std::fs::write(&new, &edited.bytes).unwrap();
    let mut before = Bare::load(&old, &settings()).unwrap();
    let mut after = Bare::load(&new, &settings()).unwrap();
    assert_eq!(after.ports().outputs[0].shape, [1, 2, 4, 5]);
    let shapes = shapes(before.ports(), &fixed);
    let mut seen = Difference::default();
    for seed in 0..5 {
        let inputs = noise(before.ports(), &shapes, Range::default(), seed);
        seen.see(&before.run(&inputs).unwrap().0, &after.run(&inputs).unwrap().0);
    }
    assert!(seen.relative < 1e-6, "{seen:?}");
    // And the comparison is able to see another model.
    let mut other = Difference::default();
    let inputs = noise(before.ports(), &shapes, Range::default(), 1);
    let mut wrong = after.run(&inputs).unwrap().0;
    wrong[0].values[3] += 0.01;
    other.see(&before.run(&inputs).unwrap().0, &wrong);
    assert!(other.relative > 1e-4, "{other:?}");
}

#[test]
fn a_start_from_the_saved_graph_is_measured() {
    let file =
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data/ultraface/version-RFB-320.onnx"));
    if !file.is_file() {
        return println!("skipped: no {}", file.display());
    }
    let dir = tempfile::tempdir().unwrap();
    let seen = super::inspect::inspect(file, &settings()).unwrap();
    let guess = seen.input.decode(&seen.samples);
    let header = bundle::onnx::header(file).unwrap();
    let name = bundle::draft::name_of("faces");
    let manifest = bundle::draft::manifest(name, "model.onnx", seen.input, &guess, &header);
    let bytes = mend(&std::fs::read(file).unwrap(), &Wishes::default()).unwrap().bytes;
    std::fs::write(dir.path().join("model.onnx"), bytes).unwrap();
    bundle::write_manifest(dir.path(), &manifest).unwrap();
    bundle::seal(dir.path()).unwrap();
    let bundle: OpenBundle = bundle::open(dir.path(), None).unwrap();
    let cache = tempfile::tempdir().unwrap();
    let mut off = settings();
    off.tuning.save_optimized = Some(false);
    let median = |settings: &RuntimeSettings, saved: bool| {
        let mut times: Vec<_> = (0..9)
            .map(|_| {
                let report = Engine::load(&bundle, settings).unwrap().report().clone();
                assert_eq!(report.saved_graph, saved);
                report.load_ms
            })
            .collect();
        times.sort_by(f32::total_cmp);
        times[4]
    };
    let cold = median(&off, false);
    Engine::load(&bundle, &keeping(cache.path())).unwrap();
    let warm = median(&keeping(cache.path()), true);
    println!(
        "load {cold:.1} ms from the bundle, {warm:.1} ms from the saved graph: {:.2} of it",
        warm / cold
    );
}
