//! Video files: what is known of one before it is read, and its frames one after the other.
//!
//! They are read as a pipeline's source is, by ffmpeg or GStreamer in a process of its own. The thread that
//! reads one must live as long as its program does: the kernel ends the program with it.

use crate::domain::source::SourceSettings;
use crate::domain::stream::{Reading, StreamSettings};
use crate::domain::{Reason, ReasonCode};
use crate::inference::picture::Picture;
use crate::inference::source::{self, Next, Trouble};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Endings of video files.
const ENDINGS: [&str; 19] = [
    "mp4", "m4v", "mov", "mkv", "webm", "avi", "y4m", "mjpeg", "mjpg", "ts", "mts", "m2ts", "mpg", "mpeg",
    "wmv", "flv", "3gp", "ogv", "h264",
];
/// The source is waited for so long before the end is looked for again.
const LISTEN: Duration = Duration::from_millis(100);
/// A film that gives nothing for so long has hung.
const SILENCE: Duration = Duration::from_secs(60);
/// ffprobe has so long to look at a file.
const PROBE: Duration = Duration::from_secs(10);

/// True for the name of a video file.
pub fn is_film(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
    ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str())) && !path.is_dir()
}

/// Which frames are wanted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Thin {
    /// Each first of so many.
    Every(u64),
    /// So many for a second of film.
    Fps(f32),
}

/// What is known of a film before it is read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// Frames a second, on the whole.
    pub rate: Option<f64>,
    /// Seconds.
    pub length: Option<f64>,
    /// Frames.
    pub frames: Option<u64>,
}

impl Facts {
    /// Asks ffprobe, where it is installed; nothing is known otherwise.
    pub fn of(path: &Path) -> Self {
        probe(path).as_deref().map(Self::read).unwrap_or_default()
    }

    fn read(json: &[u8]) -> Self {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Stream {
            avg_frame_rate: String,
            nb_frames: String,
            duration: String,
        }
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Format {
            duration: String,
        }
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Probed {
            streams: Vec<Stream>,
            format: Format,
        }
        let probed: Probed = serde_json::from_slice(json).unwrap_or_default();
        let stream = probed.streams.into_iter().next().unwrap_or_default();
        let positive = |value: f64| (value.is_finite() && value > 0.0).then_some(value);
        let rate = stream
            .avg_frame_rate
            .split_once('/')
            .and_then(|(above, below)| positive(above.parse::<f64>().ok()? / below.parse::<f64>().ok()?));
        let seconds = |text: &str| text.parse().ok().and_then(positive);
        let length = seconds(&stream.duration).or_else(|| seconds(&probed.format.duration));
        let frames = stream.nb_frames.parse().ok().or_else(|| Some((rate? * length?).round() as u64));
        Self { rate, length, frames }
    }

    /// Frames that will be answered, about.
    pub fn wanted(&self, thin: Thin) -> Option<u64> {
        match thin {
            Thin::Every(step) => Some(self.frames?.div_ceil(step)),
            Thin::Fps(fps) => Some((self.length? * f64::from(fps)).ceil() as u64),
        }
    }
}

/// What ffprobe says of a file. It is ended when it takes too long.
fn probe(path: &Path) -> Option<Vec<u8>> {
    let mut name = std::ffi::OsString::from("file:");
    name.push(path);
    let wanted = "stream=avg_frame_rate,nb_frames,duration:format=duration";
    let mut child = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", "v:0", "-show_entries", wanted, "-of", "json"])
        .arg(name)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let begun = Instant::now();
    // What it says is shorter than its pipe: it ends without being read.
    let good = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status.success(),
            Ok(None) if begun.elapsed() < PROBE => std::thread::sleep(Duration::from_millis(2)),
            Ok(None) | Err(_) => break false,
        }
    };
    if !good {
        let _ = child.kill();
        let _ = child.wait();
        return None;
    }
    child.wait_with_output().ok().map(|output| output.stdout)
}

/// One frame.
pub struct Frame {
    /// Its number in the film, from 1; with [`Thin::Fps`] in the thinned one.
    pub number: u64,
    /// Seconds from the film's beginning, where its rate is known and as if it were the same throughout.
    pub time_s: Option<f64>,
    /// Itself.
    pub picture: Picture,
}

/// Reads a film to its end, or until `give` wants no more (false).
///
/// # Errors
/// What is missing to read it, or what is wrong with it; frames before the fault were given.
pub fn read(
    path: &Path,
    facts: &Facts,
    thin: Thin,
    mut give: impl FnMut(Frame) -> bool,
    stopped: impl Fn() -> bool,
) -> Result<(), Reason> {
    let path: PathBuf = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let fault =
        |reason: Reason| Reason::new(reason.code, format!("film {}: {}", path.display(), reason.detail));
    let fps = match thin {
        Thin::Every(_) => None,
        Thin::Fps(fps) => Some(fps),
    };
    let reading = Reading { fps, ..Reading::default() };
    let video = StreamSettings::Video { path: path.clone(), repeat: false, realtime: false, reading };
    let mut source = source::open(&SourceSettings::Stream(video)).map_err(fault)?;
    let rate = fps.map(f64::from).or(facts.rate);
    let step = match thin {
        Thin::Every(step) => step.max(1),
        Thin::Fps(_) => 1,
    };
    let (mut number, mut heard, mut bytes) = (0, Instant::now(), Vec::new());
    while !stopped() {
        match source.next(number + 1, &mut bytes, LISTEN) {
            Ok(Next::Picture(found)) => {
                heard = Instant::now();
                number += 1;
                if (number - 1) % step != 0 {
                    continue;
                }
                let picture =
                    Picture::of_bytes(found.format, found.width, found.height, std::mem::take(&mut bytes));
                let time_s = rate.map(|rate| (number - 1) as f64 / rate);
                if !give(Frame { number, time_s, picture }) {
                    break;
                }
            }
            Ok(Next::Pending) if heard.elapsed() > SILENCE => {
                let detail = format!("gave nothing for {SILENCE:?} after frame {number}");
                return Err(fault(Reason::new(ReasonCode::TooSlow, detail)));
            }
            Ok(Next::Pending) => {}
            Ok(Next::Ended) => break,
            // A source would begin again with the first frame.
            Err(Trouble::Frame(reason) | Trouble::Lost(reason)) => return Err(fault(reason)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn films_are_told_by_their_names() {
        assert!(is_film(Path::new("a/B.MP4")) && is_film(Path::new("x.y4m")));
        assert!(!is_film(Path::new("a.jpg")) && !is_film(Path::new("mp4")));
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("folder.mov")).unwrap();
        assert!(!is_film(&dir.path().join("folder.mov")));
    }

    #[test]
    fn what_ffprobe_says_is_read_as_far_as_it_makes_sense() {
        let facts = Facts::read(
            br#"{"streams":[{"avg_frame_rate":"30000/1001","duration":"2.002","nb_frames":"60"}],"format":{"duration":"9"}}"#,
        );
        assert!((facts.rate.unwrap() - 29.97).abs() < 1e-3);
        assert_eq!((facts.length, facts.frames), (Some(2.002), Some(60)));
        assert_eq!(facts.wanted(Thin::Every(7)), Some(9));
        assert_eq!(facts.wanted(Thin::Fps(2.0)), Some(5));
        // Matroska tells no number of frames.
        let facts = Facts::read(br#"{"streams":[{"avg_frame_rate":"25/1"}],"format":{"duration":"4.0"}}"#);
        assert_eq!((facts.rate, facts.frames), (Some(25.0), Some(100)));
        for none in [&br#"{"streams":[{"avg_frame_rate":"0/0","duration":"N/A"}]}"#[..], b"{}", b"", b"no"] {
            assert_eq!(Facts::read(none), Facts::default());
        }
    }
}
