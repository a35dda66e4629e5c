//! The manifest, the ONNX file as the intake reads it, and NumPy's arrays.

use edgewarden::bundle::intake::edit::{Wishes, mend};
use edgewarden::bundle::intake::{Fixed, examine};
use edgewarden::bundle::onnx::graph::{Model, Value};
use edgewarden::bundle::onnx::wire::Message;
use edgewarden::bundle::{manifest, onnx as file, parse_manifest};
use edgewarden::inference::npy::Array;

/// A manifest that is accepted is the same after it was written and read.
pub fn manifest(data: &[u8]) {
    let Ok(manifest) = parse_manifest(data) else { return };
    let bytes = manifest::to_bytes(&manifest).expect("what was read can be written");
    assert_eq!(parse_manifest(&bytes).expect("what was written can be read"), manifest);
}

/// Header, graph, findings, and the changes that `bundle optimize` makes.
pub fn onnx(data: &[u8]) {
    let _ = file::parse(data);
    if let Ok(message) = Message::parse(data) {
        assert_eq!(Message::parse(&message.to_bytes()), Ok(message));
    }
    let Ok(model) = Model::parse(data) else { return };
    let axes = |input: &Value| input.shape.as_ref().map_or(0, Vec::len);
    let fixed: Vec<Fixed> = (model.graph.inputs.iter().take(4))
        .map(|input| Fixed { name: input.name.clone(), shape: vec![1; axes(input).min(8)] })
        .collect();
    examine(&model, &fixed);
    let wishes = Wishes { fixed, outputs: Vec::new(), narrow: true };
    if let Ok(mended) = mend(data, &wishes) {
        Model::parse(&mended.bytes).expect("a mended model can be read");
    }
}

/// Golden inputs and answers as NumPy saves them.
pub fn array(data: &[u8]) {
    const MOST: usize = 1 << 16;
    if let Ok(array) = Array::parse(data, MOST) {
        assert!(array.values.len() <= MOST);
        assert_eq!(array.values.len(), array.shape.iter().product::<usize>());
    }
}
