//! The newest log lines of this process, kept in memory so that they can be asked for from afar.
//!
//! Bounded in bytes; the oldest is dropped first. Only what passes the log's own filter comes here. What a child of
//! the agent writes is not in it: that goes to the system's log alone.

use serde::Serialize;
use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::{Mutex, PoisonError};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Bytes of lines that are kept.
const MAX_BYTES: usize = 256 << 10;
/// Longest line, bytes.
const MAX_LINE: usize = 2 << 10;
/// What a line takes besides its text.
const OVERHEAD: usize = 64;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// When, by the device's clock.
    pub at: jiff::Timestamp,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    #[serde(serialize_with = "level")]
    pub level: Level,
    /// What was said, with its fields.
    pub text: String,
}

fn level<S: serde::Serializer>(level: &Level, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(word(*level))
}

/// The word of a level.
fn word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        _trace => "trace",
    }
}

/// Lines in memory.
#[derive(Debug)]
pub struct Ring {
    lines: Mutex<(VecDeque<Line>, usize)>,
}

/// Those of this process, like the log itself.
static RING: Ring = Ring::new();

/// The newest lines of this process, the oldest first: at most `count` of at least this level, and of at most
/// `max_bytes` of text.
pub fn newest(count: usize, least: Level, max_bytes: usize) -> Vec<Line> {
    RING.newest(count, least, max_bytes)
}

impl Ring {
    const fn new() -> Self {
        Self { lines: Mutex::new((VecDeque::new(), 0)) }
    }

    fn push(&self, line: Line) {
        let mut kept = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let (lines, bytes) = &mut *kept;
        *bytes += line.text.len() + OVERHEAD;
        lines.push_back(line);
        while *bytes > MAX_BYTES {
            let Some(oldest) = lines.pop_front() else { break };
            *bytes -= oldest.text.len() + OVERHEAD;
        }
    }

    fn newest(&self, count: usize, least: Level, max_bytes: usize) -> Vec<Line> {
        let kept = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut room = max_bytes;
        let wanted = kept.0.iter().rev().filter(|line| line.level <= least).take(count);
        let mut found: Vec<Line> = wanted
            .map_while(|line| {
                room = room.checked_sub(line.text.len() + OVERHEAD)?;
                Some(line.clone())
            })
            .collect();
        found.reverse();
        found
    }
}

/// Brings log lines into the memory of this process.
#[derive(Debug, Default)]
pub struct Keep;

impl<S: Subscriber> Layer<S> for Keep {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let Text { message, fields } = text;
        let mut text = message + &fields;
        if text.len() > MAX_LINE {
            let end = (0..=MAX_LINE).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(end);
            text.push('…');
        }
        RING.push(Line { at: jiff::Timestamp::now(), level: *event.metadata().level(), text });
    }
}

/// The message, and the other fields after it.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing into a text does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(level: Level, text: &str) -> Line {
        Line { at: jiff::Timestamp::UNIX_EPOCH, level, text: text.to_owned() }
    }

    #[test]
    fn the_newest_are_kept_within_the_bounds() {
        let ring = Ring::new();
        for n in 0..5000 {
            ring.push(line(Level::INFO, &format!("{n} {}", "x".repeat(500))));
        }
        let (count, bytes) = {
            let kept = ring.lines.lock().unwrap();
            (kept.0.len(), kept.1)
        };
        assert!(count > 400 && bytes <= MAX_BYTES, "{count} {bytes}");
        let found = ring.newest(3, Level::TRACE, usize::MAX);
        let starts: Vec<&str> = found.iter().map(|line| &line.text[..4]).collect();
        assert_eq!(starts, ["4997", "4998", "4999"]);
        assert_eq!(ring.newest(100, Level::TRACE, 3 * 600).len(), 3, "bounded in bytes");
        assert_eq!(ring.newest(0, Level::TRACE, usize::MAX), []);
    }

    #[test]
    fn a_level_leaves_out_what_is_less_grave() {
        let ring = Ring::new();
        for level in [Level::ERROR, Level::DEBUG, Level::WARN, Level::INFO] {
            ring.push(line(level, word(level)));
        }
        let texts = |least| {
            let found = ring.newest(10, least, usize::MAX);
            found.into_iter().map(|line| line.text).collect::<Vec<_>>()
        };
        assert_eq!(texts(Level::ERROR), ["error"]);
        assert_eq!(texts(Level::WARN), ["error", "warn"]);
        assert_eq!(texts(Level::TRACE), ["error", "debug", "warn", "info"]);
        let json = serde_json::to_value(line(Level::WARN, "x")).unwrap();
        assert_eq!(json["level"], "warn");
    }
}
