//! `edgewarden fleet send`: one command, to one device or many, with all answers.

use super::access::AccessArgs;
use super::ask::{Question, ask, names};
use super::progress::Lines;
use super::sign::SignArgs;
use super::words::{Beside, arguments};
use super::{GOODBYE, print_json};
use crate::cli::control::{ShadowArgs, words};
use crate::cli::exit::{Told, ToldRefused, Usage};
use crate::cli::ui::{self, Json};
use crate::domain::authority::Audience;
use crate::domain::fleet::answers::{Answers, Reply, Standing};
use crate::domain::fleet::{Problem, text};
use crate::domain::{CommandId, DeviceId, Reason, ReasonCode};
use serde_json::{Map, Value, json};
use std::time::Duration;

const COMMANDS: &str = "\
Commands:
  update SLOT NAME@VERSION   bring a slot to a release of the repository
  rollback SLOT              go back to the slot's previous bundle
  abort SLOT                 stop the deployment under way
  pause [PIPELINE]           pause a source
  resume [PIPELINE]          let it go on
  snapshot [PIPELINE]        publish a picture; `edgewarden fleet snapshot` saves it
  status                     tell everything at this moment
  restart                    end the agent and start it anew in its place
  set KEY=VALUE…             change keys of the configuration
  logs [LINES]               the last lines of the log; `edgewarden fleet logs` prints them
  audit [LINES]              the last lines of the log of commands
  diagnose                   what `edgewarden check` would say there
  identify                   show which machine it is
Any other name is sent as it is, with what --args says.

Where the device wants signatures, give --key. To look (status, snapshot, logs) mostly needs none.

Exit status: 0 when all have done it, 2 when it was refused for trust, 1 when it failed somewhere or somebody did not
answer, 130 for Ctrl-C, which leaves the command with the devices.";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = COMMANDS)]
pub struct Args {
    /// The device, or group:NAME
    #[arg(value_name = "DEVICE|group:NAME")]
    to: Audience,
    /// The command's name
    command: String,
    /// What it takes, see below
    #[arg(value_name = "ARGS")]
    words: Vec<String>,
    /// More of what it takes: a JSON object
    #[arg(long, value_name = "JSON")]
    args: Option<String>,
    /// update: do not wait for a maintenance window
    #[arg(long)]
    now: bool,
    #[command(flatten)]
    shadow: ShadowArgs,
    /// snapshot: longest edge, pixels
    #[arg(long, value_name = "PIXELS")]
    max_edge: Option<u32>,
    /// snapshot: with what the model found drawn in
    #[arg(long)]
    boxes: bool,
    /// How long answers are waited for: 90s, 10m, 2h
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = super::span)]
    timeout: Duration,
    /// Send it also where nobody seems to be there
    #[arg(long)]
    anyway: bool,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    sign: SignArgs,
    #[command(flatten)]
    access: AccessArgs,
}

/// Runs the command.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    // It becomes part of a topic.
    let name: CommandId = args.command.parse().map_err(|_| {
        Usage(format!("command \"{}\": no name of a command", text::shown(&args.command, 64)))
    })?;
    let more: Map<String, Value> = match &args.args {
        None => Map::new(),
        Some(text) => serde_json::from_str(text).map_err(|error| {
            Usage(format!("--args: expected a JSON object, such as {{\"lines\":50}}: {error}"))
        })?,
    };
    let beside = Beside {
        shadow: args.shadow.wish(),
        now: args.now,
        max_edge: args.max_edge,
        boxes: args.boxes,
        more,
    };
    let fields = arguments(name.as_str(), &args.words, beside).map_err(Usage)?;
    let ready = args.access.ready()?;
    let signing = args.sign.ready(&ready.file)?;
    let operator = ready.connect().await?;
    let question = Question {
        audience: &args.to,
        command: name.as_str(),
        arguments: &fields,
        signing: &signing,
        timeout: args.timeout,
        anyway: args.anyway,
    };
    let mut shown =
        Shown { command: name.as_str(), json: args.json.json, lines: Lines::new(), only_trust: true };
    let asked = ask(&operator, &question, &mut |device, reply| shown.reply(device, reply), &mut |_| {}).await;
    shown.lines.clear();
    operator.close(GOODBYE).await;
    shown.end(&asked?, args.timeout)
}

/// What the user sees of the answers.
struct Shown<'a> {
    command: &'a str,
    json: bool,
    lines: Lines,
    /// No device has failed for another reason than trust.
    only_trust: bool,
}

impl Shown<'_> {
    fn reply(&mut self, device: &DeviceId, reply: &Reply) -> anyhow::Result<()> {
        if let Reply::Failed { reason } = reply {
            self.only_trust &= is_trust(reason);
        }
        if self.json {
            return print_json(&line(device, self.command, reply)?);
        }
        match reply {
            Reply::Init => self.lines.step(device, "has the command", None),
            Reply::Executing { detail, fraction } => self.lines.step(device, detail, *fraction),
            Reply::Successful { result } => {
                let text = done(device, self.command, text::shown_value(result.clone()));
                self.lines.end(device, &text)?;
            }
            Reply::Failed { reason } => {
                let text = format!(
                    "{device}: {} {} ({})\n",
                    ui::styled(ui::BAD, "failed:"),
                    reason.detail,
                    reason.code
                );
                self.lines.end(device, &text)?;
            }
        }
        Ok(())
    }

    /// Names those who have not answered, sums up, and gives the exit status.
    fn end(&self, answers: &Answers, timeout: Duration) -> anyhow::Result<()> {
        let silent: Vec<DeviceId> = answers.of(Standing::Open).cloned().collect();
        let (done, failed) = (answers.of(Standing::Done).count(), answers.of(Standing::Failed).count());
        if self.json {
            for device in &silent {
                print_json(&json!({ "device": device, "command": self.command, "status": "no_answer" }))?;
            }
        } else if !silent.is_empty() {
            anstream::eprintln!(
                "edgewarden: no end of {} within {} from {}; they may still be at it: `edgewarden fleet show`",
                self.command,
                ui::span(timeout),
                names(&silent)
            );
        }
        if !self.json && answers.len() > 1 {
            anstream::eprintln!(
                "{done} of {} done, {failed} failed, {} without an end",
                answers.len(),
                silent.len()
            );
        }
        match (failed, silent.len()) {
            // Nobody answers where nobody was expected: that is no success.
            (0, 0) if done > 0 => Ok(()),
            (0, _) => Err(Told.into()),
            (_, 0) if self.only_trust => Err(ToldRefused.into()),
            (_, _) => Err(Told.into()),
        }
    }
}

/// A reply as one line of JSON.
fn line(device: &DeviceId, command: &str, reply: &Reply) -> anyhow::Result<Value> {
    let mut line = serde_json::to_value(reply)?;
    line["device"] = json!(device);
    line["command"] = json!(command);
    Ok(line)
}

fn is_trust(reason: &Problem) -> bool {
    serde_json::from_value::<ReasonCode>(reason.code.as_str().into()).is_ok_and(ReasonCode::is_trust)
}

/// What a device gave, for people: a status as `edgewarden status` shows it, few plain values on a line, and
/// everything else as JSON that can be read.
fn done(device: &DeviceId, command: &str, result: Value) -> String {
    let head = format!("{device}: {} {command}", ui::styled(ui::GOOD, "done"));
    if command == "status"
        && let Ok(text) = crate::cli::status::text(result.clone())
    {
        return format!("{head}\n{text}");
    }
    let plain = |value: &Value| !matches!(value, Value::Array(_) | Value::Object(_));
    match &result {
        Value::Object(fields) if fields.values().all(plain) => match words(&result) {
            told if told.is_empty() => head + "\n",
            told => format!("{head}: {told}\n"),
        },
        Value::Null => head + "\n",
        result => format!("{head}\n{}\n", serde_json::to_string_pretty(result).unwrap_or_default()),
    }
}

/// What one device gave in the end.
///
/// # Errors
/// Its reason where it failed, as one of ours where its code is known; and where it gave none in time.
pub(super) fn result_of(
    device: &DeviceId,
    command: &str,
    end: Option<Reply>,
    timeout: Duration,
) -> anyhow::Result<Value> {
    match end {
        Some(Reply::Successful { result }) => Ok(result),
        Some(Reply::Failed { reason }) => {
            let code = serde_json::from_value(reason.code.as_str().into()).unwrap_or(ReasonCode::Internal);
            Err(Reason::new(code, format!("{device}: {}", reason.detail)).into())
        }
        Some(Reply::Init | Reply::Executing { .. }) | None => {
            let detail =
                format!("{device}: no answer to {command} within {}; is it busy?", ui::span(timeout));
            Err(Reason::new(ReasonCode::BrokerUnreachable, detail).into())
        }
    }
}
