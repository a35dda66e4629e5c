//! `[commands]`: which commands over MQTT must be signed, and how their time is judged.

use super::file::{Node, Section, Value};
use super::settings::CommandSettings;
use super::value::{boolean, duration, text, whole};
use crate::domain::authority::Requirement;
use std::time::Duration;

/// Reads the table.
pub fn commands(mut section: Section<'_>) -> CommandSettings {
    let secs = Duration::from_secs;
    let at = section.at.clone();
    let written = section.optional("require_signature", requirement);
    let insecure = section.or("insecure", false, boolean);
    if insecure && written == Some(Requirement::Always) {
        let text = "contradicts require_signature = true; leave one of the two out";
        section.fault(&at, "insecure", text);
    }
    let required = if insecure { Requirement::Never } else { written.unwrap_or(Requirement::Auto) };
    let settings = CommandSettings {
        require_signature: required,
        unsigned_observe: section.or("unsigned_observe", true, boolean),
        refresh: section.or("refresh", secs(3600), duration(secs(1)..=secs(7 * 86_400))),
        clock_tolerance: section.or("clock_tolerance", secs(120), duration(secs(0)..=secs(86_400))),
        per_minute: section.or("per_minute", 120, whole(1..=100_000)) as u32,
        set_trial: section.or("set_trial", secs(120), duration(secs(1)..=secs(86_400))),
    };
    section.finish();
    settings
}

/// `"auto"` or `true`; `false` is the former name of `insecure = true`.
fn requirement(node: &Node) -> Result<Requirement, String> {
    match &node.value {
        Value::Bool(true) => Ok(Requirement::Always),
        Value::Bool(false) => Ok(Requirement::Never),
        Value::Text(_) if text(node)? == "auto" => Ok(Requirement::Auto),
        other => Err(format!("expected \"auto\", true or false, found {}", other.kind())),
    }
}
