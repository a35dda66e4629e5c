//! `edgewarden check`: tells what would run on this machine, and of what would not, the remedy.
//!
//! It changes nothing, needs no running agent, and disturbs none: it speaks to the broker under a name
//! of its own and loads the runtime's library in processes of its own, because a library may crash.

mod commands;
mod files;
mod keys;
mod machine;
mod reach;
mod runtime;
mod stream;

use super::exit::Told;
use super::ui::{self, Json};
use crate::config::{self, Settings};
use crate::domain::manifest::Provider;
use serde::Serialize;
use std::path::PathBuf;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration to check
    #[arg(long, short, value_name = "FILE", default_value = config::DEFAULT_PATH, env = "EDGEWARDEN_CONFIG")]
    config: PathBuf,
    #[command(flatten)]
    json: Json,
    /// Load this library, try this provider, answer in JSON (the check's own child process)
    #[arg(long, hide = true, num_args = 2, value_names = ["LIBRARY", "PROVIDER"])]
    probe: Option<Vec<String>>,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// It would run.
    Ok,
    /// It would run, but not as well as it should.
    Warn,
    /// It would not run.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) level: Level,
    /// What was looked at.
    pub(super) subject: String,
    /// What was seen, with the remedy where it is not good.
    pub(super) detail: String,
}

impl Finding {
    fn ok(subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { level: Level::Ok, subject: subject.into(), detail: detail.into() }
    }

    pub(super) fn warn(subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { level: Level::Warn, subject: subject.into(), detail: detail.into() }
    }

    fn fail(subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { level: Level::Fail, subject: subject.into(), detail: detail.into() }
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    /// True when nothing failed.
    ok: bool,
    findings: Vec<Finding>,
}

/// Runs the command. Exit status 1 when something would not run.
pub fn run(args: Args) -> anyhow::Result<()> {
    if let Some([library, provider]) = args.probe.as_deref() {
        return ui::print_json(&runtime::probe_here(library.as_ref(), provider));
    }
    let mut findings = Vec::new();
    let mut found = |finding: Finding| {
        if !args.json.json {
            // Each at once: the next one may take seconds.
            ui::print(&line(&finding))?;
        }
        findings.push(finding);
        anyhow::Ok(())
    };
    match config::load(&args.config) {
        Err(faults) => {
            faults.0.iter().try_for_each(|fault| found(Finding::fail("configuration", fault.to_string())))?
        }
        Ok(settings) => {
            found(configuration(&args.config, &settings))?;
            examine(&settings, &mut found)?;
        }
    }
    let failed = findings.iter().filter(|finding| finding.level == Level::Fail).count();
    if args.json.json {
        ui::print_json(&Report { ok: failed == 0, findings })?;
    } else {
        ui::print(&summary(failed, findings.iter().filter(|finding| finding.level == Level::Warn).count()))?;
    }
    if failed == 0 { Ok(()) } else { Err(Told.into()) }
}

/// Everything that the settings name, the quick things first.
pub(super) fn examine(
    settings: &Settings,
    found: &mut impl FnMut(Finding) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    found(machine::clock(&settings.paths))?;
    found(machine::memory())?;
    found(machine::lock())?;
    found(machine::folder("state folder", &settings.paths.state))?;
    found(machine::folder("runtime folder", &settings.paths.runtime))?;
    found(machine::disk(&settings.paths.state, settings.update.disk_reserve))?;
    if settings.pipelines.is_empty() {
        let remedy = "run `sudo edgewarden setup`, or add a [[pipeline]] with a source";
        let detail = format!("there is none: the agent runs and looks at nothing; {remedy}");
        found(Finding::warn("pipelines", detail))?;
    }
    for pipeline in &settings.pipelines {
        machine::source(pipeline).into_iter().try_for_each(&mut *found)?;
    }
    for finding in machine::cameras(&settings.pipelines) {
        found(finding)?;
    }
    for finding in runtime::library(&settings.runtime) {
        found(finding)?;
    }
    keys::findings(settings).into_iter().try_for_each(&mut *found)?;
    files::findings(settings).into_iter().try_for_each(&mut *found)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    found(runtime.block_on(reach::broker(&settings.device, settings.mqtt.as_ref())))?;
    if let Some(finding) = commands::commands(settings) {
        found(finding)?;
    }
    found(runtime.block_on(reach::repository(&settings.paths, settings.repository.as_ref())))?;
    // A resolver that hangs must not hold the command after its answer.
    runtime.shutdown_background();
    Ok(())
}

fn configuration(path: &std::path::Path, settings: &Settings) -> Finding {
    let id = &settings.device.id;
    let pipelines = ui::count(settings.pipelines.len(), "pipeline");
    let detail = format!("{}: device {id}, {pipelines}", files(path));
    if is_common(id.as_str()) {
        let remedy = "other devices may be called so as well; set device.id or the host name";
        return Finding::warn("configuration", format!("{detail}; {remedy}"));
    }
    Finding::ok("configuration", detail)
}

/// What the images of the usual distributions call every machine.
pub(super) fn is_common(id: &str) -> bool {
    ["localhost", "raspberrypi", "ubuntu", "debian", "jetson", "device"].contains(&id)
}

/// The files that were read, the drop-ins by their names alone.
fn files(path: &std::path::Path) -> String {
    let files = config::files(path);
    let beside = path.with_file_name("config.d");
    let name = |file: &PathBuf| match file.file_name() {
        Some(name) if file.parent().is_some_and(|folder| folder.ends_with("config.d")) => {
            format!("config.d/{}", name.to_string_lossy())
        }
        Some(_) | None => file.display().to_string(),
    };
    match files.as_slice() {
        [] => format!("{} is not there, nor a drop-in in {}", path.display(), beside.display()),
        [first, ..] if first.file_name() == path.file_name() => {
            files.iter().map(name).collect::<Vec<_>>().join(" + ")
        }
        drop_ins => {
            let names: Vec<_> = drop_ins.iter().map(name).collect();
            format!("no {}, but {}", path.display(), names.join(" + "))
        }
    }
}

pub(super) fn line(finding: &Finding) -> String {
    let level = match finding.level {
        Level::Ok => ui::styled(ui::GOOD, "ok  "),
        Level::Warn => ui::styled(ui::WARN, "warn"),
        Level::Fail => ui::styled(ui::BAD, "fail"),
    };
    format!("{level}  {}: {}\n", finding.subject, finding.detail.replace(['\n', '\r'], " "))
}

pub(super) fn summary(failed: usize, warned: usize) -> String {
    match (failed, warned) {
        (0, 0) => "\nEverything would run.\n".into(),
        (0, warned) => format!("\nIt would run; {warned} to look at.\n"),
        (failed, _) => format!("\n{failed} would not run.\n"),
    }
}

/// The provider of a word; the words are those of the configuration.
fn provider(word: &str) -> Option<Provider> {
    Provider::ALL.into_iter().find(|provider| provider.as_str() == word)
}
