//! Readers of single values: what a key's text or number means, and what to say when it means nothing.
//!
//! Each takes the value as written and returns it checked, or one sentence with the fault and the
//! remedy; the key and the line are added by the caller.

use super::file::{Node, Value};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Text as it is; an empty one is refused.
pub fn text(node: &Node) -> Result<&str, String> {
    match &node.value {
        Value::Text(text) if text.trim().is_empty() => Err("is empty; leave the key out instead".into()),
        Value::Text(text) => Ok(text),
        other => Err(format!("expected text, found {}; put it in quotes", other.kind())),
    }
}

/// Text that becomes a type with a rule of its own.
pub fn parsed<T: FromStr>(node: &Node) -> Result<T, String>
where
    T::Err: Display,
{
    text(node)?.parse().map_err(|error: T::Err| error.to_string())
}

/// `true` or `false`.
pub fn boolean(node: &Node) -> Result<bool, String> {
    match &node.value {
        Value::Bool(value) => Ok(*value),
        other => Err(format!("expected true or false without quotes, found {}", other.kind())),
    }
}

/// A whole number in a range.
pub fn whole(range: RangeInclusive<u64>) -> impl Fn(&Node) -> Result<u64, String> {
    move |node| match &node.value {
        Value::Integer(number) => match u64::try_from(*number) {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(format!("{number} is out of range; use {} to {}", range.start(), range.end())),
        },
        other => Err(format!("expected a whole number, found {}", other.kind())),
    }
}

/// A number, with or without a fraction, in a range.
pub fn number(range: RangeInclusive<f32>) -> impl Fn(&Node) -> Result<f32, String> {
    move |node| {
        let number = match &node.value {
            Value::Integer(number) => *number as f64,
            Value::Float(number) => *number,
            other => return Err(format!("expected a number, found {}", other.kind())),
        };
        // NaN is in no range.
        if (f64::from(*range.start())..=f64::from(*range.end())).contains(&number) {
            Ok(number as f32)
        } else {
            Err(format!("{number} is out of range; use {} to {}", range.start(), range.end()))
        }
    }
}

const DURATION_UNITS: [(&str, f64); 5] =
    [("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86400.0)];

/// A time span in text with its unit: `"500ms"`, `"30s"`, `"5m"`, `"2h"`, `"1d"`.
pub fn duration(range: RangeInclusive<Duration>) -> impl Fn(&Node) -> Result<Duration, String> {
    move |node| {
        let units = "write a number and its unit, such as \"500ms\", \"30s\", \"5m\", \"2h\" or \"1d\"";
        let text = match &node.value {
            Value::Text(text) => text,
            other => return Err(format!("expected a time span, found {}; {units}", other.kind())),
        };
        let seconds = with_unit(text, &DURATION_UNITS)
            .ok_or_else(|| format!("\"{}\" is no time span; {units}", shorten(text)))?;
        let span = Duration::try_from_secs_f64(seconds)
            .map_err(|_| format!("\"{}\" is too long; {units}", shorten(text)))?;
        if range.contains(&span) {
            Ok(span)
        } else {
            let (least, most) = (say_duration(*range.start()), say_duration(*range.end()));
            Err(format!("\"{}\" is out of range; use \"{least}\" to \"{most}\"", shorten(text)))
        }
    }
}

/// A time span as it is written in the file and on the command line: `90s`, `10m`.
pub fn span(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(with_unit(text, &DURATION_UNITS)?).ok()
}

/// A duration as it would be written in the file.
pub fn say_duration(span: Duration) -> String {
    let ms = span.as_millis();
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)]
        .into_iter()
        .find(|(_, unit)| ms >= *unit && ms.is_multiple_of(*unit))
        .map_or_else(|| format!("{ms}ms"), |(name, unit)| format!("{}{name}", ms / unit))
}

const SIZE_UNITS: [(&str, f64); 9] = [
    ("B", 1.0),
    ("kB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("TB", 1e12),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("TiB", 1_099_511_627_776.0),
];

/// Bytes: a whole number, or text with a unit such as `"256MiB"` or `"2GB"`.
pub fn bytes(range: RangeInclusive<u64>) -> impl Fn(&Node) -> Result<u64, String> {
    move |node| {
        let units = "write bytes, or text with a unit such as \"500kB\", \"256MiB\" or \"2GB\"";
        let size = match &node.value {
            Value::Integer(number) => u64::try_from(*number).ok(),
            Value::Text(text) => {
                with_unit(text, &SIZE_UNITS).filter(|size| *size < 1e18).map(|size| size as u64)
            }
            other => return Err(format!("expected a size, found {}; {units}", other.kind())),
        };
        let size = size.ok_or_else(|| format!("is no size; {units}"))?;
        if range.contains(&size) {
            Ok(size)
        } else {
            Err(format!("{size} bytes is out of range; use {} to {} bytes", range.start(), range.end()))
        }
    }
}

/// A number followed by one of the units, in the unit's base. Never negative.
fn with_unit(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(split);
    let factor = units.iter().find(|(name, _)| *name == unit.trim_start())?.1;
    Some(number.parse::<f64>().ok()? * factor)
}

/// One of a few words.
pub fn one_of<T: Copy>(words: &'static [(&'static str, T)]) -> impl Fn(&Node) -> Result<T, String> {
    move |node| {
        let text = text(node)?;
        words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
            let all: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            format!("\"{}\" is not known; use {}", shorten(text), all.join(" or "))
        })
    }
}

/// A path; a relative one counts from the folder of the file in which it is written.
pub fn path(node: &Node) -> Result<PathBuf, String> {
    let text = text(node)?;
    if text.starts_with('~') {
        return Err(format!("\"{}\": \"~\" means nothing to a daemon; write the whole path", shorten(text)));
    }
    if text.contains('\0') {
        return Err("holds a null character".into());
    }
    Ok(node.at.file.parent().unwrap_or(Path::new("/")).join(text))
}

/// A file with a secret: a path, or `credential:NAME` for one that systemd hands over in the folder
/// `credentials`.
pub fn secret_file(node: &Node, credentials: Option<&Path>) -> Result<PathBuf, String> {
    let Some(name) = text(node)?.strip_prefix("credential:") else { return path(node) };
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err(
            "is no credential; write credential:NAME with the name in LoadCredential= of the unit".into()
        );
    }
    // Outside of the unit (`edgewarden check` run by hand) the variable is not set, but the place is known.
    Ok(credentials.unwrap_or(Path::new("/run/credentials/edgewarden.service")).join(name))
}

/// At most 80 characters of what was written.
pub fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::super::file::Place;
    use super::*;

    fn node(value: Value) -> Node {
        Node { at: Place { file: Path::new("/etc/edgewarden/agent.toml").into(), line: 1 }, value }
    }

    fn text_node(text: &str) -> Node {
        node(Value::Text(text.into()))
    }

    #[test]
    fn a_time_span_needs_its_unit() {
        let read = duration(Duration::from_millis(1)..=Duration::from_secs(86400));
        let cases =
            [("500ms", 500), ("30s", 30_000), ("1.5m", 90_000), ("2 h", 7_200_000), ("1d", 86_400_000)];
        for (text, ms) in cases {
            assert_eq!(read(&text_node(text)), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["30", "s", "-1s", "1 week", "", "2d", "0s", "1e3s", "99999999999999999999999d", "1..2s"] {
            assert!(read(&text_node(bad)).is_err(), "{bad} must be refused");
        }
        assert!(read(&node(Value::Integer(30))).unwrap_err().contains("\"30s\""));
    }

    #[test]
    fn a_time_span_is_said_as_it_is_written() {
        let read = duration(Duration::ZERO..=Duration::from_secs(1 << 40));
        for text in ["500ms", "30s", "5m", "2h", "1d", "90s", "1500ms"] {
            assert_eq!(say_duration(read(&text_node(text)).unwrap()), text);
        }
    }

    #[test]
    fn a_size_is_bytes_or_has_a_unit() {
        let read = bytes(0..=u64::MAX);
        assert_eq!(read(&node(Value::Integer(7))), Ok(7));
        assert_eq!(read(&text_node("256MiB")), Ok(256 << 20));
        assert_eq!(read(&text_node("2 GB")), Ok(2_000_000_000));
        for bad in ["2", "2gb", "-1B", "1e30TB", "MB"] {
            assert!(read(&text_node(bad)).is_err(), "{bad} must be refused");
        }
        assert!(read(&node(Value::Integer(-1))).is_err());
    }

    #[test]
    fn numbers_outside_their_range_are_refused() {
        let read = number(0.0..=1.0);
        assert_eq!(read(&node(Value::Integer(1))), Ok(1.0));
        for bad in [f64::NAN, f64::INFINITY, -0.1, 1.1] {
            assert!(read(&node(Value::Float(bad))).is_err(), "{bad} must be refused");
        }
        assert!(whole(1..=4)(&node(Value::Integer(-3))).is_err());
        assert_eq!(whole(1..=4)(&node(Value::Integer(4))), Ok(4));
    }

    #[test]
    fn a_relative_path_counts_from_its_file() {
        assert_eq!(path(&text_node("root.json")).unwrap(), Path::new("/etc/edgewarden/root.json"));
        assert_eq!(path(&text_node("/srv/a")).unwrap(), Path::new("/srv/a"));
        assert!(path(&text_node("~/a")).is_err());
    }
}
