//! The way back to whoever sent a command, and the memory that keeps a double from running twice.

use super::Link;
use super::message::{Message, Received};
use super::payloads::{self, CommandReply, ReplyStatus};
use super::pump::Order;
use super::spool::Spooled;
use super::topics::Said;
use crate::domain::command::Progress;
use crate::domain::importance::Importance;
use crate::domain::{CommandId, Reason, ReasonCode};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Commands whose last reply is remembered.
const REMEMBERED: usize = 128;
/// A larger result is not remembered: the double is told only that it was done.
const MAX_REMEMBERED: usize = 16 << 10;
/// Between two `executing` replies that differ in their fraction only.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// Where an answer goes. That of a command whose end outlives its agent is kept on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyAddress {
    /// The command's name as its sender wrote it.
    command: String,
    id: CommandId,
    topic: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    correlation: Option<Vec<u8>>,
}

impl ReplyAddress {
    /// The sender's response topic with its correlation data, else `ack/<command>/<id>`.
    pub(super) fn new(link: &Link, command: &str, id: &CommandId, received: &Received) -> Self {
        let asked = received.response_topic.as_ref().filter(|topic| link.topics.may_answer_to(topic));
        let ack = || {
            let said = Said::Ack { command: command.to_owned(), id: id.clone() };
            link.topics.said(&link.device, &said)
        };
        Self {
            command: command.to_owned(),
            id: id.clone(),
            topic: asked.cloned().unwrap_or_else(ack),
            correlation: received.correlation.as_ref().map(|bytes| bytes.to_vec()),
        }
    }

    /// A reply that may be missed: the sender will ask again. What anybody may cause without limit
    /// (refusals, doubles) must not push what matters out of the spool.
    pub(super) fn answer_live(&self, link: &Link, status: ReplyStatus) {
        if let Some(payload) = self.payload(link, status) {
            link.live(Message {
                topic: self.topic.clone(),
                payload: payloads::sent(payload.as_bytes(), jiff::Timestamp::now()).into(),
                content_type: Some("application/json".to_owned()),
                correlation: self.correlation.clone().map(Bytes::from),
                ..Message::default()
            });
        }
    }

    fn answer(&self, link: &Link, status: ReplyStatus, replaces: Option<String>) {
        if let Some(payload) = self.payload(link, status) {
            link.order(Order::Spool(Spooled {
                topic: self.topic.clone(),
                retain: false,
                payload,
                correlation: self.correlation.clone(),
                replaces,
                class: Importance::Reply,
                timed: true,
            }));
        }
    }

    /// The end of a command that an earlier run of the agent let in.
    pub(super) fn answer_end(&self, link: &Link, end: Progress) {
        let status = ReplyStatus::from(end);
        let mut window = link.window();
        window.admit(&self.command, &self.id);
        window.note(&self.command, &self.id, &status);
        drop(window);
        self.answer(link, status, None);
    }

    fn payload(&self, link: &Link, status: ReplyStatus) -> Option<String> {
        let json = |status| {
            link.json(CommandReply {
                device: link.device.clone(),
                command: self.command.clone(),
                id: self.id.clone(),
                status,
            })
        };
        let payload = json(status)?;
        let Err(Reason { detail, .. }) = link.fits(&self.topic, payload.len(), self.correlation.as_deref())
        else {
            return Some(payload);
        };
        let detail =
            format!("the answer to {} {} is too long, ask for less: {detail}", self.command, self.id);
        json(ReplyStatus::Failed { reason: Reason::new(ReasonCode::BadRequest, detail) })
    }
}

/// Answers one command: any number of `executing`, then one of the others. Dropped before that, it
/// answers `failed`.
#[derive(Debug)]
pub struct Replies {
    link: Arc<Link>,
    to: ReplyAddress,
    state: Mutex<Sent>,
}

#[derive(Debug, Default)]
struct Sent {
    /// Detail and time of the last `executing`.
    executing: Option<(String, Instant)>,
    ended: bool,
}

impl Replies {
    /// Answers `init`.
    pub(super) fn begin(link: Arc<Link>, to: ReplyAddress) -> Self {
        to.answer(&link, ReplyStatus::Init, None);
        Self { link, to, state: Mutex::default() }
    }

    /// Nothing more is answered here: somebody else has the address.
    pub fn hand_over(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
    }

    /// Where the answers go.
    pub fn address(&self) -> ReplyAddress {
        self.to.clone()
    }

    /// Answers. An `executing` that only differs in its fraction from one a moment ago is left out;
    /// everything after the end is.
    pub fn send(&self, progress: Progress) {
        let mut sent = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if sent.ended {
            return;
        }
        let replaces = match &progress {
            Progress::Executing { detail, .. } => {
                let same = |(last, at): &(String, Instant)| last == detail && at.elapsed() < PROGRESS_EVERY;
                if sent.executing.as_ref().is_some_and(same) {
                    return;
                }
                sent.executing = Some((detail.clone(), Instant::now()));
                Some(format!("{} {} {} {detail}", self.to.topic, self.to.command, self.to.id))
            }
            Progress::Successful { .. } | Progress::Failed { .. } => {
                sent.ended = true;
                None
            }
        };
        let status = ReplyStatus::from(progress);
        self.link.window().note(&self.to.command, &self.to.id, &status);
        self.to.answer(&self.link, status, replaces);
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        let detail = "the agent ended before the command did; ask for its state";
        self.send(Progress::Failed { reason: Reason::new(ReasonCode::Internal, detail) });
    }
}

/// The last replies to the last commands.
#[derive(Debug, Default)]
pub(super) struct Window(VecDeque<(String, CommandId, ReplyStatus)>);

impl Window {
    /// The last reply to a command that was let in before.
    pub(super) fn known(&self, command: &str, id: &CommandId) -> Option<ReplyStatus> {
        self.0.iter().find(|(c, i, _)| c == command && i == id).map(|(_, _, status)| status.clone())
    }

    /// The last reply to a command that was seen before; else remembers that it was seen now.
    pub(super) fn admit(&mut self, command: &str, id: &CommandId) -> Option<ReplyStatus> {
        if let Some(status) = self.known(command, id) {
            return Some(status);
        }
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back((command.to_owned(), id.clone(), ReplyStatus::Init));
        None
    }

    fn note(&mut self, command: &str, id: &CommandId, status: &ReplyStatus) {
        let Some(entry) = self.0.iter_mut().find(|(c, i, _)| c == command && i == id) else { return };
        entry.2 = match status {
            ReplyStatus::Successful { result } if result.to_string().len() > MAX_REMEMBERED => {
                ReplyStatus::Successful { result: serde_json::json!({ "repeated": true }) }
            }
            other => other.clone(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> CommandId {
        n.to_string().parse().unwrap()
    }

    #[test]
    fn a_double_gets_the_last_reply_and_the_window_is_bounded() {
        let mut window = Window::default();
        assert_eq!(window.admit("update", &id(1)), None);
        assert_eq!(window.admit("update", &id(1)), Some(ReplyStatus::Init));
        let done = ReplyStatus::Successful { result: serde_json::json!({}) };
        window.note("update", &id(1), &done);
        assert_eq!(window.admit("update", &id(1)), Some(done));
        assert_eq!(window.admit("rollback", &id(1)), None, "another command is not a double");
        for n in 2..REMEMBERED + 2 {
            assert_eq!(window.admit("update", &id(n)), None);
        }
        assert_eq!(window.0.len(), REMEMBERED);
        assert_eq!(window.admit("update", &id(1)), None, "the oldest was forgotten");
    }

    #[test]
    fn to_ask_for_a_command_remembers_nothing_and_large_results_are_not_kept() {
        let mut window = Window::default();
        assert_eq!(window.known("status", &id(1)), None);
        assert_eq!(window.admit("status", &id(1)), None);
        let large = serde_json::json!({ "jpeg": "x".repeat(MAX_REMEMBERED) });
        window.note("status", &id(1), &ReplyStatus::Successful { result: large });
        let again = window.admit("status", &id(1)).unwrap();
        assert_eq!(again, ReplyStatus::Successful { result: serde_json::json!({ "repeated": true }) });
    }
}
