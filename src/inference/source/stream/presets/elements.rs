//! Which Debian package has a program or a GStreamer element.

use super::Launch;

const BASE: &str = "gstreamer1.0-plugins-base";
const GOOD: &str = "gstreamer1.0-plugins-good";
const NVIDIA: &str = "nvidia-l4t-gstreamer (NVIDIA's, part of JetPack)";

/// Names and packages.
const PACKAGES: [(&str, &str); 26] = [
    ("ffmpeg", "ffmpeg"),
    (
        "gst-launch-1.0",
        "gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad \
         gstreamer1.0-libav",
    ),
    ("curl", "curl"),
    ("rpicam-vid", "rpicam-apps (Raspberry Pi OS)"),
    ("libcamera-vid", "libcamera-apps (Raspberry Pi OS)"),
    ("filesrc", "libgstreamer1.0-0"),
    ("fdsink", "libgstreamer1.0-0"),
    ("queue", "libgstreamer1.0-0"),
    ("decodebin", BASE),
    ("parsebin", BASE),
    ("videoconvert", BASE),
    ("videoscale", BASE),
    ("videorate", BASE),
    ("rtspsrc", GOOD),
    ("souphttpsrc", GOOD),
    ("multipartdemux", GOOD),
    ("y4menc", GOOD),
    ("v4l2h264dec", GOOD),
    ("h264parse", "gstreamer1.0-plugins-bad"),
    ("openh264dec", "gstreamer1.0-plugins-bad"),
    ("avdec_h264", "gstreamer1.0-libav"),
    ("nvarguscamerasrc", NVIDIA),
    ("nvjpegenc", NVIDIA),
    ("nvv4l2decoder", NVIDIA),
    ("nvvidconv", NVIDIA),
    ("vah264dec", "gstreamer1.0-plugins-bad"),
];

/// Elements of which one is enough for H.264, which is what most cameras and films are.
pub const DECODERS: [&str; 5] = ["nvv4l2decoder", "v4l2h264dec", "vah264dec", "avdec_h264", "openh264dec"];

/// The package of a program or an element.
pub fn package(name: &str) -> Option<&'static str> {
    PACKAGES.iter().find(|(known, _)| *known == name).map(|(_, package)| *package)
}

/// The elements of a GStreamer command line: what stands first, and after each `!`.
pub fn needed(launch: &Launch) -> Vec<String> {
    if launch.line.name() != "gst-launch-1.0" {
        return Vec::new();
    }
    let mut found: Vec<String> = launch
        .line
        .args
        .split(|word| word == "!" || word == "-q")
        .filter_map(|part| part.first())
        .filter(|word| !word.contains('/'))
        .cloned()
        .collect();
    // Not named, but always in the way of compressed video.
    if found.iter().any(|name| name == "decodebin" || name == "parsebin") {
        found.push("h264parse".to_owned());
    }
    found.sort();
    found.dedup();
    found
}
