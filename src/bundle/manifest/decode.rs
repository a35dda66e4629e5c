//! The checks of a manifest's decoding.

use super::{MAX_FILES, malformed, port, shorten, within};
use crate::domain::manifest::{Decode, ErrorMetric, ValueSpec};
use crate::domain::{Manifest, Reason};

/// Most numbers of a regression.
const MAX_NUMBERS: usize = 1024;
/// Longest name or unit of one, bytes.
const MAX_WORD: usize = 100;

/// What holds for every kind, then what holds for single ones.
pub(super) fn check(manifest: &Manifest) -> Result<(), Reason> {
    let decode = &manifest.decode;
    let outputs = decode.outputs();
    if outputs.len() > MAX_FILES {
        return malformed(format!("decode.outputs: {} names; at most {MAX_FILES}", outputs.len()));
    }
    outputs.iter().try_for_each(|output| port("the name of an output in decode", output))?;
    if (1..outputs.len()).any(|at| outputs[..at].contains(&outputs[at])) {
        return malformed(format!("decode: {} name the same output", outputs.join(" and ")));
    }
    if let Some(keep) = decode.keep() {
        within("decode.keep.iou_threshold", keep.iou_threshold, 0.0, 1.0)?;
    }
    if let Some((threshold, classes, most)) = decode.limits() {
        within("decode: score_threshold", threshold, 0.0, 1.0)?;
        if !(1..=1000).contains(&most) {
            return malformed(format!("decode: top_k or max_detections: {most}; use 1 to 1000"));
        }
        for (label, threshold) in classes {
            let known = manifest.labels.contains(label)
                || label.parse().is_ok_and(|class: usize| class < manifest.labels.len().max(1_000_000));
            if !known {
                return malformed(format!(
                    "decode: class_thresholds: {:?} is no label of this bundle; use one of `labels`, or a class's \
                     number",
                    shorten(label)
                ));
            }
            within("decode: class_thresholds", *threshold, 0.0, 1.0)?;
        }
    }
    match decode {
        Decode::Values { values, .. } => check_values(values),
        Decode::Anomaly { metric: ErrorMetric::Mse | ErrorMetric::Mae, threshold, .. } => {
            within("decode.threshold", *threshold, 0.0, f32::MAX)
        }
        Decode::Classification { .. }
        | Decode::BoxesScores { .. }
        | Decode::Yolo { .. }
        | Decode::Detr { .. }
        | Decode::Raw { .. } => Ok(()),
    }
}

fn check_values(values: &[ValueSpec]) -> Result<(), Reason> {
    if values.is_empty() || values.len() > MAX_NUMBERS {
        return malformed(format!("decode.values: {} listed; use 1 to {MAX_NUMBERS}", values.len()));
    }
    for (at, spec) in values.iter().enumerate() {
        let name = shorten(&spec.name);
        if spec.name.is_empty() || spec.name.len() > MAX_WORD || spec.unit.len() > MAX_WORD {
            return malformed(format!("decode.values: {name:?}: name and unit have 1 to {MAX_WORD} bytes"));
        }
        if values[..at].iter().any(|other| other.name == spec.name) {
            return malformed(format!("decode.values: {name:?} is listed twice"));
        }
        within("decode.values: scale", spec.scale, f32::MIN, f32::MAX)?;
        within("decode.values: offset", spec.offset, f32::MIN, f32::MAX)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::sample;
    use super::*;
    use crate::domain::manifest::{Activation, ClassThresholds, Keep, YoloVersion};

    fn fault(decode: Decode) -> String {
        let mut manifest = sample();
        manifest.labels = vec!["cat".into(), "dog".into()];
        manifest.decode = decode;
        check(&manifest).map_or_else(|reason| reason.detail, |()| String::new())
    }

    #[test]
    fn numbers_and_anomalies_are_checked() {
        let value =
            |name: &str, scale| ValueSpec { name: name.into(), unit: String::new(), scale, offset: 0.0 };
        let values = |values| fault(Decode::Values { output: "y".into(), values });
        assert_eq!(values(vec![value("a", 1.0), value("b", 2.0)]), "");
        assert!(values(vec![]).contains("0 listed"));
        assert!(values(vec![value("a", 1.0), value("a", 1.0)]).contains("twice"));
        assert!(values(vec![value("", 1.0)]).contains("1 to 100 bytes"));
        assert!(values(vec![value("a", f32::NAN)]).contains("scale"));
        let anomaly =
            |threshold| fault(Decode::Anomaly { output: "y".into(), metric: ErrorMetric::Mse, threshold });
        assert_eq!(anomaly(0.5), "");
        assert!(anomaly(-1.0).contains("decode.threshold"));
    }

    #[test]
    fn thresholds_of_classes_name_classes() {
        let yolo = |label: &str, threshold| {
            let class_thresholds = ClassThresholds::from([(label.to_owned(), threshold)]);
            let keep = Keep { class_thresholds, ..Keep::default() };
            fault(Decode::Yolo { version: YoloVersion::V8, output: "y".into(), keep })
        };
        assert_eq!(yolo("cat", 0.5), "");
        assert_eq!(yolo("1", 0.5), "");
        assert!(yolo("cow", 0.5).contains("\"cow\" is no label"));
        assert!(yolo("cat", 1.5).contains("class_thresholds"));
    }

    #[test]
    fn two_outputs_are_two() {
        let detr = Decode::Detr {
            boxes: "y".into(),
            logits: "y".into(),
            activation: Activation::Sigmoid,
            format: crate::domain::manifest::BoxFormat::Center,
            units: crate::domain::manifest::BoxUnits::Normalized,
            background: None,
            score_threshold: 0.5,
            class_thresholds: ClassThresholds::new(),
            max_detections: 100,
        };
        assert!(fault(detr).contains("name the same output"));
    }
}
