//! Small models made here, examined and mended. That the answers stay is tested where models are run.

use super::edit::{Wishes, mend};
use super::*;
use crate::bundle::onnx::graph::field;
use crate::bundle::onnx::wire::{Field, Message};

/// A field with the bytes of a message of these fields.
fn message(number: u32, fields: Vec<Field<'static>>) -> Field<'static> {
    Field::bytes(number, Message { fields }.to_bytes())
}

/// A weight of 32-bit floats.
pub(crate) fn weight(name: &str, shape: &[i64], values: &[f32]) -> Field<'static> {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut fields: Vec<_> = shape.iter().map(|axis| Field::number(1, *axis)).collect();
    fields.extend([Field::number(2, 1), Field::text(8, name), Field::bytes(9, raw)]);
    message(field::INITIALIZER, fields)
}

/// A weight of 64-bit floats.
pub(crate) fn double(name: &str, shape: &[i64], values: &[f64]) -> Field<'static> {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut fields: Vec<_> = shape.iter().map(|axis| Field::number(1, *axis)).collect();
    fields.extend([Field::number(2, DOUBLE), Field::text(8, name), Field::bytes(9, raw)]);
    message(field::INITIALIZER, fields)
}

/// An operator.
pub(crate) fn node(op: &str, inputs: &[&str], output: &str, numbers: &[(&str, i64)]) -> Field<'static> {
    let mut fields: Vec<_> = inputs.iter().map(|name| Field::text(1, name)).collect();
    fields.extend([Field::text(2, output), Field::text(4, op)]);
    for (name, value) in numbers {
        // Type 2: a whole number.
        fields.push(message(5, vec![Field::text(1, name), Field::number(3, *value), Field::number(20, 2)]));
    }
    message(field::NODE, fields)
}

/// An input, output or description; an axis is a number or a name.
pub(crate) fn port(number: u32, name: &str, element: i64, axes: &[&str]) -> Field<'static> {
    let axes = axes.iter().map(|axis| match axis.parse::<i64>() {
        Ok(length) => message(1, vec![Field::number(1, length)]),
        Err(_) => message(1, vec![Field::text(2, axis)]),
    });
    let shape = message(2, axes.collect());
    let tensor = message(1, vec![Field::number(1, element), shape]);
    message(number, vec![Field::text(1, name), message(2, vec![tensor])])
}

/// A model of the default operator set 13.
pub(crate) fn model(ir_version: i64, graph: Vec<Field<'static>>) -> Vec<u8> {
    let fields = vec![
        Field::number(field::MODEL_IR, ir_version),
        message(field::MODEL_GRAPH, [vec![Field::text(2, "g")], graph].concat()),
        message(field::MODEL_OPSET, vec![Field::number(2, 13)]),
        message(14, vec![Field::text(1, "names"), Field::text(2, "{0: 'face'}")]),
    ];
    Message { fields }.to_bytes()
}

/// `x` [N, 3, H, W] → a convolution to two channels → batch normalisation → `y`, with the weights listed
/// as inputs.
pub(crate) fn conv_norm() -> Vec<u8> {
    let float = |name, axes: &[&str]| port(field::INPUT, name, 1, axes);
    model(
        8,
        vec![
            node("Conv", &["x", "w"], "c", &[]),
            node("BatchNormalization", &["c", "scale", "bias", "mean", "var"], "y", &[]),
            weight("w", &[2, 3, 1, 1], &[1.0, 2.0, 3.0, -1.0, 0.5, 4.0]),
            weight("scale", &[2], &[2.0, 3.0]),
            weight("bias", &[2], &[0.25, -0.5]),
            weight("mean", &[2], &[1.0, -2.0]),
            weight("var", &[2], &[4.0, 0.25]),
            // A field that no version of the format has so far.
            Field::text(900, "of a later version"),
            float("x", &["N", "3", "H", "W"]),
            float("w", &["2", "3", "1", "1"]),
            float("scale", &["2"]),
            float("bias", &["2"]),
            float("mean", &["2"]),
            float("var", &["2"]),
            port(field::OUTPUT, "y", 1, &["N", "2", "H", "W"]),
        ],
    )
}

fn kinds(bytes: &[u8], fixed: &[Fixed]) -> Vec<(Kind, bool)> {
    let model = Model::parse(bytes).unwrap();
    examine(&model, fixed).into_iter().map(|finding| (finding.kind, finding.mendable)).collect()
}

fn fixed() -> Vec<Fixed> {
    vec![Fixed { name: "x".into(), shape: vec![1, 3, 4, 5] }]
}

#[test]
fn slow_shapes_are_found() {
    let bytes = conv_norm();
    let all = [
        (Kind::WeightsAsInputs, true),
        (Kind::OpenAxes, true),
        (Kind::UnfusedBatchNorm, true),
        (Kind::MissingShapes, false),
    ];
    assert_eq!(kinds(&bytes, &fixed()), all);
    // Nobody knows the picture's size without a manifest.
    assert_eq!(kinds(&bytes, &[])[1], (Kind::OpenAxes, false));
    let found = examine(&Model::parse(&bytes).unwrap(), &fixed());
    assert_eq!(found[0].what, "5 weights are also listed as inputs");
    assert!(found[1].what.contains("[N, 3, H, W]") && found[1].what.contains("[1, 3, 4, 5]"), "{found:#?}");

    // In version 3 of the format weights had to be listed, and nobody could feed them.
    let mut old = Message::parse(&bytes).unwrap();
    old.set(Field::number(field::MODEL_IR, 3));
    assert_eq!(kinds(&old.to_bytes(), &fixed()), [(Kind::OpenAxes, true), (Kind::MissingShapes, false)]);
}

#[test]
fn what_cannot_be_mended_is_told_with_its_remedy() {
    let bytes = model(
        8,
        vec![
            node("Relu", &["x"], "r", &[]),
            node("BatchNormalization", &["r", "a", "a", "a", "a"], "n", &[("training_mode", 1)]),
            node("Cast", &["n"], "d", &[("to", DOUBLE)]),
            node("Mul", &["d", "f"], "y", &[]),
            weight("a", &[1], &[1.0]),
            double("f", &[1], &[2.0]),
            port(field::INPUT, "x", 1, &["1", "1"]),
            port(field::OUTPUT, "y", DOUBLE, &["1", "1"]),
        ],
    );
    let wanted = [
        (Kind::UnfusedBatchNorm, false),
        (Kind::Float64, true),
        (Kind::MissingShapes, false),
        (Kind::TrainingMode, false),
    ];
    assert_eq!(kinds(&bytes, &[]), wanted);
    assert!(examine(&Model::parse(&bytes).unwrap(), &[]).iter().all(|f| !f.remedy.is_empty()));
}

#[test]
fn mending_leaves_nothing_to_find_and_loses_nothing() {
    let wishes = Wishes { fixed: fixed(), ..Wishes::default() };
    let edited = mend(&conv_norm(), &wishes).unwrap();
    assert_eq!(edited.done.len(), 3, "{:?}", edited.done);
    let view = Model::parse(&edited.bytes).unwrap();
    // One node is left, so no tensor lies between.
    assert_eq!(examine(&view, &fixed()), []);
    let graph = view.graph;
    assert_eq!(graph.nodes.len(), 1);
    assert_eq!(graph.nodes[0].inputs, ["x", "w_folded", "bias_folded"]);
    assert_eq!(graph.nodes[0].outputs, ["y"]);
    assert_eq!(graph.weights.len(), 2, "what nobody reads any more is gone: {:?}", graph.weights);
    let axes = |lengths: [i64; 4]| Some(lengths.map(Axis::Fixed).to_vec());
    assert_eq!(graph.inputs.len(), 1);
    assert_eq!(graph.inputs[0].shape, axes([1, 3, 4, 5]));
    assert_eq!(graph.outputs[0].shape, axes([1, 2, 4, 5]), "N, H and W are the same axes there");

    let message = Message::parse(&edited.bytes).unwrap();
    assert_eq!(Message::parse(message.content(14).unwrap()).unwrap().text(2), "{0: 'face'}");
    let graph = Message::parse(message.content(field::MODEL_GRAPH).unwrap()).unwrap();
    assert_eq!(graph.text(900), "of a later version");
    assert_eq!(graph.text(2), "g");

    // Nothing to do gives the same bytes.
    let again = mend(&edited.bytes, &wishes).unwrap();
    assert_eq!((again.done.len(), again.bytes == edited.bytes), (0, true));
}

#[test]
fn a_convolution_that_others_read_is_left_alone() {
    let bytes = conv_norm();
    let mut model = Message::parse(&bytes).unwrap();
    let mut graph = Message::parse(model.content(field::MODEL_GRAPH).unwrap()).unwrap();
    graph.fields.push(port(field::OUTPUT, "c", 1, &["N", "2", "H", "W"]));
    let graph = graph.to_bytes();
    model.set(Field::bytes(field::MODEL_GRAPH, graph));
    let edited = mend(&model.to_bytes(), &Wishes::default()).unwrap();
    assert_eq!(edited.done, ["took 5 weights out of the inputs"]);
}

#[test]
fn axes_that_contradict_each_other_are_refused() {
    let wrong = |shape: Vec<i64>| {
        let wishes = Wishes { fixed: vec![Fixed { name: "x".into(), shape }], ..Wishes::default() };
        mend(&conv_norm(), &wishes).unwrap_err()
    };
    assert!(wrong(vec![1, 4, 4, 5]).contains("axis of 3 that should be 4"));
    let mut twice = fixed();
    twice[0].shape = vec![1, 3, 4, 5];
    let outputs = vec![Fixed { name: "y".into(), shape: vec![2, 2, 4, 5] }];
    let error = mend(&conv_norm(), &Wishes { fixed: twice, outputs, narrow: false }).unwrap_err();
    assert!(error.contains("axis \"N\" would be both 1 and 2"), "{error}");
}

#[test]
fn doubles_become_floats_everywhere() {
    let bytes = model(
        8,
        vec![
            node("Cast", &["x"], "d", &[("to", DOUBLE)]),
            node("Mul", &["d", "f"], "y", &[]),
            double("f", &[2], &[2.0, 0.5]),
            port(field::INPUT, "x", 1, &["1", "2"]),
            port(field::OUTPUT, "y", DOUBLE, &["1", "2"]),
        ],
    );
    let edited = mend(&bytes, &Wishes { narrow: true, ..Wishes::default() }).unwrap();
    assert_eq!(edited.done, ["made 3 64-bit floats 32-bit ones (weights, constants, types)"]);
    let view = Model::parse(&edited.bytes).unwrap();
    assert!(examine(&view, &[]).iter().all(|finding| finding.kind != Kind::Float64));
    assert_eq!(view.graph.nodes[0].numbers["to"], 1);
    assert_eq!(view.graph.outputs[0].element, Some(1));
}
