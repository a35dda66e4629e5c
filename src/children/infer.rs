//! The inference child: locks itself in, loads the model, and answers the frames it is told to.
//!
//! Its main thread does one thing at a time: an order, a golden run, or a frame. While a frame is
//! worked on nothing is said, so the agent sees a hang as a frame that was published and not answered.

use crate::bundle;
use crate::children::link::{Answers, Gone, NoOrder, Orders, first};
use crate::domain::frame::FrameView;
use crate::domain::runtime::RuntimeSettings;
use crate::domain::window::{Verdict, Window};
use crate::domain::{Digest, FrameResult, Output, Reason, ReasonCode, StageTimes};
use crate::inference::{Engine, golden};
use crate::process::frames::{FrameSubscriber, Lease};
use crate::process::protocol::{FrameChannel, FromInfer, ToInfer};
use crate::sys::lockdown::{self, Enforcement};
use crate::sys::monotonic;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Sleeping is ended by a frame or by the bell; this only bounds what a lost wake-up could cost.
const NAP: Duration = Duration::from_secs(1);
/// Frames that may fail to arrive one after the other before shared memory is given up.
const MAX_BAD_TAKES: u32 = 20;

/// Runs until the agent closes the socket.
///
/// # Errors
/// Why the model cannot be loaded or served; the agent has been told.
pub fn run(socket: UnixStream) -> Result<(), Reason> {
    let Some(message) = first::<ToInfer>(&socket)? else { return Ok(()) };
    let ToInfer::Configure { bundle, digest, runtime, channel } = message else {
        return Err(Reason::new(ReasonCode::Internal, "child: the first message was not configure"));
    };
    let mut answers = Answers::new(&socket)?;
    let served = load(&bundle, digest, &runtime, &channel).and_then(|(mut loaded, subscriber, hello)| {
        // The thread that reads orders must be locked in too, so it is started only now.
        let orders = Orders::listen(socket)?;
        match answers.say(&hello) {
            Ok(()) => Server::new(&mut loaded, subscriber).serve(&orders, &mut answers),
            Err(Gone) => Ok(()),
        }
    });
    if let Err(reason) = &served {
        // A closed socket changes nothing: this is the end either way.
        let _ = answers.say(&FromInfer::Failed { reason: reason.clone() });
    }
    served
}

/// Locks in, opens, checks and loads, in this order.
fn load(
    dir: &Path,
    digest: Digest,
    runtime: &RuntimeSettings,
    channel: &FrameChannel,
) -> Result<(Loaded, FrameSubscriber, FromInfer), Reason> {
    // Made by whoever comes first; a folder that does not exist cannot be allowed.
    for folder in [&runtime.engine_cache, &channel.root] {
        std::fs::create_dir_all(folder).map_err(|e| {
            let detail = format!("create folder {}: {e}; make it writable for the agent", folder.display());
            Reason::new(ReasonCode::Internal, detail)
        })?;
    }
    let mut read: Vec<PathBuf> = lockdown::library_folders(&runtime.library);
    read.push(dir.to_owned());
    let write = [runtime.engine_cache.clone(), channel.root.clone()];
    match lockdown::lock_down(&read, &write) {
        Enforcement::Full => tracing::debug!("locked in"),
        Enforcement::Partial(what) => tracing::warn!("the model's process is locked in, but {what}"),
        Enforcement::None(why) => tracing::warn!("the model's process is not locked in: {why}"),
    }

    let subscriber = FrameSubscriber::open(channel)?;
    let bundle = bundle::open(dir, Some(digest))?;
    let engine = Engine::load(&bundle, runtime)?;
    let report = engine.report();
    let hello = FromInfer::Loaded {
        release: bundle.manifest.release(),
        provider: report.provider,
        fallback: report.fallback.clone(),
        load_ms: report.load_ms,
        runtime_version: report.runtime_version.clone(),
    };
    Ok((Loaded { engine, bundle }, subscriber, hello))
}

/// What the server needs of a model.
trait Model {
    /// Answers one frame.
    fn run(&mut self, frame: FrameView<'_>) -> Result<(Output, StageTimes), Reason>;

    /// Runs the golden inputs; `progress` takes those done and those in all.
    fn golden(&mut self, progress: &mut dyn FnMut(usize, usize)) -> (Result<(), Reason>, Vec<f32>);
}

struct Loaded {
    engine: Engine,
    bundle: bundle::OpenBundle,
}

impl Model for Loaded {
    fn run(&mut self, frame: FrameView<'_>) -> Result<(Output, StageTimes), Reason> {
        self.engine.run(frame)
    }

    fn golden(&mut self, progress: &mut dyn FnMut(usize, usize)) -> (Result<(), Reason>, Vec<f32>) {
        golden::run_all(&mut self.engine, &self.bundle, progress)
    }
}

/// Serves one model.
struct Server<'a, M> {
    model: &'a mut M,
    subscriber: FrameSubscriber,
    /// Open between a start and a stop.
    window: Option<Window>,
    /// Taken and not judged yet.
    frame: Option<Lease>,
    /// Frames below this number have been taken: they cannot be had again.
    taken: u64,
    bad_takes: u32,
}

impl<'a, M: Model> Server<'a, M> {
    fn new(model: &'a mut M, subscriber: FrameSubscriber) -> Self {
        Self { model, subscriber, window: None, frame: None, taken: 0, bad_takes: 0 }
    }

    /// Until the agent is gone.
    fn serve(mut self, orders: &Orders<ToInfer>, answers: &mut Answers) -> Result<(), Reason> {
        loop {
            // Orders first: they are few, and they say which frames are ours.
            let order = if self.window.is_some() { orders.take() } else { orders.wait(None) };
            let done = match order {
                Ok(order) => self.obey(order, answers),
                Err(NoOrder::Ever) => return Ok(()),
                Err(NoOrder::Yet) => {
                    if self.frame.is_none() {
                        self.frame = self.take()?;
                    }
                    match self.frame.take() {
                        Some(frame) => self.answer(frame, answers),
                        None => {
                            self.subscriber.wait(Some(orders.bell()), NAP)?;
                            Ok(())
                        }
                    }
                }
            };
            if let Err(Gone) = done {
                return Ok(());
            }
        }
    }

    fn obey(&mut self, order: ToInfer, answers: &mut Answers) -> Result<(), Gone> {
        match order {
            ToInfer::Configure { .. } => {
                tracing::warn!("configured twice; the second is passed over");
                Ok(())
            }
            ToInfer::RunGolden => {
                let mut gone = Ok(());
                let (verdict, times_ms) = self.model.golden(&mut |done, total| {
                    if gone.is_ok() {
                        gone = answers.say(&FromInfer::GoldenProgress { done, total });
                    }
                });
                gone?;
                answers.say(&FromInfer::Golden { verdict, times_ms })
            }
            ToInfer::Start { from } => {
                let from = match &mut self.window {
                    Some(window) => {
                        window.go_on();
                        window.next()
                    }
                    None => {
                        // The newest frame can still be had, those before it cannot.
                        self.frame = self.take().unwrap_or_default();
                        let gone_by = self.frame.as_ref().map_or(self.taken, Lease::seq);
                        self.window.insert(Window::open(from, gone_by)).next()
                    }
                };
                answers.say(&FromInfer::Started { from })
            }
            ToInfer::Stop { until } => {
                let skipped = match &mut self.window {
                    Some(window) => window.stop(until),
                    None => Some(0),
                };
                match skipped {
                    Some(skipped) => self.stopped(until, skipped, answers),
                    None => Ok(()),
                }
            }
        }
    }

    fn stopped(&mut self, until: u64, skipped: u64, answers: &mut Answers) -> Result<(), Gone> {
        self.window = None;
        self.frame = None;
        answers.say(&FromInfer::Stopped { until, skipped })
    }

    /// The newest frame, if one came.
    fn take(&mut self) -> Result<Option<Lease>, Reason> {
        match self.subscriber.take() {
            Ok(frame) => {
                self.bad_takes = 0;
                if let Some(frame) = &frame {
                    self.taken = self.taken.max(frame.seq().saturating_add(1));
                }
                Ok(frame)
            }
            Err(error) => {
                self.bad_takes += 1;
                if self.bad_takes > MAX_BAD_TAKES {
                    return Err(error.into());
                }
                tracing::warn!(%error, "a frame was lost");
                Ok(None)
            }
        }
    }

    fn answer(&mut self, frame: Lease, answers: &mut Answers) -> Result<(), Gone> {
        let Some(window) = &mut self.window else { return Ok(()) };
        let seq = frame.seq();
        match window.see(seq) {
            Verdict::Ignore => Ok(()),
            Verdict::Closed { until, skipped } => self.stopped(until, skipped, answers),
            Verdict::Run => {
                let result = judge(self.model.run(frame.view()), &frame);
                let answered = window.answered(seq);
                let message = FromInfer::Frame { seq, skipped: answered.skipped, result };
                if let Err(error) = answers.try_say(&message)? {
                    let detail =
                        format!("frame {seq}: the answer cannot be sent: {error}; pass on fewer outputs");
                    let result = Err(Reason::new(ReasonCode::Unsupported, detail));
                    answers.say(&FromInfer::Frame { seq, skipped: answered.skipped, result })?;
                }
                match answered.closed {
                    Some(until) => self.stopped(until, 0, answers),
                    None => Ok(()),
                }
            }
        }
    }
}

/// The model's answer with its frame's data; numbers that are none are an error, also because a message
/// cannot carry them.
fn judge(result: Result<(Output, StageTimes), Reason>, frame: &Lease) -> Result<FrameResult, Reason> {
    let (output, timing_ms) = result?;
    let meta = frame.view().meta;
    if !output.is_finite() {
        let detail = format!("frame {}: the model's answer holds NaN or infinity", meta.seq);
        return Err(Reason::new(ReasonCode::NotFinite, detail));
    }
    let latency_ns = monotonic::now_ns().saturating_sub(meta.captured_mono_ns);
    Ok(FrameResult {
        seq: meta.seq,
        captured_unix_ns: meta.captured_unix_ns,
        latency_ms: (latency_ns as f64 / 1e6) as f32,
        size: [meta.width, meta.height],
        output,
        timing_ms,
    })
}
