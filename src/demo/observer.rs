//! The operator's side of the story: hears all that the device says and sends it commands.

use super::seen::Heard;
use crate::domain::{CommandId, DeviceId, Reason};
use crate::mqtt::message::Received;
use crate::mqtt::operator::{Operator, Pending};
use crate::mqtt::payloads::{ONLINE, Stamped};
use crate::mqtt::topics::{Audience, Said, Topic, Topics};
use anyhow::Context;
use serde::de::DeserializeOwned;
use std::time::Duration;
use url::Url;

/// Longest wait for the broker.
const PATIENCE: Duration = Duration::from_secs(15);
/// First level of the topics; the device's default.
const ROOT: &str = "edgewarden";

/// A connection to the device's broker.
pub struct Observer {
    operator: Operator,
    device: DeviceId,
    /// The newest command, whose replies are heard.
    pending: Option<Pending>,
}

impl Observer {
    /// Connects and subscribes to all that `device` says.
    ///
    /// # Errors
    /// Those of [`Operator::connect`].
    pub async fn connect(broker: &Url, device: &DeviceId) -> Result<Self, Reason> {
        let filter = Topics::new(ROOT)?.all_of(device);
        let operator = Operator::connect(broker.as_str(), None, ROOT, vec![filter], PATIENCE).await?;
        Ok(Self { operator, device: device.clone(), pending: None })
    }

    /// The next message that the story understands; `None` when none came within `wait`.
    pub async fn next(&mut self, wait: Duration) -> anyhow::Result<Option<Heard>> {
        if let Some(pending) = &mut self.pending
            && let Some(reply) = pending.next(Duration::ZERO).await
        {
            return Ok(Some(Heard::Reply(reply)));
        }
        match self.operator.next(wait).await {
            Some(message) => self.read(&message),
            None => Ok(None),
        }
    }

    /// Sends the device a command; its replies are heard until the next one is sent.
    ///
    /// # Errors
    /// Those of [`Operator::publish`].
    pub async fn command(&mut self, name: &str, arguments: serde_json::Value) -> Result<CommandId, Reason> {
        let audience = Audience::Device(self.device.clone());
        let pending = self.operator.command(&audience, name, &arguments, PATIENCE).await?;
        let id = pending.id.clone();
        self.pending = Some(pending);
        Ok(id)
    }

    fn read(&self, message: &Received) -> anyhow::Result<Option<Heard>> {
        let topic = self.operator.topics().parse(&message.topic);
        let Some(Topic::Said { device, said }) = topic else { return Ok(None) };
        if device != self.device {
            return Ok(None);
        }
        Ok(match said {
            Said::Availability => Some(Heard::Online(message.payload == ONLINE.as_bytes())),
            Said::SlotState(_) => Some(Heard::Slot(Box::new(body(message)?))),
            Said::Telemetry(_) => Some(Heard::Frame(body(message)?)),
            Said::Metrics => Some(Heard::Metrics(Box::new(body(message)?))),
            Said::Ack { .. } => Some(Heard::Reply(body(message)?)),
            Said::Birth
            | Said::Health
            | Said::Dropped
            | Said::Event(_)
            | Said::Counts(_)
            | Said::Snapshot(_) => None,
        })
    }
}

fn body<T: DeserializeOwned>(message: &Received) -> anyhow::Result<T> {
    let stamped = Stamped::<T>::read(&message.payload)
        .with_context(|| format!("read the device's message on {}", message.topic))?;
    Ok(stamped.body)
}
