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

pub mod jpeg;
pub mod presets;
pub mod tools;
pub mod y4m;

mod inputs;
mod run;

pub use inputs::{login, password, readable};
pub use run::{Found, Unreadable};

use self::presets::Launch;
use self::run::{CHUNK, Looked, Run};
use self::tools::Tools;
use super::program::{self, grace};
use super::{Next, Pace, Source, Trouble};
use crate::domain::backoff::{Backoff, Restarts};
use crate::domain::stream::StreamSettings;
use crate::domain::{Reason, ReasonCode};
use std::time::{Duration, Instant};

/// So many ends in a row are mended here; then the source is lost.
const RESTARTS: Restarts =
    Restarts::new(3, Backoff::new(Duration::from_millis(500), Duration::from_secs(10)));
/// A run of this length has been a good one: what comes after it is a new trouble.
const GOOD_RUN: Duration = Duration::from_secs(10);

enum State {
    Waiting {
        until: Instant,
    },
    Running(Box<Run>),
    /// A film is at its end.
    Ended,
}

/// A source read by another program.
pub struct Stream {
    settings: StreamSettings,
    launch: Launch,
    state: State,
    chunk: Vec<u8>,
    restarts: Restarts,
}

impl Stream {
    /// Finds out what to run on this machine. Nothing is started before the first picture is asked for.
    ///
    /// # Errors
    /// What is missing, and the package that has it.
    pub fn open(settings: &StreamSettings) -> Result<Self, Reason> {
        let launch = launch(settings, &Tools::here())?;
        if program::find(&launch.line.program).is_none() {
            let detail = format!(
                "source {}: the program {} is not there; {}",
                settings.kind(),
                launch.line.program,
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
        tracing::info!(command = %launch.line, "source {}", settings.kind());
        Ok(Self {
            settings: settings.clone(),
            launch,
            state: State::Waiting { until: Instant::now() },
            chunk: vec![0; CHUNK],
            restarts: RESTARTS,
        })
    }

    fn start(&mut self) -> Result<Run, Reason> {
        // Anew each time: a password may have been changed.
        self.launch = launch(&self.settings, &Tools::here())?;
        Run::start(&self.launch)
    }

    /// A run is over: what to do next, and what to tell.
    fn over(&mut self, run: Run, why: Option<String>, grace: Duration) -> Result<Next, Trouble> {
        let (pictures, torn, steady) =
            (run.pictures(), run.is_torn(), run.pictures() > 0 && run.lasted() >= GOOD_RUN);
        let end = run.end(grace, why.is_some());
        let good = end.good && why.is_none();
        if good && pictures > 0 && !self.launch.live {
            self.restarts.reset();
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
        let said = match why {
            Some(why) => format!("writes {why}"),
            None if pictures == 0 && end.last.is_none() => {
                format!("{} without a picture and without a word; try its command by hand", end.how)
            }
            None => end.to_string(),
        };
        let detail = format!("source {}: {} {said}", self.settings.kind(), self.launch.line.name());
        let reason = Reason::new(ReasonCode::ChildCrashed, detail);
        if steady {
            self.restarts.reset();
        }
        self.again(reason)
    }

    /// Another try, after a while.
    fn again(&mut self, reason: Reason) -> Result<Next, Trouble> {
        let Some(wait) = self.restarts.wait() else { return Err(Trouble::Lost(reason)) };
        self.state = State::Waiting { until: Instant::now() + wait };
        Err(Trouble::Frame(reason))
    }
}

impl Source for Stream {
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
        format!("{}{what}, read by {}", self.settings.kind(), self.launch.line.name())
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
                        Err(reason) => return self.again(reason),
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
                                        self.launch.line.name()
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
            run.end(grace(), true);
            self.restarts.reset();
        }
        Ok(())
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
