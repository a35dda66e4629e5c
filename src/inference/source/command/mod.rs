//! Whatever another program can read: cameras on the network, video files, ribbon-cable cameras, and
//! any command that writes JPEGs or Y4M on its standard output.
//!
//! The program is read without ever waiting longer than asked. Of a camera the newest picture counts:
//! what has come meanwhile is read away. Of a film every picture counts: what is not read keeps the
//! program waiting at its pipe. A program that ends is started again after a wait that doubles from
//! half a second; when it ends again and again, the source is lost, and the agent goes on with its own
//! growing waits, so that health tells it. One that hangs is found by the agent, which kills this
//! process and the program with it.
//!
//! Nothing here decodes a picture, and no program is run through a shell.

pub mod presets;
pub mod tools;

mod jpeg;
mod program;
mod words;
mod y4m;

use self::jpeg::JpegCutter;
use self::presets::Launch;
use self::program::{Program, Read, grace};
use self::tools::Tools;
use self::y4m::Y4mCutter;
use super::{Next, Pace, Picture, Source, Trouble};
use crate::domain::stream::{Login, StreamFormat, StreamSettings};
use crate::domain::{FrameFormat, Reason, ReasonCode};
use crate::sys::monotonic;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes read at once where they do not go straight to their picture.
const CHUNK: usize = 64 << 10;
/// The first wait before a program is started again; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// So many ends in a row are mended here; then the source is lost.
const RESTARTS: u32 = 3;
/// A run of this length has been a good one: what comes after it is a new trouble.
const GOOD_RUN: Duration = Duration::from_secs(10);
/// Longest password, bytes.
const MAX_PASSWORD: u64 = 1024;

/// What a cutter has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// How to read the bytes.
    pub format: FrameFormat,
}

/// Why a cutter has found nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// One picture; the next may be good.
    Frame(String),
    /// There is no way on in this stream.
    Stream(String),
}

/// A program's output, cut into pictures.
enum Cutter {
    Jpeg(JpegCutter),
    Y4m(Y4mCutter),
}

impl Cutter {
    fn new(launch: &Launch) -> Self {
        match launch.format {
            StreamFormat::Mjpeg => Cutter::Jpeg(JpegCutter::default()),
            StreamFormat::Y4m if launch.name().starts_with("gst-launch") => {
                Cutter::Y4m(Y4mCutter::of_gstreamer())
            }
            StreamFormat::Y4m => Cutter::Y4m(Y4mCutter::default()),
        }
    }

    fn push(&mut self, bytes: &[u8]) -> (usize, Result<Option<Found>, Unreadable>) {
        match self {
            Cutter::Jpeg(jpeg) => jpeg.push(bytes),
            Cutter::Y4m(y4m) => y4m.push(bytes),
        }
    }

    fn take(&mut self, spare: &mut Vec<u8>) {
        match self {
            Cutter::Jpeg(jpeg) => jpeg.take(spare),
            Cutter::Y4m(y4m) => y4m.take(spare),
        }
    }

    fn unfinished(&self) -> usize {
        match self {
            Cutter::Jpeg(jpeg) => jpeg.unfinished(),
            Cutter::Y4m(y4m) => y4m.unfinished(),
        }
    }

    /// Where a long picture's next bytes go, when they are worth a read of their own.
    fn room(&mut self) -> Option<&mut [u8]> {
        match self {
            Cutter::Jpeg(_) => None,
            Cutter::Y4m(y4m) => y4m.room().filter(|room| room.len() >= CHUNK),
        }
    }

    fn filled(&mut self, bytes: usize) -> Option<Found> {
        match self {
            Cutter::Jpeg(_) => None,
            Cutter::Y4m(y4m) => y4m.filled(bytes),
        }
    }
}

/// One run of the program, from its start to its end.
struct Run {
    program: Program,
    cutter: Cutter,
    since: Instant,
    pictures: u64,
    /// What was read and not cut yet: `chunk[from..to]`.
    from: usize,
    to: usize,
    /// When the picture that is on its way began to come.
    began_ns: u64,
}

enum State {
    Waiting {
        until: Instant,
    },
    Running(Box<Run>),
    /// A film is at its end.
    Ended,
}

/// What one look at the output has led to.
enum Looked {
    Picture(Picture),
    Pending,
    /// One picture is bad.
    Bad(String),
    /// The run is over: by itself, or because its output makes no sense.
    Over(Option<String>),
}

/// A source read by another program.
pub struct Command {
    settings: StreamSettings,
    launch: Launch,
    state: State,
    chunk: Vec<u8>,
    /// Ends in a row.
    ends: u32,
}

impl Command {
    /// Finds out what to run on this machine. Nothing is started before the first picture is asked for.
    ///
    /// # Errors
    /// What is missing, and the package that has it.
    pub fn open(settings: &StreamSettings) -> Result<Self, Reason> {
        let launch = launch(settings, &Tools::here())?;
        if tools::find(&launch.program).is_none() {
            let detail = format!(
                "source {}: the program {} is not there; {}",
                settings.kind(),
                launch.program,
                launch.remedy()
            );
            return Err(Reason::new(ReasonCode::BadRequest, detail));
        }
        if let StreamSettings::Video { path, .. } = settings {
            readable(path)?;
        }
        for note in &launch.notes {
            tracing::warn!(source = settings.kind(), "{note}");
        }
        tracing::info!(command = %launch, "source {}", settings.kind());
        Ok(Self {
            settings: settings.clone(),
            launch,
            state: State::Waiting { until: Instant::now() },
            chunk: vec![0; CHUNK],
            ends: 0,
        })
    }

    fn start(&mut self) -> Result<Run, Reason> {
        // Anew each time: a password may have been changed.
        self.launch = launch(&self.settings, &Tools::here())?;
        let program = Program::start(&self.launch)?;
        Ok(Run {
            program,
            cutter: Cutter::new(&self.launch),
            since: Instant::now(),
            pictures: 0,
            from: 0,
            to: 0,
            began_ns: 0,
        })
    }

    /// A run is over: what to do next, and what to tell.
    fn over(&mut self, run: Run, why: Option<String>, grace: Duration) -> Result<Next, Trouble> {
        let Run { program, cutter, since, pictures, .. } = run;
        let end = program.end(grace, why.is_some());
        let torn = cutter.unfinished() > 0;
        let good = end.good && why.is_none();
        if good && pictures > 0 && !self.launch.live {
            self.ends = 0;
            if self.launch.repeat {
                self.state = State::Waiting { until: Instant::now() };
                return Ok(Next::Pending);
            }
            self.state = State::Ended;
            if torn {
                let detail = format!("source {}: the last picture is cut short", self.settings.kind());
                return Err(Trouble::Frame(Reason::new(ReasonCode::BadRequest, detail)));
            }
            return Ok(Next::Ended);
        }
        let said = match (&why, end.last) {
            (Some(why), _) => format!("writes {why}"),
            (None, Some(last)) => format!("{}: {last}", end.how),
            (None, None) if pictures == 0 => {
                format!("{} without a picture and without a word; try its command by hand", end.how)
            }
            (None, None) => format!("{} without a word", end.how),
        };
        let detail = format!("source {}: {} {said}", self.settings.kind(), self.launch.name());
        let reason = Reason::new(ReasonCode::ChildCrashed, detail);
        let steady = pictures > 0 && since.elapsed() >= GOOD_RUN;
        self.ends = if steady { 1 } else { self.ends + 1 };
        self.again(reason)
    }

    /// Another try, after a while.
    fn again(&mut self, reason: Reason) -> Result<Next, Trouble> {
        if self.ends > RESTARTS {
            return Err(Trouble::Lost(reason));
        }
        let wait = FIRST_WAIT * 2u32.pow(self.ends.saturating_sub(1));
        self.state = State::Waiting { until: Instant::now() + wait };
        Err(Trouble::Frame(reason))
    }
}

impl Source for Command {
    fn describe(&self) -> String {
        let what = match &self.settings {
            StreamSettings::Command { .. } => String::new(),
            StreamSettings::Rtsp { url, .. } | StreamSettings::HttpMjpeg { url, .. } => format!(" {url}"),
            StreamSettings::Video { path, repeat, .. } => {
                format!(" {}, {}", path.display(), if *repeat { "again and again" } else { "once" })
            }
            StreamSettings::CsiPi(sensor) | StreamSettings::CsiJetson(sensor) => {
                format!(" camera {}, {}x{}", sensor.camera, sensor.width, sensor.height)
            }
        };
        format!("{}{what}, read by {}", self.settings.kind(), self.launch.name())
    }

    fn pace(&self) -> Pace {
        if self.launch.live { Pace::Live } else { Pace::Asked }
    }

    fn next(&mut self, _seq: u64, into: &mut Vec<u8>, wait: Duration) -> Result<Next, Trouble> {
        let deadline = Instant::now() + wait;
        loop {
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Ended => return Ok(Next::Ended),
                State::Waiting { until } => {
                    let now = Instant::now();
                    if now < until {
                        self.state = State::Waiting { until };
                        std::thread::sleep(until.min(deadline).saturating_duration_since(now));
                        if until > deadline {
                            return Ok(Next::Pending);
                        }
                        continue;
                    }
                    match self.start() {
                        Ok(run) => self.state = State::Running(Box::new(run)),
                        Err(reason) => {
                            self.ends += 1;
                            return self.again(reason);
                        }
                    }
                }
                State::Running(mut run) => {
                    let looked = run.look(&mut self.chunk, self.launch.live, into, deadline);
                    match looked {
                        Looked::Over(why) => {
                            let grace = deadline.saturating_duration_since(Instant::now()).min(grace());
                            match self.over(*run, why, grace)? {
                                // The film begins again.
                                Next::Pending => continue,
                                next => return Ok(next),
                            }
                        }
                        looked => {
                            self.state = State::Running(run);
                            return match looked {
                                Looked::Picture(picture) => Ok(Next::Picture(picture)),
                                Looked::Bad(detail) => {
                                    let detail = format!(
                                        "source {}: {} writes {detail}",
                                        self.settings.kind(),
                                        self.launch.name()
                                    );
                                    Err(Trouble::Frame(Reason::new(ReasonCode::BadRequest, detail)))
                                }
                                Looked::Pending | Looked::Over(_) => Ok(Next::Pending),
                            };
                        }
                    }
                }
            }
        }
    }

    fn pause(&mut self, paused: bool) -> Result<(), Trouble> {
        // A film waits at its pipe.
        if paused
            && self.launch.live
            && let State::Running(run) =
                std::mem::replace(&mut self.state, State::Waiting { until: Instant::now() })
        {
            run.program.end(grace(), true);
            self.ends = 0;
        }
        Ok(())
    }
}

impl Run {
    /// Reads until there is a picture, at most to the deadline.
    fn look(&mut self, chunk: &mut [u8], live: bool, into: &mut Vec<u8>, deadline: Instant) -> Looked {
        // What is in the pipe now is older than what comes: of a camera all of it is read away.
        let mut older = if live { self.program.waiting() } else { 0 };
        let mut picture = None;
        loop {
            if self.from < self.to {
                match self.cut(chunk, into) {
                    Ok(None) => {}
                    Ok(Some(found)) => {
                        let at = live.then_some(found.1);
                        let Found { width, height, format } = found.0;
                        let found = Picture { captured_mono_ns: at, width, height, format };
                        if !live {
                            return Looked::Picture(found);
                        }
                        picture = Some(found);
                    }
                    Err(Unreadable::Frame(detail)) => return Looked::Bad(detail),
                    Err(Unreadable::Stream(detail)) => return Looked::Over(Some(detail)),
                }
                continue;
            }
            if older == 0
                && let Some(picture) = picture
            {
                return Looked::Picture(picture);
            }
            // First, so that what it wrote last is read.
            let ended = self.program.has_ended();
            match self.read(chunk, into) {
                (Read::Bytes(bytes), None) => older = older.saturating_sub(bytes),
                (Read::Bytes(bytes), Some(found)) => {
                    older = older.saturating_sub(bytes);
                    let at = live.then_some(self.began_ns);
                    let Found { width, height, format } = found;
                    let found = Picture { captured_mono_ns: at, width, height, format };
                    if !live {
                        return Looked::Picture(found);
                    }
                    picture = Some(found);
                }
                (Read::Later | Read::End, _) if picture.is_some() => older = 0,
                (Read::End, _) => return Looked::Over(None),
                (Read::Later, _) if ended => return Looked::Over(None),
                (Read::Later, _) => {
                    let now = Instant::now();
                    if now >= deadline {
                        return Looked::Pending;
                    }
                    self.program.wait(deadline - now);
                }
            }
            // A program that writes without an end, and never a picture, keeps nobody here.
            if picture.is_none() && Instant::now() >= deadline {
                return Looked::Pending;
            }
        }
    }

    /// Reads once: straight into a picture, or into the chunk.
    fn read(&mut self, chunk: &mut [u8], into: &mut Vec<u8>) -> (Read, Option<Found>) {
        if let Some(room) = self.cutter.room() {
            let read = self.program.read(room);
            let Read::Bytes(bytes) = read else { return (read, None) };
            let found = self.cutter.filled(bytes);
            if found.is_some() {
                self.pictures += 1;
                self.cutter.take(into);
            }
            return (read, found);
        }
        let read = self.program.read(chunk);
        if let Read::Bytes(bytes) = read {
            (self.from, self.to) = (0, bytes);
        }
        (read, None)
    }

    /// Cuts on in the chunk, up to one picture; with the time at which it began to come.
    fn cut(&mut self, chunk: &[u8], into: &mut Vec<u8>) -> Result<Option<(Found, u64)>, Unreadable> {
        if self.cutter.unfinished() == 0 {
            self.began_ns = monotonic::now_ns();
        }
        let (used, found) = self.cutter.push(&chunk[self.from..self.to]);
        self.from += used;
        let Some(found) = found? else { return Ok(None) };
        self.pictures += 1;
        self.cutter.take(into);
        Ok(Some((found, self.began_ns)))
    }
}

/// The command line on this machine, with the password where there is one.
fn launch(settings: &StreamSettings, tools: &Tools) -> Result<Launch, Reason> {
    let password = match login(settings) {
        Some(login) => Some(password(&login.password_file)?),
        None => None,
    };
    presets::expand(settings, tools, password.as_deref())
}

/// The login of a source that has one.
pub fn login(settings: &StreamSettings) -> Option<&Login> {
    match settings {
        StreamSettings::Rtsp { login, .. } | StreamSettings::HttpMjpeg { login, .. } => login.as_ref(),
        StreamSettings::Command { .. }
        | StreamSettings::Video { .. }
        | StreamSettings::CsiPi(_)
        | StreamSettings::CsiJetson(_) => None,
    }
}

/// The password in a file; a line break at its end is dropped.
///
/// # Errors
/// It cannot be read, or is no password.
pub fn password(file: &Path) -> Result<String, Reason> {
    let wrong = |why: String| {
        Reason::new(ReasonCode::BadRequest, format!("source.password_file {}: {why}", file.display()))
    };
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|file| file.take(MAX_PASSWORD + 1).read_to_string(&mut text))
        .map_err(|e| wrong(format!("{e}; let the agent's user read it")))?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() || text.len() as u64 > MAX_PASSWORD || text.contains(char::is_control) {
        return Err(wrong(format!("is no password; write one line of at most {MAX_PASSWORD} bytes")));
    }
    Ok(text.to_owned())
}

/// Whether a video file can be opened.
///
/// # Errors
/// Why not.
pub fn readable(path: &Path) -> Result<(), Reason> {
    let wrong =
        |why: String| Reason::new(ReasonCode::BadRequest, format!("source video {}: {why}", path.display()));
    let file = std::fs::File::open(path).map_err(|e| wrong(format!("{e}; correct source.path")))?;
    let meta = file.metadata().map_err(|e| wrong(e.to_string()))?;
    match (meta.is_dir(), meta.len()) {
        (true, _) => Err(wrong("is a folder; name a video file, or use kind = \"folder\"".to_owned())),
        (false, 0) if meta.is_file() => Err(wrong("is empty; replace it".to_owned())),
        (false, _) => Ok(()),
    }
}
