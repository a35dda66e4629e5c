//! The half of an engine that brings frames into tensors, for whichever kind of frame the model takes.

use super::pixels::PixelDecoder;
use super::preprocess::series::Series;
use super::preprocess::{Geometry, Preprocess};
use super::session::Input;
use crate::domain::frame::FrameView;
use crate::domain::{Manifest, Reason, ReasonCode};
use std::time::Instant;

/// The half of an engine that brings frames into tensors. Its memory is kept from frame to frame.
pub struct Preparer(Kind);

enum Kind {
    /// A picture: from bytes to pixels, and from pixels to the tensor.
    Picture { pixels: Box<PixelDecoder>, preprocess: Box<Preprocess> },
    /// A window of sensor samples.
    Series(Series),
}

/// What the engine's other half has to know of a frame in a tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prepared {
    /// Where the picture lies in the tensor.
    pub geometry: Geometry,
    /// Milliseconds of decoding.
    pub decode: f32,
    /// Milliseconds of pre-processing.
    pub preprocess: f32,
}

impl Preparer {
    /// For a manifest's only input.
    pub(super) fn of(manifest: &Manifest) -> Result<Self, Reason> {
        let kind = match (&manifest.series, manifest.inputs.first()) {
            (Some(series), _) => Kind::Series(Series::new(series)?),
            (None, Some(input)) => Kind::Picture {
                pixels: Box::new(PixelDecoder::new()?),
                preprocess: Box::new(Preprocess::new(input)?),
            },
            (None, None) => {
                return Err(Reason::new(ReasonCode::Malformed, "the manifest lists no input"));
            }
        };
        Ok(Self(kind))
    }

    /// Looks at a part of each picture only: left, top, width and height as shares of it, 0 to 1. Samples
    /// are always looked at whole.
    pub fn limit_to(&mut self, region: Option<[f32; 4]>) {
        if let Kind::Picture { preprocess, .. } = &mut self.0 {
            preprocess.limit_to(region);
        }
    }

    /// Brings a frame into a tensor.
    ///
    /// # Errors
    /// `BadRequest` for a frame that is not what the model takes, `Internal` when the tensor is not the
    /// model's.
    pub fn prepare(&mut self, frame: FrameView<'_>, input: &mut Input) -> Result<Prepared, Reason> {
        let start = Instant::now();
        match &mut self.0 {
            Kind::Picture { pixels, preprocess } => {
                if !frame.meta.format.is_picture() {
                    return Err(Reason::new(
                        ReasonCode::BadRequest,
                        "the frame is a window of sensor samples and the model takes a picture; give the pipeline \
                         a camera as its source, or a model for series",
                    ));
                }
                let want = preprocess.want();
                let picture = pixels.planes(frame, want, |w, h| preprocess.needed((w, h)))?;
                let decoded = Instant::now();
                let (values, padding) = input.values()?;
                let geometry = preprocess.run(&picture, values, padding)?;
                let (decode, preprocess) =
                    (milliseconds(start, decoded), milliseconds(decoded, Instant::now()));
                Ok(Prepared { geometry, decode, preprocess })
            }
            Kind::Series(series) => {
                let (values, _) = input.values()?;
                series.run(frame, values)?;
                let original = [frame.meta.width as f32, frame.meta.height as f32];
                let geometry = Geometry { scale: [1.0, 1.0], offset: [0.0, 0.0], original };
                Ok(Prepared { geometry, decode: 0.0, preprocess: milliseconds(start, Instant::now()) })
            }
        }
    }
}

/// Milliseconds between two moments.
pub(super) fn milliseconds(from: Instant, to: Instant) -> f32 {
    to.duration_since(from).as_secs_f32() * 1e3
}
