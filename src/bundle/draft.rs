//! A first manifest for an ONNX file, guessed from what the model wants and gives.
//!
//! Pure: whoever ran the model once gives its ports and a sample of its outputs. The guesses are
//! meant to be looked at: every field that a user may have to change is written out, valid.

pub mod series;

use super::model::{Port, Ports};
use super::onnx::Header;
use crate::domain::manifest::*;
use crate::domain::{Manifest, ModelName, Reason, ReasonCode};

/// Edge of the picture where the model leaves it open and nothing else is known, pixels.
const OPEN_EDGE: i64 = 640;
/// The same for what looks like a classifier.
const OPEN_EDGE_CLASSIFIER: i64 = 224;

/// One output of one run of the model, on noise.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its name.
    pub name: String,
    /// Its axes, outermost first.
    pub shape: Vec<i64>,
    /// Its values.
    pub values: Vec<f32>,
}

/// What was guessed of the outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Guess {
    /// The decoding.
    pub decode: Decode,
    /// Number of classes, where the decoding has some.
    pub classes: usize,
    /// How the picture is fitted by the family that this looks like.
    pub fit: Fit,
    /// What was seen, for people.
    pub why: String,
}

/// The model's picture input, as far as it can be seen from outside: pixels as 0 to 1 for floats.
///
/// # Errors
/// `Unsupported` when the model does not take exactly one picture.
pub fn input(ports: &Ports) -> Result<InputSpec, Reason> {
    let unsupported = |detail: String| Err(Reason::new(ReasonCode::Unsupported, detail));
    let [port] = &ports.inputs[..] else {
        let names: Vec<_> = ports.inputs.iter().map(|port| port.name.as_str()).collect();
        return unsupported(format!(
            "the model has {} inputs ({}); a bundle's model takes exactly one, the picture: export it with the \
             others fixed",
            names.len(),
            names.join(", ")
        ));
    };
    let element = match port.element {
        Some(element @ (ElementType::F32 | ElementType::F16 | ElementType::U8 | ElementType::I8)) => element,
        Some(ElementType::I64) | None => {
            return unsupported(format!(
                "input {:?} is of type {}; a picture input is f32, f16, u8 or i8",
                port.name, port.type_name
            ));
        }
    };
    let [_, b, c, d] = port.shape[..] else {
        return unsupported(format!(
            "input {:?} has shape {:?}; a picture input has four axes, such as [1, 3, 224, 224]",
            port.name, port.shape
        ));
    };
    let is_channels = |axis: i64| axis == 3 || axis == 1;
    let (layout, channels) = match (is_channels(b), is_channels(d)) {
        (true, _) => (Layout::Nchw, b),
        (false, true) => (Layout::Nhwc, d),
        (false, false) if b < 0 => (Layout::Nchw, 3),
        (false, false) if d < 0 => (Layout::Nhwc, 3),
        (false, false) => {
            return unsupported(format!(
                "input {:?} has shape {:?}: no axis of 1 or 3 channels; it takes no picture",
                port.name, port.shape
            ));
        }
    };
    let open = if looks_like_classifier(&ports.outputs) { OPEN_EDGE_CLASSIFIER } else { OPEN_EDGE };
    let edge = |axis: i64| if axis > 0 { axis } else { open };
    let shape = match layout {
        Layout::Nchw => vec![1, channels, edge(c), edge(d)],
        Layout::Nhwc => vec![1, edge(b), edge(c), channels],
    };
    let float = matches!(element, ElementType::F32 | ElementType::F16);
    Ok(InputSpec {
        name: port.name.clone(),
        shape,
        element,
        layout,
        fit: Fit::Stretch,
        color: if channels == 1 { Color::Grey } else { Color::Rgb },
        scale: if float { 1.0 / 255.0 } else { 1.0 },
        mean: vec![if element == ElementType::I8 { 128.0 } else { 0.0 }; channels as usize],
        std: vec![1.0; channels as usize],
        jpeg: Default::default(),
    })
}

fn looks_like_classifier(outputs: &[Port]) -> bool {
    matches!(outputs, [output] if output.shape.len() == 2)
}

/// What the outputs look like.
pub fn decode(input: &InputSpec, outputs: &[Sample]) -> Guess {
    match outputs {
        [output] => one_output(input, output),
        [a, b] => two_outputs(a, b).or_else(|| two_outputs(b, a)).unwrap_or_else(|| raw(outputs)),
        _ => raw(outputs),
    }
}

/// One axis longer than one at most: classes.
fn one_output_of_classes(output: &Sample) -> Option<Guess> {
    let long = output.shape.iter().filter(|&&axis| axis != 1).count();
    if long > 1 || output.values.is_empty() {
        return None;
    }
    let probabilities = sums_to_one(&output.values);
    let activation = if probabilities { Activation::None } else { Activation::Softmax };
    let looks = if probabilities { "probabilities" } else { "logits" };
    Some(Guess {
        decode: Decode::Classification {
            output: output.name.clone(),
            activation,
            top_k: 5.min(output.values.len()),
            score_threshold: 0.0,
            class_thresholds: ClassThresholds::new(),
        },
        classes: output.values.len(),
        fit: Fit::CenterCrop,
        why: format!("{:?} looks like {looks} of {} classes", output.name, output.values.len()),
    })
}

fn one_output(input: &InputSpec, output: &Sample) -> Guess {
    if let Some(classes) = one_output_of_classes(output) {
        return classes;
    }
    let yolo = |version, classes: i64, position, looks: &str| Guess {
        decode: Decode::Yolo { version, output: output.name.clone(), keep: Keep::default() },
        classes: classes as usize,
        fit: Fit::Letterbox { value: 114, position },
        why: format!("{:?} {:?} looks like {looks} with {classes} classes", output.name, output.shape),
    };
    let cells = grid_cells(input);
    match output.shape[..] {
        [1, n, columns] if n == cells && columns > 5 => {
            yolo(YoloVersion::Yolox, columns - 5, Anchor::TopLeft, "YOLOX")
        }
        [1, rows, n] if rows > 4 && rows < n => {
            yolo(YoloVersion::V8, rows - 4, Anchor::Center, "YOLO v8/v11")
        }
        [1, n, columns] if columns > 5 && columns < n => {
            yolo(YoloVersion::V5, columns - 5, Anchor::Center, "YOLO v5/v7")
        }
        _ => raw(std::slice::from_ref(output)),
    }
}

/// Cells of the grids of strides 8, 16 and 32 over the input.
fn grid_cells(input: &InputSpec) -> i64 {
    let (w, h) = input.size().unwrap_or_default();
    [8, 16, 32].into_iter().map(|stride| i64::from(w / stride) * i64::from(h / stride)).sum()
}

fn two_outputs(boxes: &Sample, scores: &Sample) -> Option<Guess> {
    let ([1, rows, 4], [1, n, columns]) = (&boxes.shape[..], &scores.shape[..]) else { return None };
    // Where both have four columns, the names have to tell; where they do not, the first are the boxes.
    if rows != n
        || *rows < 1
        || *columns < 1
        || (*columns == 4 && boxes.name.to_lowercase().contains("score"))
    {
        return None;
    }
    let rows_of = |sample: &'_ Sample, columns: i64| {
        sample.values.chunks_exact(columns as usize).map(<[f32]>::to_vec).collect::<Vec<_>>()
    };
    let softmax = *columns > 1 && rows_of(scores, *columns).iter().all(|row| sums_to_one(row));
    let boxes_seen = rows_of(boxes, 4);
    let corners = boxes_seen.iter().filter(|b| b[2] > b[0] && b[3] > b[1]).count();
    let inside = boxes.values.iter().filter(|value| (-1.0..=2.0).contains(*value)).count();
    let format = if corners * 20 >= boxes_seen.len() * 19 { BoxFormat::Corners } else { BoxFormat::Center };
    let units = if inside * 20 >= boxes.values.len() * 19 { BoxUnits::Normalized } else { BoxUnits::Pixels };
    let background = softmax.then_some(0);
    let classes = *columns as usize - usize::from(softmax);
    Some(Guess {
        decode: Decode::BoxesScores {
            boxes: boxes.name.clone(),
            scores: scores.name.clone(),
            format,
            units,
            background,
            keep: Keep { score_threshold: 0.5, ..Keep::default() },
        },
        classes,
        fit: Fit::Stretch,
        why: format!(
            "{:?} and {:?} look like boxes ({}, {}) and scores of {classes} class{}{}",
            boxes.name,
            scores.name,
            match format {
                BoxFormat::Corners => "corners",
                BoxFormat::Center => "center",
            },
            match units {
                BoxUnits::Normalized => "normalized",
                BoxUnits::Pixels => "pixels",
            },
            if classes == 1 { "" } else { "es" },
            if softmax { " and a background" } else { "" }
        ),
    })
}

fn sums_to_one(values: &[f32]) -> bool {
    let sum: f32 = values.iter().sum();
    (sum - 1.0).abs() < 1e-2 && values.iter().all(|value| (-1e-6..=1.0 + 1e-3).contains(value))
}

fn raw(outputs: &[Sample]) -> Guess {
    let names: Vec<_> =
        outputs.iter().map(|output| format!("{:?} {:?}", output.name, output.shape)).collect();
    Guess {
        decode: Decode::Raw { outputs: outputs.iter().map(|output| output.name.clone()).collect() },
        classes: 0,
        fit: Fit::Stretch,
        why: format!("{}: no layout that is known here; passed on raw", names.join(", ")),
    }
}

/// The model's only input, as far as it can be seen from outside.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A picture.
    Picture(InputSpec),
    /// A window of samples.
    Series(SeriesSpec),
}

impl Input {
    /// A series where there is one input of three axes, else a picture.
    ///
    /// # Errors
    /// `Unsupported` when it is neither.
    pub fn of(ports: &Ports) -> Result<Self, Reason> {
        match &ports.inputs[..] {
            [port] if port.shape.len() == 3 => series::input(port).map(Input::Series),
            _ => input(ports).map(Input::Picture),
        }
    }

    /// What the outputs look like.
    pub fn decode(&self, outputs: &[Sample]) -> Guess {
        match self {
            Input::Picture(picture) => decode(picture, outputs),
            Input::Series(spec) => series::decode(spec, outputs),
        }
    }
}

/// The draft: what was read and guessed, and placeholders for the rest. `files` is still empty.
pub fn manifest(name: ModelName, model: &str, input: Input, guess: &Guess, header: &Header) -> Manifest {
    let (inputs, series) = match input {
        Input::Picture(picture) => (vec![InputSpec { fit: guess.fit, ..picture }], None),
        Input::Series(series) => (Vec::new(), Some(series)),
    };
    let labels = if header.labels.len() == guess.classes {
        header.labels.clone()
    } else {
        (0..guess.classes).map(|class| format!("class {class}")).collect()
    };
    Manifest {
        format: FORMAT,
        description: format!("{name}, drafted by `edgewarden bundle init`"),
        name,
        version: semver::Version::new(0, 1, 0),
        license: "unknown".into(),
        model: model.to_owned(),
        files: Vec::new(),
        inputs,
        series,
        decode: guess.decode.clone(),
        labels,
        needs: Needs { opset: header.opset, ir_version: header.ir_version, ..Needs::default() },
        runtime: RuntimeHints { intra_threads: Some(1), ..RuntimeHints::default() },
        golden: Vec::new(),
        tolerance: Tolerance::default(),
        encryption: None,
    }
}

/// The name of a model after its file: what a name may not hold becomes a hyphen.
pub fn name_of(file_stem: &str) -> ModelName {
    let clean: String = file_stem
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(64)
        .collect();
    // What is left of any text passes; only an empty one does not.
    clean.parse().or_else(|_| "model".parse()).unwrap_or_else(|_| unreachable!("\"model\" is a name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(shape: &[i64], element: Option<ElementType>) -> Ports {
        let port = Port { name: "in".into(), element, type_name: "some type".into(), shape: shape.into() };
        Ports { inputs: vec![port.clone()], outputs: vec![Port { name: "out".into(), ..port }] }
    }

    fn picture(shape: &[i64]) -> InputSpec {
        input(&port(shape, Some(ElementType::F32))).unwrap()
    }

    fn sample(shape: &[i64], value: impl Fn(usize) -> f32) -> Sample {
        let count = shape.iter().product::<i64>() as usize;
        Sample { name: "out".into(), shape: shape.into(), values: (0..count).map(value).collect() }
    }

    #[test]
    fn the_input_is_seen_from_its_axes() {
        let spec = picture(&[1, 3, 240, 320]);
        assert_eq!((spec.layout, spec.size(), spec.color), (Layout::Nchw, Some((320, 240)), Color::Rgb));
        let spec = picture(&[-1, 224, 224, 3]);
        assert_eq!((spec.layout, spec.size(), spec.shape[0]), (Layout::Nhwc, Some((224, 224)), 1));
        let spec = picture(&[1, 1, 28, 28]);
        assert_eq!((spec.color, spec.mean.len()), (Color::Grey, 1));
        assert_eq!(picture(&[-1, 3, -1, -1]).size(), Some((640, 640)));
        let bytes = input(&port(&[1, 8, 8, 3], Some(ElementType::U8))).unwrap();
        assert_eq!(bytes.scale, 1.0);
        for (shape, element) in [
            (&[1, 3, 8][..], Some(ElementType::F32)),
            (&[1, 7, 8, 9], Some(ElementType::F32)),
            (&[1, 3, 8, 8], Some(ElementType::I64)),
            (&[1, 3, 8, 8], None),
        ] {
            assert_eq!(input(&port(shape, element)).unwrap_err().code, ReasonCode::Unsupported);
        }
    }

    #[test]
    fn outputs_are_told_apart() {
        let spec = picture(&[1, 3, 640, 640]);
        let decode = |shape: &[i64]| decode(&spec, &[sample(shape, |_| 0.5)]).decode;
        assert!(matches!(decode(&[1, 10]), Decode::Classification { activation: Activation::Softmax, .. }));
        assert!(matches!(decode(&[1, 84, 8400]), Decode::Yolo { version: YoloVersion::V8, .. }));
        assert!(matches!(decode(&[1, 25200, 85]), Decode::Yolo { version: YoloVersion::V5, .. }));
        assert!(matches!(decode(&[1, 8400, 85]), Decode::Yolo { version: YoloVersion::Yolox, .. }));
        assert!(matches!(decode(&[1, 3, 80, 80]), Decode::Raw { .. }));
        let spread = super::decode(&spec, &[sample(&[1, 4], |_| 0.25)]);
        assert!(matches!(spread.decode, Decode::Classification { activation: Activation::None, .. }));
    }

    #[test]
    fn boxes_and_scores_are_found_in_either_order() {
        let spec = picture(&[1, 3, 240, 320]);
        let boxes = Sample { name: "boxes".into(), ..sample(&[1, 50, 4], |at| (at % 4) as f32 / 4.0) };
        let scores = Sample { name: "scores".into(), ..sample(&[1, 50, 2], |at| [0.9, 0.1][at % 2]) };
        for pair in [[boxes.clone(), scores.clone()], [scores, boxes]] {
            let guess = decode(&spec, &pair);
            let Decode::BoxesScores { boxes, format, units, background, .. } = guess.decode else {
                panic!("{guess:?}")
            };
            assert_eq!((boxes.as_str(), background, guess.classes), ("boxes", Some(0), 1));
            assert_eq!((format, units), (BoxFormat::Corners, BoxUnits::Normalized));
        }
    }

    #[test]
    fn every_draft_is_a_valid_manifest() {
        let spec = picture(&[1, 3, 64, 64]);
        for shape in [&[1, 10][..], &[1, 84, 8400], &[1, 84, 85], &[7, 7, 7]] {
            let guess = decode(&spec, &[sample(shape, |at| at as f32)]);
            let input = Input::Picture(spec.clone());
            let mut draft = manifest(name_of("a"), "model.onnx", input, &guess, &Header::default());
            draft.files = crate::bundle::tests::sample().files;
            crate::bundle::manifest::check(&draft).unwrap();
        }
    }

    #[test]
    fn any_file_name_gives_a_name() {
        for (stem, name) in [
            ("version-RFB-320", "version-RFB-320"),
            ("..x y", "x-y"),
            ("ä", "model"),
            ("", "model"),
            ("a..b", "a--b"),
        ] {
            assert_eq!(name_of(stem).as_str(), name);
        }
        assert_eq!(name_of(&"x".repeat(99)).as_str().len(), 64);
    }
}
