//! Events on their way out: from each answer to what is told of it, without the frames waiting for a disk or a
//! broker.
//!
//! ```text
//! outlet → Events (a watch a pipeline, in memory) → channel → teller → note on disk → mqtt's spool
//!                                                                   └→ a picture of the camera
//! ```
//!
//! Of each event that goes on there is a note in the store, so that an `end` follows each `new` whatever happens:
//! an agent that was killed leaves its notes, and the next one ends those events (`agent_restarted`). The note is
//! written before the `new` is handed over, and removed some time after the `end` was: a power cut between the two
//! says an `end` twice, and never not at all.

use super::host::Device;
use crate::config::settings::PipelineSettings;
use crate::domain::event::{Counts, EndReason, Event, EventId, Frame, Kind, Told, Watch};
use crate::domain::{FrameResult, PipelineName};
use crate::mqtt;
use crate::sys::blocking::blocking;
use crate::sys::store::{Batch, Store, StoreError, Tree};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// What may wait for the teller.
const WAITING: usize = 1024;
/// What is written to the disk together.
const BATCH: usize = 64;
/// Between two looks at the clock.
const LOOK: Duration = Duration::from_secs(1);
/// The spool has written an `end` long before its note is removed after this time.
const NOTE_STAYS: Duration = Duration::from_secs(5);
/// Longest edges of a picture that goes with an event, pixels: a smaller one where the first is too large for a message.
const EDGES: [u32; 2] = [640, 320];
/// A camera that does not give its picture by then gives none.
const PICTURE: Duration = Duration::from_secs(5);
/// At the agent's end the teller gets so long for each step.
const FAREWELL: Duration = Duration::from_secs(2);

/// Something for the teller.
enum Word {
    /// It happened.
    Happened { pipeline: PipelineName, told: Box<Told> },
    /// Answer when all so far is handed over.
    Flush(oneshot::Sender<()>),
    /// The spool has all: remove the notes of what is over, and answer.
    Forget(oneshot::Sender<()>),
}

/// What is remembered on disk of an event that goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Note {
    pipeline: PipelineName,
    event: Event,
}

/// The watches of all pipelines that tell of events. Nothing here waits.
pub struct Events {
    watches: BTreeMap<PipelineName, Mutex<Watch>>,
    started: Instant,
    words: mpsc::Sender<Word>,
}

/// What the teller reads.
pub struct Words(mpsc::Receiver<Word>);

impl Events {
    /// Watches for those pipelines that have rules.
    pub fn new(pipelines: &[PipelineSettings]) -> (Arc<Self>, Words) {
        let watch = |one: &PipelineSettings| {
            let rules = one.events.as_ref()?.rules.clone();
            Some((one.name.clone(), Mutex::new(Watch::new(rules))))
        };
        let (words, heard) = mpsc::channel(WAITING);
        let watches = pipelines.iter().filter_map(watch).collect();
        (Arc::new(Self { watches, started: Instant::now(), words }), Words(heard))
    }

    /// Looks at an answer.
    pub fn answered(&self, pipeline: &PipelineName, result: &FrameResult) {
        let Some(mut watch) = self.watch(pipeline) else { return };
        let latency = Duration::try_from_secs_f32(result.latency_ms / 1000.0).unwrap_or_default();
        let frame = Frame {
            now: self.started.elapsed().saturating_sub(latency),
            at: Timestamp::from_nanosecond(result.captured_unix_ns.into()).unwrap_or(Timestamp::UNIX_EPOCH),
            seq: result.seq,
            size: result.size,
            output: &result.output,
        };
        let told = watch.see(frame, &mut || EventId(uuid::Uuid::now_v7()));
        // Handed over under the lock, so that it goes out in the order in which it happened.
        self.hand_over(pipeline, told);
    }

    /// How many events a pipeline had and has; none where it tells of none.
    pub fn counts(&self, pipeline: &PipelineName) -> Option<Counts> {
        Some(self.watch(pipeline)?.counts())
    }

    /// Time goes by.
    fn tick(&self) {
        for (pipeline, watch) in &self.watches {
            let mut watch = locked(watch);
            let told = watch.tick(self.started.elapsed());
            self.hand_over(pipeline, told);
        }
    }

    /// Ends what goes on, once no more answers come, and waits until it is handed over.
    pub async fn end(&self) {
        for (pipeline, watch) in &self.watches {
            let told = locked(watch).end_all(EndReason::AgentStopped);
            self.hand_over(pipeline, told);
        }
        self.ask(Word::Flush).await;
    }

    /// Removes the notes of what is over, once the broker's side has ended too.
    pub async fn forget(&self) {
        self.ask(Word::Forget).await;
    }

    async fn ask(&self, word: impl FnOnce(oneshot::Sender<()>) -> Word) {
        let (done, answer) = oneshot::channel();
        let asked = async {
            if self.words.send(word(done)).await.is_ok() {
                let _ = answer.await;
            }
        };
        let _ = tokio::time::timeout(FAREWELL, asked).await;
    }

    fn watch(&self, pipeline: &PipelineName) -> Option<MutexGuard<'_, Watch>> {
        self.watches.get(pipeline).map(locked)
    }

    fn hand_over(&self, pipeline: &PipelineName, told: Vec<Told>) {
        for told in told {
            let (kind, id) = (told.kind, told.event.id);
            let word = Word::Happened { pipeline: pipeline.clone(), told: Box::new(told) };
            if self.words.try_send(word).is_err() {
                tracing::error!(
                    %pipeline,
                    %id,
                    kind = kind.as_str(),
                    "an event was not told: the store's disk is too slow, or the agent ends"
                );
            }
        }
    }
}

fn locked(watch: &Mutex<Watch>) -> MutexGuard<'_, Watch> {
    watch.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells what happened; one task.
pub struct Teller {
    events: Arc<Events>,
    words: mpsc::Receiver<Word>,
    mqtt: Option<mqtt::Handle>,
    device: Arc<Device>,
    store: Store,
    notes: Tree<Note>,
    /// Events of this run.
    ours: HashSet<EventId>,
    /// Those that are over, until their notes are removed.
    over: VecDeque<(EventId, Instant)>,
    /// Whether what an earlier run left was read.
    taken_up: bool,
    pictures: BTreeMap<PipelineName, Pictures>,
    counted: BTreeMap<PipelineName, Counts>,
}

/// When a pipeline's next picture may go out.
struct Pictures {
    every: Duration,
    due: Instant,
    /// One at a time is asked for.
    turn: Arc<Semaphore>,
}

impl Teller {
    /// Ready to [`Teller::run`].
    pub fn new(
        events: Arc<Events>,
        words: Words,
        mqtt: Option<mqtt::Handle>,
        device: Arc<Device>,
        store: Store,
        pipelines: &[PipelineSettings],
    ) -> Self {
        let pictures = |one: &PipelineSettings| {
            let every = one.events.as_ref()?.picture_every?;
            // A window of samples is no picture.
            let turn = Arc::new(Semaphore::new(1));
            let pictures = Pictures { every, due: Instant::now(), turn };
            one.source.gives_pictures().then(|| (one.name.clone(), pictures))
        };
        Self {
            pictures: pipelines.iter().filter_map(pictures).collect(),
            notes: store.tree("events"),
            ours: HashSet::new(),
            over: VecDeque::new(),
            taken_up: false,
            counted: BTreeMap::new(),
            words: words.0,
            events,
            mqtt,
            device,
            store,
        }
    }

    /// Tells until the agent is gone.
    pub async fn run(mut self) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                word = self.words.recv() => match word {
                    Some(word) => self.take_in(word).await,
                    None => return,
                },
                _ = look.tick() => {
                    self.take_up().await;
                    self.events.tick();
                    self.count();
                    self.remove_notes(NOTE_STAYS).await;
                }
            }
        }
    }

    /// Takes a word and all that came with it.
    async fn take_in(&mut self, word: Word) {
        let mut happened = Vec::new();
        let mut next = Some(word);
        while let Some(word) = next {
            match word {
                Word::Happened { pipeline, told } => happened.push((pipeline, *told)),
                Word::Flush(done) => {
                    self.tell(std::mem::take(&mut happened)).await;
                    self.count();
                    let _ = done.send(());
                }
                Word::Forget(done) => {
                    self.tell(std::mem::take(&mut happened)).await;
                    self.remove_notes(Duration::ZERO).await;
                    let _ = done.send(());
                }
            }
            next = if happened.len() < BATCH { self.words.try_recv().ok() } else { None };
        }
        self.tell(happened).await;
    }

    /// Notes what goes on, then hands all of it to the broker's side in its order.
    async fn tell(&mut self, happened: Vec<(PipelineName, Told)>) {
        if happened.is_empty() {
            return;
        }
        let mut batch = Batch::default();
        for (pipeline, told) in &happened {
            let note = Note { pipeline: pipeline.clone(), event: told.event.clone() };
            match told.kind {
                Kind::New | Kind::Update => {
                    self.ours.insert(told.event.id);
                    let put = batch.put(&self.notes, &told.event.id.to_string(), &note);
                    self.noted(put);
                }
                Kind::End => self.over.push_back((told.event.id, Instant::now())),
            }
        }
        self.apply(batch).await;
        for (pipeline, told) in &happened {
            if let Some(mqtt) = &self.mqtt {
                mqtt.event(pipeline, told.kind, &told.event);
            }
            if told.kind == Kind::New {
                self.picture(pipeline);
            }
        }
    }

    /// Ends what an agent before this one left open.
    async fn take_up(&mut self) {
        if self.taken_up {
            return;
        }
        let notes = self.notes.clone();
        let Ok(found) = blocking(move || Ok(notes.entries()?)).await else { return };
        self.taken_up = true;
        for (_, note) in found {
            if self.ours.contains(&note.event.id) {
                continue;
            }
            self.over.push_back((note.event.id, Instant::now()));
            if let Some(mqtt) = &self.mqtt {
                mqtt.event(&note.pipeline, Kind::End, &note.event.ended(EndReason::AgentRestarted));
            }
        }
    }

    /// Tells the counts that changed.
    fn count(&mut self) {
        let Some(mqtt) = &self.mqtt else { return };
        for pipeline in self.events.watches.keys() {
            let Some(counts) = self.events.counts(pipeline) else { continue };
            if self.counted.get(pipeline) != Some(&counts) {
                mqtt.counts(pipeline, &counts);
                self.counted.insert(pipeline.clone(), counts);
            }
        }
    }

    /// Removes the notes of events that were over so long ago.
    async fn remove_notes(&mut self, ago: Duration) {
        let mut batch = Batch::default();
        let mut any = false;
        while let Some((id, _)) = self.over.front().filter(|(_, at)| at.elapsed() >= ago) {
            batch.remove(&self.notes, &id.to_string());
            self.ours.remove(id);
            self.over.pop_front();
            any = true;
        }
        if any {
            self.apply(batch).await;
        }
    }

    async fn apply(&self, batch: Batch) {
        let store = self.store.clone();
        // Not synced for itself: the spool does that for its message, and the store keeps the order.
        if let Err(reason) = blocking(move || Ok(store.batch(batch)?)).await {
            tracing::warn!(%reason, "events: not noted; after a crash their end is not told");
        }
    }

    fn noted(&self, put: Result<(), StoreError>) {
        if let Err(error) = put {
            tracing::error!(%error, "events: a note has no written form");
        }
    }

    /// Sends the camera's newest picture, unless one went out just now.
    fn picture(&mut self, pipeline: &PipelineName) {
        let (Some(mqtt), Some(pictures)) = (self.mqtt.clone(), self.pictures.get_mut(pipeline)) else {
            return;
        };
        let now = Instant::now();
        let Ok(turn) = pictures.turn.clone().try_acquire_owned() else { return };
        if now < pictures.due || mqtt.connected().borrow().generation().is_none() {
            return;
        }
        pictures.due = now + pictures.every;
        let (device, pipeline) = (self.device.clone(), pipeline.clone());
        tokio::spawn(async move {
            let _turn = turn;
            let Ok(handle) = device.pipeline(Some(&pipeline)) else { return };
            for edge in EDGES {
                match tokio::time::timeout(PICTURE, handle.snapshot(edge)).await {
                    Ok(Ok(jpeg)) => match mqtt.snapshot(&pipeline, jpeg.into()) {
                        Ok(()) => return,
                        Err(reason) => tracing::debug!(%pipeline, %reason, "a picture for an event"),
                    },
                    Ok(Err(reason)) => return tracing::debug!(%pipeline, %reason, "no picture for an event"),
                    Err(_) => {
                        return tracing::debug!(%pipeline, "no picture for an event: the camera is slow");
                    }
                }
            }
        });
    }
}
