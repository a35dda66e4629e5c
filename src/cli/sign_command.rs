//! `edgewarden sign-command`: a signed command, for people with their own tools.

use super::exit::Usage;
use super::ui;
use crate::config;
use crate::domain::authority::{Audience, MAX_LIFETIME_MS, role};
use crate::domain::{CommandId, Reason, ReasonCode};
use crate::mqtt::commands;
use crate::mqtt::topics::Topics;
use crate::trust::envelope::{self, Statement};
use crate::trust::keys::Key;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// What stands below the help.
const RECIPE: &str = "\
With mosquitto's own tools:

  edgewarden sign-command --key anna.pem --to press-7 --id 18 \\
    --action '{\"command\":\"update\",\"slot\":\"detector\",\"release\":\"belt@1.2.0\"}' |
  mosquitto_pub -h broker -q 1 -t edgewarden/press-7/cmd/update/18 -s

The reply comes at edgewarden/press-7/ack/update/18. A group is addressed with --to group:line-3 at
edgewarden/group/line-3/cmd/update/18. Without --id one is made up; the topic that belongs to it is said on
standard error, and in the object that --json prints.";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = RECIPE)]
pub struct Args {
    /// The operator's private key: ed25519, PKCS#8 in PEM
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The device, or group:NAME
    #[arg(long, value_name = "AUDIENCE")]
    to: Audience,
    /// The command's name under "command", and beside it what it takes: a JSON object
    #[arg(long, value_name = "JSON")]
    action: String,
    /// How long it counts: 90s, 10m, 2h; at most 30d
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = lifetime)]
    expires: Duration,
    /// A number above all that this key has used towards this audience [default: the time, in microseconds]
    #[arg(long, value_name = "NUMBER")]
    sequence: Option<u64>,
    /// The command's id, as in the topic [default: a new one]
    #[arg(long, value_name = "ID")]
    id: Option<CommandId>,
    /// The first level of the topics (mqtt.root of the devices)
    #[arg(long, value_name = "ROOT", default_value = "edgewarden")]
    root: String,
    /// Print one JSON object: the topic, the id, the number, and the envelope as text
    #[arg(long)]
    json: bool,
}

/// How long a signed command may count.
pub(super) fn lifetime(text: &str) -> Result<Duration, String> {
    let most = Duration::from_millis(MAX_LIFETIME_MS.unsigned_abs());
    let span = config::span(text).filter(|span| (Duration::from_secs(1)..=most).contains(span));
    span.ok_or_else(|| "write a number and its unit, such as 90s, 10m, 2h or 1d; from 1s to 30d".to_owned())
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let action: Map<String, Value> = serde_json::from_str(&args.action).map_err(|error| {
        Usage(format!("--action: expected a JSON object, such as {{\"command\":\"restart\"}}: {error}"))
    })?;
    // As the device will read it: a slip is told here and not by a refusal over there.
    let command =
        commands::action(&action).map_err(|reason| Usage(format!("--action: {}", reason.detail)))?;
    let topics = Topics::new(&args.root)?;
    let key = Key::load(&args.key)?;
    let issued = Timestamp::now();
    let statement = statement(&args, &key, action, issued)?;
    let topic = topics.command(&args.to, command.name(), &statement.id);
    let envelope = envelope::sign(&statement, &key)?;
    if args.json {
        return ui::print_json(&json!({
            "topic": topic,
            "id": statement.id,
            "sequence": statement.sequence,
            "expires": statement.expires,
            "role": role(&command),
            "envelope": envelope,
        }));
    }
    anstream::eprintln!(
        "topic {topic}  (needs the role {}, good until {})",
        role(&command),
        statement.expires
    );
    ui::print(&format!("{envelope}\n"))
}

fn statement(
    args: &Args,
    key: &Key,
    action: Map<String, Value>,
    issued: Timestamp,
) -> Result<Statement, Reason> {
    let internal =
        |what: &dyn std::fmt::Display| Reason::new(ReasonCode::Internal, format!("sign a command: {what}"));
    Ok(Statement {
        id: args.id.clone().unwrap_or_else(|| uuid::Uuid::now_v7().into()),
        key: key.id().parse().map_err(|error: crate::domain::id::IdError| internal(&error))?,
        audience: args.to.clone(),
        sequence: args.sequence.unwrap_or_else(|| u64::try_from(issued.as_microsecond()).unwrap_or(0)),
        issued,
        expires: issued.checked_add(args.expires).map_err(|error| internal(&error))?,
        action,
    })
}
