//! `[runtime]`: what of ONNX Runtime can be set on the device. A key that is absent leaves the bundle's
//! hint, or the runtime's default.

use super::file::{Node, Section};
use super::value::{boolean, bytes, one_of, text, whole};
use crate::domain::runtime::{
    ArenaGrowth, ConvSearch, CpuTuning, CudaTuning, OpenVinoTuning, Optimization, TensorRtTuning, Tuning,
    XnnpackTuning,
};

/// Most devices and cores that a number may name.
const MAX_DEVICE: u64 = 63;
/// Most threads.
const MAX_THREADS: u64 = 256;

/// Takes these keys and tables out of `[runtime]`.
pub fn tuning(section: &mut Section<'_>) -> Tuning {
    let at = section.at.clone();
    let levels = one_of(&[
        ("disabled", Optimization::Disabled),
        ("basic", Optimization::Basic),
        ("extended", Optimization::Extended),
        ("all", Optimization::All),
    ]);
    let tuning = Tuning {
        inter_threads: section.optional("inter_threads", whole(1..=MAX_THREADS)).map(|n| n as usize),
        optimization: section.optional("optimization", levels),
        memory_pattern: section.optional("memory_pattern", boolean),
        save_optimized: section.optional("save_optimized", boolean),
        cpu: cpu(section.table_or_empty("cpu")),
        tensorrt: tensorrt(section.table_or_empty("tensorrt")),
        cuda: cuda(section.table_or_empty("cuda")),
        openvino: openvino(section.table_or_empty("openvino")),
        xnnpack: xnnpack(section.table_or_empty("xnnpack")),
    };
    for (key, fault) in tuning.faults() {
        section.fault(&at, key, fault);
    }
    tuning
}

fn growth(node: &Node) -> Result<ArenaGrowth, String> {
    one_of(&[("power_of_two", ArenaGrowth::PowerOfTwo), ("as_requested", ArenaGrowth::AsRequested)])(node)
}

fn small(max: u64) -> impl Fn(&Node) -> Result<u32, String> {
    move |node| whole(0..=max)(node).map(|number| number as u32)
}

/// Text for a library that ends it at a null.
fn words(node: &Node) -> Result<String, String> {
    let text = text(node)?;
    if text.len() > 1000 || text.contains('\0') {
        return Err("is longer than 1000 bytes or holds a null".into());
    }
    Ok(text.to_owned())
}

fn threads(node: &Node) -> Result<u32, String> {
    whole(1..=MAX_THREADS)(node).map(|number| number as u32)
}

fn memory(node: &Node) -> Result<u64, String> {
    bytes(1 << 20..=1 << 40)(node)
}

fn cpu(mut section: Section<'_>) -> CpuTuning {
    let set = CpuTuning {
        arena: section.optional("arena", boolean),
        arena_limit: section.optional("arena_limit", memory),
        arena_growth: section.optional("arena_growth", growth),
    };
    section.finish();
    set
}

fn tensorrt(mut section: Section<'_>) -> TensorRtTuning {
    let set = TensorRtTuning {
        device: section.optional("device", small(MAX_DEVICE)),
        fp16: section.optional("fp16", boolean),
        int8: section.optional("int8", boolean),
        // It belongs to a model: only a bundle can bring it.
        calibration_table: None,
        dla_core: section.optional("dla_core", small(MAX_DEVICE)),
        workspace: section.optional("workspace", memory),
        min_subgraph: section.optional("min_subgraph", small(100_000)),
        builder_level: section.optional("builder_level", small(5)),
        cuda_graph: section.optional("cuda_graph", boolean),
        profile_min: section.optional("profile_min", words),
        profile_opt: section.optional("profile_opt", words),
        profile_max: section.optional("profile_max", words),
    };
    section.finish();
    set
}

fn cuda(mut section: Section<'_>) -> CudaTuning {
    let search = one_of(&[
        ("exhaustive", ConvSearch::Exhaustive),
        ("heuristic", ConvSearch::Heuristic),
        ("default", ConvSearch::Default),
    ]);
    let set = CudaTuning {
        device: section.optional("device", small(MAX_DEVICE)),
        memory_limit: section.optional("memory_limit", memory),
        arena_growth: section.optional("arena_growth", growth),
        cuda_graph: section.optional("cuda_graph", boolean),
        tf32: section.optional("tf32", boolean),
        conv_search: section.optional("conv_search", search),
    };
    section.finish();
    set
}

fn openvino(mut section: Section<'_>) -> OpenVinoTuning {
    let set = OpenVinoTuning {
        device: section.optional("device", words),
        precision: section.optional("precision", words),
        threads: section.optional("threads", threads),
        streams: section.optional("streams", |node| whole(1..=255)(node).map(|number| number as u32)),
    };
    section.finish();
    set
}

fn xnnpack(mut section: Section<'_>) -> XnnpackTuning {
    let set = XnnpackTuning { threads: section.optional("threads", threads) };
    section.finish();
    set
}
