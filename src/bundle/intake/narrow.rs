//! 64-bit floats made 32-bit ones: weights, constants, casts and the types of inputs and outputs.
//!
//! Numbers that lie in another file stay as they are, with their type; such a model is then refused by the
//! runtime, which the proof after mending tells.

use crate::bundle::onnx::graph::{DOUBLE, FLOAT, field};
use crate::bundle::onnx::wire::{Field, Message};

/// Narrows a graph, and the graphs inside its nodes; how many things were changed.
///
/// # Errors
/// What is wrong with the graph, in words.
pub fn graph(graph: &mut Message<'_>) -> Result<usize, String> {
    let mut count = 0;
    for entry in &mut graph.fields {
        let Some(bytes) = entry.content() else { continue };
        let (changed, bytes) = match entry.number {
            field::NODE => node(bytes)?,
            field::INITIALIZER => tensor(bytes)?,
            field::SPARSE => inside(bytes, 1, tensor)?,
            field::INPUT | field::OUTPUT | field::VALUE_INFO => value(bytes)?,
            _ => continue,
        };
        if changed > 0 {
            count += changed;
            *entry = Field::bytes(entry.number, bytes);
        }
    }
    Ok(count)
}

type Changed = (usize, Vec<u8>);

/// Changes the parts of a message that have this number.
fn inside(
    bytes: &[u8],
    number: u32,
    change: impl Fn(&[u8]) -> Result<Changed, String>,
) -> Result<Changed, String> {
    let mut message = Message::parse(bytes)?;
    let mut count = 0;
    for entry in message.fields.iter_mut().filter(|entry| entry.number == number) {
        let Some(content) = entry.content() else { continue };
        let (changed, content) = change(content)?;
        if changed > 0 {
            count += changed;
            *entry = Field::bytes(number, content);
        }
    }
    Ok((count, message.to_bytes()))
}

fn node(bytes: &[u8]) -> Result<Changed, String> {
    let op = Message::parse(bytes)?.text(4);
    inside(bytes, field::NODE_ATTRIBUTE, |attribute| {
        let mut count = 0;
        let mut bytes = attribute.to_vec();
        for (number, change) in
            [(5, tensor as fn(&[u8]) -> Result<Changed, String>), (10, tensor), (6, nested), (11, nested)]
        {
            let (changed, after) = inside(&bytes, number, change)?;
            if changed > 0 {
                (count, bytes) = (count + changed, after);
            }
        }
        let mut message = Message::parse(&bytes)?;
        // Which type to make: `to` of a cast, `dtype` of what makes numbers.
        let names_type = matches!(
            (op.as_str(), message.text(1).as_str()),
            ("Cast", "to")
                | ("RandomNormal" | "RandomUniform" | "RandomNormalLike" | "RandomUniformLike", "dtype")
                | ("EyeLike" | "Multinomial" | "Bernoulli", "dtype")
        );
        if names_type && message.value(3) == Some(DOUBLE) {
            message.set(Field::number(3, FLOAT));
            return Ok((count + 1, message.to_bytes()));
        }
        Ok((count, bytes))
    })
}

fn nested(bytes: &[u8]) -> Result<Changed, String> {
    let mut message = Message::parse(bytes)?;
    let count = graph(&mut message)?;
    Ok((count, message.to_bytes()))
}

fn tensor(bytes: &[u8]) -> Result<Changed, String> {
    let mut message = Message::parse(bytes)?;
    let external = message.value(field::TENSOR_LOCATION) == Some(1);
    if message.value(field::TENSOR_TYPE) != Some(DOUBLE) || external {
        return Ok((0, Vec::new()));
    }
    let doubles = message.content(field::TENSOR_RAW).or_else(|| message.content(field::TENSOR_DOUBLES));
    let number = |b: &[u8]| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
    let raw: Vec<u8> = doubles
        .unwrap_or_default()
        .chunks_exact(8)
        .flat_map(|bytes| (number(bytes) as f32).to_le_bytes())
        .collect();
    message.set(Field::number(field::TENSOR_TYPE, FLOAT));
    message.remove(&[field::TENSOR_DOUBLES]);
    message.set(Field::bytes(field::TENSOR_RAW, raw));
    Ok((1, message.to_bytes()))
}

/// `ValueInfoProto.type.tensor_type.elem_type`.
fn value(bytes: &[u8]) -> Result<Changed, String> {
    inside(bytes, 2, |kind| {
        inside(kind, 1, |tensor| {
            let mut tensor = Message::parse(tensor)?;
            if tensor.value(1) != Some(DOUBLE) {
                return Ok((0, Vec::new()));
            }
            tensor.set(Field::number(1, FLOAT));
            Ok((1, tensor.to_bytes()))
        })
    })
}
