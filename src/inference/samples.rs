//! A window of samples from a CSV file, as a frame: what `predict` and golden inputs of series are read
//! from. One row a sample, one column a channel; a first row without a number in it is a header.

use super::source::sensor::row::Splitter;
use crate::domain::frame::FrameView;
use crate::domain::manifest::SeriesSpec;
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
    /// Reads a CSV file of as many rows and columns as the model takes samples and channels. An empty
    /// field or `nan` is a gap.
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
        Self::parse(&bytes, series).map_err(|what| fault(ReasonCode::BadRequest, what))
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
        let meta = FrameMeta {
            seq: 1,
            captured_unix_ns: 0,
            captured_mono_ns: 0,
            width: length as u32,
            height: channels as u32,
            format: FrameFormat::Samples,
        };
        Ok(Self { meta, bytes })
    }

    /// The window as a frame.
    pub fn view(&self) -> FrameView<'_> {
        FrameView { meta: self.meta, bytes: &self.bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::manifest::{ElementType, Gap, SeriesLayout};

    fn parse(text: &str) -> Result<Vec<f32>, String> {
        let spec = SeriesSpec {
            name: "x".into(),
            shape: vec![1, 2, 3],
            element: ElementType::F32,
            layout: SeriesLayout::Ncl,
            channels: vec![],
            scale: 1.0,
            mean: vec![],
            std: vec![],
            gap: Gap::Hold,
        };
        let samples = Samples::parse(text.as_bytes(), &spec)?;
        Ok(samples.bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
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
