//! Many pictures and films through several engines, the answers in the order of the pictures.
//!
//! One thread hands the work out: the names of pictures, which the engines' threads read themselves, and
//! the frames of films, which it reads. Only as many frames wait as there are engines.

use super::film::{self, Facts, Thin};
use crate::bundle::OpenBundle;
use crate::domain::result::{Anomaly, RawTensor, Value};
use crate::domain::runtime::RuntimeSettings;
use crate::domain::{Classification, Detection, Output, StageTimes};
use crate::inference::given::Given;
use crate::inference::{Engine, draw};
use anyhow::Context;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Answers that one engine may be ahead of the slowest: they wait in memory.
const AHEAD: usize = 16;

/// An answer to one picture.
pub struct Answer {
    /// As one line of JSON.
    pub line: String,
    /// What the model said.
    pub output: Output,
}

/// What an answer is about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct About<'a> {
    /// The picture or film.
    pub path: &'a Path,
    /// Of a film: the frame's number, and its time in seconds where it is known.
    pub frame: Option<(u64, Option<f64>)>,
}

/// One line of the answer.
#[derive(Debug, Serialize)]
struct Line<'a> {
    image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    frame: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_s: Option<f64>,
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

/// A picture or a film.
pub struct Input {
    /// Its file.
    pub path: PathBuf,
    /// What is known of a film; `None` for a picture.
    pub film: Option<Facts>,
}

/// What is to be done.
pub struct Batch<'a> {
    /// The bundle.
    pub bundle: &'a OpenBundle,
    /// How it is run.
    pub settings: &'a RuntimeSettings,
    /// The pictures and films.
    pub inputs: &'a [Input],
    /// Which frames of the films.
    pub thin: Thin,
    /// Where the drawing of each picture goes; those of a film's frames go into a folder of that name.
    pub drawings: Option<&'a [PathBuf]>,
    /// Set from outside: end it.
    pub stop: &'a AtomicBool,
}

/// Work for one engine.
enum Task {
    /// Read this picture.
    Picture,
    /// A frame of a film.
    Frame(film::Frame),
    /// A film that cannot be read, or not further.
    Broken(anyhow::Error),
}

struct Job {
    /// The place of its answer.
    at: usize,
    input: usize,
    task: Task,
}

/// What the threads share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Answers that were handed on.
    told: Mutex<usize>,
    more: Condvar,
}

enum Message {
    /// An engine could not be loaded: the end of all.
    Unloaded(anyhow::Error),
    /// The answer in this place.
    Answer { at: usize, input: usize, frame: Option<(u64, Option<f64>)>, answer: anyhow::Result<Answer> },
}

impl Batch<'_> {
    /// Answers everything with so many engines; `tell` is called with each in its order, and its error
    /// ends the work. It also ends when `stop` is set.
    ///
    /// # Errors
    /// When the model cannot be loaded, and those of `tell`. A picture that fails is told like the others.
    pub fn run(
        &self,
        jobs: usize,
        mut tell: impl FnMut(About<'_>, anyhow::Result<Answer>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let shared = Shared::default();
        let (sender, answers) = sync_channel(jobs * 2);
        let (work, tasks) = sync_channel(jobs);
        // Gone with the last engine, which the thread that hands out then finds.
        let tasks = Arc::new(Mutex::new(tasks));
        std::thread::scope(|scope| {
            for worker in 0..jobs {
                let (sender, shared, tasks) = (sender.clone(), &shared, tasks.clone());
                scope.spawn(move || self.work(worker, shared, tasks, &sender));
            }
            drop((sender, tasks));
            let handed = &shared;
            scope.spawn(move || self.hand_out(jobs, handed, &work));
            let mut waiting = BTreeMap::new();
            let mut next = 0;
            let mut ended = Ok(());
            for message in &answers {
                match message {
                    Message::Unloaded(error) => ended = Err(error),
                    Message::Answer { at, input, frame, answer } => {
                        waiting.insert(at, (input, frame, answer));
                    }
                }
                while ended.is_ok()
                    && let Some((input, frame, answer)) = waiting.remove(&next)
                {
                    ended = tell(About { path: &self.inputs[input].path, frame }, answer);
                    next += 1;
                    *shared.told.lock().unwrap_or_else(PoisonError::into_inner) = next;
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

    fn stops(&self, shared: &Shared) -> bool {
        shared.stop.load(Ordering::Relaxed) || self.stop.load(Ordering::Relaxed)
    }

    /// Hands out everything in its order.
    fn hand_out(&self, jobs: usize, shared: &Shared, work: &SyncSender<Job>) {
        let mut at = 0;
        // False when nobody wants more.
        let mut hand = |input, task| {
            let wanted = self.wait_for(shared, usize::saturating_sub(at, jobs * AHEAD));
            let handed = wanted && work.send(Job { at, input, task }).is_ok();
            at += 1;
            handed
        };
        for (number, input) in self.inputs.iter().enumerate() {
            let goes_on = match &input.film {
                None => hand(number, Task::Picture),
                Some(facts) => {
                    let give = |frame| hand(number, Task::Frame(frame));
                    match film::read(&input.path, facts, self.thin, give, || self.stops(shared)) {
                        Ok(()) => true,
                        Err(reason) => hand(number, Task::Broken(reason.into())),
                    }
                }
            };
            if !goes_on || self.stops(shared) {
                return;
            }
        }
    }

    fn work(
        &self,
        worker: usize,
        shared: &Shared,
        tasks: Arc<Mutex<Receiver<Job>>>,
        answers: &SyncSender<Message>,
    ) {
        let mut engine = match Engine::load(self.bundle, self.settings) {
            Ok(engine) => engine,
            Err(reason) => return drop(answers.send(Message::Unloaded(reason.into()))),
        };
        let report = engine.report();
        if let (0, Some(why)) = (worker, &report.fallback) {
            anstream::eprintln!("edgewarden: runs on {}: {why}", report.provider.as_str());
        }
        loop {
            let job = tasks.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(Job { at, input, task }) = job else { return };
            if self.stops(shared) {
                return;
            }
            let frame = match &task {
                Task::Frame(frame) => Some((frame.number, frame.time_s)),
                Task::Picture | Task::Broken(_) => None,
            };
            let drawing = self.drawings.and_then(|drawings| drawings.get(input)).map(PathBuf::as_path);
            let answer = self.answer(&mut engine, &self.inputs[input].path, task, drawing);
            if answers.send(Message::Answer { at, input, frame, answer }).is_err() {
                return;
            }
        }
    }

    /// Waits until so many answers are told; false when the work is over.
    fn wait_for(&self, shared: &Shared, wanted: usize) -> bool {
        let mut told = shared.told.lock().unwrap_or_else(PoisonError::into_inner);
        while *told < wanted && !self.stops(shared) {
            // A bound, in case that the stop was called between the look and the sleep.
            let nap = std::time::Duration::from_millis(100);
            told = shared.more.wait_timeout(told, nap).unwrap_or_else(PoisonError::into_inner).0;
        }
        !self.stops(shared)
    }

    fn answer(
        &self,
        engine: &mut Engine,
        path: &Path,
        task: Task,
        drawing: Option<&Path>,
    ) -> anyhow::Result<Answer> {
        let (given, frame, drawing) = match task {
            Task::Broken(error) => return Err(error),
            Task::Picture => (Given::read(engine.manifest(), path)?, None, drawing.map(Path::to_owned)),
            Task::Frame(film::Frame { number, time_s, picture }) => {
                let drawing = drawing.map(|drawing| place_of_frame(drawing, number)).transpose()?;
                (Given::Picture(picture), Some((number, time_s)), drawing)
            }
        };
        let (output, timing_ms) = engine.run(given.view()).map_err(|reason| given.named(path, reason))?;
        if let (Some(drawing), Given::Picture(picture)) = (drawing, &given) {
            draw::write(picture, &output.detections, &drawing)?;
        }
        let line = Line {
            image: path.to_string_lossy().into_owned(),
            frame: frame.map(|(number, _)| number),
            time_s: frame.and_then(|(_, time_s)| time_s),
            detections: &output.detections,
            classes: &output.classes,
            values: &output.values,
            anomaly: output.anomaly.as_ref(),
            tensors: &output.tensors,
            timing_ms,
        };
        Ok(Answer { line: serde_json::to_string(&line)?, output })
    }
}

/// Where the drawing of a frame goes: into a folder with the name of its film, under its number.
fn place_of_frame(drawing: &Path, number: u64) -> anyhow::Result<PathBuf> {
    let folder = drawing.with_extension("");
    std::fs::create_dir_all(&folder).with_context(|| format!("make folder {}", folder.display()))?;
    Ok(folder.join(format!("{number:06}.jpg")))
}
