//! `anomaly`: how far an autoencoder's output is from its input.

use super::{Decoder, InputShape, Seen, TensorView, find, misfit};
use crate::domain::manifest::ErrorMetric;
use crate::domain::result::{Anomaly, Value};
use crate::domain::{Output, Reason, ReasonCode};

/// The error of a reconstruction.
pub(super) struct Reconstruction {
    output: String,
    metric: ErrorMetric,
    threshold: f32,
    input: InputShape,
    /// The sum of each channel's errors; in double precision, as they can be many.
    sums: Vec<f64>,
}

impl Reconstruction {
    pub(super) fn new(output: &str, metric: ErrorMetric, threshold: f32, input: InputShape) -> Self {
        Self { output: output.to_owned(), metric, threshold, sums: vec![0.0; input.channels], input }
    }
}

impl Decoder for Reconstruction {
    fn check(&self, outputs: &[TensorView<'_>]) -> Result<Option<usize>, Reason> {
        let output = find(outputs, &self.output)?;
        if output.values.len() == self.input.values && !output.values.is_empty() {
            return Ok(None);
        }
        misfit(output, &format!("the {} values of the input that it gives back", self.input.values))
    }

    #[unsafe(export_name = "hot_decode_anomaly")]
    fn decode(
        &mut self,
        outputs: &[TensorView<'_>],
        seen: Seen<'_>,
        into: &mut Output,
    ) -> Result<(), Reason> {
        let output = find(outputs, &self.output)?;
        let count = output.values.len();
        if seen.input.len() != count || self.sums.is_empty() {
            let detail = format!("anomaly: input of {} values, output of {count}", seen.input.len());
            return Err(Reason::new(ReasonCode::Internal, detail));
        }
        let channels = self.sums.len();
        let each = count / channels;
        self.sums.fill(0.0);
        for (at, (given, back)) in seen.input.iter().zip(output.values.iter()).enumerate() {
            let channel = if self.input.channels_last { at % channels } else { at / each };
            let difference = f64::from(*given) - f64::from(*back);
            self.sums[channel] += match self.metric {
                ErrorMetric::Mse => difference * difference,
                ErrorMetric::Mae => difference.abs(),
            };
        }
        let score = (self.sums.iter().sum::<f64>() / count as f64) as f32;
        let channel = |(at, sum): (usize, &f64)| Value {
            name: self.input.names.get(at).cloned().unwrap_or_else(|| at.to_string()),
            value: (sum / each as f64) as f32,
            unit: String::new(),
        };
        let channels = self.sums.iter().enumerate().map(channel).collect();
        into.anomaly = Some(Anomaly { score, is_anomaly: score > self.threshold, channels });
        Ok(())
    }

    fn wants_input(&self) -> bool {
        true
    }
}
