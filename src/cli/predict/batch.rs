//! Many pictures through several engines, the answers in the order of the pictures.

use crate::bundle::OpenBundle;
use crate::domain::result::{Anomaly, RawTensor, Value};
use crate::domain::runtime::RuntimeSettings;
use crate::domain::{Classification, Detection, Output, StageTimes};
use crate::inference::given::Given;
use crate::inference::{Engine, draw};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, PoisonError};

/// Answers that one engine may be ahead of the slowest: they wait in memory.
const AHEAD: usize = 16;

/// An answer to one picture.
pub struct Answer {
    /// As one line of JSON.
    pub line: String,
    /// What the model said.
    pub output: Output,
}

/// One line of the answer.
#[derive(Debug, Serialize)]
struct Line<'a> {
    image: String,
    detections: &'a [Detection],
    classes: &'a [Classification],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    values: &'a [Value],
    #[serde(skip_serializing_if = "Option::is_none")]
    anomaly: Option<&'a Anomaly>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tensors: &'a [RawTensor],
    timing_ms: StageTimes,
}

/// What is to be done.
pub struct Batch<'a> {
    /// The bundle.
    pub bundle: &'a OpenBundle,
    /// How it is run.
    pub settings: &'a RuntimeSettings,
    /// The pictures.
    pub images: &'a [PathBuf],
    /// Where the drawing of each goes.
    pub drawings: Option<&'a [PathBuf]>,
}

/// What the workers share.
#[derive(Default)]
struct Shared {
    next: AtomicUsize,
    stop: AtomicBool,
    /// Pictures whose answers were handed on.
    told: Mutex<usize>,
    more: Condvar,
}

enum Message {
    /// An engine could not be loaded: the end of all.
    Unloaded(anyhow::Error),
    /// The answer to the picture of this number.
    Answer(usize, anyhow::Result<Answer>),
}

impl Batch<'_> {
    /// Answers all pictures with so many engines; `tell` is called with each in its order, and its error
    /// ends the work.
    ///
    /// # Errors
    /// When the model cannot be loaded, and those of `tell`. A picture that fails is told like the others.
    pub fn run(
        &self,
        jobs: usize,
        mut tell: impl FnMut(&Path, anyhow::Result<Answer>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let shared = Shared::default();
        let (sender, answers) = sync_channel(jobs * 2);
        std::thread::scope(|scope| {
            for worker in 0..jobs {
                let (sender, shared) = (sender.clone(), &shared);
                scope.spawn(move || self.work(worker, jobs, shared, &sender));
            }
            drop(sender);
            let mut waiting = BTreeMap::new();
            let mut at = 0;
            let mut ended = Ok(());
            for message in &answers {
                match message {
                    Message::Unloaded(error) => ended = Err(error),
                    Message::Answer(number, answer) => drop(waiting.insert(number, answer)),
                }
                while ended.is_ok()
                    && let Some(answer) = waiting.remove(&at)
                {
                    ended = tell(&self.images[at], answer);
                    at += 1;
                    *shared.told.lock().unwrap_or_else(PoisonError::into_inner) = at;
                    shared.more.notify_all();
                }
                if ended.is_err() {
                    break;
                }
            }
            shared.stop.store(true, Ordering::Relaxed);
            shared.more.notify_all();
            // A worker that waits for room in the channel finds it closed.
            drop(answers);
            ended
        })
    }

    fn work(&self, worker: usize, jobs: usize, shared: &Shared, answers: &SyncSender<Message>) {
        let mut engine = match Engine::load(self.bundle, self.settings) {
            Ok(engine) => engine,
            Err(reason) => return drop(answers.send(Message::Unloaded(reason.into()))),
        };
        let report = engine.report();
        if let (0, Some(why)) = (worker, &report.fallback) {
            anstream::eprintln!("edgewarden: runs on {}: {why}", report.provider.as_str());
        }
        loop {
            let at = shared.next.fetch_add(1, Ordering::Relaxed);
            let Some(image) = self.images.get(at) else { return };
            if !shared.wait_for(at.saturating_sub(jobs * AHEAD)) {
                return;
            }
            let drawing = self.drawings.and_then(|drawings| drawings.get(at)).map(PathBuf::as_path);
            if answers.send(Message::Answer(at, answer(&mut engine, image, drawing))).is_err() {
                return;
            }
        }
    }
}

impl Shared {
    /// Waits until so many answers are told; false when the work is over.
    fn wait_for(&self, wanted: usize) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        while *told < wanted && !self.stop.load(Ordering::Relaxed) {
            // A bound, in case that the stop was called between the look and the sleep.
            let nap = std::time::Duration::from_millis(100);
            told = self.more.wait_timeout(told, nap).unwrap_or_else(PoisonError::into_inner).0;
        }
        !self.stop.load(Ordering::Relaxed)
    }
}

fn answer(engine: &mut Engine, image: &Path, drawing: Option<&Path>) -> anyhow::Result<Answer> {
    let given = Given::read(engine.manifest(), image)?;
    let (output, timing_ms) = engine.run(given.view()).map_err(|reason| given.named(image, reason))?;
    if let (Some(drawing), Given::Picture(picture)) = (drawing, &given) {
        draw::write(picture, &output.detections, drawing)?;
    }
    let line = Line {
        image: image.to_string_lossy().into_owned(),
        detections: &output.detections,
        classes: &output.classes,
        values: &output.values,
        anomaly: output.anomaly.as_ref(),
        tensors: &output.tensors,
        timing_ms,
    };
    Ok(Answer { line: serde_json::to_string(&line)?, output })
}
