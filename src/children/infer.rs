//! The inference child: locks itself in, loads the model, and answers the frames it is told to.
//!
//! Its main thread takes orders and prepares frames; the model has a thread of its own where there is a
//! processor for it ([`worker`](super::worker)), so the next frame is decoded while the model runs. Answers
//! come in the order of the frames ([`outbox`](super::outbox)); a model that hangs answers none, and the
//! agent sees a frame that was published and not answered.

use crate::bundle;
use crate::bundle::secret::Secrets;
use crate::children::link::{Answers, Gone, NoOrder, Orders, first};
use crate::children::outbox::Outbox;
use crate::children::worker::{Job, Stage, Turn, Worker, lock};
use crate::domain::admission::Admission;
use crate::domain::frame::FrameView;
use crate::domain::runtime::{InputSettings, RuntimeSettings};
use crate::domain::{Digest, Output, Reason, ReasonCode, StageTimes};
use crate::inference::engine::{Executor, Preparer, Respond};
use crate::inference::{Engine, golden, graph_cache};
use crate::process::frames::{FrameSubscriber, Lease};
use crate::process::protocol::{FrameChannel, FromInfer, ToInfer};
use crate::sys::lockdown::{self, Role};
use crate::sys::{heap, monotonic};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Sleep is ended by a frame or by an order; this only bounds what a lost wake-up could cost.
const NAP: Duration = Duration::from_secs(1);
/// Frames that may fail to arrive one after the other before shared memory is given up.
const MAX_BAD_TAKES: u32 = 20;

/// Runs until the agent closes the socket.
///
/// # Errors
/// Why the model cannot be loaded or served; the agent has been told.
pub fn run(socket: UnixStream) -> Result<(), Reason> {
    let Some(message) = first::<ToInfer>(&socket)? else { return Ok(()) };
    let ToInfer::Configure { bundle, digest, runtime, input, channel, admission, model_keys } = message
    else {
        return Err(Reason::new(ReasonCode::Internal, "child: the first message was not configure"));
    };
    let outbox = Mutex::new(Outbox::new(Answers::new(&socket)?));
    let served =
        load(&bundle, digest, &runtime, &channel, &model_keys).and_then(|(loaded, subscriber, hello)| {
            // The threads must be locked in too, so they are started only now.
            let orders = Orders::listen(socket)?;
            match lock(&outbox).say(&hello) {
                Ok(()) => {}
                Err(Gone) => return Ok(()),
            }
            serve(loaded, subscriber, input, Admission::new(admission), &orders, &outbox)
        });
    if let Err(reason) = &served {
        // A closed socket changes nothing: this is the end either way.
        let _ = lock(&outbox).say(&FromInfer::Failed { reason: reason.clone() });
    }
    served
}

/// Serves with the model on a thread of its own, where that is wanted and possible.
fn serve(
    loaded: Loaded,
    subscriber: FrameSubscriber,
    input: InputSettings,
    admission: Admission,
    orders: &Orders<ToInfer>,
    outbox: &Mutex<Outbox>,
) -> Result<(), Reason> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let apart = input.overlap.unwrap_or(processors > 1);
    let (mut preparer, executor) = loaded.engine.split();
    preparer.limit_to(input.crop);
    // Where nothing is prepared ahead, one is enough.
    let spare = (0..if apart { 2 } else { 1 }).map(|_| executor.spare_input()).collect::<Result<_, _>>()?;
    let executor = Mutex::new(executor);
    let worker = Worker::new(&executor, outbox, spare, orders.waker(), apart);
    let model = Model { preparer, executor: &executor, crop: input.crop, bundle: loaded.bundle };
    let server =
        Server { model, worker: &worker, outbox, subscriber, admission, frame: None, taken: 0, bad_takes: 0 };
    if !apart {
        return server.serve(orders);
    }
    std::thread::scope(|scope| {
        let thread =
            std::thread::Builder::new().name("model".to_owned()).spawn_scoped(scope, || worker.work());
        let thread =
            thread.map_err(|e| Reason::new(ReasonCode::Internal, format!("child: start a thread: {e}")))?;
        let served = server.serve(orders);
        worker.end();
        // A panic in it has been logged, and ended the serving.
        let _ = thread.join();
        served
    })
}

/// Locks in, opens, checks and loads, in this order.
fn load(
    dir: &Path,
    digest: Digest,
    runtime: &RuntimeSettings,
    channel: &FrameChannel,
    model_keys: &[PathBuf],
) -> Result<(Loaded, FrameSubscriber, FromInfer), Reason> {
    // Only the folder of its own model: what a model that took this process over leaves in the cache is
    // read by nobody but itself. The manifest is checked against its digest when the bundle is opened; a
    // false one leads to that error and no further.
    let (manifest, _) = bundle::read(dir)?;
    // The key of an encrypted model, while this process may still read the device's own, which is forgotten
    // again: a model that took this process over would find the key of its own file and no other.
    let secrets = Secrets::unlock(dir, &manifest, model_keys)?;
    let cache = graph_cache::folder(&runtime.engine_cache, &manifest);
    let cache = cache.unwrap_or_else(|| runtime.engine_cache.clone());
    // Made by whoever comes first; a folder that does not exist cannot be allowed.
    for folder in [&cache, &channel.root] {
        std::fs::create_dir_all(folder).map_err(|e| {
            let detail = format!("create folder {}: {e}; make it writable for the agent", folder.display());
            Reason::new(ReasonCode::Internal, detail)
        })?;
    }
    let mut read: Vec<PathBuf> = lockdown::library_folders(&runtime.library);
    read.push(dir.to_owned());
    let write = [cache, channel.root.clone()];
    lockdown::lock_down(Role::Model, &read, &write).tell("the model's");

    let subscriber = FrameSubscriber::open(channel)?;
    let mut bundle = bundle::open(dir, Some(digest))?;
    bundle.secrets = secrets;
    let engine = Engine::load(&bundle, runtime)?;
    heap::trim();
    let report = engine.report();
    let hello = FromInfer::Loaded {
        release: bundle.manifest.release(),
        provider: report.provider,
        fallback: report.fallback.clone(),
        load_ms: report.load_ms,
        runtime_version: report.runtime_version.clone(),
        shares: report.shares.clone(),
        saved_graph: report.saved_graph,
        needs_memory: bundle.manifest.needs.memory_mb.unwrap_or(0).saturating_mul(1 << 20),
    };
    Ok((Loaded { engine, bundle }, subscriber, hello))
}

/// A bundle that was loaded.
struct Loaded {
    engine: Engine,
    bundle: bundle::OpenBundle,
}

/// What prepares frames and runs golden inputs.
struct Model<'a> {
    preparer: Preparer,
    executor: &'a Mutex<Executor>,
    crop: Option<[f32; 4]>,
    bundle: bundle::OpenBundle,
}

impl Respond for Model<'_> {
    fn respond(&mut self, frame: FrameView<'_>) -> Result<(Output, StageTimes), Reason> {
        let mut executor = lock(self.executor);
        let prepared = self.preparer.prepare(frame, executor.input())?;
        executor.answer(&prepared)
    }
}

/// Serves one model.
struct Server<'a> {
    model: Model<'a>,
    worker: &'a Worker<'a>,
    outbox: &'a Mutex<Outbox>,
    subscriber: FrameSubscriber,
    /// Which frames are not run, although the model is free.
    admission: Admission,
    /// Taken and not judged yet.
    frame: Option<Lease>,
    /// Frames below this number have been taken: they cannot be had again.
    taken: u64,
    bad_takes: u32,
}

impl Server<'_> {
    /// Until the agent is gone.
    fn serve(mut self, orders: &Orders<ToInfer>) -> Result<(), Reason> {
        loop {
            // Orders first: they are few, and they say which frames are ours.
            let open = lock(self.outbox).is_open();
            let order = if open { orders.take() } else { orders.wait(None) };
            let done = match order {
                Ok(order) => self.obey(order),
                Err(NoOrder::Ever) => return Ok(()),
                Err(NoOrder::Yet) if self.worker.has_ended() => {
                    return Err(Reason::new(ReasonCode::Internal, "child: the model's thread has ended"));
                }
                Err(NoOrder::Yet) => self.step(orders)?,
            };
            if let Err(Gone) = done {
                return Ok(());
            }
        }
    }

    /// Takes a frame when it is time for one, or sleeps.
    fn step(&mut self, orders: &Orders<ToInfer>) -> Result<Result<(), Gone>, Reason> {
        match self.worker.turn() {
            Turn::Full => orders.nap(NAP),
            Turn::Later(wait) => orders.nap(wait),
            Turn::Now => {
                if self.frame.is_none() {
                    self.frame = self.take()?;
                }
                match self.frame.take() {
                    Some(frame) => return Ok(self.prepare(&frame)),
                    None => self.subscriber.wait(Some(orders.event()), NAP)?,
                }
            }
        }
        Ok(Ok(()))
    }

    fn obey(&mut self, order: ToInfer) -> Result<(), Gone> {
        match order {
            ToInfer::Configure { .. } => {
                tracing::warn!("configured twice; the second is passed over");
                Ok(())
            }
            ToInfer::RunGolden => {
                let mut gone = Ok(());
                // Golden pictures are looked at whole.
                self.model.preparer.limit_to(None);
                let bundle = self.model.bundle.clone();
                let (verdict, times_ms) = golden::run_all(&mut self.model, &bundle, |done, total| {
                    if gone.is_ok() {
                        gone = lock(self.outbox).say(&FromInfer::GoldenProgress { done, total });
                    }
                });
                self.model.preparer.limit_to(self.model.crop);
                // All that a model takes has been taken now; what loading it took lies free.
                heap::trim();
                gone?;
                lock(self.outbox).say(&FromInfer::Golden { verdict, times_ms })
            }
            ToInfer::Start { from } => {
                if !lock(self.outbox).is_open() {
                    // The newest frame can still be had, those before it cannot. Where every frame is wanted,
                    // the first of those that wait and are ours.
                    self.frame = loop {
                        match self.take().unwrap_or_default() {
                            Some(frame) if self.subscriber.every && frame.seq() < from => {}
                            frame => break frame,
                        }
                    };
                }
                let gone_by = self.frame.as_ref().map_or(self.taken, Lease::seq);
                lock(self.outbox).start(from, gone_by)
            }
            ToInfer::Stop { until } => lock(self.outbox).stop(until),
        }
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

    /// Brings a frame that is ours into the spare tensor, and hands it to the model.
    fn prepare(&mut self, frame: &Lease) -> Result<(), Gone> {
        let view = frame.view();
        let Some(ticket) = lock(self.outbox).enter(view.meta)? else { return Ok(()) };
        let Some(mut input) = self.worker.take_spare() else {
            unreachable!("a frame is taken only when there is a tensor for it")
        };
        let stale_from = self.admission.stale_from(&view.meta);
        let (stage, spent) = match self.admission.refuse(&view.meta, monotonic::now_ns()) {
            Some(why) => (Stage::Passed(why), None),
            None => {
                let start = Instant::now();
                match self.model.preparer.prepare(view, &mut input) {
                    Ok(prepared) => (Stage::Ready(prepared), Some(start.elapsed())),
                    Err(reason) => (Stage::Failed(reason), Some(start.elapsed())),
                }
            }
        };
        self.worker.submit(Job { ticket, input, stage, stale_from }, spent)
    }
}
