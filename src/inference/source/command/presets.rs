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
#[cfg(test)]
mod tests;

pub use elements::{DECODERS, needed, package};

use super::tools::{Board, Tools};
use crate::domain::stream::{Login, Reading, Sensor, StreamFormat, StreamSettings, Transport, Via};
use crate::domain::{Reason, ReasonCode};
use std::fmt;
use std::path::Path;

/// A command line, ready to be run.
#[derive(Clone, PartialEq, Eq)]
pub struct Launch {
    /// A name on the search path, or a path.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Set beside the agent's own environment.
    pub environment: Vec<(&'static str, String)>,
    /// What it reads on standard input, at most a few lines; may hold a password.
    pub stdin: Option<String>,
    /// What must not be shown of its words.
    pub secrets: Vec<String>,
    /// What it writes.
    pub format: StreamFormat,
    /// A camera: the newest frame counts. Else a film, whose frames all count.
    pub live: bool,
    /// A film that begins again at its end.
    pub repeat: bool,
    /// It may start other programs, which must not outlive it.
    pub guarded: bool,
    /// For people: what could be better.
    pub notes: Vec<String>,
}

impl Launch {
    fn new(program: &str, format: StreamFormat, live: bool) -> Self {
        Self {
            program: program.to_owned(),
            args: Vec::new(),
            environment: Vec::new(),
            stdin: None,
            secrets: Vec::new(),
            format,
            live,
            repeat: false,
            guarded: false,
            notes: Vec::new(),
        }
    }

    fn args<S: Into<String>>(&mut self, args: impl IntoIterator<Item = S>) -> &mut Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// The program's name without its folder.
    pub fn name(&self) -> String {
        let name = Path::new(&self.program).file_name();
        name.map_or_else(|| self.program.clone(), |name| name.to_string_lossy().into_owned())
    }

    /// What to do when it cannot be run.
    pub fn remedy(&self) -> String {
        match package(&self.name()) {
            Some(package) => format!("install it: apt install {package}"),
            None => "correct source.program, or its permissions".to_owned(),
        }
    }
}

/// As one would write it in a shell, without secrets.
impl fmt::Display for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let safe = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
        for (index, word) in std::iter::once(&self.program).chain(&self.args).enumerate() {
            let mut word = word.clone();
            for secret in self.secrets.iter().filter(|secret| !secret.is_empty()) {
                word = word.replace(secret.as_str(), "***");
            }
            let space = if index == 0 { "" } else { " " };
            if !word.is_empty() && word.chars().all(safe) {
                write!(f, "{space}{word}")?;
            } else {
                write!(f, "{space}'{}'", word.replace('\'', "'\\''"))?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Launch({self})")
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
            let (first, rest) = program.split_first().ok_or_else(|| wrong("source.program is empty"))?;
            let mut launch = Launch::new(first, *format, !film);
            launch.args(rest);
            (launch.repeat, launch.guarded) = (*repeat, true);
            Ok(launch)
        }
        StreamSettings::Rtsp { url, login, transport, reading } => {
            let login = secrets(login);
            match choose(reading.via, tools, login.is_some())? {
                Via::Ffmpeg => Ok(ffmpeg_rtsp(url, login, *transport, reading, tools)),
                Via::Gstreamer => gstreamer_rtsp(url, login, *transport, reading, tools),
                Via::Curl => Err(wrong("source.via: curl reads no RTSP; use ffmpeg or gstreamer")),
            }
        }
        StreamSettings::Video { path, repeat, realtime, reading } => {
            let path = path.to_str().ok_or_else(|| wrong("source.path is not UTF-8; rename the file"))?;
            let mut launch = match choose(reading.via, tools, false)? {
                Via::Ffmpeg => ffmpeg_video(path, *realtime, reading, tools),
                Via::Gstreamer => gstreamer_video(path, *realtime, reading, tools)?,
                Via::Curl => return Err(wrong("source.via: curl reads no video; use ffmpeg or gstreamer")),
            };
            launch.repeat = *repeat;
            Ok(launch)
        }
        StreamSettings::HttpMjpeg { url, login, via, extra } => {
            http_mjpeg(url, secrets(login), *via, extra, tools)
        }
        StreamSettings::CsiPi(sensor) => csi_pi(sensor, tools),
        StreamSettings::CsiJetson(sensor) => csi_jetson(sensor, tools),
    }
}

/// A user, and the password in both ways that it may be written.
struct Secret {
    user: String,
    password: String,
    /// `user:password` as a URL wants it.
    in_url: String,
    shown: Vec<String>,
}

impl Secret {
    fn of(login: Option<&Login>, password: Option<&str>) -> Option<Self> {
        let login = login?;
        let password = password.unwrap_or_default();
        // What is neither letter nor digit means something somewhere: in a URL, in ffmpeg's list.
        let encode = |text: &str| -> String {
            let plain = |byte: u8| byte.is_ascii_alphanumeric();
            text.bytes()
                .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
                .collect()
        };
        let in_url = format!("{}:{}", encode(&login.user), encode(password));
        let shown = vec![password.to_owned(), encode(password)];
        Some(Self { user: login.user.clone(), password: password.to_owned(), in_url, shown })
    }

    /// The URL with the login in it.
    fn url(&self, url: &str) -> String {
        url.replacen("://", &format!("://{}@", self.in_url), 1)
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

// ---- ffmpeg ----

fn ffmpeg(live: bool, reading: &Reading, tools: &Tools) -> Launch {
    let mut launch = Launch::new("ffmpeg", StreamFormat::Y4m, live);
    launch.args(["-nostdin", "-hide_banner", "-loglevel", "warning"]);
    if let Some(decoder) = &reading.decoder {
        launch.args(["-c:v", decoder]);
    } else if tools.board == (Board::RaspberryPi { h264: true }) {
        let note = "decoded by the processor; for H.264 decoder = \"h264_v4l2m2m\" uses the board's decoder";
        launch.notes.push(note.to_owned());
    } else if tools.board == Board::Jetson {
        launch
            .notes
            .push("decoded by the processor; via = \"gstreamer\" uses the board's decoder".to_owned());
    }
    launch.args(&reading.extra);
    launch
}

/// The end of the line: what is made of the decoded pictures.
fn ffmpeg_out(launch: &mut Launch, reading: &Reading) {
    let size = match reading.size {
        Some((width, height)) => format!("scale={width}:{height}:flags=bilinear"),
        // 4:2:0 needs even sizes; a cut costs nothing.
        None => "crop=trunc(iw/2)*2:trunc(ih/2)*2".to_owned(),
    };
    // Without a wanted rate each frame comes once. Y4M has a fixed rate, for which ffmpeg would double
    // frames and leave some out; the option against that has changed its name, the filter has not.
    let (rate, fixed) = match reading.fps {
        Some(fps) => (format!("fps={fps}"), None),
        None => ("settb=1/25,setpts=N".to_owned(), Some(["-r", "25"])),
    };
    launch.args(["-map", "0:v:0", "-vf", &format!("{size},{rate}")]);
    launch.args(fixed.into_iter().flatten());
    launch.args(["-pix_fmt", "yuv420p", "-f", "yuv4mpegpipe", "pipe:1"]);
}

fn ffmpeg_rtsp(
    url: &str,
    login: Option<Secret>,
    transport: Transport,
    reading: &Reading,
    tools: &Tools,
) -> Launch {
    let mut launch = ffmpeg(true, reading, tools);
    let transport = match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    };
    launch.args(["-fflags", "nobuffer", "-flags", "low_delay"]);
    match login {
        None => {
            launch.args(["-rtsp_transport", transport, "-i", url]);
        }
        Some(login) => {
            // The demuxer takes the transport from the end of the URL, in every version.
            let joint = if url.contains('?') { '&' } else { '?' };
            let entry = format!("{}{joint}{transport}", login.url(url)).replace('\'', "%27");
            launch.stdin = Some(format!("ffconcat version 1.0\nfile '{entry}'\n"));
            launch.args(["-protocol_whitelist", "pipe,fd,rtsp,rtsps,rtp,srtp,tcp,udp,tls,crypto"]);
            launch.args(["-f", "concat", "-safe", "0", "-i", "pipe:0"]);
            launch.secrets = login.shown;
        }
    }
    ffmpeg_out(&mut launch, reading);
    launch
}

fn ffmpeg_video(path: &str, realtime: bool, reading: &Reading, tools: &Tools) -> Launch {
    let mut launch = ffmpeg(realtime, reading, tools);
    if realtime {
        launch.args(["-re"]);
    }
    // Without "file:" a name with a colon would be taken for another way to read.
    launch.args(["-i", &format!("file:{path}")]);
    ffmpeg_out(&mut launch, reading);
    launch
}

// ---- GStreamer ----

fn gstreamer(format: StreamFormat, live: bool, tools: &Tools) -> Launch {
    let mut launch = Launch::new("gst-launch-1.0", format, live);
    if let Some(cache) = &tools.cache {
        let list = cache.join("gstreamer-registry.bin");
        launch.environment.push(("GST_REGISTRY", list.to_string_lossy().into_owned()));
    }
    launch.args(["-q"]);
    launch
}

/// A value in the language of `gst-launch-1.0`.
fn quoted(name: &str, value: &str) -> String {
    format!("{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

fn gstreamer_login(launch: &mut Launch, login: Option<Secret>) {
    if let Some(login) = login {
        launch.args([quoted("user-id", &login.user), quoted("user-pw", &login.password)]);
        launch.secrets = login.shown;
        launch.secrets.push(login.password.replace('\\', "\\\\").replace('"', "\\\""));
        launch.notes.push(
            "GStreamer takes the password in its command line, where every user of this machine can read it; \
             install ffmpeg (or curl, for http_mjpeg) to keep it out of sight"
                .to_owned(),
        );
    }
}

/// From compressed video to Y4M.
fn gstreamer_out(launch: &mut Launch, reading: &Reading, tools: &Tools) -> Result<(), Reason> {
    match &reading.decoder {
        None => launch.args(["!", "decodebin"]),
        Some(decoder) => launch.args(["!", "parsebin", "!", decoder]),
    };
    // Through NV12 in any case: the decoders give I420 in buffers with padded rows, which y4menc passes
    // on as they are, and then no reader can follow. The copies into and out of NV12 have none.
    let mut caps = "video/x-raw,format=NV12".to_owned();
    if let Some((width, height)) = reading.size {
        if width % 8 != 0 {
            return Err(wrong(format!(
                "source.width: {width} is no multiple of 8, which GStreamer's y4menc needs; use {}",
                (width + 4) / 8 * 8
            )));
        }
        caps = format!("{caps},width={width},height={height}");
    }
    match tools.board {
        Board::Jetson => launch.args(["!", "nvvidconv"]),
        Board::Other | Board::RaspberryPi { .. } => launch.args(["!", "videoconvert", "!", "videoscale"]),
    };
    launch.args(["!", &caps]);
    match reading.fps {
        // A camera is only thinned out, a film is had at that rate.
        Some(fps) if launch.live => {
            launch.args(["!", "videorate", "drop-only=true", &format!("max-rate={}", fps.ceil())]);
        }
        Some(fps) => {
            let rate = format!("video/x-raw,framerate={}/1000", (fps * 1000.0).round());
            launch.args(["!", "videorate", "!", &rate]);
        }
        None => {}
    }
    if launch.live {
        // The newest frame wins here, too, should the reader be slow. Before y4menc, whose first buffer
        // holds the header of the stream and must not be left out.
        launch.args(["!", "queue", "leaky=downstream"]);
        launch.args(["max-size-buffers=2", "max-size-bytes=0", "max-size-time=0"]);
    }
    launch.args(["!", "videoconvert", "!", "video/x-raw,format=I420", "!", "y4menc", "!"]);
    Ok(())
}

fn gstreamer_rtsp(
    url: &str,
    login: Option<Secret>,
    transport: Transport,
    reading: &Reading,
    tools: &Tools,
) -> Result<Launch, Reason> {
    let mut launch = gstreamer(StreamFormat::Y4m, true, tools);
    let transport = match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    };
    launch.args(["rtspsrc", &quoted("location", url), &format!("protocols={transport}"), "latency=100"]);
    gstreamer_login(&mut launch, login);
    launch.args(&reading.extra);
    // Sound has a branch of its own and is left out.
    launch.args(["!", "application/x-rtp,media=video"]);
    gstreamer_out(&mut launch, reading, tools)?;
    launch.args(["fdsink", "fd=1", "sync=false"]);
    Ok(launch)
}

fn gstreamer_video(path: &str, realtime: bool, reading: &Reading, tools: &Tools) -> Result<Launch, Reason> {
    let mut launch = gstreamer(StreamFormat::Y4m, realtime, tools);
    launch.args(["filesrc", &quoted("location", path)]);
    launch.args(&reading.extra);
    gstreamer_out(&mut launch, reading, tools)?;
    launch.args(["fdsink", "fd=1", &format!("sync={realtime}")]);
    Ok(launch)
}

// ---- JPEGs ----

fn http_mjpeg(
    url: &str,
    login: Option<Secret>,
    via: Option<Via>,
    extra: &[String],
    tools: &Tools,
) -> Result<Launch, Reason> {
    // curl passes the bytes on and takes the least memory.
    let via = match via {
        None if tools.curl => Via::Curl,
        None if !tools.ffmpeg && !tools.gstreamer => return Err(missing("curl")),
        Some(Via::Curl) if !tools.curl => return Err(missing("curl")),
        Some(Via::Curl) => Via::Curl,
        // Their own order, but for the password.
        via => choose(via, &Tools { board: Board::Other, ..tools.clone() }, login.is_some())?,
    };
    let mut launch = match via {
        Via::Curl => Launch::new("curl", StreamFormat::Mjpeg, true),
        Via::Ffmpeg => Launch::new("ffmpeg", StreamFormat::Mjpeg, true),
        Via::Gstreamer => gstreamer(StreamFormat::Mjpeg, true, tools),
    };
    match via {
        Via::Curl => {
            launch.args(["--silent", "--show-error", "--fail", "--no-buffer", "--globoff"]);
            launch.args([
                "--location",
                "--max-redirs",
                "3",
                "--proto",
                "=http,https",
                "--connect-timeout",
                "10",
            ]);
            if let Some(login) = login {
                let user = format!("{}:{}", login.user, login.password);
                let user = user.replace('\\', "\\\\").replace('"', "\\\"");
                launch.stdin = Some(format!("anyauth\nuser = \"{user}\"\n"));
                launch.args(["--config", "-"]);
                launch.secrets = login.shown;
            }
            launch.args(extra).args(["--url", url]);
        }
        Via::Ffmpeg => {
            launch.args(["-nostdin", "-hide_banner", "-loglevel", "warning", "-fflags", "nobuffer"]);
            launch.args(extra);
            let mut from = url.to_owned();
            if let Some(login) = login {
                from = login.url(url);
                launch.secrets = login.shown;
                launch.notes.push(
                    "ffmpeg takes the password in its command line, where every user of this machine can read \
                     it; install curl to keep it out of sight"
                        .to_owned(),
                );
            }
            launch.args(["-f", "mpjpeg", "-i", &from]);
            launch.args(["-map", "0:v:0", "-c:v", "copy", "-f", "mjpeg", "pipe:1"]);
        }
        Via::Gstreamer => {
            launch.args(["souphttpsrc", &quoted("location", url), "is-live=true", "do-timestamp=true"]);
            gstreamer_login(&mut launch, login);
            launch.args(extra);
            launch.args(["!", "multipartdemux", "single-stream=true", "!", "image/jpeg", "!"]);
            launch.args(["fdsink", "fd=1", "sync=false"]);
        }
    }
    Ok(launch)
}

fn csi_pi(sensor: &Sensor, tools: &Tools) -> Result<Launch, Reason> {
    let mut launch =
        Launch::new(tools.rpicam.ok_or_else(|| missing("rpicam-vid"))?, StreamFormat::Mjpeg, true);
    launch.args(["--nopreview", "--timeout", "0", "--codec", "mjpeg", "--flush"]);
    for (name, value) in [
        ("--camera", sensor.camera),
        ("--width", sensor.width),
        ("--height", sensor.height),
        ("--framerate", sensor.fps),
    ] {
        launch.args([name, &value.to_string()]);
    }
    launch.args(&sensor.extra).args(["--output", "-"]);
    Ok(launch)
}

fn csi_jetson(sensor: &Sensor, tools: &Tools) -> Result<Launch, Reason> {
    if !tools.gstreamer {
        return Err(missing("gst-launch-1.0"));
    }
    let mut launch = gstreamer(StreamFormat::Mjpeg, true, tools);
    let Sensor { camera, width, height, fps, extra } = sensor;
    launch.args(["nvarguscamerasrc", &format!("sensor-id={camera}")]).args(extra);
    let caps = format!("video/x-raw(memory:NVMM),width={width},height={height},framerate={fps}/1");
    launch.args(["!", &caps, "!", "nvjpegenc", "!", "fdsink", "fd=1", "sync=false"]);
    Ok(launch)
}
