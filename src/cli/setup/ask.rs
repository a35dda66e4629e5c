//! Questions to the person at the terminal: asked on standard error, so that standard output keeps the
//! answer of the command, and only where somebody can answer.

use crate::cli::exit::Interrupted;
use std::io::{BufRead, IsTerminal, Read, Write};

/// Longest answer, bytes.
const MAX_ANSWER: u64 = 4096;

/// Whether there is somebody to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Person(bool);

impl Person {
    /// Somebody is there when both ends are a terminal, and questions were not forbidden.
    pub fn here(forbidden: bool) -> Self {
        Self(!forbidden && std::io::stdin().is_terminal() && std::io::stderr().is_terminal())
    }

    /// True when somebody can be asked.
    pub fn is_there(self) -> bool {
        self.0
    }

    /// An answer without blanks at its ends; `None` for an empty one, and where nobody is there.
    ///
    /// # Errors
    /// [`Interrupted`] where the person leaves (Ctrl-D).
    pub fn ask(self, question: &str) -> anyhow::Result<Option<String>> {
        if !self.0 {
            return Ok(None);
        }
        anstream::eprint!("{question} ");
        std::io::stderr().flush()?;
        let mut answer = String::new();
        if std::io::stdin().lock().take(MAX_ANSWER).read_line(&mut answer)? == 0 {
            anstream::eprintln!();
            return Err(Interrupted.into());
        }
        let answer = answer.trim();
        Ok(Some(answer).filter(|answer| !answer.is_empty()).map(str::to_owned))
    }

    /// Whether the answer is yes; no where nobody is there.
    pub fn agrees(self, question: &str) -> anyhow::Result<bool> {
        let answer = self.ask(&format!("{question} [y/N]"))?;
        Ok(answer.is_some_and(|answer| matches!(answer.to_lowercase().as_str(), "y" | "yes")))
    }
}
