//! Cameras. What needs no camera runs everywhere; the rest runs against `vivid`, the kernel's own test
//! driver, where `EDGEWARDEN_TEST_VIVID` says that it is loaded: `packaging/test-v4l2.sh` starts a
//! virtual machine that has two such cameras, the second one multi-planar, and runs this there.

use crate::support::device::{Device, Options, PATIENCE, Repository, SLOT, release};
use crate::support::{Config, Edgewarden, HANG, wait_until};
use edgewarden::domain::frame::FrameFormat;
use edgewarden::domain::health::{PipelineState, ProblemCode};
use edgewarden::domain::source::{SourceSettings, V4l2Settings};
use edgewarden::domain::{Reason, ReasonCode};
use edgewarden::inference::source::{self, Next, Picture, Source, Trouble};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The single-planar one and the multi-planar one.
const CAMERAS: [&str; 2] = ["/dev/video0", "/dev/video1"];

fn vivid() -> bool {
    let there = std::env::var_os("EDGEWARDEN_TEST_VIVID").is_some();
    if !there {
        println!("skipped: needs the vivid driver (packaging/test-v4l2.sh has it in a virtual machine)");
    }
    there
}

fn settings(device: &str, format: Option<FrameFormat>) -> V4l2Settings {
    V4l2Settings {
        device: Some(device.into()),
        width: 640,
        height: 360,
        fps: Some(30.0),
        format,
        controls: Default::default(),
    }
}

fn with_controls(controls: &[(&str, i32)]) -> V4l2Settings {
    let controls = controls.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    V4l2Settings { controls, ..settings(CAMERAS[0], Some(FrameFormat::Yuyv)) }
}

fn open(settings: V4l2Settings) -> Result<Box<dyn Source>, Reason> {
    source::open(&SourceSettings::V4l2(settings))
}

/// The next frame; faults of single frames are passed over.
fn frame(source: &mut dyn Source) -> (Picture, Vec<u8>) {
    let mut bytes = Vec::new();
    let picture =
        wait_until("a frame", HANG, || match source.next(1, &mut bytes, Duration::from_millis(500)) {
            Ok(Next::Picture(picture)) => Some(picture),
            Ok(Next::Pending) | Err(Trouble::Frame(_)) => None,
            other => panic!("{other:?}"),
        });
    (picture, bytes)
}

/// What goes wrong next; good frames are passed over.
fn fault(source: &mut dyn Source) -> Trouble {
    let mut bytes = Vec::new();
    wait_until("a fault", HANG, || source.next(1, &mut bytes, Duration::from_millis(500)).err())
}

/// Sets a control of a camera that somebody else reads, as people would.
fn press(device: &str, control: &str) {
    let set = Command::new("v4l2-ctl").args(["-d", device, "-c", control]).output().expect("run v4l2-ctl");
    assert!(set.status.success(), "{control}: {}", String::from_utf8_lossy(&set.stderr));
}

#[test]
fn setup_finds_the_cameras_and_asks_which_one() {
    if !vivid() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("agent.toml");
    let setup = |more: &[&str]| {
        let mut command = Edgewarden::command();
        command.args(["setup", "--dry-run", "--json", "--no-check", "--broker", "none", "--device-id", "a"]);
        command.args(more).arg("--config").arg(&config).output().unwrap()
    };
    let several = setup(&[]);
    let why = String::from_utf8_lossy(&several.stderr).into_owned();
    assert_eq!(several.status.code(), Some(64), "{why}");
    assert!(why.contains("2 cameras were found") && why.contains("--camera"), "{why}");
    let named = setup(&["--camera", CAMERAS[1]]);
    let said: serde_json::Value = serde_json::from_slice(&named.stdout).expect("JSON");
    let cameras = said["cameras"].as_array().unwrap();
    assert_eq!(cameras.len(), 2, "the third node is no camera: {cameras:?}");
    assert!(cameras.iter().all(|one| one["name"] == "vivid" && one["offers"].to_string().contains("YUYV")));
    let text: toml::Table = said["drop_in"]["text"].as_str().unwrap().parse().unwrap();
    let source = text["pipeline"][0]["source"].as_table().unwrap();
    assert_eq!(source["kind"].as_str(), Some("v4l2"));
    // The machine may have a link that stays; it leads to the same device.
    let device = std::fs::canonicalize(source["device"].as_str().unwrap()).unwrap();
    assert_eq!(device, std::path::Path::new(CAMERAS[1]));
}

/// Red, green and blue at a point, whatever the format; grey gives its value three times.
fn colour(picture: &Picture, bytes: &[u8], x: usize, y: usize) -> [f32; 3] {
    let (width, height) = (picture.width as usize, picture.height as usize);
    let at = y * width + x;
    let (luma, u, v) = match picture.format {
        FrameFormat::Rgb8 => return [0, 1, 2].map(|channel| f32::from(bytes[at * 3 + channel])),
        FrameFormat::Grey8 => return [f32::from(bytes[at]); 3],
        FrameFormat::Yuyv => {
            let pair = at / 2 * 4;
            (bytes[at * 2], bytes[pair + 1], bytes[pair + 3])
        }
        FrameFormat::Nv12 => {
            let pair = width * height + y / 2 * width + x / 2 * 2;
            (bytes[at], bytes[pair], bytes[pair + 1])
        }
        FrameFormat::I420 => {
            let blue = width * height + y / 2 * (width / 2) + x / 2;
            (bytes[at], bytes[blue], bytes[blue + width * height / 4])
        }
        FrameFormat::Jpeg | FrameFormat::Samples => panic!("not raw"),
    };
    let (luma, u, v) = (1.164 * (f32::from(luma) - 16.0), f32::from(u) - 128.0, f32::from(v) - 128.0);
    [luma + 1.596 * v, luma - 0.392 * u - 0.813 * v, luma + 2.017 * u]
}

/// The driver's colour bars from left to right: white, yellow, cyan, green, magenta, red, blue, black.
fn assert_bars(picture: &Picture, bytes: &[u8]) {
    const BARS: [[bool; 3]; 8] = [
        [true, true, true],
        [true, true, false],
        [false, true, true],
        [false, true, false],
        [true, false, true],
        [true, false, false],
        [false, false, true],
        [false, false, false],
    ];
    let middle = |bar: usize| (2 * bar + 1) * picture.width as usize / 16;
    // The upper part has writing in it.
    let y = picture.height as usize * 9 / 10;
    let seen: Vec<[f32; 3]> = (0..8).map(|bar| colour(picture, bytes, middle(bar), y)).collect();
    if picture.format == FrameFormat::Grey8 {
        assert!(seen.windows(2).all(|pair| pair[0][0] > pair[1][0]), "darker from left to right: {seen:?}");
        return;
    }
    for (bar, (seen, wanted)) in seen.iter().zip(BARS).enumerate() {
        let is = seen.map(|channel| channel > 96.0);
        assert_eq!(is, wanted, "bar {bar} of {picture:?} is {seen:?}");
    }
}

#[test]
fn a_camera_that_is_not_there_is_told_clearly() {
    let missing = open(settings("/dev/video99", None)).err().unwrap();
    assert_eq!(missing.code, ReasonCode::NotFound);
    assert!(missing.detail.starts_with("camera /dev/video99: is not there; "), "{missing}");
    assert!(missing.detail.contains("plug it in"), "{missing}");
    let other = open(settings("/dev/null", None)).err().unwrap();
    assert!(other.detail.starts_with("camera /dev/null: is no camera; "), "{other}");
}

#[test]
fn check_and_the_agent_tell_of_a_camera_that_is_not_there() {
    let source = "kind = \"v4l2\", device = \"/dev/v4l/by-id/usb-none\"";
    let config = Config::new(&format!("[[pipeline]]\nsource = {{ {source} }}\n"));
    let ended = Edgewarden::run(["check".as_ref(), "--config".as_ref(), config.path().as_os_str()]);
    let line = "fail  source of main: camera /dev/v4l/by-id/usb-none: is not there; ";
    assert!(ended.stdout.contains(line), "{}", ended.stdout);
    assert_eq!(ended.code, Some(1));

    let mut device =
        Device::new(Options::default().set("pipeline.source", source_table("/dev/video99", None)));
    device.start();
    wait_until("the fault in the health", PATIENCE, || {
        let pipeline = device.status().health.pipelines.remove(0);
        let told = pipeline.last_error?.detail.contains("camera /dev/video99: is not there");
        (pipeline.state == PipelineState::SourceFailed && told).then_some(())
    });
}

fn source_table(device: &str, format: Option<&str>) -> toml::Table {
    let mut table = toml::Table::new();
    table.insert("kind".into(), "v4l2".into());
    table.insert("device".into(), device.into());
    table.insert("width".into(), 640.into());
    table.insert("height".into(), 360.into());
    if let Some(format) = format {
        table.insert("format".into(), format.into());
    }
    table
}

#[test]
fn every_format_arrives_in_the_chosen_size_with_the_right_pixels() {
    if !vivid() {
        return;
    }
    let formats =
        [FrameFormat::Yuyv, FrameFormat::Nv12, FrameFormat::Grey8, FrameFormat::I420, FrameFormat::Rgb8];
    for device in CAMERAS {
        for format in formats {
            for (width, height) in [(640, 360), (1280, 720)] {
                let wanted = V4l2Settings { width, height, ..settings(device, Some(format)) };
                let mut source =
                    open(wanted).unwrap_or_else(|reason| panic!("{device} {format:?}: {reason}"));
                let mut before = 0;
                for _ in 0..3 {
                    let (picture, bytes) = frame(&mut *source);
                    assert_eq!((picture.width, picture.height, picture.format), (width, height, format));
                    assert_eq!(format.exact_len(width, height), Some(bytes.len()));
                    assert_bars(&picture, &bytes);
                    let taken = picture.captured_mono_ns.expect("vivid stamps on the monotonic clock");
                    // The driver's times are those of its own beat, a little before or after now.
                    let (now, beat) = (edgewarden::sys::monotonic::now_ns(), 1_000_000_000);
                    assert!(before < taken && taken <= now + beat, "{before} {taken} {now}");
                    before = taken;
                }
                println!("{}", source.describe());
            }
        }
    }
}

#[test]
fn the_nearest_size_and_the_best_format_are_taken() {
    if !vivid() {
        return;
    }
    for (width, height, fps, described) in [
        (600, 300, 15.0, "640×360 YU12, "),
        (1280, 720, 10.0, "1280×720 YU12, "),
        (100, 100, 15.0, "320×180 YU12, "),
    ] {
        let wanted = V4l2Settings { width, height, fps: Some(fps), ..settings(CAMERAS[0], None) };
        let mut source = open(wanted).unwrap();
        assert!(source.describe().contains(described), "{}", source.describe());
        println!("{width}×{height}@{fps}: {}", source.describe());
        frame(&mut *source);
    }
    let refused = open(settings(CAMERAS[0], Some(FrameFormat::Jpeg))).err().unwrap();
    assert_eq!(refused.code, ReasonCode::Unsupported);
    assert!(
        refused.detail.contains("does not offer mjpeg") && refused.detail.contains("YUYV 320×180"),
        "{refused}"
    );
}

#[test]
fn controls_are_set_and_faults_in_them_are_told() {
    if !vivid() {
        return;
    }
    let mean = |brightness: i32| {
        let mut source = open(with_controls(&[("brightness", brightness)])).unwrap();
        let (_, bytes) = frame(&mut *source);
        // The luminance is every second byte.
        bytes.iter().step_by(2).map(|byte| f64::from(*byte)).sum::<f64>() / (bytes.len() / 2) as f64
    };
    let (dark, bright) = (mean(30), mean(220));
    // As it was, for the other tests.
    press(CAMERAS[0], "brightness=128");
    println!("mean luminance at brightness 30: {dark:.1}, at 220: {bright:.1}");
    assert!(bright > dark + 50.0, "{dark} {bright}");
    for (controls, told) in [
        (("brightness", 999), "control brightness = 999: is out of range; use 0 to 255"),
        (("birghtness", 1), "control birghtness: not known to this camera; it has brightness, contrast, "),
        (("test_pattern", 999), "control test_pattern = 999: is out of range; use 0 (75% Colorbar), 1 "),
    ] {
        let refused = open(with_controls(&[controls])).err().unwrap();
        assert!(refused.detail.contains(told), "{refused}");
    }
}

#[test]
fn damaged_and_dropped_frames_do_not_stop_the_flow() {
    if !vivid() {
        return;
    }
    let mut source = open(settings(CAMERAS[0], None)).unwrap();
    frame(&mut *source);
    // A bad frame is only told where no good one came with it, so one may not be enough.
    let mut bytes = Vec::new();
    let told = wait_until("a bad frame", HANG, || {
        press(CAMERAS[0], "inject_v4l2_buf_flag_error=1");
        (0..5).find_map(|_| source.next(1, &mut bytes, Duration::from_millis(500)).err())
    });
    let Trouble::Frame(reason) = told else { panic!("one bad frame is no lost camera") };
    assert!(reason.detail.contains("was marked as damaged by the driver"), "{reason}");
    frame(&mut *source);
    press(CAMERAS[0], "percentage_of_dropped_buffers=80");
    (0..5).for_each(|_| drop(frame(&mut *source)));
    press(CAMERAS[0], "percentage_of_dropped_buffers=0");
    frame(&mut *source);
    press(CAMERAS[0], "inject_fatal_streaming_error=1");
    let Trouble::Lost(reason) = fault(&mut *source) else { panic!("a broken queue gives no more frames") };
    println!("{reason}");
    drop(source);
    frame(&mut *open(settings(CAMERAS[0], None)).unwrap());
}

#[test]
fn a_pause_stops_the_camera_and_its_end_starts_it() {
    if !vivid() {
        return;
    }
    for device in CAMERAS {
        let mut source = open(settings(device, None)).unwrap();
        let (before, _) = frame(&mut *source);
        source.pause(true).unwrap();
        assert_eq!(source.next(1, &mut Vec::new(), Duration::from_millis(200)), Ok(Next::Pending));
        let resumed = edgewarden::sys::monotonic::now_ns();
        source.pause(false).unwrap();
        let (after, _) = frame(&mut *source);
        assert!(after.captured_mono_ns.unwrap() >= resumed && before.captured_mono_ns < Some(resumed));
    }
}

#[test]
fn a_slow_reader_gets_the_newest_frame() {
    if !vivid() {
        return;
    }
    let mut source = open(settings(CAMERAS[0], None)).unwrap();
    frame(&mut *source);
    // All four buffers are full by then, with frames of its beginning.
    std::thread::sleep(Duration::from_secs(1));
    let drained = edgewarden::sys::monotonic::now_ns();
    frame(&mut *source);
    let (next, _) = frame(&mut *source);
    // None of the full queue is left. The driver's times are those of its own beat.
    let beat = 200_000_000;
    let taken = next.captured_mono_ns.unwrap();
    assert!(taken + beat >= drained, "is {} ms too old", drained.saturating_sub(taken) / 1_000_000);
}

#[test]
fn an_unplugged_camera_is_lost() {
    if !vivid() {
        return;
    }
    for device in CAMERAS {
        let mut source = open(settings(device, None)).unwrap();
        frame(&mut *source);
        press(device, "disconnect=1");
        let Trouble::Lost(reason) = fault(&mut *source) else { panic!("it is gone") };
        assert!(reason.detail.contains("is gone (unplugged"), "{reason}");
        let still = open(settings(device, None)).err().unwrap();
        assert!(still.detail.contains("is gone"), "{still}");
        // The driver plugs it in again when the last program that had it has closed it.
        drop(source);
        frame(&mut *open(settings(device, None)).unwrap());
    }
}

#[test]
fn the_agent_brings_an_unplugged_camera_back() {
    if !vivid() {
        return;
    }
    // With a model, as a camera that no model needs is paused.
    let repository = Repository::with(&["v1"]);
    let options = Options::default().repository(&repository).set("update.probation_max", "10m");
    let mut device = Device::new(options.set("pipeline.source", source_table(CAMERAS[0], None)));
    device.start();
    let updated = device.cli(["update", SLOT, &release(1)]);
    assert_eq!(updated.code, Some(0), "{}", updated.stderr);
    let captured =
        || device.status().metrics.pipelines.first().map_or(0, |pipeline| pipeline.frames.captured);
    let grows = |what: &str| {
        let before = captured();
        wait_until(what, PATIENCE, || (captured() > before + 5).then_some(()));
    };
    grows("frames");
    let (agent, first) = (device.pid(), device.child("capture"));
    for control in ["percentage_of_dropped_buffers=50", "inject_v4l2_buf_flag_error=1"] {
        press(CAMERAS[0], control);
        grows(control);
    }
    press(CAMERAS[0], "percentage_of_dropped_buffers=0");
    assert_eq!(device.child("capture"), first, "bad frames are no reason to restart");

    // As long as somebody has it open, the driver keeps it unplugged.
    let held = std::fs::File::open(CAMERAS[0]).unwrap();
    let mut holder = Command::new("sleep").arg("600").stdin(Stdio::from(held)).spawn().unwrap();
    press(CAMERAS[0], "disconnect=1");
    let told = wait_until("the loss in the health", PATIENCE, || {
        let pipeline = device.status().health.pipelines.remove(0);
        let lost = pipeline.last_error.filter(|error| error.detail.contains("is gone (unplugged"))?;
        (pipeline.state == PipelineState::SourceFailed).then_some(lost)
    });
    println!("unplugged: {told}");
    let during = captured();
    wait_until("several tries to open it again", PATIENCE, || {
        (device.log().matches("child lost pipeline=main role=\"capture\"").count() >= 3).then_some(())
    });
    assert_eq!(captured(), during, "no frame can come from it");
    holder.kill().unwrap();
    holder.wait().unwrap();
    grows("frames after it is plugged in again");
    assert_eq!(device.pid(), agent);
    assert!(device.child("capture") != first, "its process is a new one");
    let health = device.status().health;
    assert_eq!(health.pipelines[0].state, PipelineState::Running);
    let failed = health.problems.iter().find(|problem| problem.code == ProblemCode::SourceFailed);
    assert_eq!(failed, None);
    assert!(device.stop().success());
}

#[test]
fn check_lists_the_cameras_and_says_who_holds_one() {
    if !vivid() {
        return;
    }
    let check = |source: &str, user: Option<u32>| {
        let config = Config::new(&format!("[[pipeline]]\nsource = {{ kind = \"v4l2\"{source} }}\n"));
        let mut command = Edgewarden::command();
        command.arg("check").arg("--config").arg(config.path());
        if let Some(user) = user {
            let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(config.folder(), open).unwrap();
            command.uid(user).gid(user);
        }
        let output = command.output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let text = check(", device = \"/dev/video0\"", None);
    text.lines().filter(|line| line.contains("camera")).for_each(|line| println!("{line}"));
    assert!(text.contains("ok    source of main: camera /dev/video0 (vivid): YU12 640×480@"), "{text}");
    assert!(text.contains("ok    camera: /dev/video0 \"vivid\": "), "{text}");
    assert!(text.contains("ok    camera: /dev/video1 \"vivid\""), "{text}");
    let text = check("", None);
    assert!(
        text.contains("fail  source of main: source: 2 cameras were found; name one in source.device: "),
        "{text}"
    );
    let text = check(", device = \"/dev/video2\"", None);
    assert!(
        text.contains("camera /dev/video2 (vivid): gives no frames, it is another kind of device; "),
        "{text}"
    );
    let text = check(", device = \"/dev/video0\"", Some(65534));
    assert!(
        text.contains("camera /dev/video0: this user may not open it; add the user to the group"),
        "{text}"
    );
    // A link that stays is as good as the device.
    std::fs::create_dir_all("/dev/v4l/by-id").unwrap();
    let link = "/dev/v4l/by-id/usb-vivid-video-index0";
    std::os::unix::fs::symlink("../../video0", link).unwrap();
    let text = check(&format!(", device = \"{link}\""), None);
    assert!(text.contains(&format!("camera {link} (vivid): YU12 640×480@")), "{text}");
    assert!(text.contains(&format!("camera: /dev/video0 \"vivid\" ({link}): ")), "{text}");

    let mut other = Command::new("v4l2-ctl");
    other.args(["-d", CAMERAS[0], "--stream-mmap", "--stream-count=0"]).stderr(Stdio::null());
    let mut other = other.stdout(Stdio::null()).spawn().unwrap();
    let busy = wait_until("the camera to be in use", PATIENCE, || open(settings(CAMERAS[0], None)).err());
    let text = check(", device = \"/dev/video0\"", None);
    other.kill().unwrap();
    other.wait().unwrap();
    std::fs::remove_file(link).unwrap();
    assert_eq!(busy.code, ReasonCode::Busy);
    assert!(busy.detail.contains("is in use by v4l2-ctl (process "), "{busy}");
    assert!(text.contains("warn  source of main: ") && text.contains("v4l2-ctl (process "), "{text}");
}
