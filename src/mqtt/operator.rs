//! The other end of the line: sends commands to devices and listens to what they say. For the
//! demonstration, the tests and fleet tools; no part of the agent uses it.

mod retained;

pub use retained::{Patience, Whole};

use super::client::{Connection, INCOMING_FLEET, Options};
use super::message::{Message, PublishError, Received, State};
use super::payloads::{CommandReply, ReplyStatus, Stamped};
use super::topics::{Audience, Topics};
use crate::config::settings::TlsSettings;
use crate::domain::{CommandId, Reason, ReasonCode};
use bytes::Bytes;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Messages that wait to be read by [`Operator::next`]; more are dropped.
const WAITING: usize = 8192;
/// Replies to one command that wait to be read; more are dropped.
const REPLIES: usize = 256;

type Waiting = Arc<Mutex<HashMap<Bytes, mpsc::Sender<Stamped<CommandReply>>>>>;

/// A connection of somebody who runs devices.
#[derive(Debug)]
pub struct Operator {
    connection: Connection,
    topics: Topics,
    replies_to: String,
    waiting: Waiting,
    messages: tokio::sync::Mutex<mpsc::Receiver<Received>>,
    dropped: Arc<AtomicU64>,
}

/// Where the broker is, and who says so.
#[derive(Debug, Clone)]
pub struct Access {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// TLS, where the URL asks for it.
    pub tls: Option<TlsSettings>,
    /// User name and password.
    pub login: Option<(String, Vec<u8>)>,
    /// Where that password is read again before each new try.
    pub password_file: Option<PathBuf>,
}

impl Access {
    /// Reads `mqtt://[user[:password]@]host[:port]` or `mqtts://…`; `tls` counts for the latter alone.
    ///
    /// # Errors
    /// [`ReasonCode::BadRequest`] for a URL that makes no sense; it is not repeated, as it may hold a password.
    pub fn of_url(url: &str, tls: Option<TlsSettings>) -> Result<Self, Reason> {
        let BrokerUrl { host, port, tls: wanted, login } = BrokerUrl::parse(url)?;
        Ok(Self { host, port, tls: wanted.then(|| tls.unwrap_or_default()), login, password_file: None })
    }
}

impl Operator {
    /// Connects to `mqtt://[user:password@]host[:port]` (or `mqtts://`, with the system's
    /// certificate authorities or those of `tls`), hears what is published at `filters`, and returns
    /// once all of it holds.
    ///
    /// # Errors
    /// [`ReasonCode::BadRequest`] for a URL or root that makes no sense;
    /// [`ReasonCode::BrokerRefused`] at once, [`ReasonCode::BrokerUnreachable`] after `wait`.
    pub async fn connect(
        url: &str,
        tls: Option<TlsSettings>,
        root: &str,
        filters: Vec<String>,
        wait: Duration,
    ) -> Result<Self, Reason> {
        Self::open(Access::of_url(url, tls)?, root, filters, wait).await
    }

    /// The same by what was read of the URL and its files.
    ///
    /// # Errors
    /// As [`Operator::connect`].
    pub async fn open(
        access: Access,
        root: &str,
        filters: Vec<String>,
        wait: Duration,
    ) -> Result<Self, Reason> {
        let topics = Topics::new(root)?;
        let client_id = format!("operator-{}", uuid::Uuid::new_v4().simple());
        let replies_to = topics.operator_replies(&client_id);
        let mut subscriptions = filters;
        subscriptions.push(replies_to.clone());
        let (connection, received) = Connection::open(Options {
            client_id,
            host: access.host,
            port: access.port,
            web_path: None,
            tls: access.tls,
            login: access.login,
            password_file: access.password_file,
            keep_alive: Duration::from_secs(30),
            will: None,
            session: None,
            incoming: INCOMING_FLEET,
            subscriptions,
        })?;
        let waiting: Waiting = Arc::default();
        let (messages_tx, messages) = mpsc::channel(WAITING);
        let dropped = Arc::<AtomicU64>::default();
        let sorted = sort(received, replies_to.clone(), waiting.clone(), messages_tx, dropped.clone());
        tokio::spawn(sorted);
        let messages = tokio::sync::Mutex::new(messages);
        let operator = Self { connection, topics, replies_to, waiting, messages, dropped };
        operator.up(wait).await?;
        Ok(operator)
    }

    /// The topics under the root.
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// How the connection is, and every change of it.
    pub fn state(&self) -> watch::Receiver<State> {
        self.connection.state()
    }

    /// Messages that came in faster than they were read, and were dropped.
    pub fn dropped(&self) -> u64 {
        self.connection.received_dropped() + self.dropped.load(Ordering::Relaxed)
    }

    /// Hears what is published at more filters, also after the connection was lost and made again.
    ///
    /// # Errors
    /// [`ReasonCode::BrokerRefused`] where the broker does not allow it, [`ReasonCode::BrokerUnreachable`] where
    /// the connection is lost.
    pub async fn hear(&self, filters: Vec<String>) -> Result<(), Reason> {
        self.connection.subscribe(filters).await
    }

    /// The next message at one of the filters; `None` when none came within `wait`.
    pub async fn next(&self, wait: Duration) -> Option<Received> {
        let mut messages = self.messages.lock().await;
        tokio::time::timeout(wait, messages.recv()).await.ok().flatten()
    }

    /// Publishes a message and waits for its `PUBACK`.
    ///
    /// # Errors
    /// [`ReasonCode::BrokerRefused`], or [`ReasonCode::BrokerUnreachable`] after `wait`.
    pub async fn publish(&self, message: Message, wait: Duration) -> Result<(), Reason> {
        let end = Instant::now() + wait;
        loop {
            self.up(end.saturating_duration_since(Instant::now())).await?;
            let sent = match self.connection.publish_tracked(message.clone()) {
                Ok(arrived) => tokio::time::timeout_at(end, arrived).await.unwrap_or(Err(PublishError::Lost)),
                Err(error) => Err(error),
            };
            match sent {
                Ok(()) => return Ok(()),
                Err(PublishError::Refused(reason) | PublishError::Later(reason)) => return Err(reason),
                Err(PublishError::Lost | PublishError::NotNow) if Instant::now() < end => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(PublishError::Lost | PublishError::NotNow) => {
                    let detail =
                        format!("message to {}: the broker did not acknowledge it in time", message.topic);
                    return Err(Reason::new(ReasonCode::BrokerUnreachable, detail));
                }
            }
        }
    }

    /// Sends a command with a new id; its replies are read from what is returned.
    ///
    /// # Errors
    /// As [`Operator::publish`].
    pub async fn command(
        &self,
        audience: &Audience,
        command: &str,
        arguments: &serde_json::Value,
        wait: Duration,
    ) -> Result<Pending, Reason> {
        let id = CommandId::from(uuid::Uuid::now_v7());
        self.command_with_id(audience, command, arguments, &id, wait).await
    }

    /// Sends a command under a given id.
    ///
    /// # Errors
    /// As [`Operator::publish`].
    pub async fn command_with_id(
        &self,
        audience: &Audience,
        command: &str,
        arguments: &serde_json::Value,
        id: &CommandId,
        wait: Duration,
    ) -> Result<Pending, Reason> {
        let correlation = Bytes::from(uuid::Uuid::new_v4().as_bytes().to_vec());
        let (sender, replies) = mpsc::channel(REPLIES);
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(correlation.clone(), sender);
        let pending = Pending {
            id: id.clone(),
            command: command.to_owned(),
            correlation: correlation.clone(),
            waiting: self.waiting.clone(),
            replies,
        };
        let message = Message {
            topic: self.topics.command(audience, command, id),
            payload: arguments.to_string().into_bytes().into(),
            content_type: Some("application/json".to_owned()),
            response_topic: Some(self.replies_to.clone()),
            correlation: Some(correlation),
            ..Message::default()
        };
        self.publish(message, wait).await?;
        Ok(pending)
    }

    /// Sends a command whose replies come at the devices' own topics (`ack/…`), where the broker guards who
    /// speaks; they are heard only where [`Operator::hear`] was asked for them before.
    ///
    /// # Errors
    /// As [`Operator::publish`].
    pub async fn say(
        &self,
        audience: &Audience,
        command: &str,
        id: &CommandId,
        payload: Bytes,
        wait: Duration,
    ) -> Result<(), Reason> {
        let message = Message {
            topic: self.topics.command(audience, command, id),
            payload,
            content_type: Some("application/json".to_owned()),
            ..Message::default()
        };
        self.publish(message, wait).await
    }

    /// Says goodbye to the broker.
    pub async fn close(&self, deadline: Duration) {
        self.connection.close(deadline).await;
    }

    /// Waits for the connection. A broker that refuses is told at once, one that is not there (yet)
    /// after `wait`.
    async fn up(&self, wait: Duration) -> Result<(), Reason> {
        let mut state = self.connection.state();
        let settled = |state: &State| match state {
            State::Up { .. } => true,
            State::Down { reason } => reason.code == ReasonCode::BrokerRefused,
            State::Connecting => false,
        };
        let _ = tokio::time::timeout(wait, state.wait_for(settled)).await;
        match &*state.borrow() {
            State::Up { .. } => Ok(()),
            State::Down { reason } => Err(reason.clone()),
            State::Connecting => {
                let detail = format!("the broker did not answer within {} s", wait.as_secs_f32());
                Err(Reason::new(ReasonCode::BrokerUnreachable, detail))
            }
        }
    }
}

/// Hands replies to whoever waits for them, and everything else to [`Operator::next`].
async fn sort(
    mut received: mpsc::Receiver<Received>,
    replies_to: String,
    waiting: Waiting,
    messages: mpsc::Sender<Received>,
    dropped: Arc<AtomicU64>,
) {
    while let Some(message) = received.recv().await {
        if message.topic != replies_to || retained::is_mark(&message) {
            if let Err(mpsc::error::TrySendError::Full(_)) = messages.try_send(message) {
                dropped.fetch_add(1, Ordering::Relaxed);
            }
            continue;
        }
        let Ok(reply) = Stamped::read(&message.payload) else {
            tracing::warn!("mqtt: a reply makes no sense");
            continue;
        };
        let waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(to) = message.correlation.as_ref().and_then(|correlation| waiting.get(correlation)) {
            let _ = to.try_send(reply);
        }
    }
}

/// A command that was sent.
#[derive(Debug)]
pub struct Pending {
    /// Its id.
    pub id: CommandId,
    command: String,
    correlation: Bytes,
    waiting: Waiting,
    replies: mpsc::Receiver<Stamped<CommandReply>>,
}

impl Pending {
    /// The next reply; `None` when none came within `wait`.
    pub async fn next(&mut self, wait: Duration) -> Option<CommandReply> {
        tokio::time::timeout(wait, self.replies.recv()).await.ok().flatten().map(|reply| reply.body)
    }

    /// The end of it: what was asked for.
    ///
    /// # Errors
    /// The device's reason when it failed; [`ReasonCode::BrokerUnreachable`] without an end after `wait`.
    pub async fn finish(&mut self, wait: Duration) -> Result<serde_json::Value, Reason> {
        let end = Instant::now() + wait;
        while let Some(reply) = self.next(end.saturating_duration_since(Instant::now())).await {
            match reply.status {
                ReplyStatus::Init | ReplyStatus::Executing { .. } => {}
                ReplyStatus::Successful { result } => return Ok(result),
                ReplyStatus::Failed { reason } => return Err(reason),
            }
        }
        let detail =
            format!("{} {}: the device did not finish in time; is it online?", self.command, self.id);
        Err(Reason::new(ReasonCode::BrokerUnreachable, detail))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.correlation);
    }
}

#[derive(Debug, PartialEq, Eq)]
struct BrokerUrl {
    host: String,
    port: u16,
    tls: bool,
    login: Option<(String, Vec<u8>)>,
}

impl BrokerUrl {
    fn parse(text: &str) -> Result<Self, Reason> {
        // The text may hold a password: it is not repeated.
        let bad = |why: &str| {
            Reason::new(ReasonCode::BadRequest, format!("broker URL: {why}; write mqtt://HOST:PORT"))
        };
        let url: url::Url = text.parse().map_err(|error: url::ParseError| bad(&error.to_string()))?;
        let tls = match url.scheme() {
            "mqtt" => false,
            "mqtts" => true,
            _ => return Err(bad("the scheme is neither mqtt nor mqtts")),
        };
        let host = url.host_str().ok_or_else(|| bad("no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = url.port().unwrap_or(if tls { 8883 } else { 1883 });
        let login = (!url.username().is_empty())
            .then(|| (url.username().to_owned(), url.password().unwrap_or_default().as_bytes().to_vec()));
        Ok(Self { host, port, tls, login })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broker_urls_are_read() {
        let parse = |text| BrokerUrl::parse(text).map(|u| (u.host, u.port, u.tls, u.login));
        assert_eq!(parse("mqtt://broker"), Ok(("broker".into(), 1883, false, None)));
        assert_eq!(parse("mqtts://[::1]"), Ok(("::1".into(), 8883, true, None)));
        let login = Some(("u".to_owned(), b"p".to_vec()));
        assert_eq!(parse("mqtt://u:p@127.0.0.1:1884"), Ok(("127.0.0.1".into(), 1884, false, login)));
        for bad in ["broker:1883", "http://x", "mqtt://", ""] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let secret = parse("http://u:secret@x").unwrap_err();
        assert!(!secret.detail.contains("secret"));
    }
}
