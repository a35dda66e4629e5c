//! From the words after `send` to what a command takes. Pure.

use crate::domain::shadow::ShadowWish;
use crate::domain::{PipelineName, Release, SlotName};
use crate::mqtt::commands::{self, COMMANDS};
use serde_json::{Map, Value, json};

/// What stands beside the words.
#[derive(Debug, Default)]
pub(super) struct Beside {
    pub(super) shadow: ShadowWish,
    pub(super) now: bool,
    pub(super) max_edge: Option<u32>,
    pub(super) boxes: bool,
    /// More fields, as JSON.
    pub(super) more: Map<String, Value>,
}

/// The arguments of a command as its payload has them.
///
/// # Errors
/// A sentence for people where the command takes other words, or where this version of the agent would refuse it.
/// A command that is not known here is sent as it is: a device may be newer.
pub(super) fn arguments(
    command: &str,
    words: &[String],
    beside: Beside,
) -> Result<Map<String, Value>, String> {
    let mut fields = fields(command, words)?;
    options(command, &mut fields, beside)?;
    if COMMANDS.contains(&command) {
        let mut action = fields.clone();
        action.insert("command".to_owned(), command.into());
        commands::action(&action).map_err(|reason| reason.detail)?;
    }
    Ok(fields)
}

/// What the words alone say.
fn fields(command: &str, words: &[String]) -> Result<Map<String, Value>, String> {
    let mut fields = Map::new();
    let takes = |what: &str| Err(format!("{command} takes {what}; see `edgewarden fleet send --help`"));
    let fault = |error: crate::domain::id::IdError| format!("{command}: {error}");
    match (command, words) {
        ("update", [slot, release]) => {
            let slot: SlotName = slot.parse().map_err(fault)?;
            let release: Release = release.parse().map_err(fault)?;
            fields.insert("slot".to_owned(), json!(slot));
            fields.insert("release".to_owned(), json!(release));
        }
        ("update", _) => return takes("a slot and a release: update SLOT NAME@VERSION"),
        ("rollback" | "abort", [slot]) => {
            let slot: SlotName = slot.parse().map_err(fault)?;
            fields.insert("slot".to_owned(), json!(slot));
        }
        ("rollback" | "abort", _) => return takes("a slot"),
        ("pause" | "resume" | "snapshot", []) => {}
        ("pause" | "resume" | "snapshot", [pipeline]) => {
            let pipeline: PipelineName = pipeline.parse().map_err(fault)?;
            fields.insert("pipeline".to_owned(), json!(pipeline));
        }
        ("pause" | "resume" | "snapshot", _) => {
            return takes("one pipeline, or none where the device has one");
        }
        ("logs" | "audit", []) => {}
        ("logs" | "audit", [lines]) => {
            let lines: u32 =
                lines.parse().map_err(|_| format!("{command}: \"{lines}\" is no number of lines"))?;
            fields.insert("lines".to_owned(), json!(lines));
        }
        ("set", []) => return takes("KEY=VALUE, such as health.interval=10s"),
        ("set", pairs) => {
            let mut set = Map::new();
            for pair in pairs {
                let (key, value) =
                    pair.split_once('=').ok_or_else(|| format!("set: \"{pair}\" is no KEY=VALUE"))?;
                if set.insert(key.to_owned(), value_of(value)).is_some() {
                    return Err(format!("set: {key} is given twice"));
                }
            }
            fields.insert("values".to_owned(), Value::Object(set));
        }
        (_, []) => {}
        (_, _) => return takes("no further words; give fields as JSON with --args"),
    }
    Ok(fields)
}

fn options(command: &str, fields: &mut Map<String, Value>, beside: Beside) -> Result<(), String> {
    let Beside { shadow, now, max_edge, boxes, more } = beside;
    let mut only = |given: bool, option: &str, of: &str, key: &str, value: Value| {
        if given && command != of {
            return Err(format!("{option} belongs to {of}, not to {command}"));
        }
        if given {
            fields.insert(key.to_owned(), value);
        }
        Ok(())
    };
    only(shadow != ShadowWish::default(), "--shadow and its like", "update", "shadow", json!(shadow))?;
    only(now, "--now", "update", "now", json!(true))?;
    only(max_edge.is_some(), "--max-edge", "snapshot", "max_edge", json!(max_edge))?;
    only(boxes, "--boxes", "snapshot", "boxes", json!(true))?;
    for (key, value) in more {
        if key == "command" || fields.insert(key.clone(), value).is_some() {
            return Err(format!("--args: \"{key}\" is given by the words already"));
        }
    }
    Ok(())
}

/// A value as TOML would read it; what is none there is taken as text, so that words need no quotes twice.
fn value_of(text: &str) -> Value {
    let read = format!("v = {text}").parse::<toml::Table>().ok().and_then(|mut table| table.remove("v"));
    match read {
        None | Some(toml::Value::Datetime(_)) => text.into(),
        Some(value) => serde_json::to_value(value).unwrap_or_else(|_| text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str, beside: Beside) -> Result<Value, String> {
        let mut words = line.split_whitespace().map(str::to_owned);
        let command = words.next().unwrap();
        arguments(&command, &words.collect::<Vec<_>>(), beside).map(Value::Object)
    }

    #[test]
    fn words_become_what_a_command_takes() {
        let plain = |line| read(line, Beside::default());
        for (line, expected) in [
            ("update detector belt@1.2.0", json!({ "slot": "detector", "release": "belt@1.2.0" })),
            ("rollback detector", json!({ "slot": "detector" })),
            ("abort detector", json!({ "slot": "detector" })),
            ("pause", json!({})),
            ("resume main", json!({ "pipeline": "main" })),
            ("status", json!({})),
            ("restart", json!({})),
            ("logs 20", json!({ "lines": 20 })),
            ("identify", json!({})),
            ("audit 9", json!({ "lines": 9 })),
            ("a-command-of-tomorrow", json!({})),
        ] {
            assert_eq!(plain(line).unwrap(), expected, "{line}");
        }
        for line in [
            "update",
            "update detector",
            "update a/b belt@1.0.0",
            "update detector newest",
            "rollback",
            "abort a b",
            "pause a b",
            "logs many",
            "set",
            "set a",
            "set a=1 a=2",
            "status now",
            "restart x",
            "identify x",
        ] {
            assert!(plain(line).is_err(), "{line}");
        }
    }

    #[test]
    fn values_are_read_as_in_the_configuration_and_everything_else_is_text() {
        let words = ["a.b=5", "c=true", "d=10s", "e=[1,2]", "f=\"7\"", "g=", "h=2026-01-01", "i=x = 1"];
        let read = fields("set", &words.map(str::to_owned)).unwrap();
        let expected = json!({ "values": { "a.b": 5, "c": true, "d": "10s", "e": [1, 2], "f": "7", "g": "",
            "h": "2026-01-01", "i": "x = 1" } });
        assert_eq!(Value::Object(read), expected);
    }

    #[test]
    fn options_belong_to_their_commands() {
        let shadow = || Beside {
            shadow: ShadowWish { frames: Some(50), ..ShadowWish::default() },
            ..Beside::default()
        };
        assert_eq!(read("update d belt@1.0.0", shadow()).unwrap()["shadow"]["frames"], 50);
        assert!(read("rollback d", shadow()).unwrap_err().contains("--shadow"));
        let now = || Beside { now: true, ..Beside::default() };
        assert_eq!(read("update d belt@1.0.0", now()).unwrap()["now"], true);
        assert!(read("restart", now()).is_err());
        let edge = |edge| Beside { max_edge: Some(edge), ..Beside::default() };
        assert_eq!(read("snapshot", edge(64)).unwrap(), json!({ "max_edge": 64 }));
        assert!(read("snapshot", edge(5)).unwrap_err().contains("16 to 4096"), "as the device would say");
        let more = |text: &str| Beside { more: serde_json::from_str(text).unwrap(), ..Beside::default() };
        assert_eq!(read("dance", more(r#"{"steps":3}"#)).unwrap(), json!({ "steps": 3 }));
        assert!(read("logs 5", more(r#"{"lines":3}"#)).unwrap_err().contains("lines"));
        assert!(read("dance", more(r#"{"command":"restart"}"#)).is_err());
        assert!(read("restart", more(r#"{"x":3}"#)).is_err());
    }
}
