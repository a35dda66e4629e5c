//! Builds the agent from its settings: the one place where rooms meet.
//!
//! The order is the design. The state folder is locked before anything in it is touched; the store is
//! open before anything is promised; the broker's side and the local socket exist before a pipeline
//! can have something to say; the pipelines stand before the updater tells them what to serve.

use super::audit::Audit;
use super::authority::Authority;
use super::bundles::Bundles;
use super::camera;
use super::commands::Commands;
use super::events::{Events, Teller};
use super::homeassistant;
use super::host::Device;
use super::local::handover::HandedOver;
use super::local::{LocalApi, LocalRequest, MetricsText, Socket};
use super::outlet::Outlet;
use super::pipeline::{self, Plan};
use super::report::{Parts, Reports};
use crate::config::Settings;
use crate::config::settings::PipelineSettings;
use crate::domain::admission::AdmissionSettings;
use crate::domain::health::{Problem, ProblemCode};
use crate::domain::memory::Budget;
use crate::domain::metrics::MetricsReport;
use crate::domain::runtime::{InputSettings, RuntimeSettings};
use crate::domain::{Reason, ReasonCode};
use crate::mqtt::payloads::{Birth, BirthPipeline};
use crate::mqtt::spool::{DiskStore, Spool};
use crate::mqtt::{self, Incoming};
use crate::process::frames;
use crate::process::protocol::FrameChannel;
use crate::sys;
use crate::sys::blocking::blocking;
use crate::sys::durable;
use crate::sys::store::Store;
use crate::telemetry::{Telemetry, board, prometheus};
use crate::update::driver::{Setup, Updater};
use crate::update::journal::Journal;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// Commands that wait at most, from each side.
const COMMANDS: usize = 16;
/// This program as the kernel has it open. An upgrade puts another file in its place some time before the agent is
/// restarted; children from that file would be of another version than their agent.
pub(super) const OWN_PROGRAM: &str = "/proc/self/exe";

/// The whole agent, running.
pub(super) struct Agent {
    pub(super) commands: Commands,
    pub(super) reports: Reports,
    pub(super) mqtt: Option<mqtt::Handle>,
    pub(super) from_mqtt: mpsc::Receiver<Incoming>,
    pub(super) from_local: mpsc::Receiver<LocalRequest>,
    pub(super) api: LocalApi,
    /// The newest figures, for whoever asks without waiting.
    pub(super) figures: Arc<RwLock<Option<MetricsReport>>>,
    pub(super) telemetry: Telemetry,
    pub(super) store: Store,
    pub(super) channels: Vec<FrameChannel>,
    pub(super) settings: Arc<Settings>,
    pub(super) events: Arc<Events>,
    /// Told when a command of Home Assistant came to its end.
    pub(super) home: Arc<Notify>,
    /// Held as long as the agent lives; the kernel lets it go with the process.
    pub(super) _lock: File,
}

/// Builds and starts everything; the local socket is bound and still to be served.
///
/// # Errors
/// What cannot be made or read, with its remedy.
pub(super) async fn assemble(
    settings: Settings,
    config: PathBuf,
    restart: CancellationToken,
) -> Result<(Agent, Socket), Reason> {
    let settings = Arc::new(settings);
    let (state, runtime) = (&settings.paths.state, &settings.paths.runtime);
    for folder in [state, runtime] {
        durable::create_dir_synced(folder)?;
    }
    let lock = lock(state)?;
    let socket = Socket::bind(&settings.paths.socket())?;
    let (store, lasting) = {
        let state = state.clone();
        blocking(move || open_store(&state)).await?
    };

    let identity = board::identity(Path::new("/"));
    let telemetry = Telemetry::new(state);
    let (to_agent, from_mqtt) = mpsc::channel(COMMANDS);
    let bundles = Bundles::new(settings.repository.clone(), state)?;
    let bundles = Arc::new(bundles.with_sideload_grace(settings.update.sideload_grace));
    if settings.repository.as_ref().is_some_and(|repository| repository.url.is_some()) {
        let (bundles, refresh) = (bundles.clone(), settings.commands.refresh);
        tokio::spawn(async move { bundles.tend_operators(refresh).await });
    }
    let (listening, from_home) = homeassistant::listen(&settings);
    let audit = Audit::start(&state.join(sys::audit::FOLDER));
    let (mqtt, gate) = match &settings.mqtt {
        Some(broker) => {
            let spool = Spool::with_bounds(DiskStore::new(&store), broker.spool);
            let gate = Authority::new(
                &settings,
                broker,
                bundles.clone(),
                store.clone(),
                audit.clone(),
                telemetry.clone(),
            );
            let gate = Arc::new(gate);
            let birth = birth(&settings, &identity, gate.is_open());
            let started = mqtt::start(broker, birth.clone(), spool, to_agent, gate.clone(), listening)?;
            tokio::spawn(present(started.clone(), birth, gate.clone(), bundles.clone()));
            (Some(started), Some(gate))
        }
        None => (None, None),
    };

    let (events, words) = Events::new(&settings.pipelines);
    let outlet = Arc::new(Outlet::new(telemetry.clone(), mqtt.clone(), events.clone()));
    let exe = Path::new(OWN_PROGRAM);
    let plans: Vec<camera::Plan> =
        settings.pipelines.iter().filter_map(|one| camera_plan(&settings, one, exe)).collect();
    let channels: Vec<FrameChannel> = plans.iter().map(|plan| plan.channel.clone()).collect();
    clear(&channels).await;
    let cameras: Vec<camera::Handle> = plans.into_iter().map(camera::spawn).collect();
    let pipelines = settings.pipelines.iter().filter_map(|one| {
        let camera = cameras.iter().find(|camera| camera.plan().name == one.source_of)?;
        Some(pipeline::spawn(plan(&settings, one, camera.plan()), camera.clone(), outlet.clone()))
    });
    let pipelines: Vec<pipeline::Handle> = pipelines.collect();
    let device = Arc::new(Device::new(cameras, pipelines));
    let (of, kept, to) = (&settings.pipelines, store.clone(), mqtt.clone());
    tokio::spawn(Teller::new(events.clone(), words, to, device.clone(), kept, of).run());

    let journal = Journal::new(&store);
    let handed_over = HandedOver::new(state, settings.update.max_bundle, settings.update.disk_reserve);
    clean(handed_over.clone(), journal.clone()).await;
    let updater = Arc::new(
        Updater::start(Setup {
            state: state.clone(),
            slots: device.slots().map(|(slot, _)| slot.clone()).collect(),
            host: device.clone(),
            catalog: bundles.clone(),
            journal,
            settings: settings.update.clone(),
            providers: settings.runtime.providers.clone(),
        })
        .await?,
    );

    let figures: Arc<RwLock<Option<MetricsReport>>> = Arc::default();
    let home: Arc<Notify> = Arc::default();
    if let (Some(mqtt), Some(gate)) = (mqtt.clone(), gate.clone()) {
        tokio::spawn(homeassistant::tend(homeassistant::Parts {
            settings: settings.clone(),
            mqtt,
            heard: from_home,
            updater: updater.clone(),
            bundles: bundles.clone(),
            gate,
            events: events.clone(),
            figures: figures.clone(),
            used: home.clone(),
            board: identity.board.clone().unwrap_or_else(|| identity.arch.clone()),
            store: store.clone(),
        }));
    }
    let (local, from_local) = mpsc::channel(COMMANDS);
    let api = LocalApi { commands: local, metrics: page(&figures), handed_over: handed_over.clone() };
    let reports = Reports::new(Parts {
        settings: settings.clone(),
        device: device.clone(),
        updater: updater.clone(),
        bundles,
        outlet: outlet.clone(),
        telemetry: telemetry.clone(),
        mqtt: mqtt.clone(),
        boot_id: identity.boot_id,
        store: store.clone(),
        lasting,
        gate,
    });
    let commands = Commands {
        device,
        updater,
        mqtt: mqtt.clone(),
        handed_over,
        restart,
        outlet,
        audit,
        settings: settings.clone(),
        config: Arc::new(config),
        alone: Arc::new(Semaphore::new(1)),
    };
    let agent = Agent {
        commands,
        reports,
        mqtt,
        from_mqtt,
        from_local,
        api,
        figures,
        telemetry,
        store,
        channels,
        settings,
        events,
        home,
        _lock: lock,
    };
    Ok((agent, socket))
}

/// Opens the store, with what health must tell of it. On a full or read-only disk it cannot be opened, and the
/// good model must serve all the same after a reboot: the links say which one that is, so the agent starts
/// without what the store holds, and gets it once there is room.
fn open_store(state: &Path) -> Result<(Store, Vec<Problem>), Reason> {
    let opened = Store::open_or_later(&state.join("store"))?;
    if let Some(reason) = opened.store.condition().refuses {
        tracing::error!("{reason}; the agent starts without its store, and opens it once that is over");
    }
    let lost = opened.quarantined.map(|what| {
        tracing::error!("{what}");
        Problem::new(ProblemCode::StoreRebuilt, what)
    });
    Ok((opened.store, lost.into_iter().collect()))
}

/// Drops what was handed over to an earlier agent and is of no more use.
async fn clean(handed_over: HandedOver, journal: Journal) {
    let cleaned = blocking(move || {
        handed_over.clean(&journal.files()?);
        Ok(())
    });
    if let Err(reason) = cleaned.await {
        tracing::warn!(%reason, "files that were handed over stay");
    }
}

/// Takes away what the children of this run, or of one that was killed, have in shared memory. They
/// are dead or dying: the kernel ends them with their agent.
pub(super) async fn clear(channels: &[FrameChannel]) {
    for channel in channels {
        for tries_left in (0..30).rev() {
            let channel = channel.clone();
            let removed = tokio::task::spawn_blocking(move || frames::remove(&channel)).await;
            match removed {
                Ok(Ok(())) => break,
                Ok(Err(error)) if tries_left == 0 => {
                    tracing::warn!(%error, "shared memory of a former run stays");
                }
                Ok(Err(_)) | Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

/// One agent a state folder: two would fight over the slots and the store.
fn lock(state: &Path) -> Result<File, Reason> {
    let path = state.join("lock");
    let told = |error: &dyn std::fmt::Display, remedy: &str| {
        Reason::new(ReasonCode::Busy, format!("lock {}: {error}; {remedy}", path.display()))
    };
    let file = durable::create_lock(&path)
        .map_err(|error| told(&error, "make paths.state writable for the agent"))?;
    durable::lock_soon(&file).map_err(|error| {
        told(&error, "another agent uses this state folder; stop it or set another paths.state")
    })?;
    Ok(file)
}

/// The camera of a pipeline that has a source of its own, fast enough for all that look at it.
fn camera_plan(settings: &Settings, pipeline: &PipelineSettings, exe: &Path) -> Option<camera::Plan> {
    if pipeline.source_of != pipeline.name {
        return None;
    }
    let readers = || settings.pipelines.iter().filter(|one| one.source_of == pipeline.name);
    let channel = FrameChannel {
        root: settings.paths.runtime.join("frames"),
        prefix: frames::prefix_of(&settings.paths.state),
        pipeline: pipeline.name.clone(),
        readers: u32::try_from(readers().count()).unwrap_or(u32::MAX),
        every: pipeline.every,
    };
    Some(camera::Plan {
        name: pipeline.name.clone(),
        source: pipeline.source.clone(),
        fps: readers().map(|one| one.fps).fold(pipeline.fps, f32::max),
        motion: pipeline.motion.clone(),
        stall_timeout: pipeline.stall_timeout,
        exe: exe.to_path_buf(),
        channel,
    })
}

fn plan(settings: &Settings, pipeline: &PipelineSettings, camera: &camera::Plan) -> Plan {
    let runtime = RuntimeSettings {
        library: settings.runtime.library.clone(),
        providers: settings.runtime.providers.clone(),
        required: settings.runtime.required,
        intra_threads: settings.runtime.intra_threads,
        engine_cache: settings.paths.state.join("engines"),
        tuning: settings.runtime.tuning.clone(),
    };
    Plan {
        name: pipeline.name.clone(),
        slot: pipeline.slot.clone(),
        admission: AdmissionSettings {
            max_age_ms: pipeline.max_age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            fps: (pipeline.fps < camera.fps).then_some(pipeline.fps),
        },
        runtime,
        model_keys: settings.model_keys(),
        input: InputSettings { overlap: settings.runtime.overlap, crop: pipeline.crop },
        frame_deadline: settings.runtime.frame_deadline,
        load_deadline: settings.runtime.load_deadline,
        exe: camera.exe.clone(),
        channel: camera.channel.clone(),
        memory_budget: Budget {
            bytes: settings.runtime.memory_budget,
            interval: settings.runtime.recycle_interval,
        },
        memory_limit: settings.runtime.memory_limit,
    }
}

/// Presents the device anew whenever it begins or ceases to take commands without a signature.
async fn present(mqtt: mqtt::Handle, mut birth: Birth, gate: Arc<Authority>, bundles: Arc<Bundles>) {
    let mut operators = bundles.operators();
    loop {
        if birth.commands_unsigned != gate.is_open() {
            birth.commands_unsigned = gate.is_open();
            mqtt.present(birth.clone());
        }
        if operators.changed().await.is_err() {
            return;
        }
    }
}

fn birth(settings: &Settings, identity: &board::Identity, commands_unsigned: bool) -> Birth {
    let pipeline = |one: &PipelineSettings| BirthPipeline {
        name: one.name.clone(),
        slot: one.slot.clone(),
        source: one.source.kind().to_owned(),
    };
    Birth {
        device: settings.device.id.clone(),
        groups: settings.device.groups.clone(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        boot_id: identity.boot_id.clone(),
        os: identity.os.clone(),
        kernel: identity.kernel.clone(),
        arch: identity.arch.clone(),
        board: identity.board.clone(),
        pipelines: settings.pipelines.iter().map(pipeline).collect(),
        commands: mqtt::commands::COMMANDS.map(str::to_owned).to_vec(),
        commands_unsigned,
        tls: settings.mqtt.as_ref().is_some_and(|mqtt| mqtt.tls.is_some()),
    }
}

/// The metrics page, from the newest figures.
fn page(figures: &Arc<RwLock<Option<MetricsReport>>>) -> MetricsText {
    let figures = figures.clone();
    Arc::new(move || {
        let figures = figures.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        figures.as_ref().map(prometheus::render).unwrap_or_default()
    })
}
