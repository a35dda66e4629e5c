//! From a window of samples to the model's tensor: gaps filled, scaled, normalised.

use super::TensorMut;
use crate::domain::frame::FrameView;
use crate::domain::manifest::{Gap, SeriesLayout, SeriesSpec};
use crate::domain::{FrameFormat, Reason, ReasonCode};
use half::f16;

/// The pre-processing of a series input, as its manifest declares it.
pub struct Series {
    channels: usize,
    length: usize,
    layout: SeriesLayout,
    /// Value = sample × factor + addend, by channel.
    factor: Vec<f32>,
    addend: Vec<f32>,
    gap: Gap,
}

impl Series {
    /// Prepares for one input.
    ///
    /// # Errors
    /// `Malformed` when its shape has not three axes; a checked manifest has none such.
    pub fn new(spec: &SeriesSpec) -> Result<Self, Reason> {
        let Some((channels, length)) = spec.size() else {
            let detail = format!("series {:?}: shape {:?} has not three axes", spec.name, spec.shape);
            return Err(Reason::new(ReasonCode::Malformed, detail));
        };
        let of = |values: &[f32], channel: usize, absent: f32| match values {
            [] => absent,
            [one] => *one,
            several => several.get(channel).copied().unwrap_or(absent),
        };
        let channels = channels as usize;
        let std = |channel| of(&spec.std, channel, 1.0);
        Ok(Self {
            channels,
            length: length as usize,
            layout: spec.layout,
            factor: (0..channels).map(|channel| spec.scale / std(channel)).collect(),
            addend: (0..channels).map(|channel| -of(&spec.mean, channel, 0.0) / std(channel)).collect(),
            gap: spec.gap,
        })
    }

    /// Writes a window into the tensor.
    ///
    /// # Errors
    /// `BadRequest` for a frame that is a picture, of another size than the model takes, without a single
    /// sample in a channel that is to be held, or with a gap where none is taken; `Internal` when the
    /// tensor is not of the declared size.
    #[unsafe(export_name = "hot_series")]
    pub fn run(&self, frame: FrameView<'_>, tensor: TensorMut<'_>) -> Result<(), Reason> {
        let (channels, length) = (self.channels, self.length);
        let takes = format_args!("the model takes {channels} channels of {length} samples");
        if frame.meta.format != FrameFormat::Samples {
            return bad(format!(
                "the frame is a picture ({:?}) and {takes}; give the pipeline a sensor as its source, or a model \
                 for pictures",
                frame.meta.format
            ));
        }
        let (given_length, given_channels) = (frame.meta.width as usize, frame.meta.height as usize);
        if (given_channels, given_length) != (channels, length) {
            return bad(format!(
                "the window has {given_channels} channels of {given_length} samples, {takes}; set source.window = \
                 {length} and name {channels} columns"
            ));
        }
        if frame.bytes.len() != channels * length * 4 {
            let bytes = frame.bytes.len();
            return bad(format!(
                "the window has {bytes} bytes, not {}; its sender is broken",
                channels * length * 4
            ));
        }
        let written = match tensor {
            TensorMut::F32(values) => self.write(frame.bytes, values, |value| value)?,
            TensorMut::F16(values) => self.write(frame.bytes, values, f16::from_f32)?,
            // `as` cuts at the ends of the range.
            TensorMut::U8(values) => self.write(frame.bytes, values, |value| value.round() as u8)?,
            TensorMut::I8(values) => self.write(frame.bytes, values, |value| value.round() as i8)?,
        };
        if written {
            return Ok(());
        }
        let detail = format!("the input tensor has not {} values", channels * length);
        Err(Reason::new(ReasonCode::Internal, detail))
    }

    /// False when the tensor has another length.
    fn write<T>(&self, bytes: &[u8], values: &mut [T], value: impl Fn(f32) -> T) -> Result<bool, Reason> {
        if values.len() != self.channels * self.length {
            return Ok(false);
        }
        for (channel, line) in bytes.chunks_exact(self.length * 4).enumerate() {
            let samples = || line.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
            let (factor, addend) = (self.factor[channel], self.addend[channel]);
            let mut held = samples().find(|sample| sample.is_finite()).unwrap_or(f32::NAN);
            if held.is_nan() && self.gap == Gap::Hold {
                return bad(format!(
                    "channel {channel} has no sample in the whole window; look at the sensor"
                ));
            }
            for (at, sample) in samples().enumerate() {
                let given = match self.gap {
                    _ if sample.is_finite() => {
                        held = sample;
                        sample * factor + addend
                    }
                    Gap::Hold => held * factor + addend,
                    Gap::Zero => 0.0,
                    Gap::Refuse => {
                        return bad(format!(
                            "channel {channel} has a gap at sample {at} and the bundle takes none (series.gap); set \
                             source.gaps = \"skip\" to leave such windows out"
                        ));
                    }
                };
                let place = match self.layout {
                    SeriesLayout::Ncl => channel * self.length + at,
                    SeriesLayout::Nlc => at * self.channels + channel,
                };
                values[place] = value(given);
            }
        }
        Ok(true)
    }
}

fn bad<T>(detail: String) -> Result<T, Reason> {
    Err(Reason::new(ReasonCode::BadRequest, detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::FrameMeta;
    use crate::domain::manifest::ElementType;

    fn spec(layout: SeriesLayout, gap: Gap) -> SeriesSpec {
        SeriesSpec {
            name: "x".into(),
            shape: if layout == SeriesLayout::Ncl { vec![1, 2, 3] } else { vec![1, 3, 2] },
            element: ElementType::F32,
            layout,
            channels: vec![],
            scale: 2.0,
            mean: vec![1.0, 0.0],
            std: vec![1.0, 4.0],
            gap,
        }
    }

    fn run(spec: &SeriesSpec, size: (u32, u32), samples: &[f32]) -> Result<Vec<f32>, String> {
        let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let meta = FrameMeta {
            seq: 1,
            captured_unix_ns: 0,
            captured_mono_ns: 0,
            width: size.0,
            height: size.1,
            format: FrameFormat::Samples,
        };
        let mut tensor = vec![9.0; 6];
        let series = Series::new(spec).unwrap();
        let frame = FrameView { meta, bytes: &bytes };
        series.run(frame, TensorMut::F32(&mut tensor)).map_err(|reason| reason.detail)?;
        Ok(tensor)
    }

    #[test]
    fn samples_are_normalised_and_laid_out_as_declared() {
        let samples = [1.0, 2.0, 3.0, 4.0, 6.0, 8.0];
        let rows = run(&spec(SeriesLayout::Ncl, Gap::Hold), (3, 2), &samples);
        assert_eq!(rows.unwrap(), [1.0, 3.0, 5.0, 2.0, 3.0, 4.0]);
        let columns = run(&spec(SeriesLayout::Nlc, Gap::Refuse), (3, 2), &samples);
        assert_eq!(columns.unwrap(), [1.0, 2.0, 3.0, 3.0, 5.0, 4.0]);
    }

    #[test]
    fn a_gap_is_filled_as_the_bundle_says() {
        let n = f32::NAN;
        let samples = [n, 2.0, n, 4.0, n, f32::INFINITY];
        let held = run(&spec(SeriesLayout::Ncl, Gap::Hold), (3, 2), &samples);
        assert_eq!(held.unwrap(), [3.0, 3.0, 3.0, 2.0, 2.0, 2.0]);
        let zero = run(&spec(SeriesLayout::Ncl, Gap::Zero), (3, 2), &samples);
        assert_eq!(zero.unwrap(), [0.0, 3.0, 0.0, 2.0, 0.0, 0.0]);
        let refused = run(&spec(SeriesLayout::Ncl, Gap::Refuse), (3, 2), &samples).unwrap_err();
        assert!(refused.contains("channel 0 has a gap at sample 0"), "{refused}");
        let empty = run(&spec(SeriesLayout::Ncl, Gap::Hold), (3, 2), &[1.0, 1.0, 1.0, n, n, n]).unwrap_err();
        assert!(empty.contains("channel 1 has no sample"), "{empty}");
    }

    #[test]
    fn another_size_is_told_with_the_remedy() {
        let other = run(&spec(SeriesLayout::Ncl, Gap::Hold), (2, 3), &[0.0; 6]).unwrap_err();
        assert!(other.contains("3 channels of 2 samples") && other.contains("source.window = 3"), "{other}");
    }
}
