//! The model in ONNX Runtime. This file and the folder beside it are the only ones that name `ort`.
//!
//! Here is what happens with every frame: the input's memory, the run, the outputs. How a session comes
//! to be is in the folder: `environment` (the library of this process), `builder` (one attempt a
//! provider), `providers` (their options), `arena` (a limit for memory), `ports` (what a model wants and gives), `shares` (who really
//! runs it), `fault` (the runtime's words as one line). `bare` runs a model for proofs, without any of it.

mod arena;
pub mod bare;
mod builder;
mod environment;
mod fault;
mod ports;
mod providers;
mod shares;

pub use super::library::find_library;

use super::postprocess::TensorView;
use super::preprocess::{Padding, TensorMut};
use crate::bundle::model::Ports;
use crate::domain::Reason;
use crate::domain::manifest::{ElementType, Provider};
use crate::domain::runtime::ProviderShare;
use fault::{Fault, failed, internal, message};
use half::f16;
use ort::memory::Allocator;
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, SessionInputValue, SessionOutputs};
use ort::value::{DynTensor, DynValue, TensorElementType, ValueType};
use ports::element_type;
use std::borrow::Cow;

/// What is fed and what is wanted of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The input's name.
    pub input: String,
    /// Its shape, no axis open.
    pub shape: Vec<i64>,
    /// Its element type.
    pub element: ElementType,
    /// Names of the outputs.
    pub outputs: Vec<String>,
}

/// Which provider runs the model, and why not the first that was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// The provider that really runs it.
    pub provider: Provider,
    /// Why the ones before it in the configured order do not.
    pub fallback: Option<String>,
    /// How much each provider runs, the largest share first.
    pub shares: Vec<ProviderShare>,
    /// True when the graph that an earlier start had optimised was used.
    pub saved_graph: bool,
}

/// A loaded model with its input and output memory.
pub struct Session {
    session: ort::session::Session,
    input: Input,
    input_name: String,
    options: RunOptions<HasSelectedOutputs>,
    outputs: Vec<String>,
    version: String,
}

impl Session {
    /// Version of ONNX Runtime.
    pub fn runtime_version(&self) -> &str {
        &self.version
    }

    /// The input tensor, to be written before a run.
    pub fn input(&mut self) -> &mut Input {
        &mut self.input
    }

    /// Another input tensor of the same kind, to be written while the model runs; [`Session::exchange`]
    /// puts it in.
    ///
    /// # Errors
    /// `Internal` when there is no memory for it.
    pub fn spare_input(&self) -> Result<Input, Reason> {
        Input::new(self.input.element, self.input.tensor.shape().to_vec())
            .map_err(|error| internal(format!("make another input: {}", message(&error))))
    }

    /// The next run is on this input; what the last one was on comes back in its place.
    pub fn exchange(&mut self, input: &mut Input) {
        std::mem::swap(&mut self.input, input);
    }

    /// Runs the model on what is in its input. Nothing is allocated on this side of the runtime for up to
    /// four outputs whose shapes the model declares.
    ///
    /// # Errors
    /// `Internal` with the runtime's message.
    pub fn run(&mut self) -> Result<Answer<'_>, Reason> {
        let input = SessionInputValue::from(&self.input.tensor);
        // By place where it is the only one, which needs no list.
        let outputs = if self.session.inputs().len() == 1 {
            self.session.run_with_options([input], &self.options)
        } else {
            self.session.run_with_options(vec![(self.input_name.as_str(), input)], &self.options)
        };
        let outputs = outputs.map_err(|error| internal(format!("run the model: {}", message(&error))))?;
        Ok(Answer { outputs, names: &self.outputs })
    }
}

/// An input tensor in the runtime's memory.
pub struct Input {
    tensor: DynTensor,
    element: ElementType,
    /// What its padding was written for.
    pub padding: Padding,
}

impl Input {
    /// Zeros of that shape.
    fn new(element: ElementType, shape: Vec<i64>) -> Result<Self, ort::Error> {
        let tensor = DynTensor::new(&Allocator::default(), element_type(element), shape)?;
        Ok(Self { tensor, element, padding: Padding::default() })
    }

    /// Its values, and what its padding was written for.
    ///
    /// # Errors
    /// `Internal` when the runtime does not give its memory.
    pub fn values(&mut self) -> Result<(TensorMut<'_>, &mut Padding), Reason> {
        let tensor = &mut self.tensor;
        let values = match self.element {
            ElementType::F32 => tensor.try_extract_tensor_mut().map(|(_, values)| TensorMut::F32(values)),
            ElementType::F16 => tensor.try_extract_tensor_mut().map(|(_, values)| TensorMut::F16(values)),
            ElementType::U8 => tensor.try_extract_tensor_mut().map(|(_, values)| TensorMut::U8(values)),
            ElementType::I8 => tensor.try_extract_tensor_mut().map(|(_, values)| TensorMut::I8(values)),
            ElementType::I64 => return Err(internal("an input of type i64 takes no picture".into())),
        };
        let values =
            values.map_err(|error| internal(format!("write the model's input: {}", message(&error))))?;
        Ok((values, &mut self.padding))
    }
}

/// The outputs of one run; they stay where the runtime put them.
pub struct Answer<'s> {
    outputs: SessionOutputs<'s>,
    names: &'s [String],
}

/// Memory for looking at outputs, kept from run to run.
#[derive(Default)]
pub struct Views {
    /// An empty list that keeps its memory.
    list: Vec<TensorView<'static>>,
    /// Outputs that had to be converted, by their place.
    converted: Vec<Vec<f32>>,
}

impl Answer<'_> {
    /// The wanted outputs, in the order of the plan; those that are not 32-bit floats are converted.
    ///
    /// # Errors
    /// `LoadFailed` for an output that is no tensor of numbers.
    pub fn tensors(&self) -> Result<Vec<TensorView<'_>>, Reason> {
        self.names.iter().map(|name| self.tensor(name, None)).collect()
    }

    /// Shows the same to `look`, in memory that is kept.
    ///
    /// # Errors
    /// As [`Answer::tensors`], and those of `look`.
    pub fn look<T>(
        &self,
        views: &mut Views,
        look: impl FnOnce(&[TensorView<'_>]) -> Result<T, Reason>,
    ) -> Result<T, Reason> {
        views.converted.resize_with(self.names.len(), Vec::new);
        let mut list = emptied(std::mem::take(&mut views.list));
        for (name, room) in self.names.iter().zip(&mut views.converted) {
            list.push(self.tensor(name, Some(room))?);
        }
        let seen = look(&list);
        views.list = emptied(list);
        seen
    }

    fn tensor<'a>(&'a self, name: &'a str, room: Option<&'a mut Vec<f32>>) -> Result<TensorView<'a>, Reason> {
        let value =
            self.outputs.get(name).ok_or_else(|| internal(format!("the run gave no output {name:?}")))?;
        let (shape, values) = values(value, room).ok_or_else(|| {
            failed(format!("output {name:?} is {}; only tensors of numbers can be decoded", value.dtype()))
        })?;
        Ok(TensorView { name, shape, values })
    }
}

/// The list without its items, for items of another life; the standard library keeps the memory.
fn emptied<'to>(mut list: Vec<TensorView<'_>>) -> Vec<TensorView<'to>> {
    list.clear();
    list.into_iter().map(|_| unreachable!("it was emptied")).collect()
}

/// Shape and values; those that are not 32-bit floats are converted into `room`, or into new memory.
#[unsafe(export_name = "hot_values")]
fn values<'a>(value: &'a DynValue, room: Option<&'a mut Vec<f32>>) -> Option<(&'a [i64], Cow<'a, [f32]>)> {
    macro_rules! converted {
        ($type:ty, $convert:expr) => {{
            let (shape, values) = value.try_extract_tensor::<$type>().ok()?;
            let values = values.iter().map($convert);
            let values = match room {
                None => Cow::Owned(values.collect()),
                Some(room) => {
                    room.clear();
                    room.extend(values);
                    Cow::Borrowed(&room[..])
                }
            };
            (&**shape, values)
        }};
    }
    let ValueType::Tensor { ty, .. } = value.dtype() else { return None };
    Some(match ty {
        TensorElementType::Float32 => {
            let (shape, values) = value.try_extract_tensor::<f32>().ok()?;
            (&**shape, Cow::Borrowed(values))
        }
        TensorElementType::Float16 => converted!(f16, |v| v.to_f32()),
        TensorElementType::Float64 => converted!(f64, |v| *v as f32),
        TensorElementType::Uint8 => converted!(u8, |v| f32::from(*v)),
        TensorElementType::Int8 => converted!(i8, |v| f32::from(*v)),
        TensorElementType::Int32 => converted!(i32, |v| *v as f32),
        TensorElementType::Int64 => converted!(i64, |v| *v as f32),
        TensorElementType::Bool => converted!(bool, |v| f32::from(u8::from(*v))),
        _ => return None,
    })
}

impl Session {
    /// Runs once on zeros; returns the outputs whose memory can be kept, because the model declares
    /// their shapes and the run gave the same.
    fn warm_up(&mut self, ports: &Ports) -> Result<Vec<(String, TensorElementType, Vec<i64>)>, Fault> {
        let inputs = vec![(self.input_name.as_str(), SessionInputValue::from(&self.input.tensor))];
        let outputs = self.session.run_with_options(inputs, &self.options)?;
        let mut fixed = Vec::new();
        for name in &self.outputs {
            let declared = ports.outputs.iter().find(|port| port.name == *name);
            let (Some(declared), Some(value)) = (declared, outputs.get(name)) else { continue };
            if let ValueType::Tensor { ty, shape, .. } = value.dtype()
                && declared.shape == **shape
            {
                fixed.push((name.clone(), *ty, shape.to_vec()));
            }
        }
        Ok(fixed)
    }
}

fn select(
    names: &[String],
    fixed: &[(String, TensorElementType, Vec<i64>)],
) -> Result<OutputSelector, ort::Error> {
    let mut selector = names.iter().fold(OutputSelector::no_default(), |selector, name| selector.with(name));
    for (name, element, shape) in fixed {
        // Strings have no memory of fixed size.
        if *element != TensorElementType::String {
            let tensor = DynTensor::new(&Allocator::default(), *element, shape.clone())?;
            selector = selector.preallocate(name, tensor);
        }
    }
    Ok(selector)
}
