//! `edgewarden fleet logs`: the last lines of a device's log.

use super::access::AccessArgs;
use super::ask::{Question, ask};
use super::sign::SignArgs;
use super::{GOODBYE, print_json, send};
use crate::cli::exit::Interrupted;
use crate::cli::ui::{self, Json};
use crate::domain::DeviceId;
use crate::domain::authority::Audience;
use crate::domain::fleet::answers::Reply;
use crate::domain::fleet::text::shown;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Longest line that is printed, characters.
const LINE: usize = 4000;
/// Between two questions while the log is followed.
const FOLLOW: Duration = Duration::from_secs(5);

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The device
    device: DeviceId,
    /// How many lines; a device gives fewer where they do not fit into a message
    #[arg(short = 'n', long, value_name = "LINES", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    lines: u32,
    /// Only lines of this level and above: error, warn, info, debug
    #[arg(long, value_name = "LEVEL", value_parser = ["error", "warn", "info", "debug", "trace"])]
    level: Option<String>,
    /// Ask again every five seconds and print what is new, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// How long an answer is waited for: 90s, 10m
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = super::span)]
    timeout: Duration,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    sign: SignArgs,
    #[command(flatten)]
    access: AccessArgs,
}

/// Runs the command.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let ready = args.access.ready()?;
    let signing = args.sign.ready(&ready.file)?;
    let audience = Audience::Device(args.device.clone());
    let mut arguments = Map::from_iter([("lines".to_owned(), json!(args.lines))]);
    if let Some(level) = &args.level {
        arguments.insert("level".to_owned(), json!(level));
    }
    let operator = ready.connect().await?;
    let question = Question {
        audience: &audience,
        command: "logs",
        arguments: &arguments,
        signing: &signing,
        timeout: args.timeout,
        anyway: false,
    };
    let mut before: Vec<String> = Vec::new();
    loop {
        let mut end = None;
        let mut sees = |_: &DeviceId, reply: &Reply| {
            end = Some(reply.clone());
            Ok(())
        };
        ask(&operator, &question, &mut sees, &mut |_| {}).await?;
        let lines = send::result_of(&args.device, "logs", end, args.timeout)?;
        let lines = texts(&lines);
        for line in new_lines(&before, &lines) {
            if args.json.json {
                print_json(&json!({ "device": args.device, "line": line }))?;
            } else {
                ui::print(&format!("{}\n", shown(line, LINE)))?;
            }
        }
        before = lines;
        if !args.follow {
            break;
        }
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {
                operator.close(GOODBYE).await;
                return Err(Interrupted.into());
            }
            () = tokio::time::sleep(FOLLOW) => {}
        }
    }
    operator.close(GOODBYE).await;
    Ok(())
}

/// The lines of a result; what is no text is shown as it is written.
fn texts(result: &Value) -> Vec<String> {
    let lines = result.get("lines").and_then(Value::as_array).into_iter().flatten();
    lines.map(|line| line.as_str().map_or_else(|| line.to_string(), str::to_owned)).collect()
}

/// What follows the lines that were printed already: the longest end of `before` that `now` begins with is left
/// out. A log that has run on by more than was asked for is printed as a whole.
fn new_lines<'a>(before: &[String], now: &'a [String]) -> &'a [String] {
    let most = before.len().min(now.len());
    let known = (0..=most).rev().find(|known| before[before.len() - known..] == now[..*known]);
    &now[known.unwrap_or(0)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_printed_is_not_printed_again() {
        let lines = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
        for (before, now, expected) in [
            ("", "abc", "abc"),
            ("abc", "abc", ""),
            ("abc", "bcd", "d"),
            ("abc", "def", "def"),
            ("aaa", "aab", "b"),
            ("abc", "", ""),
            ("abc", "abcde", "de"),
            ("c", "bcd", "bcd"),
        ] {
            assert_eq!(new_lines(&lines(before), &lines(now)), lines(expected), "{before} {now}");
        }
    }

    #[test]
    fn a_result_that_is_none_has_no_lines() {
        assert_eq!(texts(&json!({ "lines": ["a", 5] })), ["a", "5"]);
        for value in [json!({}), json!(null), json!({ "lines": "a" })] {
            assert!(texts(&value).is_empty(), "{value}");
        }
    }
}
