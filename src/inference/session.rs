//! The model in ONNX Runtime: the only file that names `ort`.
//!
//! One environment and one library per process, ever: a second library is an error here, because the
//! binding would silently go on with the first. Providers are asked for one by one with
//! `error_on_failure`, and what a profile of one run says counts, not what was registered: a provider
//! that takes no node of the model is not the one that runs it.

use super::library;
pub use super::library::find_library;
use super::postprocess::TensorView;
use super::preprocess::{Padding, TensorMut};
use crate::bundle::model::{Port, Ports};
use crate::domain::manifest::{ElementType, Provider};
use crate::domain::runtime::RuntimeSettings;
use crate::domain::{Reason, ReasonCode};
use half::f16;
use ort::environment::Environment;
use ort::ep::{CPU, CUDA, ExecutionProviderDispatch, TensorRT};
use ort::logging::LogLevel;
use ort::memory::Allocator;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, SessionInputValue, SessionOutputs};
use ort::value::{DynTensor, DynValue, Outlet, TensorElementType, ValueType};
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The library of this process, once it is loaded.
struct Runtime {
    library: PathBuf,
    version: String,
    environment: Environment,
}

static RUNTIME: Mutex<Option<Runtime>> = Mutex::new(None);

fn environment(path: &Path) -> Result<(Environment, String), Reason> {
    let mut runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    // The binding searches relative paths beside the program first; ours mean the current folder.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if let Some(runtime) = &*runtime {
        return if runtime.library == path {
            Ok((runtime.environment.clone(), runtime.version.clone()))
        } else {
            Err(failed(format!(
                "ONNX Runtime library {}: this process runs {} already; restart it for another one",
                path.display(),
                runtime.library.display()
            )))
        };
    }
    let version = library::probe(&path)?;
    // `Debug`: `Display` of this error leaves out the cause.
    let builder = ort::init_from(&path)
        .map_err(|error| failed(format!("ONNX Runtime library {}: {error:?}", path.display())))?;
    let environment = builder
        .with_name("edgewarden")
        .with_telemetry(false)
        .with_logger(Arc::new(log))
        .build()
        .map_err(|error| failed(format!("start ONNX Runtime {}: {}", path.display(), message(&error))))?;
    environment.set_log_level(LogLevel::Warning);
    *runtime = Some(Runtime { library: path, version: version.clone(), environment: environment.clone() });
    Ok((environment, version))
}

fn log(level: LogLevel, category: &str, _id: &str, location: &str, text: &str) {
    match level {
        // What went wrong comes back as an error as well, and is reported from there.
        LogLevel::Fatal | LogLevel::Error | LogLevel::Warning => {
            tracing::debug!(target: "onnxruntime", ?level, category, location, "{text}");
        }
        LogLevel::Info | LogLevel::Verbose => {
            tracing::trace!(target: "onnxruntime", ?level, category, location, "{text}");
        }
    }
}

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// The provider that really runs it.
    pub provider: Provider,
    /// Why the ones before it in the configured order do not.
    pub fallback: Option<String>,
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

    /// Loads a model on the first provider of the configured order that runs it. `plan` is told the
    /// model's inputs and outputs and says what is fed and wanted; its error ends the loading. The model
    /// has been run once, on zeros, when this returns.
    ///
    /// # Errors
    /// `LoadFailed` or `Unsupported` with the file and the remedy.
    pub fn load(
        model: &Path,
        settings: &RuntimeSettings,
        mut plan: impl FnMut(&Ports) -> Result<Plan, Reason>,
    ) -> Result<(Self, Chosen), Reason> {
        let (environment, version) = environment(&settings.library)?;
        let mut order = settings.providers.clone();
        if settings.required {
            order.truncate(1);
        }
        // Every model runs on the processor; without `required`, a slow answer is better than none.
        if order.is_empty() || (!settings.required && !order.contains(&Provider::Cpu)) {
            order.push(Provider::Cpu);
        }
        let mut refused: Vec<String> = Vec::new();
        for at in 0..order.len() {
            let attempt = Attempt {
                environment: &environment,
                version: &version,
                model,
                settings,
                order: &order[at..],
            };
            let fault = match attempt.load(&mut plan) {
                Ok(session) => {
                    let fallback = (!refused.is_empty()).then(|| refused.join("; "));
                    return Ok((session, Chosen { provider: order[at], fallback }));
                }
                Err(Fault::Final(reason)) => return Err(reason),
                Err(Fault::Runtime(error)) => model_fault(model, &error, &version),
                Err(Fault::Provider(detail)) => failed(detail),
            };
            if order.len() == 1 && order[at] == Provider::Cpu {
                return Err(fault);
            }
            refused.push(format!("{}: {}", order[at].as_str(), fault.detail));
        }
        let remedy = if settings.required { "; `runtime.required` allows no other provider" } else { "" };
        Err(failed(format!("model {}: no provider runs it: {}{remedy}", model.display(), refused.join("; "))))
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

/// Why an attempt on one provider failed.
enum Fault {
    /// No other provider would mend it.
    Final(Reason),
    /// The runtime's words.
    Runtime(ort::Error),
    /// The provider was registered but does not run the model.
    Provider(String),
}

impl<R> From<ort::Error<R>> for Fault {
    fn from(error: ort::Error<R>) -> Self {
        // Takes the code and the text; what could be recovered is of no use here.
        Fault::Runtime(ort::Error::new_with_code(error.code(), error.message()))
    }
}

/// One try to load a model on the first provider of `order`, with the others behind it for the nodes
/// that it does not take.
struct Attempt<'a> {
    environment: &'a Environment,
    version: &'a str,
    model: &'a Path,
    settings: &'a RuntimeSettings,
    order: &'a [Provider],
}

impl Attempt<'_> {
    fn load(&self, plan: &mut impl FnMut(&Ports) -> Result<Plan, Reason>) -> Result<Session, Fault> {
        let provider = self.order.first().copied().unwrap_or(Provider::Cpu);
        let mut builder = self.builder()?;
        // A profile of the first run tells who runs the nodes; the processor always does.
        let profile = match provider {
            Provider::Cpu => None,
            Provider::TensorRt | Provider::Cuda => {
                Some(tempfile::tempdir_in(&self.settings.engine_cache).map_err(|error| {
                    Fault::Final(internal(format!(
                        "engine cache {}: {error}; it must be a writable folder",
                        self.settings.engine_cache.display()
                    )))
                })?)
            }
        };
        if let Some(folder) = &profile {
            builder = builder.with_profiling(folder.path().join("run"))?;
        }
        let session = builder.commit_from_file(self.model)?;
        let ports = ports(&session);
        let plan = plan(&ports).map_err(Fault::Final)?;
        let input = Input::new(plan.element, plan.shape.clone())?;
        let mut session = Session {
            session,
            input,
            input_name: plan.input,
            options: RunOptions::new()?.with_outputs(select(&plan.outputs, &[])?),
            outputs: plan.outputs,
            version: self.version.to_owned(),
        };
        let fixed = session.warm_up(&ports)?;
        session.options = RunOptions::new()?.with_outputs(select(&session.outputs, &fixed)?);
        if let Some(folder) = profile {
            let file = session.session.end_profiling()?;
            let profile = std::fs::read_to_string(&file).unwrap_or_default();
            let _ = folder.close();
            if !profile_names(&profile, provider_name(provider)) {
                return Err(Fault::Provider("it takes no operator of this model".into()));
            }
        }
        Ok(session)
    }

    fn builder(&self) -> Result<SessionBuilder, Fault> {
        let threads = self.settings.intra_threads.unwrap_or(1);
        Ok(ort::session::Session::builder(self.environment)?
            .with_log_level(LogLevel::Warning)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(threads)?
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?
            .with_execution_providers(self.dispatch())?)
    }

    fn dispatch(&self) -> Vec<ExecutionProviderDispatch> {
        let cache = self.settings.engine_cache.display();
        let mut dispatch: Vec<_> = self
            .order
            .iter()
            .map(|provider| match provider {
                Provider::TensorRt => TensorRT::default()
                    .with_engine_cache(true)
                    .with_engine_cache_path(&cache)
                    .with_timing_cache(true)
                    .with_timing_cache_path(&cache)
                    .build(),
                Provider::Cuda => CUDA::default().build(),
                // The binding turns the arena off by default; ONNX Runtime's own default is on, and faster.
                Provider::Cpu => CPU::default().with_arena_allocator(true).build(),
            })
            .collect();
        if let Some(first) = dispatch.first_mut() {
            *first = first.clone().error_on_failure();
        }
        dispatch
    }
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

fn ports(session: &ort::session::Session) -> Ports {
    let port = |outlet: &Outlet| match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => Port {
            name: outlet.name().to_owned(),
            element: our_element(*ty),
            type_name: ty.to_string(),
            shape: shape.to_vec(),
        },
        other @ (ValueType::Sequence(_) | ValueType::Map { .. } | ValueType::Optional(_)) => Port {
            name: outlet.name().to_owned(),
            element: None,
            type_name: other.to_string(),
            shape: Vec::new(),
        },
    };
    Ports {
        inputs: session.inputs().iter().map(port).collect(),
        outputs: session.outputs().iter().map(port).collect(),
    }
}

fn our_element(element: TensorElementType) -> Option<ElementType> {
    match element {
        TensorElementType::Float32 => Some(ElementType::F32),
        TensorElementType::Float16 => Some(ElementType::F16),
        TensorElementType::Uint8 => Some(ElementType::U8),
        TensorElementType::Int8 => Some(ElementType::I8),
        TensorElementType::Int64 => Some(ElementType::I64),
        _ => None,
    }
}

fn element_type(element: ElementType) -> TensorElementType {
    match element {
        ElementType::F32 => TensorElementType::Float32,
        ElementType::F16 => TensorElementType::Float16,
        ElementType::U8 => TensorElementType::Uint8,
        ElementType::I8 => TensorElementType::Int8,
        ElementType::I64 => TensorElementType::Int64,
    }
}

fn provider_name(provider: Provider) -> &'static str {
    match provider {
        Provider::TensorRt => "TensorrtExecutionProvider",
        Provider::Cuda => "CUDAExecutionProvider",
        Provider::Cpu => "CPUExecutionProvider",
    }
}

/// True when a profile (a JSON array of events) holds a node that ran on `provider`.
fn profile_names(profile: &str, provider: &str) -> bool {
    let events: Vec<serde_json::Value> = serde_json::from_str(profile).unwrap_or_default();
    events.iter().any(|event| event["cat"] == "Node" && event["args"]["provider"] == provider)
}

/// The runtime's refusal of a model as one line with the remedy.
fn model_fault(model: &Path, error: &ort::Error, version: &str) -> Reason {
    let text = message(error);
    let model = model.display();
    let (code, detail) = match error.code() {
        ort::ErrorCode::InvalidProtobuf => {
            (ReasonCode::LoadFailed, "not an ONNX model, or cut short; export or copy it again".to_owned())
        }
        _ if text.contains("does not have a graph") || text.contains("No graph was found") => {
            (ReasonCode::LoadFailed, "not an ONNX model, or empty; export or copy it again".to_owned())
        }
        // Looked for in all of it: a long path may push the words out of the bounded text.
        _ if ["IR version", "opset"].iter().any(|word| error.message().contains(word)) => (
            ReasonCode::Unsupported,
            format!(
                "newer than ONNX Runtime {version}; install a newer one or export for an older opset ({text})"
            ),
        ),
        ort::ErrorCode::NotImplemented => (
            ReasonCode::Unsupported,
            format!("ONNX Runtime {version} lacks an operator of it; export it another way ({text})"),
        ),
        _ => (ReasonCode::LoadFailed, format!("ONNX Runtime {version} refuses it: {text}")),
    };
    Reason::new(code, format!("model {model}: {detail}"))
}

/// The runtime's message on one line, of bounded length, without its own source locations.
fn message<R>(error: &ort::Error<R>) -> String {
    let line = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line
        .rsplit_once("] ")
        .filter(|(head, _)| head.ends_with("onnxruntime"))
        .map_or(line.as_str(), |(_, t)| t);
    // "…failed:/onnxruntime_src/FILE:LINE TYPE NAME(ARGUMENTS) What happened"
    let line = match line.split_once("/onnxruntime_src/").and_then(|(_, rest)| rest.split_once(") ")) {
        Some((_, what)) => what,
        None => line,
    };
    let mut text: String = line.chars().take(400).collect();
    if text.len() < line.len() {
        text.push('…');
    }
    text
}

fn failed(detail: String) -> Reason {
    Reason::new(ReasonCode::LoadFailed, detail)
}

fn internal(detail: String) -> Reason {
    Reason::new(ReasonCode::Internal, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_names_who_ran_the_nodes() {
        let profile = r#"[
            {"cat": "Session", "name": "model_run", "args": {}},
            {"cat": "Node", "name": "a_kernel_time", "args": {"op_name": "Conv", "provider": "CPUExecutionProvider"}}
        ]"#;
        assert!(profile_names(profile, "CPUExecutionProvider"));
        assert!(!profile_names(profile, "CUDAExecutionProvider"));
        assert!(!profile_names("", "CPUExecutionProvider"));
    }
}
