//! What has been heard of the device, and what follows from it. Pure: messages go in one by one.

use super::score::Tally;
use crate::domain::deployment::{SlotState, Stage};
use crate::domain::metrics::{FrameCounts, MetricsReport};
use crate::domain::{CommandId, DeploymentId, FrameResult, Reason, Release, StageTimes};
use crate::inference::source::scene::Truth;
use crate::mqtt::payloads::{CommandReply, ReplyStatus};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// One message of the device.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// `availability`
    Online(bool),
    /// `model/<slot>/state`
    Slot(Box<SlotState>),
    /// `telemetry/<pipeline>`
    Frame(FrameResult),
    /// `metrics`
    Metrics(Box<MetricsReport>),
    /// `ack/<command>/<id>`
    Reply(CommandReply),
}

/// How an attempt to bring a release ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// Where.
    pub stage: Stage,
    /// Why, unless it was committed.
    pub reason: Option<Reason>,
}

/// Figures over the frames since [`Seen::measure`].
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Measured {
    /// Frames.
    pub frames: u64,
    /// Accuracy, 0 to 1; absent where the truth is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub f1: Option<f64>,
    /// Answers a second, by capture times.
    pub fps: f64,
    /// Median milliseconds from capture to answer.
    pub latency_ms: f32,
    /// Mean milliseconds by stage.
    pub stages_ms: StageTimes,
}

/// What became of the frames of a stretch, from answers and counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Accounts {
    /// Numbers from the first to the last answer.
    pub frames: u64,
    /// Answered.
    pub answered: u64,
    /// Not answered.
    pub gaps: u64,
    /// Counted by the device as skipped or failed in that stretch.
    pub counted: u64,
}

impl Accounts {
    /// Frames that were neither answered nor counted.
    pub fn lost(&self) -> u64 {
        self.gaps.saturating_sub(self.counted)
    }
}

/// Everything heard so far.
#[derive(Debug, Default)]
pub struct Seen {
    /// Connected, as far as the broker knows.
    pub online: bool,
    /// The slot's newest state.
    pub slot: Option<SlotState>,
    /// The newest figures.
    pub metrics: Option<MetricsReport>,
    /// Reports of figures so far.
    pub reports: u64,
    /// The newest reply to each command.
    pub replies: BTreeMap<CommandId, ReplyStatus>,
    /// The newest frame.
    pub frame: Option<FrameResult>,
    tally: Tally,
    frames: Vec<FrameResult>,
    stretch: BTreeSet<u64>,
    before: FrameCounts,
}

impl Seen {
    /// Takes one message in; `truths` gives the truth of a frame, where it is known.
    pub fn hear(&mut self, heard: Heard, truths: impl Fn(&FrameResult) -> Option<Vec<Truth>>) {
        match heard {
            Heard::Online(online) => self.online = online,
            Heard::Slot(state) => self.slot = Some(*state),
            Heard::Metrics(report) => {
                self.metrics = Some(*report);
                self.reports += 1;
            }
            Heard::Reply(reply) => {
                self.replies.insert(reply.id, reply.status);
            }
            Heard::Frame(result) => {
                if let Some(truths) = truths(&result) {
                    self.tally.add(&result.output.detections, &truths);
                }
                self.stretch.insert(result.seq);
                self.frames.push(result.clone());
                self.frame = Some(result);
            }
        }
    }

    /// What serves.
    pub fn current(&self) -> Option<&Release> {
        self.slot.as_ref()?.current.as_ref().map(|bundle| &bundle.release)
    }

    /// The newest deployment's id.
    pub fn deployment(&self) -> Option<DeploymentId> {
        Some(self.slot.as_ref()?.deployment.as_ref()?.id.clone())
    }

    /// How the newest deployment ended, where it is one of `release`, not `before`, and at its end.
    pub fn ended(&self, release: &Release, before: Option<&DeploymentId>) -> Option<Ended> {
        let deployment = self.slot.as_ref()?.deployment.as_ref()?;
        let ended =
            deployment.release == *release && Some(&deployment.id) != before && deployment.stage.is_final();
        ended.then(|| Ended { stage: deployment.stage, reason: deployment.reason.clone() })
    }

    /// Forgets the frames so far; [`Seen::measured`] tells of those after this.
    pub fn measure(&mut self) {
        self.tally = Tally::default();
        self.frames.clear();
    }

    /// Frames since [`Seen::measure`].
    pub fn count(&self) -> usize {
        self.frames.len()
    }

    /// Accuracy so far since [`Seen::measure`].
    pub fn f1(&self) -> Option<f64> {
        self.tally.f1()
    }

    /// Figures over the frames since [`Seen::measure`].
    pub fn measured(&self) -> Measured {
        let count = self.frames.len().max(1) as f32;
        let mean = |stage: fn(&StageTimes) -> f32| {
            self.frames.iter().map(|frame| stage(&frame.timing_ms)).sum::<f32>() / count
        };
        let mut latencies: Vec<f32> = self.frames.iter().map(|frame| frame.latency_ms).collect();
        latencies.sort_by(f32::total_cmp);
        let seconds = match (self.frames.first(), self.frames.last()) {
            (Some(first), Some(last)) => {
                last.captured_unix_ns.saturating_sub(first.captured_unix_ns) as f64 / 1e9
            }
            _ => 0.0,
        };
        Measured {
            frames: self.frames.len() as u64,
            f1: self.tally.f1(),
            fps: if seconds > 0.0 { (self.frames.len() - 1) as f64 / seconds } else { 0.0 },
            latency_ms: latencies.get(latencies.len() / 2).copied().unwrap_or_default(),
            stages_ms: StageTimes {
                decode: mean(|t| t.decode),
                preprocess: mean(|t| t.preprocess),
                infer: mean(|t| t.infer),
                postprocess: mean(|t| t.postprocess),
            },
        }
    }

    /// Begins a stretch of frames to be accounted for. The newest figures must be from before it.
    pub fn begin_stretch(&mut self) {
        self.stretch.clear();
        self.before = self.counts();
    }

    /// The stretch's accounts. The newest figures must be from after its last answer.
    pub fn accounts(&self) -> Accounts {
        let frames = match (self.stretch.first(), self.stretch.last()) {
            (Some(first), Some(last)) => last - first + 1,
            _ => 0,
        };
        let answered = self.stretch.len() as u64;
        let (now, before) = (self.counts(), self.before);
        let counted = (now.skipped + now.failed).saturating_sub(before.skipped + before.failed);
        Accounts { frames, answered, gaps: frames - answered, counted }
    }

    fn counts(&self) -> FrameCounts {
        let pipeline = self.metrics.as_ref().and_then(|report| report.pipelines.first());
        pipeline.map(|pipeline| pipeline.frames).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::deployment::{BundleRef, DeploymentState};
    use crate::domain::health::SourceState;
    use crate::domain::metrics::PipelineMetrics;
    use crate::domain::{Detection, Digest, Output};

    fn frame(seq: u64, detections: Vec<Detection>) -> FrameResult {
        FrameResult {
            seq,
            captured_unix_ns: seq as i64 * 50_000_000,
            latency_ms: seq as f32,
            size: [320, 240],
            output: Output { detections, ..Output::default() },
            timing_ms: StageTimes { infer: 2.0, ..StageTimes::default() },
        }
    }

    fn metrics(skipped: u64, failed: u64) -> Heard {
        let frames = FrameCounts { skipped, failed, ..FrameCounts::default() };
        let pipeline = PipelineMetrics {
            name: "belt".parse().unwrap(),
            frames,
            source: SourceState::Running,
            source_restarts: 0,
            fps: 0.0,
            events: BTreeMap::new(),
            provider_share: BTreeMap::new(),
            latency_ms: BTreeMap::new(),
        };
        Heard::Metrics(Box::new(MetricsReport { pipelines: vec![pipeline], ..MetricsReport::default() }))
    }

    fn state(id: &str, version: &str, stage: Stage) -> Heard {
        let release: Release = format!("m@{version}").parse().unwrap();
        let digest = Digest::from_bytes([0; 32]);
        Heard::Slot(Box::new(SlotState {
            slot: "s".parse().unwrap(),
            current: Some(BundleRef { release: release.clone(), digest }),
            previous: None,
            provider: None,
            deployment: Some(DeploymentState {
                id: id.parse().unwrap(),
                release,
                stage,
                progress: None,
                reason: None,
                shadow: None,
                cause: None,
                waiting: None,
                transfer: None,
            }),
            safe_mode: None,
        }))
    }

    #[test]
    fn figures_are_of_the_frames_since_the_measurement_began() {
        let mut seen = Seen::default();
        let part = [0.0, 0.0, 10.0, 10.0];
        let found = Detection { label: "washer".into(), class: 0, score: 1.0, bbox: part };
        let truth =
            |_: &FrameResult| Some(vec![Truth { label: "washer", class: 0, bbox: part, visible: 1.0 }]);
        seen.hear(Heard::Frame(frame(1, vec![])), truth);
        assert_eq!(seen.measured().f1, Some(0.0));
        seen.measure();
        for seq in 2..=5 {
            seen.hear(Heard::Frame(frame(seq, vec![found.clone()])), truth);
        }
        let measured = seen.measured();
        assert_eq!((measured.frames, measured.f1, measured.latency_ms), (4, Some(1.0), 4.0));
        assert!((measured.fps - 20.0).abs() < 1e-9);
        assert_eq!(measured.stages_ms.infer, 2.0);
    }

    #[test]
    fn without_a_truth_there_is_no_accuracy() {
        let mut seen = Seen::default();
        seen.hear(Heard::Frame(frame(1, vec![])), |_| None);
        assert_eq!((seen.measured().frames, seen.measured().f1), (1, None));
    }

    #[test]
    fn a_frame_is_lost_only_when_nobody_counted_it() {
        let mut seen = Seen::default();
        seen.hear(metrics(10, 1), |_| None);
        seen.hear(Heard::Frame(frame(4, vec![])), |_| None);
        seen.begin_stretch();
        for seq in [5, 6, 8, 11] {
            seen.hear(Heard::Frame(frame(seq, vec![])), |_| None);
        }
        seen.hear(metrics(11, 2), |_| None);
        let accounts = seen.accounts();
        assert_eq!(accounts, Accounts { frames: 7, answered: 4, gaps: 3, counted: 2 });
        assert_eq!(accounts.lost(), 1);
        seen.hear(metrics(12, 2), |_| None);
        assert_eq!(seen.accounts().lost(), 0);
    }

    #[test]
    fn only_the_end_of_a_new_attempt_counts() {
        let mut seen = Seen::default();
        let release: Release = "m@2.0.0".parse().unwrap();
        assert_eq!(seen.ended(&release, None), None);
        seen.hear(state("d1", "2.0.0", Stage::Refused), |_| None);
        let first = seen.deployment();
        assert_eq!(seen.ended(&release, None).unwrap().stage, Stage::Refused);
        assert_eq!(seen.ended(&release, first.as_ref()), None, "that is the attempt before");
        seen.hear(state("d2", "2.0.0", Stage::Probation), |_| None);
        assert_eq!(seen.ended(&release, first.as_ref()), None, "not at its end");
        seen.hear(state("d2", "2.0.0", Stage::Committed), |_| None);
        assert_eq!(seen.ended(&release, first.as_ref()).unwrap().stage, Stage::Committed);
        assert_eq!(seen.ended(&"m@3.0.0".parse().unwrap(), first.as_ref()), None, "another release");
    }
}
