//! The capture child: asks the source for a frame when one is due, and publishes it.
//!
//! Frames are due at fixed points in time, so that the pace does not drift with the time that the work
//! takes. A source that cannot keep up loses points in time; it is never made to catch up.

use crate::children::link::{Answers, Gone, NoOrder, Orders, first};
use crate::children::snapshot;
use crate::domain::frame::FrameView;
use crate::domain::source::SourceSettings;
use crate::domain::{FrameMeta, Reason, ReasonCode};
use crate::inference::source::{self, Source};
use crate::process::frames::FramePublisher;
use crate::process::protocol::{FrameChannel, FromCapture, ToCapture};
use crate::sys::monotonic;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// The same fault again is told at most this often; a dead camera fails at every frame.
const SAME_FAULT_EVERY: Duration = Duration::from_secs(10);

/// Runs until the agent closes the socket.
///
/// # Errors
/// Why the source cannot be read; the agent has been told.
pub fn run(socket: UnixStream) -> Result<(), Reason> {
    let Some(message) = first::<ToCapture>(&socket)? else { return Ok(()) };
    let ToCapture::Configure { source, fps, channel, first_seq } = message else {
        return Err(Reason::new(ReasonCode::Internal, "child: the first message was not configure"));
    };
    let mut answers = Answers::new(&socket)?;
    match Camera::open(&source, fps, &channel, first_seq) {
        Ok((camera, description)) => {
            let orders = Orders::listen(socket)?;
            match answers.say(&FromCapture::Opened { description }) {
                Ok(()) => camera.serve(&orders, &mut answers).unwrap_or_else(|Gone| ()),
                Err(Gone) => {}
            }
            Ok(())
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
    /// The number of the next frame.
    seq: u64,
    /// The frame before it, for snapshots, and the memory for the next one.
    newest: Option<FrameMeta>,
    bytes: Vec<u8>,
    spare: Vec<u8>,
    fault_told: Option<(Reason, Instant)>,
}

/// What asking the source has led to.
enum Step {
    Went,
    Ended,
}

impl Camera {
    fn open(
        source: &SourceSettings,
        fps: f32,
        channel: &FrameChannel,
        first_seq: u64,
    ) -> Result<(Self, String), Reason> {
        if !(fps.is_finite() && fps > 0.0) {
            return Err(Reason::new(
                ReasonCode::BadRequest,
                format!("source: {fps} frames a second; use more than 0"),
            ));
        }
        let source = source::open(source)?;
        let description = source.describe();
        // Bounds: a frame a day, and a thousand a second.
        let period = Duration::from_secs_f64((1.0 / f64::from(fps)).clamp(0.001, 86_400.0));
        let camera = Self {
            source,
            publisher: FramePublisher::create(channel)?,
            period,
            seq: first_seq,
            newest: None,
            bytes: Vec::new(),
            spare: Vec::new(),
            fault_told: None,
        };
        Ok((camera, description))
    }

    fn serve(mut self, orders: &Orders<ToCapture>, answers: &mut Answers) -> Result<(), Gone> {
        let mut due = Instant::now();
        let (mut paused, mut ended) = (false, false);
        loop {
            let wait = (!paused && !ended).then(|| due.saturating_duration_since(Instant::now()));
            match orders.wait(wait) {
                Ok(ToCapture::Pause { paused: wanted }) => {
                    if paused && !wanted {
                        due = Instant::now();
                    }
                    paused = wanted;
                }
                Ok(ToCapture::Snapshot { id, max_edge }) => {
                    let jpeg = self.snapshot(max_edge);
                    answers.say(&FromCapture::Snapshot { id, jpeg })?;
                }
                Ok(ToCapture::Configure { .. }) => {
                    tracing::warn!("configured twice; the second is passed over");
                }
                Err(NoOrder::Ever) => return Ok(()),
                Err(NoOrder::Yet) => {
                    match self.step(answers)? {
                        Step::Went => {}
                        Step::Ended => {
                            ended = true;
                            answers.say(&FromCapture::Ended)?;
                        }
                    }
                    due = next_due(due, self.period, Instant::now());
                }
            }
        }
    }

    /// Publishes one frame, or tells why not.
    fn step(&mut self, answers: &mut Answers) -> Result<Step, Gone> {
        let picture = match self.source.next(self.seq, &mut self.spare) {
            Ok(Some(picture)) => picture,
            Ok(None) => return Ok(Step::Ended),
            Err(reason) => return self.fault(reason, answers),
        };
        let meta = FrameMeta {
            seq: self.seq,
            captured_unix_ns: monotonic::unix_ns(),
            captured_mono_ns: monotonic::now_ns(),
            width: picture.width,
            height: picture.height,
            format: picture.format,
        };
        if let Err(error) = self.publisher.publish(&meta, &self.spare) {
            return self.fault(error.into(), answers);
        }
        std::mem::swap(&mut self.bytes, &mut self.spare);
        self.newest = Some(meta);
        self.seq += 1;
        answers.say(&FromCapture::Published { seq: meta.seq })?;
        Ok(Step::Went)
    }

    fn fault(&mut self, reason: Reason, answers: &mut Answers) -> Result<Step, Gone> {
        let now = Instant::now();
        let again = |(told, at): &(Reason, Instant)| *told == reason && now - *at < SAME_FAULT_EVERY;
        if !self.fault_told.as_ref().is_some_and(again) {
            self.fault_told = Some((reason.clone(), now));
            answers.say(&FromCapture::Fault { reason })?;
        }
        Ok(Step::Went)
    }

    fn snapshot(&self, max_edge: u32) -> Result<String, Reason> {
        let Some(meta) = self.newest else {
            let detail = "snapshot: no frame has come yet; try again when one has";
            return Err(Reason::new(ReasonCode::NotFound, detail));
        };
        snapshot::jpeg_base64(FrameView { meta, bytes: &self.bytes }, max_edge)
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
