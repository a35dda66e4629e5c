//! A model's graph as it is read: nodes, weights, what goes in and out. Nothing is changed here.
//!
//! Field numbers: `onnx/onnx.proto3` of the ONNX project.

use super::wire::Message;
use std::collections::{BTreeMap, BTreeSet};

/// Field numbers of a model, a graph and its parts.
pub mod field {
    /// `ModelProto.ir_version`
    pub const MODEL_IR: u32 = 1;
    /// `ModelProto.graph`
    pub const MODEL_GRAPH: u32 = 7;
    /// `ModelProto.opset_import`
    pub const MODEL_OPSET: u32 = 8;
    /// `GraphProto.node`
    pub const NODE: u32 = 1;
    /// `GraphProto.initializer`
    pub const INITIALIZER: u32 = 5;
    /// `GraphProto.input`
    pub const INPUT: u32 = 11;
    /// `GraphProto.output`
    pub const OUTPUT: u32 = 12;
    /// `GraphProto.value_info`
    pub const VALUE_INFO: u32 = 13;
    /// `GraphProto.sparse_initializer`
    pub const SPARSE: u32 = 15;
    /// `NodeProto.input`
    pub const NODE_INPUT: u32 = 1;
    /// `NodeProto.output`
    pub const NODE_OUTPUT: u32 = 2;
    /// `NodeProto.attribute`
    pub const NODE_ATTRIBUTE: u32 = 5;
    /// `TensorProto.data_type`
    pub const TENSOR_TYPE: u32 = 2;
    /// `TensorProto.float_data`
    pub const TENSOR_FLOATS: u32 = 4;
    /// `TensorProto.name`
    pub const TENSOR_NAME: u32 = 8;
    /// `TensorProto.raw_data`
    pub const TENSOR_RAW: u32 = 9;
    /// `TensorProto.double_data`
    pub const TENSOR_DOUBLES: u32 = 10;
    /// `TensorProto.data_location`
    pub const TENSOR_LOCATION: u32 = 14;
}

/// `TensorProto.DataType` of a 32-bit float.
pub const FLOAT: i64 = 1;
/// `TensorProto.DataType` of a 16-bit float.
pub const FLOAT16: i64 = 10;
/// `TensorProto.DataType` of a 64-bit float.
pub const DOUBLE: i64 = 11;

/// A model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Model {
    /// Version of the file format.
    pub ir_version: i64,
    /// Version of the default operator set.
    pub opset: i64,
    /// Its graph.
    pub graph: Graph,
}

/// A graph. The nodes of graphs inside nodes (`If`, `Loop`) are only counted as readers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Graph {
    /// Its operators, in the order of the file.
    pub nodes: Vec<Node>,
    /// Its weights by name.
    pub weights: BTreeMap<String, Weight>,
    /// All listed inputs, weights among them where the exporter lists them.
    pub inputs: Vec<Value>,
    /// Its outputs.
    pub outputs: Vec<Value>,
    /// Names of tensors between the operators whose shape the file states.
    pub described: BTreeSet<String>,
    /// How often each tensor is read: by nodes, by graphs inside nodes, and as an output.
    pub readers: BTreeMap<String, usize>,
    /// True when some node holds a graph of its own.
    pub nested: bool,
}

/// One operator.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Node {
    /// Its name; often empty.
    pub name: String,
    /// Which operator.
    pub op: String,
    /// Of which set; empty for the default one.
    pub domain: String,
    /// What it reads; an empty name is an input left out.
    pub inputs: Vec<String>,
    /// What it gives.
    pub outputs: Vec<String>,
    /// Its attributes that are one whole number.
    pub numbers: BTreeMap<String, i64>,
    /// Its attributes that are one float.
    pub floats: BTreeMap<String, f32>,
    /// Element types of the tensors among its attributes.
    pub tensor_types: Vec<i64>,
}

/// A weight.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Weight {
    /// Which of the graph's initializers it is; `None` for a sparse one.
    pub at: Option<usize>,
    /// `TensorProto.DataType`.
    pub element: i64,
    /// Its axes.
    pub shape: Vec<i64>,
    /// True when its numbers lie in another file.
    pub external: bool,
}

/// An input or output of the graph.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Value {
    /// Its name.
    pub name: String,
    /// `TensorProto.DataType`; `None` when it is no tensor.
    pub element: Option<i64>,
    /// Its axes; `None` when the file states no shape.
    pub shape: Option<Vec<Axis>>,
}

/// One axis of a shape.
#[derive(Debug, Clone, PartialEq)]
pub enum Axis {
    /// Known.
    Fixed(i64),
    /// Known by name only.
    Named(String),
    /// Open.
    Open,
}

impl Model {
    /// Reads a model.
    ///
    /// # Errors
    /// What is wrong with the bytes, in words.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let model = Message::parse(bytes)?;
        let graph = model.content(field::MODEL_GRAPH).ok_or("it holds no graph")?;
        let mut opset = 0;
        for set in model.contents(field::MODEL_OPSET) {
            let set = Message::parse(set)?;
            if matches!(set.text(1).as_str(), "" | "ai.onnx") {
                opset = set.value(2).unwrap_or(0);
            }
        }
        let ir_version = model.value(field::MODEL_IR).unwrap_or(0);
        Ok(Self { ir_version, opset, graph: Graph::parse(graph)? })
    }
}

impl Graph {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let message = Message::parse(bytes)?;
        let mut graph = Self::default();
        for node in message.contents(field::NODE) {
            let node = graph.node(node)?;
            graph.nodes.push(node);
        }
        for (at, tensor) in message.contents(field::INITIALIZER).enumerate() {
            let tensor = Message::parse(tensor)?;
            graph.weights.insert(tensor.text(field::TENSOR_NAME), weight(&tensor, Some(at))?);
        }
        for sparse in message.contents(field::SPARSE) {
            let sparse = Message::parse(sparse)?;
            let Some(values) = sparse.content(1) else { continue };
            let values = Message::parse(values)?;
            graph.weights.insert(values.text(field::TENSOR_NAME), weight(&values, None)?);
        }
        let values = |number| message.contents(number).map(value).collect::<Result<Vec<_>, _>>();
        graph.inputs = values(field::INPUT)?;
        graph.outputs = values(field::OUTPUT)?;
        graph.described = values(field::VALUE_INFO)?
            .into_iter()
            .filter(|value| value.shape.is_some())
            .map(|value| value.name)
            .collect();
        let outputs: Vec<_> = graph.outputs.iter().map(|value| value.name.clone()).collect();
        outputs.into_iter().for_each(|name| *graph.readers.entry(name).or_default() += 1);
        Ok(graph)
    }

    fn node(&mut self, bytes: &[u8]) -> Result<Node, String> {
        let message = Message::parse(bytes)?;
        let texts = |number| {
            message
                .contents(number)
                .map(|text| String::from_utf8_lossy(text).into_owned())
                .collect::<Vec<_>>()
        };
        let mut node = Node {
            name: message.text(3),
            op: message.text(4),
            domain: message.text(7),
            inputs: texts(field::NODE_INPUT),
            outputs: texts(field::NODE_OUTPUT),
            ..Node::default()
        };
        if node.domain == "ai.onnx" {
            node.domain.clear();
        }
        for input in &node.inputs {
            *self.readers.entry(input.clone()).or_default() += 1;
        }
        for attribute in message.contents(field::NODE_ATTRIBUTE) {
            let attribute = Message::parse(attribute)?;
            let name = attribute.text(1);
            if let Some(number) = attribute.value(3) {
                node.numbers.insert(name.clone(), number);
            }
            if let Some(float) =
                attribute.fields.iter().find(|field| field.number == 2).and_then(|f| f.float())
            {
                node.floats.insert(name, float);
            }
            for tensor in attribute.contents(5).chain(attribute.contents(10)) {
                node.tensor_types.extend(Message::parse(tensor)?.value(field::TENSOR_TYPE));
            }
            for inner in attribute.contents(6).chain(attribute.contents(11)) {
                self.nested = true;
                let inner = Graph::parse(inner)?;
                for (name, count) in inner.readers {
                    *self.readers.entry(name).or_default() += count;
                }
            }
        }
        Ok(node)
    }

    /// The inputs that must be fed.
    pub fn fed(&self) -> impl Iterator<Item = &Value> {
        self.inputs.iter().filter(|value| !self.weights.contains_key(&value.name))
    }
}

fn weight(tensor: &Message<'_>, at: Option<usize>) -> Result<Weight, String> {
    Ok(Weight {
        at,
        element: tensor.value(field::TENSOR_TYPE).unwrap_or(0),
        shape: tensor.values(1)?,
        external: tensor.value(field::TENSOR_LOCATION) == Some(1),
    })
}

fn value(bytes: &[u8]) -> Result<Value, String> {
    let message = Message::parse(bytes)?;
    let mut value = Value { name: message.text(1), ..Value::default() };
    let Some(kind) = message.content(2) else { return Ok(value) };
    let kind = Message::parse(kind)?;
    let Some(tensor) = kind.content(1) else { return Ok(value) };
    let tensor = Message::parse(tensor)?;
    value.element = tensor.value(1);
    if let Some(shape) = tensor.content(2) {
        value.shape = Some(
            Message::parse(shape)?
                .contents(1)
                .map(|axis| {
                    let axis = Message::parse(axis)?;
                    Ok(match (axis.value(1), axis.text(2)) {
                        (Some(length), _) if length > 0 => Axis::Fixed(length),
                        (_, name) if !name.is_empty() => Axis::Named(name),
                        (_, _) => Axis::Open,
                    })
                })
                .collect::<Result<_, String>>()?,
        );
    }
    Ok(value)
}
