//! A cap on frames a second for a source that sets its own pace.
//!
//! Time is cut into slots of one period, and each slot takes one frame. So a camera of 25 frames a
//! second under a cap of 10 gives 10 on average, whatever the two have to do with each other, and a
//! camera that was set to the wanted pace loses nothing because one frame is a little early.

/// Takes one frame a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    period_ns: u64,
    /// When the next frame is due, once the first has come.
    due_ns: Option<u64>,
}

impl Pace {
    /// For `fps` frames a second; a frame a day at least, and a thousand a second at most.
    pub fn new(fps: f32) -> Self {
        let period = 1e9 / f64::from(fps).max(f64::MIN_POSITIVE);
        Self { period_ns: period.clamp(1e6, 86_400e9) as u64, due_ns: None }
    }

    /// Nanoseconds from one frame to the next.
    pub fn period_ns(&self) -> u64 {
        self.period_ns
    }

    /// True when the frame of this time is to be taken; it then fills its slot. The times are those at
    /// which the frames were captured, on any clock of nanoseconds.
    pub fn take(&mut self, at_ns: u64) -> bool {
        let period = self.period_ns;
        let Some(due) = self.due_ns else {
            self.due_ns = Some(at_ns + period);
            return true;
        };
        // A clock that was put back must not silence the source.
        if due > at_ns + 2 * period {
            self.due_ns = Some(at_ns + period);
            return true;
        }
        if at_ns + period / 4 < due {
            return false;
        }
        // What a gap has lost is lost: the slots begin anew, half a period off, where an early frame
        // and a late one both find theirs.
        self.due_ns = Some(if at_ns >= due + period { at_ns + period / 2 } else { due + period });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: u64 = 1_000_000_000;

    /// Frames taken of `seconds` of a camera, each frame off by what `jitter` gives for it.
    fn taken(camera: u64, cap: f32, seconds: u64, jitter: impl Fn(u64) -> i64) -> u64 {
        let mut pace = Pace::new(cap);
        let at = |n: u64| (S + n * S / camera).saturating_add_signed(jitter(n));
        (0..camera * seconds).filter(|n| pace.take(at(*n))).count() as u64
    }

    #[test]
    fn the_cap_is_met_on_average_whatever_the_camera_gives() {
        for (camera, cap, wanted) in [
            (30, 10.0, 10),
            (25, 10.0, 10),
            (30, 20.0, 20),
            (30, 25.0, 25),
            (30, 29.0, 29),
            (60, 7.0, 7),
            (15, 15.0, 15),
            (10, 30.0, 10),
        ] {
            let frames = taken(camera, cap, 100, |_| 0);
            assert!(frames.abs_diff(wanted * 100) <= 2, "{camera} → {cap}: {frames} in 100 s");
        }
    }

    #[test]
    fn thirty_to_ten_takes_every_third() {
        let mut pace = Pace::new(10.0);
        let taken: Vec<u64> = (0..30).filter(|n| pace.take(n * S / 30)).collect();
        assert_eq!(taken, (0..30).step_by(3).collect::<Vec<_>>());
    }

    #[test]
    fn a_gap_is_not_made_up_for_and_a_clock_put_back_silences_nothing() {
        let mut pace = Pace::new(10.0);
        assert!(pace.take(0) && !pace.take(S / 100));
        assert!(pace.take(60 * S), "after a minute away");
        let burst = (1..10).filter(|n| pace.take(60 * S + n * S / 100)).count();
        assert!(burst <= 1, "{burst} frames in a tenth of a second");
        assert!(pace.take(5 * S), "the source's clock began anew");
    }

    proptest! {
        /// Frames that are up to a third of their period early or late: the average stays.
        #[test]
        fn jitter_changes_nothing(offsets in prop::collection::vec(-33i64..=33, 100)) {
            for (camera, cap, wanted) in [(30u64, 10.0, 10u64), (25, 10.0, 10), (30, 15.0, 15)] {
                let jitter = |n: u64| offsets[(n % 100) as usize] * (S / camera / 100) as i64;
                let frames = taken(camera, cap, 20, jitter);
                prop_assert!(frames.abs_diff(wanted * 20) <= 3, "{} → {}: {}", camera, cap, frames);
            }
        }
    }
}
