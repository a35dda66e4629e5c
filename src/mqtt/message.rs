//! What goes over a connection, and how the connection is; no vendor's types.

use crate::domain::Reason;
use bytes::Bytes;

/// A message of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Topic.
    pub topic: String,
    /// Payload.
    pub payload: Bytes,
    /// Whether the broker keeps it for later subscribers.
    pub retain: bool,
    /// MIME type of the payload.
    pub content_type: Option<String>,
    /// Where an answer is wanted.
    pub response_topic: Option<String>,
    /// What the answer must carry.
    pub correlation: Option<Bytes>,
    /// User properties of MQTT 5.
    pub properties: Vec<(String, String)>,
}

/// A message from the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Topic.
    pub topic: String,
    /// Payload.
    pub payload: Bytes,
    /// True when the broker had kept it from before our subscription.
    pub retained: bool,
    /// Where the sender wants an answer.
    pub response_topic: Option<String>,
    /// What the answer must carry.
    pub correlation: Option<Bytes>,
}

/// How the connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Not connected yet, and no try has failed yet.
    Connecting,
    /// Connected and subscribed.
    Up {
        /// Counts the connections from 1; a new number means that the broker may have forgotten
        /// what it was told.
        generation: u64,
    },
    /// Not connected; another try follows.
    Down {
        /// Why, with the remedy.
        reason: Reason,
    },
}

impl State {
    /// The connection's number while there is one.
    pub fn generation(&self) -> Option<u64> {
        match self {
            State::Up { generation } => Some(*generation),
            State::Connecting | State::Down { .. } => None,
        }
    }
}

/// Why a tracked message has not arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishError {
    /// It never will: too large, a bad topic, or forbidden by the broker.
    Refused(Reason),
    /// The broker cannot take it now (its quota is used up).
    Later(Reason),
    /// The session ended before the broker acknowledged it; send it again.
    Lost,
    /// Not queued: not connected, or too much is queued already.
    NotNow,
}
