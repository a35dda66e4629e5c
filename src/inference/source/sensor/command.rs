//! Lines on the standard output of a program. A program that ends is a sensor that is lost, whatever its
//! exit status; the agent starts it again with the capture child, after its growing waits.

use super::lines::Lines;
use super::row::Rows;
use super::{Samples, Take, Trouble};
use crate::domain::{Reason, ReasonCode};
use crate::inference::source::program::{CommandLine, Process, Read, grace};
use std::time::Duration;

/// Bytes read at once.
const CHUNK: usize = 64 << 10;
const REMEDY: &str = "install it, or correct source.program";

/// A program that writes samples.
pub(super) struct Command {
    line: CommandLine,
    rows: Rows,
    lines: Lines,
    chunk: Vec<u8>,
    /// `None` while no samples are wanted.
    process: Option<Process>,
}

impl Command {
    /// Starts it.
    pub(super) fn start(words: &[String], rows: Rows) -> Result<Self, Reason> {
        let line = CommandLine::of_user(words).ok_or_else(|| {
            Reason::new(ReasonCode::BadRequest, "source.program is empty; name a program".to_owned())
        })?;
        let process = Some(Process::start(&line, REMEDY)?);
        Ok(Self { line, lines: Lines::new(rows.clone(), false), rows, chunk: vec![0; CHUNK], process })
    }

    fn lost(&mut self) -> Trouble {
        let end = self.process.take().map(|process| process.end(grace(), false).to_string());
        let end = end.unwrap_or_else(|| "does not run".to_owned());
        let detail = format!("source lines: {} {end}", self.line.name());
        Trouble::Lost(Reason::new(ReasonCode::ChildCrashed, detail))
    }
}

impl Samples for Command {
    fn describe(&self) -> String {
        format!("lines, read by {}", self.line.name())
    }

    fn read(&mut self, wait: Duration, take: &mut Take<'_>) -> Result<(), Trouble> {
        let Some(process) = &mut self.process else { return Err(self.lost()) };
        process.wait(wait);
        // First, so that what it wrote last is read.
        let ended = process.has_ended();
        match process.read(&mut self.chunk) {
            Read::Bytes(count) => {
                let what = format!("source lines: {} writes", self.line.name());
                self.lines.push(&what, &self.chunk[..count], take)
            }
            Read::Later if !ended => Ok(()),
            Read::Later | Read::End => Err(self.lost()),
        }
    }

    /// A program that is not wanted does not run.
    fn pause(&mut self, paused: bool) -> Result<(), Trouble> {
        if let Some(process) = self.process.take() {
            process.end(grace(), true);
        }
        if !paused {
            self.process = Some(Process::start(&self.line, REMEDY).map_err(Trouble::Lost)?);
            self.lines = Lines::new(self.rows.clone(), false);
        }
        Ok(())
    }
}
