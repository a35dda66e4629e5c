//! Reads the documents of devices, leniently: a field that is missing, or of another type than it should be, is
//! left out, and the rest counts. A device with another version of the agent is still shown.

use super::text::shown;
use super::{Birth, Deployment, Health, LONGEST, MOST, Pipeline, Problem, Slot};
use serde_json::Value;

/// Longest name, and longest sentence, in characters.
const NAME: usize = 80;
const SENTENCE: usize = 400;

/// What every document carries.
pub(super) struct Stamp {
    pub(super) device: Option<String>,
    pub(super) sent_ms: Option<i64>,
}

/// A JSON object; `None` for anything else.
pub(super) fn document(payload: &[u8]) -> Option<Value> {
    if payload.len() > LONGEST {
        return None;
    }
    serde_json::from_slice(payload).ok().filter(Value::is_object)
}

pub(super) fn stamp(document: &Value) -> Stamp {
    let time = |key: &str| document.get(key)?.as_str()?.parse::<jiff::Timestamp>().ok();
    let sent = time("sent_at").or_else(|| time("made_at"));
    Stamp { device: name(document, "device"), sent_ms: sent.map(jiff::Timestamp::as_millisecond) }
}

pub(super) fn birth(document: &Value) -> Birth {
    Birth {
        groups: names(document, "groups"),
        agent_version: name(document, "agent_version"),
        os: name(document, "os"),
        kernel: name(document, "kernel"),
        arch: name(document, "arch"),
        board: name(document, "board"),
        commands: names(document, "commands"),
        commands_unsigned: flag(document, "commands_unsigned"),
        tls: flag(document, "tls"),
    }
}

pub(super) fn health(document: &Value) -> Health {
    let board = document.get("board").unwrap_or(&Value::Null);
    let heat = board.get("temperature_celsius").and_then(Value::as_object);
    let heat = heat.into_iter().flatten().take(4 * MOST).filter_map(|(_, value)| finite(value));
    let link = |what: &'static str, key: &str| {
        let link = document.get(key)?;
        let target = link.get("target").and_then(Value::as_str).map(|text| shown(text, SENTENCE))?;
        Some((what, target, flag(link, "reached").unwrap_or(false)))
    };
    Health {
        state: name(document, "state"),
        problems: each(document, "problems").filter_map(problem).collect(),
        pipelines: each(document, "pipelines").filter_map(pipeline).collect(),
        uptime_s: whole(document, "uptime_s"),
        clock_synchronised: flag(document, "clock_synchronised"),
        // Nothing on Earth runs beyond these; a sensor that is not there often says so by a huge number.
        temperature: heat.filter(|heat| (-100.0..=300.0).contains(heat)).reduce(f64::max),
        memory_available: whole(board, "memory_available_bytes"),
        disk_free: whole(board, "disk_free_bytes"),
        links: [link("broker", "mqtt"), link("repository", "repository")].into_iter().flatten().collect(),
    }
}

pub(super) fn slot(document: &Value) -> Slot {
    let release = |key: &str| document.get(key).and_then(|bundle| name(bundle, "release"));
    Slot {
        current: release("current"),
        previous: release("previous"),
        deployment: document.get("deployment").filter(|value| value.is_object()).map(deployment),
        safe_mode: document.get("safe_mode").and_then(problem),
    }
}

fn deployment(value: &Value) -> Deployment {
    Deployment {
        release: name(value, "release"),
        stage: name(value, "stage"),
        progress: value.get("progress").and_then(finite).map(|part| part.clamp(0.0, 1.0)),
        reason: value.get("reason").and_then(problem),
    }
}

fn pipeline(value: &Value) -> Option<Pipeline> {
    Some(Pipeline {
        name: name(value, "name")?,
        slot: name(value, "slot"),
        state: name(value, "state"),
        release: name(value, "release"),
        provider: name(value, "provider"),
        fps: value.get("fps").and_then(finite).filter(|fps| (0.0..=1e6).contains(fps)),
        last_error: value.get("last_error").and_then(problem),
    })
}

/// A code and a sentence, as problems and reasons have them.
pub(super) fn problem(value: &Value) -> Option<Problem> {
    let detail = value.get("detail").and_then(Value::as_str).map(|text| shown(text, SENTENCE));
    let code = name(value, "code");
    (code.is_some() || detail.is_some()).then(|| Problem {
        code: code.unwrap_or_else(|| "other".to_owned()),
        detail: detail.unwrap_or_default(),
    })
}

/// A sentence.
pub(super) fn sentence(value: &Value, key: &str) -> Option<String> {
    value.get(key).and_then(Value::as_str).map(|text| shown(text, SENTENCE))
}

/// A name.
pub(super) fn name(value: &Value, key: &str) -> Option<String> {
    value.get(key).and_then(Value::as_str).map(|text| shown(text, NAME))
}

/// A number that is one.
pub(super) fn finite(value: &Value) -> Option<f64> {
    value.as_f64().filter(|number| number.is_finite())
}

fn names(value: &Value, key: &str) -> Vec<String> {
    each(value, key).filter_map(Value::as_str).map(|text| shown(text, NAME)).collect()
}

fn each<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten().take(MOST)
}

fn flag(value: &Value, key: &str) -> Option<bool> {
    value.get(key).and_then(Value::as_bool)
}

fn whole(value: &Value, key: &str) -> Option<u64> {
    value.get(key).and_then(Value::as_u64)
}
