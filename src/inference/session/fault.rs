//! What the runtime refuses, as one line with the remedy.

use crate::domain::{Reason, ReasonCode};
use std::path::Path;

/// Why an attempt on one provider failed.
pub(super) enum Fault {
    /// No other provider would mend it.
    Final(Reason),
    /// The runtime's words.
    Runtime(ort::Error),
    /// The provider was registered but does not run the model.
    Provider(String),
}

impl<R> From<ort::Error<R>> for Fault {
    fn from(error: ort::Error<R>) -> Self {
        // Takes the code and the text; what could be recovered is of no use here.
        Fault::Runtime(ort::Error::new_with_code(error.code(), error.message()))
    }
}

/// The runtime's refusal of a model as one line with the remedy.
pub(super) fn model_fault(model: &Path, error: &ort::Error, version: &str) -> Reason {
    let text = message(error);
    let model = model.display();
    let (code, detail) = match error.code() {
        ort::ErrorCode::InvalidProtobuf => {
            (ReasonCode::LoadFailed, "not an ONNX model, or cut short; export or copy it again".to_owned())
        }
        _ if text.contains("does not have a graph") || text.contains("No graph was found") => {
            (ReasonCode::LoadFailed, "not an ONNX model, or empty; export or copy it again".to_owned())
        }
        // Looked for in all of it: a long path may push the words out of the bounded text.
        _ if ["IR version", "opset"].iter().any(|word| error.message().contains(word)) => (
            ReasonCode::Unsupported,
            format!(
                "newer than ONNX Runtime {version}; install a newer one or export for an older opset ({text})"
            ),
        ),
        ort::ErrorCode::NotImplemented => (
            ReasonCode::Unsupported,
            format!("ONNX Runtime {version} lacks an operator of it; export it another way ({text})"),
        ),
        _ => (ReasonCode::LoadFailed, format!("ONNX Runtime {version} refuses it: {text}")),
    };
    Reason::new(code, format!("model {model}: {detail}"))
}

/// The runtime's message on one line, of bounded length, without its own source locations.
pub(super) fn message<R>(error: &ort::Error<R>) -> String {
    let line = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line
        .rsplit_once("] ")
        .filter(|(head, _)| head.ends_with("onnxruntime"))
        .map_or(line.as_str(), |(_, t)| t);
    // "…failed:/onnxruntime_src/FILE:LINE TYPE NAME(ARGUMENTS) What happened"
    let line = match line.split_once("/onnxruntime_src/").and_then(|(_, rest)| rest.split_once(") ")) {
        Some((_, what)) => what,
        None => line,
    };
    let mut text: String = line.chars().take(400).collect();
    if text.len() < line.len() {
        text.push('…');
    }
    text
}

/// A model or a library that does not load.
pub(super) fn failed(detail: String) -> Reason {
    Reason::new(ReasonCode::LoadFailed, detail)
}

/// The runtime does not do what it should.
pub(super) fn internal(detail: String) -> Reason {
    Reason::new(ReasonCode::Internal, detail)
}
