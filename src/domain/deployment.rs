//! One attempt to bring a slot to a release, as it is reported.
//!
//! The machine that moves from state to state is `lifecycle`; this is what everybody may see of it.

use super::delta::Transfer;
use super::id::{DeploymentId, Digest, Release, SlotName};
use super::maintenance::Waiting;
use super::manifest::Provider;
use super::reason::Reason;
use super::shadow;
use serde::{Deserialize, Serialize};

/// Where a deployment stands, without the data of the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Asking the repository what the release is.
    Resolving,
    /// Moving the files that the device lacks.
    Fetching,
    /// Checking every file against its signed digest.
    Verifying,
    /// On disk, whole and verified.
    Staged,
    /// Loaded in a child, golden inputs under way.
    OnTrial,
    /// Answers live frames beside the model that serves; its answers are compared and go nowhere.
    Shadowing,
    /// Taking over.
    Swapping,
    /// Serving, watched.
    Probation,
    /// Serving for good.
    Committed,
    /// The previous bundle is being put back.
    RollingBack,
    /// The previous bundle serves again.
    RolledBack,
    /// Never served.
    Refused,
}

impl Stage {
    /// True when nothing follows.
    pub fn is_final(self) -> bool {
        match self {
            Stage::Committed | Stage::RolledBack | Stage::Refused => true,
            Stage::Resolving
            | Stage::Fetching
            | Stage::Verifying
            | Stage::Staged
            | Stage::OnTrial
            | Stage::Shadowing
            | Stage::Swapping
            | Stage::Probation
            | Stage::RollingBack => false,
        }
    }
}

/// A bundle by name and content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleRef {
    /// Name and version.
    pub release: Release,
    /// SHA-256 of its manifest.
    pub digest: Digest,
}

/// What is reported at every step of a deployment and while nothing is under way:
/// the payload of `model/<slot>/state`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SlotState {
    /// The slot.
    pub slot: SlotName,
    /// The bundle that serves.
    pub current: Option<BundleRef>,
    /// The bundle that a rollback would bring.
    pub previous: Option<BundleRef>,
    /// The provider that really runs the current one.
    pub provider: Option<Provider>,
    /// The newest deployment, under way or ended.
    pub deployment: Option<DeploymentState>,
    /// Why the current bundle does not serve: it brought the agent down too often. The slot is in safe mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safe_mode: Option<Reason>,
}

/// A deployment's part of [`SlotState`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeploymentState {
    /// Its id.
    pub id: DeploymentId,
    /// What was asked for.
    pub release: Release,
    /// Where it stands.
    pub stage: Stage,
    /// 0 to 1 within the stage, where it can be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<f32>,
    /// Why it was refused or rolled back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Why the agent itself began it; none where somebody asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Reason>,
    /// What the candidate's shadow run found, so far or in the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<shadow::Report>,
    /// That it waits within the stage, and for what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// What its files took to come, once they are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<Transfer>,
}

/// What a candidate showed before it counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrialReport {
    /// The provider that really ran it.
    pub provider: Provider,
    /// Milliseconds from file to ready.
    pub load_ms: f32,
    /// Milliseconds of each golden run, all stages.
    pub golden_ms: Vec<f32>,
}

/// What happened at the swap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SwapReport {
    /// First frame that the new model answers.
    pub first_seq: u64,
    /// Median milliseconds per frame (all stages) of the model that served before; `None` where
    /// none served or too few frames were seen.
    pub baseline_ms: Option<f32>,
}

/// One thing seen of a serving candidate while it is watched.
#[derive(Debug, Clone, PartialEq)]
pub enum Observation {
    /// A frame was answered; all stages, milliseconds.
    Frame {
        /// Milliseconds, all stages.
        total_ms: f32,
    },
    /// A frame ended in an error.
    FrameFailed(Reason),
    /// Its child died or was killed for missing its deadline.
    ChildLost(Reason),
}
