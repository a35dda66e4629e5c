//! One slot's actor: takes orders, steps the deployment, records each step, and has its work done.

use super::hold::Held;
use super::mend::{self, Mending};
use super::report::{Reporter, finished};
use super::work::{Done, signed_by_its_maker, work};
use super::{Catalog, Found, Host, Shared};
use crate::domain::boot_loop::Starts;
use crate::domain::command::Progress;
use crate::domain::deployment::{BundleRef, Stage};
use crate::domain::lifecycle::{Deployment, Effect, Event, Origin, step};
use crate::domain::maintenance::{Start, StartWish};
use crate::domain::manifest::Provider;
use crate::domain::shadow::ShadowWish;
use crate::domain::{DeploymentId, Reason, ReasonCode, Release, SlotName};
use crate::sys::background;
use crate::sys::local_time::LocalTime;
use crate::update::slots::Links;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

/// Between two tries to record what the journal could not take.
const RECORD_AGAIN: Duration = Duration::from_secs(5);

/// What somebody wants of a slot.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Wish {
    Deploy { release: Release, origin: Origin, shadow: ShadowWish, start: StartWish },
    Rollback,
    Abort,
}

/// A wish and where its progress is told.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) wish: Wish,
    pub(super) ticket: watch::Sender<Progress>,
}

impl Order {
    fn answer(self, outcome: Result<serde_json::Value, Reason>) {
        self.ticket.send_replace(finished(outcome));
    }
}

pub(super) struct Actor<H, C> {
    pub(super) slot: SlotName,
    pub(super) links: Links,
    pub(super) shared: Arc<Shared<H, C>>,
    pub(super) reporter: Arc<Reporter>,
    inbox: mpsc::Receiver<Order>,
    /// The newest deployment, under way or ended.
    pub(super) deployment: Option<Deployment>,
    /// What `Resolve` found, for fetching and staging.
    found: Option<Found>,
    /// The provider that the candidate runs on, since its trial.
    provider: Option<Provider>,
    /// The provider that the bundle runs on that served before.
    provider_before: Option<Provider>,
    /// Who asked that the deployment under way ends.
    stoppers: Vec<Order>,
    /// What comes after it.
    waiting: Option<Order>,
    /// When it may go on, for the work that waits.
    pub(super) start: watch::Sender<Start>,
    /// So long the deployment that goes on after a restart waits for its repository.
    pub(super) patient: Option<Instant>,
    /// The state that the journal could not take: of a way back that was gone all the same, or of an order
    /// that was refused because of that.
    pub(super) unrecorded: Option<Deployment>,
    /// When the present start counts against no bundle any more.
    pub(super) settled_at: Option<Instant>,
    /// Of a bundle that rotted on the disk.
    pub(super) mending: Mending,
}

impl<H: Host, C: Catalog> Actor<H, C> {
    pub(super) fn new(
        slot: SlotName,
        links: Links,
        shared: Arc<Shared<H, C>>,
        reporter: Arc<Reporter>,
        inbox: mpsc::Receiver<Order>,
    ) -> Self {
        Self {
            slot,
            links,
            shared,
            reporter,
            inbox,
            deployment: None,
            found: None,
            provider: None,
            provider_before: None,
            stoppers: Vec::new(),
            waiting: None,
            start: watch::Sender::new(Start::default()),
            patient: None,
            unrecorded: None,
            settled_at: None,
            mending: Mending::default(),
        }
    }

    /// Runs until nobody can send orders any more.
    pub(super) async fn run(mut self) {
        let mut effects = self.wake().await;
        loop {
            self.carry_out(effects).await;
            effects = loop {
                let order = match self.waiting.take() {
                    Some(order) => order,
                    None => tokio::select! {
                        order = self.inbox.recv() => match order {
                            Some(order) => order,
                            None => return,
                        },
                        () = sleep(RECORD_AGAIN), if self.unrecorded.is_some() => {
                            self.catch_up().await;
                            continue;
                        }
                        () = sleep_until(self.settled_at.unwrap_or_else(Instant::now)), if self.settled_at.is_some() => {
                            self.settle_starts().await;
                            continue;
                        }
                        // Not before the record: each round begins both waits anew.
                        () = sleep(mend::LOOK), if self.unrecorded.is_none() => match self.look_after().await {
                            Some(effects) => break effects,
                            None => continue,
                        },
                    },
                };
                if let Some(effects) = self.begin(order).await {
                    break effects;
                }
            };
        }
    }

    pub(super) fn stage(&self) -> Option<Stage> {
        self.deployment.as_ref().map(Deployment::stage)
    }

    /// Begins what an order asks for while nothing is under way. `None` when it is answered already.
    async fn begin(&mut self, order: Order) -> Option<Vec<Effect>> {
        let id = new_id();
        let (slot, serving, older) =
            (self.slot.clone(), self.links.current.clone(), self.links.previous.clone());
        let (deployment, effects) = match order.wish.clone() {
            Wish::Deploy { release, .. } if serving.as_ref().is_some_and(|now| now.release == release) => {
                order.answer(Ok(json!({ "slot": slot, "release": release, "changed": false })));
                return None;
            }
            Wish::Deploy { release, origin, shadow, start } => {
                let settings = &self.shared.settings;
                let plan = settings.shadow_plan().with(&shadow);
                let (mut begun, effects) = Deployment::begin(id, slot, release, origin, serving, older);
                // Without randomness all would begin at once, so then at the end of the span.
                let dice = getrandom::u64().unwrap_or(settings.rules.start_jitter.as_secs());
                begun.start = Start::begin(start, &settings.rules, LocalTime::now().unix(), dice);
                (if plan.frames > 0 { begun.shadowed(plan) } else { begun }, effects)
            }
            Wish::Rollback => match older {
                Some(previous) => {
                    if let Err(reason) = self.may_come_back(&previous, "update to another release").await {
                        order.answer(Err(reason));
                        return None;
                    }
                    self.forgive(&previous).await;
                    Deployment::begin_rollback(id, slot, serving, previous)
                }
                None => {
                    let detail = format!("slot {slot} has no previous bundle to go back to");
                    order.answer(Err(Reason::new(ReasonCode::NotFound, detail)));
                    return None;
                }
            },
            Wish::Abort => {
                let detail = format!("nothing is under way on slot {slot}");
                order.answer(Err(Reason::new(ReasonCode::BadRequest, detail)));
                return None;
            }
        };
        let recorded = match deployment.origin {
            Origin::Previous => {
                self.record_rollback(&deployment).await;
                Ok(())
            }
            Origin::Repository | Origin::File { .. } => self.record(&deployment).await,
        };
        if let Err(reason) = recorded {
            self.refuse_durably(&deployment, reason.clone()).await;
            order.answer(Err(reason));
            return None;
        }
        tracing::info!(slot = %self.slot, deployment = %deployment.id, "deploying {}", deployment.release);
        self.found = None;
        self.patient = None;
        self.reporter.step(&self.links, &deployment);
        self.reporter.add(order.ticket);
        self.start.send_replace(deployment.start);
        self.deployment = Some(deployment);
        Some(effects)
    }

    /// Does effect after effect, step after step, until the deployment has ended.
    async fn carry_out(&mut self, mut effects: Vec<Effect>) {
        let Some(before) = self.stage() else { return };
        if before.is_final() && effects.is_empty() {
            return;
        }
        loop {
            let mut event = None;
            for effect in effects {
                event = self.perform(effect).await;
                if event.is_some() {
                    break;
                }
            }
            match event {
                Some(event) => effects = self.advance(event).await,
                None => break,
            }
        }
        self.conclude();
    }

    /// Does one effect; while its work may be dropped, orders are heard.
    async fn perform(&mut self, effect: Effect) -> Option<Event> {
        let deployment = self.deployment.clone()?;
        match &effect {
            Effect::Try { candidate } => self.forgive(candidate).await,
            // What served until now did so well enough; what follows has bounds of its own.
            Effect::Swap { .. } => self.shared.starts.change(&self.slot, Starts::settled).await,
            _ => {}
        }
        // A swap or a rollback is not left half done; an order that comes meanwhile is heard after it.
        let droppable = match deployment.stage() {
            Stage::Resolving
            | Stage::Fetching
            | Stage::Verifying
            | Stage::Staged
            | Stage::OnTrial
            | Stage::Shadowing
            | Stage::Probation => true,
            Stage::Swapping | Stage::RollingBack | Stage::Committed | Stage::RolledBack | Stage::Refused => {
                false
            }
        };
        let (shared, reporter) = (self.shared.clone(), self.reporter.clone());
        let hurried = is_hurried(&effect);
        let held = Held { shared, deployment, start: self.start.subscribe() };
        let work = work(held, reporter, self.found.clone(), self.patient, effect);
        let mut task = if hurried {
            background::spawn_here(work)
        } else {
            match background::spawn(work) {
                Ok(task) => task,
                Err(reason) => return Some(Event::Failed(reason)),
            }
        };
        let mut hear = droppable;
        loop {
            tokio::select! {
                biased;
                order = self.inbox.recv(), if hear => match order {
                    Some(order) => if let Some(event) = self.interrupt(order).await {
                        // What follows removes what this one writes.
                        task.cancel().await;
                        return Some(event);
                    },
                    None => hear = false,
                },
                done = task.result() => {
                    let done = match done {
                        Ok(done) => done,
                        Err(reason) => return Some(Event::Failed(reason)),
                    };
                    let Done { event, found, provider, shadow, transfer } = done?;
                    if let (Some(report), Some(deployment)) = (shadow, &mut self.deployment) {
                        deployment.shadow_report = Some(report);
                    }
                    if let (Some(transfer), Some(deployment)) = (transfer, &mut self.deployment) {
                        deployment.transfer = Some(transfer);
                    }
                    self.found = found.or(self.found.take());
                    self.provider = provider.or(self.provider);
                    return Some(event);
                }
            }
        }
    }

    /// Whether an order may bring this bundle back: it was not taken off the list, and its model's maker has
    /// signed it, where the owner asks for that.
    pub(super) async fn may_come_back(&self, bundle: &BundleRef, remedy: &str) -> Result<(), Reason> {
        if self.shared.catalog.is_delisted(bundle).await {
            return Err(revoked(&self.slot, bundle, remedy));
        }
        signed_by_its_maker(&self.shared, bundle).await.map_err(|reason| {
            let slot = &self.slot;
            let detail =
                format!("slot {slot}: its previous bundle does not come back: {}; {remedy}", reason.detail);
            Reason::new(reason.code, detail)
        })
    }

    /// Gives the order back, unless it would end a probation and with that bring back what was taken off the
    /// list or lacks its maker's signature: whoever sends commands must not reach such a model so. Then it is
    /// refused, and a wish for another release waits. A candidate that is no good falls back all the same,
    /// since the device must serve.
    async fn unless_revoked(&mut self, order: Order) -> Option<Order> {
        let Some(deployment) = &self.deployment else { return Some(order) };
        // As `interrupt` tells them apart: the same release from elsewhere would end the probation, too.
        let is_same = matches!(&order.wish, Wish::Deploy { release, origin, .. }
            if *release == deployment.release && *origin == deployment.origin);
        let before =
            deployment.serving.clone().filter(|_| deployment.stage() == Stage::Probation && !is_same);
        let Some(before) = before else { return Some(order) };
        let remedy = "wait until the probation has ended, then update to another release";
        let Err(refusal) = self.may_come_back(&before, remedy).await else { return Some(order) };
        if let Wish::Deploy { release, .. } = &order.wish {
            let reason = Reason::new(ReasonCode::Superseded, format!("{release} was asked for after it"));
            if let Some(older) = self.waiting.replace(order) {
                older.answer(Err(reason));
            }
        } else {
            order.answer(Err(refusal));
        }
        None
    }

    /// What an order means for the deployment under way.
    async fn interrupt(&mut self, order: Order) -> Option<Event> {
        let order = self.unless_revoked(order).await?;
        let deployment = self.deployment.as_ref()?;
        let stop = |code, detail: String| Some(Event::Stop(Reason::new(code, detail)));
        match &order.wish {
            Wish::Deploy { release, origin, start, .. }
                if *release == deployment.release && *origin == deployment.origin =>
            {
                let start = deployment.start.again(*start);
                self.reporter.add(order.ticket);
                self.restart(start).await;
                None
            }
            Wish::Abort => {
                let event =
                    stop(ReasonCode::Aborted, format!("deployment of {} was aborted", deployment.release));
                self.stoppers.push(order);
                event
            }
            // Ends the probation, which brings the bundle before it back: that is what was asked for.
            Wish::Rollback if deployment.stage() == Stage::Probation => {
                let event = stop(
                    ReasonCode::Aborted,
                    format!("a rollback from {} was asked for", deployment.release),
                );
                self.stoppers.push(order);
                event
            }
            Wish::Rollback | Wish::Deploy { .. } => {
                let newer = match &order.wish {
                    Wish::Deploy { release, .. } => release.to_string(),
                    Wish::Rollback | Wish::Abort => "a rollback".to_owned(),
                };
                let detail = format!("{newer} took the place of {}", deployment.release);
                let reason = Reason::new(ReasonCode::Superseded, detail);
                if let Some(older) = self.waiting.replace(order) {
                    older.answer(Err(reason.clone()));
                }
                Some(Event::Stop(reason))
            }
        }
    }

    /// When the deployment may go on was ordered anew.
    async fn restart(&mut self, start: Start) {
        let Some(mut deployment) = self.deployment.clone().filter(|now| now.start != start) else { return };
        deployment.start = start;
        // Only a restart of the agent would miss it.
        if let Err(reason) = self.record(&deployment).await {
            tracing::warn!(slot = %self.slot, %reason, "that the update must not wait is not recorded");
        }
        self.deployment = Some(deployment);
        self.start.send_replace(start);
    }

    /// Steps the deployment, records and reports it; gives what is to be done next.
    pub(super) async fn advance(&mut self, event: Event) -> Vec<Effect> {
        let Some(now) = self.deployment.clone() else { return Vec::new() };
        let (mut next, mut effects) = match step(&now, event.clone()) {
            Ok(stepped) => stepped,
            Err(refusal) => {
                tracing::error!(slot = %self.slot, ?event, stage = ?now.stage(), %refusal, "event refused");
                return Vec::new();
            }
        };
        if let Err(reason) = self.record(&next).await {
            match next.stage() {
                // Going back is done in any case; a restart would decide the same again.
                Stage::RollingBack | Stage::RolledBack | Stage::Refused => {
                    self.without_record(&next, &reason)
                }
                Stage::Committed if next.origin == Origin::Previous => self.without_record(&next, &reason),
                Stage::Resolving
                | Stage::Fetching
                | Stage::Verifying
                | Stage::Staged
                | Stage::OnTrial
                | Stage::Shadowing
                | Stage::Swapping
                | Stage::Probation
                | Stage::Committed => {
                    // From the new state where its work has been done, so that it is undone.
                    let from = if next.stage() == Stage::Probation { &next } else { &now };
                    if let Ok(failed) = step(from, Event::Failed(reason)) {
                        (next, effects) = failed;
                        if let Err(reason) = self.record(&next).await {
                            tracing::error!(slot = %self.slot, %reason, "the journal cannot be written");
                        }
                    }
                }
            }
        }
        let (current, previous) = next.links();
        self.links = Links { current: current.cloned(), previous: previous.cloned() };
        match next.reason() {
            Some(reason) => {
                tracing::warn!(slot = %self.slot, stage = ?next.stage(), "{}: {reason}", next.release)
            }
            None => tracing::info!(slot = %self.slot, stage = ?next.stage(), "{}", next.release),
        }
        self.reporter.step(&self.links, &next);
        match next.stage() {
            Stage::Probation => self.reporter.provider(self.provider),
            Stage::RollingBack => self.reporter.provider(self.provider_before),
            // A rollback by command had no trial: which provider runs is not known here.
            Stage::Committed => {
                self.provider_before = self.provider;
                self.reporter.provider(self.provider);
            }
            Stage::Resolving
            | Stage::Fetching
            | Stage::Verifying
            | Stage::Staged
            | Stage::OnTrial
            | Stage::Shadowing
            | Stage::Swapping
            | Stage::RolledBack
            | Stage::Refused => {}
        }
        self.deployment = Some(next);
        effects
    }

    /// Tells all who wait how it ended.
    fn conclude(&mut self) {
        let Some(ended) = self.deployment.as_ref() else { return };
        let release = &ended.release;
        let outcome = match ended.reason() {
            Some(reason) => Err(reason.clone()),
            None => {
                let mut told = json!({ "slot": self.slot, "release": release, "changed": true });
                if let Some(report) = &ended.shadow_report {
                    told["shadow"] = json!(report);
                }
                Ok(told)
            }
        };
        for stopper in self.stoppers.drain(..) {
            stopper.answer(match &outcome {
                Err(reason) => Ok(json!({
                    "slot": self.slot,
                    "release": self.links.current.as_ref().map(|bundle| &bundle.release),
                    "ended": reason.detail,
                })),
                Ok(_) => {
                    let detail = format!("too late: {release} was committed");
                    Err(Reason::new(ReasonCode::BadRequest, detail))
                }
            });
        }
        self.reporter.end(outcome);
        self.tell_safe_mode();
        self.found = None;
        self.provider = None;
    }
}

/// The id of a new deployment.
pub(super) fn new_id() -> DeploymentId {
    uuid::Uuid::now_v7().into()
}

/// That a bundle does not come back by an order.
fn revoked(slot: &SlotName, bundle: &BundleRef, remedy: &str) -> Reason {
    let detail = format!(
        "slot {slot}: its previous bundle {} was taken off the repository's list and does not come back; {remedy}",
        bundle.release
    );
    Reason::new(ReasonCode::NotFound, detail)
}

/// What the frames wait for, or must not wait longer than they have to; the rest runs at low priority.
fn is_hurried(effect: &Effect) -> bool {
    match effect {
        Effect::Resolve | Effect::Fetch | Effect::Stage | Effect::CollectGarbage => false,
        Effect::BeginTrial
        | Effect::Try { .. }
        | Effect::Shadow { .. }
        | Effect::Discard
        | Effect::Swap { .. }
        | Effect::SwapBack { .. }
        | Effect::RepairLinks
        | Effect::Watch { .. }
        | Effect::Settle
        | Effect::PutBack => true,
    }
}
