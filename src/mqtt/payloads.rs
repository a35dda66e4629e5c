//! What stands in each message: JSON with a schema version, an id and a running number.
//!
//! Fields are only ever added within a schema version. `availability` is plain text and a
//! snapshot is a JPEG; everything else is a [`Stamped`] object.

pub mod event;

use crate::domain::command::Progress;
use crate::domain::{CommandId, DeviceId, PipelineName, Reason, SlotName};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};

/// The schema version of every payload.
pub const SCHEMA: u16 = 1;

/// Largest payload published, bytes: what fits into 128 KiB (the limit of AWS IoT Core) with its
/// topic and properties.
pub const MAX_PAYLOAD: usize = (128 << 10) - 2048;

/// Payload of `availability` while connected.
pub const ONLINE: &str = "online";
/// Payload of `availability` after a clean end, and of the last will.
pub const OFFLINE: &str = "offline";

/// A body with what every message carries beside it, flat in one object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stamped<T> {
    /// [`SCHEMA`].
    pub schema: u16,
    /// Unique (UUID version 7). A message that is sent again has the same one: drop doubles by it.
    pub message_id: uuid::Uuid,
    /// Rises by one per message since the agent started; a gap is a message that was dropped.
    pub message_seq: u64,
    /// When it was made, by the device's clock.
    pub sent_at: jiff::Timestamp,
    /// What is said.
    #[serde(flatten)]
    pub body: T,
}

impl<T: DeserializeOwned> Stamped<T> {
    /// Reads a message. Twice, for what stands beside the body and for the body: telling the two apart on the way would
    /// take the code of every body once more.
    ///
    /// # Errors
    /// When it is no JSON, or not of this kind.
    pub fn read(json: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Stamp {
            schema: u16,
            message_id: uuid::Uuid,
            message_seq: u64,
            sent_at: jiff::Timestamp,
        }
        let Stamp { schema, message_id, message_seq, sent_at } = serde_json::from_slice(json)?;
        Ok(Self { schema, message_id, message_seq, sent_at, body: serde_json::from_slice(json)? })
    }
}

/// Gives messages their ids and numbers.
#[derive(Debug, Default)]
pub struct Stamper(AtomicU64);

impl Stamper {
    /// Stamps a body and writes it as JSON.
    ///
    /// # Errors
    /// Serialisation's, which none of our types has.
    pub fn json<T: Serialize>(&self, body: T) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Stamped {
            schema: SCHEMA,
            message_id: uuid::Uuid::now_v7(),
            message_seq: self.0.fetch_add(1, Ordering::Relaxed) + 1,
            sent_at: jiff::Timestamp::now(),
            body,
        })
    }
}

/// The payload of `birth`: what the device is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Birth {
    /// The device.
    pub device: DeviceId,
    /// Groups whose commands it obeys.
    pub groups: Vec<DeviceId>,
    /// Version of the agent.
    pub agent_version: String,
    /// The kernel's boot id.
    pub boot_id: String,
    /// Operating system, as it calls itself.
    pub os: String,
    /// Version of the kernel.
    pub kernel: String,
    /// Architecture (`x86_64`, `aarch64`).
    pub arch: String,
    /// The board, as its firmware calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub board: Option<String>,
    /// The pipelines.
    pub pipelines: Vec<BirthPipeline>,
    /// Commands that it takes.
    pub commands: Vec<String>,
    /// True while commands that change the device need no signature: the broker's access list alone decides
    /// who may command it.
    pub commands_unsigned: bool,
    /// Whether the connection to the broker is encrypted.
    pub tls: bool,
}

/// A pipeline's part of [`Birth`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BirthPipeline {
    /// Its name.
    pub name: PipelineName,
    /// The slot whose bundle it runs.
    pub slot: SlotName,
    /// What it looks at: `synthetic`, `folder`.
    pub source: String,
}

/// The payload of a reply to a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommandReply {
    /// The device that answers; a command to a group is answered by many.
    pub device: DeviceId,
    /// The command's name.
    pub command: String,
    /// The sender's name for it.
    pub id: CommandId,
    /// How far it has come.
    #[serde(flatten)]
    pub status: ReplyStatus,
}

/// How far a command has come, as it is written in replies: [`Progress`] and, before it, `init`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum ReplyStatus {
    /// Received and understood.
    Init,
    /// Under way.
    Executing {
        /// For people: what is being done.
        detail: String,
        /// 0 to 1 where it can be told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fraction: Option<f32>,
    },
    /// Done.
    Successful {
        /// What was asked for; an object.
        result: serde_json::Value,
    },
    /// Not done.
    Failed {
        /// Why.
        reason: Reason,
    },
}

impl ReplyStatus {
    /// True when nothing follows.
    pub fn is_final(&self) -> bool {
        match self {
            ReplyStatus::Init | ReplyStatus::Executing { .. } => false,
            ReplyStatus::Successful { .. } | ReplyStatus::Failed { .. } => true,
        }
    }
}

impl From<Progress> for ReplyStatus {
    fn from(progress: Progress) -> Self {
        match progress {
            Progress::Executing { detail, fraction } => ReplyStatus::Executing { detail, fraction },
            Progress::Successful { result } => ReplyStatus::Successful { result },
            Progress::Failed { reason } => ReplyStatus::Failed { reason },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{FrameResult, Output, ReasonCode, StageTimes};

    #[test]
    fn every_message_has_its_own_id_and_the_next_number() {
        let stamper = Stamper::default();
        let reply = |n: u32| CommandReply {
            device: "pi".parse().unwrap(),
            command: "status".into(),
            id: format!("{n}").parse().unwrap(),
            status: ReplyStatus::Init,
        };
        let a = Stamped::<CommandReply>::read(&stamper.json(reply(1)).unwrap()).unwrap();
        let b = Stamped::<CommandReply>::read(&stamper.json(reply(2)).unwrap()).unwrap();
        assert_eq!((a.schema, a.message_seq, b.message_seq), (SCHEMA, 1, 2));
        assert!(a.message_id < b.message_id, "version 7 ids sort by time");
        assert_eq!(a.body, reply(1));
    }

    #[test]
    fn a_reply_is_one_flat_object() {
        let reason = Reason::new(ReasonCode::Busy, "wait");
        let reply = CommandReply {
            device: "pi".parse().unwrap(),
            command: "update".into(),
            id: "7".parse().unwrap(),
            status: Progress::Failed { reason }.into(),
        };
        let value: serde_json::Value =
            serde_json::from_slice(&Stamper::default().json(reply).unwrap()).unwrap();
        assert_eq!(value["status"], "failed");
        assert_eq!(value["reason"]["code"], "busy");
        assert_eq!(value["id"], "7");
        assert_eq!(value["schema"], 1);
    }

    #[test]
    fn a_result_keeps_its_own_number_beside_the_messages() {
        let result = FrameResult {
            seq: 41,
            captured_unix_ns: 1,
            latency_ms: 2.0,
            size: [3, 4],
            output: Output::default(),
            timing_ms: StageTimes::default(),
        };
        let json = Stamper::default().json(&result).unwrap();
        let back = Stamped::<FrameResult>::read(&json).unwrap();
        assert_eq!((back.message_seq, back.body), (1, result));
    }
}
