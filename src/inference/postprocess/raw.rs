//! `raw`: outputs passed on as they are.

use super::TensorView;
use crate::domain::result::RawTensor;
use crate::domain::{Reason, ReasonCode};

/// Most values of one answer; they travel as text through the agent to the broker.
const MAX_VALUES: usize = 1 << 16;

/// Bounds what one answer may hold.
pub(super) fn check(outputs: &[TensorView<'_>]) -> Result<(), Reason> {
    let values: usize = outputs.iter().map(|output| output.values.len()).sum();
    if values <= MAX_VALUES {
        return Ok(());
    }
    Err(Reason::new(
        ReasonCode::LoadFailed,
        format!(
            "decode raw: {values} values a frame, more than {MAX_VALUES}; name fewer outputs in decode.outputs, \
             or choose a decoding"
        ),
    ))
}

/// The outputs, copied.
pub(super) fn decode(outputs: &[TensorView<'_>]) -> Vec<RawTensor> {
    let tensor = |output: &TensorView<'_>| RawTensor {
        name: output.name.to_owned(),
        shape: output.shape.to_vec(),
        values: output.values.to_vec(),
    };
    outputs.iter().map(tensor).collect()
}
