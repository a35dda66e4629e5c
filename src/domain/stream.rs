//! Sources that another program reads for us: a camera on the network, a video file, a ribbon-cable
//! camera, or any command.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What is to be read by another program. The presets are turned into its command line by the capture
/// child, which knows what is installed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamSettings {
    /// A program of the user's own.
    Command {
        /// The program and its arguments; no shell.
        program: Vec<String>,
        /// What it writes on its standard output.
        format: StreamFormat,
        /// False: a camera, whose newest frame counts. True: a film, whose frames all count.
        film: bool,
        /// For a film: start again at its end.
        repeat: bool,
    },
    /// A camera on the network.
    Rtsp {
        /// `rtsp://` or `rtsps://`, without a user and a password.
        url: String,
        /// Whom the camera knows us as.
        login: Option<Login>,
        /// How the frames come.
        transport: Transport,
        /// How they are read.
        reading: Reading,
    },
    /// A camera that sends JPEGs over HTTP (`multipart/x-mixed-replace`).
    HttpMjpeg {
        /// `http://` or `https://`, without a user and a password.
        url: String,
        /// Whom the camera knows us as.
        login: Option<Login>,
        /// The program; the preferred one that is installed when absent.
        via: Option<Via>,
        /// More arguments for it.
        extra: Vec<String>,
    },
    /// A video file.
    Video {
        /// The file.
        path: PathBuf,
        /// Start again at its end.
        repeat: bool,
        /// Play it at its own speed as a camera would; else each frame is had when it is asked for.
        realtime: bool,
        /// How it is read.
        reading: Reading,
    },
    /// A ribbon-cable camera of a Raspberry Pi.
    CsiPi(Sensor),
    /// A ribbon-cable camera of a Jetson.
    CsiJetson(Sensor),
}

impl StreamSettings {
    /// True for a film whose frames are had one after the other, false for what is live.
    pub fn waits(&self) -> bool {
        match self {
            StreamSettings::Command { film, .. } => *film,
            StreamSettings::Video { realtime, .. } => !realtime,
            StreamSettings::Rtsp { .. }
            | StreamSettings::HttpMjpeg { .. }
            | StreamSettings::CsiPi(_)
            | StreamSettings::CsiJetson(_) => false,
        }
    }

    /// The kind as it is written in the configuration.
    pub fn kind(&self) -> &'static str {
        match self {
            StreamSettings::Command { .. } => "command",
            StreamSettings::Rtsp { .. } => "rtsp",
            StreamSettings::HttpMjpeg { .. } => "http_mjpeg",
            StreamSettings::Video { .. } => "video",
            StreamSettings::CsiPi(_) => "csi_pi",
            StreamSettings::CsiJetson(_) => "csi_jetson",
        }
    }
}

/// What a program writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamFormat {
    /// JPEGs, one after the other.
    Mjpeg,
    /// YUV4MPEG2: uncompressed 4:2:0 or grey pictures.
    Y4m,
}

/// The family of programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// `ffmpeg`.
    Ffmpeg,
    /// `gst-launch-1.0`.
    Gstreamer,
    /// `curl`; only for JPEGs over HTTP.
    Curl,
}

impl Via {
    /// As it is written in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Via::Ffmpeg => "ffmpeg",
            Via::Gstreamer => "gstreamer",
            Via::Curl => "curl",
        }
    }
}

/// How a network camera's frames come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Inside the connection: nothing is lost on the way.
    Tcp,
    /// As packets, which may be lost.
    Udp,
}

/// A user and the file with the password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The file; a line break at its end is dropped.
    pub password_file: PathBuf,
}

/// How compressed video is read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Scale to width and height, pixels, even; else as it is.
    pub size: Option<(u32, u32)>,
    /// Frames a second to have; else all.
    pub fps: Option<f32>,
    /// The program; the preferred one that is installed when absent.
    pub via: Option<Via>,
    /// The program's name for a decoder; else its own choice.
    pub decoder: Option<String>,
    /// More arguments: for ffmpeg those of the input, for GStreamer those of the element that reads.
    pub extra: Vec<String>,
}

/// A ribbon-cable camera.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sensor {
    /// Which one, from 0.
    pub camera: u32,
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// Frames a second.
    pub fps: u32,
    /// More arguments for the program.
    pub extra: Vec<String>,
}
