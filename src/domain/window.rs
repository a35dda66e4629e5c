//! Which frames a model answers for, and the proof that none is forgotten.
//!
//! The newest frame wins, so a slow model passes frames over. Every number from its first to its last
//! is then either *answered* or *counted as skipped*. [`Window`] keeps that account in the inference
//! process; [`Share`] reads it in the agent, where at a swap two models hand over at one number.

/// What is to be done about a frame that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is before the window, or was answered before (a source that restarted may repeat numbers).
    Ignore,
    /// It is ours: run the model, then call [`Window::answered`].
    Run,
    /// It is beyond the end: the window is closed.
    Closed {
        /// The end.
        until: u64,
        /// Numbers below the end that went by since the last answer.
        skipped: u64,
    },
}

/// What an answer adds to the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// Numbers that went by since the last answer.
    pub skipped: u64,
    /// Set when nothing is left to answer: the end that was asked for.
    pub closed: Option<u64>,
}

/// The account of one inference process between a start and a stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The first number that is not accounted for yet.
    next: u64,
    /// The first number that is no longer ours, once it is known.
    until: Option<u64>,
}

impl Window {
    /// Opens a window at `from`, or at `gone_by` where frames below that number can no longer be had.
    pub fn open(from: u64, gone_by: u64) -> Self {
        Self { next: from.max(gone_by), until: None }
    }

    /// The first number that is not accounted for yet: the first of all, right after opening.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Sets the end. `Some(0)` when nothing is left to answer, so that the window is closed at once.
    /// An end that was set before is replaced.
    pub fn stop(&mut self, until: u64) -> Option<u64> {
        self.until = Some(until);
        (self.next >= until).then_some(0)
    }

    /// Forgets the end: the model serves on.
    pub fn go_on(&mut self) {
        self.until = None;
    }

    /// Judges a frame that was seen.
    pub fn see(&self, seq: u64) -> Verdict {
        match self.until {
            Some(until) if seq >= until => {
                Verdict::Closed { until, skipped: until.saturating_sub(self.next) }
            }
            Some(_) | None if seq < self.next => Verdict::Ignore,
            Some(_) | None => Verdict::Run,
        }
    }

    /// Enters an answer (good or bad) to a frame that [`see`](Self::see) said to run.
    pub fn answered(&mut self, seq: u64) -> Answered {
        let skipped = seq.saturating_sub(self.next);
        self.next = self.next.max(seq.saturating_add(1));
        Answered { skipped, closed: self.until.filter(|until| self.next >= *until) }
    }
}

/// What one message of a model's process adds to the pipeline's account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// True when the answer counts; else another model answers this frame.
    pub answered: bool,
    /// Frames counted as skipped.
    pub skipped: u64,
}

/// The frames that count as one model's, as the agent sees it: from the number it was given, up to the
/// number at which the next one takes over. Messages of the two may overlap by a few frames, because
/// the stop travels while the model works; each number is counted once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    next: u64,
    until: u64,
}

impl Share {
    /// A share that begins at the number that the process reported as its first.
    pub fn begin(from: u64) -> Self {
        Self { next: from, until: u64::MAX }
    }

    /// The first number that is not accounted for yet.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Ends the share before `until`.
    pub fn end(&mut self, until: u64) {
        self.until = until;
    }

    /// True when every number of the share is accounted for; never before [`end`](Self::end).
    pub fn is_complete(&self) -> bool {
        self.next >= self.until
    }

    /// Enters an answer to `seq`; what lies between the last one and it was skipped.
    pub fn frame(&mut self, seq: u64) -> Counted {
        let skipped = seq.min(self.until).saturating_sub(self.next);
        let answered = seq >= self.next && seq < self.until;
        self.next = self.next.max(seq.saturating_add(1).min(self.until));
        Counted { answered, skipped }
    }

    /// Enters the end of the process's account (or of the process): what is left was skipped. Give the
    /// first number that nobody has published yet, in case the share has no end.
    pub fn close(&mut self, published: u64) -> u64 {
        let end = self.until.min(published.max(self.next));
        let skipped = end.saturating_sub(self.next);
        self.next = self.next.max(end);
        skipped
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
                && let Some(skipped) = window.stop(until)
            {
                said.stopped = Some(skipped);
                return said;
            }
            match window.see(seq) {
                Verdict::Ignore => {}
                Verdict::Closed { skipped, .. } => {
                    said.stopped = Some(skipped);
                    return said;
                }
                Verdict::Run => {
                    let answered = window.answered(seq);
                    said.frames.push((seq, answered.skipped));
                    if answered.closed.is_some() {
                        said.stopped = Some(0);
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

        #[test]
        fn at_a_swap_each_number_is_counted_once(
            old_seen in seen(300), new_seen in seen(300), asked in 1u64..150, gone_by in 1u64..150, at in 0u64..200,
        ) {
            let published = 301;
            let mut new = Window::open(asked, gone_by);
            let takeover = new.next();
            let mut old = Window::open(1, 0);
            let (mut old_share, mut new_share) = (Share::begin(1), Share::begin(takeover));
            old_share.end(takeover);
            let (mut answered, mut skipped) = (0, 0);
            for (share, said) in [
                (&mut old_share, feed(&mut old, &old_seen, Some((at, takeover)))),
                (&mut new_share, feed(&mut new, &new_seen, None)),
            ] {
                for (seq, _) in said.frames {
                    let counted = share.frame(seq);
                    answered += u64::from(counted.answered);
                    skipped += counted.skipped;
                }
                skipped += share.close(published);
            }
            prop_assert!(old_share.is_complete());
            prop_assert_eq!(answered + skipped, published - 1);
        }
    }

    #[test]
    fn a_stop_that_is_already_past_closes_at_once() {
        let mut window = Window::open(5, 0);
        assert_eq!(window.answered(5), Answered { skipped: 0, closed: None });
        assert_eq!(window.stop(6), Some(0));
        assert_eq!(window.stop(0), Some(0), "0 means at once");
    }

    #[test]
    fn the_frame_before_the_end_closes_without_waiting_for_the_next() {
        let mut window = Window::open(1, 0);
        assert_eq!(window.stop(10), None);
        assert_eq!(window.see(9), Verdict::Run);
        assert_eq!(window.answered(9), Answered { skipped: 8, closed: Some(10) });
    }

    #[test]
    fn a_frame_beyond_the_end_is_left_to_the_next_model() {
        let mut window = Window::open(1, 0);
        assert_eq!(window.answered(1), Answered { skipped: 0, closed: None });
        assert_eq!(window.stop(4), None);
        assert_eq!(window.see(7), Verdict::Closed { until: 4, skipped: 2 });
        window.go_on();
        assert_eq!(window.see(7), Verdict::Run);
    }
}
