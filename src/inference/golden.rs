//! Running a bundle's golden inputs: pictures or windows with known answers, on the provider that will really run.

use super::engine::Respond;
use super::given::Given;
use crate::bundle::OpenBundle;
use crate::domain::trial::{self, Cut};
use crate::domain::{Reason, ReasonCode};

/// Runs every golden input, calling `on_progress(done, total)` after each. Returns the verdict, which
/// names the first input that was off, and the milliseconds of each run, all stages; nothing is run
/// after the first that is off.
pub fn run_all(
    engine: &mut impl Respond,
    bundle: &OpenBundle,
    mut on_progress: impl FnMut(usize, usize),
) -> (Result<(), Reason>, Vec<f32>) {
    let samples = &bundle.manifest.golden;
    let cut = Cut::of(&bundle.manifest.decode);
    let mut times = Vec::with_capacity(samples.len());
    for (at, sample) in samples.iter().enumerate() {
        let named = |reason: Reason| {
            Reason::new(reason.code, format!("golden input {}: {}", sample.input, reason.detail))
        };
        let answer = Given::read(&bundle.manifest, &bundle.file(&sample.input))
            .and_then(|given| engine.respond(given.view()));
        let (output, stages) = match answer {
            Ok(answer) => answer,
            Err(reason) => return (Err(named(reason)), times),
        };
        times.push(stages.total());
        if let Err(difference) = trial::compare(&sample.expected, &output, &bundle.manifest.tolerance, cut) {
            return (Err(named(Reason::new(ReasonCode::GoldenMismatch, difference))), times);
        }
        on_progress(at + 1, samples.len());
    }
    (Ok(()), times)
}
