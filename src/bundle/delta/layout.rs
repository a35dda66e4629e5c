//! Where numbers lie in the files of a model, and how wide they are. A help for packing, nothing more: where it is
//! wrong or missing, a delta becomes larger and stays right.
//!
//! Field numbers: `onnx/onnx.proto3` of the ONNX project.

use crate::bundle::onnx::external;
use crate::bundle::onnx::wire::{Field, Message};
use std::collections::BTreeMap;

/// Most tensors that are looked at.
const MAX_TENSORS: usize = 1 << 20;

/// `TensorProto.data_type`, `.float_data`, `.name`, `.raw_data`, `.double_data`, `.external_data`.
const TYPE: u32 = 2;
const FLOATS: u32 = 4;
const NAME: u32 = 8;
const RAW: u32 = 9;
const DOUBLES: u32 = 10;
const EXTERNAL: u32 = 13;

/// Numbers of one kind that lie in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name; often empty.
    pub name: String,
    /// Its first byte in the file.
    pub at: u64,
    /// Its bytes.
    pub length: u64,
    /// Bytes of a number: 1, 2, 4 or 8.
    pub width: usize,
}

/// The tensors of a model's files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// Those in the model's own file.
    pub own: Vec<Tensor>,
    /// Those in files beside it, by their names as the model has them.
    pub beside: BTreeMap<String, Vec<Tensor>>,
}

impl Layout {
    /// Of the bytes of an ONNX file.
    ///
    /// # Errors
    /// What is wrong with them, in words.
    pub fn of_model(model: &[u8]) -> Result<Self, String> {
        let mut layout = Self::default();
        let mut count = 0;
        external::tensors(model, &mut |tensor| {
            count += 1;
            if count > MAX_TENSORS {
                return Err("it has too many tensors".into());
            }
            layout.add(model, tensor)
        })?;
        Ok(layout)
    }

    fn add(&mut self, model: &[u8], tensor: &[u8]) -> Result<(), String> {
        let (mut name, mut kind) = (String::new(), 0);
        let (mut found, mut outside) = (None, Vec::new());
        let mut rest = tensor;
        while !rest.is_empty() {
            let before = rest;
            let field = Field::take(&mut rest)?;
            let Some(content) = field.content() else {
                if field.number == TYPE {
                    kind = field.value().unwrap_or(0);
                }
                continue;
            };
            // A field ends where the next one begins, and its content ends with it.
            let end = (before.as_ptr() as usize - model.as_ptr() as usize) + before.len() - rest.len();
            let here = (end - content.len(), content.len());
            match field.number {
                NAME => name = String::from_utf8_lossy(content).into_owned(),
                RAW => found = Some((here, None)),
                // Packed: all numbers in one field.
                FLOATS => found = Some((here, Some(4))),
                DOUBLES => found = Some((here, Some(8))),
                EXTERNAL => outside.push(content.to_vec()),
                _ => {}
            }
        }
        if let Some(((at, length), width)) = found {
            let width = width.unwrap_or_else(|| width_of(kind));
            self.own.push(Tensor { name, at: at as u64, length: length as u64, width });
        } else if !outside.is_empty() {
            let mut entries = BTreeMap::new();
            for entry in &outside {
                let entry = Message::parse(entry)?;
                entries.insert(entry.text(1), entry.text(2));
            }
            let number = |key: &str| entries.get(key).and_then(|text| text.parse::<u64>().ok());
            if let (Some(file), Some(length)) = (entries.get("location"), number("length")) {
                let at = number("offset").unwrap_or(0);
                let tensor = Tensor { name, at, length, width: width_of(kind) };
                self.beside.entry(file.clone()).or_default().push(tensor);
            }
        }
        Ok(())
    }
}

/// Bytes of a number of that `TensorProto.DataType`.
fn width_of(kind: i64) -> usize {
    match kind {
        // UINT16, INT16, FLOAT16, BFLOAT16
        4 | 5 | 10 | 16 => 2,
        // FLOAT, INT32, UINT32, COMPLEX64
        1 | 6 | 12 | 14 => 4,
        // INT64, DOUBLE, UINT64, COMPLEX128
        7 | 11 | 13 | 15 => 8,
        // One byte, or parts of one.
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(path: &[u32], inner: Vec<u8>) -> Vec<u8> {
        path.iter()
            .rev()
            .fold(inner, |inner, &number| Message { fields: vec![Field::bytes(number, inner)] }.to_bytes())
    }

    #[test]
    fn numbers_are_found_in_the_model_and_beside_it() {
        let entry = |key: &str, value: &str| {
            Field::bytes(
                EXTERNAL,
                Message { fields: vec![Field::text(1, key), Field::text(2, value)] }.to_bytes(),
            )
        };
        let raw = vec![Field::number(TYPE, 10), Field::text(NAME, "w"), Field::bytes(RAW, vec![0xab; 12])];
        let floats = vec![Field::number(TYPE, 1), Field::bytes(FLOATS, vec![0xcd; 8])];
        let outside = vec![
            Field::number(TYPE, 3),
            Field::text(NAME, "q"),
            entry("location", "m.data"),
            entry("offset", "64"),
            entry("length", "100"),
        ];
        let model: Vec<u8> = [raw, floats, outside]
            .into_iter()
            .flat_map(|fields| within(&[7, 5], Message { fields }.to_bytes()))
            .collect();
        let layout = Layout::of_model(&model).unwrap();
        let [first, second] = &layout.own[..] else { panic!("{layout:?}") };
        for (tensor, byte, width) in [(first, 0xab, 2), (second, 0xcd, 4)] {
            let (at, length) = (tensor.at as usize, tensor.length as usize);
            assert!(model[at..at + length].iter().all(|found| *found == byte), "{tensor:?}");
            assert_ne!(model[at - 1], byte);
            assert_eq!((model.get(at + length) == Some(&byte), tensor.width), (false, width));
        }
        assert_eq!((first.name.as_str(), first.length, second.length), ("w", 12, 8));
        let beside = Tensor { name: "q".into(), at: 64, length: 100, width: 1 };
        assert_eq!(layout.beside["m.data"], [beside]);
        assert!(Layout::of_model(&model[..model.len() - 1]).is_err());
    }
}
