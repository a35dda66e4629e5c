//! Keeps a source alive: starts the capture child, notices when it stalls or dies, starts it again
//! after a wait that grows from half a second to a quarter of a minute, and pauses it while nobody
//! needs its frames.
//!
//! A camera that nobody needs is opened all the same and gives one frame, so that a device without a
//! model says whether its camera works. Nothing here runs on a timer of its own: between two events it
//! sleeps until the next deadline.

use super::film::{Claims, Film};
use super::{Ask, Handle, Picture, Plan, Status};
use crate::domain::backoff::Backoff;
use crate::domain::health::SourceState;
use crate::domain::{PipelineName, Reason, ReasonCode};
use crate::process::child::{CaptureChild, Event};
use crate::process::protocol::{FromCapture, ToCapture};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// Shortest and longest wait before the capture child is started again, spread by up to a quarter.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
/// No wait before a start is longer.
pub const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// Nobody has needed a frame for so long: the camera is paused. Spares it an off and on when a model
/// is exchanged.
const LINGER: Duration = Duration::from_secs(2);
/// Requests for a picture that may be open at once.
const MAX_SNAPSHOTS: usize = 8;

/// Starts a camera; it runs until [`Handle::stop`] or until every handle is gone.
pub fn spawn(plan: Plan) -> Handle {
    let plan = Arc::new(plan);
    let (asks, inbox) = mpsc::channel(32);
    let (status_out, status) = watch::channel(Status::default());
    let (needs, needed) = watch::channel(BTreeSet::new());
    let (claims, claimed) = watch::channel(Claims::new());
    let camera = Camera {
        plan: plan.clone(),
        status: Status { since: Some(Instant::now()), ..Status::default() },
        status_out,
        state: State::Away { until: Instant::now() },
        backoff: BACKOFF,
        needed,
        unneeded_since: Instant::now(),
        snapshots: HashMap::new(),
        next_snapshot: 1,
        for_next_frame: Vec::new(),
        film: plan.channel.every.then(|| Film::new(claimed, plan.source.ends())),
    };
    tokio::spawn(camera.run(inbox));
    Handle { plan, asks, needs: Arc::new(needs), claims: Arc::new(claims), status }
}

type SnapshotReply = oneshot::Sender<Result<Vec<u8>, Reason>>;

enum State {
    /// Its child runs.
    Up {
        child: CaptureChild,
        started: Instant,
        /// When it last gave a sign of life.
        alive: Instant,
        /// True once it has published a frame: it works.
        proved: bool,
        paused: bool,
    },
    /// Its child is gone and is started again then.
    Away { until: Instant },
    /// A folder read once is at its end.
    Ended,
}

struct Camera {
    plan: Arc<Plan>,
    status: Status,
    status_out: watch::Sender<Status>,
    state: State,
    backoff: Backoff,
    needed: watch::Receiver<BTreeSet<PipelineName>>,
    unneeded_since: Instant,
    /// Asked of the child.
    snapshots: HashMap<u64, SnapshotReply>,
    next_snapshot: u64,
    /// To be asked when a frame has come: the one before the pause is old.
    for_next_frame: Vec<(Picture, SnapshotReply)>,
    /// Where every frame is to be answered.
    film: Option<Film>,
}

impl Camera {
    async fn run(mut self, mut inbox: mpsc::Receiver<Ask>) {
        loop {
            let look = self.next_look();
            tokio::select! {
                ask = inbox.recv() => match ask {
                    Some(Ask::Snapshot { wanted, reply }) => self.snapshot(wanted, reply),
                    Some(Ask::Hold { held, reply }) => {
                        self.status.held = held;
                        let _ = reply.send(());
                    }
                    Some(Ask::Stop { reply }) => {
                        drop(self);
                        let _ = reply.send(());
                        return;
                    }
                    None => return,
                },
                event = next_event(&mut self.state) => self.event(event),
                // Fails when every handle is gone, which the inbox tells too.
                Ok(()) = self.needed.changed() => {}
                () = claimed(&mut self.film) => {}
                () = tokio::time::sleep_until(look.unwrap_or_else(Instant::now).into()), if look.is_some() => {
                    self.look().await;
                }
            }
            self.pause_or_resume();
            self.let_on();
            self.show();
        }
    }

    /// When there is something to look at again without an event.
    fn next_look(&self) -> Option<Instant> {
        match &self.state {
            State::Up { paused: true, .. } | State::Ended => None,
            State::Up { alive, proved, .. } => {
                let stalled = *alive + self.plan.silence();
                let may_pause = *proved && !self.is_needed();
                Some(if may_pause { stalled.min(self.unneeded_since + LINGER) } else { stalled })
            }
            State::Away { until } => Some(*until),
        }
    }

    /// Starts the child when it is time; ends it when it has been silent for too long.
    async fn look(&mut self) {
        match &self.state {
            State::Up { alive, paused: false, .. } if alive.elapsed() >= self.plan.silence() => {
                // What it complained of since its last frame says more than its silence.
                let stalled = || {
                    let detail = format!(
                        "source of pipeline {}: no frame for {:?}; its process is started again",
                        self.plan.name, self.plan.stall_timeout
                    );
                    Reason::new(ReasonCode::ChildHung, detail)
                };
                let reason = self.status.fault.clone().unwrap_or_else(stalled);
                self.lost(reason);
            }
            State::Away { until } if Instant::now() >= *until => {
                if let Err(reason) = self.start().await {
                    self.lost(reason);
                }
            }
            State::Up { .. } | State::Away { .. } | State::Ended => {}
        }
    }

    async fn start(&mut self) -> Result<(), Reason> {
        let begin = self.film.as_mut().map(|film| film.begin(self.status.newest));
        let configure = ToCapture::Configure {
            source: self.plan.source.clone(),
            fps: self.plan.fps,
            channel: self.plan.channel.clone(),
            first_seq: begin.map_or(self.status.newest + 1, |begin| begin.seq),
            motion: self.plan.motion.clone(),
        };
        let child = CaptureChild::start_capture(&self.plan.exe, self.plan.name.as_str(), configure).await?;
        if let Some(begin) = begin {
            child.send(ToCapture::Skip { pictures: begin.skip })?;
            child.send(ToCapture::Until { seq: begin.until })?;
        }
        let now = Instant::now();
        self.status.signs += 1;
        self.status.pid = Some(child.pid());
        self.state = State::Up { child, started: now, alive: now, proved: false, paused: false };
        self.unneeded_since = now;
        Ok(())
    }

    /// Takes one event of the child.
    fn event(&mut self, event: Option<Event<FromCapture>>) {
        let message = match event {
            Some(Event::Message(message)) => message,
            Some(Event::Exited(exit)) => return self.lost(exit.reason()),
            None => {
                let detail = format!("source of pipeline {}: its process says nothing", self.plan.name);
                return self.lost(Reason::new(ReasonCode::ChildCrashed, detail));
            }
        };
        // A fault is no sign of life: a source that gives nothing else is lost in the end.
        if !matches!(message, FromCapture::Fault { .. })
            && let State::Up { alive, .. } = &mut self.state
        {
            *alive = Instant::now();
        }
        self.status.signs += 1;
        match message {
            FromCapture::Opened { description } => {
                self.status.description = Some(description);
                // One that waits to be asked gives no frame before somebody answers it.
                if let (Some(_), State::Up { proved, .. }) = (&self.film, &mut self.state) {
                    *proved = true;
                }
            }
            FromCapture::Published { seq } => {
                self.status.newest = self.status.newest.max(seq);
                if let Some(film) = &mut self.film {
                    film.published(seq);
                }
                self.status.fault = None;
                if let State::Up { proved, paused, .. } = &mut self.state {
                    *proved = true;
                    // One that was on its way when the pause began is no end of it.
                    if !*paused {
                        self.turn(SourceState::Running);
                    }
                }
                for (wanted, reply) in std::mem::take(&mut self.for_next_frame) {
                    self.ask_child(wanted, reply);
                }
            }
            FromCapture::Alive { still } => {
                self.status.still += still;
                self.film.iter_mut().for_each(|film| film.held_back(still));
                let paused = matches!(&self.state, State::Up { paused: true, .. });
                if still > 0 && !paused {
                    self.status.fault = None;
                    self.turn(SourceState::Still);
                }
            }
            FromCapture::Fault { reason } => {
                // A good picture follows at once; without this line nobody would learn of the bad one.
                tracing::warn!(pipeline = %self.plan.name, %reason, "source");
                self.status.faults += 1;
                self.status.fault = Some(reason);
            }
            FromCapture::Snapshot { id, jpeg } => {
                if let Some(reply) = self.snapshots.remove(&id) {
                    let _ = reply.send(jpeg.and_then(|text| decode_base64(&text)));
                }
            }
            FromCapture::Ended => {
                self.state = State::Ended;
                self.status.pid = None;
                self.turn(SourceState::Ended);
                self.snapshots.clear();
                self.for_next_frame.clear();
            }
            FromCapture::Failed { reason } => self.lost(reason),
        }
    }

    /// Asks for the newest frame, or for the next one where the newest is from before a pause.
    fn snapshot(&mut self, wanted: Picture, reply: SnapshotReply) {
        self.forget_gone();
        let refuse = |why: &str| Err(Reason::new(ReasonCode::Busy, format!("snapshot: {why}")));
        let State::Up { paused, .. } = &self.state else {
            let _ = reply.send(refuse("the source is not running"));
            return;
        };
        if self.status.held {
            let _ = reply.send(refuse("the source is paused; resume it first"));
        } else if self.snapshots.len() + self.for_next_frame.len() >= MAX_SNAPSHOTS {
            let _ = reply.send(refuse("too many are under way; ask again in a second"));
        } else if self.film.is_none() && (*paused || !self.for_next_frame.is_empty()) {
            self.for_next_frame.push((wanted, reply));
        } else {
            self.ask_child(wanted, reply);
        }
    }

    fn ask_child(&mut self, wanted: Picture, reply: SnapshotReply) {
        let State::Up { child, .. } = &self.state else { return };
        let id = self.next_snapshot;
        self.next_snapshot += 1;
        let Picture { max_edge, boxes } = wanted;
        match child.send(ToCapture::Snapshot { id, max_edge, boxes }) {
            Ok(()) => drop(self.snapshots.insert(id, reply)),
            Err(reason) => drop(reply.send(Err(reason))),
        }
    }

    /// Those who asked for a picture and no longer wait.
    fn forget_gone(&mut self) {
        self.snapshots.retain(|_, open| !open.is_closed());
        self.for_next_frame.retain(|(_, open)| !open.is_closed());
    }

    fn is_needed(&self) -> bool {
        !self.needed.borrow().is_empty() || !self.snapshots.is_empty() || !self.for_next_frame.is_empty()
    }

    fn pause_or_resume(&mut self) {
        self.forget_gone();
        let now = Instant::now();
        if self.is_needed() {
            self.unneeded_since = now;
        }
        let State::Up { child, alive, proved, paused, .. } = &mut self.state else { return };
        let unneeded = *proved && now >= self.unneeded_since + LINGER;
        let wanted = self.status.held || unneeded;
        if wanted == *paused {
            return;
        }
        *paused = wanted;
        *alive = now;
        match child.send(ToCapture::Pause { paused: wanted }) {
            Ok(()) if wanted => self.turn(SourceState::Paused),
            Ok(()) => self.turn(SourceState::Opening),
            Err(reason) => self.lost(reason),
        }
    }

    /// Lets the child go further, where the answers allow it.
    fn let_on(&mut self) {
        if let (Some(film), State::Up { child, .. }) = (&mut self.film, &self.state)
            && let Some(seq) = film.further()
            && let Err(reason) = child.send(ToCapture::Until { seq })
        {
            self.lost(reason);
        }
    }

    fn lost(&mut self, reason: Reason) {
        let ran = match &self.state {
            State::Up { started, proved: true, .. } => started.elapsed(),
            State::Up { .. } | State::Away { .. } | State::Ended => Duration::ZERO,
        };
        let mut dice = [128];
        // Without randomness devices come back in step, which does no harm to this one.
        let _ = getrandom::fill(&mut dice);
        // Dropping the child ends its process.
        self.state = State::Away { until: Instant::now() + self.backoff.after(ran, dice[0]) };
        self.snapshots.clear();
        self.for_next_frame.clear();
        self.status.pid = None;
        self.status.description = None;
        self.status.losses += 1;
        self.status.signs += 1;
        self.status.fault = Some(reason);
        self.turn(SourceState::Lost);
    }

    fn turn(&mut self, state: SourceState) {
        if self.status.state != state {
            self.status.state = state;
            self.status.since = Some(Instant::now());
        }
    }

    fn show(&self) {
        self.status_out.send_if_modified(|shown| {
            let changed = *shown != self.status;
            if changed {
                shown.clone_from(&self.status);
            }
            changed
        });
    }
}

/// The child's next event; never where there is no child.
async fn next_event(state: &mut State) -> Option<Event<FromCapture>> {
    match state {
        State::Up { child, .. } => child.recv().await,
        State::Away { .. } | State::Ended => std::future::pending().await,
    }
}

/// Until a pipeline owes something else; never where that does not matter.
async fn claimed(film: &mut Option<Film>) {
    match film {
        Some(film) => film.changed().await,
        None => std::future::pending().await,
    }
}

fn decode_base64(text: &str) -> Result<Vec<u8>, Reason> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).map_err(|error| {
        Reason::new(ReasonCode::Internal, format!("snapshot from the capture process: {error}"))
    })
}
