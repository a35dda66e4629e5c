//! What stands in each message: JSON with a schema version, who says it, an id, a running number and times.
//!
//! Fields are only ever added within a schema version; `packaging/mqtt.md` has a page on all of them.
//! `availability` is plain text, because the broker says half of it in our place, and a snapshot is a JPEG
//! with the stamp in its MQTT properties; everything else is a [`Stamped`] object.
//!
//! Two times: when a message was made (`made_at`) is stamped before it goes into the spool and stays. When it
//! is sent (`sent_at`) is only known at each try, perhaps days later, and is written into the payload then
//! ([`sent`]): a consumer that sees no MQTT properties reads it too. A double differs in `sent_at` only.

pub mod event;

use crate::domain::command::Progress;
use crate::domain::importance::Dropped;
use crate::domain::{CommandId, DeviceId, PipelineName, Reason, SlotName};
use crate::sys::time_service::clock_synchronised;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::Path;
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

/// Bytes that [`sent`] adds at most.
pub const SENT_SIZE: usize = 48;

/// A body with what every message carries beside it, flat in one object. What is optional here is missing in
/// messages of agents before it was added.
#[derive(Debug, Clone, PartialEq)]
pub struct Stamped<T> {
    /// What stands beside it.
    pub stamp: Stamp,
    /// What is said.
    pub body: T,
}

/// What every message carries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stamp {
    /// [`SCHEMA`].
    pub schema: u16,
    /// Unique (UUID version 7). A message that is sent again has the same one: drop doubles by it.
    pub message_id: uuid::Uuid,
    /// Rises by one per message since the agent started (`run_id`); a gap is a message that was dropped.
    pub message_seq: u64,
    /// This start of the agent (UUID version 7): what `message_seq` counts in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<uuid::Uuid>,
    /// Who says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
    /// The kernel's boot id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// When it was made, by the device's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_at: Option<jiff::Timestamp>,
    /// Whether that clock followed a time server then; absent where nobody can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_synchronised: Option<bool>,
    /// When it was sent, this time, by the device's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_at: Option<jiff::Timestamp>,
}

impl Stamp {
    /// The same as user properties, for a message whose payload has no room for it; sent now.
    pub fn properties(mut self) -> Vec<(String, String)> {
        self.sent_at = Some(jiff::Timestamp::now());
        let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(self) else { return Vec::new() };
        let text = |value: serde_json::Value| match value {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        fields.into_iter().map(|(name, value)| (name, text(value))).collect()
    }
}

impl<T: DeserializeOwned> Stamped<T> {
    /// Reads a message. Twice, for what stands beside the body and for the body: a field may belong to both (a reply
    /// names its device), and telling the two apart on the way would take the code of every body once more.
    ///
    /// # Errors
    /// When it is no JSON, or not of this kind.
    pub fn read(json: &[u8]) -> Result<Self, serde_json::Error> {
        Ok(Self { stamp: serde_json::from_slice(json)?, body: serde_json::from_slice(json)? })
    }
}

/// The same for whoever has a reader of another kind.
impl<'de, T: DeserializeOwned> Deserialize<'de> for Stamped<T> {
    fn deserialize<D: serde::Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        let all = serde_json::Value::deserialize(reader)?;
        let fault = serde::de::Error::custom;
        Ok(Self {
            stamp: Stamp::deserialize(&all).map_err(fault)?,
            body: T::deserialize(all).map_err(fault)?,
        })
    }
}

impl<T: Serialize> Stamped<T> {
    /// Writes it as one JSON object. What the body tells itself is not said twice.
    ///
    /// # Errors
    /// Serialisation's, which none of our types has; a body that is no object.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        /// What a body may tell itself.
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Own {
            #[serde(deserialize_with = "present")]
            device: bool,
            #[serde(deserialize_with = "present")]
            boot_id: bool,
            #[serde(deserialize_with = "present")]
            clock_synchronised: bool,
        }
        let body = serde_json::to_string(&self.body)?;
        let own: Own = serde_json::from_str(&body)?;
        let mut stamp = self.stamp.clone();
        stamp.device = stamp.device.filter(|_| !own.device);
        stamp.boot_id = stamp.boot_id.filter(|_| !own.boot_id);
        stamp.clock_synchronised = stamp.clock_synchronised.filter(|_| !own.clock_synchronised);
        let mut json = serde_json::to_string(&stamp)?;
        let fields = body.strip_prefix('{').unwrap_or("}");
        json.pop();
        if fields != "}" {
            json.push(',');
        }
        json.push_str(fields);
        Ok(json)
    }
}

/// True for whatever stands there, `null` too.
fn present<'de, D: serde::Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(value).map(|_| true)
}

/// A stamped payload as it is sent at `now`.
pub fn sent(payload: &[u8], now: jiff::Timestamp) -> Vec<u8> {
    let Some(fields) = payload.strip_prefix(b"{") else { return payload.to_vec() };
    let mut sent = format!("{{\"sent_at\":\"{now}\"").into_bytes();
    sent.reserve(payload.len());
    if fields.first() != Some(&b'}') {
        sent.push(b',');
    }
    sent.extend_from_slice(fields);
    sent
}

/// Gives messages their ids and numbers.
#[derive(Debug)]
pub struct Stamper {
    device: DeviceId,
    boot_id: String,
    run_id: uuid::Uuid,
    seq: AtomicU64,
}

impl Stamper {
    /// For one start of an agent.
    pub fn new(device: DeviceId, boot_id: String) -> Self {
        Self { device, boot_id, run_id: uuid::Uuid::now_v7(), seq: AtomicU64::new(0) }
    }

    /// The next message's stamp.
    pub fn stamp(&self) -> Stamp {
        Stamp {
            schema: SCHEMA,
            message_id: uuid::Uuid::now_v7(),
            message_seq: self.seq.fetch_add(1, Ordering::Relaxed) + 1,
            run_id: Some(self.run_id),
            device: Some(self.device.clone()),
            boot_id: Some(self.boot_id.clone()),
            made_at: Some(jiff::Timestamp::now()),
            clock_synchronised: clock_synchronised(Path::new("/")),
            sent_at: None,
        }
    }

    /// Stamps a body and writes it as JSON; [`sent`] adds when it is sent.
    ///
    /// # Errors
    /// Serialisation's, which none of our types has.
    pub fn json<T: Serialize>(&self, body: T) -> Result<String, serde_json::Error> {
        Stamped { stamp: self.stamp(), body }.json()
    }
}

/// The payload of `dropped`: messages that had to arrive and never will, told once that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedReport {
    /// How many since the last such message, by class.
    pub dropped: Dropped,
    /// How many since the agent started.
    pub since_start: Dropped,
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

    fn stamper() -> Stamper {
        Stamper::new("pi".parse().unwrap(), "boot".into())
    }

    fn reply(n: u32, status: ReplyStatus) -> CommandReply {
        let device = "pi".parse().unwrap();
        CommandReply { device, command: "status".into(), id: n.to_string().parse().unwrap(), status }
    }

    #[test]
    fn every_message_has_its_own_id_and_the_next_number() {
        let stamper = stamper();
        let made = |n| stamper.json(reply(n, ReplyStatus::Init)).unwrap();
        let read = |json: &str| Stamped::<CommandReply>::read(json.as_bytes()).unwrap();
        let (a, b) = (read(&made(1)), read(&made(2)));
        assert_eq!((a.stamp.schema, a.stamp.message_seq, b.stamp.message_seq), (SCHEMA, 1, 2));
        assert!(a.stamp.message_id < b.stamp.message_id, "version 7 ids sort by time");
        assert_eq!(a.stamp.run_id, b.stamp.run_id);
        assert_eq!(a.body, reply(1, ReplyStatus::Init));
        let other = Stamper::new("pi".parse().unwrap(), "boot".into());
        assert_ne!(Some(other.run_id), a.stamp.run_id, "each start counts anew");
    }

    #[test]
    fn a_reply_is_one_flat_object() {
        let reason = Reason::new(ReasonCode::Busy, "wait");
        let json = stamper().json(reply(7, Progress::Failed { reason }.into())).unwrap();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["status"], "failed");
        assert_eq!(value["reason"]["code"], "busy");
        assert_eq!(value["id"], "7");
        assert_eq!(value["schema"], 1);
    }

    #[test]
    fn nothing_is_said_twice_and_every_message_names_its_device_and_boot() {
        #[derive(Serialize)]
        struct Nothing {}
        #[derive(Serialize)]
        struct Clock {
            clock_synchronised: Option<bool>,
        }
        let stamper = stamper();
        for json in [
            stamper.json(reply(1, ReplyStatus::Init)).unwrap(),
            stamper.json(Nothing {}).unwrap(),
            stamper.json(Clock { clock_synchronised: None }).unwrap(),
        ] {
            let at = "2026-01-02T03:04:05.678901234Z".parse().unwrap();
            let sent = String::from_utf8(sent(json.as_bytes(), at)).unwrap();
            assert!(sent.len() <= json.len() + SENT_SIZE, "{sent}");
            for key in ["device", "boot_id", "run_id", "message_id", "made_at", "sent_at"] {
                assert_eq!(sent.matches(&format!("\"{key}\":")).count(), 1, "{key} in {sent}");
            }
            assert!(sent.matches("\"clock_synchronised\":").count() <= 1, "{sent}");
            let stamp: Stamp = serde_json::from_str(&sent).unwrap();
            assert_eq!(stamp.sent_at, Some(at));
            assert_eq!(stamp.boot_id.as_deref(), Some("boot"));
        }
        assert_eq!(sent(b"online", jiff::Timestamp::UNIX_EPOCH), b"online", "what is no object stays");
    }

    #[test]
    fn messages_of_agents_before_a_field_was_added_are_read() {
        let old = br#"{"schema":1,"message_id":"01a1f9be-17d4-755d-a06e-9506ff777d5f","message_seq":1,
            "sent_at":"2026-11-20T16:15:47Z","device":"pi","command":"status","id":"1","status":"init"}"#;
        let read = Stamped::<CommandReply>::read(old).unwrap();
        assert_eq!((read.stamp.run_id, read.body), (None, reply(1, ReplyStatus::Init)));
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
        let back = Stamped::<FrameResult>::read(stamper().json(&result).unwrap().as_bytes()).unwrap();
        assert_eq!((back.stamp.message_seq, back.body), (1, result));
    }
}
