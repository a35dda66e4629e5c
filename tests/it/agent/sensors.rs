//! Sensors as sources of a real device: lines of a program, a serial port that is unplugged, a topic.

use crate::support::device::{Device, Options, PATIENCE, Repository};
use crate::support::mosquitto::Mosquitto;
use crate::support::{series_model, wait_until};
use edgewarden::domain::Output;
use edgewarden::domain::health::PipelineState;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Publishes a bundle of a tiny model and gives its release.
fn publish(repository: &mut Repository, model: &str, edit: impl FnOnce(&mut Value)) -> String {
    let bundle = repository.dir.path().join(model);
    series_model::bundle(&bundle, model, edit);
    let published = repository.publisher.publish(&bundle, jiff::Timestamp::now(), &|_| {}).unwrap();
    published.release.to_string()
}

/// Windows of 16 samples at 100 a second of three columns, besides what `source` says.
fn options(broker: &Mosquitto, repository: &Repository, source: &str) -> Options {
    let text = format!("{source}\nrate = 100\nwindow = 16\n");
    let source: toml::Table = text.parse().unwrap();
    Options::new(broker, repository).set("pipeline.source", source).set("pipeline.fps", 100)
}

fn number(output: &Output, name: &str) -> f32 {
    output.values.iter().find(|value| value.name == name).expect("a value of that name").value
}

/// A program counts; every forty samples its own clock leaves out half a second.
#[test]
fn numbers_of_a_program_s_lines_arrive_and_a_hole_is_seen() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&[]);
    let release = publish(&mut repository, "series_mean", series_model::means);
    let program = repository.dir.path().join("imu.sh");
    let script = "echo t,x,y,n\nt=0; n=0\nwhile :; do\n\
                  echo $t,5,-0.5,$n; t=$((t + 10)); n=$((n + 1))\n\
                  [ $((n % 40)) = 0 ] && t=$((t + 500))\nsleep 0.005\ndone\n";
    std::fs::write(&program, script).unwrap();
    let source = format!(
        "kind = \"lines\"\nprogram = [\"sh\", \"{}\"]\ncolumns = [\"x\", \"y\", \"n\"]\ntime = \"t\"\n\
         time_unit = \"ms\"\nstride = 4\nmax_gap = \"50ms\"",
        program.display()
    );
    // A hole of half a second is longer than a window, which begins anew behind it.
    let device = Device::serving(options(&broker, &repository, &source), &release);
    device.until_frames(12);
    for frame in &device.heard.lock().unwrap().frames {
        assert_eq!(frame.size, [16, 3]);
        assert!((number(&frame.output, "x") - 5.0).abs() < 1e-4, "{frame:?}");
        assert!((number(&frame.output, "y") + 5.0).abs() < 1e-3, "scaled: {frame:?}");
        assert!(number(&frame.output, "n") >= 7.0, "{frame:?}");
        assert_eq!(frame.output.values[0].unit, "m/s²");
    }
    let shown = device.status();
    assert_eq!(shown.health.pipelines[0].state, PipelineState::Running, "{:?}", shown.health.pipelines[0]);
    drop(device);

    // A hole of 70 ms is shorter than a window and longer than allowed: its points are zeros.
    std::fs::write(&program, script.replace("t + 500", "t + 70")).unwrap();
    let device = Device::serving(options(&broker, &repository, &source), &release);
    device.until("a window with a hole and one without", |heard| {
        let means: Vec<f32> = heard.frames.iter().map(|frame| number(&frame.output, "x")).collect();
        // 7 of 16 points are zeros at most.
        let holes = means.iter().filter(|mean| (2.8..4.7).contains(*mean)).count();
        let whole = means.iter().filter(|mean| (**mean - 5.0).abs() < 1e-4).count();
        (holes > 0 && whole > 0).then_some(())
    });
}

/// A sensor at the other end of a pseudo-terminal; unplugged with the value.
struct Plugged {
    stop: Arc<AtomicBool>,
    writer: Option<JoinHandle<()>>,
}

impl Plugged {
    /// Writes that line again and again; the port is found behind the link `port`.
    fn into(port: &Path, line: &'static [u8]) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
        let fresh = port.with_extension("new");
        std::os::unix::fs::symlink(name, &fresh).unwrap();
        std::fs::rename(fresh, port).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        // It writes, heard or not; its buffer is full while nobody reads.
        rustix::io::ioctl_fionbio(&ours, true).unwrap();
        let writer = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let _ = rustix::io::write(&ours, line);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self { stop, writer: Some(writer) }
    }
}

impl Drop for Plugged {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.writer.take().map(JoinHandle::join);
    }
}

#[test]
fn a_serial_port_that_is_unplugged_is_told_and_comes_back() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&[]);
    let release = publish(&mut repository, "series_mean", series_model::means);
    let port = repository.dir.path().join("port");
    let first = Plugged::into(&port, b"3  0.5 1\r\n");
    let source = format!(
        "kind = \"serial\"\nport = \"{}\"\ncolumns = [1, 2, 3]\ndelimiter = \" \"\nmax_gap = \"5s\"",
        port.display()
    );
    let device = Device::serving(options(&broker, &repository, &source), &release);
    let until = |wanted: f32| {
        device.until("the sensor's number", |heard| {
            heard.frames.iter().any(|frame| (number(&frame.output, "x") - wanted).abs() < 1e-4).then_some(())
        });
    };
    until(3.0);
    drop(first);
    wait_until("the loss in health", PATIENCE, || {
        let pipeline = device.status().health.pipelines.remove(0);
        pipeline.last_error.filter(|error| error.detail.contains("serial port")).map(drop)
    });
    let _second = Plugged::into(&port, b"-7  0.5 1\r\n");
    until(-7.0);
}

#[test]
fn messages_of_a_topic_become_windows_and_an_anomaly_is_told() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&[]);
    let release = publish(&mut repository, "series_clip", |manifest| {
        manifest["series"]["channels"] = serde_json::json!(["a", "b", "c"]);
        manifest["decode"]["threshold"] = 0.5.into();
    });
    let source = "kind = \"mqtt\"\ntopic = \"edgewarden/+/imu\"\n\
                  columns = [\"a\", \"body.b\", \"c\"]\ntime = \"ms\"\ntime_unit = \"ms\"";
    let mut device = Device::new(options(&broker, &repository, source));
    device.start();
    let device = device;
    let (stop, odd) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            let mut at = 0;
            while !stop.load(Ordering::Relaxed) {
                at += 10;
                let b = if odd.load(Ordering::Relaxed) { 3 } else { 1 };
                let sample = format!("{{\"ms\": {at}, \"a\": 0.5, \"body\": {{\"b\": {b}}}, \"c\": \"-1\"}}");
                device.publish("imu", sample, false);
            }
        });
        // Also when a test fails, so that the scope ends.
        let _end = Ending(&stop);
        device.update(&release).unwrap_or_else(|reason| panic!("{release}: {reason}"));
        for anomaly in [false, true] {
            odd.store(anomaly, Ordering::Relaxed);
            let told = device.until("an answer to the samples", |heard| {
                heard.frames.iter().find_map(|frame| {
                    let told = frame.output.anomaly.as_ref().filter(|told| told.is_anomaly == anomaly)?;
                    // Clipped from 3 to 1, squared.
                    let whole = told.channels[1].value;
                    (whole == 0.0 || (whole - 4.0).abs() < 1e-4).then(|| told.clone())
                })
            });
            assert_eq!(told.channels.iter().map(|one| &one.name).collect::<Vec<_>>(), ["a", "b", "c"]);
            assert_eq!((told.channels[0].value, told.channels[2].value), (0.0, 0.0));
        }
        stop.store(true, Ordering::Relaxed);
        publisher.join().unwrap();
    });
}

/// Ends a publisher.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
