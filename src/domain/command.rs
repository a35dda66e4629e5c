//! What a device can be asked to do, whoever asks: MQTT or the local socket.

use super::id::{CommandId, PipelineName, Release, SlotName};
use super::maintenance::StartWish;
use super::reason::Reason;
use super::shadow::ShadowWish;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Bring a slot to a release of the repository.
    Update {
        /// The slot.
        slot: SlotName,
        /// The release.
        release: Release,
        /// How the release runs in the shadow before it counts, in place of the configuration.
        shadow: ShadowWish,
        /// When it may begin.
        start: StartWish,
    },
    /// Bring a slot to the bundle of a file on this machine. Local socket only.
    Install {
        /// The slot; may be left out where the device has one.
        slot: Option<SlotName>,
        /// A `.bundle` file.
        file: PathBuf,
        /// As for an update.
        shadow: ShadowWish,
        /// As for an update.
        start: StartWish,
    },
    /// Go back to the slot's previous bundle.
    Rollback {
        /// The slot.
        slot: SlotName,
    },
    /// Stop the deployment under way on a slot.
    Abort {
        /// The slot.
        slot: SlotName,
    },
    /// Tell how the device is.
    Status,
    /// Send the newest frame as a JPEG.
    Snapshot {
        /// The pipeline; may be left out where the device has one.
        pipeline: Option<PipelineName>,
        /// Longest edge, pixels.
        max_edge: u32,
        /// Whether the boxes of the newest result are drawn on it, with their labels.
        boxes: bool,
    },
    /// Pause a pipeline's source, for all pipelines that look at it, or let it go on.
    Pause {
        /// The pipeline; may be left out where the device has one.
        pipeline: Option<PipelineName>,
        /// True to pause, false to go on.
        paused: bool,
    },
    /// End the agent and start it anew in its place; the process id stays.
    Restart,
    /// Set a part of the configuration, on trial: put back where the agent is not well with it.
    Set {
        /// By key, such as `health.interval`; `null` takes a key back.
        values: BTreeMap<String, serde_json::Value>,
    },
    /// Tell the newest lines of the agent's log.
    Logs {
        /// So many at most.
        lines: usize,
        /// Only of this level and above.
        level: LogLevel,
    },
    /// Tell what `edgewarden check` says here.
    Diagnose,
    /// Tell who this is, and blink the board's light.
    Identify {
        /// Seconds to blink; 0: not at all.
        blink_s: u64,
    },
    /// Tell the newest lines of the audit log.
    Audit {
        /// So many at most.
        lines: usize,
    },
}

/// How grave a log line is, the gravest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Errors.
    Error,
    /// And warnings.
    Warn,
    /// And what happened.
    Info,
    /// And details.
    Debug,
    /// And everything.
    #[default]
    Trace,
}

impl Command {
    /// The same, where a whole group was told it.
    pub fn to_a_group(mut self) -> Self {
        if let Command::Update { start, .. } = &mut self {
            start.spread = true;
        }
        self
    }

    /// The command's name in topics and replies.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Update { .. } => "update",
            Command::Install { .. } => "install",
            Command::Rollback { .. } => "rollback",
            Command::Abort { .. } => "abort",
            Command::Status => "status",
            Command::Snapshot { .. } => "snapshot",
            Command::Pause { paused: true, .. } => "pause",
            Command::Pause { paused: false, .. } => "resume",
            Command::Restart => "restart",
            Command::Set { .. } => "set",
            Command::Logs { .. } => "logs",
            Command::Diagnose => "diagnose",
            Command::Identify { .. } => "identify",
            Command::Audit { .. } => "audit",
        }
    }
}

/// How far a command has come. A requester sees any number of `Executing`, then one of the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Progress {
    /// Under way.
    Executing {
        /// For people: what is being done.
        detail: String,
        /// 0 to 1 where it can be told.
        #[serde(skip_serializing_if = "Option::is_none")]
        fraction: Option<f32>,
    },
    /// Done.
    Successful {
        /// What was asked for; an object.
        result: serde_json::Value,
    },
    /// Not done; nothing was changed, or what was changed was put back.
    Failed {
        /// Why.
        reason: Reason,
    },
}

/// A command with its sender's name for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The sender's name for it.
    pub id: CommandId,
    /// What to do.
    pub command: Command,
}
