//! Lines from a serial port: 8 bits, no parity, 1 stop bit, no flow control.

use super::lines::Lines;
use super::row::Rows;
use super::{Samples, Take, Trouble};
use crate::domain::{Reason, ReasonCode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::termios::{ControlModes, OptionalActions, QueueSelector, isatty, tcflush, tcgetattr, tcsetattr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes read at once.
const CHUNK: usize = 4096;

/// An open port.
pub(super) struct Serial {
    path: PathBuf,
    baud: u32,
    port: OwnedFd,
    lines: Lines,
    chunk: Vec<u8>,
}

impl Serial {
    /// Opens and sets it up; what was received before is dropped.
    pub(super) fn open(path: &Path, baud: u32, rows: Rows) -> Result<Self, Reason> {
        let fault = |act: &str, error: Errno| {
            let remedy = match error {
                Errno::NOENT | Errno::NXIO | Errno::NODEV => {
                    "plug it in; ports are listed below /dev/serial/by-id"
                }
                Errno::ACCESS | Errno::PERM => "let the agent's user into the group dialout",
                Errno::BUSY => "another program has it; end that one",
                Errno::INVAL => "the port has no such speed; correct source.baud",
                _ => "look at the port",
            };
            let detail = format!("serial port {}: {act}: {error}; {remedy}", path.display());
            Reason::new(ReasonCode::BadRequest, detail)
        };
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let port = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| fault("open", e))?;
        if !isatty(&port) {
            let detail =
                format!("serial port {}: is no terminal; name one such as /dev/ttyUSB0", path.display());
            return Err(Reason::new(ReasonCode::BadRequest, detail));
        }
        let mut settings = tcgetattr(&port).map_err(|e| fault("ask", e))?;
        settings.make_raw();
        settings.control_modes |= ControlModes::CREAD | ControlModes::CLOCAL | ControlModes::CS8;
        settings.control_modes &= !(ControlModes::PARENB | ControlModes::CSTOPB | ControlModes::CRTSCTS);
        settings.set_speed(baud).map_err(|e| fault("set the speed", e))?;
        tcsetattr(&port, OptionalActions::Now, &settings).map_err(|e| fault("set up", e))?;
        // What lay there before may be of another speed.
        let _ = tcflush(&port, QueueSelector::IFlush);
        let (path, lines) = (path.to_owned(), Lines::new(rows, true));
        Ok(Self { path, baud, port, lines, chunk: vec![0; CHUNK] })
    }
}

impl Samples for Serial {
    fn describe(&self) -> String {
        format!("serial port {} at {} baud", self.path.display(), self.baud)
    }

    fn read(&mut self, wait: Duration, take: &mut Take<'_>) -> Result<(), Trouble> {
        let what = format!("serial port {}", self.path.display());
        let lost = |error: Errno| {
            Trouble::Lost(Reason::new(ReasonCode::BadRequest, format!("{what}: {error}; is it plugged in?")))
        };
        let timeout = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        match poll(&mut [PollFd::new(&self.port, PollFlags::IN)], Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(lost(error)),
        }
        match rustix::io::read(&self.port, &mut self.chunk[..]) {
            // So says a port whose other end is gone.
            Ok(0) | Err(Errno::IO | Errno::NODEV | Errno::NXIO) => {
                let detail = format!("{what}: it is gone; plug it in again");
                Err(Trouble::Lost(Reason::new(ReasonCode::NotFound, detail)))
            }
            Ok(count) => self.lines.push(&what, &self.chunk[..count], take),
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => Err(lost(error)),
        }
    }

    fn pause(&mut self, paused: bool) -> Result<(), Trouble> {
        if !paused {
            let _ = tcflush(&self.port, QueueSelector::IFlush);
        }
        Ok(())
    }
}
