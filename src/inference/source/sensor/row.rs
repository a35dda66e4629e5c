//! One sample from one line or message: CSV fields or JSON, columns by name or number.

use crate::domain::source::{Column, RowFormat, TimeColumn};
use serde_json::Value;

/// Fields of a line that are looked at.
const MAX_FIELDS: usize = 4096;

/// Its own time in nanoseconds, where it has one, and a value for each channel.
pub type Sample<'a> = (Option<i64>, &'a [f32]);

/// Reads rows of one kind; knows the header once it has come.
#[derive(Debug, Clone)]
pub struct Rows {
    format: RowFormat,
    columns: Vec<Column>,
    time: Option<TimeColumn>,
    /// Places in a line of the columns and of the time, from 0; `None` until a header has come.
    places: Option<(Vec<usize>, Option<usize>)>,
    /// True when a column has a name, so that a header is needed.
    named: bool,
    first: bool,
    splitter: Splitter,
    fields: Vec<(usize, usize)>,
    text: Vec<u8>,
    values: Vec<f32>,
}

impl Rows {
    /// For these columns.
    pub fn new(format: RowFormat, columns: &[Column], time: Option<&TimeColumn>) -> Self {
        let place = |column: &Column| match column {
            Column::Number(number) => Some((*number as usize).saturating_sub(1)),
            Column::Name(_) => None,
        };
        let all: Option<Vec<usize>> = columns.iter().map(place).collect();
        let own = time.map(|time| place(&time.column));
        let places = match (all, own) {
            (Some(all), None) => Some((all, None)),
            (Some(all), Some(Some(own))) => Some((all, Some(own))),
            _ => None,
        };
        let delimiter = match format {
            RowFormat::Csv { delimiter } => delimiter,
            RowFormat::Json => b',',
        };
        Self {
            format,
            columns: columns.to_vec(),
            time: time.cloned(),
            named: places.is_none(),
            places,
            first: true,
            splitter: Splitter::new(delimiter),
            fields: Vec::new(),
            text: Vec::new(),
            values: vec![0.0; columns.len()],
        }
    }

    /// Reads one line or message. `None` for a header, a comment (`#`) or an empty line.
    ///
    /// # Errors
    /// What is wrong with it, without its source's name.
    pub fn read(&mut self, line: &[u8]) -> Result<Option<Sample<'_>>, String> {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            return Ok(None);
        }
        match self.format {
            RowFormat::Csv { .. } => self.csv(line),
            RowFormat::Json => self.json(line).map(|at| Some((at, &self.values[..]))),
        }
    }

    fn csv(&mut self, line: &[u8]) -> Result<Option<Sample<'_>>, String> {
        self.fields.clear();
        self.text.clear();
        let (fields, text) = (&mut self.fields, &mut self.text);
        self.splitter.split(line, |field| {
            if fields.len() < MAX_FIELDS {
                fields.push((text.len(), field.len()));
                text.extend_from_slice(field.as_bytes());
            }
        });
        let first = std::mem::replace(&mut self.first, false);
        if self.named && self.header() {
            return Ok(None);
        }
        let Some((places, own)) = &self.places else {
            let missing = self.missing();
            return Err(format!(
                "no header has named {missing} yet, and {} came; name the columns by number if there is none",
                quote(line)
            ));
        };
        for (value, &place) in self.values.iter_mut().zip(places) {
            let field = field(&self.fields, &self.text, place).ok_or_else(|| {
                format!("{} has {} fields, column {} is wanted", quote(line), self.fields.len(), place + 1)
            })?;
            *value = match number(field) {
                Some(number) => number,
                // What a header by numbers looks like.
                None if first => return Ok(None),
                None => {
                    return Err(format!("column {}: {} is no number", place + 1, quote(field.as_bytes())));
                }
            };
        }
        let at = match (&self.time, own) {
            (Some(time), Some(place)) => {
                let word = field(&self.fields, &self.text, *place).unwrap_or_default();
                Some(
                    time_of(word, time.unit_ns)
                        .ok_or_else(|| format!("time: {} is none", quote(word.as_bytes())))?,
                )
            }
            _ => None,
        };
        Ok(Some((at, &self.values[..])))
    }

    /// Takes the line as a header if it names every wanted column.
    fn header(&mut self) -> bool {
        let (fields, text) = (&self.fields, &self.text);
        let place = |column: &Column| match column {
            Column::Number(number) => Some((*number as usize).saturating_sub(1)),
            Column::Name(name) => {
                (0..fields.len()).find(|&at| field(fields, text, at) == Some(name.as_str()))
            }
        };
        let Some(all) = self.columns.iter().map(place).collect::<Option<Vec<_>>>() else { return false };
        let own = match &self.time {
            None => None,
            Some(time) => match place(&time.column) {
                None => return false,
                own => own,
            },
        };
        self.places = Some((all, own));
        true
    }

    /// The first wanted name, for a message.
    fn missing(&self) -> String {
        let columns = self.columns.iter().chain(self.time.iter().map(|time| &time.column));
        let name = columns.into_iter().find_map(|column| match column {
            Column::Name(name) => Some(name.as_str()),
            Column::Number(_) => None,
        });
        format!("{:?}", name.unwrap_or_default())
    }

    fn json(&mut self, line: &[u8]) -> Result<Option<i64>, String> {
        let row: Value = serde_json::from_slice(line).map_err(|error| format!("{}: {error}", quote(line)))?;
        for (value, column) in self.values.iter_mut().zip(&self.columns) {
            let found = find(&row, column)?;
            *value = match found {
                Value::Null => f32::NAN,
                Value::Bool(bit) => f32::from(u8::from(*bit)),
                Value::Number(number) => number.as_f64().map_or(f32::NAN, |number| number as f32),
                Value::String(word) => number(word).ok_or_else(|| format!("{}: no number", say(column)))?,
                Value::Array(_) | Value::Object(_) => return Err(format!("{}: no number", say(column))),
            };
        }
        let Some(time) = &self.time else { return Ok(None) };
        let word = match find(&row, &time.column)? {
            Value::String(word) => word.clone(),
            other => other.to_string(),
        };
        match time_of(&word, time.unit_ns) {
            Some(at) => Ok(Some(at)),
            None => Err(format!("time: {} is none", quote(word.as_bytes()))),
        }
    }
}

fn find<'a>(row: &'a Value, column: &Column) -> Result<&'a Value, String> {
    let found = match (column, row) {
        (Column::Number(1), Value::Number(_)) => Some(row),
        (Column::Number(number), Value::Array(items)) => items.get((*number as usize).saturating_sub(1)),
        // A name with dots in it comes before a way into nested objects.
        (Column::Name(name), Value::Object(fields)) => {
            fields.get(name).or_else(|| name.split('.').try_fold(row, |row, part| row.get(part)))
        }
        _ => None,
    };
    found.ok_or_else(|| format!("{} is not in {}", say(column), quote(row.to_string().as_bytes())))
}

fn say(column: &Column) -> String {
    match column {
        Column::Number(number) => format!("column {number}"),
        Column::Name(name) => format!("{name:?}"),
    }
}

fn field<'a>(fields: &[(usize, usize)], text: &'a [u8], at: usize) -> Option<&'a str> {
    let &(start, length) = fields.get(at)?;
    std::str::from_utf8(text.get(start..start + length)?).ok()
}

/// An empty field is a gap.
fn number(field: &str) -> Option<f32> {
    if field.is_empty() { Some(f32::NAN) } else { field.parse().ok() }
}

/// Nanoseconds; whole numbers are exact.
fn time_of(word: &str, unit_ns: u64) -> Option<i64> {
    if let Ok(whole) = word.parse::<i64>() {
        return i64::try_from(i128::from(whole) * i128::from(unit_ns)).ok();
    }
    let ns = word.parse::<f64>().ok()? * unit_ns as f64;
    (ns.is_finite() && ns.abs() < 9.2e18).then_some(ns as i64)
}

/// At most 60 characters of what came, readable.
fn quote(bytes: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(bytes).chars().take(60).collect();
    format!("{text:?}")
}

/// Splits lines of CSV into fields, quotes taken off, blanks around them cut.
#[derive(Debug)]
pub struct Splitter {
    delimiter: u8,
    reader: csv_core::Reader,
    text: Vec<u8>,
    ends: Vec<usize>,
}

/// A new one of the same kind: a clone of csv-core's reader (0.1.13) has forgotten its delimiter.
impl Clone for Splitter {
    fn clone(&self) -> Self {
        Self::new(self.delimiter)
    }
}

impl Splitter {
    /// For this delimiter; a blank stands for any run of blanks.
    pub fn new(delimiter: u8) -> Self {
        let reader = csv_core::ReaderBuilder::new().delimiter(delimiter).build();
        Self { delimiter, reader, text: Vec::new(), ends: Vec::new() }
    }

    /// Hands over each field of one line; one that is not UTF-8 is handed over empty.
    pub fn split(&mut self, line: &[u8], mut take: impl FnMut(&str)) {
        let mut field = |bytes: &[u8]| {
            let bytes = bytes.trim_ascii();
            // A quote behind a blank is no quote to the reader.
            let bare = bytes.strip_prefix(b"\"").and_then(|bytes| bytes.strip_suffix(b"\""));
            take(std::str::from_utf8(bare.unwrap_or(bytes)).unwrap_or_default());
        };
        if self.delimiter == b' ' {
            line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).for_each(field);
            return;
        }
        self.text.resize(line.len() + 1, 0);
        self.ends.resize(line.len() + 2, 0);
        self.reader.reset();
        let (mut text, mut ends, mut rest) = (0, 0, line);
        loop {
            // An empty input tells the reader that the line is over.
            let (result, read, written, ended) =
                self.reader.read_record(rest, &mut self.text[text..], &mut self.ends[ends..]);
            (text, ends, rest) = (text + written, ends + ended, &rest[read..]);
            if result != csv_core::ReadRecordResult::InputEmpty {
                break;
            }
        }
        let mut start = 0;
        for &end in &self.ends[..ends] {
            field(&self.text[start..end]);
            start = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CSV: RowFormat = RowFormat::Csv { delimiter: b',' };

    fn names(names: &[&str]) -> Vec<Column> {
        names.iter().map(|name| Column::Name((*name).to_owned())).collect()
    }

    fn seconds(column: &str) -> TimeColumn {
        TimeColumn { column: Column::Name(column.into()), unit_ns: 1_000_000_000 }
    }

    /// A row as text, `-` for none, a fault as it is.
    fn read(rows: &mut Rows, line: &str) -> String {
        match rows.read(line.as_bytes()) {
            Ok(Some((at, values))) => format!("{} {values:?}", at.map_or("-".into(), |at| at.to_string())),
            Ok(None) => "-".into(),
            Err(fault) => fault,
        }
    }

    #[test]
    fn csv_by_name_needs_its_header_and_takes_a_new_one() {
        let mut rows = Rows::new(CSV, &names(&["y", "x"]), Some(&seconds("t")));
        assert!(read(&mut rows, "1,2,3").contains("no header has named \"y\" yet"));
        assert_eq!(read(&mut rows, "t, x , \"y\"\r"), "-");
        assert_eq!(read(&mut rows, "1.5,2,3"), "1500000000 [3.0, 2.0]");
        assert!(read(&mut rows, "7,,\"1,5\"").contains("column 3: \"1,5\" is no number"));
        assert_eq!(read(&mut rows, "7,,nan"), "7000000000 [NaN, NaN]");
        assert_eq!(read(&mut rows, "x,y,t"), "-");
        assert_eq!(read(&mut rows, "2,3,4"), "4000000000 [3.0, 2.0]");
        assert!(read(&mut rows, "2,3,later").contains("time: \"later\" is none"));
        assert!(read(&mut rows, "2").contains("has 1 fields, column 2 is wanted"));
    }

    #[test]
    fn csv_by_number_passes_over_a_first_line_of_words() {
        let mut rows = Rows::new(CSV, &[Column::Number(3), Column::Number(1)], None);
        for (line, wanted) in [("a,b,c", "-"), ("1,2,3", "- [3.0, 1.0]"), ("", "-"), ("# 1,2,3", "-")] {
            assert_eq!(read(&mut rows, line), wanted);
        }
        assert!(read(&mut rows, "a,b,c").contains("\"c\" is no number"));
        assert_eq!(read(&mut rows.clone(), "4,5,6"), "- [6.0, 4.0]", "a copy reads as well");
        let mut blanks = Rows::new(RowFormat::Csv { delimiter: b' ' }, &[Column::Number(2)], None);
        assert_eq!(read(&mut blanks, "  1   -2.5e1\t3 "), "- [-25.0]");
    }

    #[test]
    fn json_by_name_place_or_alone() {
        let mut rows = Rows::new(RowFormat::Json, &names(&["a", "b.c"]), Some(&seconds("t")));
        assert_eq!(read(&mut rows, r#"{"a": 1, "b": {"c": "2.5"}, "t": 3}"#), "3000000000 [1.0, 2.5]");
        assert_eq!(read(&mut rows, r#"{"a": null, "b.c": true, "t": "4"}"#), "4000000000 [NaN, 1.0]");
        assert!(read(&mut rows, r#"{"a": 1, "t": 3}"#).contains("\"b.c\" is not in"));
        assert!(read(&mut rows, r#"{"a": [], "b": {"c": 1}, "t": 3}"#).contains("\"a\": no number"));
        assert!(read(&mut rows, "{oops").contains("key must be a string"));
        let mut places = Rows::new(RowFormat::Json, &[Column::Number(2)], None);
        assert_eq!(read(&mut places, "[1, 2]"), "- [2.0]");
        assert!(read(&mut places, "[1]").contains("column 2 is not in"));
        assert_eq!(read(&mut Rows::new(RowFormat::Json, &[Column::Number(1)], None), "21.5"), "- [21.5]");
    }

    #[test]
    fn whole_times_are_exact() {
        assert_eq!(time_of("1700000000123456789", 1), Some(1_700_000_000_123_456_789));
        assert_eq!(time_of("1700000000123", 1_000_000), Some(1_700_000_000_123_000_000));
        assert_eq!(time_of("99999999999999999", 1_000_000_000), None);
        assert_eq!(time_of("1e300", 1), None);
    }

    proptest! {
        #[test]
        fn any_line_is_survived(line: Vec<u8>, text in ".*", delimiter in prop::sample::select(vec![b',', b';', b'\t', b' '])) {
            for format in [RowFormat::Csv { delimiter }, RowFormat::Json] {
                let mut rows = Rows::new(format, &[Column::Number(2), Column::Name("a".into())], None);
                let mut numbers = Rows::new(format, &[Column::Number(1)], None);
                for line in [&line[..], text.as_bytes()] {
                    let _ = rows.read(line);
                    let _ = numbers.read(line);
                }
            }
        }
    }
}
