//! A window of samples from a file, as a frame: what `predict` and golden inputs of series are read from.
//!
//! CSV: one row a sample, one column a channel; a first row without a number in it is a header. NumPy
//! (`.npy`): an array with the axes of the model's input, with or without the batch of one. The content
//! tells which it is.

use super::npy;
use super::source::sensor::row::Splitter;
use crate::domain::frame::FrameView;
use crate::domain::manifest::{SeriesLayout, SeriesSpec};
use crate::domain::{FrameFormat, FrameMeta, Reason, ReasonCode};
use std::io::Read;
use std::path::Path;

/// Largest file read, bytes.
const MAX_FILE: u64 = 64 << 20;

/// A window that owns its bytes.
#[derive(Debug, Clone)]
pub struct Samples {
    meta: FrameMeta,
    bytes: Vec<u8>,
}

impl Samples {
    /// Reads a CSV file of as many rows and columns as the model takes samples and channels, or a NumPy
    /// array of the model's shape. An empty field or `nan` is a gap.
    ///
    /// # Errors
    /// `NotFound` when there is no such file, `BadRequest` when it is no such window.
    pub fn read(path: &Path, series: &SeriesSpec) -> Result<Self, Reason> {
        let fault = |code, what: String| Reason::new(code, format!("samples {}: {what}", path.display()));
        let unreadable = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => fault(ReasonCode::NotFound, error.to_string()),
            _ => fault(ReasonCode::BadRequest, error.to_string()),
        };
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(fault(ReasonCode::BadRequest, format!("larger than {} MiB", MAX_FILE >> 20)));
        }
        let parsed = match bytes.starts_with(npy::MAGIC) {
            true => Self::of_numpy(&bytes, series),
            false => Self::parse(&bytes, series),
        };
        parsed.map_err(|what| fault(ReasonCode::BadRequest, what))
    }

    fn of_numpy(file: &[u8], series: &SeriesSpec) -> Result<Self, String> {
        let (channels, length) = series.size().ok_or("the model takes no series")?;
        let (channels, length) = (channels as usize, length as usize);
        let array = npy::Array::parse(file, channels * length)?;
        let wanted = match series.layout {
            SeriesLayout::Ncl => [1, channels, length],
            SeriesLayout::Nlc => [1, length, channels],
        };
        if array.shape[..] != wanted && array.shape[..] != wanted[1..] {
            let (found, wanted) = (npy::told(&array.shape), npy::told(&wanted[1..]));
            return Err(format!("an array of shape {found}, the model takes {wanted}; transpose or cut it"));
        }
        let at = |channel: usize, sample: usize| match series.layout {
            SeriesLayout::Ncl => channel * length + sample,
            SeriesLayout::Nlc => sample * channels + channel,
        };
        let places = (0..channels).flat_map(|channel| (0..length).map(move |sample| at(channel, sample)));
        let bytes = places.flat_map(|place| array.values[place].to_le_bytes()).collect();
        Ok(Self::of(bytes, channels, length))
    }

    fn of(bytes: Vec<u8>, channels: usize, length: usize) -> Self {
        let meta = FrameMeta {
            seq: 1,
            captured_unix_ns: 0,
            captured_mono_ns: 0,
            width: length as u32,
            height: channels as u32,
            format: FrameFormat::Samples,
        };
        Self { meta, bytes }
    }

    fn parse(text: &[u8], series: &SeriesSpec) -> Result<Self, String> {
        let (channels, length) = series.size().ok_or("the model takes no series")?;
        let (channels, length) = (channels as usize, length as usize);
        let mut bytes = vec![0; channels * length * 4];
        let (mut rows, mut first) = (0, true);
        let mut splitter = Splitter::new(b',');
        for (number, line) in (1..).zip(text.split(|&byte| byte == b'\n')) {
            if line.trim_ascii().is_empty() {
                continue;
            }
            let mut row = Vec::with_capacity(channels);
            let mut words = 0;
            splitter.split(line.trim_ascii(), |field| {
                let value = if field.is_empty() { Some(f32::NAN) } else { field.parse().ok() };
                words += usize::from(value.is_none());
                row.push(value);
            });
            let header = std::mem::replace(&mut first, false) && words == row.len();
            if header {
                continue;
            }
            if row.len() != channels {
                return Err(format!(
                    "line {number} has {} columns, the model takes {channels} channels",
                    row.len()
                ));
            }
            for (channel, value) in row.into_iter().enumerate() {
                let value: f32 = value.ok_or_else(|| {
                    format!(
                        "line {number}, column {}: not a number; correct it, or leave it empty",
                        channel + 1
                    )
                })?;
                let at = (channel * length + rows) * 4;
                if let Some(place) = bytes.get_mut(at..at + 4)
                    && rows < length
                {
                    place.copy_from_slice(&value.to_le_bytes());
                }
            }
            rows += 1;
        }
        if rows != length {
            return Err(format!("{rows} rows of samples, the model takes {length}; give it one window"));
        }
        Ok(Self::of(bytes, channels, length))
    }

    /// The window as a frame.
    pub fn view(&self) -> FrameView<'_> {
        FrameView { meta: self.meta, bytes: &self.bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::manifest::{ElementType, Gap};

    fn spec() -> SeriesSpec {
        SeriesSpec {
            name: "x".into(),
            shape: vec![1, 2, 3],
            element: ElementType::F32,
            layout: SeriesLayout::Ncl,
            channels: vec![],
            scale: 1.0,
            mean: vec![],
            std: vec![],
            gap: Gap::Hold,
        }
    }

    fn values(samples: &Samples) -> Vec<f32> {
        samples.bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    fn parse(text: &str) -> Result<Vec<f32>, String> {
        Samples::parse(text.as_bytes(), &spec()).map(|samples| values(&samples))
    }

    /// An array of 1, 2, 3 … as NumPy saves it.
    fn array(shape: &str, count: u8) -> Vec<u8> {
        let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n");
        let length = (header.len() as u16).to_le_bytes();
        let numbers: Vec<u8> = (1..=count).collect();
        [npy::MAGIC, &[1, 0], &length, header.as_bytes(), &numbers].concat()
    }

    #[test]
    fn an_array_has_the_axes_of_the_model() {
        let ncl = spec();
        for shape in ["(2, 3)", "(1, 2, 3)"] {
            let samples = Samples::of_numpy(&array(shape, 6), &ncl).unwrap();
            assert_eq!(values(&samples), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
            assert_eq!((samples.meta.width, samples.meta.height), (3, 2));
        }
        let nlc = SeriesSpec { layout: SeriesLayout::Nlc, shape: vec![1, 3, 2], ..spec() };
        let samples = Samples::of_numpy(&array("(3, 2)", 6), &nlc).unwrap();
        assert_eq!(values(&samples), [1.0, 3.0, 5.0, 2.0, 4.0, 6.0], "one channel after the other");
        let fault = Samples::of_numpy(&array("(3, 2)", 6), &ncl).unwrap_err();
        assert_eq!(fault, "an array of shape (3, 2), the model takes (2, 3); transpose or cut it");
    }

    #[test]
    fn rows_become_channels() {
        let wanted = [1.0, 2.0, 3.0, 10.0, 20.0, 30.0];
        assert_eq!(parse("a,b\n1,10\n2,20\n3,30\n").unwrap(), wanted);
        assert_eq!(parse("1, 10\r\n2,20\r\n\r\n3,3e1").unwrap(), wanted);
        let gap = parse("1,10\n,nan\n3,30\n").unwrap();
        assert!(gap[1].is_nan() && gap[4].is_nan() && gap[5] == 30.0);
    }

    #[test]
    fn what_is_no_window_is_told_with_its_line() {
        for (text, told) in [
            ("1,2\n3,4\n", "2 rows of samples, the model takes 3"),
            ("1,2\n3,4\n5,6\n7,8\n", "4 rows of samples"),
            ("1,2\n3\n", "line 2 has 1 columns"),
            ("1,2\n3,x\n", "line 2, column 2: not a number"),
            ("", "0 rows"),
        ] {
            let fault = parse(text).unwrap_err();
            assert!(fault.contains(told), "{text:?}: {fault}");
        }
    }
}
