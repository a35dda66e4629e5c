//! What an actor writes into the journal, also where that cannot be written.

use super::actor::Actor;
use super::work::collect_garbage;
use super::{Catalog, Host};
use crate::domain::lifecycle::{Deployment, Event, step};
use crate::domain::{Reason, ReasonCode};
use crate::sys::blocking::blocking;

impl<H: Host, C: Catalog> Actor<H, C> {
    /// Makes a state durable in the journal.
    pub(super) async fn record(&mut self, deployment: &Deployment) -> Result<(), Reason> {
        let (journal, deployment) = (self.shared.journal.clone(), deployment.clone());
        // One before it has its place in the history.
        let late = self.unrecorded.clone().filter(|late| late.id != deployment.id);
        blocking(move || {
            late.map_or(Ok(()), |late| journal.record(&late))?;
            journal.record(&deployment)
        })
        .await?;
        self.unrecorded = None;
        Ok(())
    }

    /// Records the beginning of a rollback that somebody asked for; where that cannot be, it is begun without:
    /// a full disk must not keep a bad model in its place. The links alone tell a restart what serves, before
    /// the rollback and after it, so it finds either the one or the other.
    pub(super) async fn record_rollback(&mut self, deployment: &Deployment) {
        let Err(reason) = self.record(deployment).await else { return };
        if reason.code == ReasonCode::DiskFull {
            // What nothing needs any more may be the room that is lacking.
            if let Err(reason) = collect_garbage(&self.shared, deployment).await {
                tracing::warn!(slot = %self.slot, %reason, "no room was made");
            }
            if self.record(deployment).await.is_ok() {
                return;
            }
        }
        self.without_record(deployment, &reason);
    }

    /// Sees to it that no restart carries out what was refused because it could not be recorded: what a sync
    /// could not make durable may be in the journal all the same.
    pub(super) async fn refuse_durably(&mut self, deployment: &Deployment, reason: Reason) {
        if let Ok((refused, _)) = step(deployment, Event::Failed(reason))
            && let Err(reason) = self.record(&refused).await
        {
            self.without_record(&refused, &reason);
        }
    }

    /// Goes on though the journal could not take this state; it is recorded later.
    pub(super) fn without_record(&mut self, deployment: &Deployment, reason: &Reason) {
        tracing::error!(slot = %self.slot, %reason, "the journal cannot be written; it goes on without");
        self.unrecorded = Some(deployment.clone());
    }

    /// Records what could not be recorded when it happened.
    pub(super) async fn catch_up(&mut self) {
        let Some(deployment) = self.unrecorded.clone() else { return };
        match self.record(&deployment).await {
            Ok(()) => tracing::info!(slot = %self.slot, "how {} went is recorded", deployment.release),
            Err(reason) => tracing::debug!(slot = %self.slot, %reason, "the journal still cannot be written"),
        }
    }
}
