//! `manifest.json`: what a bundle is, what it needs, and how its numbers become answers.
//!
//! These are the checked words of the format; reading, limits on sizes and paths, and comparing with
//! the model live in `bundle/`. The SHA-256 of the manifest's bytes is the bundle's identity.

mod decode;
mod encryption;
mod series;

pub use decode::*;
pub use encryption::*;
pub use series::*;

use super::id::{Digest, ModelName, Release};
use super::result::Output;
use super::runtime::{
    CpuTuning, CudaTuning, OpenVinoTuning, Optimization, TensorRtTuning, Tuning, XnnpackTuning,
};
use serde::{Deserialize, Serialize};

/// The version of this format that this agent writes.
pub const FORMAT: u32 = 1;

/// All that is said of a bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format version, [`FORMAT`].
    pub format: u32,
    /// The model's name, the same over all versions.
    pub name: ModelName,
    /// The model's version.
    pub version: semver::Version,
    /// One line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// SPDX expression or a name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub license: String,
    /// Path of the ONNX file inside the bundle; one of `files`.
    pub model: String,
    /// Every file of the bundle but the manifest itself.
    pub files: Vec<FileEntry>,
    /// The model's inputs with their pre-processing. Exactly one of them takes the picture; none for a
    /// model that takes a `series`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<InputSpec>,
    /// The only input of a model that takes a window of sensor samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<SeriesSpec>,
    /// How the model's outputs become answers.
    pub decode: Decode,
    /// Class names by class number, background not counted.
    #[serde(default)]
    pub labels: Vec<String>,
    /// What a device must have.
    #[serde(default)]
    pub needs: Needs,
    /// How the runtime is best set up; the device's configuration wins.
    #[serde(default)]
    pub runtime: RuntimeHints,
    /// Inputs with known answers, tried before the bundle counts.
    #[serde(default)]
    pub golden: Vec<GoldenSample>,
    /// How far an answer to a golden input may be off.
    #[serde(default)]
    pub tolerance: Tolerance,
    /// Which files are encrypted; absent where none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
}

impl Manifest {
    /// Name and version together.
    pub fn release(&self) -> Release {
        Release::new(self.name.clone(), self.version.clone())
    }

    /// The label of class `class`, or its number in digits.
    pub fn label(&self, class: u32) -> String {
        label(&self.labels, class)
    }

    /// Name, shape and element type of the only input, picture or series.
    pub fn input(&self) -> Option<(&str, &[i64], ElementType)> {
        let picture = self.inputs.first().map(|input| (&*input.name, &*input.shape, input.element));
        self.series.as_ref().map(|series| (&*series.name, &*series.shape, series.element)).or(picture)
    }

    /// Bytes of all files together, the manifest itself not counted.
    pub fn total_size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

/// The label of class `class`, or its number in digits.
pub fn label(labels: &[String], class: u32) -> String {
    labels.get(class as usize).cloned().unwrap_or_else(|| class.to_string())
}

/// One file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Relative path with forward slashes.
    pub path: String,
    /// Its content.
    pub sha256: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// Element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ElementType {
    /// 32-bit float.
    F32,
    /// 16-bit float.
    F16,
    /// Unsigned byte.
    U8,
    /// Signed byte.
    I8,
    /// 64-bit signed integer (outputs only).
    I64,
}

/// Order of the axes of a picture tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Batch, channel, row, column.
    Nchw,
    /// Batch, row, column, channel.
    Nhwc,
}

/// Channels that the model expects, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Color {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// Luminance only.
    Grey,
}

impl Color {
    /// 1 or 3.
    pub fn channels(self) -> usize {
        match self {
            Color::Rgb | Color::Bgr => 3,
            Color::Grey => 1,
        }
    }
}

/// Where a letterboxed picture sits in the tensor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Anchor {
    /// In the middle, padding on both sides (Ultralytics).
    #[default]
    Center,
    /// In the top left corner, padding right and below (YOLOX).
    TopLeft,
}

/// How a picture of any size becomes one of the model's size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fit {
    /// Scaled in both directions on its own; the aspect ratio changes.
    Stretch,
    /// Scaled to fit inside; the rest is padded.
    Letterbox {
        /// Padding, 0 to 255, before normalising.
        #[serde(default = "default_padding")]
        value: u8,
        /// Where the picture sits.
        #[serde(default)]
        position: Anchor,
    },
    /// Scaled to cover; what sticks out is cut off on both sides.
    CenterCrop,
}

fn default_padding() -> u8 {
    114
}

/// One input of the model. Each tensor value is `(pixel × scale − mean[c]) ÷ std[c]`, with the pixel
/// 0 to 255.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSpec {
    /// The input's name in the model.
    pub name: String,
    /// All axes, outermost first; no axis is left open: the draft writes 1 for an open batch.
    pub shape: Vec<i64>,
    /// Element type.
    #[serde(rename = "type")]
    pub element: ElementType,
    /// Order of the axes.
    pub layout: Layout,
    /// How the picture is fitted.
    pub fit: Fit,
    /// Channels and their order.
    pub color: Color,
    /// Factor, before mean and standard deviation.
    #[serde(default = "one")]
    pub scale: f32,
    /// Subtracted, one a channel or one for all; empty is zero.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mean: Vec<f32>,
    /// Divisor, one a channel or one for all; empty is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub std: Vec<f32>,
    /// How finely a JPEG is decoded.
    #[serde(default, skip_serializing_if = "JpegDetail::is_exact")]
    pub jpeg: JpegDetail,
}

/// How finely a JPEG is decoded before it is brought to the input's size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JpegDetail {
    /// At least twice as large as needed: the step down is the plain bilinear one that most models are
    /// trained and deployed with, fine patterns (aliases) and all.
    #[default]
    Exact,
    /// At least as large as needed, which takes less time. The step down is then mostly the decoder's,
    /// which smooths. A model that was trained on smoothed pictures may like it better; one that was not
    /// finds the same things at slightly other places. Let golden inputs judge.
    Fast,
}

impl JpegDetail {
    /// True for the default.
    pub fn is_exact(&self) -> bool {
        *self == JpegDetail::Exact
    }
}

fn one() -> f32 {
    1.0
}

impl InputSpec {
    /// Width and height in pixels, from the shape and the layout; `None` unless it has four axes.
    pub fn size(&self) -> Option<(u32, u32)> {
        let [_, a, b, c] = self.shape[..] else { return None };
        let (h, w) = match self.layout {
            Layout::Nchw => (b, c),
            Layout::Nhwc => (a, b),
        };
        Some((u32::try_from(w).ok()?, u32::try_from(h).ok()?))
    }
}

/// What a device must have.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Needs {
    /// Memory for the model's child, MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// The model's opset of the default domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opset: Option<u32>,
    /// The model's IR version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ir_version: Option<u32>,
    /// Versions of the agent that will do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<semver::VersionReq>,
    /// Execution providers of which the device must really run one; empty: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub providers: Vec<Provider>,
}

/// An execution provider of ONNX Runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// NVIDIA TensorRT.
    TensorRt,
    /// NVIDIA CUDA.
    Cuda,
    /// Intel OpenVINO.
    OpenVino,
    /// XNNPACK: another set of kernels for the processor.
    Xnnpack,
    /// The processor.
    Cpu,
}

impl Provider {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::TensorRt, Self::Cuda, Self::OpenVino, Self::Xnnpack, Self::Cpu];

    /// As written in configuration, payloads and manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Provider::TensorRt => "tensorrt",
            Provider::Cuda => "cuda",
            Provider::OpenVino => "openvino",
            Provider::Xnnpack => "xnnpack",
            Provider::Cpu => "cpu",
        }
    }
}

/// How the runtime is best set up. The words are those of [`Tuning`], without a level of their own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuntimeHints {
    /// Threads inside one operator; the runtime's choice when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intra_threads: Option<usize>,
    /// [`Tuning::inter_threads`]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inter_threads: Option<usize>,
    /// [`Tuning::optimization`]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimization: Option<Optimization>,
    /// [`Tuning::memory_pattern`]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_pattern: Option<bool>,
    /// [`Tuning::cpu`]
    #[serde(skip_serializing_if = "CpuTuning::is_empty")]
    pub cpu: CpuTuning,
    /// [`Tuning::tensorrt`]
    #[serde(skip_serializing_if = "TensorRtTuning::is_empty")]
    pub tensorrt: TensorRtTuning,
    /// [`Tuning::cuda`]
    #[serde(skip_serializing_if = "CudaTuning::is_empty")]
    pub cuda: CudaTuning,
    /// [`Tuning::openvino`]
    #[serde(skip_serializing_if = "OpenVinoTuning::is_empty")]
    pub openvino: OpenVinoTuning,
    /// [`Tuning::xnnpack`]
    #[serde(skip_serializing_if = "XnnpackTuning::is_empty")]
    pub xnnpack: XnnpackTuning,
}

impl RuntimeHints {
    /// The hints in the device's words.
    pub fn tuning(&self) -> Tuning {
        Tuning {
            inter_threads: self.inter_threads,
            optimization: self.optimization,
            memory_pattern: self.memory_pattern,
            // Where the device keeps what is no matter of the bundle.
            save_optimized: None,
            cpu: self.cpu.clone(),
            tensorrt: self.tensorrt.clone(),
            cuda: self.cuda.clone(),
            openvino: self.openvino.clone(),
            xnnpack: self.xnnpack.clone(),
        }
    }
}

/// An input with a known answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenSample {
    /// Path of the picture (JPEG or PNG) or the window of samples (CSV) inside the bundle; one of `files`.
    pub input: String,
    /// What the model must answer.
    pub expected: Output,
}

/// How far an answer may be off.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tolerance {
    /// Difference of a score.
    pub score: f32,
    /// Least overlap (IoU) of a box with its counterpart.
    pub iou: f32,
    /// Difference of a raw value, relative to the larger of 1 and the expected one.
    pub value: f32,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { score: 0.05, iou: 0.85, value: 1e-2 }
    }
}
