//! The camera's side of a source whose every frame is to be answered: how far its child may go, and where
//! in the film a fresh child goes on. See [`domain::credit`](crate::domain::credit).

use crate::domain::PipelineName;
use crate::domain::credit::{self, AHEAD, Claim};
use std::collections::{BTreeMap, VecDeque};
use tokio::sync::watch;

/// Published frames whose place in the film is kept; only those on their way are asked for.
const MARKS: usize = 4 * AHEAD as usize;

/// What every pipeline claims.
pub type Claims = BTreeMap<PipelineName, Claim>;

/// How far the film is.
pub struct Film {
    claims: watch::Receiver<Claims>,
    /// The last number that the child may publish.
    until: u64,
    /// True when it has an end: a fresh child goes on where the one before was.
    ends: bool,
    /// Pictures of the film that were held back, so far.
    still: u64,
    /// Numbers of published frames, and the pictures held back before each.
    marks: VecDeque<(u64, u64)>,
}

/// Where a fresh child begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    /// The number of its first frame: the first that is owed, whether it was published before or not.
    pub seq: u64,
    /// Pictures of the source to leave out.
    pub skip: u64,
    /// The last number that it may publish.
    pub until: u64,
}

impl Film {
    /// At its beginning.
    pub fn new(claims: watch::Receiver<Claims>, ends: bool) -> Self {
        Self { claims, until: 0, ends, still: 0, marks: VecDeque::with_capacity(MARKS) }
    }

    /// Waits until a pipeline has said something new. Never fails: without pipelines it waits for ever.
    pub async fn changed(&mut self) {
        if self.claims.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The last number that may be published now, when that has changed.
    pub fn further(&mut self) -> Option<u64> {
        let until = credit::until(self.claims.borrow_and_update().values().copied())?;
        (until > self.until).then(|| {
            self.until = until;
            until
        })
    }

    /// More pictures were held back.
    pub fn held_back(&mut self, pictures: u64) {
        self.still += pictures;
    }

    /// A frame was published.
    pub fn published(&mut self, seq: u64) {
        self.marks.retain(|(marked, _)| *marked < seq);
        if self.marks.len() == MARKS {
            self.marks.pop_front();
        }
        self.marks.push_back((seq, self.still));
    }

    /// Where a fresh child begins, after `newest` was published. What was lost on its way with the last
    /// child is published again under its number; who has it already passes it over.
    pub fn begin(&mut self, newest: u64) -> Begin {
        let owed = |claim: &Claim| match claim {
            Claim::Open(open) => Some(*open),
            Claim::Soon => None,
        };
        let owed = self.claims.borrow().values().filter_map(owed).min();
        let oldest = self.marks.front().map_or(newest + 1, |(seq, _)| *seq);
        let seq = owed.unwrap_or(newest + 1).max(oldest).min(newest + 1);
        let mark = self.marks.iter().find(|(marked, _)| *marked == seq);
        // What was held back since is held back again.
        self.still = mark.map_or(self.still, |(_, still)| *still);
        let skip = if self.ends { seq - 1 + self.still } else { 0 };
        Begin { seq, skip, until: self.until }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_child_goes_on_with_what_is_owed() {
        let (claims, seen) = watch::channel(Claims::new());
        let mut film = Film::new(seen, true);
        assert_eq!(film.begin(0), Begin { seq: 1, skip: 0, until: 0 });
        assert_eq!(film.further(), None);
        let name: PipelineName = "main".parse().unwrap();
        claims.send_replace(Claims::from([(name.clone(), Claim::Open(1))]));
        assert_eq!((film.further(), film.further()), (Some(AHEAD), None));
        // Pictures 1, 2, 4 and 6 of the film are frames 1 to 4; 3, 5 and 7 were held back.
        film.published(1);
        film.published(2);
        film.held_back(1);
        film.published(3);
        film.held_back(1);
        film.published(4);
        film.held_back(1);
        claims.send_replace(Claims::from([(name.clone(), Claim::Open(5))]));
        assert_eq!(film.further(), Some(7));
        assert_eq!(film.begin(4), Begin { seq: 5, skip: 7, until: 7 }, "all is answered");
        claims.send_replace(Claims::from([(name.clone(), Claim::Open(3))]));
        let third = Begin { seq: 3, skip: 3, until: 7 };
        assert_eq!(film.begin(4), third, "frame 3 is picture 4");
        film.published(3);
        film.held_back(1);
        film.published(4);
        assert_eq!(film.begin(4), third, "what is held back twice counts once");
        film.published(3);
        film.held_back(1);
        film.published(4);
        // Nobody serves: what was on its way is lost, the rest is not.
        claims.send_replace(Claims::from([(name, Claim::Soon)]));
        assert_eq!(film.begin(4), Begin { seq: 5, skip: 6, until: 7 });
        film.ends = false;
        assert_eq!(film.begin(4).skip, 0, "one that begins again may begin anywhere");
    }
}
