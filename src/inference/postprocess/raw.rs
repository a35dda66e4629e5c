//! `raw`: outputs passed on as they are.

use super::{Decoder, Seen, TensorView};
use crate::domain::result::RawTensor;
use crate::domain::{Output, Reason, ReasonCode};

/// Most values of one answer; they travel as text through the agent to the broker.
const MAX_VALUES: usize = 1 << 16;

/// All outputs of the plan.
pub(super) struct Raw;

impl Decoder for Raw {
    /// Bounds what one answer may hold.
    fn check(&self, outputs: &[TensorView<'_>]) -> Result<Option<usize>, Reason> {
        let values: usize = outputs.iter().map(|output| output.values.len()).sum();
        if values <= MAX_VALUES {
            return Ok(None);
        }
        Err(Reason::new(
            ReasonCode::LoadFailed,
            format!(
                "decode raw: {values} values a frame, more than {MAX_VALUES}; name fewer outputs in decode.outputs, \
                 or choose a decoding"
            ),
        ))
    }

    fn decode(
        &mut self,
        outputs: &[TensorView<'_>],
        _seen: Seen<'_>,
        into: &mut Output,
    ) -> Result<(), Reason> {
        into.tensors.extend(outputs.iter().map(|output| RawTensor {
            name: output.name.to_owned(),
            shape: output.shape.to_vec(),
            values: output.values.to_vec(),
        }));
        Ok(())
    }
}
