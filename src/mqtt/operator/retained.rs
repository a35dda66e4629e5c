//! Reads what the broker has kept, and knows when that was all of it.
//!
//! No message says "that was the last". So a mark is sent to our own topic of replies, and comes back: a broker
//! that delivers kept messages in the order of what was asked (mosquitto does) has given all of them by then, on
//! however slow a network. The standard promises that order within one topic alone, and other brokers give what
//! they keep in the background (EMQX does). So after the mark there must also be a short time without a kept
//! message. Filters are asked for one after the other, each with a mark of its own: a broker holds only so many
//! messages for a client that reads slowly (mosquitto: `max_queued_messages`, 1000 unless set) and drops the rest.
//! It may drop the mark with them, though that was acknowledged: so one that does not come is sent again, and
//! where the second comes without the first, something was dropped for certain.

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
    /// The broker had no room for all that it had to send, and dropped some.
    Dropped,
    /// Kept messages still came when the time was over.
    No,
}

/// What became of a mark.
enum Marked {
    Came,
    /// Only another one after it came.
    Dropped,
    /// The broker lets us send none.
    NotAllowed,
    /// The time is over.
    Late,
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
        let mut whole = Whole::Yes;
        for filter in filters {
            self.hear(vec![filter]).await?;
            if quiet == patience.unmarked {
                continue;
            }
            match self.read_to_mark(patience, end, take).await? {
                Marked::Came => {}
                Marked::Dropped => whole = Whole::Dropped,
                Marked::NotAllowed => quiet = patience.unmarked,
                Marked::Late => return Ok(Whole::No),
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
                None if until <= end => return Ok(whole),
                None => return Ok(Whole::No),
            }
        }
    }

    /// Hands on what comes until a mark that is sent now comes back.
    async fn read_to_mark(
        &self,
        patience: Patience,
        end: Instant,
        take: &mut (dyn FnMut(Received) + Send),
    ) -> Result<Marked, Reason> {
        let mut marks = Vec::new();
        loop {
            let Some(mark) = self.mark(end).await? else { return Ok(Marked::NotAllowed) };
            marks.push(mark);
            let mut silent = Instant::now() + patience.unmarked;
            while let Some(message) =
                self.next(silent.min(end).saturating_duration_since(Instant::now())).await
            {
                // What is new may come for ever.
                if message.retained {
                    silent = Instant::now() + patience.unmarked;
                }
                let found = marks.iter().position(|mark| message.correlation.as_ref() == Some(mark));
                match found {
                    Some(0) => return Ok(Marked::Came),
                    Some(_) => return Ok(Marked::Dropped),
                    // One of an earlier reading may come late.
                    None if is_mark(&message) => {}
                    None => take(message),
                }
            }
            if Instant::now() >= end {
                return Ok(Marked::Late);
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
