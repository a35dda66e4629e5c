//! The shadow run: a candidate that passed its trial answers the live frames beside the child that
//! serves. Its answers end here; `domain::shadow` judges.
//!
//! The serving child goes on as ever: when it is lost and started again, the comparison waits for it.
//! A candidate that is lost, or silent while the other answers, is refused.

use super::Sink;
use super::actor::{Actor, Purpose};
use crate::domain::shadow::{Plan, Report, Shadow, Side, Verdict};
use crate::domain::{FrameResult, Reason, ReasonCode};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// Between two reports.
const TELL: Duration = Duration::from_millis(500);
/// A candidate at low priority may be silent for so many times the deadline of a frame while the serving
/// child answers.
const PATIENCE: u32 = 10;

/// One run and who waits for it.
pub(super) struct ShadowRun {
    judge: Shadow,
    begun: Instant,
    told: Instant,
    /// Since when the candidate owes an answer to what the serving child has answered.
    silent_since: Option<Instant>,
    progress: watch::Sender<Report>,
    reply: oneshot::Sender<Result<(), Reason>>,
}

impl ShadowRun {
    fn tell(&mut self) {
        self.told = Instant::now();
        self.progress.send_replace(self.judge.report());
    }

    /// Ends it without success; what was found goes first.
    pub(super) fn refuse(mut self: Box<Self>, reason: Reason) {
        self.tell();
        let _ = self.reply.send(Err(reason));
    }

    /// What a side's process costs now.
    pub(super) fn sampled(&mut self, side: Side, pid: u32, (memory, cpu_seconds): (u64, f64)) {
        self.judge.sampled(side, pid, memory, cpu_seconds);
    }
}

impl<S: Sink> Actor<S> {
    pub(super) fn shadow(
        &mut self,
        plan: Plan,
        progress: watch::Sender<Report>,
        reply: oneshot::Sender<Result<(), Reason>>,
    ) {
        let from = self.ledger.newest() + 1;
        match self.incoming.take() {
            Some((mut runner, Purpose::Passed)) => {
                let mut judge = Shadow::new(plan);
                if let Some(serving) = &runner.serving {
                    judge.provider(Side::Candidate, serving.provider);
                }
                let now = Instant::now();
                let run = ShadowRun { judge, begun: now, told: now, silent_since: None, progress, reply };
                match runner.shadow_from(from) {
                    Ok(()) => self.incoming = Some((runner, Purpose::Shadow(Box::new(run)))),
                    Err(reason) => Box::new(run).refuse(reason),
                }
            }
            other => {
                self.incoming = other;
                let detail = format!("pipeline {}: no candidate has passed its trial", self.plan.name);
                let _ = reply.send(Err(Reason::new(ReasonCode::Internal, detail)));
            }
        }
    }

    /// Takes an answer into the comparison; true when it is the candidate's, which goes nowhere else.
    pub(super) fn compared(&mut self, id: u64, seq: u64, result: &Result<FrameResult, Reason>) -> bool {
        let Some((runner, Purpose::Shadow(run))) = &mut self.incoming else { return false };
        let side = if runner.id == id {
            Side::Candidate
        } else if let Some(active) = self.active.as_ref().filter(|active| active.id == id) {
            if let Some(serving) = &active.serving {
                run.judge.provider(Side::Current, serving.provider);
            }
            Side::Current
        } else {
            return false;
        };
        match (side, result) {
            (_, Ok(answer)) => run.judge.answered(side, seq, &answer.output, answer.timing_ms.total()),
            (Side::Candidate, Err(reason)) => run.judge.failed(reason),
            (Side::Current, Err(_)) => {}
        }
        run.silent_since = match side {
            Side::Candidate => None,
            Side::Current => run.silent_since.or_else(|| Some(Instant::now())),
        };
        let own = side == Side::Candidate;
        self.judge_shadow();
        own
    }

    /// Takes a frame that a side was not run on; true when it is the candidate's. It is a sign of life,
    /// and nothing to compare.
    pub(super) fn passed_by(&mut self, id: u64) -> bool {
        let Some((runner, Purpose::Shadow(run))) = &mut self.incoming else { return false };
        let own = runner.id == id;
        if own {
            run.silent_since = None;
        }
        own
    }

    /// Looks at the clock and at what was found, and ends the run when it is decided.
    pub(super) fn judge_shadow(&mut self) {
        let Some((mut runner, Purpose::Shadow(mut run))) =
            self.incoming.take_if(|(_, purpose)| matches!(purpose, Purpose::Shadow(_)))
        else {
            return;
        };
        run.judge.tick(run.begun.elapsed());
        let patience = self.plan.frame_deadline * PATIENCE;
        if run.silent_since.is_some_and(|since| since.elapsed() > patience) {
            let release = &runner.bundle.release;
            let detail =
                format!("shadow: model {release} answered nothing for {patience:?}; its process was ended");
            return run.refuse(Reason::new(ReasonCode::ChildHung, detail));
        }
        match run.judge.verdict() {
            Verdict::Watching => {
                if run.told.elapsed() >= TELL {
                    run.tell();
                }
                self.incoming = Some((runner, Purpose::Shadow(run)));
            }
            // Dropping the runner ends its process.
            Verdict::Failed(reason) => run.refuse(reason),
            Verdict::Passed => match runner.stop_at(self.ledger.newest() + 1, self.plan.load_deadline) {
                Ok(()) => {
                    run.tell();
                    self.incoming = Some((runner, Purpose::Passed));
                    let _ = run.reply.send(Ok(()));
                }
                Err(reason) => run.refuse(reason),
            },
        }
    }

    /// A candidate that was in the shadow has stopped.
    pub(super) fn shadow_stopped(&mut self, id: u64) {
        if let Some((runner, Purpose::Passed)) = &mut self.incoming
            && runner.id == id
        {
            runner.stopped();
        }
    }
}
