//! Subscriptions, in packets that every broker takes.

use super::super::message::State;
use super::{Connection, Driver, Shared, client_error};
use crate::domain::{Reason, ReasonCode};
use rumqttc::{AsyncClient, QoS, SubscribeFilterInput, SubscribeNoticeError};
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

/// Most filters in one `SUBSCRIBE` packet: AWS IoT Core takes no more.
const FILTERS: usize = 8;

impl Connection {
    /// Hears more, now and after each later connect; returns once the broker has answered.
    ///
    /// # Errors
    /// [`ReasonCode::BrokerRefused`] where the broker refuses a filter, [`ReasonCode::BrokerUnreachable`] where
    /// the connection is lost before its answer.
    pub async fn subscribe(&self, filters: Vec<String>) -> Result<(), Reason> {
        self.shared.added().extend(filters.iter().cloned());
        let live = self.shared.live.load(Ordering::SeqCst);
        let holds = || live != 0 && self.shared.live.load(Ordering::SeqCst) == live;
        match subscribe(&self.client, &filters, holds).await {
            Subscribed::Answered { refused } if refused.is_empty() => Ok(()),
            Subscribed::Answered { refused } => {
                let filters = refused.join(", ");
                let detail =
                    format!("the broker refuses the subscription to {filters}: allow it in its access list");
                Err(Reason::new(ReasonCode::BrokerRefused, detail))
            }
            Subscribed::Lost(why) => {
                let detail = format!("subscription to {}: {why}", filters.join(", "));
                Err(Reason::new(ReasonCode::BrokerUnreachable, detail))
            }
        }
    }
}

impl Driver {
    /// Asks for the subscriptions; the answer, which this loop must read first, makes the state `Up`.
    pub(super) fn subscribe(&self, generation: u64) {
        let (state, shared) = (self.state.clone(), self.shared.clone());
        let up = move || {
            // An answer to a connection that was lost since must not outrun the word of its loss.
            let changed = state.send_if_modified(|state| {
                let holds = shared.live.load(Ordering::SeqCst) == generation;
                if holds {
                    *state = State::Up { generation };
                }
                holds
            });
            if changed {
                tracing::info!(generation, "mqtt: connected");
            }
        };
        let mut filters = self.options.subscriptions.clone();
        filters.extend(self.shared.added().clone());
        if filters.is_empty() {
            return up();
        }
        let (client, shared) = (self.client.clone(), self.shared.clone());
        tokio::spawn(async move {
            let holds = || shared.live.load(Ordering::SeqCst) == generation;
            match subscribe(&client, &filters, holds).await {
                Subscribed::Answered { refused } => {
                    // The device can report even where it may not be commanded.
                    for packet in refused {
                        tracing::error!(
                            "mqtt: the broker refuses the subscription to {packet}: allow it in the broker's access list"
                        );
                    }
                    up();
                }
                Subscribed::Lost(why) => tracing::debug!("mqtt: subscription not answered: {why}"),
            }
        });
    }
}

impl Shared {
    fn added(&self) -> MutexGuard<'_, Vec<String>> {
        self.added.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a row of subscriptions ended.
enum Subscribed {
    /// All of them were answered; of these packets the broker refused some or all.
    Answered { refused: Vec<String> },
    /// Not answered: the connection was lost, or nothing can be queued.
    Lost(String),
}

/// Asks for the filters at QoS 1, one packet after the other; each waits for the answer to the one before, so
/// that a broker is never given two at once. Stops where `holds` says that the connection is gone.
async fn subscribe(client: &AsyncClient, filters: &[String], holds: impl Fn() -> bool) -> Subscribed {
    let mut refused = Vec::new();
    for packet in packets(filters) {
        if !holds() {
            return Subscribed::Lost("the connection was lost".to_owned());
        }
        let asked = packet.iter().map(|filter| SubscribeFilterInput::new(filter, QoS::AtLeastOnce));
        let notice = match client.try_subscribe_many_tracked(asked) {
            Ok(notice) => notice,
            Err(error) => return Subscribed::Lost(client_error(&error).to_owned()),
        };
        match notice.wait_completion_async().await {
            Ok(()) => {}
            Err(SubscribeNoticeError::V5SubAckFailure(codes)) => {
                refused.push(format!("{} ({codes:?})", packet.join(", ")));
            }
            Err(error) => return Subscribed::Lost(error.to_string()),
        }
    }
    Subscribed::Answered { refused }
}

/// The filters by packet.
fn packets(filters: &[String]) -> impl Iterator<Item = &[String]> {
    filters.chunks(FILTERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_packet_has_more_filters_than_cloud_brokers_take_and_none_is_lost() {
        for count in 0_usize..=40 {
            let filters: Vec<String> = (0..count).map(|n| format!("root/group/{n}/cmd/+/+")).collect();
            let made: Vec<&[String]> = packets(&filters).collect();
            assert!(made.iter().all(|packet| (1..=8).contains(&packet.len())), "{count}");
            assert_eq!(made.concat(), filters);
            assert_eq!(made.len(), count.div_ceil(8));
        }
    }
}
