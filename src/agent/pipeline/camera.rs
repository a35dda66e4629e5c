//! Keeps a pipeline's source alive: starts the capture child, notices when it stalls or dies, and
//! starts it again after a wait that grows from half a second to half a minute.

use super::{Plan, Status};
use crate::domain::{Reason, ReasonCode};
use crate::process::child::{CaptureChild, Event};
use crate::process::protocol::{FromCapture, ToCapture};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Shortest and longest wait before the capture child is started again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Requests for a picture that may be open at once.
const MAX_SNAPSHOTS: usize = 8;

/// What the source did.
pub(super) enum Seen {
    /// It published up to this number.
    Published(u64),
    /// Something is wrong with one picture; it goes on.
    Fault(Reason),
    /// It is away and will be started again.
    Lost(Reason),
    /// Nothing that others need to know.
    Quiet,
}

enum State {
    Running {
        child: CaptureChild,
        last_frame: Instant,
    },
    Waiting {
        until: Instant,
    },
    /// A folder read once is at its end.
    Ended,
}

/// The capture child and its restarts.
pub(super) struct Camera {
    state: State,
    backoff: Duration,
    /// Which start of the child is meant by an event; events of earlier ones are dropped.
    generation: u64,
    events: mpsc::Sender<(u64, Event<FromCapture>)>,
    snapshots: HashMap<u64, oneshot::Sender<Result<Vec<u8>, Reason>>>,
    next_snapshot: u64,
}

impl Camera {
    /// Not started yet; [`Camera::tick`] starts it.
    pub(super) fn new(events: mpsc::Sender<(u64, Event<FromCapture>)>) -> Self {
        Self {
            state: State::Waiting { until: Instant::now() },
            backoff: BACKOFF.0,
            generation: 0,
            events,
            snapshots: HashMap::new(),
            next_snapshot: 1,
        }
    }

    /// The child's process id.
    pub(super) fn pid(&self) -> Option<u32> {
        match &self.state {
            State::Running { child, .. } => Some(child.pid()),
            State::Waiting { .. } | State::Ended => None,
        }
    }

    /// Starts the child when it is time; ends it when it has been silent for too long.
    pub(super) async fn tick(&mut self, plan: &Plan, newest: u64, status: &mut Status) -> Seen {
        match &self.state {
            State::Running { last_frame, .. } if last_frame.elapsed() > plan.stall_timeout => {
                let reason = Reason::new(
                    ReasonCode::ChildHung,
                    format!(
                        "source of pipeline {}: no frame for {:?}; its process is started again",
                        plan.name, plan.stall_timeout
                    ),
                );
                self.lost(reason, status)
            }
            State::Waiting { until } if Instant::now() >= *until => match self.start(plan, newest).await {
                Ok(()) => Seen::Quiet,
                Err(reason) => self.lost(reason, status),
            },
            State::Running { .. } | State::Waiting { .. } | State::Ended => Seen::Quiet,
        }
    }

    async fn start(&mut self, plan: &Plan, newest: u64) -> Result<(), Reason> {
        self.generation += 1;
        let configure = ToCapture::Configure {
            source: plan.source.clone(),
            fps: plan.fps,
            channel: plan.channel.clone(),
            first_seq: newest + 1,
        };
        let mut child = CaptureChild::start_capture(&plan.exe, plan.name.as_str(), configure).await?;
        let mut from_child = child.take_events();
        let (events, generation) = (self.events.clone(), self.generation);
        tokio::spawn(async move {
            while let Some(event) = from_child.recv().await {
                if events.send((generation, event)).await.is_err() {
                    return;
                }
            }
        });
        self.state = State::Running { child, last_frame: Instant::now() };
        Ok(())
    }

    /// Takes one event of the child.
    pub(super) fn event(
        &mut self,
        (generation, event): (u64, Event<FromCapture>),
        status: &mut Status,
    ) -> Seen {
        if generation != self.generation {
            return Seen::Quiet;
        }
        match event {
            Event::Message(FromCapture::Opened { description }) => {
                status.source = Some(description);
                Seen::Quiet
            }
            Event::Message(FromCapture::Published { seq }) => {
                if let State::Running { last_frame, .. } = &mut self.state {
                    *last_frame = Instant::now();
                }
                self.backoff = BACKOFF.0;
                status.source_fault = None;
                Seen::Published(seq)
            }
            Event::Message(FromCapture::Fault { reason }) => {
                if let State::Running { last_frame, .. } = &mut self.state {
                    *last_frame = Instant::now();
                }
                status.source_fault = Some(reason.clone());
                Seen::Fault(reason)
            }
            Event::Message(FromCapture::Snapshot { id, jpeg }) => {
                if let Some(reply) = self.snapshots.remove(&id) {
                    let _ = reply.send(jpeg.and_then(|text| decode_base64(&text)));
                }
                Seen::Quiet
            }
            Event::Message(FromCapture::Ended) => {
                self.state = State::Ended;
                status.ended = true;
                self.snapshots.clear();
                Seen::Quiet
            }
            Event::Message(FromCapture::Failed { reason }) => self.lost(reason, status),
            Event::Exited(exit) => match &self.state {
                State::Running { .. } => self.lost(exit.reason(), status),
                State::Waiting { .. } | State::Ended => Seen::Quiet,
            },
        }
    }

    /// Asks for the newest frame.
    pub(super) fn snapshot(&mut self, max_edge: u32, reply: oneshot::Sender<Result<Vec<u8>, Reason>>) {
        self.snapshots.retain(|_, open| !open.is_closed());
        let refuse = |why: &str| Err(Reason::new(ReasonCode::Busy, format!("snapshot: {why}")));
        let State::Running { child, .. } = &self.state else {
            let _ = reply.send(refuse("the source is not running"));
            return;
        };
        if self.snapshots.len() >= MAX_SNAPSHOTS {
            let _ = reply.send(refuse("too many are under way; ask again in a second"));
            return;
        }
        let id = self.next_snapshot;
        self.next_snapshot += 1;
        match child.send(ToCapture::Snapshot { id, max_edge }) {
            Ok(()) => {
                self.snapshots.insert(id, reply);
            }
            Err(reason) => {
                let _ = reply.send(Err(reason));
            }
        }
    }

    fn lost(&mut self, reason: Reason, status: &mut Status) -> Seen {
        // Dropping the child ends its process.
        self.state = State::Waiting { until: Instant::now() + self.backoff };
        self.backoff = (self.backoff * 2).min(BACKOFF.1);
        self.generation += 1;
        self.snapshots.clear();
        status.source = None;
        status.source_fault = Some(reason.clone());
        Seen::Lost(reason)
    }
}

fn decode_base64(text: &str) -> Result<Vec<u8>, Reason> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).map_err(|error| {
        Reason::new(ReasonCode::Internal, format!("snapshot from the capture process: {error}"))
    })
}
