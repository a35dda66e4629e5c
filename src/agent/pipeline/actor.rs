//! The actor that owns a pipeline's children, and the swap.
//!
//! Roles of the inference children: the *active* one serves (or is loading to serve); an *incoming*
//! one is on trial or about to take over; the *standby* one served before and stays loaded until the
//! new one counts; *leaving* ones were told to stop and still owe their last answers.
//!
//! A takeover loses no frame: the incoming child is started first and says from which number N it
//! answers; only then is the active one told to stop at N. Until its word arrives the old one goes
//! on, and what both answer is counted once, by the [`Ledger`]'s spans.

use super::fault::Origin;
use super::recycle::Gauge;
use super::runner::{Load, Phase, Runner};
use super::shadow::ShadowRun;
use super::{Ask, Handle, Plan, Sink, Status};
use crate::agent::camera;
use crate::domain::backoff::Backoff;
use crate::domain::deployment::{BundleRef, Observation, SwapReport, TrialReport};
use crate::domain::ledger::Ledger;
use crate::domain::memory::Excess;
use crate::domain::{Reason, ReasonCode};
use crate::process::child::Event;
use crate::process::protocol::FromInfer;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// How often deadlines are looked at while one may run out, and while none is set.
const TICK: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// The waits before a lost active child is started again.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));

/// Starts a pipeline; it runs until [`Handle::stop`] or until every handle is gone.
pub fn spawn<S: Sink>(plan: Plan, camera: camera::Handle, sink: Arc<S>) -> Handle {
    let plan = Arc::new(plan);
    let (asks, inbox) = mpsc::channel(32);
    let (status_out, status) = watch::channel(Status::default());
    let (runner_events, from_runners) = mpsc::channel(256);
    let actor = Actor {
        plan: plan.clone(),
        sink,
        status: Status::default(),
        status_out,
        ledger: Ledger::new(),
        seen: camera.status(),
        camera: camera.clone(),
        runner_events,
        next_id: 1,
        wanted: None,
        active: None,
        incoming: None,
        standby: None,
        leaving: Vec::new(),
        serve_replies: Vec::new(),
        respawn_at: None,
        backoff: BACKOFF,
        erred: None,
        observer: None,
        early: None,
        untold_loss: None,
        gauge: Gauge::new(plan.memory_budget),
    };
    tokio::spawn(actor.run(inbox, from_runners));
    Handle { plan, camera, asks, status }
}

/// Why a child is loaded beside the active one.
pub(super) enum Purpose {
    /// On trial; the answer is awaited.
    Trial(oneshot::Sender<Result<TrialReport, Reason>>),
    /// Has passed its trial and waits.
    Passed,
    /// Passed, and answers live frames beside the one that serves.
    Shadow(Box<ShadowRun>),
    /// Passed, and takes over; the one that served becomes the standby.
    Swap(oneshot::Sender<Result<SwapReport, Reason>>),
    /// Takes over; the one that served is let go.
    Serve,
    /// A fresh child of the bundle that serves, which takes over from one that has grown.
    Recycle(Excess),
}

pub(super) struct Actor<S> {
    pub(super) plan: Arc<Plan>,
    pub(super) sink: Arc<S>,
    pub(super) status: Status,
    pub(super) status_out: watch::Sender<Status>,
    pub(super) ledger: Ledger,
    pub(super) camera: camera::Handle,
    seen: watch::Receiver<camera::Status>,
    pub(super) runner_events: mpsc::Sender<(u64, Event<FromInfer>)>,
    pub(super) next_id: u64,
    /// What should serve, whatever happens to its child.
    pub(super) wanted: Option<(BundleRef, PathBuf)>,
    pub(super) active: Option<Runner>,
    pub(super) incoming: Option<(Runner, Purpose)>,
    pub(super) standby: Option<Runner>,
    pub(super) leaving: Vec<Runner>,
    pub(super) serve_replies: Vec<oneshot::Sender<Result<(), Reason>>>,
    pub(super) respawn_at: Option<Instant>,
    pub(super) backoff: Backoff,
    /// When the newest error came, and from whom.
    pub(super) erred: Option<(Instant, Origin)>,
    pub(super) observer: Option<mpsc::Sender<Observation>>,
    /// What was seen of a candidate since it took over, until its observer is there: the takeover is written down
    /// first, and a film may be at its end by then.
    pub(super) early: Option<mpsc::Receiver<Observation>>,
    /// A loss that the observer had no room for; it must not miss that.
    pub(super) untold_loss: Option<Observation>,
    /// What the children cost.
    pub(super) gauge: Gauge,
}

impl<S: Sink> Actor<S> {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Ask>,
        mut from_runners: mpsc::Receiver<(u64, Event<FromInfer>)>,
    ) {
        let mut look = Instant::now();
        loop {
            // Soon while a deadline may run; an idle pipeline costs nothing.
            look = look.min(Instant::now() + if self.is_idle() { TICK.1 } else { TICK.0 });
            tokio::select! {
                ask = inbox.recv() => match ask {
                    Some(Ask::Stop { reply }) => {
                        self.camera.need(&self.plan.name, false);
                        self.camera.claim(&self.plan.name, None);
                        drop(self);
                        let _ = reply.send(());
                        return;
                    }
                    Some(ask) => self.asked(ask).await,
                    None => return,
                },
                // A camera ends with its last handle, and one is here.
                Ok(()) = self.seen.changed() => self.camera_changed(),
                Some((id, event)) = from_runners.recv() => self.runner_said(id, event).await,
                Some(samples) = self.gauge.read() => self.weighed(samples).await,
                () = tokio::time::sleep_until(look.into()) => {
                    look = Instant::now() + TICK.1;
                    self.judge_deadlines();
                    self.judge_shadow();
                    self.look();
                    self.respawn().await;
                    if let Some(loss) = self.untold_loss.take() {
                        self.observed(loss);
                    }
                }
            }
            self.camera.need(&self.plan.name, self.needs_frames());
            self.tell_claim();
            self.publish_status();
        }
    }

    /// True while there is no deadline to look at.
    fn is_idle(&self) -> bool {
        !self.runners().any(|runner| runner.owes().is_some())
            && self.respawn_at.is_none()
            && self.untold_loss.is_none()
    }

    /// True while a model answers frames or is about to.
    fn needs_frames(&self) -> bool {
        self.wanted.is_some() || self.incoming.is_some() || !self.leaving.is_empty()
    }

    /// The camera's newest word; what lies between two is in its numbers.
    fn camera_changed(&mut self) {
        let now = self.seen.borrow_and_update().clone();
        let before = std::mem::replace(&mut self.status.camera, now);
        let now = &self.status.camera;
        if now.newest > before.newest {
            self.ledger.published(now.newest);
            self.sink.published(&self.plan.name, now.newest - before.newest);
            if let Some(active) = &mut self.active {
                active.frame_published(now.newest, self.plan.frame_deadline);
            }
        }
        if now.still > before.still {
            self.sink.still(&self.plan.name, now.still - before.still);
        }
        let worse = now.faults > before.faults || now.losses > before.losses;
        let works = now.fault.is_none() && (now.newest > before.newest || now.still > before.still);
        match now.fault.clone() {
            Some(fault) if worse => self.failed(Origin::Source, fault),
            Some(_) | None if works => self.works(Origin::Source),
            Some(_) | None => {}
        }
        let now = &self.status.camera;
        if let (true, Some(reason)) = (self.plan.owns_camera(), &now.fault) {
            for _ in before.losses..now.losses {
                self.sink.child_lost(&self.plan.name, "capture", reason);
            }
        }
    }

    async fn asked(&mut self, ask: Ask) {
        match ask {
            Ask::Try { bundle, dir, reply } => {
                self.drop_incoming("a newer candidate came");
                let low = self.active.is_some();
                match self.start_runner(Load { bundle, dir, serve_then: false, low }).await {
                    Ok(runner) => self.incoming = Some((runner, Purpose::Trial(reply))),
                    Err(reason) => {
                        let _ = reply.send(Err(reason));
                    }
                }
            }
            Ask::Shadow { plan, progress, reply } => self.shadow(plan, progress, reply),
            Ask::Swap { reply } => self.swap(reply),
            Ask::Serve { bundle, reply } => {
                self.early = None;
                self.serve(bundle, reply).await;
            }
            Ask::Settle => {
                if let Some(standby) = self.standby.take() {
                    self.let_go(standby);
                }
            }
            Ask::Discard => self.drop_incoming("it was discarded"),
            Ask::Observe { observer } => {
                if let Some(mut early) = self.early.take() {
                    while let Ok(observation) = early.try_recv() {
                        // It has as much room.
                        let _ = observer.try_send(observation);
                    }
                } else {
                    self.untold_loss = None;
                }
                self.observer = Some(observer);
            }
            Ask::Stop { .. } => {}
        }
    }

    pub(super) async fn start_runner(&mut self, load: Load) -> Result<Runner, Reason> {
        let id = self.next_id;
        self.next_id += 1;
        Runner::start(id, &self.plan, load, self.runner_events.clone()).await
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
        self.backoff.reset();
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
            None => self.start_runner(Load { bundle, dir, serve_then: true, low: false }).await,
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
                self.respawn_at = Some(Instant::now() + self.backoff.wait());
            }
        }
    }

    async fn respawn(&mut self) {
        let replaced = matches!(self.incoming, Some((_, Purpose::Serve | Purpose::Recycle(_))));
        if self.active.is_some() || replaced || self.respawn_at.is_none_or(|at| Instant::now() < at) {
            return;
        }
        self.respawn_at = None;
        let Some((bundle, dir)) = self.wanted.clone() else { return };
        match self.start_runner(Load { bundle, dir, serve_then: true, low: false }).await {
            Ok(runner) => self.active = Some(runner),
            Err(reason) => {
                self.status.model_fault = Some(reason);
                self.respawn_at = Some(Instant::now() + self.backoff.wait());
            }
        }
    }

    fn drop_incoming(&mut self, why: &str) {
        let Some((runner, purpose)) = self.incoming.take() else { return };
        let aborted = Reason::new(ReasonCode::Aborted, format!("model {}: {why}", runner.bundle.release));
        self.refuse(purpose, aborted);
    }

    /// Answers whoever waits for a child that is of no use any more.
    pub(super) fn refuse(&mut self, purpose: Purpose, reason: Reason) {
        match purpose {
            Purpose::Trial(reply) => drop(reply.send(Err(reason))),
            Purpose::Swap(reply) => drop(reply.send(Err(reason))),
            Purpose::Shadow(run) => run.refuse(reason),
            Purpose::Passed => {}
            Purpose::Recycle(_) => {
                tracing::warn!(pipeline = %self.plan.name, %reason, "no fresh child took over")
            }
            Purpose::Serve => self.refuse_serving(&reason),
        }
    }

    /// Answers whoever waits for a bundle to serve.
    pub(super) fn refuse_serving(&mut self, reason: &Reason) {
        for reply in self.serve_replies.drain(..) {
            let _ = reply.send(Err(reason.clone()));
        }
    }

    pub(super) fn runners(&self) -> impl Iterator<Item = &Runner> {
        let incoming = self.incoming.iter().map(|(runner, _)| runner);
        self.active.iter().chain(incoming).chain(self.standby.iter()).chain(self.leaving.iter())
    }

    pub(super) fn runner_mut(&mut self, id: u64) -> Option<&mut Runner> {
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
        let successor = self.incoming.as_ref().filter(|(_, purpose)| matches!(purpose, Purpose::Serve));
        status.owed = self.active.as_ref().or(successor.map(|(runner, _)| runner)).and_then(Runner::owes);
        status.pids.clear();
        // Told once, by the pipeline whose source it is.
        let own = if self.plan.owns_camera() { status.camera.pid } else { None };
        status.pids.extend(own.map(|pid| ("capture", pid)));
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
