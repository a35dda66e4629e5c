//! A model run as it is: any inputs, any types of numbers, no manifest. For proofs and for measuring the
//! bare run, never for frames.

use super::environment::environment;
use super::fault::{internal, message, model_fault};
use super::ports;
use crate::bundle::model::{Port, Ports};
use crate::domain::Reason;
use crate::domain::runtime::RuntimeSettings;
use half::f16;
use ort::logging::LogLevel;
use ort::memory::Allocator;
use ort::session::SessionInputValue;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::{DynTensor, DynValue, TensorElementType, ValueType};
use std::path::Path;
use std::time::Instant;

/// A tensor of numbers, whatever their type in the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Numbers {
    /// The input's or output's name.
    pub name: String,
    /// Its axes, outermost first.
    pub shape: Vec<i64>,
    /// Its values.
    pub values: Vec<f64>,
}

/// A loaded model.
pub struct Bare {
    session: ort::session::Session,
    ports: Ports,
}

impl Bare {
    /// Loads a model on the processor, with all optimisations.
    ///
    /// # Errors
    /// `LoadFailed` or `Unsupported` with the file and the remedy.
    pub fn load(model: &Path, settings: &RuntimeSettings) -> Result<Self, Reason> {
        let (environment, version) = environment(&settings.library)?;
        let load = || -> Result<_, ort::Error> {
            let mut builder = ort::session::Session::builder(&environment)?
                .with_log_level(LogLevel::Error)?
                .with_optimization_level(GraphOptimizationLevel::All)?
                .with_intra_threads(settings.intra_threads.unwrap_or(1))?
                .with_intra_op_spinning(false)?;
            builder.commit_from_file(model)
        };
        let session = load().map_err(|error| model_fault(model, &error, &version))?;
        let ports = ports::ports(&session);
        Ok(Self { session, ports })
    }

    /// What the model wants and gives.
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// Runs the model on these inputs; all outputs in the order of the model, and the milliseconds of the
    /// run alone. Each value is rounded to the type that the input has.
    ///
    /// # Errors
    /// `Internal` with the runtime's message, and for what is no tensor of numbers.
    pub fn run(&mut self, inputs: &[Numbers]) -> Result<(Vec<Numbers>, f64), Reason> {
        let mut fed = Vec::with_capacity(inputs.len());
        for input in inputs {
            let outlet = self.session.inputs().iter().find(|outlet| outlet.name() == input.name);
            let Some(ValueType::Tensor { ty, .. }) = outlet.map(|outlet| outlet.dtype()) else {
                return Err(internal(format!("input {:?} is no tensor", input.name)));
            };
            fed.push((input.name.as_str(), SessionInputValue::from(tensor(*ty, input)?)));
        }
        let start = Instant::now();
        let outputs =
            self.session.run(fed).map_err(|error| internal(format!("run the model: {}", message(&error))))?;
        let took = start.elapsed().as_secs_f64() * 1e3;
        let read = |port: &Port| {
            let value = outputs.get(&port.name);
            value.and_then(|value| numbers(&port.name, value)).ok_or_else(|| {
                internal(format!("output {:?} is {}, no tensor of numbers", port.name, port.type_name))
            })
        };
        Ok((self.ports.outputs.iter().map(read).collect::<Result<_, _>>()?, took))
    }
}

fn tensor(element: TensorElementType, input: &Numbers) -> Result<DynTensor, Reason> {
    let fault = |error: ort::Error| internal(format!("make the input {:?}: {}", input.name, message(&error)));
    let mut tensor = DynTensor::new(&Allocator::default(), element, input.shape.clone()).map_err(fault)?;
    macro_rules! fill {
        ($type:ty, $convert:expr) => {{
            let (_, values) = tensor.try_extract_tensor_mut::<$type>().map_err(fault)?;
            values.iter_mut().zip(&input.values).for_each(|(to, from)| *to = $convert(*from));
        }};
    }
    match element {
        TensorElementType::Float32 => fill!(f32, |v| v as f32),
        TensorElementType::Float16 => fill!(f16, f16::from_f64),
        TensorElementType::Float64 => fill!(f64, |v| v),
        TensorElementType::Uint8 => fill!(u8, |v| v as u8),
        TensorElementType::Int8 => fill!(i8, |v| v as i8),
        TensorElementType::Int32 => fill!(i32, |v| v as i32),
        TensorElementType::Int64 => fill!(i64, |v| v as i64),
        TensorElementType::Bool => fill!(bool, |v| v >= 0.5),
        other => return Err(internal(format!("input {:?} is of type {other}", input.name))),
    }
    Ok(tensor)
}

fn numbers(name: &str, value: &DynValue) -> Option<Numbers> {
    macro_rules! read {
        ($type:ty, $convert:expr) => {{
            let (shape, values) = value.try_extract_tensor::<$type>().ok()?;
            (shape.to_vec(), values.iter().map($convert).collect())
        }};
    }
    let ValueType::Tensor { ty, .. } = value.dtype() else { return None };
    let (shape, values) = match ty {
        TensorElementType::Float32 => read!(f32, |v| f64::from(*v)),
        TensorElementType::Float16 => read!(f16, |v| v.to_f64()),
        TensorElementType::Float64 => read!(f64, |v| *v),
        TensorElementType::Uint8 => read!(u8, |v| f64::from(*v)),
        TensorElementType::Int8 => read!(i8, |v| f64::from(*v)),
        TensorElementType::Int32 => read!(i32, |v| f64::from(*v)),
        TensorElementType::Int64 => read!(i64, |v| *v as f64),
        TensorElementType::Bool => read!(bool, |v| f64::from(u8::from(*v))),
        _ => return None,
    };
    Some(Numbers { name: name.to_owned(), shape, values })
}
