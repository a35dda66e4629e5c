//! What the clock means for the device's health. It matters because expiry dates are judged by it.

use super::{Problem, ProblemCode};
use serde::{Deserialize, Serialize};

/// What keeps the time where no time service does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeKeeper {
    /// A hardware clock, which agrees with the system's.
    HardwareClock,
    /// The machine around a container, whose affair the clock is.
    Host,
}

/// What is known of the clock besides whether it follows a time server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClockFacts {
    /// It is behind a time that is known to have passed: it is wrong.
    pub behind: bool,
    /// What keeps the time, where something is known to.
    pub keeper: Option<TimeKeeper>,
}

/// The clock's problem, if it has one. A clock that nothing sets and nothing keeps is one: after the next power
/// cut it begins in the past. `synchronised`: whether it follows a time server, where the kernel tells.
pub fn problem(synchronised: Option<bool>, clock: ClockFacts) -> Option<Problem> {
    let what = match (clock.behind, synchronised, clock.keeper) {
        (true, _, _) => {
            "the clock is behind a time that has passed already; set it, or start a time service such as \
                         systemd-timesyncd or chrony"
        }
        (false, Some(false), None) => {
            "the clock is not synchronised, and no hardware clock keeps it; start a time service such as \
             systemd-timesyncd or chrony"
        }
        (false, Some(false), Some(TimeKeeper::HardwareClock | TimeKeeper::Host))
        | (false, Some(true) | None, _) => return None,
    };
    Some(Problem::new(ProblemCode::ClockUnsynchronised, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clock_that_is_wrong_or_that_nobody_keeps_is_a_problem() {
        let keepers = [None, Some(TimeKeeper::HardwareClock), Some(TimeKeeper::Host)];
        for synchronised in [None, Some(true), Some(false)] {
            for keeper in keepers {
                let told = |behind| problem(synchronised, ClockFacts { behind, keeper });
                assert!(told(true).unwrap().detail.contains("behind"), "{synchronised:?} {keeper:?}");
                let unkept = synchronised == Some(false) && keeper.is_none();
                assert_eq!(told(false).is_some(), unkept, "{synchronised:?} {keeper:?}");
            }
        }
    }
}
