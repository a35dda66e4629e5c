//! `edgewarden predict`: a bundle's answers on pictures and films, one JSON line for each picture or frame.
//!
//! Several engines work at once, each with a thread of its own; the answers come out in the order of the
//! pictures whatever the order in which they are ready.

mod batch;
mod csv;
mod film;
mod pictures;

use super::exit::{Interrupted, Own, Told};
use super::runtime::RuntimeArgs;
use crate::bundle;
use crate::domain::manifest::Provider;
use crate::domain::{Reason, ReasonCode};
use batch::{About, Answer, Batch, Input};
use film::{Facts, Thin};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Pictures from which a progress bar, and more than one engine, is worth its place.
const MANY: usize = 5;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The bundle: its folder or a `.bundle` file
    bundle: PathBuf,
    /// Pictures (JPEG, PNG, WebP, BMP or PNM; turned as their Exif data asks for), folders of pictures, or
    /// patterns such as 'day/*.jpg'; films (MP4, MKV, AVI, MOV, WebM, Y4M and others, read by ffmpeg or
    /// GStreamer). For a model that takes a series: CSV or NumPy (.npy) files, one window each
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Of films only each Nth frame, from the first on
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "fps")]
    every: Option<u64>,
    /// Of films so many frames for each second of film
    #[arg(long, value_name = "F", value_parser = fps)]
    fps: Option<f32>,
    /// Also write the pictures, with the boxes on them, into this folder; the frames of a film into a
    /// folder of its name in there, numbered
    #[arg(long, value_name = "DIR")]
    draw: Option<PathBuf>,
    /// Also write the answers into this file, one line for each box, class, value, anomaly or raw output
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Engines that work at once [default: all cores for many pictures, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
    /// Print JSON lines; this is what it does in any case
    #[arg(long, hide = true)]
    json: bool,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let place = Place::of(&args.bundle)?;
    let mut bundle = match &place {
        Place::Folder(dir) => bundle::open(dir, None).map_err(Own)?,
        Place::Unpacked(dir) => bundle::open(dir.path(), None)?,
    };
    bundle.unlock(&args.runtime.model_key)?;
    let images = pictures::all(&args.images)?;
    let thin = args.fps.map_or(Thin::Every(args.every.unwrap_or(1)), Thin::Fps);
    let films = bundle.manifest.series.is_none();
    let facts = |path: &Path| (films && film::is_film(path)).then(|| Facts::of(path));
    let inputs: Vec<Input> =
        images.iter().map(|path| Input { path: path.clone(), film: facts(path) }).collect();
    let mut settings = args.runtime.settings()?;
    let jobs = jobs(&args, &inputs);
    if jobs > 1 {
        // The cores are taken by the engines.
        settings.intra_threads = settings.intra_threads.or(Some(1));
    }
    let drawings = args.draw.as_deref().map(|dir| pictures::drawings(dir, &images)).transpose()?;
    let mut table = args.csv.as_deref().map(csv::Table::create).transpose()?;
    let bar = progress(&inputs, thin);
    let (mut bad, mut seen) = (0_usize, 0_usize);
    let stop = stop_on_ctrl_c()?;
    let batch = Batch {
        bundle: &bundle,
        settings: &settings,
        inputs: &inputs,
        thin,
        drawings: drawings.as_deref(),
        stop: &stop,
    };
    let ended = batch.run(jobs, |about: About<'_>, answer: anyhow::Result<Answer>| {
        seen += 1;
        let mut told = Ok(());
        bar.suspend(|| match &answer {
            Ok(answer) => {
                told = writeln!(std::io::stdout(), "{}", answer.line);
            }
            Err(error) => {
                bad += 1;
                anstream::eprintln!("edgewarden: {}", super::exit::line(error));
            }
        });
        bar.inc(1);
        if let (Some(table), Ok(answer)) = (&mut table, &answer) {
            table.add(about, &answer.output)?;
        }
        Ok(told?)
    });
    bar.finish_and_clear();
    match ended {
        // A reader that went away (`| head`) is no failure.
        Err(error) if is_broken_pipe(&error) => return Ok(()),
        ended => ended?,
    }
    if let Some(table) = table {
        table.finish()?;
    }
    if stop.load(Ordering::Relaxed) {
        return Err(Interrupted.into());
    }
    if bad > 0 {
        if seen >= MANY {
            anstream::eprintln!("edgewarden: {bad} of {seen} pictures got no answer");
        }
        return Err(Told.into());
    }
    Ok(())
}

fn fps(text: &str) -> Result<f32, String> {
    let good = text.parse().ok().filter(|fps: &f32| (0.01..=240.0).contains(fps));
    good.ok_or_else(|| "use a number from 0.01 to 240".to_owned())
}

/// Set by Ctrl-C: what is under way is finished, files are closed. A second one ends at once; a film's
/// program ends with this process.
fn stop_on_ctrl_c() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let set = stop.clone();
    std::thread::Builder::new().name("ctrl-c".to_owned()).spawn(move || {
        runtime.block_on(async {
            while tokio::signal::ctrl_c().await.is_ok() {
                if set.swap(true, Ordering::Relaxed) {
                    let _ = rustix::process::kill_process(
                        rustix::process::getpid(),
                        rustix::process::Signal::TERM,
                    );
                }
            }
        });
    })?;
    Ok(stop)
}

/// One engine for few pictures, since each has to be loaded; and for a GPU, which they would share.
fn jobs(args: &Args, inputs: &[Input]) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let of_threads = cores / args.runtime.threads.map_or(1, usize::from);
    let processor = args.runtime.providers.iter().all(|provider| *provider == Provider::Cpu);
    let many = inputs.iter().any(|input| input.film.is_some()) || inputs.len() >= MANY;
    let default = if many && processor { of_threads } else { 1 };
    let most = if many { usize::from(u16::MAX) } else { inputs.len().max(1) };
    args.jobs.map_or(default, usize::from).clamp(1, most)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn progress(inputs: &[Input], thin: Thin) -> ProgressBar {
    let count = |input: &Input| input.film.as_ref().map_or(Some(1), |facts| facts.wanted(thin));
    let total: Option<u64> = inputs.iter().map(count).sum();
    // Lines that go to the terminal tell the progress themselves.
    let few = total.is_some_and(|total| total < MANY as u64);
    if few || !std::io::stderr().is_terminal() || std::io::stdout().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, style) = match total {
        Some(total) => (
            ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()),
            ProgressStyle::with_template("{bar:30} {pos}/{len} pictures, {per_sec}, {eta} left"),
        ),
        None => (
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()),
            ProgressStyle::with_template("{spinner} {pos} pictures, {per_sec}, {elapsed}"),
        ),
    };
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Where a bundle that a user named can be read: its folder, or one that its file was unpacked into.
#[derive(Debug)]
pub enum Place {
    /// The folder itself.
    Folder(PathBuf),
    /// Unpacked; gone when this is dropped.
    Unpacked(tempfile::TempDir),
}

impl Place {
    /// Finds out whether `path` is a folder or a `.bundle` file, and unpacks the latter. What is unpacked
    /// is checked against its own manifest, not against a signature: it is run once, for its owner.
    ///
    /// # Errors
    /// `NotFound` when there is nothing, and as unpacking.
    pub fn of(path: &Path) -> Result<Self, Reason> {
        let fault = |error: std::io::Error| {
            let remedy = "name a bundle's folder or a .bundle file";
            Reason::new(ReasonCode::NotFound, format!("bundle {}: {error}; {remedy}", path.display()))
        };
        let meta = std::fs::metadata(path).map_err(fault)?;
        if meta.is_dir() {
            return Ok(Place::Folder(path.to_owned()));
        }
        if !std::fs::File::open(path).and_then(|file| bundle::archive::is_tar(&file)).map_err(fault)? {
            let detail = format!(
                "{}: neither a bundle's folder nor a .bundle file; `edgewarden bundle init` makes a bundle of an ONNX file",
                path.display()
            );
            return Err(Reason::new(ReasonCode::BadRequest, detail));
        }
        let into = tempfile::Builder::new().prefix("edgewarden-bundle").tempdir().map_err(|error| {
            Reason::new(ReasonCode::Internal, format!("make a folder to unpack into: {error}"))
        })?;
        bundle::archive::extract(path, into.path())?;
        Ok(Place::Unpacked(into))
    }
}
