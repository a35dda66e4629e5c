//! Lines from a pipe or a serial port, without a thread: what is there is read, never more is waited for.

use super::row::Rows;
use super::{Take, Trouble};
use crate::domain::{Reason, ReasonCode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Longest line; a longer one is left out, as it is no sample.
const MAX_LINE: usize = 64 << 10;

/// Lines of samples.
pub(super) struct Lines {
    from: OwnedFd,
    rows: Rows,
    chunk: Vec<u8>,
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
    /// The rest of a line is left out.
    skipping: bool,
}

impl Lines {
    /// `cut` when the first line may have begun before we listened.
    pub(super) fn new(from: OwnedFd, rows: Rows, cut: bool) -> Self {
        Self { from, rows, chunk: vec![0; MAX_LINE], begun: Vec::new(), skipping: cut }
    }

    /// Waits for `wait` at most and reads once. True when the other end has closed.
    pub(super) fn read(&mut self, what: &str, wait: Duration, take: &mut Take<'_>) -> Result<bool, Trouble> {
        let lost = |error: Errno| {
            Trouble::Lost(Reason::new(ReasonCode::BadRequest, format!("{what}: {error}; is it plugged in?")))
        };
        let timeout = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        let mut fds = [PollFd::new(&self.from, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => return Ok(false),
            Ok(_) => {}
            Err(error) => return Err(lost(error)),
        }
        let count = match rustix::io::read(&self.from, &mut self.chunk[..]) {
            Ok(0) => return Ok(true),
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            // What a port says whose other end is gone.
            Err(Errno::IO | Errno::NODEV | Errno::NXIO) => return Ok(true),
            Err(error) => return Err(lost(error)),
        };
        let mut fault = None;
        let mut rest = &self.chunk[..count];
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
            None => Ok(false),
            Some(fault) => {
                Err(Trouble::Frame(Reason::new(ReasonCode::BadRequest, format!("{what}: {fault}"))))
            }
        }
    }
}
