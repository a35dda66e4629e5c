//! The answers to a command that was sent to one device or to many: who is expected, who has answered how, and
//! when there is nothing left to wait for.

use super::Problem;
use super::read::{document, finite, name, problem, sentence};
use crate::domain::id::DeviceId;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// One reply, as it is read.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Reply {
    /// Received.
    Init,
    /// Under way.
    Executing {
        /// What is being done.
        detail: String,
        /// 0 to 1, where it can be told.
        #[serde(skip_serializing_if = "Option::is_none")]
        fraction: Option<f64>,
    },
    /// Done.
    Successful {
        /// What was asked for; not made safe to be shown.
        result: Value,
    },
    /// Not done.
    Failed {
        /// Why.
        reason: Problem,
    },
}

/// Where a device stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Expected to answer, and has not, or not with the end.
    Open,
    /// Has done it.
    Done,
    /// Has not.
    Failed,
}

/// The answers to one command.
#[derive(Debug, Clone)]
pub struct Answers {
    standing: BTreeMap<DeviceId, Standing>,
    most: usize,
    beyond: bool,
}

impl Answers {
    /// Waits for these; a device that is not among them may answer as well, up to `most` in all.
    pub fn new(expected: impl IntoIterator<Item = DeviceId>, most: usize) -> Self {
        let standing = expected.into_iter().take(most).map(|device| (device, Standing::Open)).collect();
        Self { standing, most, beyond: false }
    }

    /// Takes a message at a device's topic of replies; gives what is new to tell. What makes no sense, what
    /// follows the end, and devices beyond the most are passed over.
    pub fn take(&mut self, device: &DeviceId, payload: &[u8]) -> Option<Reply> {
        let reply = read(payload)?;
        if !self.standing.contains_key(device) && self.standing.len() >= self.most {
            self.beyond = true;
            return None;
        }
        let standing = self.standing.entry(device.clone()).or_insert(Standing::Open);
        match standing {
            Standing::Done | Standing::Failed => return None,
            Standing::Open => {}
        }
        match reply {
            Reply::Init | Reply::Executing { .. } => {}
            Reply::Successful { .. } => *standing = Standing::Done,
            Reply::Failed { .. } => *standing = Standing::Failed,
        }
        Some(reply)
    }

    /// True when every device has come to its end.
    pub fn are_complete(&self) -> bool {
        self.standing.values().all(|standing| *standing != Standing::Open)
    }

    /// The devices that stand so.
    pub fn of(&self, wanted: Standing) -> impl Iterator<Item = &DeviceId> {
        self.standing.iter().filter(move |(_, standing)| **standing == wanted).map(|(device, _)| device)
    }

    /// How many there are in all.
    pub fn len(&self) -> usize {
        self.standing.len()
    }

    /// Whether nobody is expected and nobody has answered.
    pub fn is_empty(&self) -> bool {
        self.standing.is_empty()
    }

    /// Whether answers came from more devices than are kept.
    pub fn has_beyond(&self) -> bool {
        self.beyond
    }
}

/// A reply; `None` for what is none.
fn read(payload: &[u8]) -> Option<Reply> {
    let mut value = document(payload)?;
    match value.get("status")?.as_str()? {
        "init" => Some(Reply::Init),
        "executing" => Some(Reply::Executing {
            detail: sentence(&value, "detail").unwrap_or_default(),
            fraction: value.get("fraction").and_then(finite).map(|part| part.clamp(0.0, 1.0)),
        }),
        "successful" => {
            Some(Reply::Successful { result: value.get_mut("result").map(Value::take).unwrap_or_default() })
        }
        "failed" => {
            let reason = value.get("reason").and_then(problem);
            let unsaid = || Problem {
                code: name(&value, "code").unwrap_or_else(|| "other".to_owned()),
                detail: "it gave no reason".to_owned(),
            };
            Some(Reply::Failed { reason: reason.unwrap_or_else(unsaid) })
        }
        _ => None,
    }
}
