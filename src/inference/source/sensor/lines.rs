//! Bytes cut into lines, and lines read as samples.

use super::row::Rows;
use super::{Take, Trouble};
use crate::domain::{Reason, ReasonCode};

/// Longest line; a longer one is left out, as it is no sample.
const MAX_LINE: usize = 64 << 10;

/// Lines of samples.
pub struct Lines {
    rows: Rows,
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
    /// The rest of a line is left out.
    skipping: bool,
}

impl Lines {
    /// `cut` when the first line may have begun before we listened.
    pub fn new(rows: Rows, cut: bool) -> Self {
        Self { rows, begun: Vec::new(), skipping: cut }
    }

    /// Takes bytes as they come; of several bad lines in them the last is told, after `what`.
    ///
    /// # Errors
    /// [`Trouble::Frame`] for a bad line; the next may be good.
    pub fn push(&mut self, what: &str, bytes: &[u8], take: &mut Take<'_>) -> Result<(), Trouble> {
        let mut fault = None;
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            rest = after;
            if std::mem::replace(&mut self.skipping, false) {
                self.begun.clear();
                continue;
            }
            let line = if self.begun.is_empty() {
                line
            } else {
                self.begun.extend_from_slice(line);
                &self.begun
            };
            match self.rows.read(line) {
                Ok(Some((at, values))) => take(at, values),
                Ok(None) => {}
                Err(what) => fault = Some(what),
            }
            self.begun.clear();
        }
        if !self.skipping {
            self.begun.extend_from_slice(rest);
        }
        if self.begun.len() > MAX_LINE {
            self.begun.clear();
            self.skipping = true;
            fault = Some(format!("a line of more than {MAX_LINE} bytes; end each sample with a line break"));
        }
        match fault {
            None => Ok(()),
            Some(fault) => {
                Err(Trouble::Frame(Reason::new(ReasonCode::BadRequest, format!("{what}: {fault}"))))
            }
        }
    }
}
