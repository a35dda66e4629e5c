//! From output tensors to boxes and classes in pixels of the original picture.
//!
//! One file per kind of output, with the same two functions: `check` compares the shapes with what the
//! kind needs (once, when the model is loaded) and `decode` reads the numbers. A new kind is one variant
//! of [`Decode`], one file, and one line in each of the two matches below.

mod boxes;
mod classification;
mod nms;
mod raw;
mod yolo;

use super::preprocess::Geometry;
use crate::domain::manifest::{Decode, Keep};
use crate::domain::{Detection, Manifest, Output, Reason, ReasonCode};
use std::borrow::Cow;

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

/// What has to be known besides the tensors.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Labels and decoding.
    pub manifest: &'a Manifest,
    /// Width and height of the model's input, pixels.
    pub size: (u32, u32),
}

/// Compares the shapes of the outputs with what the manifest's decoding needs, and the number of labels
/// with the number of classes.
///
/// # Errors
/// `LoadFailed` with the output, its shape and the one needed.
pub fn check(context: Context<'_>, outputs: &[TensorView<'_>]) -> Result<(), Reason> {
    let classes = match &context.manifest.decode {
        Decode::Classification { output, .. } => classification::check(find(outputs, output)?)?,
        Decode::BoxesScores { boxes, scores, background, .. } => {
            boxes::check(find(outputs, boxes)?, find(outputs, scores)?, *background)?
        }
        Decode::Yolo { version, output, .. } => yolo::check(find(outputs, output)?, *version, context.size)?,
        Decode::Raw { .. } => return raw::check(outputs),
    };
    let labels = context.manifest.labels.len();
    if labels != 0 && labels != classes {
        return Err(Reason::new(
            ReasonCode::LoadFailed,
            format!(
                "labels: the manifest names {labels}, the model has {classes} classes; list one a class or none"
            ),
        ));
    }
    Ok(())
}

/// Reads the outputs of one run.
///
/// # Errors
/// `NotFinite` when an output holds NaN or infinity; `LoadFailed` when a shape has changed since
/// [`check`].
pub fn decode(
    context: Context<'_>,
    outputs: &[TensorView<'_>],
    geometry: &Geometry,
) -> Result<Output, Reason> {
    for output in outputs {
        check_finite(output)?;
    }
    let manifest = context.manifest;
    let (candidates, keep) = match &manifest.decode {
        Decode::Classification { output, activation, top_k, score_threshold } => {
            let scores = find(outputs, output)?;
            let classes = classification::decode(scores, *activation, *top_k, *score_threshold, manifest);
            return Ok(Output { classes, ..Output::default() });
        }
        Decode::Raw { outputs: _ } => {
            return Ok(Output { tensors: raw::decode(outputs), ..Output::default() });
        }
        Decode::BoxesScores { boxes, scores, format, units, background, keep } => {
            let (boxes, scores) = (find(outputs, boxes)?, find(outputs, scores)?);
            boxes::check(boxes, scores, *background)?;
            let found = boxes::decode(boxes, scores, *format, *units, *background, keep, context.size);
            (found, keep)
        }
        Decode::Yolo { version, output, keep } => {
            let output = find(outputs, output)?;
            yolo::check(output, *version, context.size)?;
            (yolo::decode(output, *version, keep, context.size), keep)
        }
    };
    Ok(Output { detections: finish(candidates, keep, geometry, manifest), ..Output::default() })
}

/// A box that may become a detection, in pixels of the model's input.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Candidate {
    /// Left, top, right, bottom.
    bbox: [f32; 4],
    class: u32,
    score: f32,
}

/// Drops the doubles and brings the rest to the original picture; boxes that lie outside it go too.
fn finish(
    candidates: Vec<Candidate>,
    keep: &Keep,
    geometry: &Geometry,
    manifest: &Manifest,
) -> Vec<Detection> {
    let kept = nms::suppress(candidates, keep).into_iter();
    kept.map(|candidate| Detection {
        label: manifest.label(candidate.class),
        class: candidate.class,
        score: candidate.score,
        bbox: geometry.to_original(candidate.bbox),
    })
    .filter(|found| found.bbox[2] > found.bbox[0] && found.bbox[3] > found.bbox[1])
    .collect()
}

fn find<'a, 't>(outputs: &'a [TensorView<'t>], name: &str) -> Result<&'a TensorView<'t>, Reason> {
    outputs
        .iter()
        .find(|output| output.name == name)
        .ok_or_else(|| Reason::new(ReasonCode::LoadFailed, format!("the model gave no output {name:?}")))
}

/// Refuses NaN and infinity.
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
