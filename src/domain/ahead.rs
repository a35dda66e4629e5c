//! When to begin with the next frame while the model runs on this one.
//!
//! Preparing a frame (decode, resize, normalise) on a second core hides its time behind the run. But a
//! frame that is prepared as soon as the run begins is old by a whole run when its own begins: where the
//! model is slower than the camera, newer ones have come meanwhile. So the next frame is taken as late
//! as it can still be ready in time: a run's length minus a preparation's length after the run began,
//! both as they were lately. The newest frame at that moment wins, nothing is prepared twice, and the
//! answer is as fresh as that of a loop without overlap.
//!
//! The run is guessed short and the preparation long (each follows the better guess at once and forgets
//! it slowly), because a late frame costs the model's time, an early one only a little freshness.

/// Nanoseconds that waking up a thread may take.
const MARGIN_NS: u64 = 200_000;
/// A sixteenth of the difference is forgotten with each frame.
const FORGET: u64 = 16;

/// What preparing and running took lately.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ahead {
    /// Guessed long, nanoseconds.
    prepare: u64,
    /// Guessed short, nanoseconds.
    run: u64,
}

impl Ahead {
    /// A frame was prepared in so many nanoseconds.
    pub fn prepared(&mut self, ns: u64) {
        self.prepare = ns.max(self.prepare - self.prepare.saturating_sub(ns) / FORGET);
    }

    /// The model ran for so many nanoseconds.
    pub fn ran(&mut self, ns: u64) {
        self.run = match self.run {
            0 => ns,
            // One long run says little: it counts as twice the guess at most.
            run => ns.min(run + ns.saturating_sub(run).min(run) / FORGET),
        };
    }

    /// Nanoseconds after the beginning of a run at which the next frame is to be taken, when so many are
    /// `waiting` to be run before it. 0: at once, also while nothing is known.
    pub fn wait(&self, waiting: u64) -> u64 {
        self.run.saturating_mul(1 + waiting).saturating_sub(self.prepare + self.prepare / 8 + MARGIN_NS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn the_next_frame_is_taken_when_it_will_just_be_ready() {
        let mut ahead = Ahead::default();
        assert_eq!(ahead.wait(0), 0, "nothing is known");
        for _ in 0..10 {
            ahead.prepared(4 * MS);
            ahead.ran(50 * MS);
        }
        let ready = ahead.wait(0) + 4 * MS;
        assert!((48 * MS..50 * MS).contains(&ready), "{ready}");
        assert_eq!(ahead.wait(1), ahead.wait(0) + 50 * MS, "another one is run before it");
        ahead.prepared(60 * MS);
        assert_eq!(ahead.wait(0), 0, "preparing is what takes the time");
    }

    #[test]
    fn a_slow_preparation_counts_at_once_and_is_forgotten() {
        let mut ahead = Ahead::default();
        for _ in 0..10 {
            ahead.prepared(4 * MS);
            ahead.ran(50 * MS);
        }
        let before = ahead.wait(0);
        ahead.prepared(20 * MS);
        assert!(ahead.wait(0) < before - 15 * MS);
        ahead.ran(500 * MS);
        assert!(ahead.wait(0) < before - 10 * MS, "one long run says little");
        for _ in 0..200 {
            ahead.prepared(4 * MS);
            ahead.ran(50 * MS);
        }
        assert!(ahead.wait(0).abs_diff(before) < MS, "{} {before}", ahead.wait(0));
        ahead.ran(10 * MS);
        assert!(ahead.wait(0) < 6 * MS, "a short run counts at once");
    }
}
