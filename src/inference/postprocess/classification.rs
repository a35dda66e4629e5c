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
    #[unsafe(export_name = "hot_decode_classes")]
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
        rank(&self.scores, self.top_k, &mut self.ranked);
        let kept = self.ranked.iter().filter(|&&(class, score)| score >= self.thresholds.of_class(class));
        into.classes.extend(kept.map(|&(class, score)| Classification {
            label: manifest::label(seen.labels, class),
            class,
            score,
        }));
        Ok(())
    }
}

/// The `most` best of the scores with their classes, best first; equal ones in the order of their numbers.
fn rank(scores: &[f32], most: usize, ranked: &mut Vec<(u32, f32)>) {
    ranked.clear();
    for (class, &score) in (0..).zip(scores) {
        if ranked.len() == most {
            match ranked.last() {
                // Nearly all end here: few classes of many are wanted.
                Some((_, least)) if score.total_cmp(least).is_gt() => ranked.pop(),
                Some(_) | None => continue,
            };
        }
        let place = ranked.partition_point(|(_, better)| better.total_cmp(&score).is_ge());
        ranked.insert(place, (class, score));
    }
}

/// Makes probabilities of numbers, in place.
#[unsafe(export_name = "hot_activate")]
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_best_are_those_that_sorting_puts_first(scores in proptest::collection::vec(-4..4i8, 0..60), most in 0..70usize) {
            let scores: Vec<f32> = scores.into_iter().map(f32::from).collect();
            let mut sorted: Vec<(u32, f32)> = (0..).zip(scores.iter().copied()).collect();
            sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            sorted.truncate(most);
            let mut ranked = vec![(9, 9.0)];
            rank(&scores, most, &mut ranked);
            prop_assert_eq!(ranked, sorted);
        }
    }
}
