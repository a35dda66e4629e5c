//! From output tensors to answers: boxes and classes in pixels of the original picture, numbers, anomalies.
//!
//! One file per kind of output, each with one `Decoder`: `check` compares the shapes with what the kind
//! needs (once, when the model is loaded) and `decode` reads the numbers of a frame. A decoder is made
//! once and keeps its memory from frame to frame. A new kind is one variant of [`Decode`], one file, and
//! one line in `decoder`.

mod anomaly;
mod boxes;
mod classification;
mod detr;
mod nms;
mod raw;
mod thresholds;
mod values;
mod yolo;

use super::preprocess::{Geometry, TensorMut};
use crate::domain::manifest::{self, Decode, Layout, SeriesLayout};
use crate::domain::{Detection, Manifest, Output, Reason, ReasonCode};
use nms::Suppression;
use std::borrow::Cow;
use thresholds::Thresholds;

/// One output of the model, as 32-bit floats.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorView<'a> {
    /// Its name in the model.
    pub name: &'a str,
    /// Its axes, outermost first.
    pub shape: &'a [i64],
    /// Its values in row-major order.
    pub values: Cow<'a, [f32]>,
}

/// What has to be known of the model's input.
#[derive(Debug, Clone, PartialEq)]
pub struct InputShape {
    /// Width and height in pixels; of a series its samples and its channels.
    pub size: (u32, u32),
    /// Number of channels.
    pub channels: usize,
    /// Their names for people, where they have some.
    pub names: Vec<String>,
    /// True when the channels are the innermost axis.
    pub channels_last: bool,
    /// Number of all values.
    pub values: usize,
}

impl InputShape {
    /// That of a manifest's only input.
    pub fn of(manifest: &Manifest) -> Self {
        if let Some(series) = &manifest.series {
            let (channels, length) = series.size().unwrap_or_default();
            return Self {
                size: (length, channels),
                channels: channels as usize,
                names: series.channels.clone(),
                channels_last: series.layout == SeriesLayout::Nlc,
                values: length as usize * channels as usize,
            };
        }
        let input = manifest.inputs.first();
        let size = input.and_then(manifest::InputSpec::size).unwrap_or_default();
        let channels = input.map_or(0, |input| input.color.channels());
        Self {
            size,
            channels,
            values: size.0 as usize * size.1 as usize * channels,
            names: Vec::new(),
            channels_last: input.is_some_and(|input| input.layout == Layout::Nhwc),
        }
    }
}

/// What a decoder may look at besides the outputs.
#[derive(Clone, Copy)]
struct Seen<'a> {
    /// The way back to the original picture.
    geometry: &'a Geometry,
    /// Class names.
    labels: &'a [String],
    /// The model's input; empty unless the decoder wants it.
    input: &'a [f32],
}

/// One kind of output.
trait Decoder: Send {
    /// Compares the shapes with what the kind needs; gives the number of classes where it has some.
    fn check(&self, outputs: &[TensorView<'_>]) -> Result<Option<usize>, Reason>;

    /// Reads the numbers, all finite, into an empty answer.
    fn decode(&mut self, outputs: &[TensorView<'_>], seen: Seen<'_>, into: &mut Output)
    -> Result<(), Reason>;

    /// True when the model's input has to be kept for it.
    fn wants_input(&self) -> bool {
        false
    }
}

/// The decoder of each kind.
fn decoder(decode: &Decode, labels: &[String], input: InputShape) -> Box<dyn Decoder> {
    match decode {
        Decode::Classification { output, activation, top_k, .. } => Box::new(
            classification::Classifier::new(output, *activation, *top_k, Thresholds::of(decode, labels)),
        ),
        Decode::BoxesScores { boxes, scores, format, units, background, keep } => Box::new(boxes::Boxes {
            boxes: boxes.clone(),
            scores: scores.clone(),
            background: *background,
            frame: boxes::Frame::new(*format, *units, input.size),
            suppression: Suppression::new(keep, Thresholds::of(decode, labels)),
        }),
        Decode::Yolo { version, output, keep } => {
            let suppression = Suppression::new(keep, Thresholds::of(decode, labels));
            Box::new(yolo::Yolo::new(*version, output, input.size, suppression))
        }
        Decode::Detr { boxes, logits, activation, format, units, background, max_detections, .. } => {
            Box::new(detr::Detr {
                boxes: boxes.clone(),
                logits: logits.clone(),
                activation: *activation,
                background: *background,
                most: *max_detections,
                frame: boxes::Frame::new(*format, *units, input.size),
                thresholds: Thresholds::of(decode, labels),
                found: Vec::new(),
                row: Vec::new(),
            })
        }
        Decode::Values { output, values } => Box::new(values::Values::new(output, values)),
        Decode::Anomaly { output, metric, threshold } => {
            Box::new(anomaly::Reconstruction::new(output, *metric, *threshold, input))
        }
        Decode::Raw { outputs: _ } => Box::new(raw::Raw),
    }
}

/// The decoding that a manifest asks for, with its memory.
pub struct Decoding {
    decoder: Box<dyn Decoder>,
    labels: Vec<String>,
    input: Vec<f32>,
}

impl Decoding {
    /// Prepares a manifest's decoding.
    pub fn of(manifest: &Manifest) -> Self {
        Self::new(manifest, InputShape::of(manifest))
    }

    fn new(manifest: &Manifest, input: InputShape) -> Self {
        Self {
            decoder: decoder(&manifest.decode, &manifest.labels, input),
            labels: manifest.labels.clone(),
            input: Vec::new(),
        }
    }

    /// Compares the shapes of the outputs with what the decoding needs, and the number of labels with the
    /// number of classes.
    ///
    /// # Errors
    /// `LoadFailed` with the output, its shape and the one needed.
    pub fn check(&self, outputs: &[TensorView<'_>]) -> Result<(), Reason> {
        let labels = self.labels.len();
        match self.decoder.check(outputs)? {
            Some(classes) if labels != 0 && labels != classes => Err(Reason::new(
                ReasonCode::LoadFailed,
                format!(
                    "labels: the manifest names {labels}, the model has {classes} classes; list one a class or none"
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Looks at the written input tensor before the model is run; keeps a copy where the decoder wants it.
    #[unsafe(export_name = "hot_see_input")]
    pub fn see_input(&mut self, tensor: &TensorMut<'_>) {
        if !self.decoder.wants_input() {
            return;
        }
        self.input.clear();
        match tensor {
            TensorMut::F32(values) => self.input.extend_from_slice(values),
            TensorMut::F16(values) => self.input.extend(values.iter().map(|value| value.to_f32())),
            TensorMut::U8(values) => self.input.extend(values.iter().map(|&value| f32::from(value))),
            TensorMut::I8(values) => self.input.extend(values.iter().map(|&value| f32::from(value))),
        }
    }

    /// True when [`Decoding::see_input`] has to be called before each run.
    pub fn wants_input(&self) -> bool {
        self.decoder.wants_input()
    }

    /// Reads the outputs of one run.
    ///
    /// # Errors
    /// `NotFinite` when an output holds NaN or infinity; `LoadFailed` when a shape has changed since
    /// [`Decoding::check`].
    pub fn decode(&mut self, outputs: &[TensorView<'_>], geometry: &Geometry) -> Result<Output, Reason> {
        for output in outputs {
            check_finite(output)?;
        }
        let mut answer = Output::default();
        let seen = Seen { geometry, labels: &self.labels, input: &self.input };
        self.decoder.decode(outputs, seen, &mut answer)?;
        Ok(answer)
    }
}

/// A box that may become a detection, in pixels of the model's input.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Candidate {
    /// Left, top, right, bottom.
    bbox: [f32; 4],
    class: u32,
    score: f32,
    /// Its place in the model's output: equal scores keep that order.
    order: u32,
}

/// Brings boxes to the original picture; those that lie outside it go.
#[unsafe(export_name = "hot_report")]
fn report(kept: &[Candidate], seen: Seen<'_>, into: &mut Vec<Detection>) {
    let found = kept.iter().map(|candidate| (candidate, seen.geometry.to_original(candidate.bbox)));
    into.extend(found.filter(|(_, bbox)| bbox[2] > bbox[0] && bbox[3] > bbox[1]).map(|(candidate, bbox)| {
        Detection {
            label: manifest::label(seen.labels, candidate.class),
            class: candidate.class,
            score: candidate.score,
            bbox,
        }
    }));
}

fn find<'a, 't>(outputs: &'a [TensorView<'t>], name: &str) -> Result<&'a TensorView<'t>, Reason> {
    outputs
        .iter()
        .find(|output| output.name == name)
        .ok_or_else(|| Reason::new(ReasonCode::LoadFailed, format!("the model gave no output {name:?}")))
}

/// Refuses NaN and infinity.
#[unsafe(export_name = "hot_check_finite")]
fn check_finite(output: &TensorView<'_>) -> Result<(), Reason> {
    // All exponent bits set is NaN or infinity; without a branch, so that it is done eight at a time.
    const EXPONENT: u32 = 0x7f80_0000;
    let bad = output.values.iter().fold(false, |bad, value| bad | (value.to_bits() & EXPONENT == EXPONENT));
    if !bad {
        return Ok(());
    }
    let at = output.values.iter().position(|value| !value.is_finite()).unwrap_or(0);
    Err(Reason::new(
        ReasonCode::NotFinite,
        format!("output {:?} holds {} at value {at}", output.name, output.values[at]),
    ))
}

/// A shape that does not fit.
fn misfit<T>(output: &TensorView<'_>, needed: &str) -> Result<T, Reason> {
    Err(Reason::new(
        ReasonCode::LoadFailed,
        format!(
            "output {:?} has shape {:?}, the manifest's decoding needs {needed}",
            output.name, output.shape
        ),
    ))
}

/// The place and value of the largest of several scores; the first of equal ones.
fn best(scores: impl Iterator<Item = f32>) -> Option<(usize, f32)> {
    scores.enumerate().fold(None, |best, (at, score)| match best {
        Some((_, most)) if most >= score => best,
        _ => Some((at, score)),
    })
}

#[cfg(test)]
mod tests;
