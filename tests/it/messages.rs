//! The page of messages: each example on it is one of ours, and a real device says nothing else.

use crate::support::device::{Device, Options, PIPELINE, Repository, SLOT, release};
use crate::support::mosquitto::Mosquitto;
use crate::support::root;
use edgewarden::domain::FrameResult;
use edgewarden::domain::deployment::SlotState;
use edgewarden::domain::health::HealthReport;
use edgewarden::domain::metrics::MetricsReport;
use edgewarden::mqtt::payloads::event::{CountsMessage, EventMessage};
use edgewarden::mqtt::payloads::{Birth, CommandReply, DroppedReport, Stamp, Stamped};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeSet;

/// Reads a message and writes it.
type Again = fn(&str) -> String;

/// Each example and its reader.
const KINDS: [(&str, Again); 16] = [
    ("birth", again::<Birth>),
    ("health", again::<HealthReport>),
    ("slot-state", again::<SlotState>),
    ("telemetry", again::<FrameResult>),
    ("event", again::<EventMessage>),
    ("counts", again::<CountsMessage>),
    ("metrics", again::<MetricsReport>),
    ("dropped", again::<DroppedReport>),
    ("reply-executing", again::<CommandReply>),
    ("reply-successful", again::<CommandReply>),
    ("reply-failed", again::<CommandReply>),
    ("reply-set", again::<CommandReply>),
    ("reply-logs", again::<CommandReply>),
    ("reply-diagnose", again::<CommandReply>),
    ("reply-identify", again::<CommandReply>),
    ("reply-audit", again::<CommandReply>),
];

/// Commands of which the result has an example of its own, and what they are asked.
const RESULTS: [(&str, &str); 5] = [
    ("set", r#"{"values":{"mqtt.results_per_second":7,"log.level":"debug"}}"#),
    ("logs", r#"{"lines":2}"#),
    ("diagnose", "{}"),
    ("identify", r#"{"blink_s":0}"#),
    ("audit", r#"{"lines":3}"#),
];

/// Objects whose keys are names of the device's own.
const NAMES: [&str; 13] = [
    "arguments",
    "child_restarts",
    "deltas",
    "deployments",
    "events",
    "power_watts",
    "provider_share",
    "recycles",
    "refusals",
    "refused",
    "result",
    "temperature_celsius",
    "values",
];

/// Top-level keys that not every message of a kind has.
const OPTIONAL: [&str; 5] = ["board", "clock_synchronised", "fraction", "refusals", "unlocked"];

/// Reads a message as one of its kind, and writes it.
fn again<T: DeserializeOwned + Serialize>(json: &str) -> String {
    Stamped::<T>::read(json.as_bytes()).unwrap_or_else(|error| panic!("{error}: {json}")).json().unwrap()
}

fn example(name: &str) -> String {
    let path = root().join(format!("packaging/examples/mqtt/{name}.json"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn each_example_is_one_of_ours_and_stands_on_the_page() {
    let page = std::fs::read_to_string(root().join("packaging/mqtt.md")).unwrap();
    for (name, again) in KINDS {
        let text = example(name);
        let told: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let ours: Value = serde_json::from_str(&again(&text)).unwrap();
        assert_eq!(told, ours, "{name}: read and written again");
        assert!(
            page.contains(&format!("```json\n{text}```")),
            "packaging/mqtt.md does not show {name}.json as it is"
        );
    }
    for file in std::fs::read_dir(root().join("packaging/examples/mqtt")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let stamp: Stamp = serde_json::from_str(&text).unwrap();
        let whole = stamp.run_id.is_some() && stamp.made_at.is_some() && stamp.sent_at.is_some();
        assert!(whole && stamp.device.is_some() && stamp.boot_id.is_some(), "{text}");
    }
}

/// Whether a message is no answer, or the last one to its command: those come step by step.
fn is_last(topic: &str, message: &[u8]) -> bool {
    let told: Value = serde_json::from_slice(message).expect("JSON");
    !topic.starts_with("ack/") || matches!(told["status"].as_str(), Some("successful" | "failed"))
}

/// A real message shows nothing that its example does not, and has the same keys at the top.
fn is_like(what: &str, real: &Value, example: &Value) {
    let (real, told) = (keys_of(real), keys_of(example));
    let unknown: Vec<_> = real.difference(&told).collect();
    assert!(unknown.is_empty(), "{what}: the example does not show {unknown:?}");
    let top = |keys: &BTreeSet<String>| -> BTreeSet<String> {
        let top = keys.iter().filter_map(|key| key.strip_prefix('.'));
        let top = top.filter(|key| !key.contains(['.', '[']) && !OPTIONAL.contains(key));
        top.map(str::to_owned).collect()
    };
    assert_eq!(top(&real), top(&told), "{what}: the keys of the example");
}

/// Every key with the way to it; `*` for names and `[]` for lists.
fn keys(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            let names = NAMES.iter().any(|name| path.ends_with(&format!(".{name}")));
            for (key, value) in fields {
                let path = format!("{path}.{}", if names { "*" } else { key });
                keys(value, &path, found);
                found.insert(path);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| keys(value, &format!("{path}[]"), found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn keys_of(json: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    keys(json, "", &mut found);
    found
}

/// What a device says at a topic below its own, last.
fn last(device: &Device, topic: &str) -> Value {
    let last = device.until(topic, |heard| {
        let message = heard.newest.get(topic)?;
        is_last(topic, message).then(|| message.clone())
    });
    serde_json::from_slice(&last).expect("JSON")
}

#[test]
fn a_real_device_says_what_the_examples_say() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1"]);
    let mut device = Device::serving(Options::new(&broker, &repository), &release(1));
    device.publish("cmd/restart/broken", "{\"slot\":", false);
    device.publish(
        "cmd/update/again",
        format!("{{\"slot\":\"{SLOT}\",\"release\":\"{}\"}}", release(1)),
        false,
    );
    let telemetry = format!("telemetry/{PIPELINE}");
    let state = format!("model/{SLOT}/state");
    let said = [
        ("birth", "birth"),
        ("health", "health"),
        (state.as_str(), "slot-state"),
        (telemetry.as_str(), "telemetry"),
        ("metrics", "metrics"),
        ("ack/restart/broken", "reply-failed"),
        ("ack/update/again", "reply-successful"),
    ];
    for (topic, name) in said {
        let told = serde_json::from_str(&example(name)).unwrap();
        is_like(&format!("{topic}, {name}.json"), &last(&device, topic), &told);
    }
    assert!(device.stop().success());
}

#[test]
fn a_real_device_answers_what_the_examples_say() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1"]);
    // A setting is on trial for so long before it is answered.
    let options = Options::new(&broker, &repository).set("commands.set_trial", "8s");
    let mut device = Device::serving(options, &release(1));
    // The audit log has what was done from here, too.
    assert_eq!(device.cli(["pause", PIPELINE]).code, Some(0));
    assert_eq!(device.cli(["resume", PIPELINE]).code, Some(0));
    for (command, asked) in RESULTS {
        device.publish(&format!("cmd/{command}/1"), asked, false);
        let real = last(&device, &format!("ack/{command}/1"));
        let told: Value = serde_json::from_str(&example(&format!("reply-{command}"))).unwrap();
        is_like(&format!("the result of {command}"), &real["result"], &told["result"]);
        let beside = |reply: &Value| {
            let mut beside = reply.clone();
            beside.as_object_mut().unwrap().remove("result");
            beside
        };
        is_like(&format!("the answer to {command}"), &beside(&real), &beside(&told));
    }
    assert!(device.stop().success());
}
