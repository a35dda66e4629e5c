//! Does what `domain::lifecycle` decides: one actor a slot, one deployment at a time.
//!
//! Every step is recorded in the journal, durably, before anything is done about it; what is done may
//! be done again. At the swap the order is
//!
//! ```text
//! 1 journal Swapping   2 host.swap   3 link current   4 link previous   5 journal Probation
//! ```
//!
//! and whatever the point of a `kill -9`, one whole bundle is current afterwards:
//!
//! - before 3, `current` is the old bundle: the agent serves it, and the trial is begun again;
//! - between 3 and 5, `current` is the candidate and the journal says Swapping: probation begins, and
//!   `previous` is set from the journal's record;
//! - after 5, the agent serves the candidate and probation goes on, with the baseline of the journal
//!   and the restart counted.
//!
//! A rollback sets the links first and serves then, so that a kill in between finds the good one. What
//! cannot be recorded (a full disk) is not done: the step counts as failed. A rollback is done all the
//! same, also one that somebody asks for: it changes the two links with one rename, which needs no room, and
//! the journal hears of it when it can.
//!
//! Where `domain::maintenance` says so, a deployment waits before it asks for anything (`Resolving`), before it
//! fetches, and before the trial (`Staged`); `hold` does that, as the first part of those states' work.
//!
//! A deployment that a restart finds before its files are there waits for its repository for as long as
//! `update.resume_max` says: after a reboot the agent may run before the network does.
//!
//! Which release may come? Metadata that is older than what the device has seen is refused by `trust`.
//! An older *release* that is still listed and signed is somebody's deliberate command, and allowed:
//! going back to 1.3 after 1.4 went bad must not need a new version number. A release that serves
//! already succeeds at once: published releases never change.

mod actor;
mod hold;
mod mend;
mod record;
mod report;
mod starts;
mod wake;
mod work;

use super::deltas::Job;
use super::journal::{Ended, Journal};
use super::stage::Device;
use super::{Folders, slots};
use crate::config::settings::UpdateSettings;
use crate::domain::command::Progress;
use crate::domain::deployment::{BundleRef, Observation, SlotState, SwapReport, TrialReport};
use crate::domain::lifecycle::Origin;
use crate::domain::maintenance::StartWish;
use crate::domain::manifest::Provider;
use crate::domain::shadow::{self, ShadowWish};
use crate::domain::{Reason, ReasonCode, Release, SlotName};
use crate::sys::blocking::blocking;
use crate::trust::Verified;
use crate::trust::transport::Transport;
use crate::trust::verified::SignedManifest;
use actor::{Actor, Order, Wish};
use report::Reporter;
use starts::StartBook;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{RwLock, broadcast, mpsc, watch};
use tokio::task::JoinHandle;

/// Orders that wait for a slot's actor at most.
const ORDERS: usize = 16;

/// Reports that a slow subscriber may be behind before it loses the oldest.
const REPORTS: usize = 256;

/// What the driver asks of the running device. Every call may be repeated.
pub trait Host: Send + Sync + 'static {
    /// Loads the candidate in a child of its own and runs its golden inputs, while the current one
    /// serves.
    fn try_candidate(
        &self,
        slot: &SlotName,
        bundle: &BundleRef,
        dir: &Path,
    ) -> impl Future<Output = Result<TrialReport, Reason>> + Send;
    /// The candidate on trial answers live frames beside the bundle that serves, until enough of them were
    /// compared. What is found so far goes to `progress`, the last of it before the end.
    fn shadow(
        &self,
        slot: &SlotName,
        plan: shadow::Plan,
        progress: watch::Sender<shadow::Report>,
    ) -> impl Future<Output = Result<(), Reason>> + Send;
    /// The candidate takes over from a frame on; the one that served stays loaded, idle.
    fn swap(&self, slot: &SlotName) -> impl Future<Output = Result<SwapReport, Reason>> + Send;
    /// What is seen of the serving bundle since it took over by a swap, else from now on (bounded channel; closed when
    /// the slot stops).
    fn observe(&self, slot: &SlotName) -> mpsc::Receiver<Observation>;
    /// The bundle that serves is the one to stay: the idle one is let go.
    fn settle(&self, slot: &SlotName) -> impl Future<Output = ()> + Send;
    /// Serve this bundle (None: nothing), by the idle child if it holds it, else by loading it; let go
    /// of anything else.
    fn serve(
        &self,
        slot: &SlotName,
        bundle: Option<(&BundleRef, &Path)>,
    ) -> impl Future<Output = Result<(), Reason>> + Send;
    /// Put a file together from a delta, which is hostile, in a process of its own. What it leads to is checked by
    /// the caller. A host that cannot has every file fetched whole.
    fn rebuild(&self, job: Job) -> impl Future<Output = Result<(), Reason>> + Send {
        let _ = job;
        async { Err(Reason::new(ReasonCode::Unsupported, "this host puts no files together")) }
    }
    /// Why the model that is to serve does not, while that is so.
    fn model_fault(&self, slot: &SlotName) -> Option<Reason> {
        let _ = slot;
        None
    }
    /// Let go of a candidate that is on trial.
    fn discard_candidate(&self, slot: &SlotName) -> impl Future<Output = ()> + Send;
}

/// A release as its origin has it: the signed manifest and the way to its files.
#[derive(Clone)]
pub struct Found {
    /// Verified against the pinned root.
    pub manifest: Verified<SignedManifest>,
    /// Where `blobs/<sha256>` are fetched.
    pub transport: Arc<dyn Transport>,
}

/// The origins of bundles, each behind the same verification.
pub trait Catalog: Send + Sync + 'static {
    /// Verifies what `origin` says about a release. Never called with `Origin::Previous`.
    fn resolve(
        &self,
        origin: &Origin,
        release: &Release,
    ) -> impl Future<Output = Result<Found, Reason>> + Send;
    /// Whether the owner has taken a bundle that is here off the list, as far as this device has seen.
    fn is_delisted(&self, bundle: &BundleRef) -> impl Future<Output = bool> + Send {
        let _ = bundle;
        async { false }
    }
    /// False while the system clock is known to be wrong.
    fn is_clock_set(&self) -> bool {
        true
    }
    /// The release that a bundle file claims to hold; what it claims is verified by `resolve`.
    fn release_of(&self, file: &Path) -> impl Future<Output = Result<Release, Reason>> + Send;
}

/// What the updater is made of.
pub struct Setup<H, C> {
    /// The state folder, with `models/`, `slots/` and `downloads/`.
    pub state: PathBuf,
    /// The configured slots.
    pub slots: Vec<SlotName>,
    /// The running device.
    pub host: Arc<H>,
    /// Where bundles come from.
    pub catalog: Arc<C>,
    /// The records.
    pub journal: Journal,
    /// When a candidate is good enough, and what an update may use.
    pub settings: UpdateSettings,
    /// The providers that are configured.
    pub providers: Vec<Provider>,
}

/// What all actors share.
struct Shared<H, C> {
    folders: Folders,
    host: Arc<H>,
    catalog: Arc<C>,
    journal: Journal,
    settings: UpdateSettings,
    device: Device,
    starts: Arc<StartBook>,
    /// Held for reading while files are fetched and staged, for writing while garbage is collected.
    gate: RwLock<()>,
}

/// How far a command has come: any number of `Executing`, then one of the others, which stays. The
/// channel closes without one of the others when the agent ends before the deployment does.
pub type Ticket = watch::Receiver<Progress>;

/// Waits for a command's end. `None` when the agent ends first.
pub async fn outcome(mut ticket: Ticket) -> Option<Progress> {
    let ended = |progress: &Progress| !matches!(progress, Progress::Executing { .. });
    ticket.wait_for(ended).await.ok().map(|progress| progress.clone())
}

struct Slot {
    orders: mpsc::Sender<Order>,
    state: watch::Receiver<SlotState>,
    task: JoinHandle<()>,
}

/// The update side of the device: takes wishes, reports states.
pub struct Updater<C> {
    slots: BTreeMap<SlotName, Slot>,
    reports: broadcast::Sender<SlotState>,
    catalog: Arc<C>,
    journal: Journal,
    starts: Arc<StartBook>,
}

impl<C: Catalog> Updater<C> {
    /// Reads links and journal and starts an actor for each slot, which has the host serve what is
    /// current and goes on with what was under way.
    ///
    /// Errors: the state folder cannot be read or written.
    pub async fn start<H: Host>(setup: Setup<H, C>) -> Result<Self, Reason> {
        let Setup { state, slots, host, catalog, journal, settings, providers } = setup;
        let folders = blocking(move || Folders::prepare(&state)).await?;
        let device = Device {
            providers,
            max_bundle: settings.max_bundle,
            disk_reserve: settings.disk_reserve,
            agent: agent_version()?,
        };
        let starts = Arc::new(StartBook::new(journal.clone()));
        let shared = Arc::new(Shared {
            folders,
            host,
            catalog: catalog.clone(),
            journal: journal.clone(),
            settings,
            device,
            starts: starts.clone(),
            gate: RwLock::new(()),
        });
        let (reports, _) = broadcast::channel(REPORTS);
        let mut started = BTreeMap::new();
        for slot in slots {
            let (folders, name) = (shared.folders.clone(), slot.clone());
            let (links, faults) = blocking(move || slots::read(&folders, &name)).await?;
            for fault in faults {
                tracing::error!(%slot, %fault, "a link of the slot names no good bundle");
            }
            let (reporter, state) = Reporter::new(slot.clone(), &links, reports.clone());
            let (orders, inbox) = mpsc::channel(ORDERS);
            let actor = Actor::new(slot.clone(), links, shared.clone(), Arc::new(reporter), inbox);
            started.insert(slot, Slot { orders, state, task: tokio::spawn(actor.run()) });
        }
        Ok(Self { slots: started, reports, catalog, journal, starts })
    }

    /// Brings a slot to a release of the repository, with what the deployment asks for in the shadow.
    pub fn update(&self, slot: &SlotName, release: Release, shadow: ShadowWish) -> Result<Ticket, Reason> {
        self.update_when(slot, release, shadow, StartWish::default())
    }

    /// The same, with what the order says about its time.
    pub fn update_when(
        &self,
        slot: &SlotName,
        release: Release,
        shadow: ShadowWish,
        start: StartWish,
    ) -> Result<Ticket, Reason> {
        self.deploy(slot, release, Origin::Repository, shadow, start)
    }

    /// Brings a slot to the bundle of a file on this machine.
    pub async fn install(
        &self,
        slot: &SlotName,
        file: PathBuf,
        shadow: ShadowWish,
    ) -> Result<Ticket, Reason> {
        self.install_when(slot, file, shadow, StartWish::default()).await
    }

    /// The same, with what the order says about its time.
    pub async fn install_when(
        &self,
        slot: &SlotName,
        file: PathBuf,
        shadow: ShadowWish,
        start: StartWish,
    ) -> Result<Ticket, Reason> {
        let release = self.catalog.release_of(&file).await?;
        self.deploy(slot, release, Origin::File { path: file }, shadow, start)
    }

    fn deploy(
        &self,
        slot: &SlotName,
        release: Release,
        origin: Origin,
        shadow: ShadowWish,
        start: StartWish,
    ) -> Result<Ticket, Reason> {
        shadow.check().map_err(|detail| Reason::new(ReasonCode::BadRequest, detail))?;
        self.order(slot, Wish::Deploy { release, origin, shadow, start })
    }

    /// Brings a slot back: ends a probation under way, else swaps in the slot's previous bundle.
    pub fn rollback(&self, slot: &SlotName) -> Result<Ticket, Reason> {
        self.order(slot, Wish::Rollback)
    }

    /// Ends the deployment under way; what it changed is put back.
    pub fn abort(&self, slot: &SlotName) -> Result<Ticket, Reason> {
        self.order(slot, Wish::Abort)
    }

    /// How a slot is now.
    pub fn state(&self, slot: &SlotName) -> Option<SlotState> {
        self.slots.get(slot).map(|slot| slot.state.borrow().clone())
    }

    /// How all slots are now.
    pub fn states(&self) -> Vec<SlotState> {
        self.slots.values().map(|slot| slot.state.borrow().clone()).collect()
    }

    /// Every change of every slot from now on. A subscriber that is too slow loses the oldest.
    pub fn subscribe(&self) -> broadcast::Receiver<SlotState> {
        self.reports.subscribe()
    }

    /// Ended deployments, the oldest first. Blocks.
    pub fn history(&self) -> Result<Vec<Ended>, Reason> {
        self.journal.history()
    }

    /// Says that somebody is about to end the agent, so that this start counts against no bundle.
    pub async fn ends_on_purpose(&self) {
        self.starts.ended_on_purpose().await;
    }

    /// Ends all actors where they are, as the end of the process would: what is under way is taken up
    /// again at the next start. Returns when they have ended.
    pub async fn stop(&self) {
        for slot in self.slots.values() {
            slot.task.abort();
        }
        for slot in self.slots.values() {
            // A handle can be awaited by its owner only; an aborted task ends at its next await.
            while !slot.task.is_finished() {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        }
    }

    fn order(&self, slot: &SlotName, wish: Wish) -> Result<Ticket, Reason> {
        let Some(found) = self.slots.get(slot) else {
            let known: Vec<_> = self.slots.keys().map(SlotName::as_str).collect();
            let detail = format!("slot {slot} is not configured; there is {}", known.join(", "));
            return Err(Reason::new(ReasonCode::BadRequest, detail));
        };
        let first = Progress::Executing { detail: "accepted".to_owned(), fraction: None };
        let (ticket, receiver) = watch::channel(first);
        found.orders.try_send(Order { wish, ticket }).map_err(|_| {
            let detail = format!("slot {slot}: too many commands wait; ask again later");
            Reason::new(ReasonCode::Busy, detail)
        })?;
        Ok(receiver)
    }
}

fn agent_version() -> Result<semver::Version, Reason> {
    let text = env!("CARGO_PKG_VERSION");
    text.parse().map_err(|error| Reason::new(ReasonCode::Internal, format!("agent version {text}: {error}")))
}

#[cfg(test)]
mod tests;
