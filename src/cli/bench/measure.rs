//! One setting, measured: asked for from outside, in a process of its own, and done there.

use super::{Measured, Setting};
use crate::bundle::OpenBundle;
use crate::cli::apart::ended_within;
use crate::domain::manifest::Provider;
use crate::domain::runtime::{RuntimeSettings, Tuning};
use crate::domain::{Reason, ReasonCode, StageTimes};
use crate::inference::Engine;
use crate::inference::picture::Picture;
use anyhow::Context;
use rustix::process::{Signal, set_parent_process_death_signal};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than any load; TensorRT builds an engine in it.
const PATIENCE: Duration = Duration::from_secs(1200);
/// Frames before anything counts.
const WARM_UP: usize = 5;
/// Frames that are measured at least and at most, whatever the time.
const FRAMES: (usize, usize) = (3, 100_000);

/// Measures a setting in a process of its own; what it took, or how it ended.
pub fn apart(
    bundle: &Path,
    picture: &Path,
    library: &Path,
    model_keys: &[PathBuf],
    setting: &Setting,
    time: Duration,
) -> Result<Measured, String> {
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let asked = serde_json::to_string(setting).map_err(|error| error.to_string())?;
    let mut child = Command::new(program)
        .arg("bench")
        .arg(bundle)
        .args(["--seconds", &time.as_secs_f64().to_string(), "--measure", &asked])
        .arg("--input")
        .arg(picture)
        .arg("--runtime")
        .arg(library)
        .args(model_keys.iter().flat_map(|file| [Path::new("--model-key"), file.as_path()]))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start a process: {error}"))?;
    // Read beside the waiting, so that a child that talks much is not held up by a full pipe.
    let told = child.stderr.take().map(|pipe| std::thread::spawn(move || text(pipe)));
    let answer = child.stdout.take().map(|pipe| std::thread::spawn(move || text(pipe)));
    let status = match ended_within(&mut child, PATIENCE + time * 2) {
        Ok(Some(status)) => status,
        Ok(None) => return Err("hangs; its process was ended".into()),
        Err(error) => return Err(format!("wait for its process: {error}")),
    };
    let read = |thread: Option<std::thread::JoinHandle<String>>| {
        thread.and_then(|thread| thread.join().ok()).unwrap_or_default()
    };
    let (answer, told) = (read(answer), read(told));
    serde_json::from_slice(answer.as_bytes()).map_err(|_| {
        let told = told.lines().rev().find_map(|line| line.strip_prefix("edgewarden: "));
        told.map_or_else(|| format!("its process crashed ({status})"), str::to_owned)
    })
}

/// The first part of what a pipe gives; the rest is taken and dropped.
fn text(pipe: impl Read) -> String {
    let mut pipe = pipe;
    let mut text = Vec::new();
    let _ = (&mut pipe).take(1 << 20).read_to_end(&mut text);
    let _ = std::io::copy(&mut pipe, &mut std::io::sink());
    String::from_utf8_lossy(&text).into_owned()
}

/// Measures a setting in this process.
///
/// # Errors
/// As loading and running.
pub fn here(
    bundle: &OpenBundle,
    picture: &Path,
    library: &Path,
    setting: &Setting,
    time: Duration,
) -> anyhow::Result<Measured> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let picture = Picture::read(picture)?;
    let cache = tempfile::tempdir().context("make a folder for engines")?;
    let mut tuning = Tuning { save_optimized: Some(false), ..Tuning::default() };
    let threads = u32::try_from(setting.threads).ok();
    (tuning.openvino.threads, tuning.xnnpack.threads) = (threads, threads);
    let own = matches!(setting.provider, Provider::OpenVino | Provider::Xnnpack);
    let mut settings = RuntimeSettings {
        library: library.to_owned(),
        providers: vec![setting.provider],
        required: true,
        // Beside a provider with threads of its own more would only be in the way.
        intra_threads: Some(if own { 1 } else { setting.threads }),
        engine_cache: cache.path().to_owned(),
        tuning,
    };
    let mut engine = Engine::load(bundle, &settings)?;
    let (mut stages, mut bare) = (Vec::new(), Vec::new());
    let mut spent = Duration::ZERO;
    let start = Instant::now();
    for at in 0.. {
        let before = Instant::now();
        let (_, times) = engine.run(picture.view())?;
        let took = before.elapsed();
        // In turn with the frames, so that a machine that slows down slows both.
        let alone = engine.run_bare()?;
        if at < WARM_UP && start.elapsed() < time {
            continue;
        }
        spent += took;
        stages.push(times);
        bare.push(alone);
        if stages.len() >= FRAMES.1 || (stages.len() >= FRAMES.0 && start.elapsed() >= time) {
            break;
        }
    }
    let of = |part: fn(&StageTimes) -> f32| median(stages.iter().map(part).collect());
    let peak = procfs::process::Process::myself().and_then(|me| me.status()).ok().and_then(|s| s.vmhwm);
    let report = engine.report().clone();
    // Only now: what loads a second time would add to the peak.
    drop(engine);
    settings.tuning.save_optimized = Some(true);
    let saved = [(); 2].map(|()| Engine::load(bundle, &settings).map(|engine| engine.report().clone()));
    let saved = saved.into_iter().flatten().last().filter(|report| report.saved_graph);
    Ok(Measured {
        frames: stages.len(),
        stages: StageTimes {
            decode: of(|t| t.decode),
            preprocess: of(|t| t.preprocess),
            infer: of(|t| t.infer),
            postprocess: of(|t| t.postprocess),
        },
        bare_ms: median(bare),
        frames_per_second: stages.len() as f64 / spent.as_secs_f64(),
        peak_bytes: peak.map(|kib| kib * 1024).ok_or_else(|| {
            Reason::new(ReasonCode::Internal, "the kernel does not tell the peak of memory")
        })?,
        load_ms: report.load_ms,
        saved_load_ms: saved.map(|report| report.load_ms),
        shares: report.shares,
        runtime: report.runtime_version,
    })
}

fn median(mut values: Vec<f32>) -> f32 {
    values.sort_by(f32::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
