//! The device's figures: counted where things happen, gathered when somebody asks.
//!
//! This folder never decides whether the device is well (`domain::health` does) and never sends
//! anything; it hands out a [`MetricsReport`] that MQTT, the local socket and Prometheus show.

pub mod board;
pub mod led;
pub mod log;
pub mod metrics;
pub mod process;
pub mod prometheus;

use crate::domain::delta::Transfer;
use crate::domain::deployment::Stage;
use crate::domain::ledger::Skip;
use crate::domain::metrics::{MetricsReport, MqttMetrics};
use crate::domain::refusal::RefusalKind;
use crate::domain::{FrameResult, PipelineName};
use board::Board;
use metrics::Metrics;
use process::Processes;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The agent's hold on its figures; cheap to clone, and cheap to record into: counters and
/// histograms of a fixed size, no file.
#[derive(Debug, Clone)]
pub struct Telemetry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    started: Instant,
    metrics: Mutex<Metrics>,
    processes: Mutex<Processes>,
    board: Board,
}

impl Telemetry {
    /// All counters at zero; `state` is a folder on the disk whose room is told.
    pub fn new(state: &Path) -> Self {
        Self::with_board(Board::new("/", state))
    }

    /// As [`Telemetry::new`], with a board of the caller's.
    pub fn with_board(board: Board) -> Self {
        Self(Arc::new(Inner {
            started: Instant::now(),
            metrics: Mutex::default(),
            processes: Mutex::default(),
            board,
        }))
    }

    fn metrics(&self) -> MutexGuard<'_, Metrics> {
        self.0.metrics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frames that a source published.
    pub fn captured(&self, pipeline: &PipelineName, frames: u64) {
        self.metrics().captured(pipeline, frames, Instant::now());
    }

    /// Pictures that a source held back because nothing moved in them.
    pub fn still(&self, pipeline: &PipelineName, pictures: u64) {
        self.metrics().still(pipeline, pictures, Instant::now());
    }

    /// A frame that was answered.
    pub fn answered(&self, pipeline: &PipelineName, result: &FrameResult) {
        self.metrics().answered(pipeline, result, Instant::now());
    }

    /// Frames that went by without an answer.
    pub fn skipped(&self, pipeline: &PipelineName, frames: u64, why: Skip) {
        self.metrics().skipped(pipeline, frames, why, Instant::now());
    }

    /// A frame that ended in an error.
    pub fn failed(&self, pipeline: &PipelineName) {
        self.metrics().failed(pipeline, Instant::now());
    }

    /// A model took over.
    pub fn swapped(&self) {
        self.metrics().swaps += 1;
    }

    /// A deployment came to its final stage.
    pub fn deployment_ended(&self, stage: Stage) {
        self.metrics().deployment_ended(stage);
    }

    /// What an ended deployment took to come.
    pub fn transferred(&self, transfer: &Transfer) {
        self.metrics().transfers.add(transfer);
    }

    /// A child was started again; `role` is `capture` or `infer`.
    pub fn child_restarted(&self, role: &str) {
        self.metrics().child_restarted(role);
    }

    /// A model whose memory had grown was replaced by a fresh process of the same model.
    pub fn recycled(&self, pipeline: &PipelineName) {
        *self.metrics().recycles.entry(pipeline.to_string()).or_default() += 1;
    }

    /// A command over MQTT was refused.
    pub fn refused(&self, kind: RefusalKind) {
        *self.metrics().refusals.entry(kind.to_string()).or_default() += 1;
    }

    /// Commands over MQTT that were refused, by kind.
    pub fn refusals(&self) -> BTreeMap<String, u64> {
        self.metrics().refusals.clone()
    }

    /// All figures now. Reads `/proc` and `/sys` (a few milliseconds: not on a thread of async code);
    /// `processes` are our own by role and pid, `mqtt` what its handle tells.
    pub fn snapshot(&self, processes: &[(String, u32)], mqtt: MqttMetrics) -> MetricsReport {
        let now = Instant::now();
        let processes = self.0.processes.lock().unwrap_or_else(PoisonError::into_inner).read(processes, now);
        let board = self.0.board.read();
        let mut metrics = self.metrics();
        MetricsReport {
            uptime_s: now.duration_since(self.0.started).as_secs_f64(),
            pipelines: metrics.pipelines(now),
            swaps: metrics.swaps,
            deployments: metrics.deployments.clone(),
            transfers: metrics.transfers.clone(),
            child_restarts: metrics.child_restarts.clone(),
            recycles: metrics.recycles.clone(),
            refusals: metrics.refusals.clone(),
            processes,
            board,
            mqtt,
        }
    }

    /// Answered frames per second of each pipeline, for health; reads no file.
    pub fn fps(&self) -> Vec<(PipelineName, f64)> {
        self.metrics().rates(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_has_all_that_was_recorded_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let telemetry = Telemetry::new(dir.path());
        let name: PipelineName = "belt".parse().unwrap();
        telemetry.captured(&name, 3);
        telemetry.skipped(&name, 1, Skip::Busy);
        telemetry.failed(&name);
        telemetry.swapped();
        telemetry.deployment_ended(Stage::Committed);
        telemetry.child_restarted("infer");
        let mqtt = MqttMetrics { connected: true, connects: 2, ..MqttMetrics::default() };
        let report = telemetry.snapshot(&[("agent".to_owned(), std::process::id())], mqtt);
        assert_eq!(report.pipelines[0].frames.captured, 3);
        assert_eq!(
            (report.swaps, report.deployments["committed"], report.child_restarts["infer"]),
            (1, 1, 1)
        );
        assert_eq!((report.processes.len(), report.mqtt), (1, mqtt));
        assert!(report.board.memory_total_bytes.unwrap() > 0 && report.board.disk_free_bytes.is_some());
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<MetricsReport>(&json).unwrap().pipelines, report.pipelines);
        assert!(prometheus::render(&report).contains("edgewarden_frames_captured_total"));
    }
}
