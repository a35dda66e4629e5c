//! Time per frame, by stage, beside the bare run of the model: `packaging/bench.sh` runs it.
//!
//! `cargo bench --bench frame -- BUNDLE PICTURE [FRAMES [THREADS]]` prints one JSON object with medians in
//! milliseconds and the peak memory in bytes. The bare runs are taken in turn with the frames, so that a
//! machine that slows down slows both. Last come bare runs and whole frames at ten a second, for the processor
//! time that one takes when the machine sleeps in between.

use edgewarden::bundle;
use edgewarden::domain::StageTimes;
use edgewarden::domain::manifest::Provider;
use edgewarden::domain::runtime::{RuntimeSettings, Tuning};
use edgewarden::inference::Engine;
use edgewarden::inference::library::find_library;
use edgewarden::inference::picture::Picture;
use std::path::Path;
use std::time::Duration;

/// Frames before anything is counted.
const WARM_UP: usize = 20;
/// Bare runs at a pace, and the time between two.
const PACED: u32 = 20;
const PACE: Duration = Duration::from_millis(100);

fn main() -> anyhow::Result<()> {
    // Cargo adds `--bench`.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let [bundle, picture, rest @ ..] = &args[..] else {
        eprintln!("usage: frame BUNDLE PICTURE [FRAMES [THREADS]]; packaging/bench.sh fills them in");
        return Ok(());
    };
    let frames = rest.first().map_or(Ok(300), |text| text.parse())?;
    let threads = rest.get(1).map_or(Ok(1), |text| text.parse())?;
    let bundle = bundle::open(Path::new(bundle), None)?;
    let picture = Picture::read(Path::new(picture))?;
    let settings = RuntimeSettings {
        library: find_library(None)?,
        providers: vec![Provider::Cpu],
        required: true,
        intra_threads: Some(threads),
        engine_cache: std::env::temp_dir(),
        tuning: Tuning { save_optimized: Some(false), ..Tuning::default() },
    };
    let mut engine = Engine::load(&bundle, &settings)?;
    let (mut stages, mut bare, mut found) = (Vec::new(), Vec::new(), 0);
    for at in 0..WARM_UP + frames {
        let (output, times) = engine.run(picture.view())?;
        let alone = engine.run_bare()?;
        found = output.detections.len();
        if at >= WARM_UP {
            stages.push(times);
            bare.push(alone);
        }
    }
    let bare_paced = paced(|| engine.run_bare().map(drop))?;
    let frame_paced = paced(|| engine.run(picture.view()).map(drop))?;
    let of = |part: fn(&StageTimes) -> f32| median(stages.iter().map(part).collect());
    let result = serde_json::json!({
        "frames": frames,
        "threads": threads,
        "found": found,
        "decode": of(|t| t.decode),
        "preprocess": of(|t| t.preprocess),
        "infer": of(|t| t.infer),
        "postprocess": of(|t| t.postprocess),
        "total": of(StageTimes::total),
        "bare_run": median(bare),
        "paced_cpu_ms": bare_paced,
        "paced_frame_cpu_ms": frame_paced,
        "peak_bytes": procfs::process::Process::myself()?.status()?.vmhwm.unwrap_or(0) * 1024,
        "runtime": engine.report().runtime_version,
    });
    println!("{result}");
    Ok(())
}

/// Milliseconds of processor time that one takes, with the machine asleep in between.
fn paced(mut one: impl FnMut() -> Result<(), edgewarden::domain::Reason>) -> anyhow::Result<f64> {
    let start = processor_time()?;
    for _ in 0..PACED {
        std::thread::sleep(PACE);
        one()?;
    }
    Ok((processor_time()? - start).as_secs_f64() * 1e3 / f64::from(PACED))
}

/// Of this process and all its threads.
fn processor_time() -> anyhow::Result<Duration> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Ok(Duration::new(u64::try_from(now.tv_sec)?, u32::try_from(now.tv_nsec)?))
}

fn median(mut values: Vec<f32>) -> f32 {
    values.sort_by(f32::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f32::NAN)
}
