//! The audit log of a running agent: who commanded what, and what became of it.
//!
//! One task writes; whoever has something to write down never waits for the disk. A command that changes the
//! device has two lines, one when it is let in and one with its end; one that only looks has one, with its end,
//! and `status` none unless it fails: dashboards ask for it all day, and a memory card wears. Commands from this
//! machine's own socket are written down in the same way, but not those that only look.
//!
//! Whoever can publish to the broker can cause refusals without end. Of those only some a minute are written,
//! the rest is counted in the next line, so that a flood neither wears the disk nor pushes out what matters.

use crate::domain::allowance::Allowance;
use crate::domain::audit::{Draft, Outcome, Who};
use crate::domain::authority::{Role, role};
use crate::domain::command::{Command, Progress};
use crate::domain::refusal::RefusalKind;
use crate::domain::{Reason, ReasonCode};
use crate::sys::audit::{AuditLog, Kept};
use crate::sys::blocking::blocking;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Lines that may wait for the disk.
const WAITING: usize = 256;
/// Lines that are written with one sync at most.
const BATCH: usize = 64;
/// Refusals that are written down a minute.
const REFUSALS: u32 = 30;
/// Commands under way that are remembered until their end.
const UNDER_WAY: usize = 256;
/// Most lines that an answer holds.
pub const MAX_LINES: usize = 200;
/// Most bytes of lines that an answer holds: it must fit into a message.
const MAX_BYTES: usize = 96 << 10;

/// What a command's line says besides its outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    /// Who.
    pub who: Who,
    /// To whom it was said.
    pub to: String,
    /// Its name.
    pub command: String,
    /// The sender's name for it.
    pub id: String,
    /// What it takes.
    pub arguments: Value,
}

impl Subject {
    fn with(self, outcome: Outcome) -> Draft {
        let Subject { who, to, command, id, arguments } = self;
        Draft {
            at: jiff::Timestamp::now().to_string(),
            who,
            to,
            command,
            id,
            arguments,
            outcome,
            left_out: 0,
        }
    }
}

/// Commands under way, by name and id.
type UnderWay = BTreeMap<(String, String), Waited>;

/// A command whose end is waited for.
struct Waited {
    subject: Subject,
    /// Whether it only looks.
    looks: bool,
}

enum Order {
    Write(Box<Draft>),
    Flush(oneshot::Sender<()>),
}

/// The agent's hold on the log; cheap to clone.
#[derive(Clone)]
pub struct Audit(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    orders: mpsc::Sender<Order>,
    under_way: Mutex<UnderWay>,
    refusals: Mutex<Allowance>,
    begun: Instant,
    /// Lines that were not written since the last one that was.
    left_out: AtomicU64,
}

impl Inner {
    fn under_way(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a command out of those under way.
    fn take(&self, command: &str, id: &str) -> Option<Waited> {
        self.under_way().remove(&(command.to_owned(), id.to_owned()))
    }
}

impl Audit {
    /// Opens the log in this folder and begins to write. A log that cannot be opened is no reason not to run: it
    /// is told, and tried again with each line.
    pub fn start(folder: &Path) -> Self {
        let (orders, inbox) = mpsc::channel(WAITING);
        let audit = Self(Arc::new(Inner {
            folder: folder.to_owned(),
            orders,
            under_way: Mutex::default(),
            refusals: Mutex::new(Allowance::new(REFUSALS)),
            begun: Instant::now(),
            left_out: AtomicU64::new(0),
        }));
        tokio::spawn(write(Arc::downgrade(&audit.0), folder.to_owned(), inbox));
        audit
    }

    /// A command was let in.
    pub fn admitted(&self, subject: Subject, command: &Command) {
        let looks = role(command) == Role::Observe;
        if !looks {
            self.record(subject.clone().with(Outcome::Admitted));
        }
        let mut commands = self.0.under_way();
        if commands.len() >= UNDER_WAY {
            commands.pop_first();
        }
        commands.insert((subject.command.clone(), subject.id.clone()), Waited { subject, looks });
    }

    /// What is known of a command under way.
    pub fn under_way(&self, command: &str, id: &str) -> Option<Subject> {
        let commands = self.0.under_way();
        commands.get(&(command.to_owned(), id.to_owned())).map(|waited| waited.subject.clone())
    }

    /// Takes a command out of those under way: its end is to be written by somebody else, maybe after a restart.
    pub fn hand_over(&self, command: &str, id: &str) {
        self.0.take(command, id);
    }

    /// A command came to its end.
    pub fn ended(&self, command: &str, id: &str, end: &Progress) {
        // Not one that is not written down.
        let Some(Waited { subject, looks }) = self.0.take(command, id) else { return };
        if !(looks && command == "status" && matches!(end, Progress::Successful { .. })) {
            self.end_of(subject, end);
        }
    }

    /// Writes the end of a command.
    pub fn end_of(&self, subject: Subject, end: &Progress) {
        match end {
            Progress::Executing { .. } => {}
            Progress::Successful { .. } => self.record(subject.with(Outcome::Successful)),
            Progress::Failed { reason } => {
                self.record(subject.with(Outcome::Failed { reason: reason.clone() }))
            }
        }
    }

    /// The agent ends: what is still under way has no end that it will see.
    pub fn abandon(&self) {
        let left = std::mem::take(&mut *self.0.under_way());
        for Waited { subject, looks } in left.into_values() {
            let detail = "the agent ended before the command did; a deployment goes on at its next start";
            let reason = Reason::new(ReasonCode::Internal, detail);
            if !looks {
                self.record(subject.with(Outcome::Failed { reason }));
            }
        }
    }

    /// A command was not let in.
    pub fn refused(&self, subject: Subject, refusal: RefusalKind, reason: &Reason) {
        let now = self.0.begun.elapsed();
        if self.0.refusals.lock().unwrap_or_else(PoisonError::into_inner).take(now) {
            self.record(subject.with(Outcome::Refused { refusal, reason: reason.clone() }));
        } else {
            self.0.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn record(&self, draft: Draft) {
        if self.0.orders.try_send(Order::Write(Box::new(draft))).is_err() {
            self.0.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until all that was recorded so far is on the disk, or was given up.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.0.orders.send(Order::Flush(done)).await.is_ok() {
            let _ = written.await;
        }
    }

    /// The newest lines, with the state of the whole chain.
    ///
    /// # Errors
    /// What cannot be read.
    pub async fn newest(&self, lines: usize) -> Result<Value, Reason> {
        self.flush().await;
        let folder = self.0.folder.clone();
        blocking(move || newest(&folder, lines)).await
    }
}

/// The newest lines of the log in this folder, with the state of the whole chain; for whoever may read it.
///
/// # Errors
/// What cannot be read.
pub fn newest(folder: &Path, lines: usize) -> Result<Value, Reason> {
    let kept = Kept::read(folder)?;
    let mut room = MAX_BYTES;
    let mut shown: Vec<Value> = Vec::new();
    for line in kept.lines.iter().rev().take(lines.min(MAX_LINES)) {
        let Some(left) = room.checked_sub(line.len()) else { break };
        room = left;
        shown.push(serde_json::from_str(line).unwrap_or_else(|_| Value::String(line.clone())));
    }
    shown.reverse();
    let mut answer = json!({ "entries": shown, "kept": kept.lines.len() });
    match kept.verify() {
        Ok(head) => {
            answer["verified"] = true.into();
            answer["head"] = json!(head);
        }
        Err(broken) => {
            answer["verified"] = false.into();
            answer["broken"] = json!(broken);
        }
    }
    Ok(answer)
}

/// Writes what comes, all that waits with one sync.
async fn write(inner: std::sync::Weak<Inner>, folder: PathBuf, mut inbox: mpsc::Receiver<Order>) {
    let mut log: Option<AuditLog> = None;
    let mut orders = Vec::new();
    while inbox.recv_many(&mut orders, BATCH).await > 0 {
        let mut drafts: Vec<Draft> = Vec::new();
        let mut waiting = Vec::new();
        for order in orders.drain(..) {
            match order {
                Order::Write(draft) => drafts.push(*draft),
                Order::Flush(done) => waiting.push(done),
            }
        }
        if !drafts.is_empty() {
            let count = drafts.len() as u64;
            let before = inner.upgrade().map_or(0, |inner| inner.left_out.swap(0, Ordering::Relaxed));
            if let Some(first) = drafts.first_mut() {
                first.left_out = before;
            }
            let (open, folder) = (log.take(), folder.clone());
            match blocking(move || append(open, &folder, drafts)).await {
                Ok(open) => log = Some(open),
                Err(reason) => {
                    tracing::error!("audit log: {} not written: {reason}", lines(count));
                    if let Some(inner) = inner.upgrade() {
                        inner.left_out.fetch_add(before + count, Ordering::Relaxed);
                    }
                }
            }
        }
        // Nobody may wait any more.
        for done in waiting {
            let _ = done.send(());
        }
    }
}

fn lines(count: u64) -> String {
    if count == 1 { "a line was".to_owned() } else { format!("{count} lines were") }
}

/// Opens the log where it is not, notes what was repaired, and adds to it.
fn append(open: Option<AuditLog>, folder: &Path, drafts: Vec<Draft>) -> Result<AuditLog, Reason> {
    let mut log = match open {
        Some(log) => log,
        None => {
            let (mut log, torn) = AuditLog::open(folder)?;
            if let Some(bytes) = torn {
                let note = format!(
                    "{bytes} bytes of a line that was being written when the power failed were cut off"
                );
                tracing::warn!("audit log: {note}");
                let agent = Subject {
                    who: Who::Agent,
                    to: String::new(),
                    command: String::new(),
                    id: String::new(),
                    arguments: Value::Null,
                };
                log.append([agent.with(Outcome::Noted { note })])?;
            }
            log
        }
    };
    log.append(drafts)?;
    Ok(log)
}

/// A wait in which the log is written at the agent's end.
pub const FAREWELL: Duration = Duration::from_secs(2);

/// What a command takes, as the log keeps it.
pub fn arguments(command: &Command) -> Value {
    match command {
        Command::Update { slot, release, start, .. } => {
            json!({ "slot": slot, "release": release, "now": start.now })
        }
        Command::Install { slot, file, .. } => json!({ "slot": slot, "file": file }),
        Command::Rollback { slot } | Command::Abort { slot } => json!({ "slot": slot }),
        Command::Pause { pipeline, .. } | Command::Snapshot { pipeline, .. } => match pipeline {
            Some(pipeline) => json!({ "pipeline": pipeline }),
            None => Value::Null,
        },
        Command::Set { values } => json!({ "values": values }),
        Command::Logs { lines, .. } | Command::Audit { lines } => json!({ "lines": lines }),
        Command::Identify { .. } | Command::Status | Command::Diagnose | Command::Restart => Value::Null,
    }
}
