//! What the inference children say and how the actor takes it: trials, takeovers, answers, losses.

use super::actor::{Actor, Purpose};
use super::fault::Origin;
use super::runner::{Phase, Runner};
use super::{OBSERVATIONS, Serving, Sink};
use crate::domain::deployment::{Observation, SwapReport};
use crate::domain::ledger::{Skip, Totals};
use crate::domain::{FrameResult, Reason, ReasonCode};
use crate::process::child::Event;
use crate::process::cost::refused_memory;
use crate::process::protocol::FromInfer;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

impl<S: Sink> Actor<S> {
    pub(super) async fn runner_said(&mut self, id: u64, event: Event<FromInfer>) {
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
            FromInfer::Loaded {
                release: _,
                provider,
                fallback,
                load_ms,
                runtime_version,
                shares,
                saved_graph,
                needs_memory,
            } => {
                tracing::debug!(load_ms, saved_graph, "a model is loaded");
                let Some(runner) = self.runner_mut(id) else { return };
                let serve_now = matches!(runner.phase, Phase::Loading { serve_then: true });
                let bundle = runner.bundle.clone();
                runner.loaded(Serving { bundle, provider, fallback, runtime_version, shares }, load_ms);
                runner.needs_memory = needs_memory;
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
            FromInfer::Failed { reason } => {
                self.lost(id, refused_memory(reason, self.plan.memory_limit));
            }
            FromInfer::GoldenProgress { .. } => {
                if let Some(runner) = self.runner_mut(id) {
                    runner.golden_progress();
                }
            }
            FromInfer::Golden { verdict, times_ms } => self.golden(id, verdict, times_ms),
            FromInfer::Started { from } => self.started(id, from),
            FromInfer::Passed { seq, skipped, why } => {
                if !self.passed_by(id) {
                    self.passed(id, seq, skipped, why);
                }
            }
            FromInfer::Frame { seq, skipped, result } => {
                if !self.compared(id, seq, &result) {
                    self.frame(id, seq, skipped, result);
                }
            }
            FromInfer::Stopped { .. } => {
                let before = self.ledger.totals();
                self.shadow_stopped(id);
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

    pub(super) fn golden(&mut self, id: u64, verdict: Result<(), Reason>, times_ms: Vec<f32>) {
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
                let _ = reply.send(Err(refused_memory(reason, self.plan.memory_limit)));
            }
        }
    }

    pub(super) fn started(&mut self, id: u64, from: u64) {
        if matches!(&self.incoming, Some((runner, Purpose::Shadow(_))) if runner.id == id) {
            return;
        }
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
                        Purpose::Serve
                        | Purpose::Recycle(_)
                        | Purpose::Shadow(_)
                        | Purpose::Passed
                        | Purpose::Trial(_) => self.leaving.push(old),
                    }
                }
            }
            let (span, _) = self.ledger.open(first_seq);
            runner.started(span);
            self.wanted = Some((runner.bundle.clone(), runner.dir.clone()));
            self.active = Some(runner);
            if let Purpose::Recycle(excess) = purpose {
                self.sink.recycled(&self.plan.name, excess);
            } else if let Purpose::Swap(reply) = purpose {
                let (observer, early) = mpsc::channel(OBSERVATIONS);
                (self.observer, self.early, self.untold_loss) = (Some(observer), Some(early), None);
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

    pub(super) fn frame(&mut self, id: u64, seq: u64, skipped: u64, result: Result<FrameResult, Reason>) {
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
        self.status.stale = None;
        match result {
            Ok(result) => {
                self.backoff.reset();
                if is_active {
                    self.works(Origin::Model);
                }
                self.sink.answered(&self.plan.name, result);
            }
            Err(reason) => {
                self.sink.failed(&self.plan.name, seq, &reason);
                self.failed(Origin::Model, reason);
            }
        }
    }

    /// A child saw a frame and did not run its model on it.
    pub(super) fn passed(&mut self, id: u64, seq: u64, skipped: u64, why: Skip) {
        let before = self.ledger.totals();
        let Self { ledger, active, standby, leaving, .. } = self;
        let mut runners = active.iter_mut().chain(standby.iter_mut()).chain(leaving.iter_mut());
        let Some(runner) = runners.find(|runner| runner.id == id) else { return };
        let Some(span) = &mut runner.span else { return };
        if !ledger.passed(span, seq, skipped, why) {
            return;
        }
        runner.frame_answered(ledger.newest(), None, self.plan.frame_deadline);
        self.tell_skips(before);
        if why == Skip::Stale && self.status.stale.is_none() {
            let limit = Duration::from_millis(self.plan.admission.max_age_ms.unwrap_or_default());
            let detail = format!(
                "source of pipeline {}: its frames arrive more than {limit:?} old and are not looked at; \
                 mend the camera or its link, or raise max_age",
                self.plan.name
            );
            let reason = Reason::new(ReasonCode::TooSlow, detail);
            tracing::warn!(pipeline = %self.plan.name, %reason, "source");
            self.status.stale = Some(reason);
        }
    }

    /// A child is gone, or is ended here because it is of no use any more.
    pub(super) fn lost(&mut self, id: u64, reason: Reason) {
        let before = self.ledger.totals();
        if let Some(mut active) = self.active.take_if(|active| active.id == id) {
            if let Some(span) = &mut active.span {
                self.ledger.lost(span);
            }
            drop(active);
            self.observed(Observation::ChildLost(reason.clone()));
            self.sink.child_lost(&self.plan.name, "infer", &reason);
            self.status.model_fault = Some(reason.clone());
            self.respawn_at = Some(Instant::now() + self.backoff.wait());
            self.refuse_serving(&reason);
        } else if let Some((_, purpose)) = self.incoming.take_if(|(runner, _)| runner.id == id) {
            if matches!(purpose, Purpose::Serve | Purpose::Recycle(_)) && self.active.is_none() {
                self.respawn_at = Some(Instant::now() + self.backoff.wait());
            }
            self.refuse(purpose, reason.clone());
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
        self.failed(Origin::Model, reason);
    }

    pub(super) fn judge_deadlines(&mut self) {
        let late: Vec<(u64, Reason)> =
            self.runners().filter_map(|runner| Some((runner.id, runner.overdue()?))).collect();
        for (id, reason) in late {
            self.lost(id, reason);
        }
    }

    /// Tells a child to stop, keeps it until it has, and ends it then.
    pub(super) fn let_go(&mut self, mut runner: Runner) {
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

    pub(super) fn observed(&mut self, observation: Observation) {
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

    pub(super) fn tell_skips(&self, before: Totals) {
        let now = self.ledger.totals();
        for why in Skip::ALL {
            let count = now.skipped(why) - before.skipped(why);
            if count > 0 {
                self.sink.skipped(&self.plan.name, count, why);
            }
        }
    }
}
