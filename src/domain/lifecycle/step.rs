//! Every state with every event: the table of the state machine. Pure.

use super::{Deployment, Effect, Event, Origin, Refusal, State};
use crate::domain::reason::Reason;

/// What follows from an event: the next deployment, to be made durable, and then what is to be done.
pub fn step(now: &Deployment, event: Event) -> Result<(Deployment, Vec<Effect>), Refusal> {
    use Event as E;
    use State as S;
    let now = now.clone();
    let refuse = |now: Deployment, reason, effects| Ok((now.with(S::Refused { reason }), effects));
    let roll_back = |now: Deployment, candidate, reason| {
        Ok((now.with(S::RollingBack { candidate, reason }), vec![Effect::PutBack]))
    };
    match (now.state.clone(), event) {
        (S::Resolving, E::Resolved { candidate }) => {
            if now.serving.as_ref() == Some(&candidate) {
                return Ok((now.with(S::Committed { candidate }), vec![]));
            }
            Ok((now.with(S::Fetching { candidate }), vec![Effect::Fetch]))
        }
        (S::Fetching { candidate }, E::Fetched) => {
            Ok((now.with(S::Verifying { candidate }), vec![Effect::Stage]))
        }
        (S::Verifying { candidate }, E::Verified) => {
            Ok((now.with(S::Staged { candidate, trials: 0 }), vec![Effect::BeginTrial]))
        }
        (S::Staged { candidate, trials }, E::TrialBegun) => {
            let trials = trials.saturating_add(1);
            let effect = Effect::Try { candidate: candidate.clone() };
            Ok((now.with(S::OnTrial { candidate, trials }), vec![effect]))
        }
        (S::OnTrial { candidate, trials }, E::TrialPassed) => match now.shadow {
            Some(plan) if plan.frames > 0 && now.serving.is_some() => {
                Ok((now.with(S::Shadowing { candidate, trials }), vec![Effect::Shadow { plan }]))
            }
            Some(_) | None => {
                let effect = Effect::Swap { candidate: candidate.clone() };
                Ok((now.with(S::Swapping { candidate, trials }), vec![effect]))
            }
        },
        (S::Shadowing { candidate, trials }, E::ShadowPassed) => {
            let effect = Effect::Swap { candidate: candidate.clone() };
            Ok((now.with(S::Swapping { candidate, trials }), vec![effect]))
        }
        (S::Swapping { candidate, .. }, E::Swapped { baseline_ms }) => match now.origin {
            Origin::Previous => {
                Ok((now.with(S::Committed { candidate }), vec![Effect::Settle, Effect::CollectGarbage]))
            }
            Origin::Repository | Origin::File { .. } => Ok((
                now.with(S::Probation { candidate, baseline_ms, boots: 0 }),
                vec![Effect::Watch { baseline_ms }],
            )),
        },
        (S::Probation { candidate, .. }, E::ProbationPassed) => {
            Ok((now.with(S::Committed { candidate }), vec![Effect::Settle, Effect::CollectGarbage]))
        }
        (S::RollingBack { candidate, reason }, E::PutBack) => {
            Ok((now.with(S::RolledBack { candidate, reason }), vec![Effect::CollectGarbage]))
        }
        // The links are back already; what remains is the supervisor's: it starts what they name.
        (S::RollingBack { candidate, reason }, E::Failed(also)) => {
            let detail = format!("{}; then {}", reason.detail, also.detail);
            let reason = Reason::new(reason.code, detail);
            Ok((now.with(S::RolledBack { candidate, reason }), vec![Effect::CollectGarbage]))
        }

        (
            S::Resolving | S::Fetching { .. } | S::Verifying { .. } | S::Staged { .. },
            E::Failed(reason) | E::Stop(reason),
        ) => refuse(now, reason, vec![Effect::CollectGarbage]),
        (S::OnTrial { .. } | S::Shadowing { .. }, E::Failed(reason) | E::Stop(reason)) => {
            refuse(now, reason, vec![Effect::Discard, Effect::CollectGarbage])
        }
        (
            S::Swapping { candidate, .. } | S::Probation { candidate, .. },
            E::Failed(reason) | E::Stop(reason),
        ) => roll_back(now, candidate, reason),

        (S::RollingBack { .. }, E::Stop(_)) => Err(Refusal::RollingBack),
        (
            S::Committed { .. } | S::RolledBack { .. } | S::Refused { .. },
            E::Resolved { .. }
            | E::Fetched
            | E::Verified
            | E::TrialBegun
            | E::TrialPassed
            | E::ShadowPassed
            | E::Swapped { .. }
            | E::ProbationPassed
            | E::Failed(_)
            | E::PutBack
            | E::Stop(_),
        ) => Err(Refusal::Ended),

        (
            S::Resolving,
            E::Fetched
            | E::Verified
            | E::TrialBegun
            | E::TrialPassed
            | E::ShadowPassed
            | E::Swapped { .. }
            | E::ProbationPassed
            | E::PutBack,
        )
        | (
            S::Fetching { .. },
            E::Resolved { .. }
            | E::Verified
            | E::TrialBegun
            | E::TrialPassed
            | E::ShadowPassed
            | E::Swapped { .. }
            | E::ProbationPassed
            | E::PutBack,
        )
        | (
            S::Verifying { .. },
            E::Resolved { .. }
            | E::Fetched
            | E::TrialBegun
            | E::TrialPassed
            | E::ShadowPassed
            | E::Swapped { .. }
            | E::ProbationPassed
            | E::PutBack,
        )
        | (
            S::Staged { .. },
            E::Resolved { .. }
            | E::Fetched
            | E::Verified
            | E::TrialPassed
            | E::ShadowPassed
            | E::Swapped { .. }
            | E::ProbationPassed
            | E::PutBack,
        )
        | (
            S::OnTrial { .. },
            E::Resolved { .. }
            | E::Fetched
            | E::Verified
            | E::TrialBegun
            | E::ShadowPassed
            | E::Swapped { .. }
            | E::ProbationPassed
            | E::PutBack,
        )
        | (
            S::Shadowing { .. },
            E::Resolved { .. }
            | E::Fetched
            | E::Verified
            | E::TrialBegun
            | E::TrialPassed
            | E::Swapped { .. }
            | E::ProbationPassed
            | E::PutBack,
        )
        | (
            S::Swapping { .. },
            E::Resolved { .. }
            | E::Fetched
            | E::Verified
            | E::TrialBegun
            | E::TrialPassed
            | E::ShadowPassed
            | E::ProbationPassed
            | E::PutBack,
        )
        | (
            S::Probation { .. },
            E::Resolved { .. }
            | E::Fetched
            | E::Verified
            | E::TrialBegun
            | E::TrialPassed
            | E::ShadowPassed
            | E::Swapped { .. }
            | E::PutBack,
        )
        | (
            S::RollingBack { .. },
            E::Resolved { .. }
            | E::Fetched
            | E::Verified
            | E::TrialBegun
            | E::TrialPassed
            | E::ShadowPassed
            | E::Swapped { .. }
            | E::ProbationPassed,
        ) => Err(Refusal::OutOfPlace),
    }
}
