//! The other end of the line: sends commands to devices and listens to what they say. For the
//! demonstration, the tests and fleet tools; no part of the agent uses it.

mod retained;
mod unread;
mod way;

pub use retained::{Patience, Whole};
pub use way::Access;

use super::client::{Connection, Inbox, Options};
use super::message::{Message, PublishError, Received, State};
use super::payloads::{CommandReply, ReplyStatus, Stamped};
use super::topics::{Audience, Topics};
use crate::config::settings::TlsSettings;
use crate::domain::{CommandId, Reason, ReasonCode};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use unread::Unread;

/// Messages between the connection and [`Unread`], which takes them as fast as they come.
const ARRIVING: Inbox = Inbox::Holding(512);
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
    unread: Arc<Unread>,
}

/// What a reader wants of messages that it has not read yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Each of them.
    Everything,
    /// Of those that say how a device is now, the newest of each topic; each of all others.
    Newest,
}

impl Operator {
    /// Connects to the broker of a URL (see [`Access::of_url`]), hears what is published at `filters`, and
    /// returns once all of it holds.
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
        Self::open(Access::of_url(url, tls)?, root, filters, Reading::Everything, wait).await
    }

    /// The same by what was read of the URL and its files.
    ///
    /// # Errors
    /// As [`Operator::connect`].
    pub async fn open(
        access: Access,
        root: &str,
        filters: Vec<String>,
        reading: Reading,
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
            web_path: access.web_path,
            tls: access.tls,
            login: access.login,
            password_file: access.password_file,
            keep_alive: Duration::from_secs(30),
            will: None,
            session: None,
            incoming: ARRIVING,
            subscriptions,
        })?;
        let waiting: Waiting = Arc::default();
        let unread = Arc::new(Unread::new(topics.clone(), reading));
        tokio::spawn(sort(received, replies_to.clone(), waiting.clone(), unread.clone()));
        let operator = Self { connection, topics, replies_to, waiting, unread };
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

    /// Messages that were dropped, as too much waited to be read.
    pub fn dropped(&self) -> u64 {
        self.unread.dropped()
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
        tokio::time::timeout(wait, self.unread.next()).await.ok().flatten()
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

/// Hands replies to whoever waits for them, and everything else to [`Operator::next`]. It waits for nothing but
/// messages, as the connection waits for it.
async fn sort(
    mut received: mpsc::Receiver<Received>,
    replies_to: String,
    waiting: Waiting,
    unread: Arc<Unread>,
) {
    while let Some(message) = received.recv().await {
        if message.topic != replies_to || retained::is_mark(&message) {
            unread.put(message);
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
    unread.close();
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
