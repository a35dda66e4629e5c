//! What this machine has for reading streams: programs, and the board's decoders. Facts only; what
//! follows from them is in `presets`.

use super::super::program;
use std::path::{Path, PathBuf};

/// The board, as far as it matters here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Board {
    /// Nothing special.
    #[default]
    Other,
    /// A Raspberry Pi; true where it decodes H.264 in hardware (up to the Pi 4).
    RaspberryPi {
        /// `/dev/video10` is there.
        h264: bool,
    },
    /// A Jetson.
    Jetson,
}

/// What is installed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tools {
    /// `ffmpeg`
    pub ffmpeg: bool,
    /// `gst-launch-1.0`
    pub gstreamer: bool,
    /// `curl`
    pub curl: bool,
    /// `rpicam-vid`, or its older name `libcamera-vid`.
    pub rpicam: Option<&'static str>,
    /// The board.
    pub board: Board,
    /// A folder that lasts, where GStreamer may keep its list of elements: without one it is made anew
    /// at every start, which takes seconds on a small machine.
    pub cache: Option<PathBuf>,
}

impl Tools {
    /// Those of this machine.
    pub fn here() -> Self {
        let has = |name: &str| program::find(name).is_some();
        let model = std::fs::read_to_string("/proc/device-tree/model").unwrap_or_default();
        let board = if model.contains("Raspberry Pi") {
            Board::RaspberryPi { h264: Path::new("/dev/video10").exists() }
        } else if Path::new("/etc/nv_tegra_release").exists() || model.contains("Jetson") {
            Board::Jetson
        } else {
            Board::Other
        };
        Self {
            ffmpeg: has("ffmpeg"),
            gstreamer: has("gst-launch-1.0"),
            curl: has("curl"),
            rpicam: ["rpicam-vid", "libcamera-vid"].into_iter().find(|name| has(name)),
            board,
            // Set by systemd for our unit. Elsewhere the user has a cache folder.
            cache: std::env::var_os("RUNTIME_DIRECTORY").map(PathBuf::from),
        }
    }
}
