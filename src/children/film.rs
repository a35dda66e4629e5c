//! How a capture child reads a source whose every frame is to be answered: as far as it is allowed to,
//! and no pace of its own. See [`domain::credit`](crate::domain::credit).

use crate::domain::credit::all_done;
use std::time::{Duration, Instant};

/// After a fault the source is left alone for so long, so that one that only fails costs nothing.
const REST: Duration = Duration::from_millis(50);

/// How far the source may be read.
#[derive(Debug, Default)]
pub struct Film {
    /// The last number that may be published.
    until: u64,
    /// Pictures that an earlier child had published or held back.
    skip: u64,
    /// It was read to its end.
    ended: bool,
    /// Not before.
    rest: Option<Instant>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Ask the source.
    Read,
    /// Frames that were published are to be answered first.
    Wait,
    /// The source is at its end, and all its frames have their fate.
    Over,
}

impl Film {
    /// Frames up to `seq` may be published.
    pub fn allow(&mut self, seq: u64) {
        self.until = self.until.max(seq);
    }

    /// The first pictures are not wanted.
    pub fn skip(&mut self, pictures: u64) {
        self.skip = pictures;
    }

    /// True when the picture that was read is not wanted.
    pub fn skips(&mut self) -> bool {
        let skips = self.skip > 0;
        self.skip = self.skip.saturating_sub(1);
        skips
    }

    /// The source has no more pictures.
    pub fn at_end(&mut self) {
        self.ended = true;
    }

    /// The source has failed; it is asked again in a moment.
    pub fn rest(&mut self) {
        self.rest = Some(Instant::now() + REST);
    }

    /// What is to be done where `next` is the number of the next frame.
    pub fn turn(&self, next: u64) -> Turn {
        match self.ended {
            true if all_done(next, self.until) => Turn::Over,
            false if next <= self.until && self.left().is_zero() => Turn::Read,
            true | false => Turn::Wait,
        }
    }

    /// How long to wait for orders; `long` where only they can change something.
    pub fn wait(&self, next: u64, long: Duration) -> Duration {
        match self.turn(next) {
            Turn::Read | Turn::Over => Duration::ZERO,
            Turn::Wait if !self.ended && next <= self.until => self.left(),
            Turn::Wait => long,
        }
    }

    fn left(&self) -> Duration {
        self.rest.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::credit::{Claim, until};

    #[test]
    fn it_goes_as_far_as_it_is_allowed_and_ends_when_all_is_answered() {
        let long = Duration::from_secs(9);
        let mut film = Film::default();
        assert_eq!((film.turn(1), film.wait(1, long)), (Turn::Wait, long), "nobody serves yet");
        let allowed = until([Claim::Open(1)]).unwrap();
        film.allow(allowed);
        film.allow(1);
        assert_eq!((film.turn(allowed), film.wait(allowed, long)), (Turn::Read, Duration::ZERO));
        assert_eq!(film.turn(allowed + 1), Turn::Wait);
        film.rest();
        assert_eq!(film.turn(allowed), Turn::Wait);
        assert!(film.wait(allowed, long) <= REST);
        film.at_end();
        assert_eq!(film.turn(3), Turn::Wait, "1 and 2 are owed");
        film.allow(until([Claim::Open(3)]).unwrap());
        assert_eq!(film.turn(3), Turn::Over);
    }

    #[test]
    fn what_an_earlier_child_has_given_is_left_out() {
        let mut film = Film::default();
        film.skip(2);
        assert_eq!([film.skips(), film.skips(), film.skips()], [true, true, false]);
    }
}
