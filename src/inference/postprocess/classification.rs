//! `classification`: one score a class for the whole picture.

use super::{TensorView, misfit};
use crate::domain::manifest::Activation;
use crate::domain::{Classification, Manifest, Reason};

/// One axis longer than one at most; returns the number of classes.
pub(super) fn check(scores: &TensorView<'_>) -> Result<usize, Reason> {
    match scores.shape.iter().filter(|&&axis| axis != 1).count() {
        0 | 1 if !scores.values.is_empty() => Ok(scores.values.len()),
        _ => misfit(scores, "[1, classes]"),
    }
}

/// The best classes, best first; equal ones in the order of their numbers.
pub(super) fn decode(
    scores: &TensorView<'_>,
    activation: Activation,
    top_k: usize,
    threshold: f32,
    manifest: &Manifest,
) -> Vec<Classification> {
    let mut ranked: Vec<(usize, f32)> =
        probabilities(&scores.values, activation).into_iter().enumerate().collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    let ranked = ranked.into_iter().take(top_k).filter(|&(_, score)| score >= threshold);
    ranked
        .map(|(class, score)| {
            let class = class as u32;
            Classification { label: manifest.label(class), class, score }
        })
        .collect()
}

fn probabilities(values: &[f32], activation: Activation) -> Vec<f32> {
    match activation {
        Activation::None => values.to_vec(),
        Activation::Sigmoid => values.iter().map(|&value| 1.0 / (1.0 + (-value).exp())).collect(),
        Activation::Softmax => {
            // Shifted by the largest, so that no exponential overflows.
            let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let powers: Vec<f32> = values.iter().map(|&value| (value - most).exp()).collect();
            let sum: f32 = powers.iter().sum();
            powers.into_iter().map(|power| power / sum).collect()
        }
    }
}
