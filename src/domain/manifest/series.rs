//! The input of a model that takes a window of sensor samples.

use super::ElementType;
use serde::{Deserialize, Serialize};

/// Order of the axes of a series tensor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeriesLayout {
    /// Batch, channel, sample.
    #[default]
    Ncl,
    /// Batch, sample, channel.
    Nlc,
}

/// What the model is given where the sensor gave nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gap {
    /// The channel's last value; before the first one, that one.
    #[default]
    Hold,
    /// A zero in the tensor: the channel's mean.
    Zero,
    /// Nothing: the window is an error. Use it where a device must leave such windows out at the source.
    Refuse,
}

/// The input of a model that takes a window of sensor samples. Each tensor value is
/// `(sample × scale − mean[c]) ÷ std[c]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeriesSpec {
    /// The input's name in the model.
    pub name: String,
    /// All three axes, a batch of 1 outermost; no axis is left open.
    pub shape: Vec<i64>,
    /// Element type.
    #[serde(rename = "type")]
    pub element: ElementType,
    /// Order of the axes.
    #[serde(default)]
    pub layout: SeriesLayout,
    /// Names of the channels for people, in order; empty or one a channel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<String>,
    /// Factor, before mean and standard deviation.
    #[serde(default = "super::one")]
    pub scale: f32,
    /// Subtracted, one a channel or one for all; empty is zero.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mean: Vec<f32>,
    /// Divisor, one a channel or one for all; empty is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub std: Vec<f32>,
    /// What stands in for samples that are missing.
    #[serde(default)]
    pub gap: Gap,
}

impl SeriesSpec {
    /// Channels and samples of a window; `None` unless the shape has three axes of sizes that can be.
    pub fn size(&self) -> Option<(u32, u32)> {
        let [_, a, b] = self.shape[..] else { return None };
        let (channels, length) = match self.layout {
            SeriesLayout::Ncl => (a, b),
            SeriesLayout::Nlc => (b, a),
        };
        Some((u32::try_from(channels).ok()?, u32::try_from(length).ok()?))
    }
}
