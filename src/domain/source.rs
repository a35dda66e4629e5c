//! What a pipeline looks at.

use super::FrameFormat;
use super::stream::StreamSettings;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What a capture child reads; the checked form of a pipeline's `source` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SourceSettings {
    /// The built-in camera over a conveyor belt, with known truth.
    Synthetic {
        /// Picks the scene; the same seed gives the same frames.
        seed: u64,
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
    },
    /// The pictures of a folder in the order of their names.
    Folder {
        /// The folder.
        path: PathBuf,
        /// Start again after the last; else end.
        repeat: bool,
    },
    /// A camera that the kernel knows (Video4Linux), such as a USB camera.
    V4l2(V4l2Settings),
    /// What another program reads for us.
    Stream(StreamSettings),
}

/// What is wanted of a camera.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct V4l2Settings {
    /// The device file or a link to it; else the only camera that is found.
    pub device: Option<PathBuf>,
    /// Pixels across; the nearest size that the camera has is taken.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// Frames a second that the camera is set to; else those of its pipeline.
    pub fps: Option<f32>,
    /// Only this format; else the best that the camera has.
    pub format: Option<FrameFormat>,
    /// Values of controls (exposure, focus) by their names in small letters.
    pub controls: BTreeMap<String, i32>,
}

impl SourceSettings {
    /// The same source, set to the pace of its pipeline where none of its own is wanted.
    pub fn at_pace(mut self, fps: f32) -> Self {
        if let SourceSettings::V4l2(settings) = &mut self {
            settings.fps.get_or_insert(fps);
        }
        self
    }
}
