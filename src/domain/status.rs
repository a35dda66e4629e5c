//! What the `status` command answers, whoever asks.

use super::deployment::SlotState;
use super::health::HealthReport;
use super::metrics::MetricsReport;
use serde::{Deserialize, Serialize};

/// Everything at one moment: the `result` of a successful `status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// The judgement and what it was made from.
    pub health: HealthReport,
    /// The figures.
    pub metrics: MetricsReport,
    /// One entry a slot, with its newest deployment.
    pub slots: Vec<SlotState>,
}
