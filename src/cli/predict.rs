//! `edgewarden predict`: a bundle's answers on pictures, one JSON line each.

use super::exit::{Own, Told};
use super::runtime::RuntimeArgs;
use crate::bundle;
use crate::domain::result::{Anomaly, RawTensor, Value};
use crate::domain::{Classification, Detection, Reason, ReasonCode, StageTimes};
use crate::inference::given::Given;
use crate::inference::{Engine, draw};
use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::collections::HashSet;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

/// Pictures from which a progress bar is worth its place.
const MANY: usize = 5;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The bundle: its folder or a `.bundle` file
    bundle: PathBuf,
    /// Pictures: JPEG, PNG, WebP, BMP or PNM; turned as their Exif data asks for. For a model that takes a
    /// series: CSV files, one window each
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
    values: &'a [Value],
    #[serde(skip_serializing_if = "Option::is_none")]
    anomaly: Option<&'a Anomaly>,
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
    let mut drawings = args.draw.as_deref().map(|dir| Drawings::into(dir, &args.images)).transpose()?;
    let bar = progress(args.images.len());
    let mut bad = 0;
    for image in &args.images {
        let answer = answer(&mut engine, image, drawings.as_mut());
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

fn answer(engine: &mut Engine, image: &Path, drawings: Option<&mut Drawings>) -> anyhow::Result<String> {
    let given = Given::read(engine.manifest(), image)?;
    let (output, timing_ms) = engine.run(given.view()).map_err(|reason| given.named(image, reason))?;
    if let (Some(drawings), Given::Picture(picture)) = (drawings, &given) {
        draw::write(picture, &output.detections, &drawings.place(image))?;
    }
    let line = Line {
        image: image.to_string_lossy().into_owned(),
        detections: &output.detections,
        classes: &output.classes,
        values: &output.values,
        anomaly: output.anomaly.as_ref(),
        tensors: &output.tensors,
        timing_ms,
    };
    Ok(serde_json::to_string(&line)?)
}

/// The folder of drawn pictures, and what must not be written over: drawings of this run, and the
/// pictures themselves.
struct Drawings {
    dir: PathBuf,
    taken: HashSet<PathBuf>,
}

impl Drawings {
    fn into(dir: &Path, images: &[PathBuf]) -> anyhow::Result<Self> {
        let fault = || format!("make folder {}", dir.display());
        std::fs::create_dir_all(dir).with_context(fault)?;
        let dir = dir.canonicalize().with_context(fault)?;
        // What cannot be found is no picture either.
        let taken = images.iter().filter_map(|image| image.canonicalize().ok()).collect();
        Ok(Self { dir, taken })
    }

    /// Where the drawing of a picture goes: under its name, with a number where that is taken.
    fn place(&mut self, image: &Path) -> PathBuf {
        let stem = image.file_stem().unwrap_or(image.as_os_str()).to_string_lossy();
        let mut to = self.dir.join(format!("{stem}.jpg"));
        let mut number = 2_usize;
        while !self.taken.insert(to.clone()) {
            to = self.dir.join(format!("{stem}-{number}.jpg"));
            number += 1;
        }
        to
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawings_never_take_the_place_of_another_or_of_a_picture() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let original = dir.join("b.jpg");
        std::fs::write(&original, "x").unwrap();
        let mut drawings = Drawings::into(&dir, std::slice::from_ref(&original)).unwrap();
        let mut place = |name: &str| drawings.place(Path::new(name)).file_name().unwrap().to_owned();
        assert_eq!(place("one/a.jpg"), "a.jpg");
        assert_eq!(place("two/a.png"), "a-2.jpg");
        assert_eq!(place("three/a.jpg"), "a-3.jpg");
        assert_eq!(place("b.jpg"), "b-2.jpg");
        assert_eq!(place("v1.2.png"), "v1.2.jpg");
    }
}
