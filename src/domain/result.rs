//! What a model said about a frame.

use num_traits::Float;
use serde::{Deserialize, Serialize};

/// One found object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// The class's name from the bundle, or its number in digits where the bundle names none.
    pub label: String,
    /// The class's number, from 0, background not counted.
    pub class: u32,
    /// Confidence, 0 to 1.
    pub score: f32,
    /// Left, top, right, bottom in pixels of the original picture.
    #[serde(rename = "box")]
    pub bbox: [f32; 4],
}

/// Overlap of two boxes (left, top, right, bottom): intersection over union, 0 to 1. Boxes without area
/// overlap nothing.
pub fn iou<T: Float>(a: [T; 4], b: [T; 4]) -> T {
    let area =
        |[left, top, right, bottom]: [T; 4]| (right - left).max(T::zero()) * (bottom - top).max(T::zero());
    let both = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    let either = area(a) + area(b) - both;
    if either > T::zero() { both / either } else { T::zero() }
}

/// One class that the whole picture was given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Classification {
    /// The class's name from the bundle, or its number in digits where the bundle names none.
    pub label: String,
    /// The class's number, from 0.
    pub class: u32,
    /// Confidence, 0 to 1.
    pub score: f32,
}

/// An output that the bundle asks to be passed on undecoded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RawTensor {
    /// The output's name in the model.
    pub name: String,
    /// Its shape, outermost first.
    pub shape: Vec<i64>,
    /// Its values in row-major order.
    pub values: Vec<f32>,
}

/// One number that means something by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// What it is.
    pub name: String,
    /// The number, in `unit`.
    pub value: f32,
    /// Its unit; empty where it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
}

/// How unusual a frame is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Anomaly {
    /// The error of the reconstruction over all channels, in the tensor's units.
    pub score: f32,
    /// True when that is above the bundle's threshold.
    pub is_anomaly: bool,
    /// The error of each channel, under its name or number.
    #[serde(default)]
    pub channels: Vec<Value>,
}

/// All that a model said about one frame. A kind of answer that the model does not give is empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// Found objects, best first.
    #[serde(default)]
    pub detections: Vec<Detection>,
    /// Classes of the whole picture, best first.
    #[serde(default)]
    pub classes: Vec<Classification>,
    /// Numbers of a regression, in the order of the bundle.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<Value>,
    /// How unusual the frame is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anomaly: Option<Anomaly>,
    /// Undecoded outputs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tensors: Vec<RawTensor>,
}

impl Output {
    /// True when no number in it is NaN or infinite.
    pub fn is_finite(&self) -> bool {
        let boxes = self.detections.iter().flat_map(|found| found.bbox.iter().chain([&found.score]));
        let classes = self.classes.iter().map(|class| &class.score);
        let anomaly = self.anomaly.iter().map(|anomaly| &anomaly.score);
        let channels = self.anomaly.iter().flat_map(|anomaly| &anomaly.channels);
        let values = self.values.iter().chain(channels).map(|value| &value.value);
        let tensors = self.tensors.iter().flat_map(|tensor| &tensor.values);
        boxes.chain(classes).chain(anomaly).chain(values).chain(tensors).all(|number| number.is_finite())
    }
}

/// Milliseconds spent on one frame, by stage. The next frame may be prepared while the model runs on
/// this one, so the stages of a second of frames may add up to more than a second; how old an answer is
/// when it is there, waiting included, is [`FrameResult::latency_ms`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct StageTimes {
    /// From the source's bytes to pixels at the needed size.
    pub decode: f32,
    /// Resize, colour, normalise into the tensor.
    pub preprocess: f32,
    /// The bare run of the model.
    pub infer: f32,
    /// From output tensors to boxes and classes.
    pub postprocess: f32,
}

impl StageTimes {
    /// All stages together, milliseconds.
    pub fn total(&self) -> f32 {
        self.decode + self.preprocess + self.infer + self.postprocess
    }
}

/// The answer to one frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Flat")]
pub struct FrameResult {
    /// The frame's sequence number.
    pub seq: u64,
    /// Its capture time, nanoseconds since 1970, UTC.
    pub captured_unix_ns: i64,
    /// Milliseconds from capture to the end of post-processing, on the monotonic clock.
    pub latency_ms: f32,
    /// Pixels across and down of the original picture.
    pub size: [u32; 2],
    /// What the model said.
    #[serde(flatten)]
    pub output: Output,
    /// Where the time went.
    pub timing_ms: StageTimes,
}

/// A frame's answer as it is written. Read so and not by `flatten`, which keeps all of it once more on its way.
#[derive(Deserialize)]
struct Flat {
    seq: u64,
    captured_unix_ns: i64,
    latency_ms: f32,
    size: [u32; 2],
    #[serde(default)]
    detections: Vec<Detection>,
    #[serde(default)]
    classes: Vec<Classification>,
    #[serde(default)]
    values: Vec<Value>,
    #[serde(default)]
    anomaly: Option<Anomaly>,
    #[serde(default)]
    tensors: Vec<RawTensor>,
    timing_ms: StageTimes,
}

impl From<Flat> for FrameResult {
    fn from(flat: Flat) -> Self {
        let Flat { seq, captured_unix_ns, latency_ms, size, timing_ms, .. } = flat;
        let Flat { detections, classes, values, anomaly, tensors, .. } = flat;
        let output = Output { detections, classes, values, anomaly, tensors };
        Self { seq, captured_unix_ns, latency_ms, size, output, timing_ms }
    }
}
