//! Which frames a model is not run on although it is free: those that are too old, and those above the
//! pipeline's own pace.
//!
//! A frame is late when its camera, its stream or its process hung and then gave what had piled up. An
//! answer to it would tell of a moment that has passed as if it were now.

use super::frame::FrameMeta;
use super::ledger::Skip;
use super::pace::Pace;
use serde::{Deserialize, Serialize};

/// What a pipeline lets in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct AdmissionSettings {
    /// Oldest frame that a model is run on, milliseconds since its capture; `None` for any age.
    pub max_age_ms: Option<u64>,
    /// Frames a second at most, where the source gives more than this pipeline wants.
    pub fps: Option<f32>,
}

/// Judges one frame after the other.
#[derive(Debug, Clone)]
pub struct Admission {
    max_age_ns: Option<u64>,
    pace: Option<Pace>,
}

impl Admission {
    /// For the frames of one inference process.
    pub fn new(settings: AdmissionSettings) -> Self {
        Self {
            max_age_ns: settings.max_age_ms.map(|ms| ms.saturating_mul(1_000_000)),
            pace: settings.fps.map(Pace::new),
        }
    }

    /// From this moment on (`CLOCK_MONOTONIC`, nanoseconds) the frame is too old.
    pub fn stale_from(&self, frame: &FrameMeta) -> u64 {
        self.max_age_ns.map_or(u64::MAX, |most| frame.captured_mono_ns.saturating_add(most))
    }

    /// Why the model is not to be run on this frame at `now_ns` (`CLOCK_MONOTONIC`); `None`: run it.
    /// Ask once a frame, at the moment of starting.
    pub fn refuse(&mut self, frame: &FrameMeta, now_ns: u64) -> Option<Skip> {
        let age = now_ns.saturating_sub(frame.captured_mono_ns);
        if self.max_age_ns.is_some_and(|most| age > most) {
            return Some(Skip::Stale);
        }
        let above = self.pace.as_mut().is_some_and(|pace| !pace.take(frame.captured_mono_ns));
        above.then_some(Skip::Paced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::FrameFormat;

    fn frame(captured_mono_ns: u64) -> FrameMeta {
        let format = FrameFormat::Jpeg;
        FrameMeta { seq: 1, captured_unix_ns: 0, captured_mono_ns, width: 1, height: 1, format }
    }

    const MS: u64 = 1_000_000;

    #[test]
    fn a_frame_is_too_old_by_its_capture_and_not_by_its_arrival() {
        let mut admission = Admission::new(AdmissionSettings { max_age_ms: Some(2000), fps: None });
        assert_eq!(admission.refuse(&frame(1000 * MS), 3000 * MS), None, "just young enough");
        assert_eq!(admission.refuse(&frame(1000 * MS), 3000 * MS + 1), Some(Skip::Stale));
        assert_eq!(admission.refuse(&frame(9000 * MS), 3000 * MS), None, "from the future");
        let mut any = Admission::new(AdmissionSettings::default());
        assert_eq!(any.refuse(&frame(0), u64::MAX), None);
    }

    #[test]
    fn a_stale_frame_takes_no_place_from_the_pace() {
        let mut admission = Admission::new(AdmissionSettings { max_age_ms: Some(50), fps: Some(10.0) });
        assert_eq!(admission.refuse(&frame(0), 60 * MS), Some(Skip::Stale));
        assert_eq!(admission.refuse(&frame(33 * MS), 60 * MS), None);
        assert_eq!(admission.refuse(&frame(66 * MS), 70 * MS), Some(Skip::Paced));
        assert_eq!(admission.refuse(&frame(133 * MS), 133 * MS), None);
    }
}
