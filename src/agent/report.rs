//! Gathers what the device says of itself: facts for the health judgement, figures, slot states.

use super::authority::Authority;
use super::bundles::Bundles;
use super::camera;
use super::host::Device;
use super::outlet::Outlet;
use super::pipeline;
use crate::config::Settings;
use crate::domain::authority::Requirement;
use crate::domain::deployment::{SlotState, Stage};
use crate::domain::health::clock::{ClockFacts, TimeKeeper};
use crate::domain::health::{
    CommandsHealth, Facts, FailedDeployment, HealthReport, LinkHealth, PipelineHealth, PipelineState,
    Problem, ProblemCode, SourceHealth, SourceState, judge,
};
use crate::domain::importance::Dropped;
use crate::domain::metrics::{BoardMetrics, MetricsReport};
use crate::domain::status::DeviceStatus;
use crate::domain::watchdog::Pulse;
use crate::domain::{ReasonCode, SlotName};
use crate::mqtt;
use crate::sys::blocking::blocking;
use crate::sys::store::{Condition, Store};
use crate::sys::{lockdown, time_service};
use crate::telemetry::{Telemetry, board};
use crate::update::driver::Updater;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two questions to the hardware clock, which takes its time.
const ASK_CLOCK: Duration = Duration::from_secs(600);

/// Everything that reports are made from; cheap to clone.
#[derive(Clone)]
pub struct Reports {
    settings: Arc<Settings>,
    device: Arc<Device>,
    updater: Arc<Updater<Bundles>>,
    bundles: Arc<Bundles>,
    outlet: Arc<Outlet>,
    telemetry: Telemetry,
    mqtt: Option<mqtt::Handle>,
    boot_id: String,
    started: Instant,
    store: Store,
    /// What was found wrong at the start and stays so.
    lasting: Vec<Problem>,
    time_keeper: Arc<Mutex<Keeper>>,
    /// What this kernel does not lock away from models.
    unlocked: Vec<String>,
    gate: Option<Arc<Authority>>,
}

/// What keeps the time, and when that was asked.
#[derive(Default)]
struct Keeper {
    keeper: Option<TimeKeeper>,
    asked: Option<Instant>,
}

/// What [`Reports`] is made of.
pub struct Parts {
    /// The configuration.
    pub settings: Arc<Settings>,
    /// The pipelines.
    pub device: Arc<Device>,
    /// The slots.
    pub updater: Arc<Updater<Bundles>>,
    /// The repository.
    pub bundles: Arc<Bundles>,
    /// The frames' end.
    pub outlet: Arc<Outlet>,
    /// The figures.
    pub telemetry: Telemetry,
    /// The broker.
    pub mqtt: Option<mqtt::Handle>,
    /// The kernel's boot id.
    pub boot_id: String,
    /// What is remembered, for how it is.
    pub store: Store,
    /// What was found wrong at the start and stays so.
    pub lasting: Vec<Problem>,
    /// The gate of the commands over MQTT.
    pub gate: Option<Arc<Authority>>,
}

impl Reports {
    /// Starts counting the uptime.
    pub fn new(parts: Parts) -> Self {
        let Parts {
            settings,
            device,
            updater,
            bundles,
            outlet,
            telemetry,
            mqtt,
            boot_id,
            store,
            lasting,
            gate,
        } = parts;
        let unlocked = lockdown::probe().gaps().into_iter().map(str::to_owned).collect();
        Self {
            settings,
            device,
            updater,
            bundles,
            outlet,
            telemetry,
            mqtt,
            boot_id,
            started: Instant::now(),
            store,
            lasting,
            time_keeper: Arc::default(),
            unlocked,
            gate,
        }
    }

    /// How all slots are, with the provider that really runs each.
    pub fn slots(&self) -> Vec<SlotState> {
        self.updater.states().into_iter().map(|state| self.with_provider(state)).collect()
    }

    /// Fills in the provider from the running child, which knows it best.
    pub fn with_provider(&self, mut state: SlotState) -> SlotState {
        if let Some((_, handle)) = self.device.slots().find(|(slot, _)| **slot == state.slot)
            && let Some(serving) = &handle.status().borrow().serving
            && state.current.as_ref() == Some(&serving.bundle)
        {
            state.provider = Some(serving.provider);
        }
        state
    }

    /// Our own processes by role and pid.
    fn processes(&self) -> Vec<(String, u32)> {
        let mut processes = vec![("agent".to_owned(), std::process::id())];
        for (_, handle) in self.device.slots() {
            let (name, status) = (&handle.plan().name, handle.status());
            processes.extend(status.borrow().pids.iter().map(|(role, pid)| (format!("{role}:{name}"), *pid)));
        }
        processes
    }

    /// All figures now.
    pub async fn metrics(&self) -> MetricsReport {
        let processes = self.processes();
        let mut shares = HashMap::new();
        for (_, handle) in self.device.slots() {
            let name = &handle.plan().name;
            let status = handle.status();
            shares.extend(
                status.borrow().serving.as_ref().map(|serving| (name.clone(), serving.shares.clone())),
            );
        }
        let mqtt = self.mqtt.as_ref().map(mqtt::Handle::figures).unwrap_or_default();
        let telemetry = self.telemetry.clone();
        let read = blocking(move || Ok(telemetry.snapshot(&processes, mqtt)));
        // It ends early only when the runtime does.
        let mut report = read.await.unwrap_or_else(|_| self.telemetry.snapshot(&[], mqtt));
        for (_, handle) in self.device.slots() {
            let camera = handle.status().borrow().camera.clone();
            for figures in report.pipelines.iter_mut().filter(|one| one.name == handle.plan().name) {
                (figures.source, figures.source_restarts) = (camera.state, camera.losses);
            }
        }
        for pipeline in &mut report.pipelines {
            pipeline.events = self.outlet.events().counts(&pipeline.name).unwrap_or_default();
            let shares = shares.remove(&pipeline.name).unwrap_or_default();
            pipeline.provider_share =
                shares.into_iter().map(|share| (share.provider, f64::from(share.time))).collect();
        }
        report
    }

    /// The judgement now.
    pub fn health(&self, board: BoardMetrics) -> HealthReport {
        let fps = self.telemetry.fps();
        let slots = self.updater.states();
        let pipelines = self
            .device
            .slots()
            .map(|(slot, handle)| {
                let name = &handle.plan().name;
                let fps = fps.iter().find(|(known, _)| known == name).map_or(0.0, |(_, fps)| *fps);
                let state = slots.iter().find(|state| state.slot == *slot);
                pipeline_health(slot, handle, fps, state, self.outlet.finished(name))
            })
            .collect();
        let mqtt = match &self.mqtt {
            Some(mqtt) => mqtt.link_health(),
            None => LinkHealth::default(),
        };
        let report = judge(Facts {
            device: self.settings.device.id.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: self.boot_id.clone(),
            uptime_s: self.started.elapsed().as_secs(),
            clock_synchronised: time_service::clock_synchronised(Path::new("/")),
            clock: ClockFacts { behind: self.bundles.clock().is_behind(), keeper: self.time_keeper() },
            pipelines,
            mqtt,
            messages_lost: self.mqtt.as_ref().map_or(Dropped::default(), |mqtt| mqtt.figures().dropped),
            repository: self.bundles.link(),
            board,
            disk_reserve: self.settings.update.disk_reserve,
            others: self.others(),
        });
        let commands = self
            .gate
            .as_ref()
            .map(|gate| CommandsHealth { insecure: gate.is_open(), refused: self.telemetry.refusals() });
        HealthReport { unlocked: self.unlocked.clone(), commands, ..report }
    }

    /// What keeps the time; asked again only now and then.
    fn time_keeper(&self) -> Option<TimeKeeper> {
        let mut kept = self.time_keeper.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.asked.is_none_or(|asked| asked.elapsed() >= ASK_CLOCK) {
            let keeper = board::time_keeper(Path::new("/"), jiff::Timestamp::now().as_second());
            *kept = Keeper { keeper, asked: Some(Instant::now()) };
        }
        kept.keeper
    }

    /// What only this file knows: what was found at the start, and how the store is.
    fn others(&self) -> Vec<Problem> {
        let Condition { refuses, lost } = self.store.condition();
        let state = self.settings.paths.state.display();
        let refuses = refuses.map(|reason| match reason.code {
            ReasonCode::DiskFull => {
                let detail = format!(
                    "the disk of {state} is full: nothing new is remembered over a restart, and no model can be \
                     changed; make room there, and it goes on by itself"
                );
                Problem::new(ProblemCode::DiskLow, detail)
            }
            _ => Problem::new(
                ProblemCode::Other,
                format!("{}; nothing new is remembered over a restart; look at the disk of {state}", reason.detail),
            ),
        });
        let lost = lost.map(|what| Problem::new(ProblemCode::StoreRebuilt, what));
        let bench = self.gate.is_some() && self.settings.commands.require_signature == Requirement::Never;
        let insecure = bench.then(|| {
            let detail = "commands need no signature: whoever may publish to the broker commands this device; that is \
                          for a bench, leave commands.insecure out elsewhere";
            Problem::new(ProblemCode::Insecure, detail)
        });
        self.lasting.iter().cloned().chain(refuses).chain(lost).chain(insecure).collect()
    }

    /// Everything at one moment.
    pub async fn status(&self) -> DeviceStatus {
        let before = self.processes();
        let mut metrics = self.metrics().await;
        let (health, slots) = (self.health(metrics.board.clone()), self.slots());
        // Reading the figures takes a while. A child that came meanwhile is judged by now, and belongs to them.
        if self.processes() != before {
            metrics = self.metrics().await;
        }
        DeviceStatus { health, metrics, slots }
    }

    /// The pipelines' signs of life.
    pub fn pulses(&self) -> Vec<Pulse> {
        self.device
            .slots()
            .map(|(_, handle)| {
                let status = handle.status().borrow().clone();
                let pipeline = handle.plan().name.clone();
                let finished = self.outlet.finished(&pipeline);
                let child = status.pids.iter().find(|(role, _)| *role == "infer").map(|(_, pid)| *pid);
                let silence = match status.camera.state {
                    SourceState::Opening | SourceState::Running | SourceState::Still => Duration::ZERO,
                    SourceState::Lost => camera::LONGEST_WAIT,
                    SourceState::Paused | SourceState::Ended => {
                        return Pulse {
                            pipeline,
                            finished,
                            child,
                            owed: status.owed,
                            source: 0,
                            silence: None,
                        };
                    }
                };
                let silence = Some(silence + handle.camera().plan().silence());
                Pulse { pipeline, finished, child, owed: status.owed, source: status.camera.signs, silence }
            })
            .collect()
    }

    /// Between two reports.
    pub fn interval(&self) -> Duration {
        self.settings.health.interval
    }
}

/// `finished`: frames that were answered so far.
fn pipeline_health(
    slot: &SlotName,
    handle: &pipeline::Handle,
    fps: f64,
    slot_state: Option<&SlotState>,
    finished: u64,
) -> PipelineHealth {
    let (name, owner) = (&handle.plan().name, &handle.camera().plan().name);
    let status = handle.status().borrow().clone();
    let safe_mode = slot_state.and_then(|state| state.safe_mode.clone());
    let wanted = slot_state.is_some_and(|state| state.current.is_some());
    let camera = &status.camera;
    let state = if safe_mode.is_some() && status.serving.is_none() {
        PipelineState::SafeMode
    } else if camera.state == SourceState::Lost {
        PipelineState::SourceFailed
    } else if camera.held {
        PipelineState::Paused
    } else if status.model_fault.is_some() {
        PipelineState::ModelFailed
    } else if camera.state == SourceState::Ended {
        PipelineState::Ended
    } else if !wanted && status.serving.is_none() {
        PipelineState::NoModel
    } else if status.serving.is_none() || finished == 0 {
        PipelineState::Starting
    } else {
        PipelineState::Running
    };
    let failed_deployment = slot_state.and_then(|state| state.deployment.as_ref()).and_then(|deployment| {
        let failed = matches!(deployment.stage, Stage::Refused | Stage::RolledBack);
        let reason = deployment.reason.clone().filter(|_| failed)?;
        Some(FailedDeployment { release: deployment.release.clone(), stage: deployment.stage, reason })
    });
    let holding = safe_mode
        .or_else(|| camera.fault.clone())
        .or_else(|| status.model_fault.clone())
        .or_else(|| status.stale.clone());
    let source = SourceHealth {
        state: camera.state,
        for_s: camera.since.map_or(0, |since| since.elapsed().as_secs()),
        restarts: camera.losses,
        description: camera.description.clone(),
        reason: camera.fault.clone(),
        shared_from: (owner != name).then(|| owner.clone()),
    };
    PipelineHealth {
        name: name.clone(),
        slot: slot.clone(),
        state,
        source,
        release: status.serving.as_ref().map(|serving| serving.bundle.release.clone()),
        provider: status.serving.as_ref().map(|serving| serving.provider),
        fallback: status.serving.as_ref().and_then(|serving| serving.fallback.clone()),
        shares: status.serving.as_ref().map(|serving| serving.shares.clone()).unwrap_or_default(),
        fps,
        last_error: holding.or_else(|| status.last_error.clone()),
        failed_deployment,
    }
}
