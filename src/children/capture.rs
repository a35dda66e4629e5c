//! The capture child: asks the source for a frame when one is due, and publishes it.
//!
//! A source that gives a frame whenever it is asked is asked at fixed points in time, so that the pace
//! does not drift with the time that the work takes. One that cannot keep up loses points in time; it
//! is never made to catch up. A live source is listened to all the time, and the frames above the
//! wanted pace are left out.
//!
//! A source that is lost ends this process: the agent starts another one after a while, so a camera
//! that was away for hours comes back by itself.

use crate::children::film::{Film, Turn};
use crate::children::link::{Answers, Gone, NoOrder, Orders, first};
use crate::children::{confine, snapshot, topic};
use crate::domain::frame::FrameView;
use crate::domain::motion::{Detector, Gate, MotionSettings};
use crate::domain::pace::Pace as Cap;
use crate::domain::source::SourceSettings;
use crate::domain::{FrameMeta, Reason, ReasonCode};
use crate::inference::reduce::Reducer;
use crate::inference::source::{Next, Pace, Source, Trouble};
use crate::process::frames::FramePublisher;
use crate::process::protocol::{Boxes, FrameChannel, FromCapture, ToCapture};
use crate::sys::monotonic;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// The same fault again is told at most this often; a dead camera fails at every frame.
const SAME_FAULT_EVERY: Duration = Duration::from_secs(10);
/// Between two signs of life while no frame is published.
const LIFE_EVERY: Duration = Duration::from_millis(500);
/// Published frames are told of at most this often: the agent needs the newest number, not each. What a
/// child that is killed has not told, its successor numbers again, and the models pass it over.
const TELL_EVERY: Duration = Duration::from_millis(20);
/// A live source is waited for so long before orders are looked at again.
const LISTEN: Duration = Duration::from_millis(100);

/// Runs until the agent closes the socket.
///
/// # Errors
/// Why the source cannot be read; the agent has been told.
pub fn run(socket: UnixStream) -> Result<(), Reason> {
    let Some(message) = first::<ToCapture>(&socket)? else { return Ok(()) };
    let ToCapture::Configure { source, fps, channel, first_seq, motion } = message else {
        return Err(Reason::new(ReasonCode::Internal, "child: the first message was not configure"));
    };
    let mut answers = Answers::new(&socket)?;
    confine::before(&source);
    match Camera::open(&source, fps, &channel, first_seq, motion.as_ref()) {
        Ok((camera, description)) => {
            // The threads must be locked in too, so they are started only now.
            confine::after(&source, &channel);
            let orders = Orders::listen(socket)?;
            let served = match answers.say(&FromCapture::Opened { description }) {
                Ok(()) => camera.serve(&orders, &mut answers),
                Err(Gone) => Err(End::Gone),
            };
            match served {
                // How a child is meant to end.
                Ok(()) | Err(End::Gone) => Ok(()),
                Err(End::Lost(reason)) => {
                    let _ = answers.say(&FromCapture::Failed { reason: reason.clone() });
                    Err(reason)
                }
            }
        }
        Err(reason) => {
            // A closed socket changes nothing: this is the end either way.
            let _ = answers.say(&FromCapture::Failed { reason: reason.clone() });
            Err(reason)
        }
    }
}

struct Camera {
    source: Box<dyn Source>,
    publisher: FramePublisher,
    period: Duration,
    /// Keeps a live source at the wanted pace.
    cap: Cap,
    /// Holds still pictures back.
    watch: Option<Watch>,
    /// Where every frame is to be answered: how far it may go.
    film: Option<Film>,
    /// Pictures held back that were not told.
    still: u64,
    life_told: Instant,
    /// The number of the next frame.
    seq: u64,
    /// The newest number that the agent knows, and since when.
    told: (u64, Option<Instant>),
    /// The frame before it, for snapshots, and the memory for the next one.
    newest: Option<FrameMeta>,
    bytes: Vec<u8>,
    spare: Vec<u8>,
    fault_told: Option<(Reason, Instant)>,
}

/// The motion gate.
struct Watch {
    reducer: Reducer,
    detector: Detector,
    gate: Gate,
}

impl Watch {
    fn new(settings: &MotionSettings) -> Self {
        Self { reducer: Reducer::default(), detector: Detector::new(settings), gate: Gate::new(settings) }
    }

    /// True when the picture is to be held back. One that cannot be judged goes on: whoever decodes it
    /// tells what is wrong with it.
    fn is_still(&mut self, frame: FrameView<'_>) -> bool {
        let now = frame.meta.captured_mono_ns;
        match self.reducer.grey(frame) {
            Ok(Some(grey)) => !self.gate.open(self.detector.see(grey, now), now),
            Ok(None) | Err(_) => false,
        }
    }
}

/// What asking the source has led to.
enum Step {
    Went,
    Ended,
}

/// Why this process is to end.
enum End {
    /// The agent is gone.
    Gone,
    /// The source is.
    Lost(Reason),
}

impl From<Gone> for End {
    fn from(Gone: Gone) -> Self {
        End::Gone
    }
}

impl Camera {
    fn open(
        source: &SourceSettings,
        fps: f32,
        channel: &FrameChannel,
        first_seq: u64,
        motion: Option<&MotionSettings>,
    ) -> Result<(Self, String), Reason> {
        if !(fps.is_finite() && fps > 0.0) {
            return Err(Reason::new(
                ReasonCode::BadRequest,
                format!("source: {fps} frames a second; use more than 0"),
            ));
        }
        let source = topic::open(source)?;
        let description = source.describe();
        let cap = Cap::new(fps);
        let period = Duration::from_nanos(cap.period_ns());
        let camera = Self {
            source,
            publisher: FramePublisher::create(channel)?,
            period,
            cap,
            watch: motion.map(Watch::new),
            film: channel.every.then(Film::default),
            still: 0,
            life_told: Instant::now(),
            seq: first_seq,
            told: (first_seq.saturating_sub(1), None),
            newest: None,
            bytes: Vec::new(),
            spare: Vec::new(),
            fault_told: None,
        };
        Ok((camera, description))
    }

    fn serve(mut self, orders: &Orders<ToCapture>, answers: &mut Answers) -> Result<(), End> {
        let live = self.source.pace() == Pace::Live;
        let mut due = Instant::now();
        let (mut paused, mut ended) = (false, false);
        loop {
            let wait = match (paused || ended, live) {
                (true, _) => None,
                (false, true) => Some(Duration::ZERO),
                (false, false) => Some(match &self.film {
                    Some(film) => film.wait(self.seq, LIFE_EVERY),
                    None => due.saturating_duration_since(Instant::now()),
                }),
            };
            match orders.wait(wait) {
                Ok(ToCapture::Pause { paused: wanted }) => {
                    self.tell(answers)?;
                    if paused && !wanted {
                        due = Instant::now();
                    }
                    if paused != wanted
                        && let Err(trouble) = self.source.pause(wanted)
                    {
                        self.trouble(trouble, answers)?;
                    }
                    paused = wanted;
                }
                Ok(ToCapture::Snapshot { id, max_edge, boxes }) => {
                    let jpeg = self.snapshot(max_edge, boxes.as_ref());
                    answers.say(&FromCapture::Snapshot { id, jpeg })?;
                }
                Ok(ToCapture::Until { seq }) => self.film.iter_mut().for_each(|film| film.allow(seq)),
                Ok(ToCapture::Skip { pictures }) => self.film.iter_mut().for_each(|film| film.skip(pictures)),
                Ok(ToCapture::Configure { .. }) => {
                    tracing::warn!("configured twice; the second is passed over");
                }
                Err(NoOrder::Ever) => return Ok(()),
                Err(NoOrder::Yet) => match self.step(live, &mut due, answers)? {
                    Step::Went => {}
                    Step::Ended => {
                        ended = true;
                        answers.say(&FromCapture::Ended)?;
                    }
                },
            }
        }
    }

    /// Asks for one frame; publishes it, leaves it out, or tells why there is none.
    fn step(&mut self, live: bool, due: &mut Instant, answers: &mut Answers) -> Result<Step, End> {
        match self.film.as_ref().map_or(Turn::Read, |film| film.turn(self.seq)) {
            Turn::Read => {}
            Turn::Wait => return self.alive(answers),
            Turn::Over => return Ok(Step::Ended),
        }
        let asked = self.source.next(self.seq, &mut self.spare, LISTEN);
        let now = Instant::now();
        let picture = match asked {
            Ok(Next::Picture(picture)) => picture,
            Ok(Next::Pending) => return self.tell(answers).map(|()| Step::Went),
            Ok(Next::Ended) => {
                self.tell(answers)?;
                return Ok(match &mut self.film {
                    // Those on their way are still to be answered.
                    Some(film) => {
                        film.at_end();
                        Step::Went
                    }
                    None => Step::Ended,
                });
            }
            Err(trouble) => {
                *due = next_due(*due, self.period, now);
                self.film.iter_mut().for_each(Film::rest);
                return self.trouble(trouble, answers);
            }
        };
        *due = next_due(*due, self.period, now);
        if self.film.as_mut().is_some_and(Film::skips) {
            return self.alive(answers);
        }
        let (unix_ns, mono_ns) = (monotonic::unix_ns(), monotonic::now_ns());
        let captured_mono_ns = picture.captured_mono_ns.map_or(mono_ns, |at| at.min(mono_ns));
        if live && !self.cap.take(captured_mono_ns) {
            return self.alive(answers);
        }
        let age = i64::try_from(mono_ns - captured_mono_ns).unwrap_or(i64::MAX);
        let meta = FrameMeta {
            seq: self.seq,
            captured_unix_ns: unix_ns.saturating_sub(age),
            captured_mono_ns,
            width: picture.width,
            height: picture.height,
            format: picture.format,
        };
        let shown = FrameView { meta, bytes: &self.spare };
        if self.watch.as_mut().is_some_and(|watch| watch.is_still(shown)) {
            std::mem::swap(&mut self.bytes, &mut self.spare);
            self.newest = Some(meta);
            self.still += 1;
            return self.alive(answers);
        }
        if self.film.is_some() && self.still > 0 {
            // So that the agent knows where in the film this frame is.
            answers.say(&FromCapture::Alive { still: std::mem::take(&mut self.still) })?;
        }
        if let Err(error) = self.publisher.publish(&meta, &self.spare) {
            return self.trouble(Trouble::Frame(error.into()), answers);
        }
        std::mem::swap(&mut self.bytes, &mut self.spare);
        self.newest = Some(meta);
        self.seq += 1;
        // Where every frame is to be answered, the next one waits for what is told of this.
        if self.film.is_some() || self.told.1.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            self.tell(answers)?;
        }
        Ok(Step::Went)
    }

    /// Tells the newest number, where the agent does not know it.
    fn tell(&mut self, answers: &mut Answers) -> Result<(), End> {
        let newest = self.seq.saturating_sub(1);
        if newest > self.told.0 {
            self.told = (newest, Some(Instant::now()));
            answers.say(&FromCapture::Published { seq: newest })?;
        }
        Ok(())
    }

    /// A sign of life in place of a frame, now and then.
    fn alive(&mut self, answers: &mut Answers) -> Result<Step, End> {
        self.tell(answers)?;
        if self.life_told.elapsed() >= LIFE_EVERY {
            self.life_told = Instant::now();
            answers.say(&FromCapture::Alive { still: std::mem::take(&mut self.still) })?;
        }
        Ok(Step::Went)
    }

    fn trouble(&mut self, trouble: Trouble, answers: &mut Answers) -> Result<Step, End> {
        // Before the fault: a good frame ends one.
        self.tell(answers)?;
        let reason = match trouble {
            Trouble::Frame(reason) => reason,
            Trouble::Lost(reason) => return Err(End::Lost(reason)),
        };
        let now = Instant::now();
        let again = |(told, at): &(Reason, Instant)| *told == reason && now - *at < SAME_FAULT_EVERY;
        if !self.fault_told.as_ref().is_some_and(again) {
            self.fault_told = Some((reason.clone(), now));
            answers.say(&FromCapture::Fault { reason })?;
        }
        Ok(Step::Went)
    }

    fn snapshot(&self, max_edge: u32, boxes: Option<&Boxes>) -> Result<String, Reason> {
        let Some(meta) = self.newest else {
            let detail = "snapshot: no frame has come yet; try again when one has";
            return Err(Reason::new(ReasonCode::NotFound, detail));
        };
        snapshot::jpeg_base64(FrameView { meta, bytes: &self.bytes }, max_edge, boxes)
    }
}

/// The next point in time at which a frame is due: one period on, or now where that has passed already.
fn next_due(due: Instant, period: Duration, now: Instant) -> Instant {
    (due + period).max(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_keeps_its_points_in_time_and_never_catches_up() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let period = Duration::from_millis(100);
        assert_eq!(next_due(at(0), period, at(30)), at(100), "work takes no time off the pace");
        assert_eq!(next_due(at(100), period, at(199)), at(200));
        assert_eq!(next_due(at(200), period, at(950)), at(950), "what is lost is lost");
    }
}
