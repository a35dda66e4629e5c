//! Which frames a model answers for, and the proof that none is forgotten.
//!
//! The newest frame wins, so a slow model passes frames over. Every number from its first to its last
//! is then either *answered* or *counted as skipped*. [`Window`] keeps that account in the inference
//! process; [`ledger`](super::ledger) joins the accounts of several processes in the agent.
//!
//! Frames are begun before they are answered: while the model runs on one, the next is prepared. They
//! are answered in the order in which they were begun. An end that is set meanwhile holds for them too:
//! one at or above it is left to the next model, whatever was done for it already.

use std::collections::VecDeque;

/// What is to be done about a frame that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is before the window, or was begun before (a source that restarted may repeat numbers).
    Ignore,
    /// It is ours: call [`Window::begin`], run the model, then call [`Window::answered`].
    Run,
    /// It is beyond the end, and the window closes with the answer to a frame that was begun.
    Beyond,
    /// It is beyond the end: the window is closed.
    Closed(Closed),
}

/// The window has come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// The end.
    pub until: u64,
    /// Numbers below the end that went by since the last answer.
    pub skipped: u64,
}

/// What an answer adds to the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// Numbers that went by since the last answer.
    pub skipped: u64,
    /// Set when nothing is left to answer.
    pub closed: Option<Closed>,
}

/// The account of one inference process between a start and a stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The first number that is not accounted for yet.
    next: u64,
    /// The first number that is no longer ours, once it is known.
    until: Option<u64>,
    /// Begun and not answered, in rising order.
    begun: VecDeque<u64>,
    /// A frame at or above the end was seen: nothing below it will come.
    beyond: bool,
}

impl Window {
    /// Opens a window at `from`, or at `gone_by` where frames below that number can no longer be had.
    pub fn open(from: u64, gone_by: u64) -> Self {
        Self { next: from.max(gone_by), until: None, begun: VecDeque::with_capacity(4), beyond: false }
    }

    /// The first number that is not accounted for yet: the first of all, right after opening.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Sets the end; an end that was set before is replaced. Tells when nothing is left to answer, so
    /// that the window is closed at once.
    pub fn stop(&mut self, until: u64) -> Option<Closed> {
        self.until = Some(until);
        self.beyond = self.begun.back().is_some_and(|last| *last >= until);
        self.closed()
    }

    /// Forgets the end: the model serves on.
    pub fn go_on(&mut self) {
        self.until = None;
        self.beyond = false;
    }

    /// Judges a frame that was seen.
    pub fn see(&mut self, seq: u64) -> Verdict {
        if self.until.is_some_and(|until| seq >= until) {
            self.beyond = true;
            return self.closed().map_or(Verdict::Beyond, Verdict::Closed);
        }
        let known = self.begun.back().map_or(self.next, |last| last.saturating_add(1));
        if seq < known { Verdict::Ignore } else { Verdict::Run }
    }

    /// Enters that the work on a frame that [`see`](Self::see) said to run has begun.
    pub fn begin(&mut self, seq: u64) {
        self.begun.push_back(seq);
    }

    /// Enters an answer (good or bad) to the frame that was begun first.
    pub fn answered(&mut self, seq: u64) -> Answered {
        while self.begun.front().is_some_and(|first| *first <= seq) {
            self.begun.pop_front();
        }
        let skipped = seq.saturating_sub(self.next);
        self.next = self.next.max(seq.saturating_add(1));
        Answered { skipped, closed: self.closed() }
    }

    /// Closed when all below the end is accounted for, or when nothing below it can come any more.
    fn closed(&self) -> Option<Closed> {
        let until = self.until?;
        let owed = self.begun.front().is_some_and(|first| *first < until);
        (self.next >= until || (self.beyond && !owed))
            .then(|| Closed { until, skipped: until.saturating_sub(self.next) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds one window with the frames that a model of changing speed would see, stops it when
    /// number `stop_at` has been published, and gives what it said.
    #[derive(Debug, Default)]
    struct Said {
        frames: Vec<(u64, u64)>,
        stopped: Option<u64>,
    }

    fn feed(window: &mut Window, seen: &[u64], stop: Option<(u64, u64)>) -> Said {
        let mut said = Said::default();
        for &seq in seen {
            if let Some((at, until)) = stop
                && seq >= at
                && let Some(closed) = window.stop(until)
            {
                said.stopped = Some(closed.skipped);
                return said;
            }
            match window.see(seq) {
                Verdict::Ignore => {}
                Verdict::Beyond => unreachable!("nothing is begun and not answered"),
                Verdict::Closed(closed) => {
                    said.stopped = Some(closed.skipped);
                    return said;
                }
                Verdict::Run => {
                    window.begin(seq);
                    let answered = window.answered(seq);
                    said.frames.push((seq, answered.skipped));
                    if let Some(closed) = answered.closed {
                        said.stopped = Some(closed.skipped);
                        return said;
                    }
                }
            }
        }
        said
    }

    /// The rising numbers that a subscriber sees of `1..=last` when it misses `gaps`, with the doubles
    /// that a restarted source makes.
    fn seen(last: u64) -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec(0u64..6, 1..200).prop_map(move |gaps| {
            let mut seq = 0;
            let mut seen = Vec::new();
            for gap in gaps {
                seq += gap; // a gap of none is a double
                if seq > last {
                    break;
                }
                if seq > 0 {
                    seen.push(seq);
                }
            }
            seen
        })
    }

    proptest! {
        #[test]
        fn answered_and_skipped_add_up_to_the_window(
            seen in seen(300), from in 0u64..120, gone_by in 0u64..120, at in 0u64..150, until in 0u64..150,
        ) {
            let mut window = Window::open(from, gone_by);
            let first = window.next();
            prop_assert_eq!(first, from.max(gone_by));
            let said = feed(&mut window, &seen, Some((at, until)));
            let answered = said.frames.len() as u64;
            let skipped: u64 = said.frames.iter().map(|(_, skipped)| skipped).sum();
            let last = said.frames.last().map_or(first, |(seq, _)| seq + 1);
            prop_assert_eq!(answered + skipped, last - first);
            if let Some(rest) = said.stopped {
                // A stop that comes late cannot take back what was answered.
                prop_assert_eq!(answered + skipped + rest, until.max(last) - first.min(until.max(last)));
            }
            prop_assert!(said.frames.windows(2).all(|pair| pair[0].0 < pair[1].0), "each is answered once");
        }

        /// Up to two frames are begun at a time; each step begins one, answers one, or sets the end.
        #[test]
        fn frames_that_are_begun_early_are_answered_once_or_left_to_the_next(
            seen in seen(120), lag in prop::collection::vec(any::<bool>(), 1..40),
            at in 0usize..200, until in 0u64..140,
        ) {
            let mut window = Window::open(1, 0);
            let mut lag = lag.iter().cycle();
            let (mut begun, mut answered, mut skipped) = (VecDeque::new(), Vec::new(), 0);
            let mut closed = None;
            let mut answer = |window: &mut Window, begun: &mut VecDeque<u64>| {
                let seq = begun.pop_front()?;
                let said = window.answered(seq);
                answered.push(seq);
                skipped += said.skipped;
                said.closed
            };
            for (step, seq) in seen.into_iter().chain(141..150).enumerate() {
                if step >= at && window.until.is_none() {
                    closed = window.stop(until);
                }
                if closed.is_some() {
                    break;
                }
                match window.see(seq) {
                    Verdict::Ignore | Verdict::Beyond => {}
                    Verdict::Closed(end) => closed = Some(end),
                    Verdict::Run => {
                        window.begin(seq);
                        begun.push_back(seq);
                    }
                }
                if closed.is_none() && (begun.len() == 2 || *lag.next().unwrap()) {
                    closed = answer(&mut window, &mut begun);
                }
                if closed.is_some() {
                    break;
                }
            }
            // What was begun may end in the close as well.
            while closed.is_none() && !begun.is_empty() {
                closed = answer(&mut window, &mut begun);
            }
            prop_assert!(answered.windows(2).all(|pair| pair[0] < pair[1]), "each is answered once");
            if let Some(closed) = closed {
                prop_assert_eq!(closed.until, until);
                prop_assert!(begun.iter().all(|seq| *seq >= until), "{:?} were ours", begun);
                let last = answered.last().map_or(1, |seq| seq + 1);
                prop_assert_eq!(answered.len() as u64 + skipped, last - 1);
                prop_assert_eq!(closed.skipped, until.saturating_sub(last));
            } else {
                prop_assert!(window.until.is_none(), "a frame beyond the end closes it");
            }
        }
    }

    fn end(until: u64, skipped: u64) -> Closed {
        Closed { until, skipped }
    }

    #[test]
    fn a_stop_that_is_already_past_closes_at_once() {
        let mut window = Window::open(5, 0);
        assert_eq!(window.answered(5), Answered { skipped: 0, closed: None });
        assert_eq!(window.stop(6), Some(end(6, 0)));
        assert_eq!(window.stop(0), Some(end(0, 0)), "0 means at once");
    }

    #[test]
    fn the_frame_before_the_end_closes_without_waiting_for_the_next() {
        let mut window = Window::open(1, 0);
        assert_eq!(window.stop(10), None);
        assert_eq!(window.see(9), Verdict::Run);
        window.begin(9);
        assert_eq!(window.answered(9), Answered { skipped: 8, closed: Some(end(10, 0)) });
    }

    #[test]
    fn a_frame_beyond_the_end_is_left_to_the_next_model() {
        let mut window = Window::open(1, 0);
        assert_eq!(window.answered(1), Answered { skipped: 0, closed: None });
        assert_eq!(window.stop(4), None);
        assert_eq!(window.see(7), Verdict::Closed(end(4, 2)));
        window.go_on();
        assert_eq!(window.see(7), Verdict::Run);
    }

    #[test]
    fn a_stop_finds_frames_that_were_begun() {
        // One runs, one is prepared; the end lies before, between and behind them.
        let begun = || {
            let mut window = Window::open(1, 0);
            for seq in [3, 5] {
                assert_eq!(window.see(seq), Verdict::Run);
                window.begin(seq);
                assert_eq!(window.see(seq), Verdict::Ignore, "a double is not begun twice");
            }
            window
        };
        assert_eq!(begun().stop(2), Some(end(2, 1)), "neither is ours");
        let mut window = begun();
        assert_eq!(window.stop(4), None, "3 is owed");
        assert_eq!(window.answered(3), Answered { skipped: 2, closed: Some(end(4, 0)) });
        let mut window = begun();
        assert_eq!(window.stop(5), None);
        assert_eq!(window.answered(3), Answered { skipped: 2, closed: Some(end(5, 1)) });
        let mut window = begun();
        assert_eq!(window.stop(8), None);
        assert_eq!(window.see(9), Verdict::Beyond, "both are owed");
        assert_eq!(window.answered(3), Answered { skipped: 2, closed: None });
        assert_eq!(window.answered(5), Answered { skipped: 1, closed: Some(end(8, 2)) });
    }
}
