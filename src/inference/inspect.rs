//! Looking at a model that has no manifest yet: its ports, and one run on noise.

use super::preprocess::TensorMut;
use super::session::{Plan, Session};
use crate::bundle::draft::{Input, Sample};
use crate::bundle::model::Ports;
use crate::domain::Reason;
use crate::domain::runtime::RuntimeSettings;
use half::f16;
use std::path::Path;

/// What was seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// The model's inputs and outputs.
    pub ports: Ports,
    /// A draft of its only input.
    pub input: Input,
    /// All outputs of one run on noise.
    pub samples: Vec<Sample>,
}

/// Loads a model and runs it once on noise.
///
/// # Errors
/// As [`Session::load`]; `Unsupported` when it does not take exactly one picture or series.
pub fn inspect(model: &Path, settings: &RuntimeSettings) -> Result<Inspection, Reason> {
    let mut seen = None;
    let plan = |ports: &Ports| {
        let input = Input::of(ports)?;
        let (name, shape, element) = match &input {
            Input::Picture(picture) => (&picture.name, &picture.shape, picture.element),
            Input::Series(series) => (&series.name, &series.shape, series.element),
        };
        let plan = Plan {
            input: name.clone(),
            shape: shape.clone(),
            element,
            outputs: ports.outputs.iter().map(|port| port.name.clone()).collect(),
        };
        seen = Some((ports.clone(), input));
        Ok(plan)
    };
    let (mut session, _) = Session::load(model, settings, plan)?;
    match session.input().values()?.0 {
        TensorMut::F32(values) => noise().zip(values).for_each(|(n, v)| *v = f32::from(n) / 255.0),
        TensorMut::F16(values) => {
            noise().zip(values).for_each(|(n, v)| *v = f16::from_f32(f32::from(n) / 255.0))
        }
        TensorMut::U8(values) => noise().zip(values).for_each(|(n, v)| *v = n),
        TensorMut::I8(values) => noise().zip(values).for_each(|(n, v)| *v = n.wrapping_sub(128) as i8),
    }
    let answer = session.run()?;
    let samples = answer.tensors()?.into_iter().map(|tensor| Sample {
        name: tensor.name.to_owned(),
        shape: tensor.shape.to_vec(),
        values: tensor.values.into_owned(),
    });
    let samples = samples.collect();
    let (ports, input) = seen.unwrap_or_else(|| unreachable!("a model is not loaded without its plan"));
    Ok(Inspection { ports, input, samples })
}

/// Bytes that look random and are the same every time (a linear congruential generator's upper bits).
fn noise() -> impl Iterator<Item = u8> {
    let mut state = 1u32;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
}
