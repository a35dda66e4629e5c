//! Changing a model: what is asked for is changed, every other byte stays.

use super::{Fixed, WEIGHTS_MAY_BE_FED, fold, narrow};
use crate::bundle::onnx::graph::{Axis, Model, field};
use crate::bundle::onnx::wire::{Field, Message};
use std::collections::BTreeMap;

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wishes {
    /// Inputs whose shape is settled.
    pub fixed: Vec<Fixed>,
    /// Outputs whose shape was seen to be always the same.
    pub outputs: Vec<Fixed>,
    /// Make 64-bit floats 32-bit ones.
    pub narrow: bool,
}

/// A changed model.
#[derive(Debug, Clone, PartialEq)]
pub struct Edited {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What was done, for people; empty when there was nothing to do.
    pub done: Vec<String>,
}

/// Does all that the wishes ask for, and all that never harms: weights are taken out of the inputs, and
/// batch normalisation is folded into the convolution before it.
///
/// # Errors
/// What is wrong with the model, in words.
pub fn mend(bytes: &[u8], wishes: &Wishes) -> Result<Edited, String> {
    let mut done = Vec::new();
    let view = Model::parse(bytes)?;
    let mut model = Message::parse(bytes)?;
    let graph = model.content(field::MODEL_GRAPH).ok_or("it holds no graph")?.to_vec();
    let mut graph = Message::parse(&graph)?;

    let stripped = strip_inputs(&mut graph, &view);
    if stripped > 0 {
        if view.ir_version < WEIGHTS_MAY_BE_FED {
            // Before version 4 of the format every weight had to be listed.
            model.set(Field::number(field::MODEL_IR, WEIGHTS_MAY_BE_FED));
        }
        done.push(format!("took {stripped} weights out of the inputs"));
    }
    let sizes = fix_axes(&mut graph, &view, wishes)?;
    if sizes > 0 {
        done.push(format!("fixed {sizes} open axes of inputs, outputs and tensors between"));
    }
    let folded = fold::fold(&mut graph, &view.graph)?;
    if folded > 0 {
        done.push(format!("folded {folded} batch normalisations into the convolutions before them"));
    }
    if wishes.narrow {
        let narrowed = narrow::graph(&mut graph)?;
        if narrowed > 0 {
            done.push(format!("made {narrowed} 64-bit floats 32-bit ones (weights, constants, types)"));
        }
    }
    model.set(Field::bytes(field::MODEL_GRAPH, graph.to_bytes()));
    Ok(Edited { bytes: model.to_bytes(), done })
}

/// Takes the weights out of the listed inputs; how many there were.
fn strip_inputs(graph: &mut Message<'_>, view: &Model) -> usize {
    let before = graph.fields.len();
    graph.fields.retain(|entry| {
        let listed = entry.number == field::INPUT
            && entry
                .content()
                .and_then(|bytes| Message::parse(bytes).ok())
                .is_some_and(|value| view.graph.weights.contains_key(&value.text(1)));
        !listed
    });
    before - graph.fields.len()
}

/// Writes known lengths into open axes; how many there were.
fn fix_axes(graph: &mut Message<'_>, view: &Model, wishes: &Wishes) -> Result<usize, String> {
    let mut named: BTreeMap<String, i64> = BTreeMap::new();
    let mut settled: BTreeMap<&str, &[i64]> = BTreeMap::new();
    for value in view.graph.fed().chain(&view.graph.outputs) {
        let all = wishes.fixed.iter().chain(&wishes.outputs);
        let Some(fixed) = all.into_iter().find(|one| one.name == value.name) else { continue };
        let Some(axes) = value.shape.as_ref().filter(|axes| axes.len() == fixed.shape.len()) else {
            continue;
        };
        settled.insert(&fixed.name, &fixed.shape);
        for (axis, &length) in axes.iter().zip(&fixed.shape) {
            match axis {
                Axis::Fixed(has) if *has != length => {
                    return Err(format!("{:?} has an axis of {has} that should be {length}", value.name));
                }
                Axis::Named(name) => {
                    let before = *named.entry(name.clone()).or_insert(length);
                    if before != length {
                        return Err(format!("axis {name:?} would be both {before} and {length}"));
                    }
                }
                Axis::Fixed(_) | Axis::Open => {}
            }
        }
    }
    let mut count = 0;
    for entry in &mut graph.fields {
        if !matches!(entry.number, field::INPUT | field::OUTPUT | field::VALUE_INFO) {
            continue;
        }
        let Some(bytes) = entry.content() else { continue };
        let name = Message::parse(bytes)?.text(1);
        let (changed, bytes) = close(bytes, settled.get(name.as_str()).copied(), &named)?;
        if changed > 0 {
            count += changed;
            *entry = Field::bytes(entry.number, bytes);
        }
    }
    Ok(count)
}

/// A `ValueInfoProto` with its open axes closed where their length is known.
fn close(
    bytes: &[u8],
    shape: Option<&[i64]>,
    named: &BTreeMap<String, i64>,
) -> Result<(usize, Vec<u8>), String> {
    let mut value = Message::parse(bytes)?;
    let Some(kind) = value.content(2).map(<[u8]>::to_vec) else { return Ok((0, Vec::new())) };
    let mut kind = Message::parse(&kind)?;
    let Some(tensor) = kind.content(1).map(<[u8]>::to_vec) else { return Ok((0, Vec::new())) };
    let mut tensor = Message::parse(&tensor)?;
    let Some(axes) = tensor.content(2).map(<[u8]>::to_vec) else { return Ok((0, Vec::new())) };
    let mut axes = Message::parse(&axes)?;
    let mut changed = 0;
    for (at, entry) in axes.fields.iter_mut().filter(|entry| entry.number == 1).enumerate() {
        let Some(axis) = entry.content() else { continue };
        let mut axis = Message::parse(axis)?;
        if axis.value(1).is_some_and(|length| length > 0) {
            continue;
        }
        let length = shape.and_then(|shape| shape.get(at).copied());
        let Some(length) = length.or_else(|| named.get(&axis.text(2)).copied()) else { continue };
        // The name and the number share one place in the format; what describes the axis stays.
        axis.remove(&[1, 2]);
        axis.fields.insert(0, Field::number(1, length));
        let axis = axis.to_bytes();
        *entry = Field::bytes(1, axis);
        changed += 1;
    }
    tensor.set(Field::bytes(2, axes.to_bytes()));
    kind.set(Field::bytes(1, tensor.to_bytes()));
    value.set(Field::bytes(2, kind.to_bytes()));
    Ok((changed, value.to_bytes()))
}
