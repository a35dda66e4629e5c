//! The files with weights that a model names beside it, wherever in it a tensor can stand: among the weights of
//! its graph, of graphs inside nodes (`If`, `Loop`, `Scan`), of functions and of training, and in attributes.
//!
//! Field numbers: `onnx/onnx.proto3` of the ONNX project.

use super::wire::Field;
use std::collections::BTreeSet;

/// Deepest message in a message: that of the protocol-buffer libraries, so no runtime reads more.
const MAX_DEPTH: usize = 100;
/// `TensorProto.external_data`, and key and value of its entries.
const EXTERNAL_DATA: u32 = 13;
const KEY: u32 = 1;
const VALUE: u32 = 2;

/// A message that can hold a tensor.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Model,
    Training,
    Function,
    Graph,
    Node,
    Attribute,
    Sparse,
    Tensor,
}

impl Kind {
    /// Where it holds others.
    fn parts(self) -> &'static [(u32, Kind)] {
        match self {
            // graph, training_info, functions
            Kind::Model => &[(7, Kind::Graph), (20, Kind::Training), (25, Kind::Function)],
            // initialization, algorithm
            Kind::Training => &[(1, Kind::Graph), (2, Kind::Graph)],
            // node, attribute_proto
            Kind::Function => &[(7, Kind::Node), (11, Kind::Attribute)],
            // node, initializer, sparse_initializer
            Kind::Graph => &[(1, Kind::Node), (5, Kind::Tensor), (15, Kind::Sparse)],
            // attribute
            Kind::Node => &[(5, Kind::Attribute)],
            // t, g, tensors, graphs, sparse_tensor, sparse_tensors
            Kind::Attribute => &[
                (5, Kind::Tensor),
                (6, Kind::Graph),
                (10, Kind::Tensor),
                (11, Kind::Graph),
                (22, Kind::Sparse),
                (23, Kind::Sparse),
            ],
            // values, indices
            Kind::Sparse => &[(1, Kind::Tensor), (2, Kind::Tensor)],
            Kind::Tensor => &[],
        }
    }
}

/// The files that a model names, as they stand in it.
///
/// # Errors
/// What is wrong with the bytes, in words.
pub fn files(model: &[u8]) -> Result<BTreeSet<String>, String> {
    let mut found = BTreeSet::new();
    tensors(model, &mut |tensor| {
        let mut rest = tensor;
        while !rest.is_empty() {
            let field = Field::take(&mut rest)?;
            if let (EXTERNAL_DATA, Some(content)) = (field.number, field.content()) {
                found.extend(location(content)?);
            }
        }
        Ok(())
    })?;
    Ok(found)
}

/// Calls `each` with the bytes of every tensor of a model, which are a part of the model's own.
///
/// # Errors
/// What is wrong with the bytes, in words, and what `each` says.
pub fn tensors(model: &[u8], each: Each<'_>) -> Result<(), String> {
    look(model, Kind::Model, 0, each)
}

/// What is called with a tensor.
type Each<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), String>;

fn look(mut rest: &[u8], kind: Kind, depth: usize, each: Each<'_>) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err("it is nested too deep".into());
    }
    if let Kind::Tensor = kind {
        return each(rest);
    }
    while !rest.is_empty() {
        let field = Field::take(&mut rest)?;
        let Some(content) = field.content() else { continue };
        for (_, part) in kind.parts().iter().filter(|(number, _)| *number == field.number) {
            look(content, *part, depth + 1, each)?;
        }
    }
    Ok(())
}

/// The value of an entry with the key `location`.
fn location(mut entry: &[u8]) -> Result<Option<String>, String> {
    let (mut key, mut value) = (Vec::new(), String::new());
    while !entry.is_empty() {
        let field = Field::take(&mut entry)?;
        match (field.number, field.content()) {
            (KEY, Some(text)) => key = text.to_vec(),
            (VALUE, Some(text)) => value = String::from_utf8_lossy(text).into_owned(),
            _ => {}
        }
    }
    Ok((key == b"location").then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::onnx::wire::Message;

    /// A message within messages: `path` from the outermost, the number of each in the one around it.
    fn within(path: &[u32], inner: Vec<u8>) -> Vec<u8> {
        path.iter()
            .rev()
            .fold(inner, |inner, &number| Message { fields: vec![Field::bytes(number, inner)] }.to_bytes())
    }

    fn tensor(name: &str) -> Vec<u8> {
        let entry = Message { fields: vec![Field::text(KEY, "location"), Field::text(VALUE, name)] };
        within(&[EXTERNAL_DATA], entry.to_bytes())
    }

    #[test]
    fn a_file_is_found_wherever_a_tensor_can_stand() {
        // Numbers of the format, from the model down to the tensor.
        let places: [&[u32]; 14] = [
            &[7, 5],
            &[7, 15, 1],
            &[7, 15, 2],
            &[7, 1, 5, 5],
            &[7, 1, 5, 10],
            &[7, 1, 5, 22, 1],
            &[7, 1, 5, 23, 2],
            &[7, 1, 5, 6, 5],
            &[7, 1, 5, 11, 15, 1],
            &[7, 1, 5, 6, 1, 5, 11, 1, 5, 5],
            &[25, 7, 5, 5],
            &[25, 11, 5],
            &[20, 1, 5],
            &[20, 2, 1, 5, 6, 5],
        ];
        for place in places {
            let model = within(place, tensor("beside"));
            assert_eq!(files(&model).unwrap(), BTreeSet::from(["beside".to_owned()]), "{place:?}");
            assert!(files(&model[..model.len() - 1]).is_err(), "{place:?}, cut short");
        }
        // Another entry, and the same bytes where no tensor stands.
        let other = Message { fields: vec![Field::text(KEY, "offset"), Field::text(VALUE, "0")] };
        assert!(files(&within(&[7, 5, EXTERNAL_DATA], other.to_bytes())).unwrap().is_empty());
        assert!(files(&within(&[7, 11], tensor("beside"))).unwrap().is_empty());
    }

    #[test]
    fn what_is_nested_without_end_is_an_error() {
        let graphs = |count: usize| {
            let path: Vec<u32> = [7].into_iter().chain([1, 5, 6].repeat(count)).chain([5]).collect();
            files(&within(&path, tensor("beside")))
        };
        assert_eq!(graphs(30).unwrap().len(), 1);
        assert!(graphs(40).unwrap_err().contains("too deep"));
    }
}
