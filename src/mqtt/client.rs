//! One connection to a broker, kept up. Only this file and the folder beside it name `rumqttc`.
//!
//! The event loop is polled in a task of its own and by nothing else: it must not be cancelled
//! between two packets. Everybody else sees a [`Connection`] to publish through, a watch on the
//! [`State`], and a channel of [`Received`] messages. Subscriptions are part of the options and are
//! made anew after each connect; the state is [`State::Up`] only once they hold, so that whoever
//! reads `online` can send a command.
//!
//! Two traps of the library are stepped around here. With "clean start" off it refuses a session
//! that the broker still has from before a restart of this process, unless it is given a saved one
//! (`BlankSession`). And a message larger than the broker allows would end the connection at every
//! try: it is refused before it is queued.

use super::message::{Message, PublishError, Received, State};
use super::tls;
use crate::config::settings::{MqttSettings, TlsSettings};
use crate::domain::{Reason, ReasonCode};
use crate::sys::tls::{TlsError, explain, fault_in};
use backon::BackoffBuilder;
use bytes::Bytes;
use limit::Limit;
use rumqttc::{
    AsyncClient, ClientError, ConnectReturnCode, ConnectionError, DisconnectReasonCode, Event, EventLoop,
    LastWill, MqttOptions, MqttState, NoticeFailureReason, Packet, PubAckReason, PublishNoticeError,
    PublishOptions, PublishProperties, QoS, StateError,
};
use session::BlankSession;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use way::{broker, no_tls, transport};

mod limit;
mod session;
mod subscribe;
mod way;

/// Largest packet taken from the broker, bytes; a larger one is a protocol error and ends the connection.
const MAX_INCOMING: u32 = 256 << 10;
/// QoS 1 messages on their way at once.
const INFLIGHT: u16 = 64;
/// Messages of ours that wait for the event loop.
const OUTGOING: usize = 128;
/// Messages from the broker that wait for a device.
pub const INCOMING: Inbox = Inbox::Dropping(512);
/// A connection, with TLS and `CONNACK`, is made in this time or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// First and longest wait between two tries; up to as much again is added by chance.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// A connection that lasted so long was a good one: the next try is early again.
const GOOD: Duration = Duration::from_secs(20);

/// How many messages from the broker wait to be taken, and what is done with more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inbox {
    /// More are dropped and counted: the connection lives, whatever its reader does.
    Dropping(usize),
    /// Nothing more is read from the broker until one is taken: none is lost. For a reader that waits for nothing
    /// else, and least of all for this connection: signs of life wait meanwhile too.
    Holding(usize),
}

/// How to connect.
#[derive(Debug, Clone)]
pub struct Options {
    /// Unique at the broker.
    pub client_id: String,
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The path of a web server that speaks MQTT there; plain MQTT without.
    pub web_path: Option<String>,
    /// TLS, with the server's certificate checked.
    pub tls: Option<TlsSettings>,
    /// User name and password.
    pub login: Option<(String, Vec<u8>)>,
    /// Where that password is read again before each new try.
    pub password_file: Option<PathBuf>,
    /// Between signs of life.
    pub keep_alive: Duration,
    /// Published by the broker when the connection is lost.
    pub will: Option<Message>,
    /// How long the broker keeps messages for us while we are away; `None` for a session that ends
    /// with the connection.
    pub session: Option<Duration>,
    /// Messages from the broker that wait for us.
    pub incoming: Inbox,
    /// Filters, all at QoS 1.
    pub subscriptions: Vec<String>,
}

impl Options {
    /// A connection to this broker without a will, without a session, and with nothing to hear.
    ///
    /// # Errors
    /// [`ReasonCode::BadRequest`] for a password file that cannot be read.
    pub fn of(settings: &MqttSettings, client_id: String) -> Result<Self, Reason> {
        Ok(Self {
            client_id,
            host: settings.host.clone(),
            port: settings.port,
            web_path: settings.web_path.clone(),
            tls: settings.tls.clone(),
            login: super::login(settings.username.as_ref(), settings.password_file.as_ref())?,
            password_file: settings.password_file.clone(),
            keep_alive: settings.keep_alive,
            will: None,
            session: None,
            incoming: INCOMING,
            subscriptions: Vec::new(),
        })
    }
}

/// A connection that is made again whenever it is lost, until it is closed or dropped.
#[derive(Debug)]
pub struct Connection {
    client: AsyncClient,
    state: watch::Receiver<State>,
    shared: Arc<Shared>,
    closing: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    limit: Limit,
    connects: AtomicU64,
    /// The connection that holds now; 0 for none.
    live: AtomicU64,
    received_dropped: AtomicU64,
    /// Filters that were asked for since, beside those of the options.
    added: Mutex<Vec<String>>,
}

impl Connection {
    /// Starts to connect, and returns at once. Call inside a tokio runtime.
    ///
    /// # Errors
    /// [`ReasonCode::BadRequest`] for certificates or keys that cannot be read. A system without certificate
    /// authorities is no error: the state tells, and it is looked again before each try.
    pub fn open(options: Options) -> Result<(Self, mpsc::Receiver<Received>), Reason> {
        let mut mqtt = MqttOptions::new(options.client_id.clone(), broker(&options)?);
        mqtt.set_keep_alive(u16::try_from(options.keep_alive.as_secs()).unwrap_or(u16::MAX))
            .set_connect_timeout(CONNECT_TIMEOUT)
            .set_max_packet_size(Some(MAX_INCOMING))
            .set_outgoing_inflight_upper_limit(INFLIGHT)
            .set_max_request_batch(16);
        // Small messages that wait for each other's acknowledgement would come 40 ms late.
        let mut network = mqtt.network_options();
        network.set_tcp_nodelay(true);
        mqtt.set_network_options(network);
        match options.session {
            Some(kept) => {
                let seconds = u32::try_from(kept.as_secs()).unwrap_or(u32::MAX);
                mqtt.set_clean_start(false)
                    .set_session_expiry_interval(Some(seconds))
                    .set_session_store(BlankSession);
            }
            None => {
                mqtt.set_clean_start(true);
            }
        }
        if let Some((username, password)) = &options.login {
            mqtt.set_credentials(username.clone(), password.clone());
        }
        if let Some(will) = &options.will {
            let payload = will.payload.to_vec();
            mqtt.set_last_will(LastWill::new(&will.topic, payload, QoS::AtLeastOnce, will.retain, None));
        }
        let mut fault = None;
        match options.tls.as_ref().map(|tls| transport(tls, options.web_path.is_some())) {
            Some(Ok(transport)) => {
                mqtt.set_transport(transport);
            }
            Some(Err(error @ TlsError::NoAuthorities(_))) => fault = Some(no_tls(&options, &error)),
            Some(Err(TlsError::File(reason))) => return Err(reason),
            None => {}
        }

        let (client, event_loop) = AsyncClient::builder(mqtt)
            .capacity(OUTGOING)
            .try_build()
            .map_err(|error| Reason::new(ReasonCode::BadRequest, format!("mqtt options: {error}")))?;
        let shared = Arc::new(Shared {
            limit: Limit::none(),
            connects: AtomicU64::new(0),
            live: AtomicU64::new(0),
            received_dropped: AtomicU64::new(0),
            added: Mutex::default(),
        });
        let (state_tx, state) = watch::channel(State::Connecting);
        let (Inbox::Dropping(room) | Inbox::Holding(room)) = options.incoming;
        let (messages_tx, messages) = mpsc::channel(room);
        let closing = CancellationToken::new();
        let driver = Driver {
            client: client.clone(),
            options,
            state: Arc::new(state_tx),
            messages: messages_tx,
            shared: shared.clone(),
            closing: closing.clone(),
        };
        let task = tokio::spawn(driver.run(event_loop, fault));
        Ok((Self { client, state, shared, closing, task: Mutex::new(Some(task)) }, messages))
    }

    /// How the connection is, and every change of it.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Connections made so far.
    pub fn connects(&self) -> u64 {
        self.shared.connects.load(Ordering::Relaxed)
    }

    /// Whether the broker takes such a message of JSON, as far as is known of it: now, or when it was last there.
    ///
    /// # Errors
    /// [`ReasonCode::BrokerRefused`] for one that is too large.
    pub fn would_take(&self, topic: &str, bytes: usize, correlation: Option<&[u8]>) -> Result<(), Reason> {
        self.shared.limit.allows(topic, limit::size_of_json(topic, bytes, correlation))
    }

    /// Queues a message at QoS 0 and never waits.
    ///
    /// # Errors
    /// [`PublishError::NotNow`] when not connected or the queue is full, [`PublishError::Refused`].
    pub fn try_publish(&self, message: Message) -> Result<(), PublishError> {
        let (topic, payload, options) = self.prepare(message, QoS::AtMostOnce)?;
        self.client.try_publish(topic, payload, options).map_err(not_queued)
    }

    /// Queues a message at QoS 1 and never waits; the future ends at its `PUBACK`.
    ///
    /// # Errors
    /// [`PublishError::NotNow`] when not connected or the queue is full, [`PublishError::Refused`];
    /// the future's are the others.
    pub fn publish_tracked(
        &self,
        message: Message,
    ) -> Result<impl Future<Output = Result<(), PublishError>> + Send + use<>, PublishError> {
        let named = message.topic.clone();
        let (topic, payload, options) = self.prepare(message, QoS::AtLeastOnce)?;
        let notice = self.client.try_publish_tracked(topic, payload, options).map_err(not_queued)?;
        Ok(async move { notice.wait_completion_async().await.map_err(|error| undelivered(&named, error)) })
    }

    /// Says goodbye, so that the broker keeps the will to itself, after what is on its way was
    /// acknowledged. Takes `deadline` at most.
    pub async fn close(&self, deadline: Duration) {
        self.closing.cancel();
        let _ = self.client.try_disconnect_with_timeout(deadline);
        if let Some(task) = self.take_task() {
            let abort = task.abort_handle();
            if tokio::time::timeout(deadline, task).await.is_err() {
                abort.abort();
            }
        }
    }

    /// Ends without a goodbye: the broker publishes the will.
    pub fn cut(&self) {
        if let Some(task) = self.take_task() {
            task.abort();
        }
    }

    fn take_task(&self) -> Option<JoinHandle<()>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn prepare(&self, message: Message, qos: QoS) -> Result<(String, Bytes, PublishOptions), PublishError> {
        if self.state.borrow().generation().is_none() {
            return Err(PublishError::NotNow);
        }
        let size = limit::size(&message);
        self.shared.limit.allows(&message.topic, size).map_err(PublishError::Refused)?;
        self.shared.limit.sends(size);
        let properties = PublishProperties {
            content_type: message.content_type,
            response_topic: message.response_topic,
            correlation_data: message.correlation,
            user_properties: message.properties,
            ..PublishProperties::default()
        };
        let options = PublishOptions::new(qos).retain(message.retain).properties(properties);
        Ok((message.topic, message.payload, options))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.cut();
    }
}

/// What polls the event loop.
struct Driver {
    client: AsyncClient,
    options: Options,
    state: Arc<watch::Sender<State>>,
    messages: mpsc::Sender<Received>,
    shared: Arc<Shared>,
    closing: CancellationToken,
}

impl Driver {
    /// `fault`: why the event loop cannot be used yet. It is not polled until that is over: it would connect
    /// without TLS.
    async fn run(self, mut event_loop: EventLoop, mut fault: Option<Reason>) {
        let mut backoff = waits();
        let mut up_since: Option<Instant> = None;
        loop {
            if let Some(reason) = fault.take() {
                if !self.down(reason, backoff.next()).await {
                    return;
                }
                fault = self.renew(&mut event_loop, false).err();
                continue;
            }
            let event = tokio::select! {
                event = event_loop.poll() => event,
                // Nothing is on its way without a connection, so there is nothing to wait for.
                () = self.closing.cancelled(), if up_since.is_none() => return,
            };
            match event {
                Ok(Event::Incoming(Packet::ConnAck(answer))) => {
                    self.shared.limit.begins(answer.properties.as_ref().and_then(|p| p.max_packet_size));
                    up_since = Some(Instant::now());
                    let generation = self.shared.connects.fetch_add(1, Ordering::Relaxed) + 1;
                    self.shared.live.store(generation, Ordering::SeqCst);
                    self.subscribe(generation);
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => self.receive(publish).await,
                Ok(Event::Incoming(_) | Event::Outgoing(_) | Event::Auth(_)) => {}
                Err(ConnectionError::RequestsDone | ConnectionError::DisconnectTimeout) => return,
                Err(error) => {
                    let mut reason = self.explain(&error);
                    if limit::is_too_large(&error) {
                        if let Some(bytes) = self.shared.limit.learns() {
                            reason.detail = format!(
                                "broker {}:{} ended the connection over a message of {bytes} bytes; larger ones are \
                                 dropped for an hour: raise its limit of the size of messages",
                                self.options.host, self.options.port
                            );
                        }
                        // Whoever waits for an acknowledgement sends again, but for what is too large; the library
                        // would send it by itself.
                        event_loop.drain_pending_as_failed(NoticeFailureReason::SessionReset);
                        // Their packet ids would stay taken, until there is none for anything else.
                        let mut fresh = MqttState::builder(INFLIGHT).build();
                        fresh.events = std::mem::take(&mut event_loop.state.events);
                        event_loop.state = fresh;
                        backoff = waits();
                    }
                    if up_since.take().is_some_and(|since| since.elapsed() >= GOOD) {
                        backoff = waits();
                    }
                    if !self.down(reason, backoff.next()).await {
                        return;
                    }
                    fault = self.renew(&mut event_loop, true).err();
                }
            }
        }
    }

    /// Tells why there is no connection, and waits before the next try; false when there shall be none.
    async fn down(&self, reason: Reason, wait: Option<Duration>) -> bool {
        let wait = wait.unwrap_or(BACKOFF.1);
        tracing::warn!(wait_ms = wait.as_millis() as u64, "mqtt: {reason}");
        // First this, then the state: see `subscribe`.
        self.shared.live.store(0, Ordering::SeqCst);
        self.state.send_replace(State::Down { reason });
        tokio::select! {
            () = tokio::time::sleep(wait) => true,
            () = self.closing.cancelled() => false,
        }
    }

    /// Takes up what the files hold by now: a password or a certificate that was renewed counts from the next
    /// try on. Where they cannot be used and there is something from before (`usable`), that is tried again.
    fn renew(&self, event_loop: &mut EventLoop, usable: bool) -> Result<(), Reason> {
        let former = |reason: Reason| match usable {
            true => {
                tracing::warn!("mqtt: {reason}; going on with what was there before");
                Ok(())
            }
            false => Err(reason),
        };
        if let (Some((user, _)), Some(file)) = (&self.options.login, &self.options.password_file) {
            match super::password(file) {
                Ok(password) => {
                    event_loop.options.set_credentials(user.clone(), password);
                }
                Err(reason) => former(reason)?,
            }
        }
        let web = self.options.web_path.is_some();
        match self.options.tls.as_ref().map(|tls| transport(tls, web)) {
            Some(Ok(transport)) => {
                event_loop.options.set_transport(transport);
            }
            Some(Err(error)) => former(no_tls(&self.options, &error))?,
            None => {}
        }
        Ok(())
    }

    async fn receive(&self, publish: rumqttc::Publish) {
        let Ok(topic) = String::from_utf8(publish.topic.to_vec()) else { return };
        let (response_topic, correlation) =
            publish.properties.map_or((None, None), |p| (p.response_topic, p.correlation_data));
        let received = Received {
            topic,
            payload: publish.payload,
            retained: publish.retain,
            response_topic,
            correlation,
        };
        if let Inbox::Holding(_) = self.options.incoming {
            tokio::select! {
                _ = self.messages.send(received) => {}
                () = self.closing.cancelled() => {}
            }
        } else if let Err(mpsc::error::TrySendError::Full(lost)) = self.messages.try_send(received) {
            let so_far = self.shared.received_dropped.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::warn!(so_far, "mqtt: too many messages come in, dropped one to {}", lost.topic);
        }
    }

    /// What went wrong, with the remedy.
    fn explain(&self, error: &ConnectionError) -> Reason {
        let to = format!("broker {}:{}", self.options.host, self.options.port);
        match error {
            ConnectionError::ConnectionRefused(code)
            | ConnectionError::MqttState(StateError::ConnFail { reason: code }) => {
                Reason::new(ReasonCode::BrokerRefused, format!("{to} {}", self.refusal(*code)))
            }
            ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string }) => {
                let why = reason_string.as_deref().unwrap_or("no reason was given");
                match reason_code {
                    DisconnectReasonCode::SessionTakenOver => Reason::new(
                        ReasonCode::BrokerRefused,
                        format!(
                            "{to} ended the connection: another client connected as \"{}\"; give every device its own id",
                            self.options.client_id
                        ),
                    ),
                    DisconnectReasonCode::ServerShuttingDown => {
                        Reason::new(ReasonCode::BrokerUnreachable, format!("{to} is shutting down"))
                    }
                    other => Reason::new(
                        ReasonCode::BrokerUnreachable,
                        format!("{to} ended the connection: {other:?}, {why}"),
                    ),
                }
            }
            ConnectionError::Tls(error) => {
                let why = fault_in(error).map(|fault| explain(tls::TABLE, fault));
                let why = why.unwrap_or_else(|| format!("no TLS connection: {error}; check mqtt.url"));
                Reason::new(ReasonCode::BrokerRefused, format!("{to}: {why}"))
            }
            ConnectionError::Io(error) => {
                let why = match error.kind() {
                    // A server that wants a certificate says so only after the handshake.
                    _ if fault_in(error).is_some() => {
                        fault_in(error).map(|fault| explain(tls::TABLE, fault)).unwrap_or_default()
                    }
                    std::io::ErrorKind::ConnectionRefused => {
                        "nothing listens there; is the broker running?".to_owned()
                    }
                    _ => format!("{error}; check mqtt.url and the network"),
                };
                Reason::new(ReasonCode::BrokerUnreachable, format!("{to}: {why}"))
            }
            ConnectionError::Timeout(_) => Reason::new(
                ReasonCode::BrokerUnreachable,
                format!(
                    "{to} did not answer within {} s; check mqtt.url and the network",
                    CONNECT_TIMEOUT.as_secs()
                ),
            ),
            ConnectionError::NotConnAck(_) => Reason::new(
                ReasonCode::BrokerRefused,
                format!("{to} does not speak MQTT 5; check the port and the broker's version"),
            ),
            other => {
                let detail = format!("{to}: {other}; check mqtt.url and the network");
                Reason::new(ReasonCode::BrokerUnreachable, detail)
            }
        }
    }

    fn refusal(&self, code: ConnectReturnCode) -> String {
        use ConnectReturnCode as Code;
        match code {
            Code::BadUserNamePassword | Code::NotAuthorized | Code::BadAuthenticationMethod => {
                match &self.options.login {
                    Some((user, _)) => format!(
                        "refuses user \"{user}\": wrong user name or password, or not allowed; check mqtt.username and mqtt.password_file"
                    ),
                    None => {
                        "refuses a connection without a user name; set mqtt.username and mqtt.password_file"
                            .to_owned()
                    }
                }
            }
            Code::BadClientId | Code::ClientIdentifierNotValid => {
                format!(
                    "refuses the client id \"{}\"; allow it there or set device.id",
                    self.options.client_id
                )
            }
            Code::RefusedProtocolVersion | Code::UnsupportedProtocolVersion => {
                "does not speak MQTT 5; use a broker that does, such as mosquitto 1.6 or newer".to_owned()
            }
            Code::Banned => "has banned this client".to_owned(),
            other => format!("refuses the connection: {other:?}"),
        }
    }
}

/// An endless row of waits with jitter of its own: a fleet does not come back in one moment.
fn waits() -> backon::ExponentialBackoff {
    backon::ExponentialBuilder::new()
        .with_min_delay(BACKOFF.0)
        .with_max_delay(BACKOFF.1)
        .without_max_times()
        .with_jitter()
        // Without a seed, and without its `std` feature, the crate's is the same on every device.
        .with_jitter_seed(getrandom::u64().unwrap_or(u64::from(std::process::id())))
        .build()
}

/// The library's own text holds the whole request; only its kind is told.
fn client_error(error: &ClientError) -> &'static str {
    match error {
        ClientError::RequestChannelFull(_) => "too much is queued",
        ClientError::RequestChannelDisconnected(_) => "the connection is closed",
        ClientError::InvalidRequest(_) => "the topic is not valid",
        _ => "the client refused it",
    }
}

fn not_queued(error: ClientError) -> PublishError {
    match error {
        ClientError::InvalidRequest(_) => {
            PublishError::Refused(Reason::new(ReasonCode::BadRequest, client_error(&error)))
        }
        _ => PublishError::NotNow,
    }
}

fn undelivered(topic: &str, error: PublishNoticeError) -> PublishError {
    let reason = |detail: String| Reason::new(ReasonCode::BrokerRefused, detail);
    match error {
        PublishNoticeError::V5PubAck(PubAckReason::NotAuthorized) => PublishError::Refused(reason(format!(
            "the broker does not let us publish to {topic}; allow it in its access list"
        ))),
        PublishNoticeError::V5PubAck(
            code @ (PubAckReason::TopicNameInvalid | PubAckReason::PayloadFormatInvalid),
        ) => PublishError::Refused(reason(format!("the broker refuses a message to {topic}: {code:?}"))),
        PublishNoticeError::RetainNotSupported => PublishError::Refused(reason(
            "the broker does not keep retained messages; allow them there".to_owned(),
        )),
        PublishNoticeError::V5PubAck(code) => {
            PublishError::Later(reason(format!("the broker did not take a message to {topic}: {code:?}")))
        }
        _ => PublishError::Lost,
    }
}
