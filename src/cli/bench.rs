//! `edgewarden bench`: what a bundle takes on this machine, by provider and number of threads, and the
//! setting that is best.
//!
//! Each setting is measured in a process of its own: its peak of memory is its own, and a provider that
//! crashes or hangs is one line of the table.

mod measure;

use super::exit::{Own, Usage};
use super::predict::Place;
use super::ui::{self, Steps, say};
use crate::bundle;
use crate::domain::StageTimes;
use crate::domain::manifest::Provider;
use crate::domain::runtime::ProviderShare;
use crate::inference::library::find_library;
use crate::telemetry::board::Board;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// A slower setting with fewer threads is preferred while it is no slower than this.
const CLOSE: f64 = 0.95;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The bundle: its folder or a `.bundle` file
    bundle: PathBuf,
    /// The picture [default: the bundle's first golden input]
    #[arg(long, value_name = "PICTURE")]
    input: Option<PathBuf>,
    /// Seconds for each setting
    #[arg(long, value_name = "N", default_value_t = 3.0, value_parser = seconds)]
    seconds: f64,
    /// Execution providers to measure [default: all that can be asked for]
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = super::runtime::provider)]
    providers: Vec<Provider>,
    /// Numbers of threads to measure [default: 1 to all cores]
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Vec<u16>,
    /// ONNX Runtime library [default: the installed one, or the one of this clone]
    #[arg(long, value_name = "LIB", env = "EDGEWARDEN_ONNXRUNTIME")]
    runtime: Option<PathBuf>,
    /// File with the key that opens an encrypted model; may be given several times
    #[arg(long, value_name = "FILE")]
    model_key: Vec<PathBuf>,
    /// Print the table as JSON
    #[arg(long)]
    json: bool,
    /// One setting, as this program asks itself for it
    #[arg(long, hide = true)]
    measure: Option<String>,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "write a number of seconds".to_owned())?;
    if (0.05..=600.0).contains(&seconds) { Ok(seconds) } else { Err("use 0.05 to 600".into()) }
}

/// One setting to measure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Setting {
    provider: Provider,
    threads: usize,
}

/// What one setting took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Measured {
    /// Frames that were measured.
    frames: usize,
    /// Medians in milliseconds.
    stages: StageTimes,
    /// The median of the bare run of the model, milliseconds.
    bare_ms: f32,
    /// One frame after the other, all stages.
    frames_per_second: f64,
    /// Peak of resident memory of its process, bytes.
    peak_bytes: u64,
    /// Milliseconds from the bundle to ready, the first run included.
    load_ms: f32,
    /// The same from the saved graph; absent where none is saved.
    saved_load_ms: Option<f32>,
    /// How much each provider ran.
    shares: Vec<ProviderShare>,
    /// Version of ONNX Runtime.
    runtime: String,
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Row {
    #[serde(flatten)]
    setting: Setting,
    /// What it took, or why it did not run.
    #[serde(flatten)]
    outcome: Outcome,
    /// The warmest of the board's sensors before and after, °C.
    celsius: [Option<f64>; 2],
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Measured(Measured),
    Fault(String),
}

impl Row {
    fn measured(&self) -> Option<&Measured> {
        match &self.outcome {
            Outcome::Measured(measured) => Some(measured),
            Outcome::Fault(_) => None,
        }
    }
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let place = Place::of(&args.bundle)?;
    let dir = match &place {
        Place::Folder(dir) => dir.clone(),
        Place::Unpacked(dir) => dir.path().to_owned(),
    };
    let library = find_library(args.runtime.as_deref())?;
    let mut opened = bundle::open(&dir, None).map_err(Own)?;
    opened.unlock(&args.model_key)?;
    let picture = match (&args.input, opened.manifest.golden.first()) {
        (Some(picture), _) => picture.clone(),
        (None, Some(sample)) => opened.file(&sample.input),
        (None, None) => {
            return Err(Usage("the bundle has no golden input; name a picture with --input".into()).into());
        }
    };
    let time = Duration::from_secs_f64(args.seconds);
    if let Some(setting) = &args.measure {
        let setting: Setting = serde_json::from_slice(setting.as_bytes()).context("read --measure")?;
        return ui::print_json(&measure::here(&opened, &picture, &library, &setting, time)?);
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let settings = settings(&args.providers, &args.threads, cores);
    let board = Board::new("/", &dir);
    let warmest = || board.read().temperature_celsius.into_values().max_by(f64::total_cmp);
    let mut steps = Steps::new();
    let mut rows: Vec<Row> = Vec::new();
    for (at, setting) in settings.iter().enumerate() {
        // Where a provider does not run with one thread, it does not with two.
        let failed =
            rows.iter().any(|row| row.setting.provider == setting.provider && row.measured().is_none());
        if failed {
            continue;
        }
        let name = format!("{}, {}", setting.provider.as_str(), ui::count(setting.threads, "thread"));
        steps.step(&name, Some(at as f32 / settings.len() as f32));
        let before = warmest();
        let outcome = match measure::apart(&dir, &picture, &library, &args.model_key, setting, time) {
            Ok(measured) => Outcome::Measured(measured),
            Err(fault) => Outcome::Fault(fault),
        };
        rows.push(Row { setting: setting.clone(), outcome, celsius: [before, warmest()] });
    }
    steps.end();
    let best = best(&rows).map(|row| lines(&row.setting));
    if args.json {
        ui::print_json(&serde_json::json!({
            "release": opened.manifest.release(), "picture": picture, "settings": rows, "best": best,
        }))?;
    } else {
        tell(&rows, best.as_deref())?;
    }
    anyhow::ensure!(best.is_some(), "no setting could be measured");
    Ok(())
}

/// The settings to measure: for a provider with threads of its own every number, for the others one.
fn settings(providers: &[Provider], threads: &[u16], cores: usize) -> Vec<Setting> {
    let providers = if providers.is_empty() { &Provider::ALL[..] } else { providers };
    let mut counts: Vec<usize> = threads.iter().map(|threads| usize::from(*threads)).collect();
    if counts.is_empty() {
        // Beyond eight only powers of two, and all cores.
        counts = (1..=cores).filter(|n| *n <= 8 || n.is_power_of_two() || *n == cores).collect();
    }
    let of = |provider: &Provider| {
        let counts = match provider {
            Provider::Cpu | Provider::Xnnpack | Provider::OpenVino => &counts[..],
            Provider::TensorRt | Provider::Cuda => &counts[..1],
        };
        counts.iter().map(|&threads| Setting { provider: *provider, threads }).collect::<Vec<_>>()
    };
    providers.iter().flat_map(of).collect()
}

/// The setting with the most frames a second; fewer threads where that costs next to nothing.
fn best(rows: &[Row]) -> Option<&Row> {
    let rate = |row: &Row| row.measured().map_or(0.0, |measured| measured.frames_per_second);
    let most = rows.iter().map(rate).fold(0.0, f64::max);
    rows.iter()
        .filter(|row| row.measured().is_some() && rate(row) >= most * CLOSE)
        .min_by(|a, b| a.setting.threads.cmp(&b.setting.threads).then(rate(b).total_cmp(&rate(a))))
}

/// A setting as it stands in `agent.toml`.
fn lines(setting: &Setting) -> String {
    let provider = setting.provider.as_str();
    let threads = setting.threads;
    let (order, table) = match setting.provider {
        Provider::Cpu => ("\"cpu\"".to_owned(), format!("intra_threads = {threads}\n")),
        Provider::TensorRt => ("\"tensorrt\", \"cuda\", \"cpu\"".to_owned(), String::new()),
        Provider::Cuda => ("\"cuda\", \"cpu\"".to_owned(), String::new()),
        Provider::OpenVino | Provider::Xnnpack => (
            format!("\"{provider}\", \"cpu\""),
            format!("intra_threads = 1\n\n[runtime.{provider}]\nthreads = {threads}\n"),
        ),
    };
    format!("[runtime]\nproviders = [{order}]\n{table}")
}

fn tell(rows: &[Row], best: Option<&str>) -> anyhow::Result<()> {
    let mut table = ui::table(&[
        "PROVIDER", "THREADS", "DECODE", "PREPARE", "INFER", "POST", "BARE RUN", "FRAMES/S", "MEMORY",
        "LOAD", "SAVED", "°C",
    ]);
    for row in rows {
        let Some(measured) = row.measured() else { continue };
        let ms = |ms: f32| format!("{ms:.2}");
        let degrees = |at: usize| row.celsius[at].map_or_else(|| "-".to_owned(), |c| format!("{c:.0}"));
        let main = measured.shares.first().filter(|_| measured.shares.len() > 1);
        let share = main.map(|share| format!(" {:.0} %", share.time * 100.0)).unwrap_or_default();
        table.add_row([
            format!("{}{share}", row.setting.provider.as_str()),
            row.setting.threads.to_string(),
            ms(measured.stages.decode),
            ms(measured.stages.preprocess),
            ms(measured.stages.infer),
            ms(measured.stages.postprocess),
            ms(measured.bare_ms),
            format!("{:.1}", measured.frames_per_second),
            ui::size(measured.peak_bytes),
            format!("{:.0}", measured.load_ms),
            measured.saved_load_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0}")),
            format!("{} → {}", degrees(0), degrees(1)),
        ]);
    }
    ui::print(&ui::render(&table))?;
    say!("Medians in milliseconds; one frame after the other, as no camera is waited for.");
    for row in rows {
        if let Outcome::Fault(fault) = &row.outcome {
            say!("{}: {fault}", row.setting.provider.as_str());
        }
    }
    if let Some(best) = best {
        say!("\nBest here, for agent.toml:\n\n{}", best.trim_end());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(provider: Provider, threads: usize, rate: Option<f64>) -> Row {
        let outcome = match rate {
            Some(frames_per_second) => Outcome::Measured(Measured {
                frames: 1,
                stages: StageTimes::default(),
                bare_ms: 1.0,
                frames_per_second,
                peak_bytes: 0,
                load_ms: 1.0,
                saved_load_ms: None,
                shares: Vec::new(),
                runtime: String::new(),
            }),
            None => Outcome::Fault("no such provider".into()),
        };
        Row { setting: Setting { provider, threads }, outcome, celsius: [None; 2] }
    }

    #[test]
    fn the_best_is_the_fastest_with_no_thread_wasted() {
        let cpu = |threads, rate| row(Provider::Cpu, threads, Some(rate));
        let rows = [row(Provider::Cuda, 1, None), cpu(1, 50.0), cpu(2, 97.0), cpu(3, 99.0), cpu(4, 100.0)];
        assert_eq!(best(&rows).unwrap().setting.threads, 2);
        assert_eq!(best(&rows[..1]), None);
        assert_eq!(lines(&rows[2].setting), "[runtime]\nproviders = [\"cpu\"]\nintra_threads = 2\n");
    }

    #[test]
    fn what_is_to_be_pasted_is_a_valid_configuration() {
        for provider in Provider::ALL {
            let text = format!(
                "[[pipeline]]\nsource = {{ kind = \"synthetic\" }}\n{}",
                lines(&Setting { provider, threads: 3 })
            );
            let around = crate::config::Surroundings::default();
            let folder = std::path::Path::new("/etc/edgewarden");
            let settings = crate::config::from_text(&text, folder, &around).unwrap();
            assert_eq!(settings.runtime.providers[0], provider);
        }
    }

    #[test]
    fn threads_are_counted_up_to_all_cores() {
        let counts = |cores| {
            let all = settings(&[Provider::Cpu], &[], cores);
            all.into_iter().map(|setting| setting.threads).collect::<Vec<_>>()
        };
        assert_eq!(counts(4), [1, 2, 3, 4]);
        assert_eq!(counts(24), [1, 2, 3, 4, 5, 6, 7, 8, 16, 24]);
        assert_eq!(settings(&[Provider::Cuda], &[2, 4], 8).len(), 1);
        assert_eq!(settings(&[], &[1], 8).len(), Provider::ALL.len());
    }
}
