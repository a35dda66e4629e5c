//! The operator's side of the story: hears all that the device says and sends it commands.

use super::seen::Heard;
use crate::domain::{CommandId, DeviceId};
use crate::mqtt::client::{Connection, Message, Options, Received, State};
use crate::mqtt::payloads::{ONLINE, Stamped};
use crate::mqtt::topics::{Audience, Said, Topic, Topics};
use anyhow::{Context, bail};
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::sync::mpsc;
use url::Url;

/// Longest wait for the broker.
const PATIENCE: Duration = Duration::from_secs(15);

/// A connection to the device's broker.
pub struct Observer {
    topics: Topics,
    device: DeviceId,
    connection: Connection,
    messages: mpsc::Receiver<Received>,
    commands: u64,
}

impl Observer {
    /// Connects and subscribes to all that `device` says.
    ///
    /// # Errors
    /// Where the URL is not `mqtt://HOST[:PORT]`, or the broker does not answer, with its reason.
    pub async fn connect(broker: &Url, device: &DeviceId) -> anyhow::Result<Self> {
        if broker.scheme() != "mqtt" || !broker.username().is_empty() {
            bail!("broker {broker}: the demo takes mqtt://HOST:PORT without TLS or login");
        }
        let host = broker.host_str().with_context(|| format!("broker {broker}: names no host"))?;
        let topics = Topics::new("edgewarden")?;
        let options = Options {
            client_id: format!("{device}-operator"),
            host: host.to_owned(),
            port: broker.port().unwrap_or(1883),
            tls: None,
            login: None,
            keep_alive: Duration::from_secs(15),
            will: None,
            session: None,
            subscriptions: vec![topics.all_of(device)],
        };
        let (connection, messages) = Connection::open(options)?;
        let mut state = connection.state();
        let up = state.wait_for(|state| matches!(state, State::Up { .. }));
        let is_up = tokio::time::timeout(PATIENCE, up).await.is_ok_and(|state| state.is_ok());
        if !is_up {
            let why = match &*connection.state().borrow() {
                State::Down { reason } => reason.detail.clone(),
                State::Connecting | State::Up { .. } => "it does not answer".to_owned(),
            };
            bail!("broker {broker}: {why}");
        }
        Ok(Self { topics, device: device.clone(), connection, messages, commands: 0 })
    }

    /// The next message that the story understands.
    pub async fn next(&mut self) -> anyhow::Result<Heard> {
        loop {
            let message = self.messages.recv().await.context("the connection to the broker ended")?;
            if let Some(heard) = self.read(&message)? {
                return Ok(heard);
            }
        }
    }

    /// Sends the device a command; the replies carry the id that is returned.
    pub async fn command(&mut self, name: &str, payload: serde_json::Value) -> anyhow::Result<CommandId> {
        self.commands += 1;
        let id: CommandId = format!("demo-{}", self.commands).parse()?;
        let topic = self.topics.command(&Audience::Device(self.device.clone()), name, &id);
        let message = Message { topic, payload: payload.to_string().into(), ..Message::default() };
        let sent = self.connection.publish_tracked(message);
        let arrived = sent.map_err(|why| anyhow::anyhow!("send the command {name}: {why:?}"))?;
        match tokio::time::timeout(PATIENCE, arrived).await {
            Ok(Ok(())) => Ok(id),
            Ok(Err(why)) => bail!("send the command {name}: {why:?}"),
            Err(_) => bail!("send the command {name}: the broker did not acknowledge it"),
        }
    }

    fn read(&self, message: &Received) -> anyhow::Result<Option<Heard>> {
        let Some(Topic::Said { device, said }) = self.topics.parse(&message.topic) else { return Ok(None) };
        if device != self.device {
            return Ok(None);
        }
        Ok(match said {
            Said::Availability => Some(Heard::Online(message.payload == ONLINE.as_bytes())),
            Said::SlotState(_) => Some(Heard::Slot(body(message)?)),
            Said::Telemetry(_) => Some(Heard::Frame(body(message)?)),
            Said::Metrics => Some(Heard::Metrics(body(message)?)),
            Said::Ack { .. } => Some(Heard::Reply(body(message)?)),
            Said::Birth | Said::Health | Said::Snapshot(_) => None,
        })
    }
}

fn body<T: DeserializeOwned>(message: &Received) -> anyhow::Result<T> {
    let stamped: Stamped<T> = serde_json::from_slice(&message.payload)
        .with_context(|| format!("read the device's message on {}", message.topic))?;
    Ok(stamped.body)
}
