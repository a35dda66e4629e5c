//! The checks of a series input.

use super::{MAX_VALUES, malformed, normalisation, port, shorten, within};
use crate::domain::Reason;
use crate::domain::manifest::{ElementType, SeriesSpec};

/// Most channels, and most samples of a window in each.
const MAX_SIZE: (u32, u32) = (1024, 1 << 20);

/// All that can be said without the model.
pub(super) fn check(series: &SeriesSpec) -> Result<(), Reason> {
    let name = shorten(&series.name);
    port("series.name", &series.name)?;
    let size = series.size().filter(|_| series.shape[0] == 1);
    let Some((channels, length)) = size else {
        return malformed(format!(
            "series {name}: shape {:?} does not fit; a series has three axes, a batch of 1, channels and samples \
             (series.layout)",
            series.shape
        ));
    };
    let (most_channels, most_samples) = MAX_SIZE;
    if !(1..=most_channels).contains(&channels)
        || !(1..=most_samples).contains(&length)
        || i64::from(channels) * i64::from(length) > MAX_VALUES
    {
        return malformed(format!(
            "series {name}: {channels} channels of {length} samples; use 1 to {most_channels} of 1 to \
             {most_samples}, and at most {MAX_VALUES} values in all"
        ));
    }
    if series.element == ElementType::I64 {
        return malformed(format!("series {name}: type i64; use f32, f16, u8 or i8"));
    }
    if !series.channels.is_empty() && series.channels.len() != channels as usize {
        return malformed(format!(
            "series {name}: {} channels are named, the shape has {channels}; name all or none",
            series.channels.len()
        ));
    }
    if let Some(long) = series.channels.iter().find(|channel| channel.is_empty() || channel.len() > 100) {
        return malformed(format!("series {name}: channel {:?}: use 1 to 100 bytes", shorten(long)));
    }
    within("series.scale", series.scale, f32::MIN, f32::MAX)?;
    normalisation(&name, i64::from(channels), &series.mean, &series.std)
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::sample;
    use super::super::{check, parse_manifest, to_bytes};
    use crate::domain::Manifest;
    use crate::domain::manifest::{ElementType, Gap, SeriesLayout, SeriesSpec};

    fn series() -> Manifest {
        let series = SeriesSpec {
            name: "x".into(),
            shape: vec![1, 3, 64],
            element: ElementType::F32,
            layout: SeriesLayout::Ncl,
            channels: vec![],
            scale: 1.0,
            mean: vec![],
            std: vec![],
            gap: Gap::Hold,
        };
        Manifest { inputs: vec![], series: Some(series), ..sample() }
    }

    #[test]
    fn a_series_is_written_and_read_back_and_old_manifests_stay_as_they_are() {
        let bytes = to_bytes(&series()).unwrap();
        assert_eq!(parse_manifest(&bytes).unwrap(), series());
        let old = String::from_utf8(to_bytes(&sample()).unwrap()).unwrap();
        assert!(!old.contains("series") && !old.contains("class_thresholds"), "{old}");
    }

    #[test]
    fn every_fault_has_a_line_that_names_it() {
        type Edit = fn(&mut SeriesSpec);
        let edits: [(&str, Edit); 9] = [
            ("shape", |s| s.shape = vec![1, 3, 64, 1]),
            ("shape", |s| s.shape = vec![2, 3, 64]),
            ("0 channels", |s| s.shape = vec![1, 0, 64]),
            ("shape", |s| s.shape = vec![1, 3, -1]),
            ("i64", |s| s.element = ElementType::I64),
            ("2 channels are named", |s| s.channels = vec!["a".into(), "b".into()]),
            ("mean has 2 numbers", |s| s.mean = vec![0.0, 1.0]),
            ("std holds 0", |s| s.std = vec![0.0]),
            ("series.scale", |s| s.scale = f32::NAN),
        ];
        for (word, edit) in edits {
            let mut manifest = series();
            manifest.series.iter_mut().for_each(edit);
            let reason = check(&manifest).expect_err(word);
            assert!(reason.detail.contains(word), "{word}: {}", reason.detail);
        }
        let both = Manifest { inputs: sample().inputs, ..series() };
        assert!(check(&both).unwrap_err().detail.contains("1 listed and a series"));
    }
}
