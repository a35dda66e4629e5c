//! What a model has to plug into, and whether a manifest fits it. Pure; whoever loaded the model gives
//! the facts.

use crate::domain::Manifest;
use crate::domain::manifest::{Decode, ElementType};

/// An input or output of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its element type where a manifest can name it.
    pub element: Option<ElementType>,
    /// Its type in the runtime's words.
    pub type_name: String,
    /// Its axes, outermost first; −1 where the model leaves one open.
    pub shape: Vec<i64>,
}

/// All inputs and outputs of a model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ports {
    /// Inputs that must be fed; weights that are listed as inputs are not among them.
    pub inputs: Vec<Port>,
    /// Outputs.
    pub outputs: Vec<Port>,
}

/// The names of the outputs that the manifest decodes; all of the model's for an empty `raw`.
pub fn wanted_outputs<'a>(decode: &'a Decode, ports: &'a Ports) -> Vec<&'a str> {
    match decode.outputs() {
        none if none.is_empty() => ports.outputs.iter().map(|port| port.name.as_str()).collect(),
        some => some,
    }
}

/// Everything in which the manifest disagrees with the model; empty when it fits.
pub fn disagreements(manifest: &Manifest, ports: &Ports) -> Vec<String> {
    let mut faults = Vec::new();
    let names = |ports: &[Port]| {
        let names: Vec<_> = ports.iter().map(|port| format!("{:?}", port.name)).collect();
        names.join(", ")
    };
    let fed = manifest.input();
    if let Some((name, shape, element)) = fed {
        match ports.inputs.iter().find(|port| port.name == name) {
            None => faults
                .push(format!("the model has no input {name:?}; its inputs are {}", names(&ports.inputs))),
            Some(port) => faults.extend(input_disagreements(port, shape, element)),
        }
    }
    for port in &ports.inputs {
        if fed.is_none_or(|(name, ..)| name != port.name) {
            faults.push(format!(
                "the model also wants input {:?}, which the manifest does not feed",
                port.name
            ));
        }
    }
    for name in wanted_outputs(&manifest.decode, ports) {
        if !ports.outputs.iter().any(|port| port.name == name) {
            faults
                .push(format!("the model has no output {name:?}; its outputs are {}", names(&ports.outputs)));
        }
    }
    faults
}

fn input_disagreements(port: &Port, shape: &[i64], element: ElementType) -> Vec<String> {
    let mut faults = Vec::new();
    if port.element != Some(element) {
        faults.push(format!(
            "input {:?}: the manifest says type {element:?}, the model has {}",
            port.name, port.type_name
        ));
    }
    let fits = port.shape.len() == shape.len()
        && port.shape.iter().zip(shape).all(|(&has, &said)| has < 0 || has == said);
    if !fits {
        faults.push(format!(
            "input {:?}: the manifest says shape {shape:?}, the model has {:?} (-1 is open)",
            port.name, port.shape
        ));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    fn ports() -> Ports {
        let port = |name: &str, shape: &[i64]| Port {
            name: name.into(),
            element: Some(ElementType::F32),
            type_name: "f32".into(),
            shape: shape.into(),
        };
        Ports {
            inputs: vec![port("input", &[-1, 3, 240, 320])],
            outputs: vec![port("a", &[1, 4420, 4]), port("b", &[1, 4420, 2])],
        }
    }

    #[test]
    fn a_manifest_that_fits_has_no_faults() {
        assert!(disagreements(&sample(), &ports()).is_empty());
        assert_eq!(wanted_outputs(&sample().decode, &ports()), ["a", "b"]);
    }

    #[test]
    fn all_faults_are_listed_at_once() {
        let mut manifest = sample();
        manifest.inputs[0].shape = vec![1, 3, 320, 240];
        manifest.inputs[0].element = ElementType::U8;
        manifest.decode = Decode::Raw { outputs: vec!["a".into(), "z".into()] };
        let mut ports = ports();
        ports.inputs.push(Port { name: "extra".into(), ..ports.inputs[0].clone() });
        let faults = disagreements(&manifest, &ports);
        assert_eq!(faults.len(), 4, "{faults:#?}");
        manifest.inputs[0].name = "images".into();
        assert!(disagreements(&manifest, &ports)[0].contains("no input \"images\""));
    }
}
