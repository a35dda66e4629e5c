//! `edgewarden demo`: the whole story on this machine, or the training pictures of its models.

use super::exit::{Told as AlreadyTold, Usage};
use super::ui;
use crate::demo::dataset::{self, Dataset};
use crate::demo::device::SIZE;
use crate::demo::models;
use crate::demo::report::{Narrator, Outcome, Report, Step, Told};
use crate::demo::story::{self, Options};
use crate::inference::library::find_library;
use crate::inference::source::scene::DENSITY;
use anstyle::{AnsiColor, Style};
use anyhow::{Context, bail};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use url::Url;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Leave everything in this folder to be looked at; it must be empty or not there
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// Seconds for which each model is measured
    #[arg(long, default_value_t = 4.0, value_name = "N")]
    pub seconds: f32,
    /// Look at the pictures (JPEG, PNG) of this folder instead of the built-in belt; accuracy is not measured then
    #[arg(long, value_name = "DIR")]
    pub frames: Option<PathBuf>,
    /// Print one JSON object at the end instead of the story
    #[arg(long)]
    pub json: bool,
    /// Seed of the belt that the built-in camera looks at
    #[arg(long, default_value_t = 7, value_name = "N")]
    pub seed: u64,
    /// Use this broker instead of starting mosquitto
    #[arg(long, value_name = "mqtt://HOST:PORT")]
    pub broker: Option<Url>,
    /// ONNX Runtime library [default: the installed one, or the one of this clone]
    #[arg(long, value_name = "LIB", env = "EDGEWARDEN_ONNXRUNTIME")]
    pub runtime: Option<PathBuf>,
    /// Folder with the demo's models [default: packaging/models of this clone, or the installed ones]
    #[arg(long, value_name = "DIR")]
    pub models: Option<PathBuf>,
    /// Write what the built-in camera sees (raw RGB in frames.rgb) with its truth (truth.jsonl) into this
    /// folder, and do nothing else
    #[arg(long, value_name = "DIR")]
    pub dataset: Option<PathBuf>,
    /// Pictures to write
    #[arg(long, default_value_t = 100, value_name = "N", requires = "dataset")]
    pub count: u64,
    /// Percent of the places on the belts that hold a part
    #[arg(long, default_value_t = DENSITY, value_name = "PERCENT", requires = "dataset",
          value_parser = clap::value_parser!(u32).range(0..=100))]
    pub density: u32,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    if let Some(folder) = &args.dataset {
        let (width, height) = SIZE;
        let set = Dataset { count: args.count, seed: args.seed, density: args.density, width, height };
        return dataset::write(folder, set);
    }
    if !(0.5..=600.0).contains(&args.seconds) {
        return Err(Usage(format!("--seconds {}: use 0.5 to 600", args.seconds)).into());
    }
    // Short paths: the local socket's may have about a hundred bytes.
    let scratch = tempfile::Builder::new().prefix("edgewarden-demo-").tempdir().context("make a folder")?;
    let folder = match &args.keep {
        Some(folder) => empty(folder)?,
        None => scratch.path().join("demo"),
    };
    let options = Options {
        program: std::env::current_exe().context("find this program's file")?,
        library: library(args.runtime.as_deref())?,
        models: models::find(args.models.as_deref())?,
        folder: folder.clone(),
        runtime: scratch.path().join("run"),
        broker: args.broker,
        seed: args.seed,
        watch: Duration::from_secs_f32(args.seconds),
        frames: args.frames.as_deref().map(pictures).transpose()?,
    };
    let mut report = tell(options, args.json)?;
    if args.keep.is_some() {
        report.folder = Some(folder);
    } else if !report.complete {
        // What went wrong can be looked at.
        report.folder = Some(scratch.keep().join("demo"));
    }
    if args.json {
        ui::print_json(&report)?;
    } else {
        ui::print(&table(&report))?;
    }
    if report.complete { Ok(()) } else { Err(AlreadyTold.into()) }
}

fn tell(options: Options, json: bool) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")?;
    let mut narrator = Teller { quiet: json, live: std::io::stdout().is_terminal() && !json, drawn: false };
    runtime.block_on(async {
        tokio::select! {
            report = story::tell(options, &mut narrator) => Ok(report),
            signal = tokio::signal::ctrl_c() => {
                signal.context("wait for Ctrl-C")?;
                // Dropping the story ends the broker and the daemon.
                bail!("interrupted; the broker and the daemon were ended")
            }
        }
    })
}

/// The runtime's library, absolute: the daemon is told of it by its configuration.
fn library(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let file = find_library(named)?;
    file.canonicalize().with_context(|| format!("ONNX Runtime's library {}", file.display()))
}

/// The user's folder for everything, absolute.
fn empty(folder: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(folder).with_context(|| format!("make the folder {}", folder.display()))?;
    let mut entries =
        std::fs::read_dir(folder).with_context(|| format!("read the folder {}", folder.display()))?;
    if entries.next().is_some() {
        return Err(Usage(format!("--keep {}: is not empty; name a new folder", folder.display())).into());
    }
    folder.canonicalize().with_context(|| format!("the folder {}", folder.display()))
}

/// The user's folder of pictures, absolute.
fn pictures(folder: &Path) -> anyhow::Result<PathBuf> {
    let absolute = folder.canonicalize().with_context(|| format!("--frames {}", folder.display()))?;
    if !absolute.is_dir() {
        return Err(Usage(format!("--frames {}: is no folder", folder.display())).into());
    }
    let is_picture = |path: &Path| {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        ["jpg", "jpeg", "png"].iter().any(|known| ending.eq_ignore_ascii_case(known))
    };
    let entries =
        std::fs::read_dir(&absolute).with_context(|| format!("read the folder {}", folder.display()))?;
    if !entries.flatten().any(|entry| is_picture(&entry.path())) {
        return Err(Usage(format!("--frames {}: holds no .jpg, .jpeg or .png", folder.display())).into());
    }
    Ok(absolute)
}

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// Prints the story while it happens.
struct Teller {
    quiet: bool,
    /// A terminal, where a line can be drawn over.
    live: bool,
    /// A live line stands there.
    drawn: bool,
}

impl Teller {
    fn line(&mut self, text: &str) {
        if self.quiet {
            return;
        }
        let wipe = if std::mem::take(&mut self.drawn) { "\r\x1b[2K" } else { "" };
        anstream::println!("{wipe}{text}");
    }
}

impl Narrator for Teller {
    fn begin(&mut self, step: Step) {
        let number = step as usize + 1;
        self.line(&format!("{BOLD}{number}. {}{BOLD:#}", step.title()));
    }

    fn note(&mut self, text: &str) {
        self.line(&format!("   {DIM}{text}{DIM:#}"));
    }

    fn live(&mut self, text: &str) {
        if self.live {
            // One line only, or it could not be wiped.
            let text: String = text.chars().take(100).collect();
            anstream::print!("\r\x1b[2K   {text}");
            let _ = std::io::stdout().flush();
            self.drawn = true;
        }
    }

    fn end(&mut self, told: &Told) {
        let (style, mark) = mark(told.outcome);
        self.line(&format!("   {style}{mark}{style:#} {}  {DIM}({:.1} s){DIM:#}", told.detail, told.seconds));
    }
}

fn mark(outcome: Outcome) -> (Style, &'static str) {
    match outcome {
        Outcome::Happened => (GOOD, "✓"),
        Outcome::Failed => (BAD, "✗"),
        Outcome::NotReached => (DIM, "–"),
    }
}

/// What happened, as a table and a sentence.
fn table(report: &Report) -> String {
    let mut text = String::from("\n");
    for told in &report.steps {
        let (style, mark) = mark(told.outcome);
        let title = told.step.title();
        text += &format!("  {style}{mark}{style:#} {title:<62} {DIM}{:>5.1} s{DIM:#}\n", told.seconds);
        if told.outcome == Outcome::Failed {
            text += &format!("      {}\n", told.detail);
        }
    }
    text += &format!(
        "\n  {BOLD}model                    F1   frames/s   capture to answer   model alone{BOLD:#}\n"
    );
    for served in &report.models {
        let m = &served.measured;
        let f1 = m.f1.map_or("–".to_owned(), |f1| format!("{f1:.2}"));
        text += &format!(
            "  {:<22} {f1:>4}   {:>8.1}   {:>14.1} ms   {:>8.1} ms\n",
            served.release, m.fps, m.latency_ms, m.stages_ms.infer
        );
    }
    let happened = report.steps.iter().filter(|told| told.outcome == Outcome::Happened).count();
    let style = if report.complete { GOOD } else { BAD };
    text += &format!("\n{style}{happened} of {} steps happened as told.{style:#}\n", report.steps.len());
    if let Some(folder) = &report.folder {
        text += &format!("Everything is in {}\n", folder.display());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(step: Step, outcome: Outcome) -> Told {
        Told { step, outcome, detail: "because".into(), seconds: 1.0 }
    }

    #[test]
    fn the_table_names_every_step_and_why_one_failed() {
        let mut report = Report::default();
        for step in Step::ALL {
            let outcome = if step == Step::Tampered { Outcome::Failed } else { Outcome::Happened };
            report.steps.push(told(step, outcome));
        }
        let text = table(&report);
        assert!(Step::ALL.iter().all(|step| text.contains(step.title())), "{text}");
        assert!(text.contains("because") && text.contains("7 of 8"), "{text}");
    }

    #[test]
    fn a_folder_that_holds_something_is_not_written_into() {
        let folder = tempfile::tempdir().unwrap();
        assert!(empty(folder.path()).is_ok());
        std::fs::write(folder.path().join("thesis.txt"), "mine").unwrap();
        let error = empty(folder.path()).unwrap_err();
        assert!(error.downcast_ref::<Usage>().is_some(), "{error}");
    }

    #[test]
    fn a_library_that_is_not_there_is_named() {
        let error = library(Some(Path::new("/nowhere/libonnxruntime.so"))).unwrap_err();
        assert!(format!("{error:#}").contains("/nowhere/libonnxruntime.so"));
    }
}
