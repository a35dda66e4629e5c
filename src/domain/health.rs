//! Is the device well? One pure judgement over the facts that the agent has gathered.

mod bare;
pub mod clock;
#[cfg(test)]
mod tests;

use super::deployment::Stage;
use super::id::{DeviceId, PipelineName, Release, SlotName};
use super::importance::Dropped;
use super::manifest::Provider;
use super::metrics::BoardMetrics;
use super::reason::Reason;
use super::runtime::ProviderShare;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Below this share of free memory a model may not load any more.
const LOW_MEMORY: f64 = 0.05;

/// The judgement in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    /// Does all that it should.
    Ok,
    /// Does its work, but something wants attention.
    Degraded,
    /// No pipeline does its work.
    Failed,
}

/// What kind of problem; dashboards count by it. Written in `snake_case`; never renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemCode {
    /// There is no pipeline: the device is still to be set up.
    NotConfigured,
    /// A slot has no bundle.
    NoModel,
    /// A model does not run, and is being restarted.
    ModelFailed,
    /// A slot serves no model, because the agent ended again and again while one served.
    SafeMode,
    /// A source gives nothing or cannot be opened.
    SourceFailed,
    /// Frames of a running pipeline end in errors, or did a moment ago.
    FrameErrors,
    /// The model runs on another provider than the first one configured.
    ProviderFallback,
    /// A deployment was refused or rolled back; the model before it serves.
    DeploymentFailed,
    /// The broker is not reached, or refuses.
    BrokerUnreachable,
    /// Messages that had to arrive were dropped.
    MessagesLost,
    /// The repository is not reached, or refuses.
    RepositoryUnreachable,
    /// The repository is reached, and what it serves is refused: expired, older than seen, not signed.
    RepositoryRefused,
    /// The clock is wrong, or nothing sets or keeps it; expiry dates are judged by the last known time.
    ClockUnsynchronised,
    /// Less disk is free than an update leaves.
    DiskLow,
    /// Little memory is left.
    MemoryLow,
    /// The board holds the processor back: supply voltage or temperature.
    Throttled,
    /// The journal's store was damaged and had to be rebuilt.
    StoreRebuilt,
    /// Commands that change the device are taken without a signature, because the configuration says so: for a
    /// bench.
    Insecure,
    /// Something else, told in the detail.
    Other,
}

/// One thing that wants attention.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// For machines.
    pub code: ProblemCode,
    /// For people: one line that names the thing and the remedy.
    pub detail: String,
}

impl Problem {
    /// Joins a code and a sentence.
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

/// How a pipeline is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PipelineState {
    /// Its slot has no bundle yet.
    NoModel,
    /// Its children are being started; no frame was answered yet.
    Starting,
    /// Frames are answered.
    Running,
    /// Its source gives nothing, or cannot be opened.
    SourceFailed,
    /// Its model cannot be loaded, or its child died and waits to be restarted.
    ModelFailed,
    /// Its source is at its end (a folder read once).
    Ended,
    /// A person has paused its source.
    Paused,
    /// No model serves, because the agent ended again and again while one did.
    SafeMode,
}

/// How a source is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// Being opened or resumed; no frame has come yet.
    #[default]
    Opening,
    /// Frames come.
    Running,
    /// It works, and nothing moves in its pictures: they are held back.
    Still,
    /// Nobody needs its frames, or a person has paused it.
    Paused,
    /// It cannot be opened, gave nothing for too long, or its process died; it is tried again.
    Lost,
    /// At its end (a folder read once).
    Ended,
}

impl SourceState {
    /// Every state.
    pub const ALL: [SourceState; 6] = [
        SourceState::Opening,
        SourceState::Running,
        SourceState::Still,
        SourceState::Paused,
        SourceState::Lost,
        SourceState::Ended,
    ];

    /// As it is written in payloads and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            SourceState::Opening => "opening",
            SourceState::Running => "running",
            SourceState::Still => "still",
            SourceState::Paused => "paused",
            SourceState::Lost => "lost",
            SourceState::Ended => "ended",
        }
    }
}

/// A pipeline's source as health tells it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceHealth {
    /// How it is.
    pub state: SourceState,
    /// For so many seconds.
    pub for_s: u64,
    /// Times that it was lost and started again, since the agent started.
    pub restarts: u64,
    /// What it is, once it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Why there are no frames, while there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The pipeline whose source it is, where that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_from: Option<PipelineName>,
}

/// A pipeline's part of the report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PipelineHealth {
    /// Its name.
    pub name: PipelineName,
    /// The slot whose bundle it runs.
    pub slot: SlotName,
    /// How it is.
    pub state: PipelineState,
    /// How its source is.
    #[serde(default)]
    pub source: SourceHealth,
    /// What runs.
    pub release: Option<Release>,
    /// The provider that really runs it.
    pub provider: Option<Provider>,
    /// Why that is not the first one configured, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// How much of the model each provider runs, the largest share first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<ProviderShare>,
    /// Answered frames per second.
    pub fps: f64,
    /// The newest error of its source, its model or a frame, while it holds: until what had it gives a good
    /// frame or answer again, five seconds after the error or later. The figures keep what happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<Reason>,
    /// The newest deployment on its slot that ended badly, until a later one is committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_deployment: Option<FailedDeployment>,
}

/// A deployment that ended badly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailedDeployment {
    /// What was asked for.
    pub release: Release,
    /// `Refused` or `RolledBack`.
    pub stage: Stage,
    /// Why.
    pub reason: Reason,
}

/// The way to something outside: the broker, the repository.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkHealth {
    /// What is configured, without secrets; `None` where nothing is.
    pub target: Option<String>,
    /// Reached at the last try.
    pub reached: bool,
    /// Why not; where it was reached, why what it serves is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<Reason>,
}

/// What the judgement is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// The device.
    pub device: DeviceId,
    /// Version of the agent.
    pub agent_version: String,
    /// The kernel's boot id.
    pub boot_id: String,
    /// Seconds since the agent started.
    pub uptime_s: u64,
    /// Whether the clock follows a time server, where the kernel tells.
    pub clock_synchronised: Option<bool>,
    /// What else is known of it.
    pub clock: clock::ClockFacts,
    /// The pipelines.
    pub pipelines: Vec<PipelineHealth>,
    /// The broker.
    pub mqtt: LinkHealth,
    /// Messages that had to arrive and were dropped.
    pub messages_lost: Dropped,
    /// The repository.
    pub repository: LinkHealth,
    /// The machine.
    pub board: BoardMetrics,
    /// Bytes of disk that an update leaves free.
    pub disk_reserve: u64,
    /// Problems that the agent knows besides (a rebuilt store).
    pub others: Vec<Problem>,
}

/// The payload of `health`, and what `status` shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HealthReport {
    /// The judgement.
    pub state: HealthState,
    /// What wants attention, the worst first.
    pub problems: Vec<Problem>,
    /// The device.
    pub device: DeviceId,
    /// Version of the agent.
    pub agent_version: String,
    /// The kernel's boot id.
    pub boot_id: String,
    /// Seconds since the agent started.
    pub uptime_s: u64,
    /// Whether the clock follows a time server, where the kernel tells.
    pub clock_synchronised: Option<bool>,
    /// The pipelines.
    pub pipelines: Vec<PipelineHealth>,
    /// The broker.
    pub mqtt: LinkHealth,
    /// The repository.
    pub repository: LinkHealth,
    /// The machine.
    pub board: BoardMetrics,
    /// What this kernel leaves open to a model that takes its process over; no problem of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unlocked: Vec<String>,
    /// Who may command this device over MQTT; absent where it has no broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commands: Option<CommandsHealth>,
}

/// How commands over MQTT are taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandsHealth {
    /// True while whoever may publish to the broker may change this device: no signature is asked for.
    pub insecure: bool,
    /// Commands that were refused since the agent started, by the kind of refusal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<String, u64>,
}

impl HealthReport {
    /// True when a watcher would want to know of the step from `before` to this report: the
    /// judgement, a kind of problem, or what a pipeline runs has changed. Figures alone do not count.
    pub fn differs(&self, before: &HealthReport) -> bool {
        let codes = |report: &HealthReport| report.problems.iter().map(|p| p.code).collect::<Vec<_>>();
        let insecure = |report: &HealthReport| report.commands.as_ref().map(|commands| commands.insecure);
        let pipelines = |report: &HealthReport| {
            // A scene that comes to rest and moves again is no news.
            let source = |p: &PipelineHealth| match p.source.state {
                SourceState::Opening | SourceState::Still => SourceState::Running,
                other @ (SourceState::Running
                | SourceState::Paused
                | SourceState::Lost
                | SourceState::Ended) => other,
            };
            let of = |p: &PipelineHealth| (p.name.clone(), p.state, source(p), p.release.clone(), p.provider);
            report.pipelines.iter().map(of).collect::<Vec<_>>()
        };
        self.state != before.state
            || codes(self) != codes(before)
            || pipelines(self) != pipelines(before)
            || insecure(self) != insecure(before)
            || self.agent_version != before.agent_version
            || self.boot_id != before.boot_id
    }
}

/// Judges. `Failed` only when no pipeline does its work and at least one of them is broken: a
/// device that waits for its first bundle, or whose folder is read to its end, is not broken.
pub fn judge(facts: Facts) -> HealthReport {
    let mut problems = facts.others.clone();
    problems.extend(bare::problem(&facts));
    for pipeline in &facts.pipelines {
        pipeline_problems(pipeline, &mut problems);
    }
    link_problem("broker", ProblemCode::BrokerUnreachable, &facts.mqtt, &mut problems);
    link_problem("repository", ProblemCode::RepositoryUnreachable, &facts.repository, &mut problems);
    problems.extend(repository_refused(&facts.repository));
    if facts.messages_lost.total() > 0 {
        let detail = format!(
            "{} messages that had to arrive were dropped ({}): the device was offline for too long, or the broker refuses them; raise mqtt.spool_messages and mqtt.spool_bytes, or send fewer",
            facts.messages_lost.total(),
            facts.messages_lost
        );
        problems.push(Problem::new(ProblemCode::MessagesLost, detail));
    }
    problems.extend(clock::problem(facts.clock_synchronised, facts.clock));
    board_problems(&facts.board, facts.disk_reserve, &mut problems);

    let working = |p: &PipelineHealth| match p.state {
        PipelineState::Running | PipelineState::Starting | PipelineState::Ended | PipelineState::Paused => {
            true
        }
        PipelineState::NoModel
        | PipelineState::SourceFailed
        | PipelineState::ModelFailed
        | PipelineState::SafeMode => false,
    };
    let broken = |p: &PipelineHealth| match p.state {
        PipelineState::SourceFailed | PipelineState::ModelFailed | PipelineState::SafeMode => true,
        PipelineState::NoModel
        | PipelineState::Starting
        | PipelineState::Running
        | PipelineState::Ended
        | PipelineState::Paused => false,
    };
    let state = if facts.pipelines.iter().any(broken) && !facts.pipelines.iter().any(working) {
        HealthState::Failed
    } else if problems.is_empty() {
        HealthState::Ok
    } else {
        HealthState::Degraded
    };
    problems.sort_by_key(|p| rank(p.code));
    HealthReport {
        state,
        problems,
        device: facts.device,
        agent_version: facts.agent_version,
        boot_id: facts.boot_id,
        uptime_s: facts.uptime_s,
        clock_synchronised: facts.clock_synchronised,
        pipelines: facts.pipelines,
        mqtt: facts.mqtt,
        repository: facts.repository,
        board: facts.board,
        unlocked: Vec::new(),
        commands: None,
    }
}

fn pipeline_problems(pipeline: &PipelineHealth, problems: &mut Vec<Problem>) {
    let name = &pipeline.name;
    let why = || {
        pipeline.last_error.as_ref().map_or_else(|| "no reason was given".to_owned(), |r| r.detail.clone())
    };
    let told = match pipeline.state {
        PipelineState::NoModel => Some(Problem::new(
            ProblemCode::NoModel,
            format!("pipeline {name}: slot {} has no bundle; send it a release", pipeline.slot),
        )),
        PipelineState::SourceFailed => {
            Some(Problem::new(ProblemCode::SourceFailed, format!("pipeline {name}: {}", why())))
        }
        PipelineState::ModelFailed => {
            Some(Problem::new(ProblemCode::ModelFailed, format!("pipeline {name}: {}", why())))
        }
        PipelineState::SafeMode => {
            Some(Problem::new(ProblemCode::SafeMode, format!("pipeline {name}: safe mode: {}", why())))
        }
        PipelineState::Running => pipeline
            .last_error
            .as_ref()
            .map(|e| Problem::new(ProblemCode::FrameErrors, format!("pipeline {name}: {}", e.detail))),
        PipelineState::Starting | PipelineState::Ended | PipelineState::Paused => None,
    };
    problems.extend(told);
    if let Some(fallback) = &pipeline.fallback {
        let detail = format!("pipeline {name}: {fallback}");
        problems.push(Problem::new(ProblemCode::ProviderFallback, detail));
    }
    if let Some(failed) = &pipeline.failed_deployment {
        let word = if failed.stage == Stage::RolledBack { "was rolled back" } else { "was refused" };
        let detail = format!("slot {}: {} {word}: {}", pipeline.slot, failed.release, failed.reason.detail);
        problems.push(Problem::new(ProblemCode::DeploymentFailed, detail));
    }
}

fn link_problem(what: &str, code: ProblemCode, link: &LinkHealth, problems: &mut Vec<Problem>) {
    // Not yet tried is no problem: only a try that failed is.
    let (Some(target), false, Some(error)) = (&link.target, link.reached, &link.last_error) else { return };
    problems.push(Problem::new(code, format!("{what} {target}: {}", error.detail)));
}

/// Somebody shows the device something else than its owner's newest.
fn repository_refused(link: &LinkHealth) -> Option<Problem> {
    let (Some(target), true, Some(error)) = (&link.target, link.reached, &link.last_error) else {
        return None;
    };
    let detail = format!("repository {target}: what it serves is refused: {}", error.detail);
    Some(Problem::new(ProblemCode::RepositoryRefused, detail))
}

fn board_problems(board: &BoardMetrics, disk_reserve: u64, problems: &mut Vec<Problem>) {
    const MIB: u64 = 1 << 20;
    if let Some(free) = board.disk_free_bytes.filter(|free| *free < disk_reserve) {
        let detail = format!(
            "the state folder's disk has {} MiB free, updates keep {} MiB; free some",
            free / MIB,
            disk_reserve / MIB
        );
        problems.push(Problem::new(ProblemCode::DiskLow, detail));
    }
    if let (Some(total), Some(available)) = (board.memory_total_bytes, board.memory_available_bytes)
        && (available as f64) < total as f64 * LOW_MEMORY
    {
        let detail = format!("{} MiB of memory are left of {} MiB", available / MIB, total / MIB);
        problems.push(Problem::new(ProblemCode::MemoryLow, detail));
    }
    if let Some(t) = board.throttled.filter(|t| t.now()) {
        let detail = if t.under_voltage {
            "the board's supply voltage is too low; use a stronger power supply"
        } else {
            "the board holds its processor back because it is hot; cool it"
        };
        problems.push(Problem::new(ProblemCode::Throttled, detail));
    }
}

/// Order of the problems in a report, the worst first.
fn rank(code: ProblemCode) -> u8 {
    match code {
        ProblemCode::ModelFailed | ProblemCode::SafeMode | ProblemCode::SourceFailed => 0,
        ProblemCode::NotConfigured | ProblemCode::NoModel | ProblemCode::FrameErrors => 1,
        ProblemCode::StoreRebuilt | ProblemCode::DiskLow | ProblemCode::MemoryLow => 2,
        ProblemCode::DeploymentFailed
        | ProblemCode::ProviderFallback
        | ProblemCode::MessagesLost
        | ProblemCode::RepositoryRefused
        | ProblemCode::Insecure => 3,
        ProblemCode::BrokerUnreachable | ProblemCode::RepositoryUnreachable => 4,
        ProblemCode::Throttled | ProblemCode::ClockUnsynchronised | ProblemCode::Other => 5,
    }
}
