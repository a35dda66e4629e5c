//! How answers look to people: colours and bars only on a terminal, tables, sizes and durations in
//! words; and the `--json` flag for machines.

use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// Like `println!`, through [`print()`]: for functions that return an `anyhow::Result`.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::cli::ui::print(&(format!($($text)*) + "\n"))?
    };
}
pub(crate) use say;

/// Flattened into the arguments of every command that prints something for machines.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct Json {
    /// Print JSON for machines instead of text for people; an error is one JSON object on standard error
    #[arg(long)]
    pub json: bool,
}

/// All is well.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Works, but look at it.
pub const WARN: Style = AnsiColor::Yellow.on_default();
/// Does not work.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// Of lesser weight.
pub const DIM: Style = Style::new().dimmed();

/// The text in a style; `anstream` takes the style off again where nobody sees colours.
pub fn styled(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// One JSON value on one line of standard output.
pub fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut line = serde_json::to_string(value)?;
    line.push('\n');
    print(&line)
}

/// Text on standard output, with its styles where they are seen. A closed pipe (`… | head`) is the
/// reader's wish to hear no more, and no fault.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// The words of the manifest for a value that is one word or an object in it.
pub fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(value) => value.to_string(),
        // No type of the manifest fails to serialise.
        Err(error) => error.to_string(),
    }
}

/// `n thing`, or `n things` where there is not one of them.
pub fn count(n: usize, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

/// A table without lines, as wide as the terminal, or as it needs when there is none.
pub fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(head.to_vec());
    match terminal_width() {
        Some(width) => table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    table
}

/// The table's text without the blanks that end its lines.
pub fn render(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn terminal_width() -> Option<u16> {
    let out = std::io::stdout();
    if !out.is_terminal() {
        return None;
    }
    rustix::termios::tcgetwinsize(&out).ok().map(|size| size.ws_col).filter(|columns| *columns >= 40)
}

/// Bytes in words: `0 B`, `999 B`, `1.5 MB`, `2.0 GB`; powers of 1000.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB"] {
        // What would round to 1000 is said in the next unit.
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    if unit == "B" || value >= 99.95 { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
}

/// A time span in words: `850 ms`, `12 s`, `5 min 3 s`, `2 h 10 min`, `3 d 4 h`.
pub fn span(span: Duration) -> String {
    let s = span.as_secs();
    let two = |large: u64, large_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large} {large_unit}"),
        _ => format!("{large} {large_unit} {small} {small_unit}"),
    };
    match s {
        0 => format!("{} ms", span.as_millis()),
        1..60 => format!("{s} s"),
        60..3600 => two(s / 60, "min", s % 60, "s"),
        3600..86400 => two(s / 3600, "h", s % 3600 / 60, "min"),
        _ => two(s / 86400, "d", s % 86400 / 3600, "h"),
    }
}

/// Shows how far something has come: a bar on a terminal, else a line for every new step. On
/// standard error, so that the answer on standard output stays clean.
pub struct Steps {
    bar: Option<ProgressBar>,
    last: String,
}

impl Steps {
    /// Shows nothing yet.
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg:40!} {wide_bar} {percent:>3} %") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar, last: String::new() }
    }

    /// A step, and how much of it is done (0 to 1) where that is known.
    pub fn step(&mut self, detail: &str, fraction: Option<f32>) {
        if let Some(bar) = &self.bar {
            bar.set_message(detail.to_owned());
            bar.set_position((fraction.unwrap_or(0.0).clamp(0.0, 1.0) * 1000.0) as u64);
        } else if self.last != detail {
            anstream::eprintln!("{detail}");
        }
        if self.last != detail {
            self.last = detail.to_owned();
        }
    }

    /// Takes the bar away.
    pub fn end(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Default for Steps {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_in_words() {
        for (bytes, words) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1_500_000, "1.5 MB"),
            (999_960, "1.0 MB"),
            (123_456_789, "123 MB"),
            (2_000_000_000, "2.0 GB"),
            (u64::MAX, "18446744 TB"),
        ] {
            assert_eq!(size(bytes), words, "{bytes}");
        }
    }

    #[test]
    fn time_spans_in_words() {
        for (ms, words) in [
            (0, "0 ms"),
            (850, "850 ms"),
            (12_000, "12 s"),
            (303_000, "5 min 3 s"),
            (7_200_000, "2 h"),
            (7_800_000, "2 h 10 min"),
            (273_600_000, "3 d 4 h"),
        ] {
            assert_eq!(span(Duration::from_millis(ms)), words, "{ms}");
        }
    }

    #[test]
    fn a_table_has_no_blanks_at_the_ends_of_its_lines() {
        let mut table = table(&["a", "b"]);
        table.add_row(["1", ""]);
        assert!(render(&table).lines().all(|line| !line.ends_with(' ')));
    }
}
