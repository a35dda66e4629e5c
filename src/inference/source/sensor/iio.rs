//! A sensor of the kernel (Linux IIO), asked through `/sys` at a fixed rate.
//!
//! A value is `(raw + offset) × scale`, in the units of the kernel's `sysfs-bus-iio`: m/s², rad/s, °C
//! in thousandths, and so on. Reading file by file is good for some hundred samples a second.

use super::{Samples, Take, Trouble};
use crate::domain::source::Column;
use crate::domain::{Reason, ReasonCode};
use crate::sys::monotonic;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Devices and channels looked at.
const MAX_ENTRIES: usize = 1000;

/// One channel.
struct Channel {
    name: String,
    file: File,
    offset: f64,
    scale: f64,
}

/// An open device.
pub(super) struct Iio {
    name: String,
    channels: Vec<Channel>,
    period: Duration,
    due: Instant,
    values: Vec<f32>,
}

impl Iio {
    /// Finds the device by its name or folder, and its channels by theirs (`accel_x` for `in_accel_x_raw`).
    pub(super) fn open(root: &Path, device: &str, columns: &[Column], rate: f64) -> Result<Self, Reason> {
        let folder = find(root, device)?;
        let channels =
            columns.iter().map(|column| channel(&folder, column)).collect::<Result<Vec<_>, _>>()?;
        let name = word(&folder.join("name")).unwrap_or_else(|| device.to_owned());
        let values = vec![0.0; channels.len()];
        let period = Duration::from_secs_f64((1.0 / rate).clamp(1e-4, 86_400.0));
        Ok(Self { name, channels, period, due: Instant::now(), values })
    }

    fn sample(&mut self) -> Result<(), Trouble> {
        for (value, channel) in self.values.iter_mut().zip(&self.channels) {
            let fault =
                |what: &dyn std::fmt::Display| format!("sensor {}: read {}: {what}", self.name, channel.name);
            let mut text = [0; 64];
            let read = channel.file.read_at(&mut text, 0);
            let count = read.map_err(|error| match error.raw_os_error() {
                // Unplugged, or its driver is gone; anything else may pass.
                Some(libc::ENODEV | libc::ENXIO) => {
                    Trouble::Lost(Reason::new(ReasonCode::NotFound, fault(&"it is gone; plug it in again")))
                }
                _ => Trouble::Frame(Reason::new(ReasonCode::BadRequest, fault(&error))),
            })?;
            let raw =
                std::str::from_utf8(&text[..count]).ok().and_then(|text| text.trim().parse::<f64>().ok());
            let raw = raw.ok_or_else(|| {
                Trouble::Frame(Reason::new(ReasonCode::BadRequest, fault(&"what it gives is no number")))
            })?;
            *value = ((raw + channel.offset) * channel.scale) as f32;
        }
        Ok(())
    }
}

impl Samples for Iio {
    fn describe(&self) -> String {
        let names: Vec<_> = self.channels.iter().map(|channel| channel.name.as_str()).collect();
        format!("sensor {} ({})", self.name, names.join(", "))
    }

    fn read(&mut self, wait: Duration, take: &mut Take<'_>) -> Result<(), Trouble> {
        let end = Instant::now() + wait;
        while self.due <= end {
            std::thread::sleep(self.due.saturating_duration_since(Instant::now()));
            // Points in time that were missed are not caught up with.
            self.due = (self.due + self.period).max(Instant::now());
            let at = i64::try_from(monotonic::now_ns()).ok();
            self.sample()?;
            take(at, &self.values);
        }
        std::thread::sleep(end.saturating_duration_since(Instant::now()));
        Ok(())
    }
}

fn bad(detail: String) -> Reason {
    Reason::new(ReasonCode::BadRequest, detail)
}

fn find(root: &Path, device: &str) -> Result<PathBuf, Reason> {
    if device.contains('/') {
        let folder = PathBuf::from(device);
        return if folder.is_dir() {
            Ok(folder)
        } else {
            Err(bad(format!("sensor {device}: no such folder; correct source.device")))
        };
    }
    let none = |known: &[String]| {
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        bad(format!(
            "sensor {device:?} is not below {}; there is {known}; correct source.device, or load its driver",
            root.display()
        ))
    };
    let entries = std::fs::read_dir(root).map_err(|_| none(&[]))?;
    let mut folders: Vec<PathBuf> = entries.take(MAX_ENTRIES).flatten().map(|entry| entry.path()).collect();
    folders.sort();
    let mut known = Vec::new();
    for folder in folders {
        let name = word(&folder.join("name"));
        if name.as_deref() == Some(device) || folder.file_name().is_some_and(|file| file == device) {
            return Ok(folder);
        }
        known.extend(name);
    }
    Err(none(&known))
}

fn channel(folder: &Path, column: &Column) -> Result<Channel, Reason> {
    let name = match column {
        Column::Name(name) if name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') => {
            name
        }
        Column::Name(other) => return Err(bad(format!("source.columns: {other:?} is no channel's name"))),
        Column::Number(number) => {
            return Err(bad(format!(
                "source.columns: {number}; channels of a sensor have names, such as accel_x"
            )));
        }
    };
    // Some drivers give the value in its unit at once.
    let raw = folder.join(format!("in_{name}_raw"));
    let ready = folder.join(format!("in_{name}_input"));
    let is_raw = raw.exists();
    let path = if is_raw { raw } else { ready };
    let file = File::open(&path).map_err(|error| {
        bad(format!(
            "sensor {}: channel {name}: {error}; it has {}",
            folder.display(),
            names(folder).join(", ")
        ))
    })?;
    // Of one channel, or of all of its type.
    let shared =
        name.rsplit_once('_').map_or(name.trim_end_matches(|c: char| c.is_ascii_digit()), |(kind, _)| kind);
    let number = |what: &str| {
        [name.as_str(), shared]
            .iter()
            .find_map(|name| word(&folder.join(format!("in_{name}_{what}")))?.parse::<f64>().ok())
    };
    let (offset, scale) =
        if is_raw { (number("offset").unwrap_or(0.0), number("scale").unwrap_or(1.0)) } else { (0.0, 1.0) };
    Ok(Channel { name: name.clone(), file, offset, scale })
}

/// The channels that a device has.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().take(MAX_ENTRIES).flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let name = name.strip_prefix("in_")?;
            let name = name.strip_suffix("_raw").or_else(|| name.strip_suffix("_input"))?;
            Some(name.to_owned())
        })
        .collect();
    names.sort();
    names
}

fn word(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}
