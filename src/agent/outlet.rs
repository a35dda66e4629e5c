//! Where a pipeline's frames end: in the figures, in events, on MQTT, and in the sign of life for the watchdog.

use super::events::Events;
use super::pipeline::Sink;
use crate::domain::ledger::Skip;
use crate::domain::memory::Excess;
use crate::domain::{Detection, FrameResult, PipelineName, Reason};
use crate::mqtt;
use crate::process::protocol::Boxes;
use crate::telemetry::Telemetry;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Boxes of a result that are kept.
const MAX_BOXES: usize = 100;

/// Takes what comes out of the pipelines; nothing here waits.
pub struct Outlet {
    telemetry: Telemetry,
    mqtt: Option<mqtt::Handle>,
    events: Arc<Events>,
    /// Frames finished by pipeline.
    finished: Mutex<BTreeMap<PipelineName, u64>>,
    /// What was found in the newest frame of each pipeline, for pictures with boxes.
    newest: Mutex<BTreeMap<PipelineName, Boxes>>,
}

impl Outlet {
    /// Joins the ends.
    pub fn new(telemetry: Telemetry, mqtt: Option<mqtt::Handle>, events: Arc<Events>) -> Self {
        Self { telemetry, mqtt, events, finished: Mutex::default(), newest: Mutex::default() }
    }

    /// What becomes of the answers as events.
    pub fn events(&self) -> &Arc<Events> {
        &self.events
    }

    /// Frames that a pipeline has finished, well or not.
    pub fn finished(&self, pipeline: &PipelineName) -> u64 {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner).get(pipeline).copied().unwrap_or(0)
    }

    /// The boxes of the newest result; none where nothing was answered yet.
    pub fn boxes(&self, pipeline: &PipelineName) -> Option<Boxes> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).get(pipeline).cloned()
    }

    fn keep(&self, pipeline: &PipelineName, size: [u32; 2], mut detections: Vec<Detection>) {
        detections.truncate(MAX_BOXES);
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let boxes = Boxes { size, detections };
        match newest.get_mut(pipeline) {
            Some(kept) => *kept = boxes,
            None => drop(newest.insert(pipeline.clone(), boxes)),
        }
    }

    fn finish(&self, pipeline: &PipelineName) {
        let mut finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
        match finished.get_mut(pipeline) {
            Some(count) => *count += 1,
            None => drop(finished.insert(pipeline.clone(), 1)),
        }
    }
}

impl Sink for Outlet {
    fn answered(&self, pipeline: &PipelineName, result: FrameResult) {
        self.telemetry.answered(pipeline, &result);
        if let Some(mqtt) = &self.mqtt {
            mqtt.telemetry(pipeline, &result);
        }
        self.events.answered(pipeline, &result);
        self.keep(pipeline, result.size, result.output.detections);
        self.finish(pipeline);
    }

    fn failed(&self, pipeline: &PipelineName, seq: u64, reason: &Reason) {
        self.telemetry.failed(pipeline);
        tracing::debug!(%pipeline, seq, %reason, "frame failed");
        self.finish(pipeline);
    }

    fn skipped(&self, pipeline: &PipelineName, count: u64, why: Skip) {
        match why {
            Skip::Busy | Skip::Unserved => {}
            // The loop works; it is the frames that are of no use.
            Skip::Stale | Skip::Paced => self.finish(pipeline),
        }
        self.telemetry.skipped(pipeline, count, why);
    }

    fn published(&self, pipeline: &PipelineName, frames: u64) {
        self.telemetry.captured(pipeline, frames);
    }

    fn still(&self, pipeline: &PipelineName, pictures: u64) {
        self.telemetry.still(pipeline, pictures);
    }

    fn recycled(&self, pipeline: &PipelineName, excess: Excess) {
        let (has, may) = (excess.bytes >> 20, excess.budget >> 20);
        tracing::warn!(%pipeline, "the model's process has {has} MiB, its budget is {may} MiB; a fresh one takes over");
        self.telemetry.recycled(pipeline);
    }

    fn child_lost(&self, pipeline: &PipelineName, role: &'static str, reason: &Reason) {
        tracing::warn!(%pipeline, role, %reason, "child lost");
        self.telemetry.child_restarted(role);
    }
}
