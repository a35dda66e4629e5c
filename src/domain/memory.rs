//! When a serving model's process has grown so much that a fresh one takes its place. Pure.
//!
//! Runtimes leak: what a process has more than when it was warm comes back only with its end. The
//! budget is a number of the configuration or, without one, what the process had when warm and some
//! more. One high figure is no growth: it must stay.
//!
//! What a bundle's manifest says that it needs (`needs.memory_mb`) is no growth either: the device took the
//! bundle knowing that, and a fresh process would soon have as much again. So no budget is below it, neither
//! the owner's number, which is meant for any model, nor the guess from when it was warm.

use std::time::Duration;

/// A process is warm so long after its first answer.
const WARM: Duration = Duration::from_secs(30);
/// Figures in a row that are above the budget before something is done.
const IN_A_ROW: u32 = 3;
/// Without a number of the configuration: so much more than warm, as a share and at least in bytes.
const GROWTH: (u64, u64) = (2, 64 << 20);

/// What is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Bytes; 0 judges by growth.
    pub bytes: u64,
    /// Shortest time between two replacements.
    pub interval: Duration,
}

impl Budget {
    /// How often a process is to be looked at.
    pub fn period(&self) -> Duration {
        (self.interval / 4).clamp(Duration::from_millis(250), Duration::from_secs(10))
    }
}

/// A process that has outgrown its budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Excess {
    /// What it has, bytes.
    pub bytes: u64,
    /// What it may have, bytes.
    pub budget: u64,
}

/// Watches the processes that serve one pipeline, one after the other. Times count from any one moment.
#[derive(Debug, Clone)]
pub struct Watch {
    budget: Budget,
    /// The process that is watched: its number, since when, and what it had when warm.
    process: Option<(u64, Duration, Option<u64>)>,
    above: u32,
    /// When something was done last.
    acted: Option<Duration>,
}

impl Watch {
    /// Nothing is watched yet.
    pub fn new(budget: Budget) -> Self {
        Self { budget, process: None, above: 0, acted: None }
    }

    /// The serving process `id` has so many bytes, and its bundle says that it `needs` so many (0: says
    /// nothing). `Some` when a fresh one should take its place; then
    /// [`Watch::acted`] is to be told, or it comes again.
    pub fn observe(&mut self, id: u64, bytes: u64, needs: u64, now: Duration) -> Option<Excess> {
        if self.process.is_none_or(|(known, ..)| known != id) {
            self.process = Some((id, now, None));
            self.above = 0;
        }
        let (_, since, warm) = self.process.as_mut()?;
        if warm.is_none() && now.saturating_sub(*since) >= WARM {
            *warm = Some(bytes);
        }
        let budget = match (self.budget.bytes, *warm) {
            (0, Some(warm)) => warm.saturating_add((warm / GROWTH.0).max(GROWTH.1)),
            (0, None) => return None,
            (bytes, _) => bytes,
        };
        let budget = budget.max(needs);
        self.above = if bytes > budget { self.above.saturating_add(1) } else { 0 };
        let rested = self.acted.is_none_or(|then| now.saturating_sub(then) >= self.budget.interval);
        (self.above >= IN_A_ROW && rested).then_some(Excess { bytes, budget })
    }

    /// A fresh process was started at this time.
    pub fn acted(&mut self, now: Duration) {
        self.acted = Some(now);
        self.above = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn watch(bytes: u64) -> Watch {
        Watch::new(Budget { bytes, interval: secs(600) })
    }

    #[test]
    fn what_stays_above_the_budget_is_told_and_one_peak_is_not() {
        let mut watch = watch(100 * MIB);
        for (at, mib) in [(0, 90), (10, 200), (20, 200), (30, 90), (40, 101), (50, 101)] {
            assert_eq!(watch.observe(1, mib * MIB, 0, secs(at)), None, "{at}");
        }
        let excess = watch.observe(1, 101 * MIB, 0, secs(60));
        assert_eq!(excess, Some(Excess { bytes: 101 * MIB, budget: 100 * MIB }));
        assert_eq!(
            watch.observe(1, 101 * MIB, 0, secs(70)),
            excess.map(|e| Excess { bytes: 101 * MIB, ..e })
        );
    }

    #[test]
    fn without_a_number_growth_since_it_was_warm_decides() {
        let mut watch = watch(0);
        // Loading takes more than running.
        assert_eq!(watch.observe(1, 900 * MIB, 0, secs(0)), None);
        for at in 1..=30 {
            assert_eq!(watch.observe(1, 200 * MIB, 0, secs(at)), None);
        }
        for at in 31..40 {
            assert_eq!(watch.observe(1, 300 * MIB, 0, secs(at)), None, "half as much again is allowed");
        }
        for at in 40..42 {
            assert_eq!(watch.observe(1, 301 * MIB, 0, secs(at)), None);
        }
        let excess = watch.observe(1, 301 * MIB, 0, secs(42)).unwrap();
        assert_eq!(excess.budget, 300 * MIB);

        // A small one may grow by 64 MiB in any case.
        let mut watch = self::watch(0);
        watch.observe(1, 20 * MIB, 0, secs(0));
        watch.observe(1, 20 * MIB, 0, secs(30));
        for at in 31..50 {
            assert_eq!(watch.observe(1, 84 * MIB, 0, secs(at)), None);
        }
    }

    #[test]
    fn what_a_bundle_says_that_it_needs_is_no_growth() {
        // The owner's number is below it: it would be replaced again and again, for nothing.
        let mut watch = watch(100 * MIB);
        for at in 0..10 {
            assert_eq!(watch.observe(1, 300 * MIB, 300 * MIB, secs(at)), None);
        }
        let excess = (10..13).find_map(|at| watch.observe(1, 301 * MIB, 300 * MIB, secs(at)));
        assert_eq!(excess, Some(Excess { bytes: 301 * MIB, budget: 300 * MIB }));
        // A successor that says less is judged by the owner's number again.
        let excess = (13..16).find_map(|at| watch.observe(2, 101 * MIB, 50 * MIB, secs(at)));
        assert_eq!(excess.unwrap().budget, 100 * MIB);

        // Warm with 200 MiB, and it said 400: a large picture, a first batch.
        let mut watch = self::watch(0);
        for at in 0..60 {
            let bytes = if at < 40 { 200 } else { 400 };
            assert_eq!(watch.observe(1, bytes * MIB, 400 * MIB, secs(at)), None, "{at}");
        }
        assert!((60..63).any(|at| watch.observe(1, 401 * MIB, 400 * MIB, secs(at)).is_some()));
    }

    #[test]
    fn another_process_is_judged_anew_and_not_too_often() {
        let mut watch = watch(100 * MIB);
        let high = |watch: &mut Watch, id, from: u64| {
            (from..from + 3).filter_map(|at| watch.observe(id, 150 * MIB, 0, secs(at))).count()
        };
        assert_eq!(high(&mut watch, 1, 0), 1);
        watch.acted(secs(3));
        assert_eq!(high(&mut watch, 2, 10), 0, "the interval has not passed");
        assert_eq!(high(&mut watch, 2, 602), 2, "603 s and 604 s");
        watch.acted(secs(604));
        assert_eq!(high(&mut watch, 3, 1300), 1, "three figures of the new one");
    }

    #[test]
    fn the_interval_sets_how_often_one_looks() {
        let period = |interval| Budget { bytes: 0, interval }.period();
        assert_eq!(period(secs(3600)), secs(10));
        assert_eq!(period(secs(2)), Duration::from_millis(500));
        assert_eq!(period(Duration::ZERO), Duration::from_millis(250));
    }
}
