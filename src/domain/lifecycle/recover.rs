//! What a restart of the agent finds, and how a deployment goes on from it. Pure.

use super::{Deployment, Effect, Origin, State};
use crate::domain::deployment::BundleRef;
use crate::domain::reason::{Reason, ReasonCode};

/// How to go on after the agent ended, in whatever way, in the middle of a deployment.
///
/// `current` is what the slot's link says: the truth about which bundle serves. A record that fits
/// neither before nor after its swap is stale (somebody changed the slot, or the store lost its newest
/// part): it is closed and the slot left alone. `max_boots` bounds how often one trial or one probation
/// may find the agent restarted.
pub fn recover(found: Deployment, current: Option<&BundleRef>, max_boots: u32) -> (Deployment, Vec<Effect>) {
    use State as S;
    let before = current == found.serving.as_ref();
    let after = current.is_some() && current == found.candidate();
    match found.state.clone() {
        // The end may have come between the record and the sweep behind it.
        S::Committed { .. } | S::RolledBack { .. } | S::Refused { .. } => {
            (found, vec![Effect::CollectGarbage])
        }

        // What was resolved is asked again: the bytes on the disk are kept, the word is fresh.
        S::Resolving | S::Fetching { .. } | S::Verifying { .. } if before => {
            (found.with(S::Resolving), vec![Effect::Resolve])
        }
        S::Staged { .. } if before => (found, vec![Effect::BeginTrial]),
        S::OnTrial { candidate, trials } | S::Shadowing { candidate, trials } if before => {
            again(found, candidate, trials, max_boots)
        }
        // The link is set after the candidate took over, so it tells whether that was reached.
        S::Swapping { candidate, trials } if before => match found.origin {
            Origin::Previous => (found, vec![Effect::SwapBack { candidate }]),
            Origin::Repository | Origin::File { .. } => again(found, candidate, trials, max_boots),
        },
        S::Swapping { candidate, .. } if after => match found.origin {
            Origin::Previous => {
                (found.with(S::Committed { candidate }), vec![Effect::RepairLinks, Effect::CollectGarbage])
            }
            Origin::Repository | Origin::File { .. } => {
                let effects = vec![Effect::RepairLinks, Effect::Watch { baseline_ms: None }];
                (found.with(S::Probation { candidate, baseline_ms: None, boots: 1 }), effects)
            }
        },
        S::Probation { candidate, baseline_ms, boots } if after => {
            let boots = boots.saturating_add(1);
            if boots <= max_boots {
                let effects = vec![Effect::RepairLinks, Effect::Watch { baseline_ms }];
                return (found.with(S::Probation { candidate, baseline_ms, boots }), effects);
            }
            let release = &candidate.release;
            let detail = format!("the agent restarted {boots} times while {release} was in probation");
            let reason = Reason::new(ReasonCode::BootLoop, detail);
            (found.with(S::RollingBack { candidate, reason }), vec![Effect::PutBack])
        }
        S::RollingBack { .. } if before || after => (found, vec![Effect::PutBack]),

        S::Resolving
        | S::Fetching { .. }
        | S::Verifying { .. }
        | S::Staged { .. }
        | S::OnTrial { .. }
        | S::Shadowing { .. }
        | S::Swapping { .. }
        | S::Probation { .. }
        | S::RollingBack { .. } => {
            let detail = format!(
                "deployment {} of {}: the slot's bundle is neither the one before nor the one after it; record closed",
                found.id, found.release
            );
            let reason = Reason::new(ReasonCode::Internal, detail);
            (found.with(S::Refused { reason }), vec![Effect::CollectGarbage])
        }
    }
}

/// A trial that the agent's end cut short is begun again, unless it took the agent down too often.
fn again(found: Deployment, candidate: BundleRef, trials: u32, max_boots: u32) -> (Deployment, Vec<Effect>) {
    if trials > max_boots {
        let detail = format!("the agent ended {trials} times during the trial of {}", candidate.release);
        let reason = Reason::new(ReasonCode::BootLoop, detail);
        return (found.with(State::Refused { reason }), vec![Effect::CollectGarbage]);
    }
    (found.with(State::Staged { candidate, trials }), vec![Effect::BeginTrial])
}
