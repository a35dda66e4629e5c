//! From a preset to the command line that reads it. Pure: what is installed is an argument.
//!
//! **ffmpeg or GStreamer.** ffmpeg where both are there: it is one package, is more forgiving with torn
//! streams, and reads a URL with a password from its standard input. GStreamer first on a board whose
//! decoder it finds by itself (Jetson: only there; Raspberry Pi up to 4: `v4l2h264dec`).
//!
//! **What travels.** Compressed video is decoded by the program and travels as Y4M (4:2:0): to make
//! JPEGs of it and decode those again would cost more than the pipe. JPEGs (cameras over HTTP, ribbon
//! cables, where hardware makes them) travel as they are.
//!
//! **Passwords.** A command line can be read by every user of the machine. ffmpeg is given its URL as a
//! list of one entry on standard input, curl its user as a configuration there. GStreamer has no such
//! way: with it, the password stands in the command line, and `edgewarden check` says so.
//!
//! Not tried on their boards: `csi_pi` (rpicam-vid), `csi_jetson` (nvarguscamerasrc, nvjpegenc), and the
//! decoders `nvv4l2decoder`, `v4l2h264dec`, `h264_v4l2m2m`. What nvarguscamerasrc says on standard
//! output before its first picture is passed over as it is no JPEG.

mod elements;
mod ffmpeg;
mod gstreamer;
mod mjpeg;
mod secret;
#[cfg(test)]
mod tests;

pub use elements::{DECODERS, needed, package};

use self::secret::Secret;
use super::tools::{Board, Tools};
use crate::domain::stream::{Login, StreamFormat, StreamSettings, Via};
use crate::domain::{Reason, ReasonCode};
use crate::inference::source::program::CommandLine;

/// How a stream is read: by which program, and what that writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The program with its arguments.
    pub line: CommandLine,
    /// What it writes.
    pub format: StreamFormat,
    /// A camera: the newest frame counts. Else a film, whose frames all count.
    pub live: bool,
    /// A film that begins again at its end.
    pub repeat: bool,
    /// For people: what could be better.
    pub notes: Vec<String>,
}

impl Launch {
    fn new(program: &str, format: StreamFormat, live: bool) -> Self {
        Self::of(CommandLine::new(program), format, live)
    }

    fn of(line: CommandLine, format: StreamFormat, live: bool) -> Self {
        Self { line, format, live, repeat: false, notes: Vec::new() }
    }

    fn args<S: Into<String>>(&mut self, args: impl IntoIterator<Item = S>) -> &mut Self {
        self.line.args(args);
        self
    }

    /// What to do when it cannot be run.
    pub fn remedy(&self) -> String {
        match package(&self.line.name()) {
            Some(package) => format!("install it: apt install {package}"),
            None => "correct source.program, or its permissions".to_owned(),
        }
    }
}

/// The command line for a source on a machine with these tools. `password` is that of its login.
///
/// # Errors
/// What is missing, and the package that has it.
pub fn expand(settings: &StreamSettings, tools: &Tools, password: Option<&str>) -> Result<Launch, Reason> {
    let secrets = |login: &Option<Login>| Secret::of(login.as_ref(), password);
    match settings {
        StreamSettings::Command { program, format, film, repeat } => {
            let line = CommandLine::of_user(program).ok_or_else(|| wrong("source.program is empty"))?;
            Ok(Launch { repeat: *repeat, ..Launch::of(line, *format, !film) })
        }
        StreamSettings::Rtsp { url, login, transport, reading } => {
            let login = secrets(login);
            match choose(reading.via, tools, login.is_some())? {
                Via::Ffmpeg => Ok(ffmpeg::rtsp(url, login, *transport, reading, tools)),
                Via::Gstreamer => gstreamer::rtsp(url, login, *transport, reading, tools),
                Via::Curl => Err(wrong("source.via: curl reads no RTSP; use ffmpeg or gstreamer")),
            }
        }
        StreamSettings::Video { path, repeat, realtime, reading } => {
            let path = path.to_str().ok_or_else(|| wrong("source.path is not UTF-8; rename the file"))?;
            let mut launch = match choose(reading.via, tools, false)? {
                Via::Ffmpeg => ffmpeg::video(path, *realtime, reading, tools),
                Via::Gstreamer => gstreamer::video(path, *realtime, reading, tools)?,
                Via::Curl => return Err(wrong("source.via: curl reads no video; use ffmpeg or gstreamer")),
            };
            launch.repeat = *repeat;
            Ok(launch)
        }
        StreamSettings::HttpMjpeg { url, login, via, extra } => {
            mjpeg::http(url, secrets(login), *via, extra, tools)
        }
        StreamSettings::CsiPi(sensor) => mjpeg::pi(sensor, tools),
        StreamSettings::CsiJetson(sensor) => mjpeg::jetson(sensor, tools),
    }
}

fn wrong(detail: impl Into<String>) -> Reason {
    Reason::new(ReasonCode::BadRequest, detail.into())
}

fn missing(program: &str) -> Reason {
    let package = package(program).unwrap_or(program);
    wrong(format!("source: the program {program} is not installed; install it: apt install {package}"))
}

/// Which program reads compressed video.
fn choose(wanted: Option<Via>, tools: &Tools, login: bool) -> Result<Via, Reason> {
    let board = matches!(tools.board, Board::Jetson | Board::RaspberryPi { h264: true });
    match wanted {
        Some(Via::Ffmpeg) if !tools.ffmpeg => Err(missing("ffmpeg")),
        Some(Via::Gstreamer) if !tools.gstreamer => Err(missing("gst-launch-1.0")),
        Some(via) => Ok(via),
        None if tools.gstreamer && board && !login => Ok(Via::Gstreamer),
        None if tools.ffmpeg => Ok(Via::Ffmpeg),
        None if tools.gstreamer => Ok(Via::Gstreamer),
        None => Err(wrong(format!(
            "source: neither ffmpeg nor gst-launch-1.0 is installed; install one: apt install ffmpeg (or {})",
            package("gst-launch-1.0").unwrap_or_default()
        ))),
    }
}
