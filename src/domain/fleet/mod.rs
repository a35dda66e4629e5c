//! What somebody who runs many devices knows of them, from their messages alone: folded message by message,
//! summed up in rows, and the answers to a command counted.
//!
//! Every byte comes from a device, and so from somebody who may have taken one over. Who speaks is told by the
//! topic, which the broker guards, and never by the payload. What cannot be read is left out and said so; what is
//! read is bounded in number and length, and holds nothing that a terminal would obey ([`text`]). Words that a
//! newer agent may have are kept as words.

pub mod answers;
mod read;
pub mod row;
#[cfg(test)]
mod tests;
pub mod text;

use super::id::{DeviceId, SlotName};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Most slots, pipelines, problems and groups of a device that are kept.
pub const MOST: usize = 32;
/// Longest payload that is looked at, bytes; our devices say less than 128 KiB.
pub const LONGEST: usize = 128 << 10;

/// What a message is about, by its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// `online` or `offline`.
    Availability,
    /// What the device is.
    Birth,
    /// How it is.
    Health,
    /// What a slot runs.
    Slot(SlotName),
}

/// One message.
#[derive(Debug, Clone, Copy)]
pub struct Heard<'a> {
    /// Who, by the topic.
    pub device: &'a DeviceId,
    /// What about, by the topic.
    pub kind: &'a Kind,
    /// As it came; empty where a retained message was taken away.
    pub payload: &'a [u8],
    /// True when the broker had kept it.
    pub retained: bool,
    /// When it came, by our clock, milliseconds since 1970.
    pub now_ms: i64,
}

/// What a device is: its newest birth.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Birth {
    /// The groups whose commands it obeys.
    pub groups: Vec<String>,
    /// Version of the agent.
    pub agent_version: Option<String>,
    /// Operating system.
    pub os: Option<String>,
    /// Kernel.
    pub kernel: Option<String>,
    /// Architecture.
    pub arch: Option<String>,
    /// The board.
    pub board: Option<String>,
    /// The commands that it takes.
    pub commands: Vec<String>,
    /// Whether commands need no signature.
    pub commands_unsigned: Option<bool>,
    /// Whether its connection is encrypted.
    pub tls: Option<bool>,
}

/// Something that wants attention.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// For machines.
    pub code: String,
    /// For people.
    pub detail: String,
}

/// How a pipeline is.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Pipeline {
    /// Its name.
    pub name: String,
    /// Its slot.
    pub slot: Option<String>,
    /// Its state, such as `running`.
    pub state: Option<String>,
    /// The release that runs.
    pub release: Option<String>,
    /// The provider that runs it.
    pub provider: Option<String>,
    /// Answered frames per second.
    pub fps: Option<f64>,
    /// The newest error, while it holds.
    pub last_error: Option<Problem>,
}

/// How a device is: its newest health report.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Health {
    /// The judgement in one word: `ok`, `degraded`, `failed`.
    pub state: Option<String>,
    /// The worst first.
    pub problems: Vec<Problem>,
    /// The pipelines.
    pub pipelines: Vec<Pipeline>,
    /// Seconds since the agent started.
    pub uptime_s: Option<u64>,
    /// Whether a time server has set the clock.
    pub clock_synchronised: Option<bool>,
    /// The hottest part of the board, degrees Celsius.
    pub temperature: Option<f64>,
    /// Bytes of memory that are left.
    pub memory_available: Option<u64>,
    /// Bytes of disk that are left.
    pub disk_free: Option<u64>,
    /// The broker and the repository as the device sees them: target, and whether it is reached.
    pub links: Vec<(&'static str, String, bool)>,
}

/// Where a deployment stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Deployment {
    /// What was asked for.
    pub release: Option<String>,
    /// The stage, such as `fetching`.
    pub stage: Option<String>,
    /// 0 to 1 within the stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<f64>,
    /// Why it was refused or rolled back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Problem>,
}

impl Deployment {
    /// True while it goes on: a stage that is not known is taken to do so.
    pub fn goes_on(&self) -> bool {
        !matches!(self.stage.as_deref(), Some("committed" | "rolled_back" | "refused") | None)
    }

    /// True when it ended badly.
    pub fn failed(&self) -> bool {
        matches!(self.stage.as_deref(), Some("rolled_back" | "refused"))
    }
}

/// What a slot runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Slot {
    /// The release that serves.
    pub current: Option<String>,
    /// The one that a rollback would bring.
    pub previous: Option<String>,
    /// The newest deployment.
    pub deployment: Option<Deployment>,
    /// Why the current one does not serve.
    pub safe_mode: Option<Problem>,
}

/// Whether a device is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// It said goodbye, or the broker lost it.
    Offline,
    /// The broker has never told that it left, but nothing was heard of it for too long: a broker that was
    /// killed publishes no last will.
    Stale,
    /// It has not said whether it is there.
    Unknown,
    /// Connected.
    Online,
}

impl Presence {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Presence::Offline => "offline",
            Presence::Stale => "stale",
            Presence::Unknown => "unknown",
            Presence::Online => "online",
        }
    }
}

/// All that is known of one device.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeviceView {
    /// What `availability` says.
    pub connected: Option<bool>,
    /// What it is.
    pub birth: Option<Birth>,
    /// How it is.
    pub health: Option<Health>,
    /// What its slots run.
    pub slots: BTreeMap<SlotName, Slot>,
    /// Another id that its payloads give; the topic's counts.
    pub claims: Option<String>,
    /// The kinds of message of which the newest makes no sense.
    pub unreadable: BTreeSet<&'static str>,
    /// When it sent its newest message, by its clock.
    pub said_ms: Option<i64>,
    /// When a message came from it that was not kept by the broker, by our clock.
    pub heard_ms: Option<i64>,
}

impl DeviceView {
    /// Takes a message in.
    pub fn take(&mut self, heard: Heard<'_>) {
        if !heard.retained && !heard.payload.is_empty() {
            self.heard_ms = Some(heard.now_ms);
        }
        let what = match heard.kind {
            Kind::Availability => "availability",
            Kind::Birth => "birth",
            Kind::Health => "health",
            Kind::Slot(_) => "model",
        };
        let readable = match heard.kind {
            Kind::Availability => {
                self.connected = match heard.payload {
                    b"online" => Some(true),
                    b"offline" => Some(false),
                    _ => None,
                };
                heard.payload.is_empty() || self.connected.is_some()
            }
            Kind::Birth => self.read(heard, |view, read| view.birth = read, read::birth),
            Kind::Health => self.read(heard, |view, read| view.health = read, read::health),
            Kind::Slot(slot) => {
                let room = self.slots.len() < MOST || self.slots.contains_key(slot);
                let put = |view: &mut Self, read: Option<Slot>| match read {
                    Some(read) if room => drop(view.slots.insert(slot.clone(), read)),
                    Some(_) => {}
                    None => drop(view.slots.remove(slot)),
                };
                self.read(heard, put, read::slot)
            }
        };
        if readable {
            self.unreadable.remove(what);
        } else {
            self.unreadable.insert(what);
        }
    }

    /// Reads a document and puts it in; an empty payload takes away what is there. False when it makes no sense.
    fn read<T>(
        &mut self,
        heard: Heard<'_>,
        put: impl FnOnce(&mut Self, Option<T>),
        read: impl FnOnce(&serde_json::Value) -> T,
    ) -> bool {
        let document = read::document(heard.payload);
        put(self, document.as_ref().map(read));
        let Some(document) = document else { return heard.payload.is_empty() };
        let stamp = read::stamp(&document);
        self.said_ms = self.said_ms.max(stamp.sent_ms);
        if let Some(device) = stamp.device {
            self.claims = (device != heard.device.as_str()).then_some(device);
        }
        true
    }

    /// Whether anything is known at all.
    pub fn is_empty(&self) -> bool {
        self.connected.is_none()
            && self.birth.is_none()
            && self.health.is_none()
            && self.slots.is_empty()
            && self.unreadable.is_empty()
    }

    /// Milliseconds since its newest sign of life; `None` where it has given none that can be believed: a
    /// device whose clock nobody sets does not tell when it spoke.
    pub fn age_ms(&self, now_ms: i64) -> Option<i64> {
        let told = self.said_ms.filter(|_| self.clock() != Some(false)).map(|said| said.min(now_ms));
        self.heard_ms.max(told).map(|last| now_ms.saturating_sub(last).max(0))
    }

    fn clock(&self) -> Option<bool> {
        self.health.as_ref()?.clock_synchronised
    }

    /// Whether it is there. `stale_ms`: after so long without a sign of life it is taken to be gone; health
    /// is told every 30 s unless configured otherwise.
    pub fn presence(&self, now_ms: i64, stale_ms: i64) -> Presence {
        match self.connected {
            Some(false) => Presence::Offline,
            None => Presence::Unknown,
            // Without a health report nothing is due.
            Some(true) if self.health.is_some() && self.age_ms(now_ms).is_some_and(|age| age > stale_ms) => {
                Presence::Stale
            }
            Some(true) => Presence::Online,
        }
    }

    /// Whether it obeys this group's commands.
    pub fn is_in(&self, group: &str) -> bool {
        self.birth.as_ref().is_some_and(|birth| birth.groups.iter().any(|one| one == group))
    }
}

/// The devices of a fleet.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    devices: BTreeMap<DeviceId, DeviceView>,
    most: usize,
    beyond: u64,
}

impl Fleet {
    /// None yet; at most so many.
    pub fn new(most: usize) -> Self {
        Self { devices: BTreeMap::new(), most, beyond: 0 }
    }

    /// Takes a message in.
    pub fn take(&mut self, heard: Heard<'_>) {
        if !self.devices.contains_key(heard.device) && self.devices.len() >= self.most {
            self.beyond += 1;
            return;
        }
        let view = self.devices.entry(heard.device.clone()).or_default();
        view.take(heard);
        if view.is_empty() {
            self.devices.remove(heard.device);
        }
    }

    /// The devices by name.
    pub fn devices(&self) -> &BTreeMap<DeviceId, DeviceView> {
        &self.devices
    }

    /// Messages of devices that were too many to be kept.
    pub fn beyond(&self) -> u64 {
        self.beyond
    }
}
