//! How far a source that waits to be asked may run ahead of the models, so that every frame is answered.
//!
//! A film, a folder of pictures or a drawn scene loses nothing by waiting. Where a pipeline asks for all of
//! its frames, each pipeline of the camera says which frame it owes an answer to, and the source may
//! publish [`AHEAD`] frames from there on: as many as the buffer of a reader holds, so that none is
//! overwritten before it was taken. One is then in the model, one is being prepared, one is on its way.
//! The slowest pipeline sets the pace.

use serde::{Deserialize, Serialize};

/// Frames that may be published and not answered.
pub const AHEAD: u64 = 3;

/// What a pipeline has to do with the frames to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Claim {
    /// It will serve soon: nothing is to go by until it does.
    Soon,
    /// It serves, and all frames below this number have their fate.
    Open(u64),
}

/// The last number that may be published, as far as these pipelines say; `None`: none beyond those that
/// were allowed already, because one of them is about to serve, or none serves at all.
pub fn until(claims: impl IntoIterator<Item = Claim>) -> Option<u64> {
    let mut first = None;
    for claim in claims {
        match claim {
            Claim::Soon => return None,
            Claim::Open(open) => first = Some(first.map_or(open, |first: u64| first.min(open))),
        }
    }
    first.map(|open| open.saturating_add(AHEAD - 1))
}

/// True when every frame below `next` has its fate, by what may be published.
pub fn all_done(next: u64, until: u64) -> bool {
    until >= next.saturating_add(AHEAD - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_sets_the_pace_and_nobody_gets_nothing() {
        assert_eq!(until([]), None, "nobody serves: a film read once is not wasted");
        assert_eq!(until([Claim::Open(1)]), Some(AHEAD));
        assert_eq!(until([Claim::Open(9), Claim::Open(4)]), Some(3 + AHEAD));
        assert_eq!(until([Claim::Open(9), Claim::Soon]), None);
    }

    #[test]
    fn the_end_is_told_when_the_last_frame_is_answered() {
        // Frames 1 to 7 were published, 8 would be the next.
        let after = |open| until([Claim::Open(open)]).unwrap();
        assert!(!all_done(8, after(7)), "7 is owed");
        assert!(all_done(8, after(8)));
    }
}
