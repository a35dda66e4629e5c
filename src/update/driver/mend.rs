//! A bundle that rotted on the disk is fetched again, or left for the one before it; it is never served.
//!
//! The process that loads a bundle computes every digest anew (`bundle::open`), so a flipped bit is a load that fails
//! and no wrong answer. Where one fails so, the files are looked at here, too; what is not as signed is fetched from
//! the repository once more, under the checks of an update, and the bundle takes its place again. Where the
//! repository is not reached, or no longer lists the release, the bundle before it serves. A device that has neither
//! goes on asking.

use super::actor::Actor;
use super::work::serve;
use super::{Catalog, Host, Shared};
use crate::domain::deployment::BundleRef;
use crate::domain::lifecycle::{Effect, Origin};
use crate::domain::{Reason, ReasonCode, SlotName};
use crate::sys::blocking::blocking;
use crate::update::stage;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How often an idle slot looks whether its model was found rotten.
pub(super) const LOOK: Duration = Duration::from_secs(2);

/// First and longest wait before a bundle that could not be mended is tried again.
const AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(600));

/// So long a bundle may take to be fetched again before the one before it serves; what came by then is kept.
const PATIENCE: Duration = Duration::from_secs(600);

/// When a slot may try to mend its bundle, and what was tried.
#[derive(Debug, Default)]
pub(super) struct Mending {
    /// Not before, and the wait after that.
    next: Option<(Instant, Duration)>,
}

impl Mending {
    fn is_due(&self) -> bool {
        self.next.is_none_or(|(at, _)| Instant::now() >= at)
    }

    fn later(&mut self) {
        let wait = self.next.map_or(AGAIN.0, |(_, wait)| (wait * 2).min(AGAIN.1));
        self.next = Some((Instant::now() + wait, wait));
    }
}

/// Whether a load that failed so may have found a rotten file.
fn may_be_rot(reason: &Reason) -> bool {
    use ReasonCode::*;
    matches!(reason.code, DigestMismatch | SizeMismatch | Malformed | NotFound | Internal)
}

/// What is wrong with the files of a bundle; none where all are as signed. Reads all of it.
async fn rot<H, C>(shared: &Shared<H, C>, bundle: &BundleRef) -> Option<Reason> {
    let (dir, digest) = (shared.folders.model(&bundle.digest), bundle.digest);
    blocking(move || stage::check_bundle(&dir, &digest)).await.err()
}

/// After a load that failed: fetches the bundle again where its files are the reason.
///
/// # Errors
/// `failed` where they are not, or where it could not be had.
pub(super) async fn mend<H: Host, C: Catalog>(
    shared: &Shared<H, C>,
    slot: &SlotName,
    bundle: &BundleRef,
    failed: Reason,
) -> Result<(), Reason> {
    if !may_be_rot(&failed) {
        return Err(failed);
    }
    let Some(rotten) = rot(shared, bundle).await else { return Err(failed) };
    tracing::error!(%slot, reason = %rotten, "{} is not as it was verified; fetching it again", bundle.release);
    let fetched = timeout(PATIENCE, fetch_again(shared, bundle)).await.unwrap_or_else(|_| {
        let detail = format!("{}: it took longer than {PATIENCE:?}", bundle.release);
        Err(Reason::new(ReasonCode::RepositoryUnreachable, detail))
    });
    match fetched {
        Ok(()) => {
            tracing::warn!(%slot, "{} was fetched again and is whole; look after the disk", bundle.release);
            Ok(())
        }
        Err(reason) => {
            tracing::error!(%slot, %reason, "{} cannot be fetched again", bundle.release);
            Err(rotten)
        }
    }
}

async fn fetch_again<H: Host, C: Catalog>(shared: &Shared<H, C>, bundle: &BundleRef) -> Result<(), Reason> {
    let found = shared.catalog.resolve(&Origin::Repository, &bundle.release).await?;
    if found.manifest.get().digest != bundle.digest {
        let detail = format!("{}: the repository has another bundle of that name", bundle.release);
        return Err(Reason::new(ReasonCode::DigestMismatch, detail));
    }
    let _gate = shared.gate.read().await;
    let (folders, transport) = (&shared.folders, found.transport.as_ref());
    stage::fetch(folders, &found.manifest, transport, &shared.device, &|_, _| {}).await?;
    let folders = shared.folders.clone();
    blocking(move || stage::stage(&folders, &found.manifest)).await
}

impl<H: Host, C: Catalog> Actor<H, C> {
    /// Looks whether the model that is to serve was found rotten since it last served, and mends that. Gives what
    /// is to be done where the bundle before it has to serve.
    pub(super) async fn look_after(&mut self) -> Option<Vec<Effect>> {
        let current = self.links.current.clone()?;
        let Some(fault) = self.shared.host.model_fault(&self.slot) else {
            self.mending = Mending::default();
            return None;
        };
        if !may_be_rot(&fault) || !self.mending.is_due() {
            return None;
        }
        self.mending.later();
        // A child that fails for another reason is its pipeline's own affair.
        rot(&self.shared, &current).await?;
        match serve(&self.shared, &self.slot, Some(&current)).await {
            Ok(()) => None,
            Err(_) => self.leave_rotten().await,
        }
    }

    /// Begins to go back where the current bundle is rotten and nothing is under way.
    pub(super) async fn leave_rotten(&mut self) -> Option<Vec<Effect>> {
        let (current, previous) = (self.links.current.clone()?, self.links.previous.clone()?);
        if self.deployment.as_ref().is_some_and(|now| !now.is_final()) {
            return None;
        }
        let rotten = rot(&self.shared, &current).await?;
        self.mending.later();
        let (deployment, effects) = match self.begin_fallback(previous, rotten).await {
            Ok(begun) => begun,
            Err(refusal) => {
                tracing::error!(slot = %self.slot, %refusal, "{} is rotten and there is no way back", current.release);
                return None;
            }
        };
        tracing::error!(slot = %self.slot, "going back from {} to {}", current.release, deployment.release);
        self.record_rollback(&deployment).await;
        self.reporter.step(&self.links, &deployment);
        self.deployment = Some(deployment);
        Some(effects)
    }
}
