//! Telling everybody who asked how a slot and its deployment are.

use crate::domain::command::Progress;
use crate::domain::deployment::{DeploymentState, SlotState, Stage};
use crate::domain::lifecycle::Deployment;
use crate::domain::maintenance::Waiting;
use crate::domain::manifest::Provider;
use crate::domain::shadow;
use crate::domain::{Reason, ReasonCode, SlotName};
use crate::update::slots::Links;
use std::sync::{Mutex, PoisonError};
use tokio::sync::{broadcast, watch};

/// Who may wait for one deployment; beyond that the one that has waited longest is told that it is over for it.
const TICKETS: usize = 4;

/// One slot's reporter. Never waits for a listener.
pub(super) struct Reporter {
    state: watch::Sender<SlotState>,
    all: broadcast::Sender<SlotState>,
    /// Who waits for the deployment under way.
    tickets: Mutex<Vec<watch::Sender<Progress>>>,
}

impl Reporter {
    pub(super) fn new(
        slot: SlotName,
        links: &Links,
        all: broadcast::Sender<SlotState>,
    ) -> (Self, watch::Receiver<SlotState>) {
        let Links { current, previous } = links.clone();
        let (state, receiver) = watch::channel(SlotState {
            slot,
            current,
            previous,
            provider: None,
            deployment: None,
            safe_mode: None,
        });
        (Self { state, all, tickets: Mutex::default() }, receiver)
    }

    /// The deployment came to a new state.
    pub(super) fn step(&self, links: &Links, deployment: &Deployment) {
        self.change(|state| {
            state.current = links.current.clone();
            state.previous = links.previous.clone();
            state.deployment = Some(deployment.report(None));
        });
        if !deployment.is_final() {
            self.tell(executing(&deployment.report(None)));
        }
    }

    /// The bundle that serves runs on this provider.
    pub(super) fn provider(&self, provider: Option<Provider>) {
        self.change(|state| state.provider = provider);
    }

    /// Why no model serves though one is current; none where one does.
    pub(super) fn safe_mode(&self, why: Option<Reason>) {
        if self.state.borrow().safe_mode != why {
            self.change(|state| state.safe_mode = why);
        }
    }

    /// How far the work of the present state is; every hundredth is told.
    pub(super) fn progress(&self, done: u64, total: u64) {
        let fraction = if total == 0 { 1.0 } else { done as f32 / total as f32 };
        let hundredths = |fraction: f32| (fraction * 100.0) as i32;
        let mut told = None;
        self.state.send_if_modified(|state| {
            let Some(deployment) = &mut state.deployment else { return false };
            let before = deployment.progress.map_or(-1, hundredths);
            if before == hundredths(fraction) {
                return false;
            }
            deployment.progress = Some(fraction);
            told = Some(state.clone());
            true
        });
        if let Some(state) = told {
            if let Some(deployment) = &state.deployment {
                self.tell(executing(deployment));
            }
            let _ = self.all.send(state);
        }
    }

    /// What the shadow run has found so far; listeners hear of it at every hundredth, and when it is `due`.
    pub(super) fn shadow(&self, report: shadow::Report, due: bool) {
        let (done, needed) = (report.frames.min(report.needed), report.needed);
        self.state.send_modify(|state| {
            if let Some(deployment) = &mut state.deployment {
                deployment.shadow = Some(report);
            }
        });
        self.progress(done, needed.max(1));
        if due {
            self.change(|_| {});
        }
    }

    /// That the deployment waits within its state, or does so no longer.
    pub(super) fn waiting(&self, waiting: Option<Waiting>) {
        let changed = self.state.send_if_modified(|state| match &mut state.deployment {
            Some(deployment) if deployment.waiting != waiting => {
                deployment.waiting = waiting;
                true
            }
            Some(_) | None => false,
        });
        if changed {
            let state = self.state.borrow().clone();
            if let Some(deployment) = &state.deployment {
                self.tell(executing(deployment));
            }
            let _ = self.all.send(state);
        }
    }

    /// Adds somebody who waits for the deployment's end. A deployment may wait for days, and be asked for every
    /// hour meanwhile.
    pub(super) fn add(&self, ticket: watch::Sender<Progress>) {
        if let Some(deployment) = &self.state.borrow().deployment {
            ticket.send_replace(executing(deployment));
        }
        let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        if tickets.len() == TICKETS {
            let detail = "the same was asked for again and again; the newest to ask hear how it ends";
            tickets.remove(0).send_replace(finished(Err(Reason::new(ReasonCode::Superseded, detail))));
        }
        tickets.push(ticket);
    }

    /// The deployment has ended so: the last word to all who wait.
    pub(super) fn end(&self, outcome: Result<serde_json::Value, Reason>) {
        self.tell(finished(outcome));
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn tell(&self, progress: Progress) {
        for ticket in self.tickets.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            ticket.send_replace(progress.clone());
        }
    }

    fn change(&self, change: impl FnOnce(&mut SlotState)) {
        self.state.send_modify(change);
        // No subscriber is no fault.
        let _ = self.all.send(self.state.borrow().clone());
    }
}

/// A command's last word.
pub(super) fn finished(outcome: Result<serde_json::Value, Reason>) -> Progress {
    match outcome {
        Ok(result) => Progress::Successful { result },
        Err(reason) => Progress::Failed { reason },
    }
}

fn executing(deployment: &DeploymentState) -> Progress {
    let doing = match deployment.stage {
        Stage::Resolving => "looking up",
        Stage::Fetching => "fetching",
        Stage::Verifying => "verifying",
        Stage::Staged => "staged",
        Stage::OnTrial => "trying",
        Stage::Shadowing => "comparing",
        Stage::Swapping => "swapping to",
        Stage::Probation => "watching",
        Stage::RollingBack => "rolling back from",
        Stage::Committed => "committed",
        Stage::RolledBack => "rolled back from",
        Stage::Refused => "refused",
    };
    let detail = match &deployment.waiting {
        Some(waiting) => format!("{} {}", deployment.release, waiting.told()),
        None => format!("{doing} {}", deployment.release),
    };
    Progress::Executing { detail, fraction: deployment.progress }
}
