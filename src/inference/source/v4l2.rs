//! Cameras that the kernel knows (Video4Linux): USB cameras above all.
//!
//! `kernel` makes the calls, `offer` and `choose` decide what is asked of the camera, `controls` sets
//! exposure and the like, `stream` moves the frames, `find` knows which cameras there are. The frames
//! travel as the camera gives them.
//!
//! The crates that wrap this interface were not taken: they generate its records at each build with
//! bindgen, which needs libclang. Devices that speak the multi-planar interface are read where a frame
//! is one piece of memory; formats in several pieces (NV12M and the like) are refused.

mod abi;
mod choose;
mod controls;
pub mod find;
mod frame;
mod kernel;
mod mapping;
mod offer;
mod stream;

use super::{Next, Pace, Source, Trouble};
use crate::domain::source::V4l2Settings;
use crate::domain::{Reason, ReasonCode};
use choose::{Choice, Wanted};
use controls::Wish;
use find::Camera;
use kernel::{Device, Kind};
use offer::{Interval, Size};
use rustix::io::Errno;
use std::path::{Path, PathBuf};
use std::time::Duration;
use stream::{Stream, Took};

pub use choose::name as format_name;

/// Frames a second where the configuration gives none.
const RATE: f32 = 15.0;
/// So many bad frames in a row, and the driver is started anew.
const MAX_BAD: u32 = 100;

/// A camera that streams, or is paused.
pub struct V4l2 {
    stream: Stream,
    at: Label,
    mode: String,
    /// Bad frames since the last good one.
    bad: u32,
}

/// How a camera is called in what people read.
#[derive(Debug, Clone)]
struct Label {
    path: PathBuf,
    name: String,
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name.as_str() {
            "" => write!(f, "camera {}", self.path.display()),
            name => write!(f, "camera {} ({name})", self.path.display()),
        }
    }
}

/// A camera that was asked what it can do; nothing of it has changed.
struct Asked {
    device: Device,
    kind: Kind,
    at: Label,
    choice: Choice,
    wishes: Vec<Wish>,
}

impl V4l2 {
    /// Finds the camera, sets it up, and lets the frames flow.
    ///
    /// # Errors
    /// What is wrong, with the remedy: not there, no permission, in use, no camera, nothing that suits,
    /// a control that it does not have.
    pub fn open(settings: &V4l2Settings) -> Result<Self, Reason> {
        let Asked { device, kind, at, choice, wishes } = ask(settings)?;
        controls::set(&device, &wishes).map_err(|refused| match refused.error {
            Errno::NODEV => trouble(&at, Errno::NODEV, "set a control"),
            _ => wrong(&at, refused.what),
        })?;
        let layout = device
            .set_format(kind, choice.format, choice.size)
            .map_err(|error| trouble(&at, error, "set the format"))?;
        if layout.format != choice.format || layout.planes != 1 || !layout.whole {
            let what = "spreads a frame over several pieces, which cannot be read";
            return Err(unsuitable(&at, format!("{}: {what}; choose another source.format", choice.format)));
        }
        if !choose::carried(choice.becomes, layout.size) {
            let what = format!("gives {} instead of {}", layout.size, choice.size);
            return Err(unsuitable(&at, format!("{what}; choose another source.width and source.height")));
        }
        let interval = choice.interval.unwrap_or_else(|| Interval::of_rate(rate(settings)));
        let paced = device.set_interval(kind, interval).or(choice.interval);
        let rate = paced.map_or_else(
            || "at a rate of its own".to_owned(),
            |interval| format!("{} frames/s", choose::rounded(interval.rate())),
        );
        let mode = format!("{} {}, {rate}", layout.size, layout.format);
        let stream = Stream::open(device, kind, layout, choice.becomes)
            .map_err(|error| trouble(&at, error, "start streaming"))?;
        tracing::info!("{at}: {mode}");
        Ok(Self { stream, at, mode, bad: 0 })
    }

    fn lost(&self, error: Errno, act: &str) -> Trouble {
        Trouble::Lost(trouble(&self.at, error, act))
    }
}

impl Source for V4l2 {
    fn describe(&self) -> String {
        format!("{}, {}", self.at, self.mode)
    }

    fn pace(&self) -> Pace {
        Pace::Live
    }

    fn next(&mut self, _seq: u64, into: &mut Vec<u8>, wait: Duration) -> Result<Next, Trouble> {
        let why = match self.stream.take(into, wait) {
            Ok(Took::Frame(picture)) => {
                self.bad = 0;
                return Ok(Next::Picture(picture));
            }
            Ok(Took::Nothing) => return Ok(Next::Pending),
            Ok(Took::Bad(why)) => why,
            Err(error) => return Err(self.lost(error, "take a frame")),
        };
        self.bad += 1;
        if self.bad >= MAX_BAD {
            let what = format!("{MAX_BAD} bad frames in a row, the last one {why}; it is started again");
            return Err(Trouble::Lost(Reason::new(ReasonCode::Internal, format!("{}: {what}", self.at))));
        }
        let what = format!("a frame {why} and was left out; look at the cable and the supply if it stays so");
        Err(Trouble::Frame(Reason::new(ReasonCode::Internal, format!("{}: {what}", self.at))))
    }

    fn pause(&mut self, paused: bool) -> Result<(), Trouble> {
        let done = if paused { self.stream.stop() } else { self.stream.start() };
        done.map_err(|error| self.lost(error, if paused { "stop streaming" } else { "start streaming" }))
    }
}

/// What would be taken of the camera, in one line, without changing anything of it.
///
/// # Errors
/// As [`V4l2::open`], as far as that can be told without streaming.
pub fn examine(settings: &V4l2Settings) -> Result<String, Reason> {
    let Asked { at, choice, .. } = ask(settings)?;
    let interval = choice.interval.map(|interval| format!("@{}", choose::rounded(interval.rate())));
    Ok(format!("{at}: {} {}{}", choice.format, choice.size, interval.unwrap_or_default()))
}

fn rate(settings: &V4l2Settings) -> f32 {
    settings.fps.unwrap_or(RATE)
}

fn ask(settings: &V4l2Settings) -> Result<Asked, Reason> {
    let path = match &settings.device {
        Some(path) => path.clone(),
        None => the_only_one()?,
    };
    let mut at = Label { path, name: String::new() };
    let device = Device::open(&at.path).map_err(|error| trouble(&at, error, "open it"))?;
    let about = device.about().map_err(|error| trouble(&at, error, "ask what it is"))?;
    at.name = about.name.clone();
    let kind = about.kind.ok_or_else(|| no_camera(&at))?;
    let size = Size::new(settings.width, settings.height);
    let wanted = Wanted { size, rate: rate(settings), format: settings.format, usb: find::is_usb(&about) };
    let modes = find::modes(&device, kind, size);
    let choice = choose::choose(&modes, &wanted).map_err(|why| unsuitable(&at, why))?;
    let choices = |control: &kernel::ControlInfo| controls::choices(&device, control);
    let wishes = controls::plan(&device.controls(), &settings.controls, choices);
    let wishes = wishes.map_err(|why| wrong(&at, format!("{why} in source.controls")))?;
    Ok(Asked { device, kind, at, choice, wishes })
}

/// The camera where none is named.
fn the_only_one() -> Result<PathBuf, Reason> {
    let asked = find::ask_all();
    let cameras: Vec<Camera> = asked.iter().filter_map(|(_, camera)| camera.clone().ok()).collect();
    // One that may not be opened is a camera as well, and more likely the one that is meant.
    let barred = asked.iter().find_map(|(path, camera)| Some((path, camera.as_ref().err()?)));
    match (find::only(&cameras), barred) {
        (Ok(camera), _) => Ok(camera.path.clone()),
        (Err(_), Some((path, error))) if cameras.is_empty() => {
            Err(trouble(&Label { path: path.clone(), name: String::new() }, *error, "open it"))
        }
        (Err(why), _) => Err(Reason::new(ReasonCode::NotFound, format!("source: {why}"))),
    }
}

fn wrong(at: &Label, what: String) -> Reason {
    Reason::new(ReasonCode::BadRequest, format!("{at}: {what}"))
}

fn unsuitable(at: &Label, what: String) -> Reason {
    Reason::new(ReasonCode::Unsupported, format!("{at}: {what}"))
}

fn no_camera(at: &Label) -> Reason {
    unsuitable(at, format!("gives no frames, it is another kind of device; {}", others(&at.path)))
}

/// The kernel's word as a line that people can act on.
fn trouble(at: &Label, error: Errno, act: &str) -> Reason {
    let (code, what) = match error {
        Errno::NOENT => (ReasonCode::NotFound, format!("is not there; {}", others(&at.path))),
        Errno::NODEV | Errno::NXIO => (
            ReasonCode::NotFound,
            "is gone (unplugged, or its driver has failed); plug it in again".to_owned(),
        ),
        Errno::ACCESS | Errno::PERM => {
            let remedy = "add the user to the group that owns the device, usually video (`sudo usermod -aG \
                          video USER`; in a systemd unit SupplementaryGroups=video)";
            (ReasonCode::BadRequest, format!("this user may not open it; {remedy}"))
        }
        Errno::BUSY => (ReasonCode::Busy, format!("is in use{}; stop the other program", by(&at.path))),
        Errno::NOTTY | Errno::INVAL if act.contains("what it is") => {
            (ReasonCode::BadRequest, format!("is no camera; {}", others(&at.path)))
        }
        other => {
            let cause = std::io::Error::from(other);
            (
                ReasonCode::Internal,
                format!("cannot {act}: {cause}; it is tried again, plug it in anew if that does not help"),
            )
        }
    };
    Reason::new(code, format!("{at}: {what}"))
}

/// The cameras besides the one that is wrong.
fn others(path: &Path) -> String {
    let cameras = find::cameras();
    let others: Vec<&Camera> = cameras.iter().filter(|camera| camera.path != path).collect();
    match others.as_slice() {
        [] => "no other camera was found; plug it in".to_owned(),
        others => format!("plug it in, or name one that is there in source.device: {}", find::list(others)),
    }
}

/// Who holds it.
fn by(path: &Path) -> String {
    match find::holders(path).as_slice() {
        [] => String::new(),
        holders => format!(" by {}", holders.join(", ")),
    }
}

/// One line about each camera of this machine, for people: its names and what it offers.
pub fn overview() -> Vec<Result<String, Reason>> {
    let line = |(path, camera): (PathBuf, Result<Camera, Errno>)| match camera {
        Ok(camera) => Ok(format!("{}: {}", camera.line(), find::formats_of(&camera))),
        Err(error) => Err(trouble(&Label { path, name: String::new() }, error, "open it")),
    };
    find::ask_all().into_iter().map(line).collect()
}

/// Who holds the camera that these settings mean, besides this process.
pub fn held_by(settings: &V4l2Settings) -> Vec<String> {
    let path = settings.device.clone().or_else(|| the_only_one().ok());
    path.map(|path| find::holders(&path)).unwrap_or_default()
}
