//! What is told of a deployment.

use super::{Deployment, State};
use crate::domain::deployment::DeploymentState;
use crate::domain::reason::Reason;

impl Deployment {
    /// Why it did not come to stay.
    pub fn reason(&self) -> Option<&Reason> {
        match &self.state {
            State::RollingBack { reason, .. }
            | State::RolledBack { reason, .. }
            | State::Refused { reason } => Some(reason),
            State::Resolving
            | State::Fetching { .. }
            | State::Verifying { .. }
            | State::Staged { .. }
            | State::OnTrial { .. }
            | State::Shadowing { .. }
            | State::Swapping { .. }
            | State::Probation { .. }
            | State::Committed { .. } => None,
        }
    }

    /// What may be seen of it.
    pub fn report(&self, progress: Option<f32>) -> DeploymentState {
        DeploymentState {
            id: self.id.clone(),
            release: self.release.clone(),
            stage: self.stage(),
            progress,
            reason: self.reason().cloned(),
            cause: self.cause.clone(),
            shadow: self.shadow_report.clone(),
            waiting: None,
            transfer: self.transfer.clone(),
        }
    }
}
