//! `[commands]`: which commands over MQTT must be signed, and how their time is judged.

use super::file::{Node, Section, Value};
use super::settings::CommandSettings;
use super::value::{boolean, duration, text};
use crate::domain::authority::Requirement;
use std::time::Duration;

/// Reads the table.
pub fn commands(mut section: Section<'_>) -> CommandSettings {
    let secs = Duration::from_secs;
    let settings = CommandSettings {
        require_signature: section.or("require_signature", Requirement::Auto, requirement),
        unsigned_observe: section.or("unsigned_observe", true, boolean),
        refresh: section.or("refresh", secs(3600), duration(secs(1)..=secs(7 * 86_400))),
        clock_tolerance: section.or("clock_tolerance", secs(120), duration(secs(0)..=secs(86_400))),
    };
    section.finish();
    settings
}

/// `"auto"`, `true` or `false`.
fn requirement(node: &Node) -> Result<Requirement, String> {
    match &node.value {
        Value::Bool(true) => Ok(Requirement::Always),
        Value::Bool(false) => Ok(Requirement::Never),
        Value::Text(_) if text(node)? == "auto" => Ok(Requirement::Auto),
        other => Err(format!("expected \"auto\", true or false, found {}", other.kind())),
    }
}
