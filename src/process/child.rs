//! One child as the agent sees it: started, spoken to, heard, ended, and always reaped.
//!
//! The child's standard input is one end of a Unix socket pair; both directions run over it. Its
//! standard error is the agent's, so its log lines stand between the agent's. It stands in a process
//! group of its own, so that a Ctrl-C at a terminal reaches the agent only.
//!
//! Nothing here waits without a bound, except for what the caller waits for. Deadlines for an answer
//! are the caller's: a child that is busy says nothing.

use crate::domain::{Reason, ReasonCode};
use crate::process::codec::{CodecError, Messages};
use crate::process::cost::{self, OomKills, Priority};
use crate::process::exit::Exit;
use crate::process::protocol::{FromCapture, FromInfer, FromRebuild, ToCapture, ToInfer, ToRebuild};
use crate::sys::background::lower_this_thread;
use futures_util::{SinkExt, StreamExt};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot};
use tokio_util::codec::{FramedRead, FramedWrite};

/// Messages to a child that may wait. It reads at once unless it hangs.
const TO_CHILD: usize = 32;
/// Messages from a child that may wait; a child whose agent does not listen waits itself.
const FROM_CHILD: usize = 64;
/// After a child's end its last messages are read for so long at most.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A capture child.
pub type CaptureChild = Child<ToCapture, FromCapture>;
/// An inference child.
pub type InferChild = Child<ToInfer, FromInfer>;

/// A child that puts a file together.
pub type RebuildChild = Child<ToRebuild, FromRebuild>;

/// What comes from a child.
#[derive(Debug)]
pub enum Event<Out> {
    /// It said this.
    Message(Out),
    /// It ended; nothing follows.
    Exited(Exit),
}

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub struct Child<In, Out> {
    name: String,
    pid: u32,
    // `None` once it was asked to end.
    to: Option<mpsc::Sender<In>>,
    from: mpsc::Receiver<Event<Out>>,
    kill: mpsc::Sender<()>,
}

impl InferChild {
    /// Starts an inference child, at this priority. `configure` is its first message; `what` names it in
    /// errors.
    pub async fn start_infer(
        exe: &Path,
        what: &str,
        configure: ToInfer,
        priority: Priority,
    ) -> Result<Self, Reason> {
        Child::start(exe, "infer", what, configure, priority).await
    }
}

impl CaptureChild {
    /// Starts a capture child. `configure` is its first message; `what` names it in errors.
    pub async fn start_capture(exe: &Path, what: &str, configure: ToCapture) -> Result<Self, Reason> {
        Child::start(exe, "capture", what, configure, Priority::Normal).await
    }
}

impl RebuildChild {
    /// Starts a child that puts a file together, at the lowest priority. `configure` is its only message; `what`
    /// names it in errors.
    pub async fn start_rebuild(exe: &Path, what: &str, configure: ToRebuild) -> Result<Self, Reason> {
        Child::start(exe, "rebuild", what, configure, Priority::Low).await
    }
}

impl<In, Out> Child<In, Out>
where
    In: Serialize + Send + 'static,
    Out: DeserializeOwned + Send + 'static,
{
    /// Runs `exe child <role>`.
    async fn start(
        exe: &Path,
        role: &str,
        what: &str,
        configure: In,
        priority: Priority,
    ) -> Result<Self, Reason> {
        let name = format!("{role} {what}");
        let failed = |act: &str, e: std::io::Error| {
            Reason::new(ReasonCode::Internal, format!("start {name}: {act} {}: {e}", exe.display()))
        };
        let (ours, theirs) = StdStream::pair().map_err(|e| failed("make a socket for", e))?;
        ours.set_nonblocking(true).map_err(|e| failed("set up the socket for", e))?;
        let ours = UnixStream::from_std(ours).map_err(|e| failed("set up the socket for", e))?;

        let mut command = Command::new(exe);
        command
            // The path may be one that names no program to people.
            .arg0("edgewarden")
            .args(["child", role])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .process_group(0)
            .kill_on_drop(true);
        let kills = OomKills::now();
        let process = spawn(command, priority).await.map_err(|e| failed("run", e))?;
        // Before it is waited for, a child has a pid.
        let pid = process.id().unwrap_or_default();
        let name = format!("{name} (pid {pid})");
        cost::limit(pid);

        let (read, write) = ours.into_split();
        let (to, orders) = mpsc::channel(TO_CHILD);
        let (events, from) = mpsc::channel(FROM_CHILD);
        let (kill, killed) = mpsc::channel(1);
        // The queue is empty and has room for it.
        let _ = to.try_send(configure);
        let writer = tokio::spawn(write_all(write, orders, name.clone()));
        tokio::spawn(
            Watch { name: name.clone(), process, killed, events, kills }
                .until_the_end(FramedRead::new(read, Messages::default()), writer),
        );
        Ok(Self { name, pid, to: Some(to), from, kill })
    }

    /// For people: role, name, pid.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id, for memory figures; it may be another's once the child has ended.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Gives it a message. Never waits: a child that leaves 32 messages unread hangs.
    pub fn send(&self, message: In) -> Result<(), Reason> {
        let gone = || Reason::new(ReasonCode::ChildCrashed, format!("{} has ended", self.name));
        match self.to.as_ref().ok_or_else(gone)?.try_send(message) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(gone()),
            Err(mpsc::error::TrySendError::Full(_)) => {
                Err(Reason::new(ReasonCode::ChildHung, format!("{} does not read its messages", self.name)))
            }
        }
    }

    /// The next thing it says; last of all its exit, then `None`. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Event<Out>> {
        self.from.recv().await
    }

    /// Takes what it says out of the handle, for a loop that listens to many children at once;
    /// [`Child::recv`] gives nothing any more.
    pub fn take_events(&mut self) -> mpsc::Receiver<Event<Out>> {
        std::mem::replace(&mut self.from, mpsc::channel(1).1)
    }

    /// Kills it (SIGKILL, with its process group). Its `Exited` follows.
    pub fn kill(&self) {
        // A full queue means that it is being killed already, a closed one that it has ended.
        let _ = self.kill.try_send(());
    }

    /// Asks it to end by closing its socket, gives it `grace`, then kills it; returns when it is reaped.
    pub async fn close(mut self, grace: Duration) -> Exit {
        self.to = None;
        cost::lower_for_good(self.pid);
        if let Ok(exit) = tokio::time::timeout(grace, self.exited()).await {
            return exit;
        }
        self.kill();
        self.exited().await
    }

    async fn exited(&mut self) -> Exit {
        while let Some(event) = self.from.recv().await {
            match event {
                Event::Message(_) => {}
                Event::Exited(exit) => return exit,
            }
        }
        Exit {
            text: format!("{} had ended before", self.name),
            clean: false,
            killed: false,
            out_of_memory: false,
        }
    }
}

/// Passes orders on until there are no more, then closes this direction of the socket: to the child
/// that means to end.
async fn write_all<In: Serialize>(write: OwnedWriteHalf, mut orders: mpsc::Receiver<In>, name: String) {
    let mut write = FramedWrite::new(write, Messages::<()>::default());
    while let Some(order) = orders.recv().await {
        if let Err(error) = write.send(order).await {
            // Its exit is reported by the watch; this only says what was not delivered.
            tracing::debug!(child = name, %error, "a message was not delivered");
            return;
        }
    }
}

/// The task that owns the process until it is reaped.
struct Watch<Out> {
    name: String,
    process: tokio::process::Child,
    killed: mpsc::Receiver<()>,
    events: mpsc::Sender<Event<Out>>,
    /// Read before it was started.
    kills: OomKills,
}

impl<Out: DeserializeOwned + Send + 'static> Watch<Out> {
    async fn until_the_end(
        mut self,
        read: FramedRead<OwnedReadHalf, Messages<Out>>,
        writer: tokio::task::JoinHandle<()>,
    ) {
        let mut reader = tokio::spawn(read_all(read, self.events.clone()));
        let mut garbage = None;
        let mut heard_all = false;
        let mut killed = false;
        let status = loop {
            tokio::select! {
                status = self.process.wait() => break status,
                // Also when the handle was dropped.
                _ = self.killed.recv(), if !killed => {
                    killed = true;
                    self.kill();
                }
                heard = &mut reader, if !heard_all => {
                    heard_all = true;
                    if let Ok(Err(error)) = heard {
                        garbage = Some(error);
                        killed = true;
                        self.kill();
                    }
                }
            }
        };
        if !heard_all && tokio::time::timeout(LAST_WORDS, &mut reader).await.is_err() {
            // Somebody who inherited the socket holds it open, or nobody takes the messages.
            reader.abort();
        }
        writer.abort();
        let exit = Exit::told(&self.name, status, killed, garbage, || self.kills.risen());
        if !exit.clean && !exit.killed {
            tracing::warn!("{}", exit.text);
        }
        let _ = self.events.send(Event::Exited(exit)).await;
    }

    fn kill(&mut self) {
        // `id` is known only while the process is not reaped, so the number is nobody else's.
        if let Some(id) = self.process.id()
            && let Some(group) = Pid::from_raw(id as i32)
        {
            cost::lower_for_good(id);
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.process.start_kill();
    }
}

/// Passes messages on until the child closes its end, or is gone: one that was killed before it had read
/// everything leaves a reset socket, and one that was killed while it wrote a torn message.
async fn read_all<Out: DeserializeOwned>(
    mut read: FramedRead<OwnedReadHalf, Messages<Out>>,
    events: mpsc::Sender<Event<Out>>,
) -> Result<(), CodecError> {
    while let Some(message) = read.next().await {
        let message = match message {
            Err(CodecError::Io { source, .. }) => {
                tracing::debug!(error = %source, "a child's socket broke");
                return Ok(());
            }
            message => message?,
        };
        if events.send(Event::Message(message)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

type Spawned = std::io::Result<tokio::process::Child>;
type Job = (Command, tokio::runtime::Handle, oneshot::Sender<Spawned>);

/// Spawns on a thread that never ends: the children ask to be killed when their parent dies, and to the
/// kernel the parent is the *thread* that spawned them. A worker of `tokio` may end at any time.
///
/// There is a thread for each priority, because children inherit that of their parent: one that is to be
/// low is so from its first instruction.
async fn spawn(command: Command, priority: Priority) -> Spawned {
    static NORMAL: OnceLock<std::sync::mpsc::Sender<Job>> = OnceLock::new();
    static LOW: OnceLock<std::sync::mpsc::Sender<Job>> = OnceLock::new();
    let spawner = match priority {
        Priority::Normal => &NORMAL,
        Priority::Low => &LOW,
    };
    let spawner = spawner.get_or_init(|| {
        let (jobs, queue) = std::sync::mpsc::channel::<Job>();
        let thread = std::thread::Builder::new().name("spawner".to_owned()).spawn(move || {
            if priority == Priority::Low {
                lower_this_thread(cost::LOW);
            }
            for (mut command, runtime, reply) in queue {
                let _entered = runtime.enter();
                // Nobody waits any more: the process is killed as its handle is dropped.
                let _ = reply.send(command.spawn());
            }
        });
        if let Err(error) = thread {
            tracing::error!(%error, "no thread to start children from");
        }
        jobs
    });
    let gone = || std::io::Error::other("no thread to start children from");
    let (reply, spawned) = oneshot::channel();
    spawner.send((command, tokio::runtime::Handle::current(), reply)).map_err(|_| gone())?;
    spawned.await.map_err(|_| gone())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_was_killed_in_the_middle_said_nothing_wrong() {
        use std::io::Write;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for torn in [&b""[..], b"\0\0\0\x10{\"half"] {
            runtime.block_on(async {
                let (mut ours, mut its) = StdStream::pair().unwrap();
                ours.write_all(b"never read").unwrap();
                its.write_all(torn).unwrap();
                drop(its);
                ours.set_nonblocking(true).unwrap();
                let (read, _write) = UnixStream::from_std(ours).unwrap().into_split();
                let (events, mut heard) = mpsc::channel(4);
                let read = FramedRead::new(read, Messages::<FromCapture>::default());
                assert!(read_all(read, events).await.is_ok());
                assert!(heard.recv().await.is_none());
            });
        }
    }

    #[tokio::test]
    async fn a_program_that_cannot_be_run_is_named() {
        let missing = Path::new("/no/such/edgewarden");
        let configure = ToCapture::Pause { paused: true };
        let reason = CaptureChild::start_capture(missing, "belt", configure).await.unwrap_err();
        assert!(
            reason.detail.starts_with("start capture belt: run /no/such/edgewarden: No such file"),
            "{reason}"
        );
    }

    #[tokio::test]
    async fn a_child_that_talks_rubbish_is_killed_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let exe = dir.path().join("fake");
        // Standard input is the socket: what is written to it comes to the agent.
        std::fs::write(&exe, "#!/bin/sh\nprintf 'rubbish and more' >&0\nsleep 600\n").unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&exe, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut child =
            CaptureChild::start_capture(&exe, "belt", ToCapture::Pause { paused: true }).await.unwrap();
        let Some(Event::Exited(exit)) = child.recv().await else { panic!("no exit") };
        assert!(
            exit.text.contains("said what it should not: a message of 1920295522 bytes"),
            "{}",
            exit.text
        );
        assert!(child.recv().await.is_none());
        assert!(child.send(ToCapture::Pause { paused: false }).is_err());
    }
}
