//! The kinds of `source` that another program reads: `command`, `rtsp`, `http_mjpeg`, `video`,
//! `csi_pi`, `csi_jetson`.

use super::file::{Node, Section};
use super::value::{boolean, number, one_of, path, shorten, text, whole};
use crate::domain::source::SourceSettings;
use crate::domain::stream::{Login, Reading, Sensor, StreamFormat, StreamSettings, Transport, Via};

/// Words of a command line, and the length of one.
const MAX_WORDS: usize = 128;
const MAX_WORD: usize = 4096;

const VIA: [(&str, Via); 2] = [("ffmpeg", Via::Ffmpeg), ("gstreamer", Via::Gstreamer)];
const VIA_HTTP: [(&str, Via); 3] =
    [("curl", Via::Curl), ("ffmpeg", Via::Ffmpeg), ("gstreamer", Via::Gstreamer)];

/// A program of the user's own.
pub fn command(section: &mut Section<'_>) -> Option<SourceSettings> {
    let at = section.at.clone();
    let misnamed = section.misnamed("command", "program");
    let program = section.list("program", MAX_WORDS, word);
    if !misnamed && program.as_ref().is_none_or(Vec::is_empty) {
        section.fault(
            &at,
            "program",
            "is missing; add program = [\"/usr/local/bin/camera\", \"--its-argument\"]",
        );
    }
    let formats = one_of(&[("mjpeg", StreamFormat::Mjpeg), ("y4m", StreamFormat::Y4m)]);
    let format = section.required("format", "\"mjpeg\" or \"y4m\"", formats);
    let film = section.or("pace", false, one_of(&[("live", false), ("asked", true)]));
    let repeat = section.or("repeat", false, boolean);
    if repeat && !film {
        section.fault(&at, "repeat", "is for pace = \"asked\"; a live program is always started again");
    }
    stream(StreamSettings::Command { program: program?, format: format?, film, repeat })
}

/// A camera on the network.
pub fn rtsp(section: &mut Section<'_>) -> Option<SourceSettings> {
    let url = section.required("url", "\"rtsp://camera.local/stream1\"", |node| {
        url(node, &["rtsp", "rtsps"], "rtsp://camera.local/stream1")
    });
    let login = login(section);
    let transports = one_of(&[("tcp", Transport::Tcp), ("udp", Transport::Udp)]);
    let transport = section.or("transport", Transport::Tcp, transports);
    let reading = reading(section);
    stream(StreamSettings::Rtsp { url: url?, login, transport, reading })
}

/// A camera that sends JPEGs over HTTP.
pub fn http_mjpeg(section: &mut Section<'_>) -> Option<SourceSettings> {
    let url = section.required("url", "\"http://camera.local/video.mjpg\"", |node| {
        url(node, &["http", "https"], "http://camera.local/video.mjpg")
    });
    let login = login(section);
    let via = section.optional("via", one_of(&VIA_HTTP));
    let extra = extra(section);
    stream(StreamSettings::HttpMjpeg { url: url?, login, via, extra })
}

/// A video file.
pub fn video(section: &mut Section<'_>) -> Option<SourceSettings> {
    let file = section.required("path", "\"/srv/film.mp4\"", path);
    let repeat = section.or("repeat", true, boolean);
    let realtime = section.or("realtime", false, boolean);
    let reading = reading(section);
    stream(StreamSettings::Video { path: file?, repeat, realtime, reading })
}

/// A ribbon-cable camera of a Raspberry Pi.
pub fn csi_pi(section: &mut Section<'_>) -> Option<SourceSettings> {
    stream(StreamSettings::CsiPi(sensor(section)))
}

/// A ribbon-cable camera of a Jetson.
pub fn csi_jetson(section: &mut Section<'_>) -> Option<SourceSettings> {
    stream(StreamSettings::CsiJetson(sensor(section)))
}

fn stream(settings: StreamSettings) -> Option<SourceSettings> {
    Some(SourceSettings::Stream(settings))
}

fn word(node: &Node) -> Result<String, String> {
    let word = text(node)?;
    if word.len() > MAX_WORD || word.contains('\0') {
        return Err(format!("\"{}\" is no word of a command line", shorten(word)));
    }
    Ok(word.to_owned())
}

fn url(node: &Node, schemes: &[&str], example: &str) -> Result<String, String> {
    let written = text(node)?;
    let url: url::Url = written
        .parse()
        .map_err(|error| format!("\"{}\" is no URL ({error}); write it like {example}", shorten(written)))?;
    if !url.username().is_empty() || url.password().is_some() {
        // Not repeated in the message: it may be a password.
        return Err("names a user or a password, which do not belong in a URL; use source.user and \
                    source.password_file"
            .into());
    }
    if !schemes.contains(&url.scheme()) || url.host_str().unwrap_or_default().is_empty() {
        return Err(format!("\"{}\" names no such camera; write it like {example}", shorten(written)));
    }
    if written.len() > MAX_WORD || url.as_str().contains(['\\', '"', '\'', ' ']) {
        return Err(format!("\"{}\" has signs that no URL has; write them as %xx", shorten(written)));
    }
    Ok(url.into())
}

fn login(section: &mut Section<'_>) -> Option<Login> {
    let at = section.at.clone();
    let user = section.optional("user", word);
    let password_file = section.secret_file("password_file");
    match (user, password_file) {
        (Some(user), Some(password_file)) => Some(Login { user, password_file }),
        (None, None) => None,
        (Some(_), None) => {
            section.fault(&at, "password_file", "is missing; a user needs the file with the password");
            None
        }
        (None, Some(_)) => {
            section.fault(&at, "user", "is missing; a password needs the user that it belongs to");
            None
        }
    }
}

fn reading(section: &mut Section<'_>) -> Reading {
    let at = section.at.clone();
    let edge = |node: &Node| {
        let edge = whole(16..=8192)(node)? as u32;
        if edge % 2 == 1 { Err(format!("{edge} is odd; use {}", edge + 1)) } else { Ok(edge) }
    };
    let size = match (section.optional("width", edge), section.optional("height", edge)) {
        (Some(width), Some(height)) => Some((width, height)),
        (None, None) => None,
        _ => {
            section.fault(&at, "width", "needs height beside it, and height needs width; give both or none");
            None
        }
    };
    Reading {
        size,
        fps: section.optional("fps", number(0.01..=240.0)),
        via: section.optional("via", one_of(&VIA)),
        decoder: section.optional("decoder", word),
        extra: extra(section),
    }
}

fn extra(section: &mut Section<'_>) -> Vec<String> {
    section.list("extra", MAX_WORDS, word).unwrap_or_default()
}

fn sensor(section: &mut Section<'_>) -> Sensor {
    Sensor {
        camera: section.or("camera", 0, whole(0..=15)) as u32,
        width: section.or("width", 1280, whole(64..=8192)) as u32,
        height: section.or("height", 720, whole(64..=8192)) as u32,
        fps: section.or("fps", 30, whole(1..=240)) as u32,
        extra: extra(section),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Surroundings, from_text};
    use super::*;
    use std::path::Path;

    fn read(source: &str) -> Result<SourceSettings, String> {
        let text = format!("[[pipeline]]\n[pipeline.source]\n{source}");
        match from_text(&text, Path::new("/etc/edgewarden"), &Surroundings::default()) {
            Ok(settings) => Ok(settings.pipelines[0].source.clone()),
            Err(faults) => Err(faults.to_string()),
        }
    }

    #[test]
    fn the_examples_in_agent_toml_are_valid() {
        let example = include_str!("../../agent.toml");
        let lines: Vec<&str> = example.lines().filter_map(|line| line.strip_prefix("#   ")).collect();
        let starts: Vec<usize> = (0..lines.len()).filter(|at| lines[*at].starts_with("kind = ")).collect();
        // What all sensors have is written once, after the last of them.
        let shared = lines.iter().position(|line| line.starts_with("columns = ")).unwrap();
        let sensors = ["lines", "serial", "iio", "mqtt"].map(|kind| format!("kind = \"{kind}\""));
        let mut kinds = Vec::new();
        for (index, start) in starts.iter().enumerate() {
            let end = starts.get(index + 1).copied().unwrap_or(lines.len());
            let sensor = sensors.iter().any(|kind| lines[*start].starts_with(kind));
            let tail = if sensor && end <= shared { &lines[shared..] } else { &[] };
            let block: Vec<&str> = lines[*start..end]
                .iter()
                .chain(tail)
                .copied()
                // The kernel's sensors are asked; they tell no time.
                .filter(|line| !(lines[*start].starts_with("kind = \"iio\"") && line.starts_with("time")))
                .filter(|line| line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')))
                .collect();
            let source = read(&block.join("\n")).unwrap_or_else(|faults| panic!("{block:#?}\n{faults}"));
            if let SourceSettings::Stream(stream) = source {
                kinds.push(stream.kind());
            }
        }
        assert_eq!(kinds, ["rtsp", "http_mjpeg", "video", "csi_pi", "csi_jetson", "command"]);
    }

    #[test]
    fn defaults_are_those_that_most_people_want() {
        let rtsp = read("kind = \"rtsp\"\nurl = \"rtsp://cam:554/a?channel=1&subtype=0\"\n").unwrap();
        let expected = StreamSettings::Rtsp {
            url: "rtsp://cam:554/a?channel=1&subtype=0".to_owned(),
            login: None,
            transport: Transport::Tcp,
            reading: Reading::default(),
        };
        assert_eq!(rtsp, SourceSettings::Stream(expected));
        let video = read("kind = \"video\"\npath = \"a.mp4\"\n").unwrap();
        let expected = StreamSettings::Video {
            path: "/etc/edgewarden/a.mp4".into(),
            repeat: true,
            realtime: false,
            reading: Reading::default(),
        };
        assert_eq!(video, SourceSettings::Stream(expected));
        let command = read("kind = \"command\"\nprogram = [\"a\", \"b c\"]\nformat = \"y4m\"\n").unwrap();
        let expected = StreamSettings::Command {
            program: vec!["a".into(), "b c".into()],
            format: StreamFormat::Y4m,
            film: false,
            repeat: false,
        };
        assert_eq!(command, SourceSettings::Stream(expected));
    }

    #[test]
    fn faults_name_their_remedy() {
        for (source, wanted) in [
            ("kind = \"command\"\nformat = \"mjpeg\"", "program: is missing; add program = ["),
            ("kind = \"command\"\nprogram = []\nformat = \"mjpeg\"", "program: is missing"),
            ("kind = \"command\"\ncommand = [\"a\"]\nformat = \"mjpeg\"", "command: is called program"),
            (
                "kind = \"command\"\nprogram = \"a b\"\nformat = \"mjpeg\"",
                "program: expected a list, found text",
            ),
            (
                "kind = \"command\"\nprogram = [\"a\"]",
                "format: is missing; add format = \"mjpeg\" or \"y4m\"",
            ),
            ("kind = \"command\"\nprogram = [\"a\"]\nformat = \"h264\"", "\"h264\" is not known"),
            (
                "kind = \"command\"\nprogram = [\"a\"]\nformat = \"y4m\"\nrepeat = true",
                "repeat: is for pace = \"asked\"",
            ),
            ("kind = \"rtsp\"", "url: is missing; add url = \"rtsp://camera.local/stream1\""),
            ("kind = \"rtsp\"\nurl = \"http://cam/\"", "names no such camera"),
            ("kind = \"rtsp\"\nurl = \"rtsp:///a\"", "names no such camera"),
            ("kind = \"rtsp\"\nurl = \"camera\"", "is no URL"),
            ("kind = \"rtsp\"\nurl = \"rtsp://u:hunter2@cam/\"", "use source.user and source.password_file"),
            ("kind = \"rtsp\"\nurl = \"rtsp://cam/a\\\\b\"", "signs that no URL has"),
            ("kind = \"rtsp\"\nurl = \"rtsp://cam/\"\nuser = \"u\"", "password_file: is missing"),
            ("kind = \"rtsp\"\nurl = \"rtsp://cam/\"\npassword_file = \"p\"", "user: is missing"),
            ("kind = \"rtsp\"\nurl = \"rtsp://cam/\"\npassword = \"hunter2\"", "a secret does not belong"),
            ("kind = \"rtsp\"\nurl = \"rtsp://cam/\"\nwidth = 640", "width: needs height"),
            ("kind = \"rtsp\"\nurl = \"rtsp://cam/\"\nwidth = 641\nheight = 480", "641 is odd; use 642"),
            ("kind = \"rtsp\"\nurl = \"rtsp://cam/\"\nvia = \"curl\"", "\"curl\" is not known"),
            ("kind = \"http_mjpeg\"\nurl = \"rtsp://cam/\"", "names no such camera"),
            ("kind = \"video\"", "path: is missing"),
            ("kind = \"video\"\npath = \"a\"\nfps = 0", "fps: 0 is out of range"),
            ("kind = \"csi_pi\"\nfps = 29.97", "fps: expected a whole number"),
            ("kind = \"csi_jetson\"\ncamera = 99", "camera: 99 is out of range"),
        ] {
            let faults = read(source).expect_err(source);
            assert!(faults.contains(wanted), "{source}\n  {faults}\n  wanted: {wanted}");
            assert!(!faults.contains("hunter2"), "{faults}");
        }
    }
}
