//! Command lines for GStreamer.

use super::secret::Secret;
use super::{Launch, wrong};
use crate::domain::Reason;
use crate::domain::stream::{Reading, StreamFormat, Transport};
use crate::inference::source::stream::tools::{Board, Tools};

/// The beginning of each line.
pub(super) fn begin(format: StreamFormat, live: bool, tools: &Tools) -> Launch {
    let mut launch = Launch::new("gst-launch-1.0", format, live);
    if let Some(cache) = &tools.cache {
        let list = cache.join("gstreamer-registry.bin");
        launch.line.environment.push(("GST_REGISTRY", list.to_string_lossy().into_owned()));
    }
    launch.args(["-q"]);
    launch
}

/// A value in the language of `gst-launch-1.0`.
pub(super) fn quoted(name: &str, value: &str) -> String {
    format!("{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The login, as properties of the element that stands last.
pub(super) fn add_login(launch: &mut Launch, login: Option<Secret>) {
    if let Some(login) = login {
        launch.args([quoted("user-id", &login.user), quoted("user-pw", &login.password)]);
        launch.line.secrets = login.shown;
        launch.line.secrets.push(login.password.replace('\\', "\\\\").replace('"', "\\\""));
        launch.notes.push(
            "GStreamer takes the password in its command line, where every user of this machine can read it; \
             install ffmpeg (or curl, for http_mjpeg) to keep it out of sight"
                .to_owned(),
        );
    }
}

/// From compressed video to Y4M.
fn out(launch: &mut Launch, reading: &Reading, tools: &Tools) -> Result<(), Reason> {
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

/// A camera on the network.
pub(super) fn rtsp(
    url: &str,
    login: Option<Secret>,
    transport: Transport,
    reading: &Reading,
    tools: &Tools,
) -> Result<Launch, Reason> {
    let mut launch = begin(StreamFormat::Y4m, true, tools);
    let transport = match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    };
    launch.args(["rtspsrc", &quoted("location", url), &format!("protocols={transport}"), "latency=100"]);
    add_login(&mut launch, login);
    launch.args(&reading.extra);
    // Sound has a branch of its own and is left out.
    launch.args(["!", "application/x-rtp,media=video"]);
    out(&mut launch, reading, tools)?;
    launch.args(["fdsink", "fd=1", "sync=false"]);
    Ok(launch)
}

/// A video file.
pub(super) fn video(path: &str, realtime: bool, reading: &Reading, tools: &Tools) -> Result<Launch, Reason> {
    let mut launch = begin(StreamFormat::Y4m, realtime, tools);
    launch.args(["filesrc", &quoted("location", path)]);
    launch.args(&reading.extra);
    out(&mut launch, reading, tools)?;
    launch.args(["fdsink", "fd=1", &format!("sync={realtime}")]);
    Ok(launch)
}
