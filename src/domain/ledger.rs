//! Bookkeeping of frames: every number that a source published is answered, failed, or skipped for
//! a stated reason, over restarts and swaps of the model.
//!
//! Each inference child that serves has a [`Span`]: the numbers from its start up to its stop. What
//! lies between two spans was published while no model served. Answers of two children may
//! interleave around a swap; because each number belongs to one span only, none counts twice.

use serde::{Deserialize, Serialize};

/// Why a published frame has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Skip {
    /// A newer frame was there when the model became free: the newest frame wins.
    Busy,
    /// No model was serving: none installed, still loading, or its child was lost.
    Unserved,
    /// It was older than the pipeline's limit when the model was about to start on it.
    Stale,
    /// It was above the pipeline's own frames a second; its camera gives more to others.
    Paced,
}

impl Skip {
    /// Every reason.
    pub const ALL: [Skip; 4] = [Skip::Busy, Skip::Unserved, Skip::Stale, Skip::Paced];
}

/// Sums since the pipeline began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Frames that the source published.
    pub published: u64,
    /// Frames with an answer.
    pub answered: u64,
    /// Frames that ended in an error.
    pub failed: u64,
    /// Frames skipped while the model was busy.
    pub busy: u64,
    /// Frames published while no model served.
    pub unserved: u64,
    /// Frames that were too old.
    pub stale: u64,
    /// Frames above the pipeline's pace.
    pub paced: u64,
}

impl Totals {
    /// Frames whose fate is known.
    pub fn accounted(&self) -> u64 {
        self.answered + self.failed + Skip::ALL.map(|why| self.skipped(why)).iter().sum::<u64>()
    }

    /// Frames skipped for this reason.
    pub fn skipped(&self, why: Skip) -> u64 {
        match why {
            Skip::Busy => self.busy,
            Skip::Unserved => self.unserved,
            Skip::Stale => self.stale,
            Skip::Paced => self.paced,
        }
    }
}

/// The numbers that one child answers for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The next number whose fate is open.
    next: u64,
    /// First number that is no longer its own, once that is decided.
    until: Option<u64>,
    closed: bool,
}

impl Span {
    /// The next number whose fate is open.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The first number that it still owes; `None` when it owes none and will not.
    pub fn owes(&self) -> Option<u64> {
        let over = self.closed || self.until.is_some_and(|until| self.next >= until);
        (!over).then_some(self.next)
    }

    /// True when every number of the span has its fate.
    pub fn is_closed(&self) -> bool {
        self.closed
    }
}

/// The sums, and where the next span may begin.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    totals: Totals,
    /// First number that no span covers yet.
    open_from: u64,
}

impl Ledger {
    /// For a source whose first frame has the number 1.
    pub fn new() -> Self {
        Self { totals: Totals::default(), open_from: 1 }
    }

    /// The sums so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The newest number that is known to be published.
    pub fn newest(&self) -> u64 {
        self.totals.published
    }

    /// The source published up to `seq`.
    pub fn published(&mut self, seq: u64) {
        self.totals.published = self.totals.published.max(seq);
    }

    /// A child serves from `from` on. The numbers before it that no span covers went unserved; the
    /// count of these is returned.
    pub fn open(&mut self, from: u64) -> (Span, u64) {
        let unserved = from.saturating_sub(self.open_from);
        let from = from.max(self.open_from);
        self.totals.unserved += unserved;
        self.published(from.saturating_sub(1));
        self.open_from = u64::MAX;
        (Span { next: from, until: None, closed: false }, unserved)
    }

    /// The numbers from `until` on belong to somebody else.
    pub fn limit(&mut self, span: &mut Span, until: u64) {
        let until = until.max(span.next);
        span.until = Some(until);
        self.open_from = until;
    }

    /// A child says that `seq` is done and that `skipped` went by before it. `false` when the number
    /// is not its own (the other side of a swap has it): the answer is then dropped.
    pub fn frame(&mut self, span: &mut Span, seq: u64, skipped: u64, ok: bool) -> bool {
        let its_own = self.went_by(span, seq, skipped);
        if its_own {
            match ok {
                true => self.totals.answered += 1,
                false => self.totals.failed += 1,
            }
        }
        its_own
    }

    /// As [`frame`](Self::frame), for a number that the child saw and did not run its model on.
    pub fn passed(&mut self, span: &mut Span, seq: u64, skipped: u64, why: Skip) -> bool {
        let its_own = self.went_by(span, seq, skipped);
        if its_own {
            match why {
                Skip::Busy => self.totals.busy += 1,
                Skip::Unserved => self.totals.unserved += 1,
                Skip::Stale => self.totals.stale += 1,
                Skip::Paced => self.totals.paced += 1,
            }
        }
        its_own
    }

    /// Counts what went by before `seq`, and moves the span beyond it.
    fn went_by(&mut self, span: &mut Span, seq: u64, skipped: u64) -> bool {
        if span.closed || seq < span.next || span.until.is_some_and(|until| seq >= until) {
            return false;
        }
        let between = seq - span.next;
        self.totals.busy += skipped.min(between);
        self.totals.unserved += between - skipped.min(between);
        span.next = seq + 1;
        self.published(seq);
        true
    }

    /// A child has stopped as asked; what is open below its limit went by while it was busy.
    pub fn stopped(&mut self, span: &mut Span) {
        if let (false, Some(until)) = (span.closed, span.until) {
            self.totals.busy += until - span.next;
            self.published(until.saturating_sub(1));
            span.next = until;
            span.closed = true;
        }
    }

    /// A child is gone without a word; what is open below its limit, or from now on, went unserved.
    pub fn lost(&mut self, span: &mut Span) {
        if span.closed {
            return;
        }
        match span.until {
            Some(until) => {
                self.totals.unserved += until - span.next;
                span.next = until;
            }
            None => self.open_from = span.next,
        }
        span.closed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn answers_on_both_sides_of_a_swap_count_once_each() {
        let mut ledger = Ledger::new();
        let (mut old, unserved) = ledger.open(3);
        assert_eq!(unserved, 2);
        assert!(ledger.frame(&mut old, 4, 1, true));
        ledger.limit(&mut old, 8);
        let (mut new, unserved) = ledger.open(8);
        assert_eq!(unserved, 0);
        assert!(ledger.frame(&mut new, 8, 0, true));
        assert!(ledger.frame(&mut old, 6, 1, true), "a late answer of the old child still counts");
        assert!(!ledger.frame(&mut old, 8, 1, true), "the new child's number is not the old one's");
        ledger.stopped(&mut old);
        let totals = ledger.totals();
        assert_eq!(totals, Totals { published: 8, answered: 3, busy: 3, unserved: 2, ..Totals::default() });
        assert_eq!(totals.accounted(), totals.published);
    }

    #[test]
    fn frames_while_a_child_is_away_are_unserved() {
        let mut ledger = Ledger::new();
        let (mut span, _) = ledger.open(1);
        ledger.frame(&mut span, 1, 0, true);
        ledger.lost(&mut span);
        ledger.published(9);
        let (mut span, unserved) = ledger.open(10);
        assert_eq!(unserved, 8);
        assert!(ledger.frame(&mut span, 10, 0, false));
        assert_eq!(ledger.totals().accounted(), 10);
    }

    proptest! {
        /// Whatever the children do, once the last span is closed every published number has one fate.
        #[test]
        fn every_number_has_one_fate(steps in proptest::collection::vec((0u8..5, 1u64..5, any::<bool>()), 1..60)) {
            let mut ledger = Ledger::new();
            let (mut span, _) = ledger.open(1);
            for (kind, ahead, ok) in steps {
                let seq = span.next() + ahead - 1;
                match kind {
                    0 | 1 => {
                        ledger.frame(&mut span, seq, ahead - 1, ok);
                    }
                    4 => {
                        ledger.passed(&mut span, seq, ahead - 1, if ok { Skip::Stale } else { Skip::Paced });
                    }
                    2 => {
                        ledger.limit(&mut span, seq);
                        let (next, _) = ledger.open(seq);
                        ledger.stopped(&mut span);
                        span = next;
                    }
                    _ => {
                        ledger.lost(&mut span);
                        ledger.published(seq);
                        span = ledger.open(seq + 1).0;
                    }
                }
            }
            let end = span.next();
            ledger.limit(&mut span, end);
            ledger.stopped(&mut span);
            prop_assert_eq!(ledger.totals().accounted(), ledger.totals().published);
        }
    }
}
