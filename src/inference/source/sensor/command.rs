//! Lines on the standard output of a program.
//!
//! The program runs in a process group of its own, which is ended with this value, and by the kernel
//! when this process dies. A program that ends is a sensor that is lost, whatever its exit status.

use super::lines::Lines;
use super::row::Rows;
use super::{Samples, Take, Trouble};
use crate::domain::{Reason, ReasonCode};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process_group, set_parent_process_death_signal, waitid,
};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A program is asked to end, and killed when it has not after this time.
const GRACE: Duration = Duration::from_millis(500);
/// Bytes kept of what a program says on standard error.
const LAST_WORDS: usize = 300;

/// A running program.
pub(super) struct Command {
    words: Vec<String>,
    child: Child,
    lines: Lines,
    /// For the next start.
    rows: Rows,
    last_words: Arc<Mutex<Vec<u8>>>,
    /// It was ended.
    over: bool,
}

impl Command {
    /// Starts it.
    pub(super) fn start(words: &[String], rows: Rows) -> Result<Self, Reason> {
        let fault = |detail: String| Reason::new(ReasonCode::BadRequest, detail);
        let [program, arguments @ ..] = words else {
            return Err(fault("source.command is empty; name a program".to_owned()));
        };
        let mut command = std::process::Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0);
        // SAFETY: between fork and exec only one system call is made, which takes no lock and no memory.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        let mut child = command.spawn().map_err(|error| {
            fault(format!("source.command {program:?}: {error}; install it, or correct its path"))
        })?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(Reason::new(ReasonCode::Internal, "source.command: the program has no output"));
        };
        let last_words = Arc::default();
        listen(stderr, Arc::clone(&last_words))?;
        let lines = Lines::new(OwnedFd::from(stdout), rows.clone(), false);
        Ok(Self { words: words.to_vec(), child, lines, rows, last_words, over: false })
    }

    fn name(&self) -> String {
        format!("command {:?}", self.words.join(" ").chars().take(80).collect::<String>())
    }

    /// Ends the program and all that it started; nothing the second time.
    fn end(&mut self) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        let group = Pid::from_child(&self.child);
        let _ = kill_process_group(group, Signal::TERM);
        let start = Instant::now();
        // Its id is kept from being given away until the group has been killed.
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        while matches!(waitid(WaitId::Pid(group), look), Ok(None)) && start.elapsed() < GRACE {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Also those that it started and that stayed.
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
    }

    fn ended(&mut self) -> Reason {
        self.end();
        let status = self.child.try_wait().ok().flatten();
        let status = status.map_or_else(|| "an unknown status".to_owned(), |status| status.to_string());
        let words = self.last_words.lock().unwrap_or_else(PoisonError::into_inner);
        let words = String::from_utf8_lossy(&words).trim().to_owned();
        let words = if words.is_empty() { words } else { format!(", saying {words:?}") };
        Reason::new(ReasonCode::BadRequest, format!("{} ended with {status}{words}", self.name()))
    }
}

impl Samples for Command {
    fn describe(&self) -> String {
        self.name()
    }

    fn read(&mut self, wait: Duration, take: &mut Take<'_>) -> Result<(), Trouble> {
        let name = self.name();
        if self.lines.read(&name, wait, take)? {
            return Err(Trouble::Lost(self.ended()));
        }
        Ok(())
    }

    /// A program that is not wanted does not run.
    fn pause(&mut self, paused: bool) -> Result<(), Trouble> {
        self.end();
        if !paused {
            *self = Self::start(&self.words, self.rows.clone()).map_err(Trouble::Lost)?;
        }
        Ok(())
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        self.end();
    }
}

/// Keeps the end of what a program says, so that its pipe never fills.
fn listen(mut stderr: ChildStderr, into: Arc<Mutex<Vec<u8>>>) -> Result<(), Reason> {
    let read = move || {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = stderr.read(&mut chunk) {
            let mut kept = into.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend_from_slice(&chunk[..count]);
            let over = kept.len().saturating_sub(LAST_WORDS);
            kept.drain(..over);
        }
    };
    let started = std::thread::Builder::new().name("stderr".into()).spawn(read);
    started.map(drop).map_err(|e| Reason::new(ReasonCode::Internal, format!("start a thread: {e}")))
}
