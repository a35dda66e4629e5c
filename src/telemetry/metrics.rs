//! Counters and sliding windows. The clock is an argument.

use crate::domain::delta::Transfer;
use crate::domain::deployment::Stage;
use crate::domain::health::SourceState;
use crate::domain::ledger::Skip;
use crate::domain::metrics::{FrameCounts, PipelineMetrics, Quantiles};
use crate::domain::{FrameResult, PipelineName};
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Two of these make the window: what is told covers the newest one to two of them.
const HALF_WINDOW: Duration = Duration::from_secs(30);

/// Names of the stages in [`PipelineMetrics::latency_ms`].
pub const STAGES: [&str; 6] = ["decode", "preprocess", "infer", "postprocess", "total", "end_to_end"];

/// Milliseconds over the newest one to two halves of the window.
///
/// Two histograms take turns: the older one is emptied when the newer one is full of time. Memory
/// and time per value do not grow with the number of values (HdrHistogram, 2 significant digits,
/// 1 µs to 10 min).
#[derive(Debug)]
pub struct Window {
    now: Histogram<u32>,
    before: Histogram<u32>,
    since: Instant,
    started: Instant,
}

impl Window {
    /// An empty window that begins now.
    pub fn new(now: Instant) -> Self {
        let histogram = || {
            Histogram::new_with_bounds(1, 600_000_000, 2)
                .expect("1 ≤ low, 2·low ≤ high and at most 5 digits hold for these constants")
        };
        Self { now: histogram(), before: histogram(), since: now, started: now }
    }

    /// Adds a value.
    pub fn record(&mut self, millis: f32, now: Instant) {
        self.turn(now);
        // NaN becomes 0; what is outside the bounds counts as the bound.
        self.now.saturating_record((f64::from(millis) * 1000.0).clamp(1.0, 6e8) as u64);
    }

    /// The distribution in milliseconds.
    pub fn quantiles(&mut self, now: Instant) -> Quantiles {
        self.turn(now);
        let mut all = self.before.clone();
        if all.add(&self.now).is_err() || all.is_empty() {
            return Quantiles::default();
        }
        let at = |q| all.value_at_quantile(q) as f64 / 1000.0;
        Quantiles {
            p50: at(0.5),
            p95: at(0.95),
            p99: at(0.99),
            max: all.max() as f64 / 1000.0,
            count: all.len(),
        }
    }

    /// Values per second.
    pub fn rate(&mut self, now: Instant) -> f64 {
        self.turn(now);
        let covered =
            now.duration_since(self.started.max(self.since.checked_sub(HALF_WINDOW).unwrap_or(self.since)));
        let seconds = covered.as_secs_f64();
        // Too short a time makes a rate of one frame absurd.
        if seconds < 0.1 { 0.0 } else { (self.now.len() + self.before.len()) as f64 / seconds }
    }

    fn turn(&mut self, now: Instant) {
        let passed = now.duration_since(self.since);
        if passed < HALF_WINDOW {
            return;
        }
        std::mem::swap(&mut self.now, &mut self.before);
        self.now.reset();
        self.since += HALF_WINDOW;
        if passed >= 2 * HALF_WINDOW {
            self.before.reset();
            self.since = now;
            self.started = self.started.max(now - HALF_WINDOW);
        }
    }
}

#[derive(Debug)]
struct Pipeline {
    frames: FrameCounts,
    stages: [Window; STAGES.len()],
}

impl Pipeline {
    fn new(now: Instant) -> Self {
        Self { frames: FrameCounts::default(), stages: std::array::from_fn(|_| Window::new(now)) }
    }
}

/// All that is counted.
#[derive(Debug, Default)]
pub struct Metrics {
    pipelines: BTreeMap<PipelineName, Pipeline>,
    /// Models swapped in.
    pub swaps: u64,
    /// Ended deployments by their final stage.
    pub deployments: BTreeMap<String, u64>,
    /// What the ended deployments took to come.
    pub transfers: Transfer,
    /// Restarts of children by their role.
    pub child_restarts: BTreeMap<String, u64>,
    /// Planned replacements of a grown model's process, by pipeline.
    pub recycles: BTreeMap<String, u64>,
    /// Commands that were refused, by kind.
    pub refusals: BTreeMap<String, u64>,
}

impl Metrics {
    fn pipeline(&mut self, name: &PipelineName, now: Instant) -> &mut Pipeline {
        // Looked up first, so that a known name is not copied for every frame.
        if !self.pipelines.contains_key(name) {
            self.pipelines.insert(name.clone(), Pipeline::new(now));
        }
        self.pipelines.entry(name.clone()).or_insert_with(|| Pipeline::new(now))
    }

    /// Frames that a source published.
    pub fn captured(&mut self, name: &PipelineName, frames: u64, now: Instant) {
        self.pipeline(name, now).frames.captured += frames;
    }

    /// Pictures that a source held back because nothing moved in them.
    pub fn still(&mut self, name: &PipelineName, pictures: u64, now: Instant) {
        self.pipeline(name, now).frames.still += pictures;
    }

    /// Frames that went by without an answer.
    pub fn skipped(&mut self, name: &PipelineName, frames: u64, why: Skip, now: Instant) {
        let counts = &mut self.pipeline(name, now).frames;
        match why {
            Skip::Busy => counts.skipped += frames,
            Skip::Unserved => counts.unserved += frames,
            Skip::Stale => counts.stale += frames,
            Skip::Paced => counts.paced += frames,
        }
    }

    /// A frame that ended in an error.
    pub fn failed(&mut self, name: &PipelineName, now: Instant) {
        self.pipeline(name, now).frames.failed += 1;
    }

    /// A frame that was answered.
    pub fn answered(&mut self, name: &PipelineName, result: &FrameResult, now: Instant) {
        let pipeline = self.pipeline(name, now);
        pipeline.frames.answered += 1;
        let times = result.timing_ms;
        let values = [
            times.decode,
            times.preprocess,
            times.infer,
            times.postprocess,
            times.total(),
            result.latency_ms,
        ];
        for (window, value) in pipeline.stages.iter_mut().zip(values) {
            window.record(value, now);
        }
    }

    /// A deployment that ended; one that goes on is not counted.
    pub fn deployment_ended(&mut self, stage: Stage) {
        let name = match stage {
            Stage::Committed => "committed",
            Stage::RolledBack => "rolled_back",
            Stage::Refused => "refused",
            Stage::Resolving
            | Stage::Fetching
            | Stage::Verifying
            | Stage::Staged
            | Stage::OnTrial
            | Stage::Shadowing
            | Stage::Swapping
            | Stage::Probation
            | Stage::RollingBack => return,
        };
        *self.deployments.entry(name.to_owned()).or_default() += 1;
    }

    /// A child that was started again.
    pub fn child_restarted(&mut self, role: &str) {
        *self.child_restarts.entry(role.to_owned()).or_default() += 1;
    }

    /// Answered frames per second of each pipeline.
    pub fn rates(&mut self, now: Instant) -> Vec<(PipelineName, f64)> {
        self.pipelines.iter_mut().map(|(name, p)| (name.clone(), p.stages[0].rate(now))).collect()
    }

    /// The pipelines' figures.
    pub fn pipelines(&mut self, now: Instant) -> Vec<PipelineMetrics> {
        let figures = |(name, pipeline): (&PipelineName, &mut Pipeline)| PipelineMetrics {
            name: name.clone(),
            frames: pipeline.frames,
            source: SourceState::default(),
            source_restarts: 0,
            fps: pipeline.stages[0].rate(now),
            // The agent knows these, and fills them in.
            events: BTreeMap::new(),
            provider_share: BTreeMap::new(),
            latency_ms: STAGES
                .iter()
                .zip(&mut pipeline.stages)
                .map(|(stage, window)| ((*stage).to_owned(), window.quantiles(now)))
                .collect(),
        };
        self.pipelines.iter_mut().map(figures).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Output, StageTimes};

    fn result(infer: f32) -> FrameResult {
        FrameResult {
            seq: 1,
            captured_unix_ns: 0,
            latency_ms: infer + 10.0,
            size: [1, 1],
            output: Output::default(),
            timing_ms: StageTimes { decode: 1.0, preprocess: 2.0, infer, postprocess: 0.5 },
        }
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let start = Instant::now();
        let mut window = Window::new(start);
        for n in 1..=1000 {
            window.record(n as f32, start);
        }
        let q = window.quantiles(start);
        for (told, true_value) in [(q.p50, 500.0), (q.p95, 950.0), (q.p99, 990.0), (q.max, 1000.0)] {
            assert!((told - true_value).abs() <= true_value * 0.01, "{told} for {true_value}");
        }
        assert_eq!(q.count, 1000);
        window.record(f32::NAN, start);
        window.record(-1.0, start);
        window.record(f32::INFINITY, start);
        assert_eq!(window.quantiles(start).count, 1003);
    }

    #[test]
    fn old_values_leave_the_window() {
        let start = Instant::now();
        let mut window = Window::new(start);
        window.record(100.0, start);
        let at = |half: f64| start + HALF_WINDOW.mul_f64(half);
        window.record(1.0, at(1.5));
        assert_eq!(window.quantiles(at(1.9)).count, 2);
        let q = window.quantiles(at(2.1));
        assert_eq!((q.count, q.max < 2.0), (1, true), "the first half is gone");
        assert_eq!(window.quantiles(at(9.0)), Quantiles::default(), "a long silence empties it");
    }

    #[test]
    fn the_rate_follows_what_comes() {
        let start = Instant::now();
        let mut window = Window::new(start);
        let frame = |n: u32| start + Duration::from_millis(40) * n;
        for n in 1..=25 * 200 {
            window.record(1.0, frame(n));
            if n == 50 || n % 500 == 0 {
                let rate = window.rate(frame(n));
                assert!((rate - 25.0).abs() < 0.5, "{rate} after {n} frames");
            }
        }
        assert!(window.rate(frame(25 * 200) + 3 * HALF_WINDOW) == 0.0);
    }

    #[test]
    fn frames_are_counted_by_what_became_of_them() {
        let (mut metrics, now): (Metrics, _) = (Metrics::default(), Instant::now());
        let name: PipelineName = "belt".parse().unwrap();
        metrics.captured(&name, 10, now);
        metrics.skipped(&name, 3, Skip::Busy, now);
        metrics.skipped(&name, 2, Skip::Stale, now);
        metrics.still(&name, 7, now);
        metrics.failed(&name, now);
        for _ in 0..6 {
            metrics.answered(&name, &result(20.0), now);
        }
        let told = &metrics.pipelines(now)[0];
        assert_eq!(
            told.frames,
            FrameCounts {
                captured: 10,
                answered: 6,
                skipped: 3,
                stale: 2,
                failed: 1,
                still: 7,
                ..FrameCounts::default()
            }
        );
        assert_eq!(told.latency_ms.len(), STAGES.len());
        assert!((told.latency_ms["infer"].p50 - 20.0).abs() < 0.2);
        assert!((told.latency_ms["total"].p50 - 23.5).abs() < 0.25);
        assert!((told.latency_ms["end_to_end"].p99 - 30.0).abs() < 0.3);
    }

    #[test]
    fn only_ended_deployments_count() {
        let mut metrics = Metrics::default();
        for stage in [Stage::Fetching, Stage::Committed, Stage::RolledBack, Stage::Refused, Stage::Committed]
        {
            metrics.deployment_ended(stage);
        }
        let told: Vec<_> = metrics.deployments.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        assert_eq!(told, [("committed", 2), ("refused", 1), ("rolled_back", 1)]);
    }
}
