//! The start of a slot: what was under way goes on, and what is current serves, unless it takes the agent down
//! again and again (`domain::boot_loop`).

use super::actor::{Actor, new_id};
use super::work::serve;
use super::{Catalog, Host};
use crate::domain::boot_loop::{Starts, ladder};
use crate::domain::deployment::{BundleRef, Stage};
use crate::domain::lifecycle::{Deployment, Effect, Event, State, recover, step};
use crate::domain::{Reason, ReasonCode};
use crate::sys::blocking::blocking;
use tokio::time::Instant;

impl<H: Host, C: Catalog> Actor<H, C> {
    /// Has the host serve what is current and tells how to go on with what was under way.
    pub(super) async fn wake(&mut self) -> Vec<Effect> {
        let (journal, slot) = (self.shared.journal.clone(), self.slot.clone());
        let found = blocking(move || journal.newest(&slot)).await.unwrap_or_else(|reason| {
            tracing::error!(slot = %self.slot, %reason, "the journal cannot be read; the links decide");
            None
        });
        let under_way = found.as_ref().is_some_and(|found| !found.is_final());
        let was = found.as_ref().map(Deployment::stage);
        let max_boots = self.shared.settings.max_boots;
        let (deployment, effects) =
            found.map(|found| recover(found, self.links.current.as_ref(), max_boots)).unzip();
        let (deployment, mut effects) = self.descend(deployment, effects.unwrap_or_default()).await;
        if let Some(deployment) = deployment {
            if under_way || !deployment.is_final() {
                let stage = deployment.stage();
                tracing::info!(slot = %self.slot, found = ?was, ?stage, "going on with {}", deployment.release);
                if let Err(reason) = self.record(&deployment).await {
                    tracing::error!(slot = %self.slot, %reason, "the recovered deployment cannot be recorded");
                }
            }
            self.patient = Some(Instant::now() + self.shared.settings.resume_max);
            self.reporter.step(&self.links, &deployment);
            self.start.send_replace(deployment.start);
            self.deployment = Some(deployment);
        }
        // What serves next is these effects' own matter; a candidate that brings the agent down again
        // and again must not be started once more.
        let serves_itself =
            effects.iter().any(|effect| matches!(effect, Effect::PutBack | Effect::SwapBack { .. }));
        if !serves_itself
            && self.links.current.is_some()
            && let Err(reason) = serve(&self.shared, &self.slot, self.links.current.as_ref()).await
        {
            tracing::error!(slot = %self.slot, %reason, "the slot's current bundle does not serve");
            if self.stage() == Some(Stage::Probation) {
                effects = self.advance(Event::Failed(reason)).await;
            } else if let Some(back) = self.leave_rotten().await {
                effects = back;
            }
        }
        self.settled_at = Some(Instant::now() + self.shared.settings.settled);
        self.tell_safe_mode();
        effects
    }

    /// Counts the start, and goes down the ladder where the bundle that is to serve has brought the agent down
    /// too often.
    async fn descend(
        &self,
        deployment: Option<Deployment>,
        effects: Vec<Effect>,
    ) -> (Option<Deployment>, Vec<Effect>) {
        let (current, previous) = (self.links.current.as_ref(), self.links.previous.as_ref());
        let Some(ladder) = ladder(deployment.as_ref(), current, previous) else {
            return (deployment, effects);
        };
        let Some(wanted) = ladder.first().copied().cloned() else { return (deployment, effects) };
        let max = self.shared.settings.max_starts;
        let chosen = self.shared.starts.begin(&self.slot, &ladder, max).await;
        if chosen.as_ref() == Some(&wanted) {
            return (deployment, effects);
        }
        let reason = self.blame(&wanted);
        match (deployment, chosen) {
            (Some(now), _) if matches!(now.state, State::Swapping { .. }) => {
                match step(&now, Event::Failed(reason)) {
                    Ok((next, effects)) => (Some(next), effects),
                    Err(_) => (Some(now), effects),
                }
            }
            // The last that was known to be good.
            (Some(now), Some(chosen)) if matches!(now.state, State::RollingBack { .. }) => {
                (Some(Deployment { serving: Some(chosen), older: None, ..now }), effects)
            }
            (before, Some(chosen)) if before.as_ref().is_none_or(Deployment::is_final) => {
                tracing::error!(slot = %self.slot, %reason, "going back to {}", chosen.release);
                match self.begin_fallback(chosen, reason).await {
                    Ok((fallback, effects)) => (Some(fallback), effects),
                    Err(reason) => {
                        tracing::error!(slot = %self.slot, %reason, "the previous bundle may not come back");
                        (before, effects)
                    }
                }
            }
            (deployment, _) => (deployment, effects),
        }
    }

    /// A rollback that nobody asked for.
    pub(super) async fn begin_fallback(
        &self,
        previous: BundleRef,
        cause: Reason,
    ) -> Result<(Deployment, Vec<Effect>), Reason> {
        self.may_come_back(&previous, "update to another release").await?;
        let (slot, serving) = (self.slot.clone(), self.links.current.clone());
        let (fallback, effects) = Deployment::begin_rollback(new_id(), slot, serving, previous);
        Ok((Deployment { cause: Some(cause), ..fallback }, effects))
    }

    /// Why a bundle is not to serve.
    fn blame(&self, bundle: &BundleRef) -> Reason {
        let (slot, max) = (&self.slot, self.shared.settings.max_starts);
        let detail = format!(
            "slot {slot}: the agent ended {max} times in a row while {} was to serve; look into the system's log, or update to another release",
            bundle.release
        );
        Reason::new(ReasonCode::BootLoop, detail)
    }

    /// The agent has been up for long enough. In safe mode the current bundle gets one more chance.
    pub(super) async fn settle_starts(&mut self) {
        self.settled_at = None;
        let starts = &self.shared.starts;
        let blamed = self.links.current.clone().filter(|now| starts.is_blamed(&self.slot, &now.digest));
        let Some(current) = blamed else {
            return starts.change(&self.slot, Starts::settled).await;
        };
        let max = self.shared.settings.max_starts;
        tracing::warn!(slot = %self.slot, "trying {} once more", current.release);
        starts.change(&self.slot, |starts| starts.try_once(current.digest, max)).await;
        if let Err(reason) = serve(&self.shared, &self.slot, Some(&current)).await {
            tracing::error!(slot = %self.slot, %reason, "the slot's current bundle does not serve");
        }
        self.settled_at = Some(Instant::now() + self.shared.settings.settled);
        self.tell_safe_mode();
    }

    /// Says whether the slot is in safe mode: its current bundle is the one that is not to serve.
    pub(super) fn tell_safe_mode(&self) {
        let current = self.links.current.as_ref();
        let blamed = current.filter(|now| self.shared.starts.is_blamed(&self.slot, &now.digest));
        self.reporter.safe_mode(blamed.map(|bundle| self.blame(bundle)));
    }

    /// A candidate on trial, or a bundle that somebody asks back, begins without a stain.
    pub(super) async fn forgive(&self, bundle: &BundleRef) {
        self.shared.starts.change(&self.slot, |starts| starts.forgive(&bundle.digest)).await;
    }
}
