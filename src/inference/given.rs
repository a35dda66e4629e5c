//! What a user or a bundle gives as a file: a picture or a window of samples, as the model takes it.

use super::picture::{self, Picture};
use super::samples::Samples;
use crate::domain::frame::FrameView;
use crate::domain::{Manifest, Reason};
use std::path::Path;

/// A frame from a file.
#[derive(Debug, Clone)]
pub enum Given {
    /// For a model that takes a picture.
    Picture(Picture),
    /// For a model that takes a series.
    Samples(Samples),
}

impl Given {
    /// Reads what the model of that manifest takes.
    ///
    /// # Errors
    /// As [`Picture::read`] and [`Samples::read`].
    pub fn read(manifest: &Manifest, path: &Path) -> Result<Self, Reason> {
        match &manifest.series {
            Some(series) => Samples::read(path, series).map(Given::Samples),
            None => Picture::read(path).map(Given::Picture),
        }
    }

    /// A fault of it, with its file in front.
    pub fn named(&self, path: &Path, reason: Reason) -> Reason {
        match self {
            Given::Picture(_) => picture::named(path, reason),
            Given::Samples(_) => {
                Reason::new(reason.code, format!("samples {}: {}", path.display(), reason.detail))
            }
        }
    }

    /// It as a frame.
    pub fn view(&self) -> FrameView<'_> {
        match self {
            Given::Picture(picture) => picture.view(),
            Given::Samples(samples) => samples.view(),
        }
    }
}
