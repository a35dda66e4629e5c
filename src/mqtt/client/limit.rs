//! How large a packet may be: what the broker says at the start of a connection, and what it has shown since.
//!
//! A broker may have a limit that it does not say (mosquitto's `message_size_limit`), or lower it while a connection
//! lasts. It ends the connection over a packet that is too large, or answers it with a code that no acknowledgement
//! has, over which the client does. The same packet would end the next connection too, and so on for ever. Of all
//! that was sent on a connection that ended so, the largest was too large: nothing as large is sent any more for some
//! time, and what waits behind it goes on.

use super::super::message::Message;
use crate::domain::{Reason, ReasonCode};
use bytes::Bytes;
use rumqttc::{ConnectionError, DisconnectReasonCode, StateError};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// After so long a limit that was shown is forgotten: the broker may have been set up anew meanwhile.
const SHOWN: Duration = Duration::from_secs(3600);
/// No broker's limit is below this, bytes: where smaller ones end a connection it is over something else.
const FLOOR: u32 = 1024;
/// Fixed header, lengths and property ids of a packet take less than so many bytes.
const HEADERS: usize = 48;

/// The limit.
#[derive(Debug)]
pub(super) struct Limit {
    told: AtomicU32,
    shown: Mutex<Option<(u32, Instant)>>,
    /// The largest packet that was queued since a connection last ended over one. What is queued may go out on a
    /// later connection.
    largest: AtomicU32,
}

impl Limit {
    /// None is known.
    pub(super) fn none() -> Self {
        Self { told: AtomicU32::new(u32::MAX), shown: Mutex::default(), largest: AtomicU32::new(0) }
    }

    /// Whether a packet of so many bytes may be sent.
    ///
    /// # Errors
    /// [`ReasonCode::BrokerRefused`].
    pub(super) fn allows(&self, topic: &str, bytes: usize) -> Result<(), Reason> {
        let most = self.bytes();
        if bytes <= most {
            return Ok(());
        }
        let detail = format!(
            "message to {topic} has {bytes} bytes, the broker takes {most}; raise its packet size limit"
        );
        Err(Reason::new(ReasonCode::BrokerRefused, detail))
    }

    /// Bytes of a whole packet.
    fn bytes(&self) -> usize {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = shown.filter(|(_, at)| at.elapsed() < SHOWN).map_or(u32::MAX, |(bytes, _)| bytes);
        self.told.load(Ordering::Relaxed).min(shown) as usize
    }

    /// A connection begins; the broker says this.
    pub(super) fn begins(&self, told: Option<u32>) {
        self.told.store(told.unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// A packet of so many bytes is queued.
    pub(super) fn sends(&self, bytes: usize) {
        self.largest.fetch_max(u32::try_from(bytes).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// A connection ended over a packet that was too large: so many bytes at least are too many. None where what
    /// was sent had been queued before the last such end; once it is queued anew, it is known.
    pub(super) fn learns(&self) -> Option<u32> {
        let largest = self.largest.swap(0, Ordering::Relaxed);
        if largest <= FLOOR {
            return None;
        }
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some((largest - 1, Instant::now()));
        Some(largest)
    }
}

/// Whether a connection ended over a packet that was too large.
pub(super) fn is_too_large(error: &ConnectionError) -> bool {
    let ConnectionError::MqttState(error) = error else { return false };
    match error {
        StateError::ServerDisconnect { reason_code, .. } => {
            *reason_code == DisconnectReasonCode::PacketTooLarge
        }
        // An acknowledgement with the code that is for a DISCONNECT alone cannot be read.
        StateError::Deserialization(rumqttc::Error::InvalidConnectReturnCode(code)) => {
            *code == DisconnectReasonCode::PacketTooLarge as u8
        }
        _ => false,
    }
}

/// At most so many bytes has the packet of a message of JSON with a payload of so many.
pub(super) fn size_of_json(topic: &str, bytes: usize, correlation: Option<&[u8]>) -> usize {
    HEADERS + topic.len() + bytes + "application/json".len() + correlation.map_or(0, <[u8]>::len)
}

/// At most so many bytes has the packet of a message.
pub(super) fn size(message: &Message) -> usize {
    let long = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    message.topic.len()
        + message.payload.len()
        + long(&message.content_type)
        + long(&message.response_topic)
        + message.correlation.as_ref().map_or(0, Bytes::len)
        + message.properties.iter().map(|(name, value)| name.len() + value.len() + 5).sum::<usize>()
        + HEADERS
}
