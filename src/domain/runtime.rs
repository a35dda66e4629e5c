//! How ONNX Runtime is set up on this device.
//!
//! A bundle carries hints, the device's configuration lies over them, key by key: whoever owns the machine
//! has the last word.

use super::manifest::{Provider, RuntimeHints};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// How an inference process sets up the runtime: the device's configuration over the bundle's hints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeSettings {
    /// `libonnxruntime.so`.
    pub library: PathBuf,
    /// In the order of preference; the last that loads wins over none.
    pub providers: Vec<Provider>,
    /// Fail to load rather than run on a later provider than the first.
    pub required: bool,
    /// Threads inside one operator; the bundle's hint or 1 when absent.
    pub intra_threads: Option<usize>,
    /// Writable folder for engines, timing caches and optimised graphs.
    pub engine_cache: PathBuf,
    /// Everything else; what is absent is the bundle's hint or the runtime's default.
    #[serde(default)]
    pub tuning: Tuning,
}

impl RuntimeSettings {
    /// These settings over a bundle's hints.
    pub fn over(&self, hints: &RuntimeHints) -> Self {
        Self {
            intra_threads: self.intra_threads.or(hints.intra_threads),
            tuning: self.tuning.over(&hints.tuning()),
            ..self.clone()
        }
    }
}

/// A table of settings: each absent in itself, laid over another table key by key, and never with a key
/// that is not known.
macro_rules! table {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $key:ident: $type:ty,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $key: Option<$type>,)*
        }

        impl $name {
            /// This table over another: what is absent here is taken from there.
            pub fn over(&self, below: &Self) -> Self {
                Self { $($key: self.$key.clone().or_else(|| below.$key.clone()),)* }
            }

            /// True when nothing is set.
            pub fn is_empty(&self) -> bool {
                *self == Self::default()
            }
        }
    };
}

table! {
    /// The processor.
    CpuTuning {
        /// Keep memory between runs in an arena: faster, and it never shrinks.
        arena: bool,
        /// Largest arena, bytes; a model that needs more fails.
        arena_limit: u64,
        /// How the arena grows.
        arena_growth: ArenaGrowth,
    }
}

table! {
    /// NVIDIA TensorRT.
    TensorRtTuning {
        /// Which GPU, from 0.
        device: u32,
        /// Compute in 16-bit floats where TensorRT finds it faster.
        fp16: bool,
        /// Compute in 8-bit integers; a model that is not quantised needs a calibration table.
        int8: bool,
        /// File of the bundle with the calibration table for `int8`.
        calibration_table: String,
        /// Run on this core of the deep learning accelerator (Jetson).
        dla_core: u32,
        /// Memory for building an engine, bytes.
        workspace: u64,
        /// Smaller groups of operators than this stay with the next provider.
        min_subgraph: u32,
        /// 0 to 5: how long the search for the fastest engine may take.
        builder_level: u32,
        /// Capture the run as a CUDA graph.
        cuda_graph: bool,
        /// Smallest shapes of the optimisation profile, such as `input:1x3x240x320`.
        profile_min: String,
        /// Shapes that the engine is made fastest for.
        profile_opt: String,
        /// Largest shapes of the optimisation profile.
        profile_max: String,
    }
}

table! {
    /// NVIDIA CUDA.
    CudaTuning {
        /// Which GPU, from 0.
        device: u32,
        /// Largest arena on the GPU, bytes.
        memory_limit: u64,
        /// How the arena grows.
        arena_growth: ArenaGrowth,
        /// Capture the run as a CUDA graph.
        cuda_graph: bool,
        /// Let matrix products use TF32: faster, three digits less.
        tf32: bool,
        /// How the algorithm of a convolution is chosen.
        conv_search: ConvSearch,
    }
}

table! {
    /// Intel OpenVINO.
    OpenVinoTuning {
        /// `CPU`, `GPU`, `GPU.1`, `NPU`, or several as OpenVINO writes them.
        device: String,
        /// `FP32`, `FP16` or `ACCURACY`.
        precision: String,
        /// Threads of its own.
        threads: u32,
        /// Runs at the same time.
        streams: u32,
    }
}

table! {
    /// XNNPACK.
    XnnpackTuning {
        /// Threads of its own; the runtime's own threads are then best left at 1.
        threads: u32,
    }
}

/// How an arena grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArenaGrowth {
    /// To the next power of two: few and large steps.
    PowerOfTwo,
    /// By what is asked for: the least memory.
    AsRequested,
}

/// How the algorithm of a convolution is chosen on CUDA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConvSearch {
    /// All are tried at the first run.
    Exhaustive,
    /// By rule.
    Heuristic,
    /// One for all.
    Default,
}

/// How far the graph is optimised while it is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Optimization {
    /// Not at all.
    Disabled,
    /// Constants folded, operators taken out that do nothing.
    Basic,
    /// Operators fused.
    Extended,
    /// Memory laid out for this processor, too.
    All,
}

/// All settings besides the library, the providers and the threads inside an operator.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tuning {
    /// Threads that run operators beside each other; 1 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inter_threads: Option<usize>,
    /// How far the graph is optimised; all the way when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimization: Option<Optimization>,
    /// Plan the memory of a run ahead; on when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_pattern: Option<bool>,
    /// Keep the optimised graph in the engine cache, so that the next start is faster; on when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub save_optimized: Option<bool>,
    /// `cpu`
    #[serde(skip_serializing_if = "CpuTuning::is_empty")]
    pub cpu: CpuTuning,
    /// `tensorrt`
    #[serde(skip_serializing_if = "TensorRtTuning::is_empty")]
    pub tensorrt: TensorRtTuning,
    /// `cuda`
    #[serde(skip_serializing_if = "CudaTuning::is_empty")]
    pub cuda: CudaTuning,
    /// `openvino`
    #[serde(skip_serializing_if = "OpenVinoTuning::is_empty")]
    pub openvino: OpenVinoTuning,
    /// `xnnpack`
    #[serde(skip_serializing_if = "XnnpackTuning::is_empty")]
    pub xnnpack: XnnpackTuning,
}

impl Tuning {
    /// This over another, key by key.
    pub fn over(&self, below: &Self) -> Self {
        Self {
            inter_threads: self.inter_threads.or(below.inter_threads),
            optimization: self.optimization.or(below.optimization),
            memory_pattern: self.memory_pattern.or(below.memory_pattern),
            save_optimized: self.save_optimized.or(below.save_optimized),
            cpu: self.cpu.over(&below.cpu),
            tensorrt: self.tensorrt.over(&below.tensorrt),
            cuda: self.cuda.over(&below.cuda),
            openvino: self.openvino.over(&below.openvino),
            xnnpack: self.xnnpack.over(&below.xnnpack),
        }
    }

    /// What contradicts itself, each with the key and the remedy; asked of what is in force, and of each
    /// part alone.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let mut fault = |key, text: &str| faults.push((key, text.to_owned()));
        if self.cpu.arena == Some(false) && self.cpu.arena_limit.is_some() {
            fault("cpu.arena_limit", "limits an arena that is off; leave one of the two out");
        }
        let rt = &self.tensorrt;
        if rt.calibration_table.is_some() && rt.int8 == Some(false) {
            fault("tensorrt.calibration_table", "is for int8, which is off; leave one of the two out");
        }
        let profile = [&rt.profile_min, &rt.profile_opt, &rt.profile_max];
        let given = profile.iter().filter(|shapes| shapes.is_some()).count();
        if (1..3).contains(&given) {
            fault("tensorrt.profile_min", "a profile needs profile_min, profile_opt and profile_max");
        }
        for (key, shapes) in
            ["tensorrt.profile_min", "tensorrt.profile_opt", "tensorrt.profile_max"].into_iter().zip(profile)
        {
            if shapes.as_deref().is_some_and(|shapes| !is_profile(shapes)) {
                fault(key, "is no list of shapes; write it like \"input:1x3x240x320\", several with commas");
            }
        }
        faults
    }
}

/// `name:1x3x240x320`, several with commas.
fn is_profile(text: &str) -> bool {
    text.split(',').all(|one| {
        one.trim().rsplit_once(':').is_some_and(|(name, shape)| {
            !name.is_empty() && shape.split('x').all(|axis| axis.parse::<u32>().is_ok_and(|axis| axis > 0))
        })
    })
}

/// How much of a model a provider runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProviderShare {
    /// The provider as it is written in the configuration; as the runtime calls it where that is another.
    pub provider: String,
    /// Operators that it ran; absent where nobody counted, since all others were never asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<u32>,
    /// Its share of the time of all operators in the first run, 0 to 1.
    pub time: f32,
}

/// How one pipeline's frames are brought to its models: the same for every bundle that serves it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InputSettings {
    /// Prepare the next frame on a second thread while the model runs; absent: where there are two
    /// processors or more.
    pub overlap: Option<bool>,
    /// The part of each picture that is looked at: left, top, width, height as shares of it, 0 to 1;
    /// absent: all of it. Boxes are in pixels of the whole picture all the same.
    pub crop: Option<[f32; 4]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_lies_over_the_bundle_key_by_key() {
        let hints = RuntimeHints {
            intra_threads: Some(4),
            tensorrt: TensorRtTuning { fp16: Some(true), workspace: Some(1 << 30), ..Default::default() },
            optimization: Some(Optimization::Basic),
            ..RuntimeHints::default()
        };
        let device = RuntimeSettings {
            library: "x".into(),
            providers: vec![Provider::Cpu],
            required: false,
            intra_threads: None,
            engine_cache: "y".into(),
            tuning: Tuning {
                tensorrt: TensorRtTuning { fp16: Some(false), ..Default::default() },
                ..Tuning::default()
            },
        };
        let both = device.over(&hints);
        assert_eq!(both.intra_threads, Some(4));
        assert_eq!(both.tuning.optimization, Some(Optimization::Basic));
        assert_eq!((both.tuning.tensorrt.fp16, both.tuning.tensorrt.workspace), (Some(false), Some(1 << 30)));
    }

    #[test]
    fn contradictions_are_told() {
        let mut tuning = Tuning::default();
        assert!(tuning.faults().is_empty());
        tuning.cpu = CpuTuning { arena: Some(false), arena_limit: Some(1), ..Default::default() };
        tuning.tensorrt.profile_min = Some("input:1x3".into());
        tuning.tensorrt.profile_max = Some("input".into());
        let keys: Vec<_> = tuning.faults().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["cpu.arena_limit", "tensorrt.profile_min", "tensorrt.profile_max"]);
        for (text, good) in
            [("a:1x2,b:3", true), ("a:1x0", false), ("1x2", false), (":1", false), ("", false)]
        {
            assert_eq!(is_profile(text), good, "{text}");
        }
    }

    #[test]
    fn an_unknown_hint_is_refused() {
        let read = |text: &str| serde_json::from_str::<RuntimeHints>(text);
        assert_eq!(read(r#"{"tensorrt": {"fp16": true}}"#).unwrap().tensorrt.fp16, Some(true));
        assert!(read(r#"{"tensorrt": {"fp61": true}}"#).is_err());
        assert!(read(r#"{"onednn": {}}"#).is_err());
        // What a bundle of the first format wrote is read and written as it was.
        let first = r#"{"intra_threads":1}"#;
        assert_eq!(serde_json::to_string(&read(first).unwrap()).unwrap(), first);
    }
}
