//! At most so many results a second and pipeline. The clock is an argument.

use crate::domain::PipelineName;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets results through at a steady rate, one count per pipeline.
#[derive(Debug)]
pub(super) struct Throttle {
    /// Between two results; `None`: none at all.
    interval: Option<Duration>,
    due: Mutex<HashMap<PipelineName, Instant>>,
}

impl Throttle {
    /// `per_second` results; none for 0 or less.
    pub(super) fn new(per_second: f32) -> Self {
        let interval =
            (per_second > 0.0).then(|| Duration::from_secs_f64(1.0 / f64::from(per_second.max(1e-3))));
        Self { interval, due: Mutex::default() }
    }

    /// Whether a result at `now` may go out. The next one is due an interval after this one was due,
    /// not after it came: 10 a second stay 10, also where frames come 15 times a second.
    pub(super) fn admit(&self, pipeline: &PipelineName, now: Instant) -> bool {
        let Some(interval) = self.interval else { return false };
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
