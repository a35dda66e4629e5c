//! Where frames come from.
//!
//! `synthetic` draws `scene`, `folder` reads pictures, `v4l2` asks the kernel's cameras, `stream` cuts
//! pictures from what a program writes, `sensor` makes windows of samples. `program` runs the programs of
//! the last two.
//!
//! This folder knows no model and decides nothing about pace: the capture child asks for a frame
//! when one is due.

pub mod folder;
pub mod program;
pub mod scene;
pub mod sensor;
pub mod stream;
pub mod synthetic;
pub mod v4l2;

use crate::domain::source::SourceSettings;
use crate::domain::{FrameFormat, Reason};
use std::time::Duration;

/// What is known of a frame that a source gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picture {
    /// When it was taken, nanoseconds on `CLOCK_MONOTONIC`, where the source knows; else the time at
    /// which it was handed over counts.
    pub captured_mono_ns: Option<u64>,
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// How to read the bytes.
    pub format: FrameFormat,
}

impl Picture {
    /// One that is handed over at once, by a source that has no better time for it.
    pub fn now(width: u32, height: u32, format: FrameFormat) -> Self {
        Self { captured_mono_ns: None, width, height, format }
    }
}

/// Who sets the pace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// The source makes a frame whenever it is asked for one: pictures of a folder, a drawn scene.
    Asked,
    /// Frames come when the device takes them: the source is asked again at once, and the pace is kept
    /// by leaving frames out.
    Live,
}

/// What asking for a frame led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// A frame; its bytes are in the buffer.
    Picture(Picture),
    /// None came within the time; ask again.
    Pending,
    /// There will be no more: everything was read once.
    Ended,
}

/// Why there is no frame.
#[derive(Debug, Clone, PartialEq)]
pub enum Trouble {
    /// This one is bad; the next may be good.
    Frame(Reason),
    /// The source is gone. The capture child ends, and the agent starts a new one after a while.
    Lost(Reason),
}

/// Something that gives frames.
pub trait Source: Send {
    /// For people: what it is.
    fn describe(&self) -> String;

    /// Who sets the pace.
    fn pace(&self) -> Pace {
        Pace::Asked
    }

    /// Fills `into` (cleared, reused) with the next frame's bytes. `seq` is the number that the frame
    /// will get. A live source waits for `wait` at most, gives the newest frame that it has, and drops
    /// older ones.
    fn next(&mut self, seq: u64, into: &mut Vec<u8>, wait: Duration) -> Result<Next, Trouble>;

    /// No frame is wanted until further notice (or frames are wanted again): a camera stops streaming,
    /// a program is ended.
    fn pause(&mut self, _paused: bool) -> Result<(), Trouble> {
        Ok(())
    }
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
        SourceSettings::V4l2(settings) => Box::new(v4l2::V4l2::open(settings)?),
        SourceSettings::Stream(settings) => Box::new(stream::Stream::open(settings)?),
        SourceSettings::Sensor(settings) => sensor::open(settings)?,
    })
}
