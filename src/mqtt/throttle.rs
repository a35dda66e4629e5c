//! At most so many results a second and pipeline. The clock is an argument.

use crate::domain::PipelineName;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// From this rate on, every result goes out: a limit would then only drop the second of two that a
/// short stall brings close together.
const ALL: f32 = 1000.0;

/// Lets results through at a steady rate, one count per pipeline.
#[derive(Debug)]
pub(super) struct Throttle {
    /// Between two results; `None`: none at all. Zero: no limit.
    interval: Option<Duration>,
    due: Mutex<HashMap<PipelineName, Instant>>,
}

impl Throttle {
    /// `per_second` results; none for 0 or less.
    pub(super) fn new(per_second: f32) -> Self {
        let between = |rate: f32| Duration::from_secs_f64(1.0 / f64::from(rate.max(1e-3)));
        let interval =
            (per_second > 0.0).then(|| if per_second >= ALL { Duration::ZERO } else { between(per_second) });
        Self { interval, due: Mutex::default() }
    }

    /// Whether a result at `now` may go out. The next one is due an interval after this one was due,
    /// not after it came: 10 a second stay 10, also where frames come 15 times a second.
    pub(super) fn admit(&self, pipeline: &PipelineName, now: Instant) -> bool {
        let Some(interval) = self.interval else { return false };
        if interval.is_zero() {
            return true;
        }
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        match due.get_mut(pipeline) {
            Some(due) if now < *due => false,
            Some(due) => {
                *due = if now.duration_since(*due) < interval { *due + interval } else { now + interval };
                true
            }
            None => {
                due.insert(pipeline.clone(), now + interval);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(per_second: f32, frames_per_second: u32, seconds: u32) -> usize {
        let throttle = Throttle::new(per_second);
        let (name, start): (PipelineName, _) = ("belt".parse().unwrap(), Instant::now());
        (0..frames_per_second * seconds)
            .filter(|n| throttle.admit(&name, start + Duration::from_secs(1) * *n / frames_per_second))
            .count()
    }

    #[test]
    fn the_rate_is_kept_on_average() {
        assert_eq!(admitted(10.0, 15, 10), 100);
        assert_eq!(admitted(0.5, 30, 10), 5);
        assert_eq!(admitted(100.0, 30, 2), 60, "no more than there are");
        assert_eq!(admitted(0.0, 30, 2), 0);
        assert_eq!(admitted(1000.0, 5000, 1), 5000, "the highest rate is no limit");
    }

    #[test]
    fn a_pause_is_not_made_up_for() {
        let throttle = Throttle::new(1.0);
        let (name, start): (PipelineName, _) = ("belt".parse().unwrap(), Instant::now());
        assert!(throttle.admit(&name, start));
        let later = start + Duration::from_secs(60);
        assert!(throttle.admit(&name, later));
        assert!(!throttle.admit(&name, later + Duration::from_millis(500)));
        assert!(throttle.admit(&"other".parse().unwrap(), later), "pipelines do not share their rate");
    }
}
