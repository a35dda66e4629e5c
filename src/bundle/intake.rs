//! Model intake: what in a model's file makes it slow, and how it is mended.
//!
//! Pure: bytes go in, findings or other bytes come out. `edit` changes a model and keeps all of it that it
//! does not change, `fold` computes batch normalisation into the convolution before it, `narrow` makes
//! 64-bit floats 32-bit ones. Whether a mended model still answers the same is not decided here: whoever
//! can run it proves that (`edgewarden bundle optimize`).

pub mod edit;
mod fold;
mod narrow;

#[cfg(test)]
pub(crate) mod tests;

use super::onnx::graph::{Axis, DOUBLE, FLOAT16, Graph, Model};
use serde::Serialize;

/// The remedy for all that can be mended here.
const OPTIMIZE: &str = "run `edgewarden bundle optimize`";
/// Oldest operator set that ONNX Runtime promises to run.
const OLDEST_OPSET: i64 = 7;
/// From this version of the format on a listed weight may be fed, and so is no constant.
pub const WEIGHTS_MAY_BE_FED: i64 = 4;

/// What kind of slow shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Weights are listed among the inputs.
    WeightsAsInputs,
    /// An input leaves axes open that are in fact fixed.
    OpenAxes,
    /// Batch normalisation that stays an operator of its own.
    UnfusedBatchNorm,
    /// 64-bit floats.
    Float64,
    /// 16-bit floats.
    Float16,
    /// Shapes between the operators are not stated.
    MissingShapes,
    /// Operators as they are while training.
    TrainingMode,
    /// An operator set older than the runtime promises to run.
    OldOpset,
}

/// One slow shape.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// For machines.
    pub kind: Kind,
    /// What was seen, with its numbers.
    pub what: String,
    /// What it costs.
    pub why: &'static str,
    /// What to do.
    pub remedy: String,
    /// Whether `edgewarden bundle optimize` mends it.
    pub mendable: bool,
}

/// What is known of an input from outside: its name and the shape that it is always fed with.
#[derive(Debug, Clone, PartialEq)]
pub struct Fixed {
    /// The input's name.
    pub name: String,
    /// Its axes, none open.
    pub shape: Vec<i64>,
}

/// All slow shapes of a model; `fixed` are the inputs whose shape is settled from outside.
pub fn examine(model: &Model, fixed: &[Fixed]) -> Vec<Finding> {
    let graph = &model.graph;
    let listed = listed(model);
    let found = [
        weights_as_inputs(&listed),
        open_axes(graph, fixed),
        batch_norm(model, !listed.is_empty()),
        float64(graph),
        float16(graph),
        missing_shapes(graph),
        training_mode(graph),
        old_opset(model),
    ];
    found.into_iter().flatten().collect()
}

/// Names of the weights that are listed as inputs and may therefore be fed.
fn listed(model: &Model) -> Vec<&str> {
    if model.ir_version < WEIGHTS_MAY_BE_FED {
        return Vec::new();
    }
    let graph = &model.graph;
    graph.inputs.iter().map(|v| v.name.as_str()).filter(|name| graph.weights.contains_key(*name)).collect()
}

fn mendable(kind: Kind, what: String, why: &'static str) -> Finding {
    Finding { kind, what, why, remedy: OPTIMIZE.into(), mendable: true }
}

fn weights_as_inputs(listed: &[&str]) -> Option<Finding> {
    let count = listed.len();
    (count > 0).then(|| {
        mendable(
            Kind::WeightsAsInputs,
            format!("{count} weights are also listed as inputs"),
            "a weight that could be fed is no constant: the runtime folds and fuses nothing with it",
        )
    })
}

fn open_axes(graph: &Graph, fixed: &[Fixed]) -> Option<Finding> {
    let mut told = Vec::new();
    let mut can = false;
    for input in graph.fed() {
        let Some(axes) = &input.shape else { continue };
        let open: Vec<usize> = (0..axes.len()).filter(|&at| !matches!(axes[at], Axis::Fixed(_))).collect();
        if open.is_empty() {
            continue;
        }
        let names: Vec<_> = axes
            .iter()
            .map(|axis| match axis {
                Axis::Fixed(length) => length.to_string(),
                Axis::Named(name) => name.clone(),
                Axis::Open => "?".into(),
            })
            .collect();
        let known = fixed.iter().find(|one| one.name == input.name && one.shape.len() == axes.len());
        // Without a manifest only the batch is known: one picture at a time.
        can |= known.is_some() || open == [0];
        let always = known.map(|one| format!(", and is always fed {:?}", one.shape)).unwrap_or_default();
        told.push(format!("input {:?} leaves axes of [{}] open{always}", input.name, names.join(", ")));
    }
    if told.is_empty() {
        return None;
    }
    let remedy = match can {
        true => OPTIMIZE.to_owned(),
        false => "make a bundle of it, whose manifest says the size, and optimize that; or export it with a \
                  fixed size"
            .into(),
    };
    Some(Finding {
        kind: Kind::OpenAxes,
        what: told.join("; "),
        why: "sizes are computed anew with every frame, and no memory can be planned ahead",
        remedy,
        mendable: can,
    })
}

fn batch_norm(model: &Model, listed: bool) -> Option<Finding> {
    let graph = &model.graph;
    let all = graph.nodes.iter().filter(|node| node.op == "BatchNormalization" && node.domain.is_empty());
    let count = all.count();
    let pairs = fold::pairs(graph);
    let transposed = pairs.iter().filter(|pair| graph.nodes[pair.conv].op == "ConvTranspose").count();
    let alone = count - pairs.len();
    let why = "each is a pass over its whole tensor that folding into the weights before it would save";
    if listed && !pairs.is_empty() {
        let what = format!(
            "{} of {count} batch normalisations follow a convolution and are not fused, since their weights are listed as inputs",
            pairs.len()
        );
        return Some(mendable(Kind::UnfusedBatchNorm, what, why));
    }
    if transposed > 0 {
        let what = format!(
            "{transposed} of {count} batch normalisations follow a transposed convolution, which the runtime does not fuse"
        );
        return Some(mendable(Kind::UnfusedBatchNorm, what, why));
    }
    (alone > 0).then(|| Finding {
        kind: Kind::UnfusedBatchNorm,
        what: format!(
            "{alone} of {count} batch normalisations follow no convolution that they could be folded into"
        ),
        why,
        remedy: "put them right after a convolution that nothing else reads, and train again; or leave them"
            .into(),
        mendable: false,
    })
}

fn float64(graph: &Graph) -> Option<Finding> {
    let weights = graph.weights.values().filter(|weight| weight.element == DOUBLE).count();
    let constants = graph.nodes.iter().filter(|node| node.tensor_types.contains(&DOUBLE)).count();
    let casts = graph.nodes.iter().filter(|n| n.op == "Cast" && n.numbers.get("to") == Some(&DOUBLE)).count();
    let ports = graph.fed().chain(&graph.outputs).filter(|value| value.element == Some(DOUBLE)).count();
    (weights + constants + casts + ports > 0).then(|| Finding {
        kind: Kind::Float64,
        what: format!(
            "64-bit floats: {weights} weights, {constants} constants, {casts} casts, {ports} inputs and outputs"
        ),
        why: "twice the memory and half the speed of 32-bit floats, and most accelerators take none",
        remedy: "run `edgewarden bundle optimize --f32`, or export it in 32 bits".into(),
        mendable: true,
    })
}

fn float16(graph: &Graph) -> Option<Finding> {
    let weights = graph.weights.values().filter(|weight| weight.element == FLOAT16).count();
    (weights > 0 && weights * 2 >= graph.weights.len()).then(|| Finding {
        kind: Kind::Float16,
        what: format!("{weights} of {} weights are 16-bit floats", graph.weights.len()),
        why: "for a GPU; most processors compute them in 32 bits and convert before and after",
        remedy: "for devices without a GPU export a 32-bit or an 8-bit (quantised) model".into(),
        mendable: false,
    })
}

fn missing_shapes(graph: &Graph) -> Option<Finding> {
    let ends: Vec<_> = graph.outputs.iter().map(|value| value.name.as_str()).collect();
    let between = |name: &&String| !name.is_empty() && !ends.contains(&name.as_str());
    let all = graph.nodes.iter().flat_map(|node| &node.outputs).filter(between).count();
    let known = graph
        .nodes
        .iter()
        .flat_map(|n| &n.outputs)
        .filter(between)
        .filter(|n| graph.described.contains(*n))
        .count();
    // A few that nobody can know (what a filter keeps) are no reason to complain.
    (all > 0 && known * 10 < all * 9).then(|| Finding {
        kind: Kind::MissingShapes,
        what: format!("the shapes of {} of {all} tensors between the operators are not stated", all - known),
        why: "TensorRT takes no part of a model whose shapes it cannot know; on the processor it costs nothing",
        remedy: "for TensorRT run python -m onnxruntime.tools.symbolic_shape_infer on it".into(),
        mendable: false,
    })
}

fn training_mode(graph: &Graph) -> Option<Finding> {
    let trains = |node: &&super::onnx::graph::Node| match node.op.as_str() {
        "BatchNormalization" => {
            node.numbers.get("training_mode") == Some(&1)
                || node.outputs.iter().skip(1).any(|name| !name.is_empty())
        }
        "Dropout" => node.inputs.get(2).is_some_and(|name| !name.is_empty()),
        _ => false,
    };
    let count = graph.nodes.iter().filter(trains).count();
    (count > 0).then(|| Finding {
        kind: Kind::TrainingMode,
        what: format!("{count} operators may be in training mode (batch normalisation or dropout)"),
        why: "they cannot be taken out, and their answers may change from run to run",
        remedy: "export it in evaluation mode (PyTorch: model.eval())".into(),
        mendable: false,
    })
}

fn old_opset(model: &Model) -> Option<Finding> {
    ((1..OLDEST_OPSET).contains(&model.opset)).then(|| Finding {
        kind: Kind::OldOpset,
        what: format!("operator set {}", model.opset),
        why: "ONNX Runtime promises to run version 7 and later; optimisations know the newer ones",
        remedy: "export it again, or convert it with onnx.version_converter".into(),
        mendable: false,
    })
}
