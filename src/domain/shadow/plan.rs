//! What a shadow run is to show, and what a deployment may ask of it.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a deployment asks for in place of the configuration; what is absent stays as configured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShadowWish {
    /// Frames that both models must answer; 0 runs no shadow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames: Option<u64>,
    /// Seconds after which too few frames are a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_seconds: Option<u64>,
    /// Least agreement, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_agreement: Option<f32>,
    /// Times the serving model's time per frame, 1 or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_slowdown: Option<f32>,
    /// Bytes of memory that the candidate's process may have; 0 is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_memory: Option<u64>,
}

impl ShadowWish {
    /// Most frames that may be asked for.
    pub const MAX_FRAMES: u64 = 100_000_000;
    /// Longest time that may be asked for, seconds: 30 days.
    pub const MAX_SECONDS: u64 = 30 * 86_400;

    /// Checks the numbers.
    ///
    /// # Errors
    /// The first that makes no sense, with what would.
    pub fn check(&self) -> Result<(), String> {
        let within = |value: Option<f32>, least: f32, most: f32| {
            value.is_none_or(|value| (least..=most).contains(&value))
        };
        if self.frames.is_some_and(|frames| frames > Self::MAX_FRAMES) {
            return Err(format!("shadow frames: use 0 (none) to {}", Self::MAX_FRAMES));
        }
        if self.max_seconds.is_some_and(|seconds| !(1..=Self::MAX_SECONDS).contains(&seconds)) {
            return Err(format!("shadow max_seconds: use 1 to {}", Self::MAX_SECONDS));
        }
        if !within(self.min_agreement, 0.0, 1.0) {
            return Err("shadow min_agreement: use 0 to 1".to_owned());
        }
        if !within(self.max_slowdown, 1.0, 1000.0) {
            return Err("shadow max_slowdown: use 1 to 1000".to_owned());
        }
        Ok(())
    }
}

/// How long a candidate runs in the shadow, and what is good enough.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Frames that both models must have answered; 0 runs no shadow.
    pub frames: u64,
    /// Longest time.
    pub max_time: Duration,
    /// Least agreement, 0 to 1.
    pub min_agreement: f32,
    /// Times the serving model's time per frame.
    pub max_slowdown: f32,
    /// Milliseconds per frame that are never too slow.
    pub slow_floor_ms: f32,
    /// Bytes of memory of the candidate's process; 0 is no limit.
    pub max_memory: u64,
    /// Share of the candidate's frames, 0 to 1, that may end in an error.
    pub max_error_ratio: f32,
}

impl Plan {
    /// The plan with what a deployment asks for in its place.
    pub fn with(self, wish: &ShadowWish) -> Self {
        Self {
            frames: wish.frames.unwrap_or(self.frames),
            max_time: wish.max_seconds.map_or(self.max_time, Duration::from_secs),
            min_agreement: wish.min_agreement.unwrap_or(self.min_agreement),
            max_slowdown: wish.max_slowdown.unwrap_or(self.max_slowdown),
            max_memory: wish.max_memory.unwrap_or(self.max_memory),
            ..self
        }
    }
}
