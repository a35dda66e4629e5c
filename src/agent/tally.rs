//! What a slot's states mean for the counters. Pure.
//!
//! A state is told more than once (when its provider becomes known, when somebody lagged), and a start
//! tells what ended before it; only a change counts.

use crate::domain::delta::Transfer;
use crate::domain::deployment::{BundleRef, SlotState, Stage};
use crate::domain::{DeploymentId, SlotName};
use std::collections::BTreeMap;

/// What is new in a state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct News {
    /// Another bundle took over, or the one before came back.
    pub swapped: bool,
    /// A deployment came to its end.
    pub ended: Option<Stage>,
    /// What the ended one took to come.
    pub transfer: Option<Transfer>,
}

#[derive(Debug)]
struct Known {
    current: Option<BundleRef>,
    deployment: Option<(DeploymentId, Stage)>,
}

/// What was seen of each slot.
#[derive(Debug, Default)]
pub struct Tally(BTreeMap<SlotName, Known>);

impl Tally {
    /// Takes a state and tells what is new in it. The first of a slot is what a start found.
    pub fn see(&mut self, state: &SlotState) -> News {
        let deployment = state.deployment.as_ref().map(|one| (one.id.clone(), one.stage));
        let now = Known { current: state.current.clone(), deployment };
        let Some(before) = self.0.insert(state.slot.clone(), now) else { return News::default() };
        let was_under_way = |id: &DeploymentId| {
            // Without an earlier word of it, it ended before the start.
            before.deployment.as_ref().is_some_and(|(known, stage)| known == id && !stage.is_final())
        };
        let ended = state.deployment.as_ref().filter(|one| one.stage.is_final() && was_under_way(&one.id));
        News {
            swapped: state.current.is_some() && state.current != before.current,
            ended: ended.map(|one| one.stage),
            transfer: ended.and_then(|one| one.transfer.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Digest;
    use crate::domain::deployment::DeploymentState;

    fn state(current: Option<u8>, deployment: Option<(&str, Stage)>) -> SlotState {
        let bundle = |n: u8| BundleRef {
            release: format!("m@{n}.0.0").parse().unwrap(),
            digest: Digest::from_bytes([n; 32]),
        };
        SlotState {
            slot: "detector".parse().unwrap(),
            current: current.map(bundle),
            previous: None,
            provider: None,
            deployment: deployment.map(|(id, stage)| DeploymentState {
                id: id.parse().unwrap(),
                release: "m@2.0.0".parse().unwrap(),
                stage,
                progress: None,
                reason: None,
                shadow: None,
                cause: None,
                waiting: None,
                transfer: None,
            }),
            safe_mode: None,
        }
    }

    #[test]
    fn each_swap_and_each_end_counts_once() {
        let mut tally = Tally::default();
        let mut news = |current, deployment| {
            let news = tally.see(&state(current, deployment));
            (news.swapped, news.ended)
        };
        assert_eq!(news(Some(1), Some(("a", Stage::Committed))), (false, None), "from before the start");
        assert_eq!(news(Some(1), Some(("a", Stage::Committed))), (false, None));
        assert_eq!(news(Some(1), Some(("b", Stage::OnTrial))), (false, None));
        assert_eq!(news(Some(2), Some(("b", Stage::Probation))), (true, None));
        assert_eq!(news(Some(2), Some(("b", Stage::Probation))), (false, None));
        assert_eq!(news(Some(1), Some(("b", Stage::RollingBack))), (true, None));
        assert_eq!(news(Some(1), Some(("b", Stage::RolledBack))), (false, Some(Stage::RolledBack)));
        assert_eq!(news(Some(1), Some(("b", Stage::RolledBack))), (false, None));
        assert_eq!(news(Some(1), Some(("c", Stage::Swapping))), (false, None));
        assert_eq!(news(Some(3), Some(("c", Stage::Committed))), (true, Some(Stage::Committed)));
        assert_eq!(news(None, Some(("c", Stage::Committed))), (false, None), "nothing took over");
    }
}
