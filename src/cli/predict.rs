//! `edgewarden predict`: a bundle's answers on pictures, one JSON line each.

use super::bundle::RuntimeArgs;
use super::exit::{Own, Told};
use crate::bundle;
use crate::domain::{Classification, Detection, Reason, ReasonCode, StageTimes, result::RawTensor};
use crate::inference::picture::{self, Picture};
use crate::inference::{Engine, draw};
use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

/// Pictures from which a progress bar is worth its place.
const MANY: usize = 5;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The bundle: its folder or a `.bundle` file
    bundle: PathBuf,
    /// Pictures: JPEG, PNG, WebP, BMP or PNM
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Also write the pictures, with the boxes on them, into this folder
    #[arg(long, value_name = "DIR")]
    draw: Option<PathBuf>,
    /// Print JSON lines; this is what it does in any case
    #[arg(long, hide = true)]
    json: bool,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

/// One line of the answer.
#[derive(Debug, Serialize)]
struct Line<'a> {
    image: String,
    detections: &'a [Detection],
    classes: &'a [Classification],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tensors: &'a [RawTensor],
    timing_ms: StageTimes,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let place = Place::of(&args.bundle)?;
    let bundle = match &place {
        Place::Folder(dir) => bundle::open(dir, None).map_err(Own)?,
        Place::Unpacked(dir) => bundle::open(dir.path(), None)?,
    };
    let mut engine = Engine::load(&bundle, &args.runtime.settings()?)?;
    if let Some(why) = &engine.report().fallback {
        anstream::eprintln!("edgewarden: runs on {}: {why}", engine.report().provider.as_str());
    }
    if let Some(dir) = &args.draw {
        std::fs::create_dir_all(dir).with_context(|| format!("make folder {}", dir.display()))?;
    }
    let bar = progress(args.images.len());
    let mut bad = 0;
    for image in &args.images {
        let answer = answer(&mut engine, image, args.draw.as_deref());
        let mut told = Ok(());
        bar.suspend(|| match &answer {
            Ok(line) => told = writeln!(std::io::stdout(), "{line}"),
            Err(error) => {
                bad += 1;
                anstream::eprintln!("edgewarden: {}", super::exit::line(error));
            }
        });
        if let Err(error) = told {
            // A reader that went away (`| head`) is no failure.
            return if error.kind() == std::io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error.into()) };
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    if bad > 0 {
        return Err(Told.into());
    }
    Ok(())
}

fn answer(engine: &mut Engine, image: &Path, draw_into: Option<&Path>) -> anyhow::Result<String> {
    let picture = Picture::read(image)?;
    let (output, timing_ms) = engine.run(picture.view()).map_err(|reason| picture::named(image, reason))?;
    if let Some(dir) = draw_into {
        let name = image.file_name().unwrap_or(image.as_os_str());
        let to = dir.join(name).with_extension("jpg");
        draw::write(&picture, &output.detections, &to)?;
    }
    let line = Line {
        image: image.to_string_lossy().into_owned(),
        detections: &output.detections,
        classes: &output.classes,
        tensors: &output.tensors,
        timing_ms,
    };
    Ok(serde_json::to_string(&line)?)
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
