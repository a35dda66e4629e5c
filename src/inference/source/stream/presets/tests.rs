//! The table: preset and machine on one side, the command line on the other.

use super::*;
use crate::domain::stream::{Reading, Sensor, Transport};

fn all() -> Tools {
    Tools { ffmpeg: true, gstreamer: true, curl: true, rpicam: Some("rpicam-vid"), ..Tools::default() }
}

fn rtsp(login: bool, reading: Reading) -> StreamSettings {
    StreamSettings::Rtsp {
        url: "rtsp://cam/a?x=1".to_owned(),
        login: login.then(|| Login { user: "me".to_owned(), password_file: "/p".into() }),
        transport: Transport::Tcp,
        reading,
    }
}

fn video(path: &str, realtime: bool, reading: Reading) -> StreamSettings {
    StreamSettings::Video { path: path.into(), repeat: true, realtime, reading }
}

fn http(login: bool, via: Option<Via>) -> StreamSettings {
    StreamSettings::HttpMjpeg {
        url: "http://cam/v?a=[1]".to_owned(),
        login: login.then(|| Login { user: "me".to_owned(), password_file: "/p".into() }),
        via,
        extra: vec!["EXTRA".to_owned()],
    }
}

fn sensor() -> Sensor {
    Sensor { camera: 1, width: 1280, height: 720, fps: 30, extra: vec!["EXTRA".to_owned()] }
}

fn line(settings: &StreamSettings, tools: &Tools) -> String {
    expand(settings, tools, Some("p'w \"1")).unwrap().line.to_string()
}

#[test]
fn each_preset_becomes_its_command() {
    let via = |via| Reading { via: Some(via), ..Reading::default() };
    let full = |via| Reading {
        size: Some((640, 480)),
        fps: Some(2.5),
        via: Some(via),
        decoder: Some("DEC".to_owned()),
        extra: vec!["EXTRA".to_owned()],
    };
    let ffmpeg = "ffmpeg -nostdin -hide_banner -loglevel warning";
    let each = "-map 0:v:0 -vf 'crop=trunc(iw/2)*2:trunc(ih/2)*2,settb=1/25,setpts=N' -r 25 -pix_fmt yuv420p -f \
                yuv4mpegpipe pipe:1";
    let i420 = "'!' videoconvert '!' video/x-raw,format=I420 '!' y4menc '!'";
    let queue = "'!' queue leaky=downstream max-size-buffers=2 max-size-bytes=0 max-size-time=0";
    let table = [
        (
            rtsp(false, Reading::default()),
            format!("{ffmpeg} -fflags nobuffer -flags low_delay -rtsp_transport tcp -i 'rtsp://cam/a?x=1' {each}"),
        ),
        (
            rtsp(true, Reading::default()),
            format!(
                "{ffmpeg} -fflags nobuffer -flags low_delay -protocol_whitelist \
                 pipe,fd,rtsp,rtsps,rtp,srtp,tcp,udp,tls,crypto -f concat -safe 0 -i pipe:0 {each}"
            ),
        ),
        (
            rtsp(false, full(Via::Ffmpeg)),
            format!(
                "{ffmpeg} -c:v DEC EXTRA -fflags nobuffer -flags low_delay -rtsp_transport tcp -i \
                 'rtsp://cam/a?x=1' -map 0:v:0 -vf scale=640:480:flags=bilinear,fps=2.5 -pix_fmt yuv420p -f \
                 yuv4mpegpipe pipe:1"
            ),
        ),
        (
            rtsp(false, via(Via::Gstreamer)),
            format!(
                "gst-launch-1.0 -q rtspsrc 'location=\"rtsp://cam/a?x=1\"' protocols=tcp latency=100 '!' \
                 application/x-rtp,media=video '!' decodebin '!' videoconvert '!' videoscale '!' \
                 video/x-raw,format=NV12 {queue} {i420} fdsink fd=1 sync=false"
            ),
        ),
        (
            rtsp(true, full(Via::Gstreamer)),
            format!(
                "gst-launch-1.0 -q rtspsrc 'location=\"rtsp://cam/a?x=1\"' protocols=tcp latency=100 \
                 'user-id=\"me\"' 'user-pw=\"***\"' EXTRA '!' application/x-rtp,media=video '!' parsebin '!' DEC \
                 '!' videoconvert '!' videoscale '!' video/x-raw,format=NV12,width=640,height=480 '!' videorate \
                 drop-only=true max-rate=3 {queue} {i420} fdsink fd=1 sync=false"
            ),
        ),
        (video("/a b:c.mp4", false, Reading::default()), format!("{ffmpeg} -i 'file:/a b:c.mp4' {each}")),
        (video("/a.mp4", true, Reading::default()), format!("{ffmpeg} -re -i file:/a.mp4 {each}")),
        (
            video("/a\"b\\.mp4", true, full(Via::Gstreamer)),
            format!(
                "gst-launch-1.0 -q filesrc 'location=\"/a\\\"b\\\\.mp4\"' EXTRA '!' parsebin '!' DEC '!' \
                 videoconvert '!' videoscale '!' video/x-raw,format=NV12,width=640,height=480 '!' videorate \
                 drop-only=true max-rate=3 {queue} {i420} fdsink fd=1 sync=true"
            ),
        ),
        (
            video("/a.mp4", false, full(Via::Gstreamer)),
            format!(
                "gst-launch-1.0 -q filesrc 'location=\"/a.mp4\"' EXTRA '!' parsebin '!' DEC '!' videoconvert '!' \
                 videoscale '!' video/x-raw,format=NV12,width=640,height=480 '!' videorate '!' \
                 video/x-raw,framerate=2500/1000 {i420} fdsink fd=1 sync=false"
            ),
        ),
        (
            http(true, None),
            "curl --silent --show-error --fail --no-buffer --globoff --location --max-redirs 3 --proto \
             =http,https --connect-timeout 10 --config - EXTRA --url 'http://cam/v?a=[1]'"
                .to_owned(),
        ),
        (
            http(false, Some(Via::Ffmpeg)),
            format!(
                "{ffmpeg} -fflags nobuffer EXTRA -f mpjpeg -i 'http://cam/v?a=[1]' -map 0:v:0 -c:v copy -f mjpeg \
                 pipe:1"
            ),
        ),
        (
            http(false, Some(Via::Gstreamer)),
            "gst-launch-1.0 -q souphttpsrc 'location=\"http://cam/v?a=[1]\"' is-live=true do-timestamp=true EXTRA \
             '!' multipartdemux single-stream=true '!' image/jpeg '!' fdsink fd=1 sync=false"
                .to_owned(),
        ),
        (
            StreamSettings::CsiPi(sensor()),
            "rpicam-vid --nopreview --timeout 0 --codec mjpeg --flush --camera 1 --width 1280 --height 720 \
             --framerate 30 EXTRA --output -"
                .to_owned(),
        ),
        (
            StreamSettings::CsiJetson(sensor()),
            "gst-launch-1.0 -q nvarguscamerasrc sensor-id=1 EXTRA '!' \
             'video/x-raw(memory:NVMM),width=1280,height=720,framerate=30/1' '!' nvjpegenc '!' fdsink fd=1 \
             sync=false"
                .to_owned(),
        ),
    ];
    for (settings, expected) in table {
        assert_eq!(line(&settings, &all()), expected);
    }
}

#[test]
fn what_is_installed_and_the_board_choose_the_program() {
    let only = |ffmpeg, gstreamer, board| Tools { ffmpeg, gstreamer, board, ..Tools::default() };
    let program =
        |settings: &StreamSettings, tools: &Tools| expand(settings, tools, Some("p")).unwrap().line.program;
    let (plain, login) = (rtsp(false, Reading::default()), rtsp(true, Reading::default()));
    for (tools, of_plain, of_login) in [
        (only(true, true, Board::Other), "ffmpeg", "ffmpeg"),
        (only(true, false, Board::Jetson), "ffmpeg", "ffmpeg"),
        (only(false, true, Board::Other), "gst-launch-1.0", "gst-launch-1.0"),
        (only(true, true, Board::Jetson), "gst-launch-1.0", "ffmpeg"),
        (only(true, true, Board::RaspberryPi { h264: true }), "gst-launch-1.0", "ffmpeg"),
        (only(true, true, Board::RaspberryPi { h264: false }), "ffmpeg", "ffmpeg"),
    ] {
        assert_eq!(program(&plain, &tools), of_plain, "{tools:?}");
        assert_eq!(program(&login, &tools), of_login, "{tools:?}");
    }
    let jetson = line(&plain, &only(false, true, Board::Jetson));
    assert!(jetson.contains("decodebin '!' nvvidconv '!' video/x-raw,format=NV12 '!' queue"), "{jetson}");
    let curl = Tools { curl: true, ..Tools::default() };
    assert_eq!(program(&http(false, None), &curl), "curl");
    assert_eq!(program(&http(false, None), &only(true, true, Board::Jetson)), "ffmpeg");
}

#[test]
fn what_is_missing_is_named_with_its_package() {
    let nothing = Tools::default();
    let via = |via| rtsp(false, Reading { via: Some(via), ..Reading::default() });
    for (settings, package) in [
        (rtsp(false, Reading::default()), "apt install ffmpeg (or gstreamer1.0-tools"),
        (via(Via::Ffmpeg), "apt install ffmpeg"),
        (via(Via::Gstreamer), "apt install gstreamer1.0-tools"),
        (http(false, None), "apt install curl"),
        (StreamSettings::CsiPi(sensor()), "apt install rpicam-apps"),
        (StreamSettings::CsiJetson(sensor()), "apt install gstreamer1.0-tools"),
    ] {
        let reason = expand(&settings, &nothing, None).unwrap_err();
        assert!(reason.detail.contains(package), "{reason}");
    }
    let odd = Reading { size: Some((642, 480)), via: Some(Via::Gstreamer), ..Reading::default() };
    assert!(expand(&rtsp(false, odd), &all(), None).unwrap_err().detail.contains("multiple of 8"));
}

#[test]
fn a_password_stands_on_standard_input_where_that_is_possible_and_is_never_shown() {
    let password = "p'w \"1\\";
    let by = |settings: &StreamSettings| expand(settings, &all(), Some(password)).unwrap();
    let ffmpeg = by(&rtsp(true, Reading::default()));
    let list = "ffconcat version 1.0\nfile 'rtsp://me:p%27w%20%221%5C@cam/a?x=1&tcp'\n";
    assert_eq!(ffmpeg.line.stdin.as_deref(), Some(list));
    let curl = by(&http(true, None));
    assert_eq!(curl.line.stdin.as_deref(), Some("anyauth\nuser = \"me:p'w \\\"1\\\\\"\n"));
    for hidden in [&ffmpeg, &curl] {
        assert!(
            hidden.line.args.iter().all(|arg| !arg.contains("p'w") && !arg.contains("p%27")),
            "{hidden:?}"
        );
        assert!(hidden.notes.is_empty());
    }
    let shown = by(&rtsp(true, Reading { via: Some(Via::Gstreamer), ..Reading::default() }));
    assert!(shown.line.args.contains(&"user-pw=\"p'w \\\"1\\\\\"".to_owned()));
    assert!(shown.notes[0].contains("every user of this machine can read it"));
    for launch in [ffmpeg, curl, shown, by(&http(true, Some(Via::Ffmpeg)))] {
        let told = format!("{} {launch:?}", launch.line);
        assert!(!told.contains("p'w") && !told.contains("p%27w"), "{told}");
    }
}

#[test]
fn the_elements_of_a_command_are_found_and_have_packages() {
    let reading = Reading { via: Some(Via::Gstreamer), ..Reading::default() };
    for settings in
        [rtsp(false, reading.clone()), video("/a", false, reading), StreamSettings::CsiJetson(sensor())]
    {
        let elements = needed(&expand(&settings, &all(), None).unwrap());
        assert!(elements.len() >= 3, "{elements:?}");
        for element in elements {
            assert!(package(&element).is_some(), "{element}");
        }
    }
    assert!(needed(&expand(&http(false, None), &all(), None).unwrap()).is_empty());
}
