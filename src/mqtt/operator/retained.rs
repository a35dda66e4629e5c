//! Reads what the broker has kept, and knows when that was all of it.
//!
//! No message says "that was the last". So a mark is sent to our own topic of replies, and comes back: a broker
//! that delivers kept messages in the order of what was asked (mosquitto does) has given all of them by then, on
//! however slow a network. The standard promises that order within one topic alone, and other brokers give what
//! they keep in the background (EMQX does). So after the mark there must also be a short time without a kept
//! message. Filters are asked for one after the other, each with a mark of its own: a broker holds only so many
//! messages for a client that reads slowly (mosquitto: `max_queued_messages`, 1000 unless set) and drops the rest.

use super::Operator;
use crate::domain::{Reason, ReasonCode};
use crate::mqtt::message::{Message, Received};
use bytes::Bytes;
use std::time::Duration;
use tokio::time::Instant;

/// What a mark begins with, in its correlation data.
const MARK: &[u8] = b"mark ";

/// How long to wait for what was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// After the mark, without a kept message.
    pub quiet: Duration,
    /// The same where the broker lets us send no mark.
    pub unmarked: Duration,
    /// In all.
    pub most: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self { quiet: ms(250), unmarked: ms(1500), most: ms(30_000) }
    }
}

/// Whether all was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whole {
    /// As far as can be told.
    Yes,
    /// Kept messages still came when the time was over.
    No,
}

impl Operator {
    /// Hears what is published at these filters, and hands all that comes to `take` until what the broker had
    /// kept there has come. Later messages are for [`Operator::next`].
    ///
    /// # Errors
    /// Those of [`Operator::hear`].
    pub async fn read_retained(
        &self,
        filters: Vec<String>,
        patience: Patience,
        take: &mut (dyn FnMut(Received) + Send),
    ) -> Result<Whole, Reason> {
        let end = Instant::now() + patience.most;
        let mut quiet = patience.quiet;
        for filter in filters {
            self.hear(vec![filter]).await?;
            if quiet == patience.unmarked {
                continue;
            }
            let Some(mark) = self.mark(end).await? else {
                quiet = patience.unmarked;
                continue;
            };
            loop {
                match self.next(end.saturating_duration_since(Instant::now())).await {
                    Some(message) if is_mark(&message) => {
                        // One of an earlier reading may come late.
                        if message.correlation.as_ref() == Some(&mark) {
                            break;
                        }
                    }
                    Some(message) => take(message),
                    None => return Ok(Whole::No),
                }
            }
        }
        let mut until = Instant::now() + quiet;
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(Whole::No);
            }
            match self.next(until.min(end).saturating_duration_since(now)).await {
                Some(message) if is_mark(&message) => {}
                Some(message) => {
                    // What is new may come for ever.
                    if message.retained {
                        until = Instant::now() + quiet;
                    }
                    take(message);
                }
                None if until <= end => return Ok(Whole::Yes),
                None => return Ok(Whole::No),
            }
        }
    }

    /// Sends a mark; `None` where the broker does not allow it.
    async fn mark(&self, end: Instant) -> Result<Option<Bytes>, Reason> {
        let mark = Bytes::from([MARK, uuid::Uuid::new_v4().as_bytes()].concat());
        let message =
            Message { topic: self.replies_to.clone(), correlation: Some(mark.clone()), ..Message::default() };
        match self.publish(message, end.saturating_duration_since(Instant::now())).await {
            Ok(()) => Ok(Some(mark)),
            Err(reason) if reason.code == ReasonCode::BrokerRefused => {
                tracing::debug!("mqtt: {reason}");
                Ok(None)
            }
            Err(reason) => Err(reason),
        }
    }
}

/// Whether this is a mark, ours or a late one.
pub(super) fn is_mark(message: &Received) -> bool {
    message.payload.is_empty()
        && message.correlation.as_ref().is_some_and(|correlation| correlation.starts_with(MARK))
}
