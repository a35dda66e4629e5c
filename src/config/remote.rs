//! The part of the configuration that may be set by a command: a list of keys, and the drop-in that holds them.
//!
//! What is on the list changes how much is looked at, said and fetched. What decides whom the device trusts, where it
//! connects to, what it runs and what it writes is not on it: an operator's key must not be worth more than its role.
//! The drop-in is an ordinary one, `config.d/90-remote.toml`; each change is judged by the reader of `agent.toml` as if
//! it stood there already.

use crate::domain::{PipelineName, Reason, ReasonCode};
use serde_json::Value;
use std::collections::BTreeMap;

/// The name of the drop-in.
pub const DROP_IN: &str = "90-remote.toml";

/// Keys that may be set.
pub const KEYS: [&str; 14] = [
    "health.interval",
    "log.level",
    "mqtt.results_per_second",
    "repository.rate_limit",
    "repository.retries",
    "repository.stall_timeout",
    "update.connection",
    "update.fetch_in_windows",
    "update.keep_bundles",
    "update.keep_bytes",
    "update.metered",
    "update.metered_max",
    "update.start_jitter",
    "update.windows",
];

/// Keys of a pipeline that may be set, written `pipeline.NAME.KEY`.
pub const PIPELINE_KEYS: [&str; 7] = [
    "fps",
    "max_age",
    "motion.hold",
    "motion.keep_alive",
    "motion.min_area",
    "motion.threshold",
    "stall_timeout",
];

/// Most keys in one command, and in the drop-in.
pub const MAX_VALUES: usize = 64;

/// What the drop-in holds, by key: `pipeline.belt.fps` → `5`.
pub type Values = BTreeMap<String, Value>;

/// A key, taken apart.
enum Key<'a> {
    Plain { table: &'a str, key: &'a str },
    Pipeline { name: PipelineName, key: &'static str },
}

impl<'a> Key<'a> {
    fn read(written: &'a str) -> Option<Self> {
        if KEYS.contains(&written) {
            let (table, key) = written.split_once('.')?;
            return Some(Key::Plain { table, key });
        }
        // A name may hold dots, so the end is looked for first.
        let rest = written.strip_prefix("pipeline.")?;
        PIPELINE_KEYS.into_iter().find_map(|key| {
            let name = rest.strip_suffix(key)?.strip_suffix('.')?.parse().ok()?;
            Some(Key::Pipeline { name, key })
        })
    }
}

fn bad(detail: String) -> Reason {
    Reason::new(ReasonCode::BadRequest, detail)
}

/// Refuses what may not be set, with the list of what may.
///
/// # Errors
/// [`ReasonCode::BadRequest`].
pub fn check(values: &Values) -> Result<(), Reason> {
    if values.is_empty() || values.len() > MAX_VALUES {
        return Err(bad(format!("set: {} keys; give 1 to {MAX_VALUES} in \"values\"", values.len())));
    }
    for (written, value) in values {
        if Key::read(written).is_none() {
            let shown: String = written.chars().take(64).flat_map(char::escape_default).collect();
            return Err(bad(format!(
                "set: {shown} may not be set from afar; these may: {}, and of pipeline.NAME: {}",
                KEYS.join(", "),
                PIPELINE_KEYS.join(", ")
            )));
        }
        if !value.is_null() && toml(value).is_none() {
            let what = "give text, a number, true or false, or a list of these; null takes it back";
            return Err(bad(format!("set: {written}: {what}")));
        }
    }
    Ok(())
}

/// A value as TOML writes it. Text, numbers and lists of JSON are such.
fn toml(value: &Value) -> Option<String> {
    match value {
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        // The one character that JSON leaves as it is and TOML does not allow.
        Value::String(text) => Some(Value::from(text.as_str()).to_string().replace('\u{7f}', "\\u007f")),
        Value::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(toml).collect();
            Some(format!("[{}]", items?.join(", ")))
        }
        Value::Null | Value::Object(_) => None,
    }
}

/// The old values with the new ones over them; `null` takes a key out.
pub fn merge(mut old: Values, new: &Values) -> Values {
    for (key, value) in new {
        if value.is_null() {
            old.remove(key);
        } else {
            old.insert(key.clone(), value.clone());
        }
    }
    old
}

/// The drop-in's text; `None` where it holds nothing.
///
/// # Errors
/// As [`check`].
pub fn write(values: &Values) -> Result<Option<String>, Reason> {
    if values.is_empty() {
        return Ok(None);
    }
    check(values)?;
    let mut tables: BTreeMap<&str, String> = BTreeMap::new();
    let mut pipelines: BTreeMap<String, (String, String)> = BTreeMap::new();
    for (written, value) in values {
        let (Some(key), Some(value)) = (Key::read(written), toml(value)) else { continue };
        match key {
            Key::Plain { table, key } => *tables.entry(table).or_default() += &format!("{key} = {value}\n"),
            Key::Pipeline { name, key } => {
                let (own, motion) = pipelines.entry(name.to_string()).or_default();
                match key.strip_prefix("motion.") {
                    Some(key) => *motion += &format!("{key} = {value}\n"),
                    None => *own += &format!("{key} = {value}\n"),
                }
            }
        }
    }
    let mut text = String::from(
        "# Set by commands over MQTT (`set`). The agent writes this file; own settings belong into another one.\n",
    );
    for (table, keys) in tables {
        text += &format!("\n[{table}]\n{keys}");
    }
    for (name, (own, motion)) in pipelines {
        text += &format!("\n[[pipeline]]\nname = \"{name}\"\n{own}");
        if !motion.is_empty() {
            text += &format!("[pipeline.motion]\n{motion}");
        }
    }
    Ok(Some(text))
}

/// What a drop-in holds.
///
/// # Errors
/// [`ReasonCode::BadRequest`] for one that was not written by [`write()`]: nothing of it may be lost.
pub fn read(text: &str) -> Result<Values, Reason> {
    let by_hand = |what: &str| {
        let detail = format!(
            "set: config.d/{DROP_IN} was changed by hand ({what}); move that into another drop-in of config.d"
        );
        bad(detail)
    };
    let table: toml::Table = text.parse().map_err(|_| by_hand("it is no TOML"))?;
    let mut values = Values::new();
    let mut put = |key: String, value: toml::Value| -> Result<(), Reason> {
        let value = serde_json::to_value(value).map_err(|_| by_hand(&key))?;
        if Key::read(&key).is_none() {
            return Err(by_hand(&key));
        }
        values.insert(key, value);
        Ok(())
    };
    for (table, content) in table {
        match content {
            toml::Value::Table(keys) => {
                keys.into_iter().try_for_each(|(key, value)| put(format!("{table}.{key}"), value))?;
            }
            toml::Value::Array(pipelines) if table == "pipeline" => {
                for pipeline in pipelines {
                    let toml::Value::Table(mut keys) = pipeline else { return Err(by_hand("pipeline")) };
                    let Some(toml::Value::String(name)) = keys.remove("name") else {
                        return Err(by_hand("a pipeline without a name"));
                    };
                    for (key, value) in keys {
                        match value {
                            toml::Value::Table(below) => {
                                below.into_iter().try_for_each(|(last, value)| {
                                    put(format!("pipeline.{name}.{key}.{last}"), value)
                                })?
                            }
                            value => put(format!("pipeline.{name}.{key}"), value)?,
                        }
                    }
                }
            }
            _ => return Err(by_hand(&table)),
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AsIf, Surroundings, drop_in, load_as_if};
    use proptest::prelude::*;
    use serde_json::json;

    fn values(object: Value) -> Values {
        object.as_object().unwrap().clone().into_iter().collect()
    }

    #[test]
    fn what_is_written_reads_back_and_the_strict_reader_takes_it() {
        let wanted = values(json!({
            "health.interval": "5s",
            "log.level": "info,edgewarden::mqtt=debug",
            "mqtt.results_per_second": 0.5,
            "repository.rate_limit": "500kB",
            "repository.retries": 7,
            "repository.stall_timeout": "10s",
            "update.connection": "metered",
            "update.fetch_in_windows": true,
            "update.keep_bundles": 1,
            "update.keep_bytes": "1MiB",
            "update.metered": "small",
            "update.metered_max": "2MiB",
            "update.start_jitter": "1h",
            "update.windows": ["02:00-05:00", "Sat,Sun 00:00-24:00"],
            "pipeline.line.3.fps": 4,
            "pipeline.line.3.max_age": "off",
            "pipeline.line.3.stall_timeout": "20s",
            "pipeline.line.3.motion.threshold": 20,
            "pipeline.line.3.motion.min_area": 0.01,
            "pipeline.line.3.motion.hold": "3s",
            "pipeline.line.3.motion.keep_alive": "1m",
        }));
        assert_eq!(wanted.len(), KEYS.len() + PIPELINE_KEYS.len(), "each key once");
        let text = write(&wanted).unwrap().unwrap();
        assert_eq!(read(&text).unwrap(), wanted, "{text}");

        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("agent.toml");
        let base = "[mqtt]\nurl = \"mqtt://h\"\n[repository]\n[[pipeline]]\nname = \"line.3\"\n\
                    source = { kind = \"synthetic\" }\n";
        std::fs::write(&main, base).unwrap();
        let file = drop_in(&main, DROP_IN);
        let load = |text: &str| {
            load_as_if(&main, &Surroundings::default(), Some(AsIf { file: &file, text: Some(text) }))
        };
        let settings = load(&text).unwrap();
        assert_eq!((settings.pipelines[0].fps, settings.pipelines[0].max_age), (4.0, None));
        assert_eq!(settings.update.rules.windows.len(), 2);
        let other = write(&values(json!({ "pipeline.other.fps": 1 }))).unwrap().unwrap();
        let faults = load(&other).unwrap_err().to_string();
        assert!(faults.contains("90-remote.toml") && faults.contains("source"), "{faults}");
    }

    #[test]
    fn what_is_not_on_the_list_is_refused_with_the_list() {
        for key in [
            "mqtt.url",
            "mqtt.password_file",
            "commands.insecure",
            "commands.require_signature",
            "repository.url",
            "repository.root",
            "device.id",
            "paths.state",
            "runtime.library",
            "update.max_error_ratio",
            "pipeline.main.source",
            "pipeline.main.slot",
            "pipeline..fps",
            "pipeline.fps",
            "pipeline.a/b.fps",
            "fps",
            "",
            "log.level\n[mqtt]\nurl",
        ] {
            let reason = check(&values(json!({ key: 1 }))).unwrap_err();
            assert!(reason.detail.contains("these may: health.interval"), "{key}: {reason}");
        }
        for value in [json!({}), json!([{}]), json!([null])] {
            assert!(check(&values(json!({ "log.level": value }))).is_err());
        }
        assert!(check(&Values::new()).is_err());
        assert!(check(&(0..65).map(|n| (format!("pipeline.p{n}.fps"), json!(1))).collect()).is_err());
    }

    #[test]
    fn null_takes_a_key_back_and_nothing_is_no_file() {
        let old = values(json!({ "log.level": "debug", "health.interval": "5s" }));
        let new = merge(old, &values(json!({ "log.level": null, "update.windows": [] })));
        assert_eq!(new, values(json!({ "health.interval": "5s", "update.windows": [] })));
        let none = merge(new, &values(json!({ "health.interval": null, "update.windows": null })));
        assert_eq!(write(&none), Ok(None));
    }

    #[test]
    fn what_was_written_by_hand_is_not_lost() {
        for text in ["[mqtt]\nurl = \"x\"\n", "x = 1\n", "[[pipeline]]\nfps = 1\n", "a = [", "[[mqtt]]\n"] {
            let reason = read(text).unwrap_err();
            assert!(reason.detail.contains("changed by hand"), "{text}: {reason}");
        }
    }

    proptest! {
        #[test]
        fn any_text_as_a_value_stays_a_value(text in any::<String>()) {
            let wanted = values(json!({ "log.level": text, "update.windows": [text] }));
            let written = write(&wanted).unwrap().unwrap();
            prop_assert_eq!(read(&written).unwrap(), wanted);
        }
    }
}
