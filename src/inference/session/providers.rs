//! The execution providers and their options.

use crate::domain::manifest::Provider;
use crate::domain::runtime::RuntimeSettings;
use ort::ep::{CPU, CUDA, ExecutionProviderDispatch, TensorRT};

/// The providers in their order, each with its options; only the first has to register.
pub(super) fn dispatch(order: &[Provider], settings: &RuntimeSettings) -> Vec<ExecutionProviderDispatch> {
    let cache = settings.engine_cache.display();
    let mut dispatch: Vec<_> = order
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

/// As the runtime calls it.
pub(super) fn provider_name(provider: Provider) -> &'static str {
    match provider {
        Provider::TensorRt => "TensorrtExecutionProvider",
        Provider::Cuda => "CUDAExecutionProvider",
        Provider::Cpu => "CPUExecutionProvider",
    }
}
