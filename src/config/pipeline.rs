//! Keys of a pipeline that need more than one look.

use super::file::{Node, Value};
use super::value::duration;
use std::time::Duration;

/// A time span, or "off".
pub fn max_age(node: &Node) -> Result<Option<Duration>, String> {
    match &node.value {
        Value::Text(word) if word == "off" => Ok(None),
        _ => duration(Duration::from_millis(10)..=Duration::from_secs(86_400))(node)
            .map(Some)
            .map_err(|fault| format!("{fault}; or \"off\" for frames of any age")),
    }
}
