//! The work of each state: long, told of as it goes, and safe to drop or to do again.

use super::hold::Held;
use super::mend::mend;
use super::report::Reporter;
use super::{Catalog, Found, Host, Shared};
use crate::domain::delta::Transfer;
use crate::domain::deployment::BundleRef;
use crate::domain::garbage::Spare;
use crate::domain::lifecycle::{Deployment, Effect, Event, Origin};
use crate::domain::maintenance::Part;
use crate::domain::manifest::Provider;
use crate::domain::probation::{Limits, Probation, Verdict};
use crate::domain::shadow;
use crate::domain::{Reason, ReasonCode, SlotName};
use crate::sys::blocking::blocking;
use crate::trust::Verified;
use crate::trust::model_signature;
use crate::trust::verified::SignedManifest;
use crate::update::Folders;
use crate::update::deltas::{Counted, Deltas};
use crate::update::slots::{self, Keep, Links};
use crate::update::stage;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

/// How often probation looks at the clock.
const TICK: Duration = Duration::from_millis(200);

/// A long shadow run is told of at least so often.
const TOLD: Duration = Duration::from_secs(10);

/// First and longest wait before a link that could not be set back is tried again.
const RELINK: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// First and longest wait before the repository is asked again after a restart.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Downloads that were cut short and are kept for the next try.
const PARTS: usize = 1024;

/// Waits for a repository that is not reached, where a deployment goes on after a restart: the agent is there
/// before the network is.
struct Patience {
    until: Option<Instant>,
    wait: Duration,
}

impl Patience {
    fn until(until: Option<Instant>) -> Self {
        Self { until, wait: ASK_AGAIN.0 }
    }

    /// Waits, and says whether to try again after this reason.
    async fn after(&mut self, reason: &Reason) -> bool {
        let late = self.until.is_none_or(|until| Instant::now() + self.wait > until);
        if reason.code != ReasonCode::RepositoryUnreachable || late {
            return false;
        }
        tracing::info!(%reason, wait_s = self.wait.as_secs(), "an update that goes on waits for its repository");
        sleep(self.wait).await;
        self.wait = (self.wait * 2).min(ASK_AGAIN.1);
        true
    }
}

/// What came of the work.
pub(super) struct Done {
    pub(super) event: Event,
    /// Of `Resolve`: kept by the actor for what follows.
    pub(super) found: Option<Found>,
    /// Of a trial: the provider that runs the candidate.
    pub(super) provider: Option<Provider>,
    /// Of a shadow run: what it found, also where that was not good enough.
    pub(super) shadow: Option<shadow::Report>,
    /// Of a fetch: what it moved.
    pub(super) transfer: Option<Transfer>,
}

impl Done {
    fn event(event: Event) -> Self {
        Self { event, found: None, provider: None, shadow: None, transfer: None }
    }
}

impl From<Result<Event, Reason>> for Done {
    fn from(result: Result<Event, Reason>) -> Self {
        Self::event(result.unwrap_or_else(Event::Failed))
    }
}

/// Bytes that a fetch without deltas would still move.
async fn missing(folders: &Folders, bundle: &Verified<SignedManifest>) -> Result<u64, Reason> {
    let (folders, bundle) = (folders.clone(), bundle.clone());
    blocking(move || Ok(stage::missing(&folders, &bundle))).await
}

/// Does the work of an effect and tells what came of it; `None` for an effect that reports nothing.
/// Owns all it needs, so that it can be dropped at any point. `until`: so long a repository that is not reached
/// is asked again.
pub(super) async fn work<H: Host, C: Catalog>(
    mut held: Held<H, C>,
    reporter: Arc<Reporter>,
    found: Option<Found>,
    until: Option<Instant>,
    effect: Effect,
) -> Option<Done> {
    let (shared, deployment) = (held.shared.clone(), held.deployment.clone());
    let slot = &deployment.slot;
    let mut patience = Patience::until(until);
    let resume_max = shared.settings.resume_max;
    Some(match effect {
        Effect::Resolve => loop {
            if held.until_it_may(Part::Begin, &reporter).await {
                patience = Patience::until(Some(Instant::now() + resume_max));
            }
            match resolve(&shared, &deployment).await {
                Ok((candidate, found)) => {
                    break Done { found: Some(found), ..Done::event(Event::Resolved { candidate }) };
                }
                Err(reason) => {
                    if !patience.after(&reason).await {
                        break Done::event(Event::Failed(reason));
                    }
                }
            }
        },
        Effect::Fetch => {
            let Some(found) = found else { return Some(lost(&deployment)) };
            // Files that came as deltas are told of again as files that are there.
            let furthest = AtomicU64::new(0);
            let progress = |done: u64, total| {
                reporter.progress(furthest.fetch_max(done, Ordering::Relaxed).max(done), total);
            };
            let (folders, transport) = (&shared.folders, Counted::over(found.transport.as_ref()));
            let mut deltas = Deltas::default();
            let by_delta = deployment.origin == Origin::Repository;
            let event = loop {
                let (device, manifest) = (&shared.device, &found.manifest);
                let mut bytes = match missing(folders, manifest).await {
                    Ok(bytes) => bytes,
                    Err(reason) => break Event::Failed(reason),
                };
                if by_delta && held.is_too_much(bytes).await {
                    match deltas.cost(folders, manifest, &transport).await {
                        Ok(cost) => bytes = bytes.min(cost),
                        Err(reason) if patience.after(&reason).await => continue,
                        Err(reason) => break Event::Failed(reason),
                    }
                }
                let part = Part::Fetch { bytes };
                if held.until_it_may(part, &reporter).await {
                    patience = Patience::until(Some(Instant::now() + resume_max));
                }
                let _gate = shared.gate.read().await;
                let fetch = async {
                    if by_delta {
                        let rebuild = |job| shared.host.rebuild(job);
                        deltas.bring(folders, manifest, &transport, device, &progress, rebuild).await;
                        if held.is_too_much(missing(folders, manifest).await?).await {
                            deltas.give_up();
                            return Ok(false);
                        }
                    }
                    stage::fetch(folders, manifest, &transport, device, &progress).await.map(|()| true)
                };
                let fetched = tokio::select! {
                    fetched = fetch => fetched,
                    // What came so far stays, and it goes on from there.
                    () = held.until_it_must_not(part) => continue,
                };
                match fetched {
                    Ok(true) => break Event::Fetched,
                    // The deltas did not keep what they promised, and the whole files must wait.
                    Ok(false) => {}
                    Err(reason) => {
                        if !patience.after(&reason).await {
                            break Event::Failed(reason);
                        }
                    }
                }
            };
            Done { transfer: Some(deltas.transfer(transport.bytes())), ..Done::event(event) }
        }
        Effect::Stage => {
            let Some(found) = found else { return Some(lost(&deployment)) };
            let _gate = shared.gate.read().await;
            let folders = shared.folders.clone();
            blocking(move || stage::stage(&folders, &found.manifest)).await.map(|()| Event::Verified).into()
        }
        Effect::BeginTrial => {
            let waited = held.until_it_may(Part::Apply, &reporter).await;
            let candidate =
                deployment.candidate().filter(|_| waited && deployment.origin == Origin::Repository);
            match candidate {
                Some(candidate) if shared.catalog.is_delisted(candidate).await => {
                    let detail = format!(
                        "{}: was taken off the repository's list while it waited; update to another release",
                        candidate.release
                    );
                    Done::event(Event::Failed(Reason::new(ReasonCode::NotFound, detail)))
                }
                Some(_) | None => Done::event(Event::TrialBegun),
            }
        }
        Effect::Try { candidate } => {
            let dir = shared.folders.model(&candidate.digest);
            if let Err(reason) = signed_by_its_maker(&shared, &candidate).await {
                return Some(Done::event(Event::Failed(reason)));
            }
            match shared.host.try_candidate(slot, &candidate, &dir).await {
                Ok(report) => Done { provider: Some(report.provider), ..Done::event(Event::TrialPassed) },
                Err(reason) => Done::event(Event::Failed(reason)),
            }
        }
        Effect::Shadow { plan } => compare(&shared, &reporter, slot, plan).await,
        Effect::Swap { candidate } => match shared.host.swap(slot).await {
            Ok(report) => {
                let links = Links { current: Some(candidate), previous: deployment.serving.clone() };
                let set = set_links(&shared, slot, links).await;
                set.map(|()| Event::Swapped { baseline_ms: report.baseline_ms }).into()
            }
            Err(reason) => Done::event(Event::Failed(reason)),
        },
        Effect::SwapBack { candidate } => {
            let links = Links { current: Some(candidate.clone()), previous: deployment.serving.clone() };
            let swapped = async {
                serve(&shared, slot, Some(&candidate)).await?;
                set_links(&shared, slot, links).await?;
                Ok(Event::Swapped { baseline_ms: None })
            };
            swapped.await.into()
        }
        Effect::Watch { baseline_ms } => watch(&shared, &reporter, slot, baseline_ms).await.into(),
        Effect::PutBack => put_back(&shared, &deployment).await.into(),
        Effect::Discard => {
            shared.host.discard_candidate(slot).await;
            return None;
        }
        Effect::Settle => {
            shared.host.settle(slot).await;
            return None;
        }
        Effect::RepairLinks => {
            let (current, previous) = deployment.links();
            let links = Links { current: current.cloned(), previous: previous.cloned() };
            if let Err(reason) = set_links(&shared, slot, links).await {
                tracing::warn!(%slot, %reason, "the slot's previous bundle cannot be linked");
            }
            return None;
        }
        Effect::CollectGarbage => {
            if let Err(reason) = collect_garbage(&shared, &deployment).await {
                tracing::warn!(%slot, %reason, "old bundles cannot be removed");
            }
            return None;
        }
    })
}

/// The first part of the trial, and of a rollback that somebody asks for, where the owner wants it: nothing is
/// loaded by an order that the model's maker has not signed.
pub(super) async fn signed_by_its_maker<H: Host, C: Catalog>(
    shared: &Shared<H, C>,
    candidate: &BundleRef,
) -> Result<(), Reason> {
    let keys = shared.settings.require_model_signature.clone();
    if keys.is_empty() {
        return Ok(());
    }
    let (dir, candidate) = (shared.folders.model(&candidate.digest), candidate.clone());
    blocking(move || {
        let manifest = stage::read_manifest(&dir, &candidate.digest)?;
        let key = model_signature::check(&dir, &manifest, &keys)?;
        tracing::info!(%key, "{}: the model's signature is good", candidate.release);
        Ok(())
    })
    .await
}

/// Has the host serve a bundle; nothing when `None`, or where the bundle brings the agent down again and again. One
/// that rotted on the disk is fetched again first.
pub(super) async fn serve<H: Host, C: Catalog>(
    shared: &Shared<H, C>,
    slot: &SlotName,
    bundle: Option<&BundleRef>,
) -> Result<(), Reason> {
    let Some(bundle) = bundle else { return shared.host.serve(slot, None).await };
    if shared.starts.is_blamed(slot, &bundle.digest) {
        shared.host.serve(slot, None).await?;
        let detail = format!(
            "slot {slot}: {} brought the agent down too often and does not serve; update to another release",
            bundle.release
        );
        return Err(Reason::new(ReasonCode::BootLoop, detail));
    }
    let Err(failed) = load(shared, slot, bundle).await else { return Ok(()) };
    mend(shared, slot, bundle, failed).await?;
    load(shared, slot, bundle).await
}

async fn load<H: Host, C: Catalog>(
    shared: &Shared<H, C>,
    slot: &SlotName,
    bundle: &BundleRef,
) -> Result<(), Reason> {
    let (folders, digest) = (shared.folders.clone(), bundle.digest);
    blocking(move || slots::open(&folders, &digest)).await?;
    let dir = shared.folders.model(&digest);
    shared.host.serve(slot, Some((bundle, &dir))).await
}

async fn resolve<H: Host, C: Catalog>(
    shared: &Shared<H, C>,
    deployment: &Deployment,
) -> Result<(BundleRef, Found), Reason> {
    let found = shared.catalog.resolve(&deployment.origin, &deployment.release).await?;
    let signed = found.manifest.get();
    if signed.release() != deployment.release {
        let detail = format!("asked for {}, was given {}", deployment.release, signed.release());
        return Err(Reason::new(ReasonCode::Malformed, detail));
    }
    Ok((BundleRef { release: signed.release(), digest: signed.digest }, found))
}

/// Cannot be: whoever fetches or stages has resolved in the same process (see `lifecycle::recover`).
fn lost(deployment: &Deployment) -> Done {
    let detail = format!("deployment {}: its manifest is no longer at hand; ask for it again", deployment.id);
    Done::event(Event::Failed(Reason::new(ReasonCode::Internal, detail)))
}

async fn set_links<H, C>(shared: &Shared<H, C>, slot: &SlotName, links: Links) -> Result<(), Reason> {
    let (folders, slot) = (shared.folders.clone(), slot.clone());
    blocking(move || slots::set(&folders, &slot, links.current.as_ref(), links.previous.as_ref())).await
}

/// Lets the candidate run in the shadow and tells what it finds as it goes.
async fn compare<H: Host, C: Catalog>(
    shared: &Shared<H, C>,
    reporter: &Reporter,
    slot: &SlotName,
    plan: shadow::Plan,
) -> Done {
    let (progress, mut found) = tokio::sync::watch::channel(shadow::Report::default());
    let mut run = std::pin::pin!(shared.host.shadow(slot, plan, progress));
    let mut told = Instant::now();
    let ended = loop {
        tokio::select! {
            ended = &mut run => break ended,
            Ok(()) = found.changed() => {
                let report = found.borrow_and_update().clone();
                let due = told.elapsed() >= TOLD;
                if due {
                    told = Instant::now();
                }
                reporter.shadow(report, due);
            }
        }
    };
    let report = found.borrow().clone();
    reporter.shadow(report.clone(), true);
    Done { shadow: Some(report), ..ended.map(|()| Event::ShadowPassed).into() }
}

async fn watch<H: Host, C: Catalog>(
    shared: &Shared<H, C>,
    reporter: &Reporter,
    slot: &SlotName,
    baseline_ms: Option<f32>,
) -> Result<Event, Reason> {
    let settings = &shared.settings;
    let limits = Limits {
        frames: settings.probation_frames,
        min: settings.probation_min,
        max: settings.probation_max,
        max_error_ratio: settings.max_error_ratio,
        max_slowdown: settings.max_slowdown,
        slow_floor_ms: settings.slow_floor_ms,
    };
    let mut seen = shared.host.observe(slot);
    let mut open = true;
    let mut judge = Probation::new(limits, baseline_ms);
    let begun = Instant::now();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            one = seen.recv(), if open => match one {
                Some(one) => { judge.observe(&one); }
                // The slot stops or is restarted: the longest time decides.
                None => open = false,
            },
            _ = tick.tick() => {}
        }
        match judge.tick(begun.elapsed()) {
            Verdict::Watching { done, needed } => reporter.progress(done, needed),
            Verdict::Passed => return Ok(Event::ProbationPassed),
            Verdict::Failed(reason) => return Err(reason),
        }
    }
}

/// Links first, so that a kill finds the good bundle. While they cannot be set, the good bundle serves
/// and the deployment stays where it is: said to be rolled back it is only when a restart would agree.
async fn put_back<H: Host, C: Catalog>(
    shared: &Shared<H, C>,
    deployment: &Deployment,
) -> Result<Event, Reason> {
    let slot = &deployment.slot;
    let links = Links { current: deployment.serving.clone(), previous: deployment.older.clone() };
    let first = set_links(shared, slot, links.clone()).await;
    let served = serve(shared, slot, deployment.serving.as_ref()).await;
    let mut set = first;
    let mut wait = RELINK.0;
    while let Err(reason) = set {
        tracing::error!(%slot, %reason, "the slot's links cannot be set back; trying again");
        sleep(wait).await;
        wait = (wait * 2).min(RELINK.1);
        set = set_links(shared, slot, links.clone()).await;
    }
    served.map(|()| Event::PutBack)
}

pub(super) async fn collect_garbage<H: Host, C: Catalog>(
    shared: &Shared<H, C>,
    ended: &Deployment,
) -> Result<(), Reason> {
    // While another slot fetches or stages, the garbage waits for the next end of a deployment.
    let Ok(_gate) = shared.gate.try_write() else { return Ok(()) };
    let (folders, journal) = (shared.folders.clone(), shared.journal.clone());
    // What a bad link cut is kept for the next try; what is wrong or too much is not.
    let keep_parts = match ended.reason().map(|reason| reason.code) {
        Some(ReasonCode::RepositoryUnreachable | ReasonCode::Aborted | ReasonCode::Superseded) => true,
        Some(_) | None => false,
    };
    let (bundles, max_bundle) = (shared.settings.spare, shared.settings.max_bundle);
    blocking(move || {
        let (needed, any) = journal.needed()?;
        let parts = if keep_parts { Spare { count: PARTS, bytes: max_bundle } } else { Spare::NONE };
        let keep = Keep { bundles, downloads: (!any).then_some(parts) };
        slots::collect_garbage(&folders, &needed, keep)
    })
    .await
}
