//! The few fields of an ONNX file that are wanted without loading it: versions, class names, and the
//! names of files with weights beside it.
//!
//! Field numbers: `onnx/onnx.proto3` of the ONNX project. All other fields are skipped while reading: what
//! is read with these types is never written. `graph` reads the operators and weights, and `wire` changes a
//! model without losing what it does not know.

pub mod external;
pub mod graph;
pub mod wire;

use crate::domain::{Reason, ReasonCode};
use prost::Message;
use std::collections::BTreeSet;
use std::path::Path;

/// Longest ONNX file, bytes: a protocol-buffer message cannot be longer.
pub const MAX_ONNX: u64 = 2 << 30;

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSetIdProto>,
    #[prost(message, repeated, tag = "14")]
    metadata_props: Vec<StringStringEntryProto>,
}

/// Only that there is one; `external` looks into it.
#[derive(Clone, PartialEq, Message)]
struct GraphProto {}

#[derive(Clone, PartialEq, Message)]
struct OperatorSetIdProto {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, Message)]
struct StringStringEntryProto {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// What an ONNX file says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// Version of the file format.
    pub ir_version: Option<u32>,
    /// Version of the default operator set.
    pub opset: Option<u32>,
    /// Class names, where the exporter wrote them (Ultralytics: the metadata field `names`).
    pub labels: Vec<String>,
    /// Files beside it that hold weights, relative to its folder.
    pub external: BTreeSet<String>,
}

/// Reads the header of the ONNX file at `path`.
///
/// # Errors
/// `LoadFailed` when the file cannot be read or is no ONNX file.
pub fn header(path: &Path) -> Result<Header, Reason> {
    parse(&read(path)?).map_err(|error| no_model(path, &error))
}

/// The bytes of the ONNX file at `path`; weights in files beside it are not read.
///
/// # Errors
/// `LoadFailed` when the file cannot be read, or is longer than the format allows.
pub fn read(path: &Path) -> Result<Vec<u8>, Reason> {
    let failed = |detail: String| Reason::new(ReasonCode::LoadFailed, detail);
    let length = std::fs::metadata(path).map(|meta| meta.len()).unwrap_or(0);
    if length > MAX_ONNX {
        let path = path.display();
        return Err(failed(format!(
            "{path}: longer than 2 GiB, which an ONNX file cannot be; export it with its weights beside it"
        )));
    }
    std::fs::read(path).map_err(|error| failed(format!("read {}: {error}", path.display())))
}

/// What to say of bytes that are no model.
pub fn no_model(path: &Path, error: &str) -> Reason {
    let path = path.display();
    Reason::new(
        ReasonCode::LoadFailed,
        format!("{path}: not an ONNX model, or cut short ({error}); export or copy it again"),
    )
}

/// Reads the header from an ONNX file's bytes.
///
/// # Errors
/// What is wrong with them, in words.
pub fn parse(bytes: &[u8]) -> Result<Header, String> {
    let model = ModelProto::decode(bytes).map_err(|error| error.to_string())?;
    if model.graph.is_none() {
        return Err("it holds no graph".into());
    }
    let opset = model.opset_import.iter().find(|set| matches!(set.domain.as_str(), "" | "ai.onnx"));
    let names = model.metadata_props.iter().find(|entry| entry.key == "names");
    Ok(Header {
        ir_version: u32::try_from(model.ir_version).ok().filter(|&version| version > 0),
        opset: opset.and_then(|set| u32::try_from(set.version).ok()),
        labels: names.map(|entry| python_names(&entry.value)).unwrap_or_default(),
        external: external::files(bytes)?,
    })
}

/// The values of a Python dictionary or list of strings, such as `{0: 'person', 1: "dog's bed"}`;
/// empty when the text is something else.
fn python_names(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut chars = text.chars();
    while let Some(quote) = chars.find(|c| matches!(c, '\'' | '"')) {
        let mut name = String::new();
        loop {
            match chars.next() {
                Some('\\') => name.extend(chars.next()),
                Some(c) if c == quote => break,
                Some(c) => name.push(c),
                None => return Vec::new(),
            }
        }
        names.push(name);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Vec<u8> {
        let entry = |key: &str, value: &str| StringStringEntryProto { key: key.into(), value: value.into() };
        let location = entry("location", "model.onnx.data").encode_to_vec();
        let weights = [7, 5, 13].iter().rev().fold(location, |inner, &number| {
            wire::Message { fields: vec![wire::Field::bytes(number, inner)] }.to_bytes()
        });
        let header = ModelProto {
            ir_version: 8,
            graph: None,
            opset_import: vec![
                OperatorSetIdProto { domain: "ai.onnx.ml".into(), version: 3 },
                OperatorSetIdProto { domain: String::new(), version: 17 },
            ],
            metadata_props: vec![entry("names", r#"{0: 'person', 1: "dog's bed"}"#)],
        };
        [header.encode_to_vec(), weights].concat()
    }

    #[test]
    fn reads_versions_names_and_files_beside() {
        let header = parse(&model()).unwrap();
        assert_eq!((header.ir_version, header.opset), (Some(8), Some(17)));
        assert_eq!(header.labels, ["person", "dog's bed"]);
        assert_eq!(header.external.into_iter().collect::<Vec<_>>(), ["model.onnx.data"]);
    }

    #[test]
    fn what_is_no_model_is_an_error() {
        let model = model();
        assert!(parse(&model[..model.len() - 3]).is_err());
        assert!(parse(b"").is_err());
        assert!(parse(b"\xff\xfe\xfd not an onnx file").is_err());
    }

    #[test]
    fn names_that_are_no_list_give_none() {
        assert!(python_names("{0: 'cut").is_empty());
        assert!(python_names("nothing here").is_empty());
        assert_eq!(python_names(r"['a\'b', 'c']"), ["a'b", "c"]);
    }
}
