//! `classification`: one score a class for the whole picture or window.

use super::{Decoder, Seen, TensorView, Thresholds, find, misfit};
use crate::domain::manifest::{self, Activation};
use crate::domain::{Classification, Output, Reason};

/// Ranks the classes.
pub(super) struct Classifier {
    output: String,
    activation: Activation,
    top_k: usize,
    thresholds: Thresholds,
    scores: Vec<f32>,
    /// Class and score, best first.
    ranked: Vec<(u32, f32)>,
}

impl Classifier {
    pub(super) fn new(output: &str, activation: Activation, top_k: usize, thresholds: Thresholds) -> Self {
        Self {
            output: output.to_owned(),
            activation,
            top_k,
            thresholds,
            scores: Vec::new(),
            ranked: Vec::new(),
        }
    }
}

impl Decoder for Classifier {
    /// One axis longer than one at most.
    fn check(&self, outputs: &[TensorView<'_>]) -> Result<Option<usize>, Reason> {
        let scores = find(outputs, &self.output)?;
        match scores.shape.iter().filter(|&&axis| axis != 1).count() {
            0 | 1 if !scores.values.is_empty() => Ok(Some(scores.values.len())),
            _ => misfit(scores, "[1, classes]"),
        }
    }

    /// The best classes, best first; equal ones in the order of their numbers.
    fn decode(
        &mut self,
        outputs: &[TensorView<'_>],
        seen: Seen<'_>,
        into: &mut Output,
    ) -> Result<(), Reason> {
        let scores = find(outputs, &self.output)?;
        self.scores.clear();
        self.scores.extend_from_slice(&scores.values);
        activate(self.activation, &mut self.scores);
        self.ranked.clear();
        self.ranked.extend((0..).zip(self.scores.iter().copied()));
        self.ranked.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let best = self.ranked.iter().take(self.top_k);
        let kept = best.filter(|&&(class, score)| score >= self.thresholds.of_class(class));
        into.classes.extend(kept.map(|&(class, score)| Classification {
            label: manifest::label(seen.labels, class),
            class,
            score,
        }));
        Ok(())
    }
}

/// Makes probabilities of numbers, in place.
pub(super) fn activate(activation: Activation, values: &mut [f32]) {
    match activation {
        Activation::None => {}
        Activation::Sigmoid => values.iter_mut().for_each(|value| *value = 1.0 / (1.0 + (-*value).exp())),
        Activation::Softmax => {
            // Shifted by the largest, so that no exponential overflows.
            let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            values.iter_mut().for_each(|value| *value = (*value - most).exp());
            let sum: f32 = values.iter().sum();
            values.iter_mut().for_each(|value| *value /= sum);
        }
    }
}
