//! Drafts for models that take a window of samples.

use super::{Guess, Sample, one_output_of_classes, raw};
use crate::bundle::model::Port;
use crate::domain::manifest::*;
use crate::domain::{Reason, ReasonCode};

/// Samples of a window where the model leaves that open.
const OPEN_LENGTH: i64 = 128;
/// Channels where the model leaves those open.
const OPEN_CHANNELS: i64 = 1;

/// The series input: the shorter axis are the channels.
///
/// # Errors
/// `Unsupported` when it is no tensor of numbers.
pub fn input(port: &Port) -> Result<SeriesSpec, Reason> {
    let unsupported = |detail: String| Err(Reason::new(ReasonCode::Unsupported, detail));
    let element = match port.element {
        Some(element @ (ElementType::F32 | ElementType::F16 | ElementType::U8 | ElementType::I8)) => element,
        Some(ElementType::I64) | None => {
            return unsupported(format!(
                "input {:?} is of type {}; a series input is f32, f16, u8 or i8",
                port.name, port.type_name
            ));
        }
    };
    let [_, a, b] = port.shape[..] else {
        return unsupported(format!(
            "input {:?} has shape {:?}; a series input has three axes, such as [1, 3, 128]",
            port.name, port.shape
        ));
    };
    let or = |axis: i64, open: i64| if axis > 0 { axis } else { open };
    // An open axis is the length: channels are seldom left open.
    let last = if a < 1 || b < 1 { a < 1 && b > 0 } else { b < a };
    let (layout, shape) = match last {
        false => (SeriesLayout::Ncl, vec![1, or(a, OPEN_CHANNELS), or(b, OPEN_LENGTH)]),
        true => (SeriesLayout::Nlc, vec![1, or(a, OPEN_LENGTH), b]),
    };
    Ok(SeriesSpec {
        name: port.name.clone(),
        shape,
        element,
        layout,
        channels: Vec::new(),
        scale: 1.0,
        mean: vec![0.0],
        std: vec![1.0],
        gap: Gap::Hold,
    })
}

/// What the outputs look like: the input again, one number, or classes.
pub fn decode(series: &SeriesSpec, outputs: &[Sample]) -> Guess {
    let [output] = outputs else { return raw(outputs) };
    let guess = |decode, why| Guess { decode, classes: 0, fit: Fit::Stretch, why };
    if output.shape == series.shape {
        let decode =
            Decode::Anomaly { output: output.name.clone(), metric: ErrorMetric::Mse, threshold: 1.0 };
        return guess(decode, format!("{:?} looks like the input again (an autoencoder)", output.name));
    }
    if output.values.len() == 1 {
        let value = ValueSpec { name: output.name.clone(), unit: String::new(), scale: 1.0, offset: 0.0 };
        let decode = Decode::Values { output: output.name.clone(), values: vec![value] };
        return guess(decode, format!("{:?} is one number", output.name));
    }
    one_output_of_classes(output).unwrap_or_else(|| raw(outputs))
}

#[cfg(test)]
mod tests {
    use super::super::{Input, manifest, name_of};
    use super::*;
    use crate::bundle::model::Ports;
    use crate::bundle::onnx::Header;

    fn port(shape: &[i64], element: Option<ElementType>) -> Port {
        Port { name: "x".into(), element, type_name: "some type".into(), shape: shape.into() }
    }

    #[test]
    fn the_shorter_axis_are_the_channels() {
        for (axes, layout, shape) in [
            ([1, 3, 128], SeriesLayout::Ncl, [1, 3, 128]),
            ([-1, 128, 3], SeriesLayout::Nlc, [1, 128, 3]),
            ([-1, -1, 6], SeriesLayout::Nlc, [1, 128, 6]),
            ([-1, 6, -1], SeriesLayout::Ncl, [1, 6, 128]),
            ([-1, -1, -1], SeriesLayout::Ncl, [1, 1, 128]),
        ] {
            let spec = input(&port(&axes, Some(ElementType::F32))).unwrap();
            assert_eq!((spec.layout, &spec.shape[..]), (layout, &shape[..]), "{axes:?}");
        }
        for element in [Some(ElementType::I64), None] {
            assert_eq!(input(&port(&[1, 3, 8], element)).unwrap_err().code, ReasonCode::Unsupported);
        }
    }

    #[test]
    fn every_draft_is_a_valid_manifest() {
        let ports = Ports { inputs: vec![port(&[1, 3, 64], Some(ElementType::F32))], outputs: vec![] };
        let input = Input::of(&ports).unwrap();
        for (shape, kind) in [
            (&[1, 3, 64][..], "anomaly"),
            (&[1, 1], "values"),
            (&[1, 5], "classification"),
            (&[1, 7, 9], "raw"),
        ] {
            let values = vec![0.5; shape.iter().product::<i64>() as usize];
            let guess = input.decode(&[Sample { name: "y".into(), shape: shape.into(), values }]);
            assert_eq!(guess.decode.kind(), kind);
            let mut draft = manifest(name_of("a"), "model.onnx", input.clone(), &guess, &Header::default());
            draft.files = crate::bundle::tests::sample().files;
            crate::bundle::manifest::check(&draft).unwrap();
        }
    }
}
