//! Batch normalisation computed into the convolution before it.
//!
//! `y = scale · (conv(x) − mean) ÷ √(var + ε) + bias` is a convolution with each output channel's weights
//! times `scale ÷ √(var + ε)`. It is done in 64 bits and rounded once. Safe where nothing else reads what
//! the convolution gives, all numbers lie in the file as 32-bit floats, and neither is in training mode.

use crate::bundle::onnx::graph::{FLOAT, Graph, Node, field};
use crate::bundle::onnx::wire::{Field, Message};
use std::collections::{BTreeMap, BTreeSet};

/// ε where the node states none (`BatchNormalization` of the operator set).
const EPSILON: f32 = 1e-5;

/// A convolution and the batch normalisation that can be folded into it, by their places among the nodes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// The convolution.
    pub conv: usize,
    /// The batch normalisation.
    pub norm: usize,
}

/// All that can be folded.
pub fn pairs(graph: &Graph) -> Vec<Pair> {
    let makers: BTreeMap<&str, usize> = graph
        .nodes
        .iter()
        .enumerate()
        .flat_map(|(at, node)| node.outputs.iter().map(move |name| (name.as_str(), at)))
        .collect();
    let pair = |norm: usize| {
        let node = &graph.nodes[norm];
        let conv = *makers.get(node.inputs.first()?.as_str())?;
        foldable(graph, &graph.nodes[conv], node).then_some(Pair { conv, norm })
    };
    (0..graph.nodes.len()).filter_map(pair).collect()
}

fn foldable(graph: &Graph, conv: &Node, norm: &Node) -> bool {
    let is = |node: &Node, op: &str| node.op == op && node.domain.is_empty();
    // A plain file that holds one tensor of each name, in place, with 32-bit floats.
    let plain = |name: &String| {
        graph.weights.get(name).is_some_and(|w| w.element == FLOAT && !w.external && w.at.is_some())
    };
    let [_, scale, bias, mean, var] = &norm.inputs[..] else { return false };
    let Some(weights) = conv.inputs.get(1) else { return false };
    let groups = conv.numbers.get("group").copied().unwrap_or(1);
    let offset = conv.inputs.get(2).filter(|name| !name.is_empty());
    let channels = |name: &String| graph.weights.get(name).map(|w| &w.shape[..]);
    let axis = usize::from(is(conv, "ConvTranspose"));
    let Some(&wanted) = channels(weights).and_then(|shape| shape.get(axis)) else { return false };
    is(norm, "BatchNormalization")
        && (is(conv, "Conv") || (is(conv, "ConvTranspose") && groups == 1))
        && norm.numbers.get("training_mode").copied().unwrap_or(0) == 0
        // Before operator set 9 it could normalise each value by its own mean.
        && norm.numbers.get("spatial").copied().unwrap_or(1) == 1
        && norm.outputs.iter().filter(|name| !name.is_empty()).count() == 1
        && conv.outputs.len() == 1
        && graph.readers.get(&conv.outputs[0]) == Some(&1)
        && [weights, scale, bias, mean, var].into_iter().chain(offset).all(plain)
        && [scale, bias, mean, var].into_iter().chain(offset).all(|name| channels(name) == Some(&[wanted]))
}

/// Folds all that can be folded; how many. Weights that nobody reads any more are taken out.
///
/// # Errors
/// What is wrong with the graph, in words.
pub fn fold(message: &mut Message<'_>, graph: &Graph) -> Result<usize, String> {
    let pairs = pairs(graph);
    if pairs.is_empty() {
        return Ok(0);
    }
    let places = |number: u32| -> Vec<usize> {
        (0..message.fields.len()).filter(|&at| message.fields[at].number == number).collect()
    };
    let (nodes, tensors) = (places(field::NODE), places(field::INITIALIZER));
    let mut taken: BTreeSet<String> = graph.weights.keys().cloned().collect();
    taken.extend(graph.nodes.iter().flat_map(|node| node.outputs.iter().cloned()));
    let mut gone = BTreeSet::new();
    let mut added = Vec::new();
    let mut readers = graph.readers.clone();
    for pair in &pairs {
        let (conv, norm) = (&graph.nodes[pair.conv], &graph.nodes[pair.norm]);
        let tensor = |name: &str| -> Result<Message<'static>, String> {
            let at = graph.weights.get(name).and_then(|weight| weight.at).ok_or("a weight is missing")?;
            let bytes = message.fields[tensors[at]].content().ok_or("a weight is no message")?;
            owned(bytes)
        };
        let read = |name: &str| floats(&tensor(name)?);
        let (weights, scale, bias) =
            (tensor(&conv.inputs[1])?, read(&norm.inputs[1])?, read(&norm.inputs[2])?);
        let (mean, var) = (read(&norm.inputs[3])?, read(&norm.inputs[4])?);
        let offset = match conv.inputs.get(2).filter(|name| !name.is_empty()) {
            Some(name) => read(name)?,
            None => vec![0.0; scale.len()],
        };
        let epsilon = f64::from(norm.floats.get("epsilon").copied().unwrap_or(EPSILON));
        let factors: Vec<f64> =
            (0..scale.len()).map(|c| f64::from(scale[c]) / (f64::from(var[c]) + epsilon).sqrt()).collect();
        let shape = &graph.weights[&conv.inputs[1]].shape;
        let mut values = floats(&weights)?;
        let axis = usize::from(conv.op == "ConvTranspose");
        let inner = shape[axis + 1..].iter().product::<i64>().max(1) as usize;
        for (at, value) in values.iter_mut().enumerate() {
            *value = (f64::from(*value) * factors[at / inner % factors.len()]) as f32;
        }
        let shift: Vec<f32> = (0..scale.len())
            .map(|c| ((f64::from(offset[c]) - f64::from(mean[c])) * factors[c] + f64::from(bias[c])) as f32)
            .collect();
        let names = [free(&mut taken, &conv.inputs[1]), free(&mut taken, &norm.inputs[2])];
        added.push(with_floats(weights, &names[0], &values));
        added.push(with_floats(tensor(&norm.inputs[2])?, &names[1], &shift));
        // What they read before has a reader less.
        for name in conv.inputs[1..].iter().chain(&norm.inputs[1..]) {
            if let Some(count) = readers.get_mut(name) {
                *count -= 1;
            }
        }
        let bytes = message.fields[nodes[pair.conv]].content().ok_or("a node is no message")?.to_vec();
        let rewritten = rewrite(&bytes, &[&conv.inputs[0], &names[0], &names[1]], &norm.outputs[0])?;
        message.fields[nodes[pair.conv]] = Field::bytes(field::NODE, rewritten);
        gone.insert(nodes[pair.norm]);
    }
    for (name, weight) in &graph.weights {
        let read_before = graph.readers.get(name).is_some_and(|count| *count > 0);
        if let (true, Some(0), Some(at)) = (read_before, readers.get(name), weight.at) {
            gone.insert(tensors[at]);
        }
    }
    let mut at = 0;
    message.fields.retain(|_| {
        at += 1;
        !gone.contains(&(at - 1))
    });
    message.fields.extend(added.into_iter().map(|bytes| Field::bytes(field::INITIALIZER, bytes)));
    Ok(pairs.len())
}

/// A message that owns its bytes.
fn owned(bytes: &[u8]) -> Result<Message<'static>, String> {
    let message = Message::parse(bytes)?;
    let own = |entry: Field<'_>| entry.into_owned();
    Ok(Message { fields: message.fields.into_iter().map(own).collect() })
}

/// The numbers of a tensor of 32-bit floats.
fn floats(tensor: &Message<'_>) -> Result<Vec<f32>, String> {
    let count = tensor.values(1)?.iter().product::<i64>();
    let number = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let mut values = Vec::new();
    if let Some(raw) = tensor.content(field::TENSOR_RAW) {
        values.extend(raw.chunks_exact(4).map(number));
    } else {
        for entry in tensor.fields.iter().filter(|entry| entry.number == field::TENSOR_FLOATS) {
            match entry.content() {
                Some(packed) => values.extend(packed.chunks_exact(4).map(number)),
                None => values.extend(entry.float()),
            }
        }
    }
    if i64::try_from(values.len()) != Ok(count) {
        let name = tensor.text(field::TENSOR_NAME);
        return Err(format!("weight {name:?} holds {} numbers, its shape says {count}", values.len()));
    }
    Ok(values)
}

/// The tensor under another name with other numbers.
fn with_floats(mut tensor: Message<'static>, name: &str, values: &[f32]) -> Vec<u8> {
    tensor.remove(&[field::TENSOR_FLOATS]);
    tensor.set(Field::text(field::TENSOR_NAME, name));
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor.set(Field::bytes(field::TENSOR_RAW, raw));
    tensor.to_bytes()
}

/// The node with other inputs and another output.
fn rewrite(node: &[u8], inputs: &[&str; 3], output: &str) -> Result<Vec<u8>, String> {
    let mut node = owned(node)?;
    node.remove(&[field::NODE_INPUT]);
    node.set(Field::text(field::NODE_OUTPUT, output));
    let inputs = inputs.iter().map(|name| Field::text(field::NODE_INPUT, name));
    node.fields.splice(0..0, inputs);
    Ok(node.to_bytes())
}

/// A name that is not taken, after `name`.
fn free(taken: &mut BTreeSet<String>, name: &str) -> String {
    let mut number = 0_usize;
    loop {
        let candidate =
            if number == 0 { format!("{name}_folded") } else { format!("{name}_folded_{number}") };
        if taken.insert(candidate.clone()) {
            return candidate;
        }
        number += 1;
    }
}
