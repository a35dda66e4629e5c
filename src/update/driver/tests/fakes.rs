//! A device and a repository that do as they are told, and a disk that stays over restarts.

use super::*;
use tempfile::TempDir;
use tokio::time::timeout;

/// Longest wait; only a hang reaches it.
pub(super) const GUARD: Duration = Duration::from_secs(120);

/// What a call of the host does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Answer {
    Good,
    Fail(ReasonCode),
    Hang,
}

impl Answer {
    pub(super) async fn give(self) -> Result<(), Reason> {
        match self {
            Answer::Good => Ok(()),
            Answer::Fail(code) => Err(Reason::new(code, "as told")),
            Answer::Hang => std::future::pending().await,
        }
    }
}

/// A device that does as it is told and writes down what it was asked.
pub(super) struct FakeHost {
    pub(super) trial: Answer,
    pub(super) shadow: Answer,
    pub(super) swap: Answer,
    pub(super) serve: Answer,
    pub(super) frames: Vec<Observation>,
    pub(super) seen: Mutex<Seen>,
    pub(super) called: Notify,
}

#[derive(Default)]
pub(super) struct Seen {
    pub(super) calls: Vec<String>,
    pub(super) serving: Option<BundleRef>,
    pub(super) candidate: Option<BundleRef>,
    pub(super) feeds: Vec<mpsc::Sender<Observation>>,
}

impl Default for FakeHost {
    fn default() -> Self {
        Self {
            trial: Answer::Good,
            shadow: Answer::Good,
            swap: Answer::Good,
            serve: Answer::Good,
            frames: vec![Observation::Frame { total_ms: 5.0 }; 10],
            seen: Mutex::default(),
            called: Notify::new(),
        }
    }
}

impl FakeHost {
    pub(super) fn note(&self, call: &str) {
        self.seen.lock().unwrap().calls.push(call.to_owned());
        self.called.notify_waiters();
    }

    pub(super) fn calls(&self) -> Vec<String> {
        self.seen.lock().unwrap().calls.clone()
    }

    pub(super) fn serving(&self) -> Option<String> {
        self.seen.lock().unwrap().serving.as_ref().map(|bundle| bundle.release.to_string())
    }

    pub(super) async fn until_called(&self, call: &str) {
        let wait = async {
            loop {
                let called = self.called.notified();
                if self.calls().iter().any(|one| one.starts_with(call)) {
                    return;
                }
                let _ = timeout(Duration::from_millis(20), called).await;
            }
        };
        timeout(GUARD, wait).await.unwrap_or_else(|_| panic!("{call} was never called: {:?}", self.calls()));
    }
}

impl Host for FakeHost {
    async fn try_candidate(
        &self,
        _: &SlotName,
        bundle: &BundleRef,
        dir: &Path,
    ) -> Result<TrialReport, Reason> {
        self.note("try");
        assert!(dir.join("model.onnx").exists());
        self.trial.give().await?;
        self.seen.lock().unwrap().candidate = Some(bundle.clone());
        Ok(TrialReport { provider: Provider::Cpu, load_ms: 1.0, golden_ms: vec![5.0] })
    }

    async fn shadow(
        &self,
        _: &SlotName,
        plan: shadow::Plan,
        progress: watch::Sender<shadow::Report>,
    ) -> Result<(), Reason> {
        self.note("shadow");
        let found = shadow::Report { frames: 3, needed: plan.frames, agreement: 0.75, ..Default::default() };
        progress.send_replace(found);
        self.shadow.give().await
    }

    async fn swap(&self, _: &SlotName) -> Result<SwapReport, Reason> {
        self.note("swap");
        self.swap.give().await?;
        let mut seen = self.seen.lock().unwrap();
        let candidate = seen.candidate.clone();
        seen.serving = Some(candidate.ok_or_else(|| Reason::new(ReasonCode::Internal, "no candidate"))?);
        Ok(SwapReport { first_seq: 1, baseline_ms: Some(5.0) })
    }

    fn observe(&self, _: &SlotName) -> mpsc::Receiver<Observation> {
        self.note("observe");
        let (sender, receiver) = mpsc::channel(100);
        for frame in &self.frames {
            sender.try_send(frame.clone()).unwrap();
        }
        self.seen.lock().unwrap().feeds.push(sender);
        receiver
    }

    async fn settle(&self, _: &SlotName) {
        self.note("settle");
    }

    async fn serve(&self, _: &SlotName, bundle: Option<(&BundleRef, &Path)>) -> Result<(), Reason> {
        let name = bundle.map_or("nothing".to_owned(), |(bundle, _)| bundle.release.version.to_string());
        self.note(&format!("serve {name}"));
        self.serve.give().await?;
        self.seen.lock().unwrap().serving = bundle.map(|(bundle, _)| bundle.clone());
        Ok(())
    }

    async fn discard_candidate(&self, _: &SlotName) {
        self.note("discard");
        self.seen.lock().unwrap().candidate = None;
    }
}

/// A repository with some releases; a file is `VERSION.bundle`.
pub(super) struct FakeCatalog {
    pub(super) bundles: BTreeMap<Release, Verified<SignedManifest>>,
    pub(super) repository: Arc<Repository>,
    pub(super) resolve: Answer,
    pub(super) delisted: Vec<Release>,
}

impl Catalog for FakeCatalog {
    async fn resolve(&self, _: &Origin, release: &Release) -> Result<Found, Reason> {
        self.resolve.give().await?;
        let manifest = self.bundles.get(release).cloned();
        let missing = || Reason::new(ReasonCode::NotFound, format!("no {release}"));
        Ok(Found { manifest: manifest.ok_or_else(missing)?, transport: self.repository.clone() })
    }

    async fn is_delisted(&self, bundle: &BundleRef) -> bool {
        self.delisted.contains(&bundle.release)
    }

    async fn release_of(&self, file: &Path) -> Result<Release, Reason> {
        let name = file.file_stem().unwrap().to_str().unwrap();
        name.parse().map_err(|_| Reason::new(ReasonCode::Malformed, "no bundle"))
    }
}

/// A device over restarts: its disk stays.
pub(super) struct Bench {
    pub(super) dir: TempDir,
    pub(super) journal: Journal,
    pub(super) settings: UpdateSettings,
    pub(super) faults: Vec<Fault>,
    pub(super) resolve: Answer,
    /// Taken off the list from the next start on.
    pub(super) delisted: Vec<Release>,
}

pub(super) struct Running {
    pub(super) updater: Updater<FakeCatalog>,
    pub(super) host: Arc<FakeHost>,
    pub(super) repository: Arc<Repository>,
}

pub(super) fn slot() -> SlotName {
    "detector".parse().unwrap()
}

pub(super) fn release(version: &str) -> Release {
    format!("detector@{version}").parse().unwrap()
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap())
    }

    pub(super) fn at(dir: TempDir) -> Self {
        let journal = Journal::new(&Store::open(&dir.path().join("store")).unwrap().store);
        let settings = UpdateSettings {
            probation_frames: 10,
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
            max_starts: 3,
            settled: GUARD * 10,
            resume_max: GUARD,
            disk_reserve: 0,
            max_bundle: 1 << 20,
            spare: crate::domain::garbage::Spare::NONE,
            sideload_grace: Duration::ZERO,
            require_model_signature: Vec::new(),
            rules: Default::default(),
        };
        Self { dir, journal, settings, faults: vec![], resolve: Answer::Good, delisted: vec![] }
    }

    pub(super) async fn start(&mut self, host: FakeHost) -> Running {
        let mut repository = Repository::default();
        let versions = ["1.0.0", "2.0.0", "3.0.0"];
        let bundles = versions.map(|version| (release(version), repository.add(version))).into();
        *repository.faults.lock().unwrap() = std::mem::take(&mut self.faults);
        let repository = Arc::new(repository);
        let resolve = std::mem::replace(&mut self.resolve, Answer::Good);
        let delisted = self.delisted.clone();
        let host = Arc::new(host);
        let setup = Setup {
            state: self.dir.path().to_owned(),
            slots: vec![slot()],
            host: host.clone(),
            catalog: Arc::new(FakeCatalog { bundles, repository: repository.clone(), resolve, delisted }),
            journal: self.journal.clone(),
            settings: self.settings.clone(),
            providers: vec![Provider::Cpu],
        };
        Running { updater: Updater::start(setup).await.unwrap(), host, repository }
    }

    /// Starts a device on which these releases were committed one after the other.
    pub(super) async fn with(&mut self, versions: &[&str]) {
        let running = self.start(FakeHost::default()).await;
        for version in versions {
            good(running.updater.update(&slot(), release(version), Default::default()).unwrap()).await;
        }
        running.updater.stop().await;
    }

    pub(super) fn links(&self) -> (Option<String>, Option<String>) {
        let folders = Folders::prepare(self.dir.path()).unwrap();
        let (links, faults) = slots::read(&folders, &slot()).unwrap();
        assert_eq!(faults, [], "a link names a bundle that is not there");
        let text = |bundle: Option<BundleRef>| bundle.map(|bundle| bundle.release.version.to_string());
        (text(links.current), text(links.previous))
    }

    pub(super) fn newest(&self) -> Deployment {
        self.journal.newest(&slot()).unwrap().unwrap()
    }

    pub(super) fn models(&self) -> usize {
        fs::read_dir(self.dir.path().join("models")).unwrap().count()
    }
}

impl Running {
    /// Waits until the slot's deployment is in this stage.
    pub(super) async fn until(&self, stage: Stage) -> SlotState {
        let mut state = self.updater.slots[&slot()].state.clone();
        let there = |state: &SlotState| state.deployment.as_ref().is_some_and(|now| now.stage == stage);
        let found = timeout(GUARD, state.wait_for(there)).await;
        found.unwrap_or_else(|_| panic!("never {stage:?}: {:?}", self.updater.states())).unwrap().clone()
    }

    /// Waits until whatever was under way has ended.
    pub(super) async fn until_ended(&self) -> Stage {
        let mut state = self.updater.slots[&slot()].state.clone();
        let ended = |state: &SlotState| state.deployment.as_ref().is_some_and(|now| now.stage.is_final());
        let found = timeout(GUARD, state.wait_for(ended)).await;
        let state =
            found.unwrap_or_else(|_| panic!("never ended: {:?}", self.updater.states())).unwrap().clone();
        // What follows the last step (garbage, answers) has been done when the next order is answered.
        let idle = timeout(GUARD, outcome(self.updater.abort(&slot()).unwrap())).await.unwrap();
        assert!(matches!(idle, Some(Progress::Failed { .. })), "{idle:?}");
        state.deployment.unwrap().stage
    }
}

pub(super) async fn good(ticket: Ticket) -> serde_json::Value {
    match timeout(GUARD, outcome(ticket)).await.unwrap().unwrap() {
        Progress::Successful { result } => result,
        other => panic!("{other:?}"),
    }
}

pub(super) async fn bad(ticket: Ticket) -> Reason {
    match timeout(GUARD, outcome(ticket)).await.unwrap().unwrap() {
        Progress::Failed { reason } => reason,
        other => panic!("{other:?}"),
    }
}

pub(super) fn pair(current: &str, previous: &str) -> (Option<String>, Option<String>) {
    (Some(current.to_owned()), Some(previous.to_owned()))
}
