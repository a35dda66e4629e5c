//! From a frame to the written input tensor, for whichever kind of frame the model takes.

use super::pixels::PixelDecoder;
use super::preprocess::series::Series;
use super::preprocess::{Geometry, Preprocess, TensorMut};
use crate::domain::frame::FrameView;
use crate::domain::{FrameFormat, Manifest, Reason, ReasonCode};
use std::time::Instant;

/// What one model takes, with the memory for it.
pub(super) enum Feed {
    /// A picture.
    Picture {
        /// From bytes to pixels.
        pixels: PixelDecoder,
        /// From pixels to the tensor.
        preprocess: Box<Preprocess>,
    },
    /// A window of sensor samples.
    Series(Series),
}

impl Feed {
    /// That of a manifest's only input.
    pub(super) fn of(manifest: &Manifest) -> Result<Self, Reason> {
        match (&manifest.series, manifest.inputs.first()) {
            (Some(series), _) => Ok(Feed::Series(Series::new(series)?)),
            (None, Some(input)) => Ok(Feed::Picture {
                pixels: PixelDecoder::new()?,
                preprocess: Box::new(Preprocess::new(input)?),
            }),
            (None, None) => Err(Reason::new(ReasonCode::Malformed, "the manifest lists no input")),
        }
    }

    /// Writes a frame into the tensor. Returns the way back to the frame's own places, and when its bytes
    /// were decoded.
    pub(super) fn write<'t>(
        &mut self,
        frame: FrameView<'_>,
        tensor: impl FnOnce() -> Result<TensorMut<'t>, Reason>,
    ) -> Result<(Geometry, Instant), Reason> {
        match self {
            Feed::Picture { pixels, preprocess } => {
                if !frame.meta.format.is_picture() {
                    return Err(Reason::new(
                        ReasonCode::BadRequest,
                        "the frame is a window of sensor samples and the model takes a picture; give the pipeline \
                         a camera as its source, or a model for series",
                    ));
                }
                // Grey is cheaper to decode; a raw frame is taken as it is.
                let grey = preprocess.is_grey() && frame.meta.format == FrameFormat::Jpeg;
                let pixels = pixels.decode(frame, grey, |w, h| preprocess.needed((w, h)))?;
                let decoded = Instant::now();
                Ok((preprocess.run(pixels, tensor()?)?, decoded))
            }
            Feed::Series(series) => {
                let decoded = Instant::now();
                series.run(frame, tensor()?)?;
                let original = [frame.meta.width as f32, frame.meta.height as f32];
                Ok((Geometry { scale: [1.0, 1.0], offset: [0.0, 0.0], original }, decoded))
            }
        }
    }
}
