//! `values`: the numbers of a regression.

use super::{Decoder, Seen, TensorView, find, misfit};
use crate::domain::manifest::ValueSpec;
use crate::domain::result::Value;
use crate::domain::{Output, Reason, ReasonCode};

/// Named numbers.
pub(super) struct Values {
    output: String,
    specs: Vec<ValueSpec>,
}

impl Values {
    pub(super) fn new(output: &str, specs: &[ValueSpec]) -> Self {
        Self { output: output.to_owned(), specs: specs.to_vec() }
    }
}

impl Decoder for Values {
    /// As many numbers as names, in any shape.
    fn check(&self, outputs: &[TensorView<'_>]) -> Result<Option<usize>, Reason> {
        let numbers = find(outputs, &self.output)?;
        if numbers.values.len() == self.specs.len() {
            return Ok(None);
        }
        misfit(numbers, &format!("{} numbers, one for each of decode.values", self.specs.len()))
    }

    fn decode(
        &mut self,
        outputs: &[TensorView<'_>],
        _seen: Seen<'_>,
        into: &mut Output,
    ) -> Result<(), Reason> {
        let numbers = find(outputs, &self.output)?;
        for (spec, &number) in self.specs.iter().zip(numbers.values.iter()) {
            let value = number * spec.scale + spec.offset;
            if !value.is_finite() {
                let detail =
                    format!("value {:?}: {number} × {} + {} is {value}", spec.name, spec.scale, spec.offset);
                return Err(Reason::new(ReasonCode::NotFinite, detail));
            }
            into.values.push(Value { name: spec.name.clone(), value, unit: spec.unit.clone() });
        }
        Ok(())
    }
}
