//! From a message to a command, or to the reason why not. Pure.
//!
//! Checks stand in the order of their cost, and nothing of the payload is looked at before it is
//! known to be small, fresh and meant for us ([`address`]). Then the [`super::gate::Gate`] decides: it reads
//! the payload as it is ([`plain`]), or takes the signed action out of it ([`action`]).

use super::topics::{Topic, Topics};
use crate::config::remote;
pub use crate::domain::authority::Addressee;
use crate::domain::authority::Audience;
use crate::domain::command::{Command, LogLevel, Request};
use crate::domain::maintenance::StartWish;
use crate::domain::refusal::RefusalKind;
use crate::domain::shadow::ShadowWish;
use crate::domain::{CommandId, PipelineName, Reason, ReasonCode, Release, SlotName};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Largest payload of a command, bytes.
pub const MAX_COMMAND: usize = 16 << 10;

/// Longest edges of a snapshot that may be asked for, pixels.
pub const SNAPSHOT_EDGES: RangeInclusive<u32> = 16..=4096;

/// The commands that a device takes over MQTT.
pub const COMMANDS: [&str; 13] = [
    "update", "rollback", "abort", "status", "restart", "snapshot", "pause", "resume", "set", "logs",
    "diagnose", "identify", "audit",
];

/// Those of them that only look.
pub const LOOKS: [&str; 6] = ["status", "snapshot", "logs", "diagnose", "identify", "audit"];

/// Lines of a log that may be asked for.
pub const LINES: RangeInclusive<usize> = 1..=1000;

/// Longest blinking, seconds.
pub const MAX_BLINK: u64 = 60;

/// A message as it came.
#[derive(Debug, Clone, Copy)]
pub struct RawCommand<'a> {
    /// Where it was published.
    pub topic: &'a str,
    /// What it says.
    pub payload: &'a [u8],
    /// True when the broker had kept it: it may be of any age.
    pub retained: bool,
}

/// What is known of a command that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The kind.
    pub kind: RefusalKind,
    /// Its name and its sender's name for it; `None` where not even they can be read, so that
    /// nobody can be answered.
    pub named: Option<(String, CommandId)>,
    /// Why.
    pub reason: Reason,
}

/// A command by its topic; of the payload nothing is known but that it is not too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addressed<'a> {
    /// To whom.
    pub audience: Audience,
    /// The command's name, as its sender wrote it.
    pub command: String,
    /// The sender's name for it.
    pub id: CommandId,
    /// What it says.
    pub payload: &'a [u8],
}

impl Addressed<'_> {
    fn refused(self, reason: Reason) -> Refusal {
        Refusal { kind: RefusalKind::Malformed, named: Some((self.command, self.id)), reason }
    }
}

/// Reads a command that needs no signature.
///
/// # Errors
/// [`Refusal`] with [`ReasonCode::BadRequest`] for everything that is not exactly a command.
pub fn read(topics: &Topics, to: &Addressee, raw: RawCommand<'_>) -> Result<Request, Refusal> {
    let asked = address(topics, to, raw)?;
    match plain(&asked) {
        Ok(command) => Ok(Request { id: asked.id, command }),
        Err(reason) => Err(asked.refused(reason)),
    }
}

/// Reads all but the payload.
///
/// # Errors
/// As [`read`].
pub fn address<'a>(topics: &Topics, to: &Addressee, raw: RawCommand<'a>) -> Result<Addressed<'a>, Refusal> {
    let nobody = |detail: String| Refusal { kind: RefusalKind::BadTopic, named: None, reason: bad(detail) };
    let short = || raw.topic.chars().take(160).collect::<String>();
    let (audience, command, id) = match topics.parse(raw.topic) {
        Some(Topic::Command { audience, command, id }) => (audience, command, id),
        Some(Topic::Said { .. } | Topic::Desired { .. }) | None => {
            return Err(nobody(format!("topic \"{}\" is not that of a command", short())));
        }
    };
    // The name goes into the topic of the reply; a name by the rules of ids keeps that one short.
    if command.parse::<CommandId>().is_err() {
        return Err(nobody(format!("topic \"{}\": no such command", short())));
    }
    if !to.is_meant(&audience) {
        return Err(nobody(format!("topic \"{}\" is for another device or group", short())));
    }

    let refuse = |kind, detail: String| Refusal {
        kind,
        named: Some((command.clone(), id.clone())),
        reason: bad(detail),
    };
    if raw.retained {
        return Err(refuse(
            RefusalKind::Retained,
            format!(
                "command {command} {id} was retained by the broker, so its age is unknown; publish it without the retain flag"
            ),
        ));
    }
    if raw.payload.len() > MAX_COMMAND {
        return Err(refuse(
            RefusalKind::Oversize,
            format!("command {command} {id} has {} bytes, {MAX_COMMAND} are allowed", raw.payload.len()),
        ));
    }
    Ok(Addressed { audience, command, id, payload: raw.payload })
}

/// Reads the payload of a command without a signature.
///
/// # Errors
/// [`ReasonCode::BadRequest`].
pub fn plain(asked: &Addressed<'_>) -> Result<Command, Reason> {
    let Addressed { command, id, payload: bytes, .. } = asked;
    payload(command, bytes).map_err(|detail| bad(format!("command {command} {id}: {detail}")))
}

/// Reads an action: the command's name under `command`, and beside it what [`plain`] would read.
///
/// # Errors
/// [`ReasonCode::BadRequest`].
pub fn action(action: &Map<String, Value>) -> Result<Command, Reason> {
    let mut fields = action.clone();
    let Some(Value::String(command)) = fields.remove("command") else {
        return Err(bad("action: no \"command\", such as \"restart\"".to_owned()));
    };
    let shown: String = command.chars().take(64).flat_map(char::escape_default).collect();
    payload(&command, Value::Object(fields).to_string().as_bytes())
        .map_err(|detail| bad(format!("action {shown}: {detail}")))
}

fn bad(detail: String) -> Reason {
    Reason::new(ReasonCode::BadRequest, detail)
}

fn payload(command: &str, payload: &[u8]) -> Result<Command, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Update {
        slot: SlotName,
        release: Release,
        #[serde(default)]
        shadow: ShadowWish,
        #[serde(default)]
        now: bool,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Slot {
        slot: SlotName,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Pipeline {
        pipeline: Option<PipelineName>,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Snapshot {
        pipeline: Option<PipelineName>,
        max_edge: Option<u32>,
        #[serde(default)]
        boxes: bool,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Set {
        values: BTreeMap<String, Value>,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Logs {
        lines: Option<usize>,
        #[serde(default)]
        level: LogLevel,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Identify {
        blink_s: Option<u64>,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Audit {
        lines: Option<usize>,
    }
    let lines = |asked: Option<usize>| {
        let lines = asked.unwrap_or(100);
        let (least, most) = (LINES.start(), LINES.end());
        if LINES.contains(&lines) { Ok(lines) } else { Err(format!("lines {lines}: use {least} to {most}")) }
    };

    match command {
        "update" => {
            let Update { slot, release, shadow, now } = object(payload)?;
            shadow.check()?;
            Ok(Command::Update { slot, release, shadow, start: StartWish { now, spread: false } })
        }
        "rollback" => object(payload).map(|Slot { slot }: Slot| Command::Rollback { slot }),
        "abort" => object(payload).map(|Slot { slot }: Slot| Command::Abort { slot }),
        "status" => object(payload).map(|Nothing {}: Nothing| Command::Status),
        "restart" => object(payload).map(|Nothing {}: Nothing| Command::Restart),
        "pause" => {
            object(payload).map(|Pipeline { pipeline }: Pipeline| Command::Pause { pipeline, paused: true })
        }
        "resume" => {
            object(payload).map(|Pipeline { pipeline }: Pipeline| Command::Pause { pipeline, paused: false })
        }
        "snapshot" => {
            let Snapshot { pipeline, max_edge, boxes } = object(payload)?;
            let max_edge = max_edge.unwrap_or(640);
            if SNAPSHOT_EDGES.contains(&max_edge) {
                Ok(Command::Snapshot { pipeline, max_edge, boxes })
            } else {
                let (least, most) = (SNAPSHOT_EDGES.start(), SNAPSHOT_EDGES.end());
                Err(format!("max_edge {max_edge}: use {least} to {most} pixels"))
            }
        }
        "set" => {
            let Set { values } = object(payload)?;
            remote::check(&values).map_err(|reason| reason.detail)?;
            Ok(Command::Set { values })
        }
        "logs" => {
            let Logs { lines: asked, level } = object(payload)?;
            Ok(Command::Logs { lines: lines(asked)?, level })
        }
        "audit" => {
            let Audit { lines: asked } = object(payload)?;
            Ok(Command::Audit { lines: lines(asked)? })
        }
        "diagnose" => object(payload).map(|Nothing {}: Nothing| Command::Diagnose),
        "identify" => {
            let Identify { blink_s } = object(payload)?;
            let blink_s = blink_s.unwrap_or(5);
            if blink_s <= MAX_BLINK {
                Ok(Command::Identify { blink_s })
            } else {
                Err(format!("blink_s {blink_s}: use 0 to {MAX_BLINK} seconds"))
            }
        }
        _ => Err(format!("no such command; there are {}", COMMANDS.join(", "))),
    }
}

/// A JSON object; nothing at all counts as an empty one.
fn object<T: DeserializeOwned>(payload: &[u8]) -> Result<T, String> {
    let payload = if payload.is_empty() { b"{}" } else { payload };
    // A derived struct also reads a JSON array; a command must name its fields.
    if payload.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'{') {
        return Err("the payload must be a JSON object".to_owned());
    }
    serde_json::from_slice(payload).map_err(|error| format!("payload: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn to() -> Addressee {
        Addressee { device: "pi-1".parse().unwrap(), groups: vec!["line-3".parse().unwrap()] }
    }

    fn read_at(topic: &str, payload: &[u8], retained: bool) -> Result<Request, Refusal> {
        read(&Topics::new("edgewarden").unwrap(), &to(), RawCommand { topic, payload, retained })
    }

    fn read_payload(command: &str, payload: &str) -> Result<Command, Reason> {
        let topic = format!("edgewarden/pi-1/cmd/{command}/17");
        match read_at(&topic, payload.as_bytes(), false) {
            Ok(request) => {
                assert_eq!(request.id.as_str(), "17");
                Ok(request.command)
            }
            Err(refusal) => {
                let named = refusal.named.expect("the sender can be answered");
                assert_eq!((named.0.as_str(), named.1.as_str()), (command, "17"));
                Err(refusal.reason)
            }
        }
    }

    #[test]
    fn each_command_is_read() {
        let slot: SlotName = "detector".parse().unwrap();
        for (command, payload, expected) in [
            (
                "update",
                r#"{"slot":"detector","release":"m@1.2.0","now":true}"#,
                Command::Update {
                    slot: slot.clone(),
                    release: "m@1.2.0".parse().unwrap(),
                    shadow: ShadowWish::default(),
                    start: StartWish { now: true, spread: false },
                },
            ),
            (
                "update",
                r#"{"slot":"detector","release":"m@1.2.0","shadow":{"frames":200,"min_agreement":0.9}}"#,
                Command::Update {
                    slot: slot.clone(),
                    release: "m@1.2.0".parse().unwrap(),
                    shadow: ShadowWish {
                        frames: Some(200),
                        min_agreement: Some(0.9),
                        ..ShadowWish::default()
                    },
                    start: StartWish::default(),
                },
            ),
            ("rollback", r#"{"slot":"detector"}"#, Command::Rollback { slot: slot.clone() }),
            ("abort", r#" {"slot":"detector"}"#, Command::Abort { slot }),
            ("status", "", Command::Status),
            ("status", "{}", Command::Status),
            ("restart", "{}", Command::Restart),
            ("pause", "", Command::Pause { pipeline: None, paused: true }),
            (
                "resume",
                r#"{"pipeline":"belt"}"#,
                Command::Pause { pipeline: Some("belt".parse().unwrap()), paused: false },
            ),
            ("snapshot", "", Command::Snapshot { pipeline: None, max_edge: 640, boxes: false }),
            (
                "snapshot",
                r#"{"pipeline":"belt","max_edge":320,"boxes":true}"#,
                Command::Snapshot { pipeline: Some("belt".parse().unwrap()), max_edge: 320, boxes: true },
            ),
            (
                "set",
                r#"{"values":{"health.interval":"5s","log.level":null}}"#,
                Command::Set {
                    values: [
                        ("health.interval".to_owned(), "5s".into()),
                        ("log.level".to_owned(), serde_json::Value::Null),
                    ]
                    .into(),
                },
            ),
            ("logs", "", Command::Logs { lines: 100, level: LogLevel::Trace }),
            ("logs", r#"{"lines":5,"level":"warn"}"#, Command::Logs { lines: 5, level: LogLevel::Warn }),
            ("diagnose", "", Command::Diagnose),
            ("identify", "", Command::Identify { blink_s: 5 }),
            ("identify", r#"{"blink_s":0}"#, Command::Identify { blink_s: 0 }),
            ("audit", r#"{"lines":9}"#, Command::Audit { lines: 9 }),
        ] {
            assert_eq!(read_payload(command, payload), Ok(expected.clone()), "{command} {payload}");
            // The same as an action, its name among the fields.
            let payload = if payload.is_empty() { "{}" } else { payload };
            let mut fields: Map<String, Value> = serde_json::from_str(payload).unwrap();
            fields.insert("command".into(), command.into());
            assert_eq!(action(&fields), Ok(expected), "{command} {payload}");
        }
        for bad in [r#"{}"#, r#"{"command":1}"#, r#"{"command":"install"}"#, r#"{"command":"restart","x":1}"#]
        {
            let reason = action(&serde_json::from_str(bad).unwrap()).unwrap_err();
            assert_eq!(reason.code, ReasonCode::BadRequest, "{bad}");
        }
        assert!(COMMANDS.contains(&read_payload("status", "").unwrap().name()));
        for (name, command) in COMMANDS.iter().filter_map(|name| Some((name, read_payload(name, "").ok()?))) {
            let looks = crate::domain::authority::role(&command) == crate::domain::authority::Role::Observe;
            assert_eq!(LOOKS.contains(name), looks, "{name}");
        }
    }

    #[test]
    fn groups_are_obeyed_and_others_are_not() {
        assert!(read_at("edgewarden/group/line-3/cmd/status/1", b"", false).is_ok());
        for topic in [
            "edgewarden/group/line-4/cmd/status/1",
            "edgewarden/pi-2/cmd/status/1",
            "edgewarden/pi-1/health",
            "edgewarden/pi-1/cmd/status",
            "edgewarden/pi-1/cmd/sta tus/1",
            "x",
        ] {
            let refusal = read_at(topic, b"", false).unwrap_err();
            assert_eq!(refusal.named, None, "{topic}: nobody to answer");
        }
    }

    #[test]
    fn what_is_not_exactly_a_command_is_refused_with_its_reason() {
        for (command, payload, says) in [
            ("update", "", "missing field `slot`"),
            ("update", r#"{"slot":"detector"}"#, "missing field `release`"),
            ("update", r#"{"slot":"../x","release":"m@1.0.0"}"#, "slot name"),
            ("update", r#"{"slot":"d","release":"m"}"#, "NAME@VERSION"),
            ("update", r#"{"slot":"d","release":"m@1.0.0","force":true}"#, "unknown field `force`"),
            ("update", r#"["d","m@1.0.0"]"#, "JSON object"),
            ("update", r#"{"slot":"d","release":"m@1.0.0"} x"#, "trailing"),
            ("rollback", "{", "EOF"),
            ("status", r#"{"a":1}"#, "unknown field"),
            ("status", "null", "JSON object"),
            ("snapshot", r#"{"max_edge":99999}"#, "max_edge"),
            ("snapshot", r#"{"max_edge":-1}"#, "max_edge"),
            ("set", "{}", "missing field `values`"),
            ("set", r#"{"values":{}}"#, "give 1 to"),
            ("set", r#"{"values":{"mqtt.url":"mqtt://evil"}}"#, "mqtt.url may not be set from afar"),
            ("set", r#"{"values":{"log.level":{}}}"#, "give text, a number"),
            ("logs", r#"{"lines":0}"#, "use 1 to 1000"),
            ("logs", r#"{"lines":1001}"#, "use 1 to 1000"),
            ("logs", r#"{"level":"loud"}"#, "unknown variant"),
            ("audit", r#"{"lines":0}"#, "use 1 to 1000"),
            ("diagnose", r#"{"deep":true}"#, "unknown field"),
            ("identify", r#"{"blink_s":61}"#, "use 0 to 60"),
            ("install", r#"{"file":"/etc/passwd"}"#, "no such command"),
            ("reboot", "{}", "no such command; there are update"),
        ] {
            let reason = read_payload(command, payload).unwrap_err();
            assert_eq!(reason.code, ReasonCode::BadRequest);
            let ok = reason.detail.contains(says) || says == "max_edge" && reason.detail.contains("payload");
            assert!(ok, "{command} {payload}: {reason}");
        }
    }

    #[test]
    fn retained_and_oversize_commands_are_refused_unread() {
        let topic = "edgewarden/pi-1/cmd/restart/1";
        assert!(read_at(topic, b"{}", true).unwrap_err().reason.detail.contains("retained"));
        let long = vec![b' '; MAX_COMMAND + 1];
        assert!(read_at(topic, &long, false).unwrap_err().reason.detail.contains("16384 are allowed"));
        let mut fits = vec![b' '; MAX_COMMAND - 2];
        fits.extend(b"{}");
        assert!(read_at(topic, &fits, false).is_ok());
    }

    proptest! {
        #[test]
        fn no_input_is_a_panic(topic in "(edgewarden/pi-1/cmd/)?.{0,40}", payload: Vec<u8>, retained: bool) {
            let _ = read_at(&topic, &payload, retained);
        }
    }
}
