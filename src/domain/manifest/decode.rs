//! How the model's outputs become answers: the settings of each decoding.
//!
//! The numbers are read in `inference/postprocess`. A new decoding is a variant of [`Decode`] with its
//! line in each function here that the compiler then asks for, and one file with one line there.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Least scores of single classes, by label (by number in digits where the bundle names none).
pub type ClassThresholds = BTreeMap<String, f32>;

/// What the numbers of a classifier are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// Logits: softmax makes them probabilities.
    Softmax,
    /// Independent logits: sigmoid makes each a probability.
    Sigmoid,
    /// Probabilities already.
    None,
}

/// How four numbers describe a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoxFormat {
    /// Left, top, right, bottom.
    Corners,
    /// Centre x, centre y, width, height.
    Center,
}

/// The unit of a box's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoxUnits {
    /// 0 to 1 of the model's input.
    Normalized,
    /// Pixels of the model's input.
    Pixels,
}

/// The layouts of the YOLO families' single output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum YoloVersion {
    /// `[1, n, 5 + classes]`: centre box in pixels, objectness, class scores (probabilities).
    V5,
    /// `[1, 4 + classes, n]`: centre box in pixels, class scores (v8, v9, v11).
    V8,
    /// `[1, n, 5 + classes]`: offsets from the grid cells of strides 8, 16, 32.
    Yolox,
}

/// How the model's outputs become answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Decode {
    /// One output of `[1, classes]` (axes of length one are passed over).
    Classification {
        /// The output's name.
        output: String,
        /// What its numbers are.
        activation: Activation,
        /// How many classes are reported at most.
        #[serde(default = "default_top_k")]
        top_k: usize,
        /// Classes below this are not reported.
        #[serde(default)]
        score_threshold: f32,
        /// For single classes, instead of `score_threshold`.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        class_thresholds: ClassThresholds,
    },
    /// Boxes `[1, n, 4]` and scores `[1, n, classes]`.
    BoxesScores {
        /// Name of the output with the boxes.
        boxes: String,
        /// Name of the output with the scores, probabilities.
        scores: String,
        /// How a box is described.
        format: BoxFormat,
        /// In which unit.
        units: BoxUnits,
        /// The score column that means "nothing here", if there is one; classes are counted without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        background: Option<usize>,
        /// What is kept.
        #[serde(default)]
        keep: Keep,
    },
    /// The single output of a YOLO model.
    Yolo {
        /// Which family.
        version: YoloVersion,
        /// The output's name.
        output: String,
        /// What is kept.
        #[serde(default)]
        keep: Keep,
    },
    /// Boxes `[1, n, 4]` and logits `[1, n, classes]` of a transformer that gives each thing once, so that
    /// nothing has to be suppressed (DETR, RT-DETR).
    Detr {
        /// Name of the output with the boxes.
        boxes: String,
        /// Name of the output with the logits.
        logits: String,
        /// `softmax` (DETR): each box has its best class; `sigmoid` or `none` (RT-DETR): a box counts for
        /// each class on its own.
        activation: Activation,
        /// How a box is described.
        #[serde(default = "center")]
        format: BoxFormat,
        /// In which unit.
        #[serde(default = "normalized")]
        units: BoxUnits,
        /// The logit column that means "nothing here" (DETR: the last), if there is one; classes are
        /// counted without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        background: Option<usize>,
        /// Boxes below this score are dropped.
        #[serde(default = "default_detr_score")]
        score_threshold: f32,
        /// For single classes, instead of `score_threshold`.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        class_thresholds: ClassThresholds,
        /// At most so many boxes are reported, the best.
        #[serde(default = "default_max")]
        max_detections: usize,
    },
    /// Numbers that mean something by themselves (regression): `number × scale + offset`.
    Values {
        /// The output's name.
        output: String,
        /// What each number of the output is, in order.
        values: Vec<ValueSpec>,
    },
    /// How badly an autoencoder gives its input back: an anomaly is what it has not learned. Errors are
    /// in the tensor's units, after scale, mean and standard deviation.
    Anomaly {
        /// Name of the output that has the input's shape.
        output: String,
        /// How differences become one number.
        metric: ErrorMetric,
        /// An error above this is an anomaly.
        threshold: f32,
    },
    /// Outputs passed on as they are, for consumers that know them. An empty list passes all.
    Raw {
        /// Names of the outputs to pass on.
        #[serde(default)]
        outputs: Vec<String>,
    },
}

fn default_top_k() -> usize {
    5
}

/// One number of a regression.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValueSpec {
    /// What it is, such as `temperature`.
    pub name: String,
    /// Its unit, such as `°C`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// Factor.
    #[serde(default = "super::one")]
    pub scale: f32,
    /// Added after the factor.
    #[serde(default)]
    pub offset: f32,
}

/// How the differences of an input and its reconstruction become one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorMetric {
    /// Mean of the squares.
    Mse,
    /// Mean of the sizes.
    Mae,
}

fn center() -> BoxFormat {
    BoxFormat::Center
}

fn normalized() -> BoxUnits {
    BoxUnits::Normalized
}

fn default_detr_score() -> f32 {
    0.5
}

impl Decode {
    /// The word for it in a manifest.
    pub fn kind(&self) -> &'static str {
        match self {
            Decode::Classification { .. } => "classification",
            Decode::BoxesScores { .. } => "boxes_scores",
            Decode::Yolo { .. } => "yolo",
            Decode::Detr { .. } => "detr",
            Decode::Values { .. } => "values",
            Decode::Anomaly { .. } => "anomaly",
            Decode::Raw { .. } => "raw",
        }
    }

    /// The names of the outputs that it reads; none means all.
    pub fn outputs(&self) -> Vec<&str> {
        match self {
            Decode::Classification { output, .. }
            | Decode::Yolo { output, .. }
            | Decode::Values { output, .. }
            | Decode::Anomaly { output, .. } => vec![output],
            Decode::BoxesScores { boxes, scores, .. } => vec![boxes, scores],
            Decode::Detr { boxes, logits, .. } => vec![boxes, logits],
            Decode::Raw { outputs } => outputs.iter().map(String::as_str).collect(),
        }
    }

    /// The suppression of boxes, where there is some.
    pub fn keep(&self) -> Option<&Keep> {
        match self {
            Decode::BoxesScores { keep, .. } | Decode::Yolo { keep, .. } => Some(keep),
            Decode::Classification { .. }
            | Decode::Detr { .. }
            | Decode::Values { .. }
            | Decode::Anomaly { .. }
            | Decode::Raw { .. } => None,
        }
    }

    /// What it leaves out: the least score, those of single classes, and the most entries. `None` where
    /// it knows no scores.
    pub fn limits(&self) -> Option<(f32, &ClassThresholds, usize)> {
        match self {
            Decode::Classification { score_threshold, class_thresholds, top_k, .. } => {
                Some((*score_threshold, class_thresholds, *top_k))
            }
            Decode::BoxesScores { keep, .. } | Decode::Yolo { keep, .. } => {
                Some((keep.score_threshold, &keep.class_thresholds, keep.max_detections))
            }
            Decode::Detr { score_threshold, class_thresholds, max_detections, .. } => {
                Some((*score_threshold, class_thresholds, *max_detections))
            }
            Decode::Values { .. } | Decode::Anomaly { .. } | Decode::Raw { .. } => None,
        }
    }
}

/// Which candidate boxes are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// Boxes below this score are dropped.
    #[serde(default = "default_score")]
    pub score_threshold: f32,
    /// For single classes, instead of `score_threshold`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub class_thresholds: ClassThresholds,
    /// Of two boxes of one class that overlap by more than this (IoU), the better one stays.
    #[serde(default = "default_iou")]
    pub iou_threshold: f32,
    /// Compare boxes of different classes too.
    #[serde(default)]
    pub class_agnostic: bool,
    /// At most so many boxes are reported.
    #[serde(default = "default_max")]
    pub max_detections: usize,
}

impl Default for Keep {
    fn default() -> Self {
        Self {
            score_threshold: default_score(),
            class_thresholds: ClassThresholds::new(),
            iou_threshold: default_iou(),
            class_agnostic: false,
            max_detections: default_max(),
        }
    }
}

fn default_score() -> f32 {
    0.25
}

fn default_iou() -> f32 {
    0.45
}

fn default_max() -> usize {
    300
}
