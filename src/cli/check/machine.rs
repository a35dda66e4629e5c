//! What the check sees of the machine itself: clock, memory, folders, disk, and the sources.

use super::Finding;
use crate::cli::ui;
use crate::config::settings::{PathSettings, PipelineSettings};
use crate::domain::Reason;
use crate::domain::health::clock::TimeKeeper;
use crate::domain::source::{SensorFrom, SensorSettings, SourceSettings, V4l2Settings};
use crate::inference::source::{program, sensor, v4l2};
use crate::sys::clock::Clock;
use crate::sys::{durable, lockdown, time_service};
use crate::telemetry::board;
use rustix::fs::{Access, access};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Below this a model hardly loads.
const LOW_MEMORY: u64 = 128 << 20;

/// Files of a picture folder that are looked at.
const MAX_ENTRIES: usize = 10_000;

/// Whether expiry dates can be judged.
pub fn clock(paths: &PathSettings) -> Finding {
    // The agent keeps the newest time that it has accepted beside its other state.
    let clock = Clock::open(paths.state.join("clock"));
    let now = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    let remedy = "start a time service such as systemd-timesyncd or chrony";
    if clock.is_behind() {
        return Finding::warn(
            "clock",
            format!("{now} is in the past, so the last known time is used; {remedy}"),
        );
    }
    let root = Path::new("/");
    match (
        time_service::clock_synchronised(root),
        board::time_keeper(root, jiff::Timestamp::now().as_second()),
    ) {
        (Some(false), None) => Finding::warn(
            "clock",
            format!("{now}, which no time service sets and no hardware clock keeps; {remedy}"),
        ),
        (Some(false), Some(TimeKeeper::HardwareClock)) => {
            Finding::ok("clock", format!("{now}, kept by the hardware clock, set by no time service"))
        }
        (Some(false), Some(TimeKeeper::Host)) => {
            Finding::ok("clock", format!("{now}, kept by the machine around this container"))
        }
        (Some(true) | None, _) => Finding::ok("clock", now),
    }
}

/// What is left for models.
pub fn memory() -> Finding {
    let read = procfs::Current::current();
    let read: procfs::ProcResult<procfs::Meminfo> = read;
    match read.map(|memory| (memory.mem_available.unwrap_or(memory.mem_free), memory.mem_total)) {
        Ok((available, total)) => {
            let detail = format!("{} of {} available", ui::size(available), ui::size(total));
            if available < LOW_MEMORY {
                return Finding::warn(
                    "memory",
                    format!("{detail}; stop other programs or use a smaller model"),
                );
            }
            Finding::ok("memory", detail)
        }
        Err(error) => Finding::warn("memory", format!("cannot be read: {error}; is /proc mounted?")),
    }
}

/// Whether a model's process would be locked in; where not wholly, it runs all the same.
pub fn lock() -> Finding {
    let subject = "models' processes";
    match lockdown::probe().gaps().as_slice() {
        [] => {
            Finding::ok(subject, "locked in: no files of others, no network, no programs (Landlock, seccomp)")
        }
        gaps => Finding::warn(subject, format!("not wholly locked in: {}", gaps.join("; "))),
    }
}

/// The folder itself, or the nearest one above it that exists.
fn existing(folder: &Path) -> &Path {
    folder.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"))
}

/// Whether this user could write below a folder, which the agent makes when it starts.
pub fn folder(subject: &str, folder: &Path) -> Finding {
    let shown = folder.display();
    let there = existing(folder);
    if !there.is_dir() {
        return Finding::fail(subject, format!("{}: is no folder; move it away", there.display()));
    }
    // The rights alone do not tell of a read-only file system.
    match tempfile::Builder::new().prefix(".edgewarden-check").tempfile_in(there) {
        Ok(_) if there == folder => Finding::ok(subject, format!("{shown}: can be written")),
        Ok(_) => Finding::ok(subject, format!("{shown}: will be made")),
        Err(error) => {
            // The temporary file's name says nothing to anybody.
            let cause = error.raw_os_error().map_or(error, std::io::Error::from_raw_os_error);
            let user = rustix::process::geteuid().as_raw();
            let remedy = "run as the agent's user (sudo), or choose another folder in [paths]";
            Finding::fail(subject, format!("{shown}: user {user} cannot write there: {cause}; {remedy}"))
        }
    }
}

/// Whether an update would find room.
pub fn disk(state: &Path, reserve: u64) -> Finding {
    match durable::free_bytes(existing(state)) {
        Ok(free) => {
            let detail = format!("{} free at {}", ui::size(free), state.display());
            if free < reserve {
                let kept = ui::size(reserve);
                let remedy = "free some, or lower update.disk_reserve";
                return Finding::warn(
                    "disk",
                    format!("{detail}, less than the {kept} that updates leave; {remedy}"),
                );
            }
            Finding::ok("disk", detail)
        }
        Err(error) => {
            Finding::warn("disk", format!("{}: cannot be asked: {}", state.display(), error.source))
        }
    }
}

/// Whether a pipeline has something to look at.
pub fn source(pipeline: &PipelineSettings) -> Vec<Finding> {
    let subject = format!("source of {}", pipeline.name);
    let finding = match &pipeline.source {
        SourceSettings::Stream(settings) => return super::stream::source(&subject, settings),
        SourceSettings::Synthetic { width, height, seed } => {
            Finding::ok(subject, format!("synthetic camera, {width}x{height}, seed {seed}"))
        }
        SourceSettings::V4l2(settings) => camera(subject, settings),
        SourceSettings::Sensor(sensor) => sensor_source(subject, sensor),
        SourceSettings::Folder { path, .. } => match pictures(path) {
            Err(error) => {
                let remedy = "name a folder that the agent may read in source.path";
                Finding::fail(subject, format!("{}: {error}; {remedy}", path.display()))
            }
            Ok(found) if found.is_empty() => Finding::fail(
                subject,
                format!("{}: holds no .jpg, .jpeg or .png; put some there", path.display()),
            ),
            Ok(found) => match unreadable(&found) {
                Some((bad, why)) => Finding::warn(
                    subject,
                    format!(
                        "{}: {why}; remove it, it will be skipped ({} pictures)",
                        bad.display(),
                        found.len()
                    ),
                ),
                None => Finding::ok(subject, format!("{}: {} pictures", path.display(), found.len())),
            },
        },
    };
    vec![finding]
}

/// What a camera would be set to. It is asked only, so that an agent that uses it is not disturbed.
fn camera(subject: String, settings: &V4l2Settings) -> Finding {
    let taken = match v4l2::examine(settings) {
        Err(reason) => return Finding::fail(subject, reason.detail),
        Ok(taken) => taken,
    };
    // An agent that runs already holds it rightly.
    let others = v4l2::held_by(settings).into_iter().filter(|holder| !holder.starts_with("edgewarden "));
    match others.collect::<Vec<_>>().join(", ") {
        others if others.is_empty() => Finding::ok(subject, taken),
        others => Finding::warn(
            subject,
            format!("{taken}; {others} has it open: end that, as only one program can take its frames"),
        ),
    }
}

/// The cameras of this machine with what they offer, where a pipeline wants one.
pub fn cameras(pipelines: &[PipelineSettings]) -> Vec<Finding> {
    if !pipelines.iter().any(|pipeline| matches!(pipeline.source, SourceSettings::V4l2(_))) {
        return Vec::new();
    }
    let finding = |line: Result<String, Reason>| match line {
        Ok(line) => Finding::ok("camera", line),
        Err(reason) => Finding::warn("camera", reason.detail),
    };
    v4l2::overview().into_iter().map(finding).collect()
}

/// Whether a sensor is there; the samples themselves are looked at by the agent.
fn sensor_source(subject: String, settings: &SensorSettings) -> Finding {
    let window = &settings.window;
    let windows = format!("windows of {} at {} a second", window.length, window.rate);
    match &settings.from {
        // A broker has no port to open; the topic's is asked by the agent.
        SensorFrom::Mqtt { topic, broker, .. } => {
            Finding::ok(subject, format!("topic {topic} of {}:{}, {windows}", broker.host, broker.port))
        }
        SensorFrom::Command { program: words, .. } => {
            let name = words.first().map(String::as_str).unwrap_or_default();
            match program::find(name) {
                Some(_) => Finding::ok(subject, format!("program {name}, {windows}")),
                None => Finding::fail(subject, format!("{name}: no such program; install it")),
            }
        }
        // A running agent may have the port: it is not opened twice.
        SensorFrom::Serial { path, baud, .. } => match access(path, Access::READ_OK | Access::WRITE_OK) {
            Ok(()) => {
                Finding::ok(subject, format!("serial port {} at {baud} baud, {windows}", path.display()))
            }
            Err(error) => {
                let remedy = "plug it in, and let the agent's user into the group dialout";
                Finding::fail(subject, format!("serial port {}: {error}; {remedy}", path.display()))
            }
        },
        SensorFrom::Iio { .. } => match sensor::open(settings) {
            Ok(open) => Finding::ok(subject, open.describe()),
            Err(reason) => Finding::fail(subject, reason.detail),
        },
    }
}

fn pictures(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)?.take(MAX_ENTRIES) {
        let path = entry?.path();
        let kind = path.extension().map(|kind| kind.to_string_lossy().to_lowercase());
        if matches!(kind.as_deref(), Some("jpg" | "jpeg" | "png")) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The first of the pictures that cannot be opened or does not begin like one.
fn unreadable(pictures: &[PathBuf]) -> Option<(&Path, String)> {
    pictures.iter().find_map(|path| {
        let mut head = [0; 8];
        let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut head));
        let why = match read {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => "is cut short".to_owned(),
            Err(error) => error.to_string(),
            Ok(()) if head.starts_with(b"\xff\xd8\xff") || head == *b"\x89PNG\r\n\x1a\n" => return None,
            Ok(()) => "is neither JPEG nor PNG".to_owned(),
        };
        Some((path.as_path(), why))
    })
}
