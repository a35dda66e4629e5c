//! Sensors with real programs, a real pseudo-terminal, and a folder that looks like the kernel's.

use super::*;
use crate::domain::series::{Gaps, WindowSettings};
use crate::domain::source::{Column, RowFormat, TimeColumn};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs;
use std::path::Path;
use std::time::Instant;

const CSV: RowFormat = RowFormat::Csv { delimiter: b',' };

fn settings(from: SensorFrom, columns: &[&str], length: u32) -> SensorSettings {
    SensorSettings {
        from,
        columns: columns.iter().map(|name| Column::Name((*name).to_owned())).collect(),
        time: None,
        window: WindowSettings { rate: 100.0, length, stride: length, max_gap_ms: 50, gaps: Gaps::Mark },
    }
}

fn shell(script: &str) -> SensorFrom {
    let program = ["sh", "-c", script].map(str::to_owned).to_vec();
    SensorFrom::Command { program, format: CSV }
}

/// Asks until there is a window or a trouble that `wanted` looks for; faults before it are collected.
fn ask(source: &mut dyn Source, faults: &mut Vec<String>) -> Result<Vec<f32>, Trouble> {
    let start = Instant::now();
    let mut into = Vec::new();
    while start.elapsed() < Duration::from_secs(30) {
        match source.next(1, &mut into, Duration::from_millis(20)) {
            Ok(Next::Picture(picture)) => {
                assert_eq!(picture.format.exact_len(picture.width, picture.height), Some(into.len()));
                return Ok(into.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect());
            }
            Ok(Next::Pending) => {}
            Ok(Next::Ended) => panic!("a sensor has no end"),
            Err(Trouble::Frame(reason)) => faults.push(reason.detail),
            Err(lost) => return Err(lost),
        }
    }
    panic!("neither a window nor an end; faults: {faults:?}")
}

#[test]
fn a_program_gives_windows_tells_of_bad_lines_and_is_lost_with_its_last_words() {
    let script = "echo t,x,y; for n in 0 1 2 3; do echo $n,$n,1$n; done; echo 4,oops,1; sleep 0.2; \
                  for n in 4 5 6 7; do echo $n,$n,1$n; done; sleep 0.2; echo no more >&2; exit 3";
    let mut settings = settings(shell(script), &["y", "x"], 4);
    settings.time = Some(TimeColumn { column: Column::Name("t".into()), unit_ns: 10_000_000 });
    let mut source = open(&settings).unwrap();
    assert!(source.describe().contains("2 channels, windows of 4 samples at 100 a second"));
    let mut faults = Vec::new();
    assert_eq!(ask(&mut *source, &mut faults).unwrap(), [10.0, 11.0, 12.0, 13.0, 0.0, 1.0, 2.0, 3.0]);
    assert_eq!(ask(&mut *source, &mut faults).unwrap(), [14.0, 15.0, 16.0, 17.0, 4.0, 5.0, 6.0, 7.0]);
    let Err(Trouble::Lost(reason)) = ask(&mut *source, &mut faults) else { panic!("it ended") };
    assert!(reason.detail.contains("sh ended with status 3: no more"), "{reason}");
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].contains("column 2: \"oops\" is no number"), "{faults:?}");
}

#[test]
fn a_flood_of_bad_lines_is_one_fault() {
    let mut source = open(&settings(
        shell(
            "echo x; n=0; while [ $n -lt 300 ]; do echo bad$n; n=$((n+1)); done; sleep 0.2; echo 1; sleep 60",
        ),
        &["x"],
        1,
    ))
    .unwrap();
    let mut faults = Vec::new();
    assert_eq!(ask(&mut *source, &mut faults).unwrap(), [1.0]);
    assert_eq!(faults.len(), 1, "{faults:?}");
}

#[test]
fn a_hole_in_a_program_s_own_times_is_marked() {
    let script = "for n in 0 10 20 100 110 120; do echo $n,$n; done; sleep 60";
    let mut settings = settings(shell(script), &[], 13);
    settings.columns = vec![Column::Number(2)];
    settings.time = Some(TimeColumn { column: Column::Number(1), unit_ns: 1_000_000 });
    let window = ask(&mut *open(&settings).unwrap(), &mut Vec::new()).unwrap();
    let missing: Vec<usize> = (0..13).filter(|&at| window[at].is_nan()).collect();
    assert_eq!(missing, [3, 4, 5, 6, 7, 8, 9]);
    assert_eq!((window[2], window[10]), (20.0, 100.0));
}

#[test]
fn a_program_and_all_that_it_started_end_with_the_source() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let script =
        format!("sleep 600 & echo $! > {0}.new; echo $$ >> {0}.new; mv {0}.new {0}; wait", pids.display());
    let source = open(&settings(shell(&script), &["x"], 4)).unwrap();
    let start = Instant::now();
    while !pids.exists() {
        assert!(start.elapsed() < Duration::from_secs(30), "the program did not start");
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(source);
    for pid in fs::read_to_string(&pids).unwrap().split_whitespace() {
        let stat = Path::new("/proc").join(pid).join("stat");
        // One that init has not buried yet is dead all the same.
        let gone = || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
        while !gone() {
            assert!(start.elapsed() < Duration::from_secs(30), "{pid} lives on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_program_that_is_not_there_or_writes_no_lines_is_told() {
    let from = SensorFrom::Command { program: vec!["/no/such/program".into()], format: CSV };
    let fault = open(&settings(from, &["x"], 4)).err().unwrap();
    assert!(fault.detail.contains("/no/such/program") && fault.detail.contains("install it"), "{fault}");
    let endless = shell("head -c 300000 /dev/zero | tr '\\0' 1; echo; sleep 0.2; printf 'x\\n1\\n'; exit");
    let mut source = open(&settings(endless, &["x"], 1)).unwrap();
    let mut faults = Vec::new();
    assert_eq!(ask(&mut *source, &mut faults).unwrap(), [1.0], "it goes on after the long line");
    assert!(faults[0].contains("a line of more than 65536 bytes"), "{faults:?}");
}

#[test]
fn a_serial_port_gives_windows_and_is_lost_when_it_is_unplugged() {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let path = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
    let from = SensorFrom::Serial { path: path.clone().into(), baud: 115_200, format: RowFormat::Json };
    let mut settings = settings(from, &["a", "b"], 2);
    settings.time = Some(TimeColumn { column: Column::Name("t".into()), unit_ns: 10_000_000 });
    let mut source = open(&settings).unwrap();
    assert!(source.describe().contains(&format!("serial port {path} at 115200 baud")));
    // The first line may have been cut by our coming late.
    rustix::io::write(&ours, b"\"b\":9}\n{\"t\":1,\"a\":1,\"b\":2}\r\n{\"t\":2,\"a\":3,").unwrap();
    let mut into = Vec::new();
    let half = source.next(1, &mut into, Duration::from_millis(200));
    assert_eq!(half, Ok(Next::Pending), "half a line is no sample");
    rustix::io::write(&ours, b"\"b\":4}\n").unwrap();
    assert_eq!(ask(&mut *source, &mut Vec::new()).unwrap(), [1.0, 3.0, 2.0, 4.0]);
    drop(ours);
    let Err(Trouble::Lost(reason)) = ask(&mut *source, &mut Vec::new()) else { panic!("it is unplugged") };
    assert!(reason.detail.contains("plug it in again"), "{reason}");
    let gone = SensorFrom::Serial { path: "/dev/no-such-port".into(), baud: 9600, format: CSV };
    let fault = open(&super::tests::settings(gone, &["x"], 1)).err().unwrap();
    assert!(fault.detail.contains("/dev/serial/by-id"), "{fault}");
    let file = SensorFrom::Serial { path: "/dev/null".into(), baud: 9600, format: CSV };
    assert!(open(&super::tests::settings(file, &["x"], 1)).err().unwrap().detail.contains("is no terminal"));
}

/// A folder that looks like `/sys/bus/iio/devices`.
fn bus(dir: &Path) {
    for (device, files) in [
        ("iio:device0", &[("name", "bme280\n"), ("in_temp_input", "21500\n")][..]),
        (
            "iio:device1",
            &[
                ("name", "accel_3d\n"),
                ("in_accel_x_raw", "100\n"),
                ("in_accel_y_raw", "-50\n"),
                ("in_accel_scale", "0.5\n"),
                ("in_accel_y_offset", "10\n"),
            ],
        ),
    ] {
        fs::create_dir_all(dir.join(device)).unwrap();
        for (name, text) in files {
            fs::write(dir.join(device).join(name), text).unwrap();
        }
    }
}

#[test]
fn the_kernel_s_sensors_are_found_by_name_and_scaled() {
    let dir = tempfile::tempdir().unwrap();
    bus(dir.path());
    let iio = |device: &str| SensorFrom::Iio { device: device.into(), root: dir.path().into() };
    let by_path = dir.path().join("iio:device1").display().to_string();
    for device in ["accel_3d", "iio:device1", &by_path] {
        let mut source = open(&settings(iio(device), &["accel_y", "accel_x"], 3)).unwrap();
        assert!(source.describe().contains("sensor accel_3d (accel_y, accel_x)"), "{}", source.describe());
        let window = ask(&mut *source, &mut Vec::new()).unwrap();
        assert_eq!(window[3..], [50.0; 3]);
        assert_eq!(window[..3], [-20.0; 3]);
    }
    let mut source = open(&settings(iio("bme280"), &["temp"], 1)).unwrap();
    assert_eq!(ask(&mut *source, &mut Vec::new()).unwrap(), [21500.0]);
    fs::write(dir.path().join("iio:device0/in_temp_input"), "busy\n").unwrap();
    let mut faults = Vec::new();
    while faults.is_empty() {
        let _ = source.next(1, &mut Vec::new(), Duration::from_millis(20)).map_err(|trouble| match trouble {
            Trouble::Frame(reason) => faults.push(reason.detail),
            Trouble::Lost(reason) => panic!("{reason}"),
        });
    }
    assert!(faults[0].contains("read temp: what it gives is no number"), "{faults:?}");
}

#[test]
fn a_sensor_or_channel_that_is_not_there_is_told_with_those_that_are() {
    let dir = tempfile::tempdir().unwrap();
    bus(dir.path());
    let fault = |device: &str, column: &str| {
        let from = SensorFrom::Iio { device: device.into(), root: dir.path().into() };
        open(&settings(from, &[column], 1)).err().unwrap().detail
    };
    assert!(fault("gyro", "x").contains("there is bme280, accel_3d"), "{}", fault("gyro", "x"));
    assert!(fault("accel_3d", "accel_z").contains("it has accel_x, accel_y"));
    assert!(fault("accel_3d", "../x").contains("is no channel's name"));
    assert!(fault("/no/folder", "x").contains("no such folder"));
}

#[test]
fn a_pause_forgets_the_begun_window() {
    let script = "n=0; while true; do echo $n; n=$((n+1)); sleep 0.01; done";
    let mut settings = settings(shell(script), &[], 2);
    settings.columns = vec![Column::Number(1)];
    settings.window.max_gap_ms = 60_000;
    let mut source = open(&settings).unwrap();
    ask(&mut *source, &mut Vec::new()).unwrap();
    source.pause(true).unwrap();
    source.pause(false).unwrap();
    assert_eq!(ask(&mut *source, &mut Vec::new()).unwrap().len(), 2);
}
