//! How many of something may come in a minute: a bucket of tokens. Pure; the time is an argument.

use std::time::Duration;

/// A bucket that holds a minute's worth, and is full at first.
#[derive(Debug, Clone, PartialEq)]
pub struct Allowance {
    per_minute: u32,
    /// What is left, in tokens.
    left: f64,
    /// When that was.
    at: Duration,
}

impl Allowance {
    /// So many a minute, and as many at once; 0 lets none through.
    pub fn new(per_minute: u32) -> Self {
        Self { per_minute, left: f64::from(per_minute), at: Duration::ZERO }
    }

    /// Whether one may come now. `now` counts from any fixed moment.
    pub fn has(&mut self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        let full = f64::from(self.per_minute);
        self.left = (self.left + passed * full / 60.0).min(full);
        self.at = self.at.max(now);
        self.left >= 1.0
    }

    /// Takes one, where there is one.
    pub fn take(&mut self, now: Duration) -> bool {
        let has = self.has(now);
        if has {
            self.left -= 1.0;
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_minutes_worth_at_once_and_then_the_rate() {
        let mut allowance = Allowance::new(60);
        let at_once = (0..100).filter(|_| allowance.take(secs(5))).count();
        assert_eq!(at_once, 60);
        let later = (0..100).filter(|second| allowance.take(secs(5 + second / 10))).count();
        assert_eq!(later, 9, "one a second");
        assert_eq!((0..200).filter(|_| allowance.take(secs(10_000))).count(), 60, "a pause is not saved up");
    }

    #[test]
    fn asking_takes_nothing_and_time_never_goes_back() {
        let mut allowance = Allowance::new(1);
        assert!((0..10).all(|_| allowance.has(secs(1))));
        assert!(allowance.take(secs(1)) && !allowance.has(secs(1)));
        assert!(!allowance.take(secs(0)));
        assert!(allowance.take(secs(61)));
        assert!(!Allowance::new(0).take(secs(1_000_000)));
    }
}
