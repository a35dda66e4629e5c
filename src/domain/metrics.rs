//! The device's figures: what `telemetry` measures and MQTT and Prometheus carry.

use super::delta::Transfer;
use super::event::Counts;
use super::health::SourceState;
use super::id::PipelineName;
use super::importance::Dropped;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// All figures at one moment. Counters start at zero with the agent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MetricsReport {
    /// Seconds since the agent started.
    pub uptime_s: f64,
    /// One entry a pipeline, by name.
    pub pipelines: Vec<PipelineMetrics>,
    /// Models swapped in.
    pub swaps: u64,
    /// Ended deployments by their final stage (`committed`, `rolled_back`, `refused`).
    pub deployments: BTreeMap<String, u64>,
    /// What the ended deployments took to come.
    #[serde(default)]
    pub transfers: Transfer,
    /// Restarts of child processes by their role.
    pub child_restarts: BTreeMap<String, u64>,
    /// Models replaced by a fresh process of the same model because their memory had grown, by pipeline.
    #[serde(default)]
    pub recycles: BTreeMap<String, u64>,
    /// Commands over MQTT that were refused, by the kind of refusal ([`RefusalKind`](super::refusal::RefusalKind)).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refusals: BTreeMap<String, u64>,
    /// The agent and its children.
    pub processes: Vec<ProcessMetrics>,
    /// The machine.
    pub board: BoardMetrics,
    /// The way to the broker.
    pub mqtt: MqttMetrics,
}

/// A pipeline's figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PipelineMetrics {
    /// The pipeline.
    pub name: PipelineName,
    /// Frames since the agent started.
    pub frames: FrameCounts,
    /// How its source is.
    #[serde(default)]
    pub source: SourceState,
    /// Times that its source was lost and started again.
    #[serde(default)]
    pub source_restarts: u64,
    /// Answered frames per second over the sliding window.
    pub fps: f64,
    /// Events by label, where the pipeline tells of any.
    #[serde(default, skip_serializing_if = "Counts::is_empty")]
    pub events: Counts,
    /// Share of the model's time by provider, 0 to 1, as the first run showed it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub provider_share: BTreeMap<String, f64>,
    /// Milliseconds by stage over the sliding window: `decode`, `preprocess`, `infer`,
    /// `postprocess`, `total` (their sum) and `end_to_end` (capture to answer).
    pub latency_ms: BTreeMap<String, Quantiles>,
}

/// What became of the frames; `captured` is at least the sum of the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameCounts {
    /// Published by the source.
    pub captured: u64,
    /// Answered by the model.
    pub answered: u64,
    /// Gone by while the model was busy: the newest frame wins.
    pub skipped: u64,
    /// Published while no model served: none installed, loading, or its process was lost.
    #[serde(default)]
    pub unserved: u64,
    /// Too old when the model was about to start on them.
    #[serde(default)]
    pub stale: u64,
    /// Above the pipeline's own frames a second, where its camera gives more to others.
    #[serde(default)]
    pub paced: u64,
    /// Ended in an error.
    pub failed: u64,
    /// Held back by the motion gate; never published, and not in `captured`.
    #[serde(default)]
    pub still: u64,
}

/// A distribution, in the unit of its field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// Median.
    pub p50: f64,
    /// 95 of 100 are at or below.
    pub p95: f64,
    /// 99 of 100 are at or below.
    pub p99: f64,
    /// The largest.
    pub max: f64,
    /// Values in the window.
    pub count: u64,
}

/// One of our processes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessMetrics {
    /// `agent`; else what it does and for which pipeline: `capture:<pipeline>`, `infer:<pipeline>`, and
    /// during an update `candidate:<pipeline>` and `standby:<pipeline>`.
    pub role: String,
    /// Its process id.
    pub pid: u32,
    /// Resident bytes.
    pub rss_bytes: u64,
    /// Bytes with shared pages counted by share, where the kernel tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pss_bytes: Option<u64>,
    /// Share of one core, 1.0 is a whole one, since the report before; `None` at the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<f64>,
    /// Seconds of processor time since it started.
    pub cpu_seconds: f64,
}

/// The machine; what a board does not tell is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BoardMetrics {
    /// Load average of a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load1: Option<f64>,
    /// Bytes of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_total_bytes: Option<u64>,
    /// Bytes of memory that a new program could get without swapping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_available_bytes: Option<u64>,
    /// Bytes of the disk with the state folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_total_bytes: Option<u64>,
    /// Bytes of it that are free for us.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_free_bytes: Option<u64>,
    /// Degrees Celsius by thermal zone.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub temperature_celsius: BTreeMap<String, f64>,
    /// Raspberry Pi: what the firmware says of voltage and clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttled: Option<Throttling>,
    /// Jetson: load of the graphics processor, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_load: Option<f64>,
    /// Watts by power rail (INA3221 sensors).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub power_watts: BTreeMap<String, f64>,
}

/// The low bits of the Raspberry Pi firmware's `get_throttled` (now), and whether any of the
/// high ones (since boot) is set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttling {
    /// The supply is below 4.63 V.
    pub under_voltage: bool,
    /// The clock is capped.
    pub frequency_capped: bool,
    /// Throttled.
    pub throttled: bool,
    /// The soft temperature limit is reached.
    pub soft_temperature_limit: bool,
    /// Any of them since boot.
    pub since_boot: bool,
}

impl Throttling {
    /// Reads the bits of `vcgencmd get_throttled`: 0–3 now, 16–19 since boot.
    pub fn from_bits(bits: u32) -> Self {
        Self {
            under_voltage: bits & 1 != 0,
            frequency_capped: bits & 1 << 1 != 0,
            throttled: bits & 1 << 2 != 0,
            soft_temperature_limit: bits & 1 << 3 != 0,
            since_boot: bits & 0xf << 16 != 0,
        }
    }

    /// True while any limit holds.
    pub fn now(&self) -> bool {
        self.under_voltage || self.frequency_capped || self.throttled || self.soft_temperature_limit
    }
}

/// The way to the broker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MqttMetrics {
    /// Connected now.
    pub connected: bool,
    /// Connections made.
    pub connects: u64,
    /// Messages that must arrive and still wait.
    pub spool_len: u64,
    /// Their bytes.
    pub spool_bytes: u64,
    /// Messages that had to arrive and were dropped: the spool was full or the broker refused them.
    pub spool_dropped: u64,
    /// The same by class.
    #[serde(default)]
    pub dropped: Dropped,
    /// Messages that could be missed and were: offline, or the way was full.
    pub live_dropped: u64,
    /// Messages of ours that the broker took.
    pub published: u64,
    /// Commands that were refused at the gate or before: unsigned, replayed, for another, or no command at all.
    #[serde(default)]
    pub commands_refused: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttling_bits_are_the_firmwares() {
        assert!(!Throttling::from_bits(0).now());
        let now = Throttling::from_bits(0x5);
        assert!(now.under_voltage && now.throttled && !now.frequency_capped && now.now() && !now.since_boot);
        let past = Throttling::from_bits(0x5_0000);
        assert!(past.since_boot && !past.now());
        assert!(Throttling::from_bits(0x8).soft_temperature_limit);
        assert!(Throttling::from_bits(0x2).frequency_capped);
    }
}
