//! One run of a program: started, read without waiting too long, and ended with all that it started.
//!
//! It leads a process group of its own, so that it can be ended with its children. When the capture
//! child is killed, the kernel kills the program (but not its children: a shell's pipeline would
//! stay). A user's command therefore has a guard beside it: a shell that waits for the capture child's
//! end of a pipe to close, and then kills the group.

use super::CommandLine;
use super::stderr::Stderr;
use crate::domain::{Reason, ReasonCode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, getppid, kill_process_group, set_parent_process_death_signal, waitid,
};
use std::fmt;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// A program that was asked to end has so long, then it is killed.
const GRACE: Duration = Duration::from_secs(1);
/// A killed one is gone at once, unless a driver holds it; then it is left to the kernel.
const GONE: Duration = Duration::from_secs(2);
/// Looking whether it is gone.
const LOOK: Duration = Duration::from_millis(5);
/// The pipe's size, bytes: what an ordinary user may ask for. A program that writes large pictures
/// sleeps and wakes less.
const PIPE: usize = 1 << 20;
/// Words taken at once, so that a talkative program keeps nobody from its frames.
const WORDS: usize = 64 << 10;

/// The guard: its first line is the group; then the pipe closes.
const GUARD: &str = "read -r group; read -r end; kill -9 \"-$group\"";

/// What reading has led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// So many bytes, at least one.
    Bytes(usize),
    /// None for now.
    Later,
    /// There will be no more.
    End,
}

/// A running program. Dropping it ends it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    group: Pid,
    guard: Option<Child>,
    out: Option<ChildStdout>,
    err: Option<ChildStderr>,
    said: Stderr,
    over: bool,
}

impl Process {
    /// Starts it. The thread that calls this must live as long as the program: the kernel ends the
    /// program with it.
    ///
    /// # Errors
    /// It cannot be run; `remedy` is said with it.
    pub fn start(line: &CommandLine, remedy: &str) -> Result<Self, Reason> {
        let name = line.name();
        let failed = |act: &str, e: io::Error| {
            Reason::new(ReasonCode::BadRequest, format!("source: {act} {}: {e}; {remedy}", line.program))
        };
        let mut command = Command::new(&line.program);
        command
            .args(&line.args)
            .stdin(if line.stdin.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        for (key, value) in &line.environment {
            command.env(key, value);
        }
        let parent = rustix::process::getpid();
        // SAFETY: between fork and exec only system calls are made: nothing is allocated, no lock is taken.
        unsafe {
            command.pre_exec(move || {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                if getppid() != Some(parent) {
                    return Err(Errno::SRCH.into());
                }
                close_on_exec();
                Ok(())
            });
        }
        let mut child = command.spawn().map_err(|e| failed("run", e))?;
        let group = Pid::from_child(&child);
        if let (Some(text), Some(mut stdin)) = (&line.stdin, child.stdin.take())
            && let Err(error) = stdin.write_all(text.as_bytes())
        {
            tracing::debug!(program = name, %error, "it did not take what it was to read");
        }
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let said = Stderr::new(&name, &line.secrets);
        // From here on dropping ends it.
        let mut process = Self { name, child, group, guard: None, out, err, said, over: false };
        for fd in process.out.iter().map(AsFd::as_fd).chain(process.err.iter().map(AsFd::as_fd)) {
            rustix::io::ioctl_fionbio(fd, true).map_err(|e| failed("read from", e.into()))?;
        }
        if let Some(out) = &process.out
            && let Err(error) = rustix::pipe::fcntl_setpipe_size(out, PIPE)
        {
            tracing::debug!(%error, "the pipe stays at its size");
        }
        if line.guarded {
            process.guard = Some(guard(group).map_err(|e| failed("start a guard (sh) for", e))?);
        }
        Ok(process)
    }

    /// Bytes that wait to be read.
    pub fn waiting(&self) -> usize {
        let waiting = self.out.as_ref().and_then(|out| rustix::io::ioctl_fionread(out).ok());
        waiting.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0)
    }

    /// Reads without waiting. `into` is not empty.
    pub fn read(&mut self, into: &mut [u8]) -> Read {
        let Some(out) = &self.out else { return Read::End };
        match rustix::io::read(out, into) {
            Ok(0) => Read::End,
            Ok(bytes) => Read::Bytes(bytes),
            Err(Errno::AGAIN | Errno::INTR) => Read::Later,
            Err(error) => {
                tracing::warn!(program = %self.name, %error, "its output cannot be read");
                Read::End
            }
        }
    }

    /// Sleeps until there is something to read, at most `wait`, and takes the program's words.
    pub fn wait(&mut self, wait: Duration) {
        self.poll(wait, true);
        self.listen();
    }

    /// True once it has ended. It is not reaped yet, so its group's number is nobody else's.
    pub fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        // An error means that there is nothing to wait for.
        !matches!(waitid(WaitId::Pid(self.group), options), Ok(None))
    }

    /// Ends it with all its children, by force when it takes longer than `grace`. How it ended, for
    /// people, and true for a good end; `asked` when it did not end by itself.
    pub fn end(mut self, grace: Duration, asked: bool) -> End {
        self.out = None;
        if asked {
            let _ = kill_process_group(self.group, Signal::TERM);
        }
        let killed = !self.gone_within(grace);
        let status = self.kill();
        self.listen();
        self.said.end(Instant::now());
        let (how, good) = match status {
            None => ("could not be ended; a driver may hold it".to_owned(), false),
            Some(_) if killed => ("closed its output, did not end and was killed".to_owned(), false),
            Some(status) => match (status.code(), status.signal()) {
                (Some(0), _) => ("ended".to_owned(), true),
                (Some(code), _) => (format!("ended with status {code}"), false),
                (None, signal) => (format!("was killed by signal {}", signal.unwrap_or_default()), false),
            },
        };
        End { how, good, last: self.said.last().map(str::to_owned) }
    }

    /// Takes what it has said, without waiting.
    fn listen(&mut self) {
        let (now, mut buffer) = (Instant::now(), [0; 4096]);
        let mut taken = 0;
        while let Some(err) = &self.err {
            match rustix::io::read(err, &mut buffer) {
                Ok(0) => self.err = None,
                Ok(bytes) => {
                    self.said.take(&buffer[..bytes], now);
                    taken += bytes;
                    if taken >= WORDS {
                        return;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.err = None,
            }
        }
    }

    fn poll(&self, wait: Duration, output: bool) {
        let out = self.out.as_ref().filter(|_| output).map(AsFd::as_fd);
        let fds: Vec<BorrowedFd<'_>> = out.into_iter().chain(self.err.as_ref().map(AsFd::as_fd)).collect();
        let mut fds: Vec<PollFd<'_>> =
            fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        let timeout =
            Timespec { tv_sec: wait.as_secs().min(3600) as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        // Whatever it says, the reads that follow find out.
        let _ = poll(&mut fds, Some(&timeout));
    }

    /// True when it has ended within that time; its words are taken meanwhile.
    fn gone_within(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            if self.has_ended() {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            self.poll(LOOK, false);
            self.listen();
            if self.err.is_none() {
                std::thread::sleep(LOOK);
            }
        }
    }

    /// Kills the whole group, which may be more than the program, and reaps the program.
    fn kill(&mut self) -> Option<std::process::ExitStatus> {
        self.over = true;
        let _ = kill_process_group(self.group, Signal::KILL);
        let gone = self.gone_within(GONE);
        if let Some(mut guard) = self.guard.take() {
            // Before the program is reaped: the guard must not find another group of that number.
            let _ = guard.kill();
            let _ = guard.wait();
        }
        if !gone {
            tracing::error!(program = %self.name, "it does not die; a driver may hold it");
            return None;
        }
        self.child.wait().ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // After `end` its number may be another's.
        if !self.over {
            self.out = None;
            let _ = kill_process_group(self.group, Signal::TERM);
            self.gone_within(GRACE);
            self.kill();
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// For people: `ended with status 1`.
    pub how: String,
    /// By itself and with status 0.
    pub good: bool,
    /// What it said last.
    pub last: Option<String>,
}

/// With its last words: `ended with status 1: no such camera`.
impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.last {
            Some(last) => write!(f, "{}: {last}", self.how),
            None => write!(f, "{} without a word", self.how),
        }
    }
}

fn guard(group: Pid) -> io::Result<Child> {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", GUARD, "edgewarden-guard"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Not in the capture child's group, which the agent kills as a whole.
        .process_group(0);
    // SAFETY: one system call between fork and exec.
    unsafe {
        command.pre_exec(|| {
            close_on_exec();
            Ok(())
        });
    }
    let mut guard = command.spawn()?;
    // The other end stays open in `guard.stdin` for as long as this process lives.
    match &mut guard.stdin {
        Some(stdin) => writeln!(stdin, "{}", group.as_raw_nonzero())?,
        None => return Err(io::Error::other("no pipe to it")),
    }
    Ok(guard)
}

/// Closes what this process has open in the program that it becomes: shared memory, sockets. An older
/// kernel (before Linux 5.11) refuses; the standard library has then marked its own.
fn close_on_exec() {
    const FIRST: libc::c_uint = 3;
    // SAFETY: a system call with three numbers; it changes flags of descriptors of this process only.
    unsafe {
        libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
    }
}

/// Grace for a program that is no longer wanted.
pub const fn grace() -> Duration {
    GRACE
}
