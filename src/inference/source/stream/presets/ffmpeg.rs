//! Command lines for ffmpeg.

use super::Launch;
use super::secret::Secret;
use crate::domain::stream::{Reading, StreamFormat, Transport};
use crate::inference::source::stream::tools::{Board, Tools};

/// The beginning of each line.
fn begin(live: bool, reading: &Reading, tools: &Tools) -> Launch {
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
fn out(launch: &mut Launch, reading: &Reading) {
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

/// A camera on the network.
pub(super) fn rtsp(
    url: &str,
    login: Option<Secret>,
    transport: Transport,
    reading: &Reading,
    tools: &Tools,
) -> Launch {
    let mut launch = begin(true, reading, tools);
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
            launch.line.stdin = Some(format!("ffconcat version 1.0\nfile '{entry}'\n"));
            launch.args(["-protocol_whitelist", "pipe,fd,rtsp,rtsps,rtp,srtp,tcp,udp,tls,crypto"]);
            launch.args(["-f", "concat", "-safe", "0", "-i", "pipe:0"]);
            launch.line.secrets = login.shown;
        }
    }
    out(&mut launch, reading);
    launch
}

/// A video file.
pub(super) fn video(path: &str, realtime: bool, reading: &Reading, tools: &Tools) -> Launch {
    let mut launch = begin(realtime, reading, tools);
    if realtime {
        launch.args(["-re"]);
    }
    // Without "file:" a name with a colon would be taken for another way to read.
    launch.args(["-i", &format!("file:{path}")]);
    out(&mut launch, reading);
    launch
}
