//! Text of strangers, made safe to be shown.

use std::fmt::Write;

/// At most `most` characters of the text, with all that a terminal would obey, or that would change the order
/// or look of what stands beside it, written out as `\u{…}`.
pub fn shown(text: &str, most: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(most.saturating_mul(4)));
    for (at, c) in text.chars().enumerate() {
        if at == most {
            shown.push('…');
            break;
        }
        if is_obeyed(c) {
            let _ = write!(shown, "{}", c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// The same for JSON that is already written: such characters can only stand inside strings there, where they
/// may be written as `\uXXXX`, so that it stays the same JSON.
pub fn shown_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    let mut units = [0; 2];
    for c in json.chars() {
        if is_obeyed(c) && c != '\n' {
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Controls of both ranges, and what is not seen itself: marks of direction, joiners, separators of lines, tags.
pub fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// The same for every text of a JSON value, its keys among them; none is cut.
pub fn shown_value(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::String(text) => Value::String(shown(&text, usize::MAX)),
        Value::Array(all) => all.into_iter().map(shown_value).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(key, value)| (shown(&key, usize::MAX), shown_value(value))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}
