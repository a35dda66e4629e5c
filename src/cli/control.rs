//! `edgewarden status`, `install`, `update`, `rollback`, `abort`, `pause`, `resume`: asks the running agent over its
//! Unix socket. The exit status of a refused bundle is that of its reason.

use super::local::{Client, Which};
use super::ui::{self, Json};
use crate::domain::command::Progress;
use crate::domain::shadow::ShadowWish;
use crate::domain::{PipelineName, Release, SlotName};
use anyhow::Context;
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    json: Json,
    /// Ask again every so many seconds until interrupted
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: Option<u64>,
}

/// Arguments of `install`.
#[derive(Debug, clap::Args)]
pub struct InstallArgs {
    /// A .bundle file, as `edgewarden repo export` makes it
    file: PathBuf,
    /// The slot to fill; may be left out where the device has one
    #[arg(long)]
    slot: Option<SlotName>,
    /// Do not wait for a maintenance window
    #[arg(long)]
    now: bool,
    #[command(flatten)]
    shadow: ShadowArgs,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    json: Json,
}

/// Arguments of `update`.
#[derive(Debug, clap::Args)]
pub struct UpdateArgs {
    /// The slot to fill
    slot: SlotName,
    /// What to fill it with, such as detector@1.2.0
    release: Release,
    /// Do not wait for a maintenance window or another connection; also for an update that waits already
    #[arg(long)]
    now: bool,
    #[command(flatten)]
    shadow: ShadowArgs,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    json: Json,
}

/// How the new model runs beside the one that serves before it counts; what is not given is as configured.
#[derive(Debug, clap::Args)]
pub(super) struct ShadowArgs {
    /// Live frames that both models answer first (0: none); the new one's answers are only compared
    #[arg(long, value_name = "FRAMES")]
    shadow: Option<u64>,
    /// Seconds after which too few such frames are a refusal
    #[arg(long, value_name = "SECONDS")]
    shadow_max: Option<u64>,
    /// Least agreement of the two, 0 to 1
    #[arg(long, value_name = "SHARE")]
    min_agreement: Option<f32>,
    /// Times the time per frame of the model that serves, 1 or more
    #[arg(long, value_name = "TIMES")]
    max_slowdown: Option<f32>,
    /// Memory of the new model's process, MiB (0: no limit)
    #[arg(long, value_name = "MIB")]
    max_memory: Option<u64>,
}

impl ShadowArgs {
    pub(super) fn wish(&self) -> ShadowWish {
        ShadowWish {
            frames: self.shadow,
            max_seconds: self.shadow_max,
            min_agreement: self.min_agreement,
            max_slowdown: self.max_slowdown,
            max_memory: self.max_memory.map(|mib| mib.saturating_mul(1 << 20)),
        }
    }
}

/// Arguments of `rollback` and `abort`.
#[derive(Debug, clap::Args)]
pub struct SlotArgs {
    /// The slot
    slot: SlotName,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    json: Json,
}

/// Arguments of `pause` and `resume`.
#[derive(Debug, clap::Args)]
pub struct PipelineArgs {
    /// The pipeline; may be left out where the device has one
    pipeline: Option<PipelineName>,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    json: Json,
}

/// Runs `status`.
pub fn status(args: StatusArgs) -> anyhow::Result<()> {
    let client = args.which.client()?;
    block_on(async {
        loop {
            let answer = client.status().await?;
            if args.json.json {
                ui::print_json(&answer)?;
            } else {
                let text = super::status::text(answer)?;
                // A new screen only where there is one.
                let clear = args.watch.is_some() && std::io::stdout().is_terminal();
                ui::print(&format!("{}{text}", if clear { "\x1b[2J\x1b[H" } else { "" }))?;
            }
            match args.watch {
                Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
                None => return Ok(()),
            }
        }
    })
}

/// Runs `install`.
pub fn install(args: InstallArgs) -> anyhow::Result<()> {
    // The agent has another working directory.
    let file =
        std::fs::canonicalize(&args.file).with_context(|| format!("install {}", args.file.display()))?;
    let client = args.which.client()?;
    shown("install", args.json, async |on| {
        client.install(&file, args.slot, args.shadow.wish(), args.now, on).await
    })
}

/// Runs `update`.
pub fn update(args: UpdateArgs) -> anyhow::Result<()> {
    let body = json!({
        "slot": args.slot, "release": args.release, "shadow": args.shadow.wish(), "now": args.now
    });
    follow(&args.which.client()?, "update", body, args.json)
}

/// Runs `rollback`.
pub fn rollback(args: SlotArgs) -> anyhow::Result<()> {
    follow(&args.which.client()?, "rollback", json!({ "slot": args.slot }), args.json)
}

/// Runs `abort`.
pub fn abort(args: SlotArgs) -> anyhow::Result<()> {
    follow(&args.which.client()?, "abort", json!({ "slot": args.slot }), args.json)
}

/// Runs `pause`.
pub fn pause(args: PipelineArgs) -> anyhow::Result<()> {
    follow(&args.which.client()?, "pause", json!({ "pipeline": args.pipeline }), args.json)
}

/// Runs `resume`.
pub fn resume(args: PipelineArgs) -> anyhow::Result<()> {
    follow(&args.which.client()?, "resume", json!({ "pipeline": args.pipeline }), args.json)
}

/// Sends a command and shows its progress until it has ended.
fn follow(client: &Client, name: &str, body: Value, json: Json) -> anyhow::Result<()> {
    shown(name, json, async |on| client.command(name, &body, on).await)
}

/// Shows a command's progress until it has ended; `send` takes what sees each step.
fn shown(
    name: &str,
    json: Json,
    send: impl AsyncFnOnce(&mut dyn FnMut(&Progress) -> anyhow::Result<()>) -> anyhow::Result<Value>,
) -> anyhow::Result<()> {
    let mut steps = (!json.json).then(ui::Steps::new);
    let ended = block_on(send(&mut |progress| match (&mut steps, progress) {
        (None, progress) => ui::print_json(progress),
        (Some(steps), Progress::Executing { detail, fraction }) => {
            steps.step(detail, *fraction);
            Ok(())
        }
        (Some(_), Progress::Successful { .. } | Progress::Failed { .. }) => Ok(()),
    }));
    if let Some(steps) = steps {
        steps.end();
    }
    let result = ended?;
    if !json.json {
        ui::print(&format!("{} {name}: {}\n", ui::styled(ui::GOOD, "done"), words(&result)))?;
    }
    Ok(())
}

/// A command's result, an object of few plain values, on one line.
pub(super) fn words(result: &Value) -> String {
    let plain = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    let pairs = result.as_object().into_iter().flatten();
    let told: Vec<String> = pairs
        .filter_map(|(key, value)| Some(format!("{} {}", key.replace('_', " "), plain(value)?)))
        .collect();
    told.join(", ")
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("start the asynchronous runtime")?.block_on(work)
}
