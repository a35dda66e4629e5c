//! A device's update side: the real one, with models that do as they are told.

use super::fleet::Fleet;
use crate::agent::bundles::Bundles;
use crate::agent::tally::Tally;
use crate::config::settings::UpdateSettings;
use crate::domain::deployment::{
    BundleRef, DeploymentState, Observation, SlotState, Stage, SwapReport, TrialReport,
};
use crate::domain::lifecycle::Origin;
use crate::domain::manifest::Provider;
use crate::domain::{DeploymentId, Reason, ReasonCode, Release, SlotName, shadow};
use crate::sys::store::Store;
use crate::update::driver::{Catalog, Found, Host, Setup, Updater};
use crate::update::journal::{Ended, Journal};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::timeout;

/// Longest wait; only a hang reaches it.
pub(super) const GUARD: Duration = Duration::from_secs(180);

/// Frames of a good probation.
const FRAMES: usize = 5;

/// What a model does that is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Its golden answers are wrong.
    Wrong,
    /// Its trial never ends.
    Hangs,
    /// Its child dies in probation.
    Dies,
    /// No frame comes in probation.
    Still,
}

/// Models by their versions; those that are not named are good.
pub(super) type Flaws = &'static [(&'static str, Flaw)];

/// Children that do as they are told.
pub(super) struct Children {
    flaws: Flaws,
    candidate: Mutex<Option<BundleRef>>,
    serving: Mutex<Option<BundleRef>>,
    feeds: Mutex<Vec<mpsc::Sender<Observation>>>,
}

impl Children {
    fn flaw(&self, bundle: Option<&BundleRef>) -> Option<Flaw> {
        let version = bundle?.release.version.to_string();
        self.flaws.iter().find(|(name, _)| *name == version).map(|(_, flaw)| *flaw)
    }

    pub(super) fn serving(&self) -> Option<BundleRef> {
        self.serving.lock().unwrap().clone()
    }
}

impl Host for Children {
    async fn try_candidate(
        &self,
        _: &SlotName,
        bundle: &BundleRef,
        dir: &Path,
    ) -> Result<TrialReport, Reason> {
        assert!(dir.join("model.onnx").exists());
        match self.flaw(Some(bundle)) {
            Some(Flaw::Wrong) => return Err(Reason::new(ReasonCode::GoldenMismatch, "as told")),
            Some(Flaw::Hangs) => std::future::pending().await,
            Some(Flaw::Dies | Flaw::Still) | None => {}
        }
        *self.candidate.lock().unwrap() = Some(bundle.clone());
        Ok(TrialReport { provider: Provider::Cpu, load_ms: 1.0, golden_ms: vec![5.0] })
    }

    async fn shadow(
        &self,
        _: &SlotName,
        _: shadow::Plan,
        _: watch::Sender<shadow::Report>,
    ) -> Result<(), Reason> {
        Ok(())
    }

    async fn swap(&self, _: &SlotName) -> Result<SwapReport, Reason> {
        let candidate = self.candidate.lock().unwrap().clone();
        *self.serving.lock().unwrap() = Some(candidate.unwrap());
        Ok(SwapReport { first_seq: 1, baseline_ms: Some(5.0) })
    }

    fn observe(&self, _: &SlotName) -> mpsc::Receiver<Observation> {
        let (sender, receiver) = mpsc::channel(FRAMES);
        let frames = match self.flaw(self.serving().as_ref()) {
            Some(Flaw::Dies) => {
                vec![Observation::ChildLost(Reason::new(ReasonCode::ChildCrashed, "signal 11"))]
            }
            Some(Flaw::Still) => vec![],
            Some(Flaw::Wrong | Flaw::Hangs) | None => vec![Observation::Frame { total_ms: 5.0 }; FRAMES],
        };
        for frame in frames {
            sender.try_send(frame).unwrap();
        }
        self.feeds.lock().unwrap().push(sender);
        receiver
    }

    async fn settle(&self, _: &SlotName) {}

    async fn serve(&self, _: &SlotName, bundle: Option<(&BundleRef, &Path)>) -> Result<(), Reason> {
        *self.serving.lock().unwrap() = bundle.map(|(bundle, _)| bundle.clone());
        Ok(())
    }

    async fn discard_candidate(&self, _: &SlotName) {
        *self.candidate.lock().unwrap() = None;
    }
}

/// What must not be set back: the versions of the roles, and the time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Floors(BTreeMap<String, String>);

impl Floors {
    /// As they are on a device's disk.
    pub(super) fn of(state: &Path) -> Self {
        let mut floors = BTreeMap::new();
        for role in ["timestamp", "snapshot", "targets"] {
            let bytes = fs::read(state.join(format!("metadata/{role}.json"))).unwrap_or_default();
            let file: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            floors
                .insert(role.to_owned(), format!("{:020}", file["signed"]["version"].as_u64().unwrap_or(0)));
        }
        floors.insert("clock".to_owned(), fs::read_to_string(state.join("clock")).unwrap_or_default());
        Self(floors)
    }

    /// True where none of them is lower than in `other`.
    pub(super) fn are_not_below(&self, other: &Self) -> bool {
        other.0.iter().all(|(name, value)| self.0.get(name).is_some_and(|own| own >= value))
    }
}

/// Something that the world outside was told, and at how many operations of the disk.
#[derive(Debug, Clone)]
pub(super) enum Told {
    /// A release was verified: what was seen on the way is not forgotten.
    Verified(Floors),
    /// A deployment has ended.
    Ended { id: DeploymentId, stage: Stage, current: Option<BundleRef> },
}

/// Where it is noted what the world is told.
pub(super) type Note = Arc<dyn Fn(Told) + Send + Sync>;

/// The agent's own origins of bundles.
pub(super) struct Origins {
    bundles: Bundles,
    state: PathBuf,
    note: Note,
}

impl Catalog for Origins {
    async fn resolve(&self, origin: &Origin, release: &Release) -> Result<Found, Reason> {
        let found = self.bundles.resolve(origin, release).await?;
        (self.note)(Told::Verified(Floors::of(&self.state)));
        Ok(found)
    }

    async fn is_delisted(&self, bundle: &BundleRef) -> bool {
        self.bundles.is_delisted(bundle).await
    }

    async fn release_of(&self, file: &Path) -> Result<Release, Reason> {
        self.bundles.release_of(file).await
    }
}

pub(super) fn slot() -> SlotName {
    "detector".parse().unwrap()
}

/// A device that runs.
pub(super) struct Device {
    pub(super) updater: Updater<Origins>,
    pub(super) children: Arc<Children>,
    journal: Journal,
    reports: broadcast::Receiver<SlotState>,
    /// What the store has lost.
    pub(super) lost: Option<String>,
}

impl Device {
    /// Starts it on the disk below `state`, as the agent does.
    pub(super) async fn start(
        state: &Path,
        fleet: &Fleet,
        address: Option<SocketAddr>,
        flaws: Flaws,
        note: Note,
    ) -> Result<Self, Reason> {
        let opened = Store::open_or_later(&state.join("store"))?;
        let bundles = Bundles::new(Some(fleet.settings(address)), state)?;
        let (candidate, serving, feeds) = Default::default();
        let children = Arc::new(Children { flaws, candidate, serving, feeds });
        let journal = Journal::new(&opened.store);
        let updater = Updater::start(Setup {
            state: state.to_owned(),
            slots: vec![slot()],
            host: children.clone(),
            catalog: Arc::new(Origins { bundles, state: state.to_owned(), note: note.clone() }),
            journal: journal.clone(),
            settings: settings(),
            providers: vec![Provider::Cpu],
        })
        .await?;
        // Nothing ran between the start of the slot's actor and here: this runtime has one thread.
        let reports = updater.subscribe();
        let mut heard = updater.subscribe();
        let mut tally = Tally::default();
        updater.states().iter().for_each(|state| {
            tally.see(state);
        });
        tokio::spawn(async move {
            while let Ok(state) = heard.recv().await {
                let news = tally.see(&state);
                let SlotState { current, deployment, .. } = state;
                if let (Some(stage), Some(DeploymentState { id, .. })) = (news.ended, deployment) {
                    note(Told::Ended { id, stage, current });
                }
            }
        });
        Ok(Self { updater, children, journal, reports, lost: opened.quarantined })
    }

    /// Waits until the slot's deployment is as asked for.
    pub(super) async fn until(&mut self, is_there: impl Fn(Stage) -> bool) {
        let wait = async {
            loop {
                let state = self.updater.state(&slot()).unwrap();
                if state.deployment.is_some_and(|deployment| is_there(deployment.stage)) {
                    return;
                }
                let _ = timeout(Duration::from_millis(20), self.reports.recv()).await;
            }
        };
        let found = timeout(GUARD, wait).await;
        found.unwrap_or_else(|_| panic!("never there: {:?}", self.updater.states()));
    }

    /// Waits until what the start found has ended, what follows the last step included.
    pub(super) async fn until_recovered(&mut self) {
        if self.journal.newest(&slot()).unwrap().is_some() {
            self.until(Stage::is_final).await;
        }
        self.until_idle().await;
    }

    /// Where all orders have ended: waits until what follows the last step is done.
    pub(super) async fn until_idle(&self) {
        // Orders are taken one after the other.
        let answered = crate::update::driver::outcome(self.updater.abort(&slot()).unwrap());
        let answered = timeout(GUARD, answered).await.expect("never idle").unwrap();
        let nothing = "nothing is under way";
        assert!(format!("{answered:?}").contains(nothing), "an order ended what was under way: {answered:?}");
    }

    /// True where the journal says that something is under way.
    pub(super) fn would_go_on(&self) -> bool {
        self.journal.newest(&slot()).unwrap().is_some_and(|newest| !newest.is_final())
    }

    pub(super) fn history(&self) -> Vec<Ended> {
        self.journal.history().unwrap()
    }

    /// Ends it where it is.
    pub(super) async fn stop(self) {
        self.updater.stop().await;
    }
}

fn settings() -> UpdateSettings {
    UpdateSettings {
        probation_frames: FRAMES as u64,
        probation_min: Duration::ZERO,
        probation_max: GUARD * 10,
        max_error_ratio: 0.1,
        max_slowdown: 2.0,
        slow_floor_ms: 1.0,
        shadow_frames: 0,
        shadow_max: GUARD,
        shadow_min_agreement: 0.5,
        shadow_max_memory: 0,
        max_boots: 2,
        // The cuts of a scenario are no boot loop.
        max_starts: 0,
        settled: GUARD * 10,
        rules: Default::default(),
        resume_max: Duration::ZERO,
        disk_reserve: 0,
        max_bundle: 1 << 20,
        spare: crate::domain::garbage::Spare::NONE,
        sideload_grace: Duration::ZERO,
        require_model_signature: Vec::new(),
    }
}
