//! Judges a candidate that serves: is it good enough to stay?
//!
//! Three things are judged on live frames: that its child lives, the share of frames that end in an
//! error, and the time per frame beside that of the model that served before. The verdict falls as
//! soon as it is certain: a lost child at once, too many errors or slow frames when the rest of the
//! probation could not make up for them. Memory is a handful of counts, however long it lasts.

use super::deployment::Observation;
use super::reason::{Reason, ReasonCode};
use std::time::Duration;

/// Errors are not judged before so many frames were seen (or all that probation asks for, where those
/// are fewer): the first error of the first frame must not decide.
pub const MIN_JUDGED: u64 = 20;

/// From so many answered frames on, a candidate is hopelessly slow when more than nine tenths of them
/// were slow: with a median within the limit that happens once in 40 000 probations.
pub const MIN_TIMED: u64 = 30;

/// When a candidate is good enough: the numbers of `[update]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Answered frames before commit.
    pub frames: u64,
    /// Probation lasts at least so long.
    pub min: Duration,
    /// Probation that has not seen enough frames by then fails.
    pub max: Duration,
    /// Share of frames, 0 to 1, that may end in an error.
    pub max_error_ratio: f32,
    /// Times the previous model's median time per frame.
    pub max_slowdown: f32,
    /// Milliseconds per frame that are never too slow.
    pub slow_floor_ms: f32,
}

/// What is known so far.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Not decided.
    Watching {
        /// Answered frames.
        done: u64,
        /// Answered frames before commit.
        needed: u64,
    },
    /// Good enough to stay.
    Passed,
    /// It must go, and why.
    Failed(Reason),
}

/// The judge of one probation.
#[derive(Debug, Clone)]
pub struct Probation {
    limits: Limits,
    baseline_ms: Option<f32>,
    elapsed: Duration,
    answered: u64,
    slow: u64,
    failed: u64,
    not_finite: u64,
    last_failure: Option<Reason>,
    lost: Option<Reason>,
}

impl Probation {
    /// Starts with nothing seen. `baseline_ms` is the median time per frame, all stages, of the model
    /// that served before; without it time is not judged.
    pub fn new(limits: Limits, baseline_ms: Option<f32>) -> Self {
        Self {
            limits,
            baseline_ms: baseline_ms.filter(|ms| ms.is_finite() && *ms >= 0.0),
            elapsed: Duration::ZERO,
            answered: 0,
            slow: 0,
            failed: 0,
            not_finite: 0,
            last_failure: None,
            lost: None,
        }
    }

    /// Milliseconds per frame above which a frame is slow: `max(slow_floor_ms, max_slowdown × baseline)`.
    pub fn slow_above_ms(&self) -> Option<f32> {
        self.baseline_ms.map(|ms| (ms * self.limits.max_slowdown).max(self.limits.slow_floor_ms))
    }

    /// Takes in what was seen.
    pub fn observe(&mut self, seen: &Observation) -> Verdict {
        match seen {
            Observation::Frame { total_ms } => {
                self.answered += 1;
                // A time that is no number counts as slow.
                let fast = |limit| *total_ms <= limit;
                self.slow += u64::from(self.slow_above_ms().is_some_and(|limit| !fast(limit)));
            }
            Observation::FrameFailed(reason) => {
                self.failed += 1;
                self.not_finite += u64::from(reason.code == ReasonCode::NotFinite);
                self.last_failure = Some(reason.clone());
            }
            Observation::ChildLost(reason) => self.lost = Some(reason.clone()),
        }
        self.verdict()
    }

    /// Takes in how long probation has lasted by now.
    pub fn tick(&mut self, elapsed: Duration) -> Verdict {
        self.elapsed = self.elapsed.max(elapsed);
        self.verdict()
    }

    fn verdict(&self) -> Verdict {
        if let Some(reason) = &self.lost {
            return Verdict::Failed(reason.clone());
        }
        if let Some(reason) = self.too_many_errors().or_else(|| self.too_slow()) {
            return Verdict::Failed(reason);
        }
        let Limits { frames, min, max, .. } = self.limits;
        if self.answered >= frames && self.elapsed >= min {
            return Verdict::Passed;
        }
        if self.answered < frames && self.elapsed >= max {
            let secs = self.elapsed.as_secs_f32();
            let (answered, failed) = (self.answered, self.failed);
            let detail = format!(
                "probation: only {answered} of {frames} frames were answered in {secs:.0} s ({failed} failed); \
                 if the source gives fewer frames than that, lower update.probation_frames"
            );
            return Verdict::Failed(Reason::new(ReasonCode::TooSlow, detail));
        }
        Verdict::Watching { done: self.answered.min(frames), needed: frames }
    }

    /// Errors that even a faultless rest could not make up for.
    fn too_many_errors(&self) -> Option<Reason> {
        let seen = self.answered + self.failed;
        let due = MIN_JUDGED.min(self.limits.frames);
        let allowed = f64::from(self.limits.max_error_ratio) * seen.max(self.limits.frames) as f64;
        if seen < due || self.failed as f64 <= allowed {
            return None;
        }
        let code =
            if self.not_finite * 2 > self.failed { ReasonCode::NotFinite } else { ReasonCode::TooManyErrors };
        let last = self
            .last_failure
            .as_ref()
            .map_or(String::new(), |reason| format!("; the last: {}", reason.detail));
        let detail = format!(
            "probation: {} of {seen} frames ended in an error, more than {} of them may{last}",
            self.failed,
            percent(self.limits.max_error_ratio),
        );
        Some(Reason::new(code, detail))
    }

    /// The median is above the limit when more than half of the frames are: certain once that holds
    /// even if all frames that are still to come were fast.
    fn too_slow(&self) -> Option<Reason> {
        let (limit, baseline) = (self.slow_above_ms()?, self.baseline_ms?);
        let certain = self.slow * 2 > self.answered.max(self.limits.frames);
        let hopeless = self.answered >= MIN_TIMED && self.slow * 10 > self.answered * 9;
        if !certain && !hopeless {
            return None;
        }
        let detail = format!(
            "probation: {} of {} frames took longer than {limit:.1} ms; the previous model's median is {baseline:.1} ms",
            self.slow, self.answered
        );
        Some(Reason::new(ReasonCode::TooSlow, detail))
    }
}

fn percent(ratio: f32) -> String {
    format!("{} %", (f64::from(ratio) * 1000.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits(frames: u64) -> Limits {
        Limits {
            frames,
            min: Duration::from_secs(5),
            max: Duration::from_secs(60),
            max_error_ratio: 0.05,
            max_slowdown: 1.5,
            slow_floor_ms: 8.0,
        }
    }

    fn frame(total_ms: f32) -> Observation {
        Observation::Frame { total_ms }
    }

    fn error(code: ReasonCode) -> Observation {
        Observation::FrameFailed(Reason::new(code, "output \"scores\" holds NaN"))
    }

    fn feed(judge: &mut Probation, seen: &[(usize, Observation)]) -> Verdict {
        let mut verdict = judge.tick(Duration::ZERO);
        for (count, one) in seen {
            for _ in 0..*count {
                verdict = judge.observe(one);
                if matches!(verdict, Verdict::Failed(_)) {
                    return verdict;
                }
            }
        }
        verdict
    }

    #[test]
    fn enough_good_frames_pass_but_not_before_the_least_time() {
        let mut judge = Probation::new(limits(100), Some(10.0));
        assert_eq!(feed(&mut judge, &[(99, frame(11.0))]), Verdict::Watching { done: 99, needed: 100 });
        assert_eq!(feed(&mut judge, &[(50, frame(11.0))]), Verdict::Watching { done: 100, needed: 100 });
        assert_eq!(judge.tick(Duration::from_secs(5)), Verdict::Passed);
    }

    #[test]
    fn every_way_to_fail() {
        use ReasonCode::*;
        type Case = (&'static str, Option<f32>, Vec<(usize, Observation)>, Option<ReasonCode>);
        let cases: [Case; 12] = [
            ("first frame fails", None, vec![(1, error(Internal))], None),
            (
                "five errors of a hundred are allowed",
                None,
                vec![(5, error(Internal)), (95, frame(1.0))],
                None,
            ),
            ("six are not", None, vec![(50, frame(1.0)), (6, error(Internal))], Some(TooManyErrors)),
            ("nothing but errors", None, vec![(20, error(Internal))], Some(TooManyErrors)),
            ("nineteen are too few to judge", None, vec![(19, error(Internal))], None),
            ("NaN", None, vec![(14, frame(1.0)), (6, error(NotFinite))], Some(NotFinite)),
            ("slow beside the baseline", Some(10.0), vec![(30, frame(15.1))], Some(TooSlow)),
            ("not slow without a baseline", None, vec![(99, frame(1e6))], None),
            ("never slow below the floor", Some(1.0), vec![(99, frame(8.0))], None),
            ("slow for half", Some(10.0), vec![(20, frame(1.0)), (51, frame(99.0))], Some(TooSlow)),
            ("slow at first", Some(10.0), vec![(20, frame(99.0)), (79, frame(1.0))], None),
            ("times that are no numbers", Some(10.0), vec![(30, frame(f32::NAN))], Some(TooSlow)),
        ];
        for (name, baseline, seen, expected) in cases {
            let verdict = feed(&mut Probation::new(limits(100), baseline), &seen);
            let code = match &verdict {
                Verdict::Failed(reason) => Some(reason.code),
                Verdict::Watching { .. } | Verdict::Passed => None,
            };
            assert_eq!(code, expected, "{name}: {verdict:?}");
        }
    }

    #[test]
    fn a_lost_child_fails_at_once_with_its_own_reason() {
        for code in [ReasonCode::ChildCrashed, ReasonCode::ChildHung] {
            let lost = Reason::new(code, "child 4711 ended with signal 11");
            let mut judge = Probation::new(limits(1), None);
            assert_eq!(judge.observe(&Observation::ChildLost(lost.clone())), Verdict::Failed(lost));
            assert!(matches!(judge.observe(&frame(1.0)), Verdict::Failed(_)), "a verdict stays");
        }
    }

    #[test]
    fn too_few_frames_in_the_longest_time_fail() {
        let mut judge = Probation::new(limits(100), None);
        feed(&mut judge, &[(99, frame(1.0))]);
        let Verdict::Failed(reason) = judge.tick(Duration::from_secs(60)) else { panic!("passed") };
        assert_eq!(reason.code, ReasonCode::TooSlow);
        assert!(reason.detail.contains("99 of 100"), "{reason}");
    }

    proptest! {
        /// Whatever is seen: it ends by the longest time, failed stays failed, and whoever passed had
        /// enough frames, few enough errors and a median within the limit.
        #[test]
        fn a_verdict_is_always_reached_and_just(
            frames in 1_u64..200,
            seen in proptest::collection::vec((0_u8..10, 0_f32..40.0), 0..400),
        ) {
            let mut judge = Probation::new(limits(frames), Some(10.0));
            let (mut times, mut failed) = (vec![], 0);
            for (kind, ms) in seen {
                let one = if kind == 0 { error(ReasonCode::Internal) } else { frame(ms) };
                match &one { Observation::Frame { .. } => times.push(ms), _ => failed += 1 }
                if let Verdict::Failed(_) = judge.observe(&one) {
                    prop_assert!(failed > 0 || times.iter().filter(|ms| **ms > 15.0).count() * 2 > times.len());
                    return Ok(());
                }
            }
            match judge.tick(Duration::from_secs(60)) {
                Verdict::Watching { .. } => prop_assert!(false, "undecided after the longest time"),
                Verdict::Failed(_) => prop_assert!((times.len() as u64) < frames),
                Verdict::Passed => {
                    prop_assert!(times.len() as u64 >= frames);
                    prop_assert!(f64::from(failed) <= 0.05001 * (times.len() as f64 + f64::from(failed)));
                    times.sort_by(f32::total_cmp);
                    prop_assert!(times[(times.len() - 1) / 2] <= 15.0);
                }
            }
        }
    }
}
