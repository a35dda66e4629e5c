//! The way of an update, as a pure state machine.
//!
//! ```text
//! Resolving → Fetching → Verifying → Staged → OnTrial → (Shadowing) → Swapping → Probation → Committed
//!     └──────────┴───────────┴─────────┴─────────┴──────────┴→ Refused    └──────────┴──→ RollingBack → RolledBack
//! ```
//!
//! [`step()`] takes what happened and gives the next deployment together with what is to be done; the
//! driver makes the new deployment durable first and acts then, so every effect may be run again.
//! [`recover()`] tells how to go on with what a restart found. An abort and a newer wish ([`Event::Stop`]) win in
//! every state but those that are final; once the candidate may serve, they put the previous one back.
//!
//! Three ways lead in ([`Origin`]): a release of the repository, a bundle from a file, and the slot's
//! previous bundle (a rollback that a person asks for). The last was tried when it came, so it is
//! swapped in and committed without a trial.
//!
//! A shadow run comes only where the deployment's plan asks for frames and some bundle serves that the
//! candidate can be compared with.

mod recover;
mod step;
mod told;

pub use recover::recover;
pub use step::step;

use super::delta::Transfer;
use super::deployment::{BundleRef, Stage};
use super::id::{DeploymentId, Release, SlotName};
use super::maintenance::Start;
use super::reason::Reason;
use super::shadow;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where the candidate comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum Origin {
    /// The configured repository.
    Repository,
    /// A `.bundle` file on this machine.
    File {
        /// The file.
        path: PathBuf,
    },
    /// The slot's previous bundle.
    Previous,
}

/// One attempt to bring a slot to a release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// Its id.
    pub id: DeploymentId,
    /// The slot.
    pub slot: SlotName,
    /// What was asked for.
    pub release: Release,
    /// Where it comes from.
    pub origin: Origin,
    /// The bundle that served when it began; put back when the candidate is not good enough.
    pub serving: Option<BundleRef>,
    /// The bundle that was `previous` when it began.
    pub older: Option<BundleRef>,
    /// Why the agent itself began it; none where somebody asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Reason>,
    /// How the candidate runs in the shadow; without it, not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<shadow::Plan>,
    /// What its shadow run found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow_report: Option<shadow::Report>,
    /// When it may go on.
    #[serde(default, skip_serializing_if = "Start::is_plain")]
    pub start: Start,
    /// What its files took to come, since the agent began with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<Transfer>,
    /// Where it stands.
    pub state: State,
}

/// Where a deployment stands, with what is known there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum State {
    /// Asking the repository what the release is.
    Resolving,
    /// Moving the files that the device lacks.
    Fetching {
        /// The release's signed identity.
        candidate: BundleRef,
    },
    /// Checking every file and putting the bundle in its place.
    Verifying {
        /// Of the bundle.
        candidate: BundleRef,
    },
    /// On disk, whole and verified.
    Staged {
        /// What will be tried.
        candidate: BundleRef,
        /// Trials begun so far; more than one when the agent ended during a trial.
        trials: u32,
    },
    /// Loaded in a child, golden inputs under way.
    OnTrial {
        /// What is tried.
        candidate: BundleRef,
        /// Trials begun, this one counted.
        trials: u32,
    },
    /// Answers live frames beside the bundle that serves.
    Shadowing {
        /// What is compared.
        candidate: BundleRef,
        /// Trials begun, this one counted.
        trials: u32,
    },
    /// Taking over.
    Swapping {
        /// What takes over.
        candidate: BundleRef,
        /// Trials begun (0 for the slot's previous bundle, which needs none).
        trials: u32,
    },
    /// Serving, watched.
    Probation {
        /// What serves.
        candidate: BundleRef,
        /// Median milliseconds per frame of the model that served before.
        baseline_ms: Option<f32>,
        /// Starts of the agent since the swap.
        boots: u32,
    },
    /// Serving for good.
    Committed {
        /// What serves.
        candidate: BundleRef,
    },
    /// The bundle that served before is being put back.
    RollingBack {
        /// What was not good enough.
        candidate: BundleRef,
        /// Why.
        reason: Reason,
    },
    /// The bundle that served before serves again.
    RolledBack {
        /// What was not good enough.
        candidate: BundleRef,
        /// Why.
        reason: Reason,
    },
    /// Never served.
    Refused {
        /// Why.
        reason: Reason,
    },
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The repository (or the file) says what the release is, verified.
    Resolved {
        /// Its identity.
        candidate: BundleRef,
    },
    /// All files are on the disk.
    Fetched,
    /// All files have their signed digests and the bundle is in its place.
    Verified,
    /// A trial is about to begin.
    TrialBegun,
    /// The candidate's child is loaded and all golden answers were right.
    TrialPassed,
    /// The candidate agrees with the bundle that serves, within its limits.
    ShadowPassed,
    /// The candidate took over, and the slot's links say so.
    Swapped {
        /// Median milliseconds per frame of the model that served before.
        baseline_ms: Option<f32>,
    },
    /// The candidate is good enough to stay.
    ProbationPassed,
    /// The work of the present state failed.
    Failed(Reason),
    /// The bundle that served before serves again.
    PutBack,
    /// Somebody wants it to end ([`Aborted`](super::reason::ReasonCode::Aborted)), or has a newer wish
    /// ([`Superseded`](super::reason::ReasonCode::Superseded)).
    Stop(Reason),
}

/// What is to be done, in this order. Each may be done again.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Ask what the release is; gives `Resolved` or `Failed`.
    Resolve,
    /// Check that the bundle fits this device and fetch its files; gives `Fetched` or `Failed`.
    Fetch,
    /// Check the files and put the bundle in its place; gives `Verified` or `Failed`.
    Stage,
    /// Count a trial; gives `TrialBegun`.
    BeginTrial,
    /// Load the candidate and run its golden inputs; gives `TrialPassed` or `Failed`.
    Try {
        /// What to try.
        candidate: BundleRef,
    },
    /// Let the candidate on trial answer live frames beside the bundle that serves; gives `ShadowPassed`
    /// or `Failed`.
    Shadow {
        /// How long, and what is good enough.
        plan: shadow::Plan,
    },
    /// Let go of a candidate that did not come to serve.
    Discard,
    /// Let the candidate on trial take over, then set the links; gives `Swapped` or `Failed`.
    Swap {
        /// What takes over.
        candidate: BundleRef,
    },
    /// Serve a bundle that was good before, then set the links; gives `Swapped` or `Failed`.
    SwapBack {
        /// What takes over.
        candidate: BundleRef,
    },
    /// Set the links as they must be for this state: what a cut between two of them left behind.
    RepairLinks,
    /// Watch the candidate; gives `ProbationPassed` or `Failed`.
    Watch {
        /// Median milliseconds per frame of the model that served before.
        baseline_ms: Option<f32>,
    },
    /// The bundle that serves stays; let go of the idle one.
    Settle,
    /// Set the links back, then serve what served before; gives `PutBack` or `Failed`.
    PutBack,
    /// Remove bundles and downloads that nothing needs any more.
    CollectGarbage,
}

/// Why an event changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The deployment has ended.
    #[error("the deployment has ended")]
    Ended,
    /// It is being rolled back already, and that goes on.
    #[error("the deployment is being rolled back already")]
    RollingBack,
    /// Nothing under way can have reported this; a late word of work that was stopped.
    #[error("the event does not belong to the deployment's state")]
    OutOfPlace,
}

impl Deployment {
    /// Begins a deployment of a release from the repository or a file.
    pub fn begin(
        id: DeploymentId,
        slot: SlotName,
        release: Release,
        origin: Origin,
        serving: Option<BundleRef>,
        older: Option<BundleRef>,
    ) -> (Self, Vec<Effect>) {
        let (cause, shadow, shadow_report, transfer, start) = (None, None, None, None, Start::default());
        let state = State::Resolving;
        let new = Self {
            id,
            slot,
            release,
            origin,
            serving,
            older,
            cause,
            shadow,
            shadow_report,
            transfer,
            start,
            state,
        };
        (new, vec![Effect::Resolve])
    }

    /// The same with a shadow run before its swap.
    pub fn shadowed(self, plan: shadow::Plan) -> Self {
        Self { shadow: Some(plan), ..self }
    }

    /// Begins a rollback that a person asks for, to the slot's previous bundle.
    pub fn begin_rollback(
        id: DeploymentId,
        slot: SlotName,
        serving: Option<BundleRef>,
        previous: BundleRef,
    ) -> (Self, Vec<Effect>) {
        let state = State::Swapping { candidate: previous.clone(), trials: 0 };
        let effects = vec![Effect::SwapBack { candidate: previous.clone() }];
        let release = previous.release.clone();
        let (origin, older) = (Origin::Previous, Some(previous));
        let (cause, shadow, shadow_report, transfer, start) = (None, None, None, None, Start::default());
        (
            Self {
                id,
                slot,
                release,
                origin,
                serving,
                older,
                cause,
                shadow,
                shadow_report,
                transfer,
                start,
                state,
            },
            effects,
        )
    }

    /// Where it stands, without the data.
    pub fn stage(&self) -> Stage {
        self.state.stage()
    }

    /// True when nothing follows.
    pub fn is_final(&self) -> bool {
        self.stage().is_final()
    }

    /// The bundle that is deployed, where it is known and may be on the disk.
    pub fn candidate(&self) -> Option<&BundleRef> {
        match &self.state {
            State::Resolving | State::Refused { .. } => None,
            State::Fetching { candidate }
            | State::Verifying { candidate }
            | State::Staged { candidate, .. }
            | State::OnTrial { candidate, .. }
            | State::Shadowing { candidate, .. }
            | State::Swapping { candidate, .. }
            | State::Probation { candidate, .. }
            | State::Committed { candidate }
            | State::RollingBack { candidate, .. }
            | State::RolledBack { candidate, .. } => Some(candidate),
        }
    }

    /// What the slot's links must say in this state: current, previous.
    pub fn links(&self) -> (Option<&BundleRef>, Option<&BundleRef>) {
        match &self.state {
            // Nothing was done.
            State::Committed { candidate } if self.serving.as_ref() == Some(candidate) => {
                (self.serving.as_ref(), self.older.as_ref())
            }
            State::Probation { candidate, .. } | State::Committed { candidate } => {
                (Some(candidate), self.serving.as_ref())
            }
            State::Resolving
            | State::Fetching { .. }
            | State::Verifying { .. }
            | State::Staged { .. }
            | State::OnTrial { .. }
            | State::Shadowing { .. }
            | State::Swapping { .. }
            | State::RollingBack { .. }
            | State::RolledBack { .. }
            | State::Refused { .. } => (self.serving.as_ref(), self.older.as_ref()),
        }
    }

    fn with(self, state: State) -> Self {
        Self { state, ..self }
    }
}

impl State {
    /// The stage, without the data.
    pub fn stage(&self) -> Stage {
        match self {
            State::Resolving => Stage::Resolving,
            State::Fetching { .. } => Stage::Fetching,
            State::Verifying { .. } => Stage::Verifying,
            State::Staged { .. } => Stage::Staged,
            State::OnTrial { .. } => Stage::OnTrial,
            State::Shadowing { .. } => Stage::Shadowing,
            State::Swapping { .. } => Stage::Swapping,
            State::Probation { .. } => Stage::Probation,
            State::Committed { .. } => Stage::Committed,
            State::RollingBack { .. } => Stage::RollingBack,
            State::RolledBack { .. } => Stage::RolledBack,
            State::Refused { .. } => Stage::Refused,
        }
    }
}

#[cfg(test)]
mod tests;
