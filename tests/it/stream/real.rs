//! Real films and real cameras: H.264 from a file and from an RTSP server, JPEGs over HTTP, each by
//! every program that can read it.

use super::{ask, frame, open};
use crate::support::colour_model::jpeg;
use crate::support::stream::{
    GSTREAMER, HttpCamera, RtspServer, command_line, film, grey_of, installed, running,
};
use crate::support::{Config, Edgewarden, HANG, wait_until};
use edgewarden::domain::FrameFormat;
use edgewarden::domain::stream::{Login, Reading, StreamSettings, Transport, Via};
use edgewarden::inference::source::{Pace, Source, Trouble};
use std::path::Path;
use std::sync::atomic::Ordering;

fn by(via: Via) -> Reading {
    Reading { via: Some(via), ..Reading::default() }
}

fn video(path: &Path, realtime: bool, reading: Reading) -> Box<dyn Source> {
    open(StreamSettings::Video { path: path.to_owned(), repeat: false, realtime, reading })
}

fn rtsp(url: String, login: Option<Login>, transport: Transport, via: Via) -> Box<dyn Source> {
    open(StreamSettings::Rtsp { url, login, transport, reading: by(via) })
}

/// Programs that are here, ffmpeg at least.
fn readers() -> Vec<Via> {
    if !installed(&["ffmpeg"]) {
        return Vec::new();
    }
    let gstreamer = installed(&GSTREAMER).then_some(Via::Gstreamer);
    std::iter::once(Via::Ffmpeg).chain(gstreamer).collect()
}

#[test]
fn every_frame_of_a_film_comes_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    // The second has rows that no alignment fits.
    for (size, vias) in [((640, 360), readers()), ((322, 242), readers().into_iter().take(1).collect())] {
        for via in vias {
            let path = film(folder.path(), size, 120);
            let mut source = video(&path, false, by(via));
            assert_eq!(source.pace(), Pace::Asked);
            for number in 0..120 {
                let (picture, bytes) = frame(&mut *source);
                assert_eq!(
                    (picture.width, picture.height, picture.format),
                    (size.0, size.1, FrameFormat::I420)
                );
                assert_eq!(bytes.len() as u32, size.0 * size.1 / 2 * 3);
                let grey = bytes[bytes.len() / 3];
                assert!(grey.abs_diff(grey_of(number)) <= 3, "{via:?}: frame {number} is {grey}");
            }
            assert_eq!(ask(&mut *source, &mut Vec::new()), Ok(None), "{via:?}");
        }
    }
}

#[test]
fn a_width_that_gstreamer_cannot_write_is_told_before_a_picture_is_askew() {
    let folder = tempfile::tempdir().unwrap();
    if readers().contains(&Via::Gstreamer) {
        let path = film(folder.path(), (322, 242), 5);
        let trouble = ask(&mut *video(&path, false, by(Via::Gstreamer)), &mut Vec::new());
        let Err(Trouble::Frame(reason)) = trouble else { panic!("{trouble:?}") };
        assert!(reason.detail.contains("in steps of 8"), "{reason}");
    }
}

#[test]
fn a_film_is_scaled_and_thinned_out_where_it_is_decoded() {
    let folder = tempfile::tempdir().unwrap();
    for via in readers() {
        let path = film(folder.path(), (640, 360), 50);
        let reading = Reading { size: Some((320, 180)), fps: Some(5.0), ..by(via) };
        let mut source = video(&path, false, reading);
        let mut frames = 0;
        let mut into = Vec::new();
        while let Some(picture) = ask(&mut *source, &mut into).unwrap() {
            assert_eq!((picture.width, picture.height, into.len()), (320, 180, 320 * 180 / 2 * 3));
            frames += 1;
        }
        // Two seconds of film; the programs differ in what they do at its ends.
        assert!((10..=11).contains(&frames), "{via:?}: {frames}");
        let mut live = video(&path, true, by(via));
        assert_eq!(live.pace(), Pace::Live);
        frame(&mut *live);
    }
}

#[test]
fn a_broken_film_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.mp4");
    std::fs::write(&path, "this is no film".repeat(1000)).unwrap();
    for via in readers() {
        let Err(Trouble::Frame(reason)) = ask(&mut *video(&path, false, by(via)), &mut Vec::new()) else {
            panic!("not told")
        };
        println!("{reason}");
        assert!(reason.detail.contains("source video:"), "{reason}");
        assert!(!reason.detail.contains("without a word"), "{reason}");
    }
}

#[test]
fn a_network_camera_that_is_killed_comes_back() {
    if !RtspServer::installed() {
        return;
    }
    for via in readers() {
        for transport in [Transport::Tcp, Transport::Udp] {
            let server = RtspServer::start(0, None);
            let (port, url) = (server.port, server.url());
            let mut camera = rtsp(url, None, transport, via);
            assert_eq!(camera.pace(), Pace::Live);
            for _ in 0..10 {
                let (picture, bytes) = frame(&mut *camera);
                assert_eq!((picture.width, picture.height, picture.format), (320, 240, FrameFormat::I420));
                assert_eq!(bytes.len(), 320 * 240 * 3 / 2);
                assert!(picture.captured_mono_ns.is_some());
            }
            if transport == Transport::Udp {
                // Its death is no news on that way: the agent's stall timeout finds it.
                continue;
            }
            drop(server);
            let mut into = Vec::new();
            let trouble = loop {
                match ask(&mut *camera, &mut into) {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("a camera does not end"),
                    Err(trouble) => break trouble,
                }
            };
            assert!(matches!(trouble, Trouble::Frame(_)), "{trouble:?}");
            let _server = RtspServer::start(port, None);
            frame(&mut *camera);
        }
    }
}

#[test]
fn a_password_opens_the_camera_and_is_seen_nowhere() {
    if !RtspServer::installed() || readers().is_empty() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    let password = "71005 sé:c'r@t/?%";
    std::fs::write(&file, format!("{password}\n")).unwrap();
    let login = || Some(Login { user: "me".to_owned(), password_file: file.clone() });
    let server = RtspServer::start(0, Some(password));
    let servers: Vec<u32> = running(password);
    for via in readers() {
        let mut camera = rtsp(server.url(), login(), Transport::Tcp, via);
        frame(&mut *camera);
        let seen: Vec<u32> = running(password).into_iter().filter(|pid| !servers.contains(pid)).collect();
        let encoded = running("71005%20");
        match via {
            Via::Gstreamer => assert!(!seen.is_empty(), "then the note of `check` is wrong"),
            _ => assert!(seen.is_empty() && encoded.is_empty(), "{:?}", command_line(seen[0])),
        }
    }
    std::fs::write(&file, "71005 wrong").unwrap();
    for via in readers() {
        let Err(Trouble::Frame(reason)) =
            ask(&mut *rtsp(server.url(), login(), Transport::Tcp, via), &mut Vec::new())
        else {
            panic!("let in")
        };
        println!("{reason}");
        assert!(!reason.detail.contains("71005"), "{reason}");
        assert!(reason.detail.to_lowercase().contains("unauthorized"), "{reason}");
    }
}

#[test]
fn jpegs_over_http_arrive_as_they_were_sent() {
    let pictures = vec![jpeg([200, 0, 0]), jpeg([0, 200, 0]), jpeg([0, 0, 200])];
    let vias = [
        (Via::Curl, installed(&["curl"])),
        (Via::Ffmpeg, installed(&["ffmpeg"])),
        (Via::Gstreamer, installed(&["gst-launch-1.0", "gst:souphttpsrc", "gst:multipartdemux"])),
    ];
    for (via, _) in vias.into_iter().filter(|(_, there)| *there) {
        let server = HttpCamera::start(pictures.clone(), None);
        let url = format!("http://127.0.0.1:{}/v.mjpg", server.port);
        let mut camera =
            open(StreamSettings::HttpMjpeg { url, login: None, via: Some(via), extra: Vec::new() });
        for _ in 0..12 {
            let (picture, bytes) = frame(&mut *camera);
            assert_eq!((picture.width, picture.height, picture.format), (32, 24, FrameFormat::Jpeg));
            assert!(pictures.contains(&bytes), "{via:?}");
        }
        drop(server);
        let mut into = Vec::new();
        wait_until("word of the camera's end", HANG, || ask(&mut *camera, &mut into).err());
    }
}

#[test]
fn a_camera_over_http_that_asks_for_a_password_gets_it_unseen() {
    if !installed(&["curl"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "71006\"\\x\n").unwrap();
    // me:71006"\x
    let server = HttpCamera::start(vec![jpeg([1, 2, 3])], Some("bWU6NzEwMDYiXHg="));
    let login = Some(Login { user: "me".to_owned(), password_file: file.clone() });
    let url = format!("http://127.0.0.1:{}/", server.port);
    let settings =
        |login| StreamSettings::HttpMjpeg { url: url.clone(), login, via: None, extra: Vec::new() };
    let mut camera = open(settings(login));
    frame(&mut *camera);
    assert!(running("71006").is_empty());
    assert!(server.let_in.load(Ordering::Relaxed) > 0);
    let Err(Trouble::Frame(reason)) = ask(&mut *open(settings(None)), &mut Vec::new()) else {
        panic!("let in")
    };
    assert!(reason.detail.contains("401"), "{reason}");
}

#[test]
fn check_tells_how_a_film_would_be_read() {
    let folder = tempfile::tempdir().unwrap();
    for via in readers() {
        let path = film(folder.path(), (64, 48), 5);
        let word = via.as_str();
        let source = format!(
            "[[pipeline]]\nsource = {{ kind = \"video\", path = '''{}''', via = \"{word}\" }}\n",
            path.display()
        );
        let config = Config::new(&source);
        let seen = Edgewarden::run(["check", "--config", config.path().to_str().unwrap()]).stdout;
        let line =
            seen.lines().find(|line| line.contains("source of main")).unwrap_or_else(|| panic!("{seen}"));
        let (_, command) = line.split_once("video, read by: ").unwrap_or_else(|| panic!("{seen}"));
        // It is a command that a person can run.
        let made = std::process::Command::new("sh").args(["-c", command]).output().unwrap();
        assert!(made.status.success() && made.stdout.starts_with(b"YUV4MPEG2"), "{command}\n{made:?}");
    }
}
