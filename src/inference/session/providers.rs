//! The execution providers and their options.
//!
//! Of these only the processor's is run by the tests: no machine with a GPU, OpenVINO or XNNPACK was at
//! hand. The names of the options are those of the ONNX Runtime documentation and of the binding.

use crate::domain::manifest::Provider;
use crate::domain::runtime::{ArenaGrowth, ConvSearch, RuntimeSettings, TensorRtTuning, Tuning};
use ort::ep::cuda::ConvAlgorithmSearch;
use ort::ep::{ArenaExtendStrategy, CPU, CUDA, ExecutionProviderDispatch, OpenVINO, TensorRT, XNNPACK};
use std::num::NonZeroUsize;
use std::path::Path;

/// The providers in their order, each with its options; only the first has to register. `engines` is where
/// the first may keep its engines; `None` for a model of which nothing may be kept.
pub(super) fn dispatch(
    order: &[Provider],
    settings: &RuntimeSettings,
    engines: Option<&Path>,
) -> Vec<ExecutionProviderDispatch> {
    let tuning = &settings.tuning;
    let mut dispatch: Vec<_> = order
        .iter()
        .map(|provider| match provider {
            Provider::TensorRt => tensorrt(&tuning.tensorrt, engines),
            Provider::Cuda => cuda(tuning),
            Provider::OpenVino => openvino(tuning, engines),
            Provider::Xnnpack => xnnpack(settings),
            // The binding turns the arena off by default; ONNX Runtime's own default is on, and faster.
            Provider::Cpu => CPU::default().with_arena_allocator(tuning.cpu.arena.unwrap_or(true)).build(),
        })
        .collect();
    if let Some(first) = dispatch.first_mut() {
        *first = first.clone().error_on_failure();
    }
    dispatch
}

/// Applies each option that is set.
macro_rules! options {
    ($provider:expr, $($value:expr => $set:ident),* $(,)?) => {{
        let mut provider = $provider;
        $(if let Some(value) = $value { provider = provider.$set(value); })*
        provider
    }};
}

fn tensorrt(set: &TensorRtTuning, engines: Option<&Path>) -> ExecutionProviderDispatch {
    let whole = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let provider = match engines.map(Path::display) {
        Some(engines) => TensorRT::default()
            .with_engine_cache(true)
            .with_engine_cache_path(&engines)
            .with_timing_cache(true)
            .with_timing_cache_path(&engines),
        None => TensorRT::default().with_engine_cache(false).with_timing_cache(false),
    };
    options!(
        provider,
        set.device.map(|device| device as i32) => with_device_id,
        set.fp16 => with_fp16,
        set.int8 => with_int8,
        set.calibration_table.as_ref() => with_int8_calibration_table_name,
        set.dla_core.map(|_| true) => with_dla,
        set.dla_core => with_dla_core,
        set.workspace.map(whole) => with_max_workspace_size,
        set.min_subgraph.map(|operators| operators as usize) => with_min_subgraph_size,
        set.builder_level.map(|level| level as u8) => with_builder_optimization_level,
        set.cuda_graph => with_cuda_graph,
        set.profile_min.as_ref() => with_profile_min_shapes,
        set.profile_opt.as_ref() => with_profile_opt_shapes,
        set.profile_max.as_ref() => with_profile_max_shapes,
    )
    .build()
}

fn cuda(tuning: &Tuning) -> ExecutionProviderDispatch {
    let set = &tuning.cuda;
    let growth = set.arena_growth.map(|growth| match growth {
        ArenaGrowth::PowerOfTwo => ArenaExtendStrategy::NextPowerOfTwo,
        ArenaGrowth::AsRequested => ArenaExtendStrategy::SameAsRequested,
    });
    let search = set.conv_search.map(|search| match search {
        ConvSearch::Exhaustive => ConvAlgorithmSearch::Exhaustive,
        ConvSearch::Heuristic => ConvAlgorithmSearch::Heuristic,
        ConvSearch::Default => ConvAlgorithmSearch::Default,
    });
    options!(
        CUDA::default(),
        set.device.map(|device| device as i32) => with_device_id,
        set.memory_limit.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)) => with_memory_limit,
        growth => with_arena_extend_strategy,
        search => with_conv_algorithm_search,
        set.cuda_graph => with_cuda_graph,
        set.tf32 => with_tf32,
    )
    .build()
}

fn openvino(tuning: &Tuning, engines: Option<&Path>) -> ExecutionProviderDispatch {
    let set = &tuning.openvino;
    options!(
        OpenVINO::default(),
        engines.map(Path::display) => with_cache_dir,
        set.device.as_ref() => with_device_type,
        set.precision.as_ref() => with_precision,
        set.threads.map(|threads| threads as usize) => with_num_threads,
        set.streams.map(|streams| u8::try_from(streams).unwrap_or(u8::MAX)) => with_num_streams,
    )
    .build()
}

fn xnnpack(settings: &RuntimeSettings) -> ExecutionProviderDispatch {
    let threads = settings.tuning.xnnpack.threads.map(|threads| threads as usize);
    // As many as the runtime itself would take, unless it is told otherwise.
    let threads = threads.or(settings.intra_threads).and_then(NonZeroUsize::new);
    options!(XNNPACK::default(), threads => with_intra_op_num_threads).build()
}

/// As the runtime calls it.
pub(super) fn provider_name(provider: Provider) -> &'static str {
    match provider {
        Provider::TensorRt => "TensorrtExecutionProvider",
        Provider::Cuda => "CUDAExecutionProvider",
        Provider::OpenVino => "OpenVINOExecutionProvider",
        Provider::Xnnpack => "XnnpackExecutionProvider",
        Provider::Cpu => "CPUExecutionProvider",
    }
}
