//! The actor that owns a pipeline's children, and the swap.
//!
//! Roles of the inference children: the *active* one serves (or is loading to serve); an *incoming*
//! one is on trial or about to take over; the *standby* one served before and stays loaded until the
//! new one counts; *leaving* ones were told to stop and still owe their last answers.
//!
//! A takeover loses no frame: the incoming child is started first and says from which number N it
//! answers; only then is the active one told to stop at N. Until its word arrives the old one goes
//! on, and what both answer is counted once, by the [`Ledger`]'s spans.

use super::camera::{Camera, Seen};
use super::runner::{Phase, Runner};
use super::{Ask, Handle, Plan, Serving, Sink, Status};
use crate::domain::deployment::{BundleRef, Observation, SwapReport, TrialReport};
use crate::domain::ledger::{Ledger, Skip};
use crate::domain::{Reason, ReasonCode};
use crate::process::child::Event;
use crate::process::protocol::{FromCapture, FromInfer};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(100);
/// Shortest and longest wait before a lost active child is started again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// Starts a pipeline; it runs until [`Handle::stop`] or until every handle is gone.
pub fn spawn<S: Sink>(plan: Plan, sink: Arc<S>) -> Handle {
    let plan = Arc::new(plan);
    let (asks, inbox) = mpsc::channel(32);
    let (status_out, status) = watch::channel(Status::default());
    let (camera_events, from_camera) = mpsc::channel(256);
    let (runner_events, from_runners) = mpsc::channel(256);
    let actor = Actor {
        plan: plan.clone(),
        sink,
        status: Status::default(),
        status_out,
        ledger: Ledger::new(),
        camera: Camera::new(camera_events),
        runner_events,
        next_id: 1,
        wanted: None,
        active: None,
        incoming: None,
        standby: None,
        leaving: Vec::new(),
        serve_replies: Vec::new(),
        respawn_at: None,
        backoff: BACKOFF.0,
        observer: None,
        untold_loss: None,
    };
    tokio::spawn(actor.run(inbox, from_camera, from_runners));
    Handle { plan, asks, status }
}

/// Why a child is loaded beside the active one.
enum Purpose {
    /// On trial; the answer is awaited.
    Trial(oneshot::Sender<Result<TrialReport, Reason>>),
    /// Has passed its trial and waits.
    Passed,
    /// Passed, and takes over; the one that served becomes the standby.
    Swap(oneshot::Sender<Result<SwapReport, Reason>>),
    /// Takes over; the one that served is let go.
    Serve,
}

struct Actor<S> {
    plan: Arc<Plan>,
    sink: Arc<S>,
    status: Status,
    status_out: watch::Sender<Status>,
    ledger: Ledger,
    camera: Camera,
    runner_events: mpsc::Sender<(u64, Event<FromInfer>)>,
    next_id: u64,
    /// What should serve, whatever happens to its child.
    wanted: Option<(BundleRef, PathBuf)>,
    active: Option<Runner>,
    incoming: Option<(Runner, Purpose)>,
    standby: Option<Runner>,
    leaving: Vec<Runner>,
    serve_replies: Vec<oneshot::Sender<Result<(), Reason>>>,
    respawn_at: Option<Instant>,
    backoff: Duration,
    observer: Option<mpsc::Sender<Observation>>,
    /// A loss that the observer had no room for; it must not miss that.
    untold_loss: Option<Observation>,
}

impl<S: Sink> Actor<S> {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Ask>,
        mut from_camera: mpsc::Receiver<(u64, Event<FromCapture>)>,
        mut from_runners: mpsc::Receiver<(u64, Event<FromInfer>)>,
    ) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                ask = inbox.recv() => match ask {
                    Some(Ask::Stop { reply }) => {
                        drop(self);
                        let _ = reply.send(());
                        return;
                    }
                    Some(ask) => self.asked(ask).await,
                    None => return,
                },
                Some(event) = from_camera.recv() => {
                    let seen = self.camera.event(event, &mut self.status);
                    self.seen(seen);
                }
                Some((id, event)) = from_runners.recv() => self.runner_said(id, event).await,
                _ = ticks.tick() => {
                    let seen = self.camera.tick(&self.plan, self.ledger.newest(), &mut self.status).await;
                    self.seen(seen);
                    self.judge_deadlines();
                    self.respawn().await;
                    if let Some(loss) = self.untold_loss.take() {
                        self.observed(loss);
                    }
                }
            }
            self.publish_status();
        }
    }

    fn seen(&mut self, seen: Seen) {
        match seen {
            Seen::Published(seq) => {
                self.ledger.published(seq);
                self.sink.published(&self.plan.name);
                if let Some(active) = &mut self.active {
                    active.frame_published(seq, self.plan.frame_deadline);
                }
            }
            Seen::Fault(reason) => self.status.last_error = Some(reason),
            Seen::Lost(reason) => {
                self.sink.child_lost(&self.plan.name, "capture", &reason);
                self.status.last_error = Some(reason);
            }
            Seen::Quiet => {}
        }
    }

    async fn asked(&mut self, ask: Ask) {
        match ask {
            Ask::Try { bundle, dir, reply } => {
                self.drop_incoming("a newer candidate came");
                match self.start_runner(bundle, dir, false).await {
                    Ok(runner) => self.incoming = Some((runner, Purpose::Trial(reply))),
                    Err(reason) => {
                        let _ = reply.send(Err(reason));
                    }
                }
            }
            Ask::Swap { reply } => self.swap(reply),
            Ask::Serve { bundle, reply } => self.serve(bundle, reply).await,
            Ask::Settle => {
                if let Some(standby) = self.standby.take() {
                    self.let_go(standby);
                }
            }
            Ask::Discard => self.drop_incoming("it was discarded"),
            Ask::Observe { observer } => {
                self.observer = Some(observer);
                self.untold_loss = None;
            }
            Ask::Snapshot { max_edge, reply } => self.camera.snapshot(max_edge, reply),
            Ask::Stop { .. } => {}
        }
    }

    async fn start_runner(&mut self, bundle: BundleRef, dir: PathBuf, serve: bool) -> Result<Runner, Reason> {
        let id = self.next_id;
        self.next_id += 1;
        Runner::start(id, &self.plan, bundle, &dir, serve, self.runner_events.clone()).await
    }

    fn swap(&mut self, reply: oneshot::Sender<Result<SwapReport, Reason>>) {
        let from = self.ledger.newest() + 1;
        match self.incoming.take() {
            Some((mut runner, Purpose::Passed)) => match runner.serve_from(from, self.plan.frame_deadline) {
                Ok(()) => self.incoming = Some((runner, Purpose::Swap(reply))),
                Err(reason) => {
                    let _ = reply.send(Err(reason));
                }
            },
            other => {
                self.incoming = other;
                let detail = format!("pipeline {}: no candidate has passed its trial", self.plan.name);
                let _ = reply.send(Err(Reason::new(ReasonCode::Internal, detail)));
            }
        }
    }

    async fn serve(
        &mut self,
        bundle: Option<(BundleRef, PathBuf)>,
        reply: oneshot::Sender<Result<(), Reason>>,
    ) {
        self.drop_incoming("another bundle is to serve");
        self.wanted = bundle.clone();
        self.backoff = BACKOFF.0;
        let Some((bundle, dir)) = bundle else {
            if let Some(active) = self.active.take() {
                self.let_go(active);
            }
            if let Some(standby) = self.standby.take() {
                self.let_go(standby);
            }
            self.respawn_at = None;
            self.status.model_fault = None;
            let _ = reply.send(Ok(()));
            return;
        };
        if self.active.as_ref().is_some_and(|active| active.bundle.digest == bundle.digest) {
            if let Some(standby) = self.standby.take() {
                self.let_go(standby);
            }
            if self.active.as_ref().is_some_and(Runner::is_serving) {
                let _ = reply.send(Ok(()));
            } else {
                self.serve_replies.push(reply);
            }
            return;
        }
        let from = self.ledger.newest() + 1;
        let idle = self.standby.take_if(|standby| {
            standby.bundle.digest == bundle.digest
                && standby.span.is_none()
                && matches!(standby.phase, Phase::Idle)
        });
        let started = match idle {
            Some(mut runner) => runner.serve_from(from, self.plan.frame_deadline).map(|()| runner),
            None => self.start_runner(bundle, dir, true).await,
        };
        match started {
            Ok(runner) if self.active.is_some() => {
                self.serve_replies.push(reply);
                self.incoming = Some((runner, Purpose::Serve));
            }
            Ok(runner) => {
                self.serve_replies.push(reply);
                self.respawn_at = None;
                self.active = Some(runner);
            }
            Err(reason) => {
                let _ = reply.send(Err(reason));
                self.respawn_at = Some(Instant::now() + self.backoff);
            }
        }
    }

    async fn runner_said(&mut self, id: u64, event: Event<FromInfer>) {
        let message = match event {
            Event::Message(message) => message,
            Event::Exited(exit) => {
                if self.runner_mut(id).is_some() {
                    self.lost(id, exit.reason());
                }
                return;
            }
        };
        match message {
            FromInfer::Loaded { provider, fallback, load_ms, runtime_version, .. } => {
                let Some(runner) = self.runner_mut(id) else { return };
                let serve_now = matches!(runner.phase, Phase::Loading { serve_then: true });
                let bundle = runner.bundle.clone();
                runner.loaded(Serving { bundle, provider, fallback, runtime_version }, load_ms);
                let (from, plan) = (self.ledger.newest() + 1, self.plan.clone());
                let Some(runner) = self.runner_mut(id) else { return };
                let told = if serve_now {
                    runner.serve_from(from, plan.frame_deadline)
                } else {
                    runner.run_golden(plan.load_deadline)
                };
                if let Err(reason) = told {
                    self.lost(id, reason);
                }
            }
            FromInfer::Failed { reason } => self.lost(id, reason),
            FromInfer::GoldenProgress { .. } => {
                if let Some(runner) = self.runner_mut(id) {
                    runner.golden_progress();
                }
            }
            FromInfer::Golden { verdict, times_ms } => self.golden(id, verdict, times_ms),
            FromInfer::Started { from } => self.started(id, from),
            FromInfer::Frame { seq, skipped, result } => self.frame(id, seq, skipped, result),
            FromInfer::Stopped { .. } => {
                let before = self.ledger.totals();
                let Self { ledger, standby, leaving, .. } = self;
                if let Some(runner) =
                    standby.iter_mut().chain(leaving.iter_mut()).find(|runner| runner.id == id)
                {
                    if let Some(span) = &mut runner.span {
                        ledger.stopped(span);
                    }
                    runner.stopped();
                }
                // Dropping a runner ends its process.
                self.leaving.retain(|runner| runner.id != id);
                self.tell_skips(before);
            }
        }
    }

    fn golden(&mut self, id: u64, verdict: Result<(), Reason>, times_ms: Vec<f32>) {
        let Some((mut runner, Purpose::Trial(reply))) = self.incoming.take_if(|(runner, _)| runner.id == id)
        else {
            return;
        };
        let report = runner.golden_done(times_ms);
        match (verdict, report) {
            (Ok(()), Some(report)) => {
                self.incoming = Some((runner, Purpose::Passed));
                let _ = reply.send(Ok(report));
            }
            (Ok(()), None) => {
                let _ = reply
                    .send(Err(Reason::new(ReasonCode::Internal, "the candidate ran before it was loaded")));
            }
            (Err(reason), _) => {
                let _ = reply.send(Err(reason));
            }
        }
    }

    fn started(&mut self, id: u64, from: u64) {
        let before = self.ledger.totals();
        if self.active.as_ref().is_some_and(|active| active.id == id) {
            let (span, _) = self.ledger.open(from);
            if let Some(active) = &mut self.active {
                active.started(span);
            }
        } else if let Some((mut runner, purpose)) = self.incoming.take_if(|(runner, _)| runner.id == id) {
            let old = self.active.take();
            let baseline_ms = old.as_ref().and_then(Runner::baseline_ms);
            let mut first_seq = from;
            if let Some(mut old) = old {
                if let Some(span) = &mut old.span {
                    self.ledger.limit(span, from);
                    first_seq = from.max(span.next());
                    if old.stop_at(first_seq, self.plan.frame_deadline).is_err() {
                        // Its end will be told as an event of its own; what it owes is counted here.
                        if let Some(span) = &mut old.span {
                            self.ledger.lost(span);
                        }
                    }
                }
                // One that never served is of no use as a standby: dropping it ends its process.
                if old.span.is_some() {
                    match purpose {
                        Purpose::Swap(_) => {
                            if let Some(former) = self.standby.replace(old) {
                                self.let_go(former);
                            }
                        }
                        Purpose::Serve | Purpose::Passed | Purpose::Trial(_) => self.leaving.push(old),
                    }
                }
            }
            let (span, _) = self.ledger.open(first_seq);
            runner.started(span);
            self.wanted = Some((runner.bundle.clone(), runner.dir.clone()));
            self.active = Some(runner);
            if let Purpose::Swap(reply) = purpose {
                let _ = reply.send(Ok(SwapReport { first_seq, baseline_ms }));
            } else if let Some(standby) = self.standby.take() {
                self.let_go(standby);
            }
        } else {
            return;
        }
        self.tell_skips(before);
        self.status.model_fault = None;
        for reply in self.serve_replies.drain(..) {
            let _ = reply.send(Ok(()));
        }
    }

    fn frame(&mut self, id: u64, seq: u64, skipped: u64, result: Result<crate::domain::FrameResult, Reason>) {
        let before = self.ledger.totals();
        let Self { ledger, active, standby, leaving, .. } = self;
        let is_active = active.as_ref().is_some_and(|active| active.id == id);
        let Some(runner) = active
            .iter_mut()
            .chain(standby.iter_mut())
            .chain(leaving.iter_mut())
            .find(|runner| runner.id == id)
        else {
            return;
        };
        let Some(span) = &mut runner.span else { return };
        if !ledger.frame(span, seq, skipped, result.is_ok()) {
            return;
        }
        let total_ms = result.as_ref().ok().map(|result| result.timing_ms.total());
        runner.frame_answered(ledger.newest(), total_ms, self.plan.frame_deadline);
        self.tell_skips(before);
        if is_active {
            let observation = match (&result, total_ms) {
                (Ok(_), total_ms) => Observation::Frame { total_ms: total_ms.unwrap_or_default() },
                (Err(reason), _) => Observation::FrameFailed(reason.clone()),
            };
            self.observed(observation);
        }
        match result {
            Ok(result) => {
                self.backoff = BACKOFF.0;
                self.sink.answered(&self.plan.name, result);
            }
            Err(reason) => {
                self.sink.failed(&self.plan.name, seq, &reason);
                self.status.last_error = Some(reason);
            }
        }
    }

    /// A child is gone, or is ended here because it is of no use any more.
    fn lost(&mut self, id: u64, reason: Reason) {
        let before = self.ledger.totals();
        if let Some(mut active) = self.active.take_if(|active| active.id == id) {
            if let Some(span) = &mut active.span {
                self.ledger.lost(span);
            }
            drop(active);
            self.observed(Observation::ChildLost(reason.clone()));
            self.sink.child_lost(&self.plan.name, "infer", &reason);
            self.status.model_fault = Some(reason.clone());
            self.respawn_at = Some(Instant::now() + self.backoff);
            self.backoff = (self.backoff * 2).min(BACKOFF.1);
            for reply in self.serve_replies.drain(..) {
                let _ = reply.send(Err(reason.clone()));
            }
        } else if let Some((_, purpose)) = self.incoming.take_if(|(runner, _)| runner.id == id) {
            match purpose {
                Purpose::Trial(reply) => drop(reply.send(Err(reason.clone()))),
                Purpose::Swap(reply) => drop(reply.send(Err(reason.clone()))),
                Purpose::Passed => {}
                Purpose::Serve => {
                    if self.active.is_none() {
                        self.respawn_at = Some(Instant::now() + self.backoff);
                    }
                    for reply in self.serve_replies.drain(..) {
                        let _ = reply.send(Err(reason.clone()));
                    }
                }
            }
        } else {
            let Self { ledger, standby, leaving, .. } = self;
            for runner in standby.iter_mut().chain(leaving.iter_mut()).filter(|runner| runner.id == id) {
                if let Some(span) = &mut runner.span {
                    ledger.lost(span);
                }
            }
            standby.take_if(|standby| standby.id == id);
            leaving.retain(|runner| runner.id != id);
        }
        self.tell_skips(before);
        self.status.last_error = Some(reason);
    }

    fn judge_deadlines(&mut self) {
        let late: Vec<(u64, Reason)> =
            self.runners().filter_map(|runner| Some((runner.id, runner.overdue()?))).collect();
        for (id, reason) in late {
            self.lost(id, reason);
        }
    }

    async fn respawn(&mut self) {
        let replaced = matches!(self.incoming, Some((_, Purpose::Serve)));
        if self.active.is_some() || replaced || self.respawn_at.is_none_or(|at| Instant::now() < at) {
            return;
        }
        self.respawn_at = None;
        let Some((bundle, dir)) = self.wanted.clone() else { return };
        match self.start_runner(bundle, dir, true).await {
            Ok(runner) => self.active = Some(runner),
            Err(reason) => {
                self.status.model_fault = Some(reason);
                self.respawn_at = Some(Instant::now() + self.backoff);
                self.backoff = (self.backoff * 2).min(BACKOFF.1);
            }
        }
    }

    /// Tells a child to stop, keeps it until it has, and ends it then.
    fn let_go(&mut self, mut runner: Runner) {
        let before = self.ledger.totals();
        let until = self.ledger.newest() + 1;
        if let (true, Some(span)) = (runner.is_serving(), &mut runner.span) {
            self.ledger.limit(span, until);
            let until = until.max(span.next());
            if runner.stop_at(until, self.plan.frame_deadline).is_err() {
                if let Some(span) = &mut runner.span {
                    self.ledger.lost(span);
                }
                self.tell_skips(before);
                return;
            }
        }
        if runner.span.is_some() {
            self.leaving.push(runner);
        }
    }

    fn drop_incoming(&mut self, why: &str) {
        let Some((runner, purpose)) = self.incoming.take() else { return };
        let aborted = Reason::new(ReasonCode::Aborted, format!("model {}: {why}", runner.bundle.release));
        match purpose {
            Purpose::Trial(reply) => drop(reply.send(Err(aborted))),
            Purpose::Swap(reply) => drop(reply.send(Err(aborted))),
            Purpose::Passed => {}
            Purpose::Serve => {
                for reply in self.serve_replies.drain(..) {
                    let _ = reply.send(Err(aborted.clone()));
                }
            }
        }
    }

    fn observed(&mut self, observation: Observation) {
        let Some(observer) = &self.observer else { return };
        match observer.try_send(observation) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(loss @ Observation::ChildLost(_))) => {
                self.untold_loss = Some(loss)
            }
            // A judge that is that far behind misses some frames; nothing waits for it.
            Err(mpsc::error::TrySendError::Full(_)) => {}
            Err(mpsc::error::TrySendError::Closed(_)) => self.observer = None,
        }
    }

    fn tell_skips(&self, before: crate::domain::ledger::Totals) {
        let now = self.ledger.totals();
        for (count, why) in
            [(now.busy - before.busy, Skip::Busy), (now.unserved - before.unserved, Skip::Unserved)]
        {
            if count > 0 {
                self.sink.skipped(&self.plan.name, count, why);
            }
        }
    }

    fn runners(&self) -> impl Iterator<Item = &Runner> {
        let incoming = self.incoming.iter().map(|(runner, _)| runner);
        self.active.iter().chain(incoming).chain(self.standby.iter()).chain(self.leaving.iter())
    }

    fn runner_mut(&mut self, id: u64) -> Option<&mut Runner> {
        let incoming = self.incoming.iter_mut().map(|(runner, _)| runner);
        self.active
            .iter_mut()
            .chain(incoming)
            .chain(self.standby.iter_mut())
            .chain(self.leaving.iter_mut())
            .find(|runner| runner.id == id)
    }

    fn publish_status(&mut self) {
        let status = &mut self.status;
        status.totals = self.ledger.totals();
        status.serving = self
            .active
            .as_ref()
            .filter(|active| active.is_serving())
            .and_then(|active| active.serving.clone());
        status.pids.clear();
        status.pids.extend(self.camera.pid().map(|pid| ("capture", pid)));
        status.pids.extend(self.active.iter().map(|runner| ("infer", runner.pid())));
        status.pids.extend(self.incoming.iter().map(|(runner, _)| ("candidate", runner.pid())));
        status.pids.extend(self.standby.iter().map(|runner| ("standby", runner.pid())));
        self.status_out.send_if_modified(|shown| {
            let changed = *shown != self.status;
            if changed {
                shown.clone_from(&self.status);
            }
            changed
        });
    }
}
