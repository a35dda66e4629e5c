//! Where frames come from.
//!
//! This folder knows no model and decides nothing about pace: the capture child asks for a frame
//! when one is due.

pub mod folder;
pub mod scene;
pub mod synthetic;

use crate::domain::source::SourceSettings;
use crate::domain::{PixelFormat, Reason};

/// What is known of a frame that a source gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picture {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// How to read the bytes.
    pub format: PixelFormat,
}

/// Something that gives frames.
pub trait Source: Send {
    /// For people: what it is.
    fn describe(&self) -> String;

    /// Fills `into` (cleared, reused) with the next frame's bytes; `Ok(None)` at the end.
    fn next(&mut self, seq: u64, into: &mut Vec<u8>) -> Result<Option<Picture>, Reason>;
}

/// Opens a source.
///
/// # Errors
/// Why there is none, with the remedy.
pub fn open(settings: &SourceSettings) -> Result<Box<dyn Source>, Reason> {
    Ok(match settings {
        SourceSettings::Synthetic { seed, width, height } => {
            Box::new(synthetic::Synthetic::new(*seed, *width, *height))
        }
        SourceSettings::Folder { path, repeat } => Box::new(folder::Folder::open(path, *repeat)?),
    })
}
