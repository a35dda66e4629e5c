//! `[homeassistant]`: whether the device makes itself known to Home Assistant, and where.

use super::file::{Node, Section};
use super::settings::HomeAssistantSettings;
use super::value::{boolean, shorten, text};

/// Longest prefix, bytes.
const MAX_PREFIX: usize = 64;
/// Levels of a prefix: with those of a discovery topic there are at most 7 slashes, what AWS IoT Core allows.
const MAX_LEVELS: usize = 4;

/// The checked table.
pub fn homeassistant(mut section: Section<'_>) -> HomeAssistantSettings {
    let discovery = section.or("discovery", true, boolean);
    let prefix = section.or("prefix", "homeassistant".to_owned(), prefix);
    section.finish();
    HomeAssistantSettings { discovery, prefix }
}

fn prefix(node: &Node) -> Result<String, String> {
    let prefix = text(node)?;
    let bad = |c: char| matches!(c, '+' | '#' | '$') || c.is_control() || c.is_whitespace();
    let levels = prefix.split('/').count();
    let empty = prefix.split('/').any(str::is_empty);
    if prefix.len() > MAX_PREFIX || levels > MAX_LEVELS || empty || prefix.contains(bad) {
        let shown = shorten(prefix);
        return Err(format!(
            "\"{shown}\" is no discovery prefix; write what Home Assistant's MQTT options show, such as \
             \"homeassistant\""
        ));
    }
    Ok(prefix.to_owned())
}
