//! What a program says on its standard error: line by line into the log, in bounds, and the last of it
//! kept, so that its end can be told with its own words.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A longer line is cut, bytes; what is shown of it is shorter still.
const MAX_LINE: usize = 4096;
const MAX_SHOWN: usize = 300;
/// Lines kept for the end.
const KEPT: usize = 8;
/// So many lines are logged in so much time; the others are counted.
const LOGGED: u32 = 10;
const LOGGED_IN: Duration = Duration::from_secs(10);

/// Takes what a program says.
#[derive(Debug)]
pub struct Stderr {
    program: String,
    /// What must not be shown: a password in each way it may be written.
    secrets: Vec<String>,
    line: Vec<u8>,
    last: VecDeque<String>,
    window: Option<Instant>,
    logged: u32,
    left_out: u32,
}

impl Stderr {
    /// For the program of this name.
    pub fn new(program: &str, secrets: &[String]) -> Self {
        let mut secrets: Vec<String> = secrets.iter().filter(|secret| !secret.is_empty()).cloned().collect();
        // The longer first: one may be a part of another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self {
            program: program.to_owned(),
            secrets,
            line: Vec::new(),
            last: VecDeque::new(),
            window: None,
            logged: 0,
            left_out: 0,
        }
    }

    /// Takes bytes as they come.
    pub fn take(&mut self, bytes: &[u8], now: Instant) {
        for piece in bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            let end = matches!(piece.last(), Some(b'\n' | b'\r'));
            let text = &piece[..piece.len() - usize::from(end)];
            let room = MAX_LINE - self.line.len();
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if end {
                self.end_line(now);
            }
        }
    }

    /// There will be no more.
    pub fn end(&mut self, now: Instant) {
        self.end_line(now);
    }

    fn end_line(&mut self, now: Instant) {
        let mut line = String::from_utf8_lossy(&self.line).into_owned();
        self.line.clear();
        for secret in &self.secrets {
            line = line.replace(secret.as_str(), "***");
        }
        // A program's colours and cursor movements are not for a log.
        let mut shown: String = line.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect();
        shown.truncate(shown.trim_end().len());
        if shown.trim().is_empty() {
            return;
        }
        self.log(&shown, now);
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(shown);
    }

    fn log(&mut self, line: &str, now: Instant) {
        if self.window.is_none_or(|since| now - since >= LOGGED_IN) {
            if self.left_out > 0 {
                tracing::info!(program = %self.program, "{} more lines were left out", self.left_out);
            }
            (self.window, self.logged, self.left_out) = (Some(now), 0, 0);
        }
        if self.logged < LOGGED {
            self.logged += 1;
            tracing::info!(program = %self.program, "{line}");
        } else {
            self.left_out += 1;
        }
    }

    /// The line that tells most of why it ended: the last one, but GStreamer's first error, as the
    /// later ones only follow from it.
    pub fn last(&self) -> Option<&str> {
        let cause = self.last.iter().find(|line| line.starts_with("ERROR: from element"));
        cause.or(self.last.back()).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &[&str], secrets: &[&str]) -> Stderr {
        let secrets: Vec<String> = secrets.iter().map(|s| (*s).to_owned()).collect();
        let mut said = Stderr::new("test", &secrets);
        for piece in text {
            said.take(piece.as_bytes(), Instant::now());
        }
        said.end(Instant::now());
        said
    }

    #[test]
    fn the_last_line_is_kept_whole_or_not() {
        assert_eq!(said(&["one\ntwo\n\n  \n"], &[]).last(), Some("two"));
        assert_eq!(said(&["on", "e\nt", "wo"], &[]).last(), Some("two"));
        assert_eq!(said(&["10%\r50%\r100%\r"], &[]).last(), Some("100%"));
        assert_eq!(said(&["\x1b[31mred\x07\n"], &[]).last(), Some("[31mred"));
        assert_eq!(said(&[], &[]).last(), None);
        let cause = "ERROR: from element /src: Could not connect.\nAdditional debug info:\nERROR: pipeline\n";
        assert_eq!(said(&[cause], &[]).last(), Some("ERROR: from element /src: Could not connect."));
    }

    #[test]
    fn endless_lines_and_endless_numbers_of_lines_are_bounded() {
        let mut said = said(&["x".repeat(1 << 20).as_str()], &[]);
        assert_eq!(said.last().map(str::len), Some(MAX_SHOWN));
        let now = Instant::now();
        for line in 0..100_000 {
            said.take(format!("line {line}\n").as_bytes(), now);
        }
        assert_eq!((said.last(), said.last.len()), (Some("line 99999"), KEPT));
        assert!(said.line.capacity() <= 2 * MAX_LINE);
        assert!(said.logged == LOGGED && said.left_out >= 100_000 - LOGGED, "{}", said.left_out);
        said.take(b"later\n", now + LOGGED_IN);
        assert_eq!((said.logged, said.left_out), (1, 0));
    }

    #[test]
    fn a_secret_is_never_shown_also_not_at_a_cut() {
        let long = "x".repeat(MAX_SHOWN - 3);
        let text = format!("cannot open rtsp://me:hunter%402@cam ({long}hunter@2)\n{long}hunter@2");
        let said = said(&[&text], &["hunter@2", "hunter%402"]);
        assert!(said.last.iter().all(|line| !line.contains("hun")), "{:?}", said.last);
        assert!(said.last[0].starts_with("cannot open rtsp://me:***@cam"));
    }
}
