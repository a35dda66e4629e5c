//! One inference child as the agent sees it: loading, on trial, idle, or serving a span of frames.
//!
//! Nothing here waits: the child's messages and the clock come in, deadlines are judged by
//! [`Runner::overdue`].

use super::{Plan, Serving};
use crate::domain::deployment::{BundleRef, TrialReport};
use crate::domain::ledger::Span;
use crate::domain::{Reason, ReasonCode};
use crate::process::child::{Event, InferChild};
use crate::process::cost::{self, Priority};
use crate::process::protocol::{FromInfer, ToInfer};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Frames whose times are kept for the baseline of a successor.
const BASELINE_FRAMES: usize = 100;
/// Fewer frames than this give no baseline.
const BASELINE_LEAST: usize = 10;

/// What a runner is busy with.
#[derive(Debug)]
pub(super) enum Phase {
    /// Loading its model; `serve_then` when it is to serve as soon as it is ready.
    Loading { serve_then: bool },
    /// Golden inputs are running.
    Golden,
    /// Loaded; answers nothing.
    Idle,
    /// Told to start; has not said from which frame.
    Starting,
    /// Answers its span.
    Serving,
    /// Answers in the shadow.
    Shadowing,
}

/// One inference child.
pub(super) struct Runner {
    /// Tells its events from those of other children.
    pub(super) id: u64,
    pub(super) bundle: BundleRef,
    pub(super) dir: PathBuf,
    pub(super) phase: Phase,
    /// Set once loaded.
    pub(super) serving: Option<Serving>,
    pub(super) load_ms: f32,
    /// What its bundle says that it needs, bytes.
    pub(super) needs_memory: u64,
    /// The frames that are its own, while it serves and until its last answer is in.
    pub(super) span: Option<Span>,
    child: InferChild,
    /// Since when an answer is owed, and to be judged by which deadline.
    owed: Option<(Instant, Duration)>,
    times: VecDeque<f32>,
    /// At low priority, until it serves.
    low: bool,
}

/// What a child is to load.
pub(super) struct Load {
    pub(super) bundle: BundleRef,
    pub(super) dir: PathBuf,
    /// Whether it is to serve as soon as it is ready.
    pub(super) serve_then: bool,
    /// At low priority until then, where it can be raised again.
    pub(super) low: bool,
}

impl Runner {
    /// Starts a child and tells it to load a bundle. What it says comes at `events` under its id.
    pub(super) async fn start(
        id: u64,
        plan: &Plan,
        load: Load,
        events: mpsc::Sender<(u64, Event<FromInfer>)>,
    ) -> Result<Self, Reason> {
        let Load { bundle, dir, serve_then, low } = load;
        let configure = ToInfer::Configure {
            bundle: dir.clone(),
            digest: bundle.digest,
            runtime: plan.runtime.clone(),
            input: plan.input,
            channel: plan.channel.clone(),
            admission: plan.admission,
            model_keys: plan.model_keys.clone(),
        };
        let priority = if low { Priority::low_if_it_can_rise() } else { Priority::Normal };
        let what = bundle.release.to_string();
        let mut child = InferChild::start_infer(&plan.exe, &what, configure, priority).await?;
        // Its first message may be under way already; what it allocates comes after.
        cost::limit_memory(child.pid(), plan.memory_limit);
        let mut from_child = child.take_events();
        tokio::spawn(async move {
            while let Some(event) = from_child.recv().await {
                if events.send((id, event)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            id,
            bundle,
            dir,
            phase: Phase::Loading { serve_then },
            serving: None,
            load_ms: 0.0,
            needs_memory: 0,
            span: None,
            child,
            owed: Some((Instant::now(), plan.load_deadline)),
            times: VecDeque::new(),
            low: priority == Priority::Low,
        })
    }

    /// The child's process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// True while it may answer frames.
    pub(super) fn is_serving(&self) -> bool {
        matches!(self.phase, Phase::Serving)
    }

    /// The model is ready.
    pub(super) fn loaded(&mut self, serving: Serving, load_ms: f32) {
        self.serving = Some(serving);
        self.load_ms = load_ms;
        self.phase = Phase::Idle;
        self.owed = None;
    }

    /// Runs the golden inputs; each is owed within the deadline.
    pub(super) fn run_golden(&mut self, deadline: Duration) -> Result<(), Reason> {
        self.phase = Phase::Golden;
        self.owed = Some((Instant::now(), deadline));
        self.child.send(ToInfer::RunGolden)
    }

    /// One golden input is done.
    pub(super) fn golden_progress(&mut self) {
        if let Some((since, _)) = &mut self.owed {
            *since = Instant::now();
        }
    }

    /// All golden inputs are done.
    pub(super) fn golden_done(&mut self, times_ms: Vec<f32>) -> Option<TrialReport> {
        self.phase = Phase::Idle;
        self.owed = None;
        let provider = self.serving.as_ref()?.provider;
        Some(TrialReport { provider, load_ms: self.load_ms, golden_ms: times_ms })
    }

    /// Answer frames from `from` on.
    pub(super) fn serve_from(&mut self, from: u64, deadline: Duration) -> Result<(), Reason> {
        if std::mem::take(&mut self.low) {
            cost::raise(self.child.pid());
        }
        self.phase = Phase::Starting;
        self.owed = Some((Instant::now(), deadline));
        self.child.send(ToInfer::Start { from })
    }

    /// Answer frames from `from` on, in the shadow and at the priority it has. Nothing is owed: how long
    /// it may be silent depends on what the serving child answers.
    pub(super) fn shadow_from(&mut self, from: u64) -> Result<(), Reason> {
        self.phase = Phase::Shadowing;
        self.owed = None;
        self.child.send(ToInfer::Start { from })
    }

    /// It said from which frame it answers.
    pub(super) fn started(&mut self, span: Span) {
        self.phase = Phase::Serving;
        self.owed = None;
        self.span = Some(span);
    }

    /// Answer nothing from `until` on.
    pub(super) fn stop_at(&mut self, until: u64, deadline: Duration) -> Result<(), Reason> {
        self.phase = Phase::Idle;
        self.owed = Some((Instant::now(), deadline));
        self.child.send(ToInfer::Stop { until })
    }

    /// It said that it has stopped.
    pub(super) fn stopped(&mut self) {
        self.span = None;
        self.owed = None;
    }

    /// A frame was published: when nothing was owed so far, an answer is now.
    pub(super) fn frame_published(&mut self, seq: u64, deadline: Duration) {
        let waits = self.span.as_ref().is_some_and(|span| seq >= span.next());
        if self.is_serving() && waits && self.owed.is_none() {
            self.owed = Some((Instant::now(), deadline));
        }
    }

    /// A frame was answered.
    pub(super) fn frame_answered(&mut self, newest: u64, total_ms: Option<f32>, deadline: Duration) {
        if let Some(total) = total_ms {
            if self.times.len() == BASELINE_FRAMES {
                self.times.pop_front();
            }
            self.times.push_back(total);
        }
        if self.is_serving() {
            let behind = self.span.as_ref().is_some_and(|span| newest >= span.next());
            self.owed = behind.then(|| (Instant::now(), deadline));
        }
    }

    /// Median milliseconds per frame lately, all stages.
    pub(super) fn baseline_ms(&self) -> Option<f32> {
        let mut times: Vec<f32> = self.times.iter().copied().collect();
        times.sort_by(f32::total_cmp);
        (times.len() >= BASELINE_LEAST).then(|| times[times.len() / 2])
    }

    /// The deadline of what it owes.
    pub(super) fn owes(&self) -> Option<Duration> {
        self.owed.map(|(_, deadline)| deadline)
    }

    /// Why it must be taken for hung, if an answer is owed for too long.
    pub(super) fn overdue(&self) -> Option<Reason> {
        let (since, deadline) = self.owed?;
        let what = match self.phase {
            Phase::Loading { .. } => "loading the model",
            Phase::Golden => "a golden input",
            Phase::Idle => "stopping",
            Phase::Starting => "starting",
            Phase::Serving | Phase::Shadowing => "a frame",
        };
        (since.elapsed() > deadline).then(|| {
            Reason::new(
                ReasonCode::ChildHung,
                format!(
                    "model {}: {what} took longer than {deadline:?}; its process was ended",
                    self.bundle.release
                ),
            )
        })
    }
}
