//! `edgewarden logs`, `identify`, `audit`: what the agent has to tell besides its status, over its Unix socket. The
//! audit log is read from its files where no agent runs.

use super::local::{Client, Which};
use super::ui::{self, Json};
use crate::agent::audit;
use crate::config;
use crate::domain::{Reason, ReasonCode};
use crate::mqtt::commands::{LINES, MAX_BLINK};
use crate::sys;
use anyhow::Context;
use serde_json::{Value, json};
use std::path::Path;

/// Arguments of `logs`.
#[derive(Debug, clap::Args)]
pub struct LogsArgs {
    /// So many lines, the newest
    #[arg(long, short = 'n', value_name = "LINES", default_value_t = 100, value_parser = lines)]
    lines: usize,
    /// Only this level and above
    #[arg(long, default_value = "trace", value_parser = ["error", "warn", "info", "debug", "trace"])]
    level: String,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    json: Json,
}

/// Arguments of `identify`.
#[derive(Debug, clap::Args)]
pub struct IdentifyArgs {
    /// Seconds to blink the board's light (0: not at all)
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=MAX_BLINK))]
    blink: u64,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    json: Json,
}

/// Arguments of `audit`.
#[derive(Debug, clap::Args)]
pub struct AuditArgs {
    /// So many lines, the newest; at most 200 and 96 KiB are shown at once
    #[arg(long, short = 'n', value_name = "LINES", default_value_t = 100, value_parser = lines)]
    lines: usize,
    /// Only tell whether the chain is whole, and fail where it is not
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    json: Json,
}

fn lines(text: &str) -> Result<usize, String> {
    let found = text.parse().ok().filter(|lines| LINES.contains(lines));
    found.ok_or_else(|| format!("write a number from {} to {}", LINES.start(), LINES.end()))
}

/// Runs `logs`.
pub fn logs(args: LogsArgs) -> anyhow::Result<()> {
    let action = json!({ "command": "logs", "lines": args.lines, "level": args.level });
    let answer = ask(&args.which.client()?, &action)?;
    if args.json.json {
        return ui::print_json(&answer);
    }
    let mut text = String::new();
    for line in answer["lines"].as_array().into_iter().flatten() {
        let field = |name: &str| line[name].as_str().unwrap_or_default();
        text += &format!("{} {:<5} {}\n", field("at"), field("level"), field("text"));
    }
    ui::print(&text)
}

/// Runs `identify`.
pub fn identify(args: IdentifyArgs) -> anyhow::Result<()> {
    let answer = ask(&args.which.client()?, &json!({ "command": "identify", "blink_s": args.blink }))?;
    if args.json.json {
        return ui::print_json(&answer);
    }
    let mut text = String::new();
    for (name, value) in answer.as_object().into_iter().flatten() {
        let shown = match value {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        text += &format!("{:<16} {shown}\n", name.replace('_', " "));
    }
    ui::print(&text)
}

/// Runs `audit`. A broken chain is a refusal for trust (exit status 2) where `--verify` asks for it.
pub fn audit(args: AuditArgs) -> anyhow::Result<()> {
    let answer = match ask(&args.which.client()?, &json!({ "command": "audit", "lines": args.lines })) {
        Ok(answer) => answer,
        Err(error) => match error.downcast_ref::<Reason>() {
            // No agent runs: its files are there all the same.
            Some(reason) if reason.code == ReasonCode::NotFound => {
                let config = args.which.config.as_deref().unwrap_or(Path::new(config::DEFAULT_PATH));
                let state = config::load(config)?.paths.state;
                audit::newest(&state.join(sys::audit::FOLDER), args.lines)?
            }
            Some(_) | None => return Err(error),
        },
    };
    let broken = answer["broken"].as_object().map(|broken| {
        format!(
            "line {} (number {}): {}",
            broken["line"],
            broken["seq"],
            broken["why"].as_str().unwrap_or_default()
        )
    });
    if args.json.json {
        ui::print_json(&answer)?;
    } else if args.verify && broken.is_none() {
        let head = &answer["head"];
        let sha256 = head["sha256"].as_str().unwrap_or_default();
        ui::print(&format!(
            "whole: {} lines, the newest is number {}, {sha256}\n",
            answer["kept"], head["seq"]
        ))?;
    } else if !args.verify {
        ui::print(&answer["entries"].as_array().into_iter().flatten().map(entry).collect::<String>())?;
    }
    match broken {
        Some(why) if args.verify => {
            Err(Reason::new(ReasonCode::Malformed, format!("the audit log is broken: {why}")).into())
        }
        Some(why) => {
            anstream::eprintln!("{}: the audit log is broken: {why}", ui::styled(ui::WARN, "warning"));
            Ok(())
        }
        None => Ok(()),
    }
}

/// An entry on one line.
fn entry(entry: &Value) -> String {
    let field = |name: &str| entry[name].as_str().unwrap_or_default();
    let who = &entry["who"];
    let who = match who.as_object().and_then(|who| who.iter().next()) {
        Some((kind, operator)) if kind == "operator" => {
            let key: String = operator["key"].as_str().unwrap_or_default().chars().take(12).collect();
            format!("{} ({key}…)", operator["name"].as_str().unwrap_or_default())
        }
        Some((kind, local)) if kind == "local" => format!("local uid {}", local["uid"]),
        Some((_, key)) => {
            let key: String = key["key"].as_str().unwrap_or_default().chars().take(12).collect();
            format!("unproved {key}…")
        }
        None => who.as_str().unwrap_or_default().to_owned(),
    };
    let why = match (&entry["refusal"], &entry["reason"]) {
        (Value::String(kind), reason) => {
            format!(" {kind}: {}", reason["detail"].as_str().unwrap_or_default())
        }
        (_, Value::Object(reason)) => format!(": {}", reason["detail"].as_str().unwrap_or_default()),
        _ => entry["note"].as_str().map(|note| format!(": {note}")).unwrap_or_default(),
    };
    let arguments = match &entry["arguments"] {
        Value::Null => String::new(),
        arguments => format!(" {arguments}"),
    };
    let left_out = entry["left_out"].as_u64().map(|count| format!(" [{count} not written before]"));
    format!(
        "{} {} {who} {} {}{arguments} {}{why}{}\n",
        entry["seq"],
        field("at"),
        field("command"),
        field("id"),
        field("outcome"),
        left_out.unwrap_or_default()
    )
}

fn ask(client: &Client, action: &Value) -> anyhow::Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("start the asynchronous runtime")?.block_on(client.command("look", action, |_| Ok(())))
}
