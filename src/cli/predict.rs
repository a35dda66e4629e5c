//! `edgewarden predict`: a bundle's answers on pictures, one JSON line each.
//!
//! Several engines work at once, each with a thread of its own; the answers come out in the order of the
//! pictures whatever the order in which they are ready.

mod batch;
mod csv;
mod pictures;

use super::exit::{Own, Told};
use super::runtime::RuntimeArgs;
use crate::bundle;
use crate::domain::manifest::Provider;
use crate::domain::{Reason, ReasonCode};
use batch::{Answer, Batch};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

/// Pictures from which a progress bar, and more than one engine, is worth its place.
const MANY: usize = 5;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The bundle: its folder or a `.bundle` file
    bundle: PathBuf,
    /// Pictures (JPEG, PNG, WebP, BMP or PNM; turned as their Exif data asks for), folders of pictures, or
    /// patterns such as 'day/*.jpg'. For a model that takes a series: CSV files, one window each
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Also write the pictures, with the boxes on them, into this folder
    #[arg(long, value_name = "DIR")]
    draw: Option<PathBuf>,
    /// Also write the answers into this file, one line for each box, class or raw output
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
    let bundle = match &place {
        Place::Folder(dir) => bundle::open(dir, None).map_err(Own)?,
        Place::Unpacked(dir) => bundle::open(dir.path(), None)?,
    };
    let images = pictures::all(&args.images)?;
    let mut settings = args.runtime.settings()?;
    let jobs = jobs(&args, images.len());
    if jobs > 1 {
        // The cores are taken by the engines.
        settings.intra_threads = settings.intra_threads.or(Some(1));
    }
    let drawings = args.draw.as_deref().map(|dir| pictures::drawings(dir, &images)).transpose()?;
    let mut table = args.csv.as_deref().map(csv::Table::create).transpose()?;
    let bar = progress(images.len());
    let mut bad = 0_usize;
    let batch =
        Batch { bundle: &bundle, settings: &settings, images: &images, drawings: drawings.as_deref() };
    let ended = batch.run(jobs, |image, answer: anyhow::Result<Answer>| {
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
            table.add(image, &answer.output)?;
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
    if bad > 0 {
        if images.len() >= MANY {
            anstream::eprintln!("edgewarden: {bad} of {} pictures got no answer", images.len());
        }
        return Err(Told.into());
    }
    Ok(())
}

/// One engine for few pictures, since each has to be loaded; and for a GPU, which they would share.
fn jobs(args: &Args, images: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let of_threads = cores / args.runtime.threads.map_or(1, usize::from);
    let processor = args.runtime.providers.iter().all(|provider| *provider == Provider::Cpu);
    let default = if images < MANY || !processor { 1 } else { of_threads };
    args.jobs.map_or(default, usize::from).clamp(1, images.max(1))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn progress(total: usize) -> ProgressBar {
    // Lines that go to the terminal tell the progress themselves.
    if total < MANY || !std::io::stderr().is_terminal() || std::io::stdout().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} pictures, {per_sec}, {eta} left");
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
