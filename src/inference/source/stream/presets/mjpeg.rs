//! Command lines for cameras whose JPEGs travel as they are: over HTTP, and on ribbon cables.

use super::secret::Secret;
use super::{Launch, choose, gstreamer, missing};
use crate::domain::Reason;
use crate::domain::stream::{Sensor, StreamFormat, Via};
use crate::inference::source::stream::tools::{Board, Tools};

/// A camera that sends JPEGs over HTTP.
pub(super) fn http(
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
        Via::Gstreamer => gstreamer::begin(StreamFormat::Mjpeg, true, tools),
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
                launch.line.stdin = Some(format!("anyauth\nuser = \"{user}\"\n"));
                launch.args(["--config", "-"]);
                launch.line.secrets = login.shown;
            }
            launch.args(extra).args(["--url", url]);
        }
        Via::Ffmpeg => {
            launch.args(["-nostdin", "-hide_banner", "-loglevel", "warning", "-fflags", "nobuffer"]);
            launch.args(extra);
            let mut from = url.to_owned();
            if let Some(login) = login {
                from = login.url(url);
                launch.line.secrets = login.shown;
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
            launch.args([
                "souphttpsrc",
                &gstreamer::quoted("location", url),
                "is-live=true",
                "do-timestamp=true",
            ]);
            gstreamer::add_login(&mut launch, login);
            launch.args(extra);
            launch.args(["!", "multipartdemux", "single-stream=true", "!", "image/jpeg", "!"]);
            launch.args(["fdsink", "fd=1", "sync=false"]);
        }
    }
    Ok(launch)
}

/// A ribbon-cable camera of a Raspberry Pi.
pub(super) fn pi(sensor: &Sensor, tools: &Tools) -> Result<Launch, Reason> {
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

/// A ribbon-cable camera of a Jetson.
pub(super) fn jetson(sensor: &Sensor, tools: &Tools) -> Result<Launch, Reason> {
    if !tools.gstreamer {
        return Err(missing("gst-launch-1.0"));
    }
    let mut launch = gstreamer::begin(StreamFormat::Mjpeg, true, tools);
    let Sensor { camera, width, height, fps, extra } = sensor;
    launch.args(["nvarguscamerasrc", &format!("sensor-id={camera}")]).args(extra);
    let caps = format!("video/x-raw(memory:NVMM),width={width},height={height},framerate={fps}/1");
    launch.args(["!", &caps, "!", "nvjpegenc", "!", "fdsink", "fd=1", "sync=false"]);
    Ok(launch)
}
