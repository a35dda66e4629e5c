//! The rate limit: one for all that a repository is asked for, over tries and over downloads side by side.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Lets so many bytes a second pass.
#[derive(Debug)]
pub(super) struct Throttle {
    /// Bytes a second; 0: no limit.
    rate: u64,
    /// Until then the bytes that passed have used the limit up.
    used: Mutex<Option<Instant>>,
}

impl Throttle {
    pub(super) fn new(rate: u64) -> Self {
        Self { rate, used: Mutex::default() }
    }

    /// Counts bytes that came, and waits until more may come. Time in which nothing came is not made up for.
    pub(super) async fn passed(&self, bytes: usize) {
        if let Some(due) = self.due(bytes, Instant::now()) {
            sleep_until(due).await;
        }
    }

    /// When more may come after these bytes; `None` where there is no limit.
    fn due(&self, bytes: usize, now: Instant) -> Option<Instant> {
        if self.rate == 0 {
            return None;
        }
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let due =
            used.map_or(now, |used| used.max(now)) + Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        *used = Some(due);
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_together_keep_the_limit_and_a_pause_is_not_made_up_for() {
        let (throttle, begun) = (Throttle::new(1000), Instant::now());
        let after = |seconds| begun + Duration::from_secs(seconds);
        // Four at once: each waits for those before it.
        let dues: Vec<_> = (0..4).map(|_| throttle.due(1000, begun).unwrap()).collect();
        assert_eq!(dues, [1, 2, 3, 4].map(after));
        // One that tries again after a broken connection finds the limit as it was.
        assert_eq!(throttle.due(1000, after(2)), Some(after(5)));
        assert_eq!(throttle.due(3000, after(100)), Some(after(103)));
        assert_eq!(Throttle::new(0).due(usize::MAX, begun), None);
    }
}
