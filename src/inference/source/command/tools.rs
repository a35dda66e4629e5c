//! What this machine has for reading streams: programs, and the board's decoders. Facts only; what
//! follows from them is in `presets`.

use std::os::unix::fs::PermissionsExt;
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
        let has = |name: &str| find(name).is_some();
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

/// Where a program is: a path as it is, a name on the search path. `None`: nowhere, or not to be run.
pub fn find(program: &str) -> Option<PathBuf> {
    let runs = |path: &Path| {
        path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| runs(path));
    }
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| runs(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_by_name_and_by_path() {
        assert!(find("sh").is_some_and(|path| path.is_absolute()));
        assert_eq!(find("/bin/sh"), Some(PathBuf::from("/bin/sh")));
        assert_eq!(find("/etc/passwd"), None, "not to be run");
        assert_eq!(find("/etc"), None);
        assert_eq!(find("no-such-program-anywhere"), None);
        Tools::here();
    }
}
