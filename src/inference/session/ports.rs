//! What a model wants and gives, in the words of the bundle.

use crate::bundle::model::{Port, Ports};
use crate::domain::manifest::ElementType;
use ort::value::{Outlet, TensorElementType, ValueType};

/// The model's inputs and outputs.
pub(super) fn ports(session: &ort::session::Session) -> Ports {
    let port = |outlet: &Outlet| match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => Port {
            name: outlet.name().to_owned(),
            element: our_element(*ty),
            type_name: ty.to_string(),
            shape: shape.to_vec(),
        },
        other @ (ValueType::Sequence(_) | ValueType::Map { .. } | ValueType::Optional(_)) => Port {
            name: outlet.name().to_owned(),
            element: None,
            type_name: other.to_string(),
            shape: Vec::new(),
        },
    };
    Ports {
        inputs: session.inputs().iter().map(port).collect(),
        outputs: session.outputs().iter().map(port).collect(),
    }
}

fn our_element(element: TensorElementType) -> Option<ElementType> {
    match element {
        TensorElementType::Float32 => Some(ElementType::F32),
        TensorElementType::Float16 => Some(ElementType::F16),
        TensorElementType::Uint8 => Some(ElementType::U8),
        TensorElementType::Int8 => Some(ElementType::I8),
        TensorElementType::Int64 => Some(ElementType::I64),
        _ => None,
    }
}

/// The runtime's word for an element type.
pub(super) fn element_type(element: ElementType) -> TensorElementType {
    match element {
        ElementType::F32 => TensorElementType::Float32,
        ElementType::F16 => TensorElementType::Float16,
        ElementType::U8 => TensorElementType::Uint8,
        ElementType::I8 => TensorElementType::Int8,
        ElementType::I64 => TensorElementType::Int64,
    }
}
