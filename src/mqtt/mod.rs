//! The device's side of MQTT 5: what it says, what it is asked, and that both arrive.
//!
//! ```text
//! Handle ── live ────────────────────────────┐
//!        └─ orders → pump ⇄ spool (disk)     ├→ client → broker
//! Replies ─ orders ──┘    └──────────────────┘     │
//! agent ← Incoming ← gate ← address ← inbox ←──────┘
//! ```
//!
//! What may be missed (results, metrics, snapshots) goes straight to the client or is dropped and
//! counted. What must arrive (slot states, changes of health, replies) goes through the [`spool`].
//! This folder never decides what a command does, never reads a model or a frame, and never waits
//! for the broker on the agent's time.

pub mod client;
pub mod commands;
mod events;
pub mod gate;
pub mod homeassistant;
pub mod message;
pub mod operator;
pub mod payloads;
mod pump;
mod replies;
pub mod spool;
pub mod subscriber;
mod throttle;
mod tls;
pub mod topics;

pub use message::State;
pub use payloads::Birth;
pub use replies::{Replies, ReplyAddress};

use crate::config::settings::MqttSettings;
use crate::domain::command::{Progress, Request};
use crate::domain::deployment::SlotState;
use crate::domain::health::{HealthReport, LinkHealth};
use crate::domain::importance::Importance;
use crate::domain::metrics::{MetricsReport, MqttMetrics};
use crate::domain::refusal::RefusalKind;
use crate::domain::{DeviceId, FrameResult, PipelineName, Reason, ReasonCode};
use crate::sys::secret;
use bytes::Bytes;
use client::{Connection, Options};
use commands::{Addressee, RawCommand};
use gate::Gate;
use message::{Message, Received};
use payloads::{MAX_PAYLOAD, ReplyStatus, SENT_SIZE, Stamper};
use pump::{Counters, Order, Pump};
use replies::Window;
use serde::Serialize;
use spool::{Spool, Spooled};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use throttle::Throttle;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use topics::{Audience, Said, Topics};

/// How long the broker keeps commands for a device that is away.
const SESSION: Duration = Duration::from_secs(3600);
/// Orders that wait for the pump.
const ORDERS: usize = 1024;

/// A command for the agent.
#[derive(Debug)]
pub struct Incoming {
    /// What is asked.
    pub request: Request,
    /// Its answers.
    pub replies: Replies,
}

/// What all parts of the device's side share.
#[derive(Debug)]
pub(crate) struct Link {
    topics: Topics,
    device: DeviceId,
    connection: Arc<Connection>,
    stamper: Arc<Stamper>,
    orders: mpsc::Sender<Order>,
    window: Mutex<Window>,
    counters: Arc<Counters>,
    live_dropped: AtomicU64,
    commands_refused: AtomicU64,
}

/// A word of others that the agent wants to hear of.
#[derive(Debug)]
pub struct Listening {
    /// The topic, without wildcards, beside those of the commands.
    pub topic: String,
    /// The payload.
    pub word: &'static [u8],
    /// Told when it was said; several times at once count once.
    pub heard: Arc<Notify>,
}

/// Connects the device that `birth` presents, and keeps it connected until [`Handle::shutdown`]. Returns at once;
/// call it inside a tokio runtime. Commands that `gate` lets in are handed to `commands`; while it is full, they
/// are answered `busy`, and the gate does not hear of them.
///
/// # Errors
/// [`ReasonCode::BadRequest`] for a root or device id that cannot be part of a topic, and for a
/// password or certificate file that cannot be read. A broker that is not there is no error.
pub fn start(
    settings: &MqttSettings,
    birth: Birth,
    spool: Spool,
    commands: mpsc::Sender<Incoming>,
    gate: Arc<dyn Gate>,
    listening: Option<Listening>,
) -> Result<Handle, Reason> {
    let addressee = Addressee { device: birth.device.clone(), groups: birth.groups.clone() };
    let Addressee { device, groups } = &addressee;
    let topics = Topics::new(&settings.root)?;
    topics::check_device(device)?;
    let availability = topics.said(device, &Said::Availability);
    let audiences =
        std::iter::once(Audience::Device(device.clone())).chain(groups.iter().cloned().map(Audience::Group));
    let (connection, received) = Connection::open(Options {
        will: Some(Message {
            topic: availability.clone(),
            payload: payloads::OFFLINE.into(),
            retain: true,
            ..Message::default()
        }),
        session: Some(SESSION),
        // Its own availability, to contradict a will that the broker publishes late.
        subscriptions: audiences
            .map(|audience| topics.commands(&audience))
            .chain([availability.clone()])
            .chain(listening.iter().map(|listening| listening.topic.clone()))
            .collect(),
        ..Options::of(settings, device.to_string())?
    })?;
    let connection = Arc::new(connection);
    let counters = Arc::new(Counters::default());
    let (orders, intake) = mpsc::channel(ORDERS);
    let stamper = Arc::new(Stamper::new(device.clone(), birth.boot_id.clone()));
    let own =
        pump::Own { availability, dropped: topics.said(device, &Said::Dropped), stamper: stamper.clone() };
    let pump = Pump::new(connection.clone(), intake, counters.clone(), own, spool);
    let link = Arc::new(Link {
        topics,
        device: device.clone(),
        connection,
        stamper,
        orders,
        window: Mutex::default(),
        counters,
        live_dropped: AtomicU64::new(0),
        commands_refused: AtomicU64::new(0),
    });
    link.newest(&Said::Birth, birth);
    tokio::spawn(inbox(link.clone(), addressee, received, commands, gate, listening));
    let (stop, stopped) = oneshot::channel();
    let pump = tokio::spawn(pump.run(stopped));
    Ok(Handle {
        throttle: Arc::new(Throttle::new(settings.results_per_second)),
        link,
        health: Arc::default(),
        running: Arc::new(Mutex::new(Some(Running { stop, pump }))),
        target: target(settings),
    })
}

/// The user name and the password from its file.
fn login(
    username: Option<&String>,
    password_file: Option<&PathBuf>,
) -> Result<Option<(String, Vec<u8>)>, Reason> {
    let Some(username) = username else { return Ok(None) };
    let password = password_file.map(|file| password(file)).transpose()?;
    Ok(Some((username.clone(), password.unwrap_or_default())))
}

/// The password that a file holds, without the line break at its end.
///
/// # Errors
/// [`ReasonCode::BadRequest`] for a file that cannot be read; it names `mqtt.password_file`.
pub fn password(path: &Path) -> Result<Vec<u8>, Reason> {
    let mut password =
        std::fs::read(path).map_err(|error| secret::unreadable("mqtt.password_file", path, &error))?;
    while password.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
        password.pop();
    }
    Ok(password)
}

/// The broker, for people.
fn target(settings: &MqttSettings) -> String {
    let scheme = match (settings.web_path.is_some(), settings.tls.is_some()) {
        (false, false) => "mqtt",
        (false, true) => "mqtts",
        (true, false) => "ws",
        (true, true) => "wss",
    };
    let path = settings.web_path.as_deref().unwrap_or_default();
    format!("{scheme}://{}:{}{path}", settings.host, settings.port)
}

/// Reads what comes in. Ends with the connection or the agent.
async fn inbox(
    link: Arc<Link>,
    addressee: Addressee,
    mut received: mpsc::Receiver<Received>,
    agent: mpsc::Sender<Incoming>,
    gate: Arc<dyn Gate>,
    listening: Option<Listening>,
) {
    let availability = link.topics.said(&link.device, &Said::Availability);
    while let Some(message) = received.recv().await {
        if message.topic == availability {
            // One that was kept is from before this connection, which says `online` after it.
            if message.payload == payloads::OFFLINE && !message.retained {
                let _ = link.orders.try_send(Order::Online);
            }
            continue;
        }
        if let Some(listening) = listening.as_ref().filter(|listening| listening.topic == message.topic) {
            if message.payload[..] == *listening.word {
                listening.heard.notify_one();
            }
            continue;
        }
        let raw = RawCommand { topic: &message.topic, payload: &message.payload, retained: message.retained };
        let asked = match commands::address(&link.topics, &addressee, raw) {
            Ok(asked) => asked,
            Err(refusal) => {
                tracing::warn!("mqtt: refused: {}", refusal.reason);
                link.commands_refused.fetch_add(1, Ordering::Relaxed);
                gate.turned_away(&refusal);
                if let Some((command, id)) = refusal.named {
                    let to = ReplyAddress::new(&link, &command, &id, &message);
                    to.answer_live(&link, ReplyStatus::Failed { reason: refusal.reason });
                }
                continue;
            }
        };
        let (name, id) = (&asked.command, &asked.id);
        let to = ReplyAddress::new(&link, name, id, &message);
        let last = link.window().known(name, id);
        if let Some(last) = last {
            tracing::info!("mqtt: {name} {id} came again, answered as before");
            to.answer_live(&link, last);
            continue;
        }
        let Ok(place) = agent.try_reserve() else {
            let detail = format!("command {name} {id}: too many commands wait already; send it again");
            let reason = Reason::new(ReasonCode::Busy, detail);
            link.commands_refused.fetch_add(1, Ordering::Relaxed);
            let named = Some((name.clone(), id.clone()));
            gate.turned_away(&commands::Refusal {
                kind: RefusalKind::Waiting,
                named,
                reason: reason.clone(),
            });
            to.answer_live(&link, ReplyStatus::Failed { reason });
            continue;
        };
        match gate.admit(&asked).await {
            Ok(command) => {
                let command = match asked.audience {
                    Audience::Device(_) => command,
                    Audience::Group(_) => command.to_a_group(),
                };
                tracing::info!("mqtt: command {name} {id}");
                link.window().admit(name, id);
                let replies = Replies::begin(link.clone(), to);
                place.send(Incoming { request: Request { id: id.clone(), command }, replies });
            }
            // It is not remembered, so that a good one under the same name may follow.
            Err(reason) => {
                tracing::warn!("mqtt: refused: {reason}");
                link.commands_refused.fetch_add(1, Ordering::Relaxed);
                to.answer_live(&link, ReplyStatus::Failed { reason });
            }
        }
    }
}

impl Link {
    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stamped body as JSON.
    fn json<T: Serialize>(&self, body: T) -> Option<String> {
        let json = self.stamper.json(body);
        json.inspect_err(|error| tracing::error!("mqtt: a payload has no JSON form: {error}")).ok()
    }

    /// Publishes now or drops and counts.
    fn live(&self, message: Message) {
        if message.payload.len() > MAX_PAYLOAD {
            tracing::debug!("mqtt: dropped {} bytes to {}", message.payload.len(), message.topic);
        } else if self.connection.try_publish(message).is_ok() {
            return;
        }
        self.live_dropped.fetch_add(1, Ordering::Relaxed);
    }

    fn live_json<T: Serialize>(&self, said: &Said, body: T) {
        if let Some(json) = self.json(body) {
            let topic = self.topics.said(&self.device, said);
            let content_type = Some("application/json".to_owned());
            let payload = payloads::sent(json.as_bytes(), jiff::Timestamp::now()).into();
            self.live(Message { topic, payload, content_type, ..Message::default() });
        }
    }

    /// Hands an order to the pump; where that is stuck, drops and counts.
    fn order(&self, order: Order) {
        let class = order.class();
        if self.orders.try_send(order).is_err() {
            self.counters.lost(class);
            tracing::error!(
                "mqtt: a message that must arrive was dropped: the spool's disk is too slow, or the agent ends"
            );
        }
    }

    /// Publishes a retained topic as soon as may be; only the newest payload counts.
    fn newest<T: Serialize>(&self, said: &Said, body: T) {
        if let Some(json) = self.fitting(said, body, Importance::Health) {
            let topic = self.topics.said(&self.device, said);
            self.order(Order::Newest { topic, payload: json.into_bytes() });
        }
    }

    /// Publishes every payload of a topic except those that a later one with the same key replaces.
    fn must_arrive<T: Serialize>(&self, said: &Said, body: T, key: Option<&str>, class: Importance) {
        if let Some(payload) = self.fitting(said, body, class) {
            let topic = self.topics.said(&self.device, said);
            let replaces = key.map(|key| format!("{topic} {key}"));
            let retain = said.is_retained();
            let spooled = Spooled { topic, retain, payload, correlation: None, replaces, class, timed: true };
            self.order(Order::Spool(spooled));
        }
    }

    /// JSON that a broker will take: oversize is refused before it is spooled.
    fn fitting<T: Serialize>(&self, said: &Said, body: T, class: Importance) -> Option<String> {
        let json = self.json(body)?;
        let Err(reason) = self.fits(&self.topics.said(&self.device, said), json.len(), None) else {
            return Some(json);
        };
        self.counters.lost(class);
        tracing::error!("mqtt: dropped: {reason}");
        None
    }

    /// Whether JSON of so many bytes, with its time of sending, is within what a message may have, and within what
    /// the broker takes as far as is known.
    fn fits(&self, topic: &str, bytes: usize, correlation: Option<&[u8]>) -> Result<(), Reason> {
        let bytes = bytes + SENT_SIZE;
        if bytes > MAX_PAYLOAD {
            let detail = format!("message to {topic} has {bytes} bytes, a message holds {MAX_PAYLOAD}");
            return Err(Reason::new(ReasonCode::BadRequest, detail));
        }
        self.connection.would_take(topic, bytes, correlation)
    }
}

/// The agent's hold on all of it; cheap to clone. No method waits for the broker.
#[derive(Debug, Clone)]
pub struct Handle {
    link: Arc<Link>,
    throttle: Arc<Throttle>,
    health: Arc<Mutex<Option<HealthReport>>>,
    running: Arc<Mutex<Option<Running>>>,
    target: String,
}

/// The task that publishes what must arrive.
#[derive(Debug)]
struct Running {
    /// Tells it by when to end.
    stop: oneshot::Sender<tokio::time::Instant>,
    pump: JoinHandle<()>,
}

impl Handle {
    /// Presents the device anew, where something of its birth has changed.
    pub fn present(&self, birth: Birth) {
        self.link.newest(&Said::Birth, birth);
    }

    /// Says what the model saw: at most `results_per_second` a pipeline; may be missed.
    pub fn telemetry(&self, pipeline: &PipelineName, result: &FrameResult) {
        if self.throttle.admit(pipeline, std::time::Instant::now()) {
            self.link.live_json(&Said::Telemetry(pipeline.clone()), result);
        }
    }

    /// Says what a slot runs and where its deployment stands. Every stage arrives; within a stage
    /// the newest progress does.
    pub fn slot_state(&self, state: &SlotState) {
        let key = state
            .deployment
            .as_ref()
            .map_or_else(String::new, |deployment| format!("{} {:?}", deployment.id, deployment.stage));
        let said = Said::SlotState(state.slot.clone());
        self.link.must_arrive(&said, state, Some(&key), Importance::Deployment);
    }

    /// Says how the device is. A change of the judgement must arrive; figures alone may be missed.
    pub fn health(&self, report: &HealthReport) {
        let mut last = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_none_or(|last| report.differs(last)) {
            self.link.must_arrive(&Said::Health, report, Some(""), Importance::Health);
        } else {
            self.link.newest(&Said::Health, report);
        }
        *last = Some(report.clone());
    }

    /// Says the figures; may be missed.
    pub fn metrics(&self, report: &MetricsReport) {
        self.link.live_json(&Said::Metrics, report);
    }

    /// Says something that must arrive, at a topic of its own kind. A newer message with the same `key` takes the
    /// place of one that has not been sent.
    pub fn spooled<T: Serialize>(&self, said: &Said, body: T, key: Option<&str>, class: Importance) {
        self.link.must_arrive(said, body, key, class);
    }

    /// Waits until all that was said before is in the spool, also for room on the way there. True when it would
    /// survive a power cut; false where it is kept in memory because the disk refuses, or the agent ends.
    pub async fn accepted(&self) -> bool {
        let (answer, accepted) = oneshot::channel();
        let asked = self.link.orders.send(Order::Accepted(answer)).await;
        asked.is_ok() && accepted.await.unwrap_or(false)
    }

    /// Says a frame as a JPEG at `snapshot/<pipeline>`; may be missed.
    ///
    /// # Errors
    /// [`ReasonCode::BadRequest`] when it does not fit into a message.
    pub fn snapshot(&self, pipeline: &PipelineName, jpeg: Bytes) -> Result<(), Reason> {
        if jpeg.len() > MAX_PAYLOAD {
            let detail = format!(
                "snapshot of {pipeline} has {} bytes, a message holds {MAX_PAYLOAD}; ask for a smaller max_edge",
                jpeg.len()
            );
            return Err(Reason::new(ReasonCode::BadRequest, detail));
        }
        self.link.live(Message {
            topic: self.link.topics.said(&self.link.device, &Said::Snapshot(pipeline.clone())),
            payload: jpeg,
            content_type: Some("image/jpeg".to_owned()),
            properties: self.link.stamper.stamp().properties(),
            ..Message::default()
        });
        Ok(())
    }

    /// Answers a command whose end was handed over, maybe by an earlier run of the agent.
    pub fn answer(&self, to: ReplyAddress, end: Progress) {
        to.answer_end(&self.link, end);
    }

    /// How the connection is, and every change of it.
    pub fn connected(&self) -> watch::Receiver<State> {
        self.link.connection.state()
    }

    /// The broker's part of a health report.
    pub fn link_health(&self) -> LinkHealth {
        let (reached, last_error) = match &*self.link.connection.state().borrow() {
            State::Connecting => (false, None),
            State::Up { .. } => (true, None),
            State::Down { reason } => (false, Some(reason.clone())),
        };
        LinkHealth { target: Some(self.target.clone()), reached, last_error }
    }

    /// The figures of the way to the broker. `spool_dropped` is `Facts::messages_lost`.
    pub fn figures(&self) -> MqttMetrics {
        let (link, counters) = (&self.link, &self.link.counters);
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        MqttMetrics {
            connected: link.connection.state().borrow().generation().is_some(),
            connects: link.connection.connects(),
            spool_len: get(&counters.spool_len),
            spool_bytes: get(&counters.spool_bytes),
            spool_dropped: counters.dropped().total(),
            dropped: counters.dropped(),
            live_dropped: get(&link.live_dropped),
            published: get(&counters.published),
            commands_refused: get(&link.commands_refused),
        }
    }

    /// Sends what waits, says `offline`, and says goodbye to the broker, within `deadline`. What is
    /// not acknowledged by then stays in the spool. Only the first call does something.
    pub async fn shutdown(&self, deadline: Duration) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Running { stop, mut pump }) = running else { return };
        let by = tokio::time::Instant::now() + deadline;
        let _ = stop.send(by);
        // A little more than it was given, so that it is not cut within its last step.
        if tokio::time::timeout_at(by + Duration::from_millis(500), &mut pump).await.is_err() {
            pump.abort();
        }
    }
}
