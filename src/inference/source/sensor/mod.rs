//! Sensors: samples from lines, the kernel or messages, collected into windows.
//!
//! One file per way in, each a [`Samples`]; `row` reads a line or message, `domain::series` makes the
//! windows. A window is a frame of format `Samples`; of several that complete at once the newest counts.

mod command;
mod iio;
pub mod lines;
pub mod row;
mod serial;

use super::{Next, Pace, Picture, Source, Trouble};
use crate::domain::series::Windower;
use crate::domain::source::{SensorFrom, SensorSettings};
use crate::domain::{FrameFormat, Reason, ReasonCode};
use crate::sys::monotonic;
use std::time::{Duration, Instant};

/// A sensor whose every line is bad tells of one in this time.
const FAULT_EVERY: Duration = Duration::from_secs(10);

/// Takes one sample: its own time in nanoseconds, where it has one, and a value for each channel.
pub type Take<'a> = dyn FnMut(Option<i64>, &[f32]) + 'a;

/// Something that gives samples.
pub trait Samples: Send {
    /// For people: what it is.
    fn describe(&self) -> String;

    /// Waits for `wait` at most and hands over what is there. After a [`Trouble::Frame`] it can be asked
    /// again.
    fn read(&mut self, wait: Duration, take: &mut Take<'_>) -> Result<(), Trouble>;

    /// No samples are wanted until further notice, or they are wanted again: what has piled up goes.
    fn pause(&mut self, _paused: bool) -> Result<(), Trouble> {
        Ok(())
    }
}

/// A sensor as a source of windows.
pub struct Sensor<S> {
    samples: S,
    settings: SensorSettings,
    windower: Windower,
    /// Met after a window was complete; told at the next call.
    trouble: Option<Trouble>,
    /// When a fault was told last, and how many were met since: each bad line has words of its own.
    told: Option<Instant>,
    untold: u64,
}

impl<S: Samples> Sensor<S> {
    /// Collects what `samples` gives.
    pub fn new(samples: S, settings: &SensorSettings) -> Self {
        let windower = Windower::new(settings.window, settings.columns.len());
        Self { samples, settings: settings.clone(), windower, trouble: None, told: None, untold: 0 }
    }
}

impl<S> Sensor<S> {
    /// A fault now and then, with the number of those between; a loss always.
    fn worth_telling(&mut self, trouble: Trouble) -> Option<Trouble> {
        let Trouble::Frame(reason) = trouble else { return Some(trouble) };
        if self.told.is_some_and(|told| told.elapsed() < FAULT_EVERY) {
            self.untold += 1;
            return None;
        }
        self.told = Some(Instant::now());
        let detail = match std::mem::take(&mut self.untold) {
            0 => reason.detail,
            more => format!("{} (and {more} more faults before)", reason.detail),
        };
        Some(Trouble::Frame(Reason::new(reason.code, detail)))
    }
}

impl<S: Samples> Source for Sensor<S> {
    fn describe(&self) -> String {
        let window = &self.settings.window;
        format!(
            "{}, {} channels, windows of {} samples at {} a second",
            self.samples.describe(),
            self.settings.columns.len(),
            window.length,
            window.rate
        )
    }

    fn pace(&self) -> Pace {
        Pace::Live
    }

    fn next(&mut self, _seq: u64, into: &mut Vec<u8>, wait: Duration) -> Result<Next, Trouble> {
        if let Some(trouble) = self.trouble.take() {
            return Err(trouble);
        }
        let windower = &mut self.windower;
        let mut complete = false;
        let read = self.samples.read(wait, &mut |at, values| {
            let at = at.unwrap_or_else(|| i64::try_from(monotonic::now_ns()).unwrap_or(i64::MAX));
            if let Some(window) = windower.push(at, values) {
                into.clear();
                into.extend(window.iter().flat_map(|value| value.to_le_bytes()));
                complete = true;
            }
        });
        let trouble = read.err().and_then(|trouble| self.worth_telling(trouble));
        if !complete {
            return trouble.map_or(Ok(Next::Pending), Err);
        }
        self.trouble = trouble;
        let channels = u32::try_from(self.settings.columns.len()).unwrap_or(u32::MAX);
        Ok(Next::Picture(Picture::now(self.settings.window.length, channels, FrameFormat::Samples)))
    }

    fn pause(&mut self, paused: bool) -> Result<(), Trouble> {
        if !paused {
            self.windower = Windower::new(self.settings.window, self.settings.columns.len());
        }
        self.samples.pause(paused)
    }
}

/// Opens a sensor that needs no network.
///
/// # Errors
/// Why there is none, with the remedy.
pub fn open(settings: &SensorSettings) -> Result<Box<dyn Source>, Reason> {
    let rows = |format| row::Rows::new(format, &settings.columns, settings.time.as_ref());
    Ok(match &settings.from {
        SensorFrom::Command { program, format } => {
            Box::new(Sensor::new(command::Command::start(program, rows(*format))?, settings))
        }
        SensorFrom::Serial { path, baud, format } => {
            Box::new(Sensor::new(serial::Serial::open(path, *baud, rows(*format))?, settings))
        }
        SensorFrom::Iio { device, root } => Box::new(Sensor::new(
            iio::Iio::open(root, device, &settings.columns, settings.window.rate)?,
            settings,
        )),
        SensorFrom::Mqtt { .. } => {
            return Err(Reason::new(
                ReasonCode::Internal,
                "source: a topic is read by the capture child itself",
            ));
        }
    })
}

#[cfg(test)]
mod tests;
