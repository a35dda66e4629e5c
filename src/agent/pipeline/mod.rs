//! One pipeline at work: the inference children on the frames of its camera.
//!
//! An actor owns them all (`actor`; `hear` takes what the children say), so that the swap is one
//! decision in one place; `runner` knows one inference child, `shadow` compares a candidate with what
//! serves, `recycle` replaces a child that has grown. The camera is an actor of its own
//! ([`camera`]), which may have other pipelines too. Nothing here knows why a bundle is
//! tried or put back: that is decided in `domain` and driven from `update`.

mod actor;
mod fault;
mod film;
mod hear;
mod recycle;
mod runner;
mod shadow;

pub use actor::spawn;

use super::camera;
use crate::domain::admission::AdmissionSettings;
use crate::domain::deployment::{BundleRef, Observation, SwapReport, TrialReport};
use crate::domain::ledger::{Skip, Totals};
use crate::domain::manifest::Provider;
use crate::domain::memory::{Budget, Excess};
use crate::domain::runtime::{InputSettings, ProviderShare, RuntimeSettings};
use crate::domain::shadow::{Plan as Compare, Report};
use crate::domain::{FrameResult, PipelineName, Reason, ReasonCode, SlotName};
use crate::process::protocol::{Boxes, FrameChannel};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// What is kept for an observer that does not look.
const OBSERVATIONS: usize = 256;

/// All that a pipeline needs to know; fixed for its life.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its name.
    pub name: PipelineName,
    /// The slot whose bundle it runs.
    pub slot: SlotName,
    /// Frames that no model is run on.
    pub admission: AdmissionSettings,
    /// How models are run.
    pub runtime: RuntimeSettings,
    /// Files with the keys that open encrypted ones.
    pub model_keys: Vec<PathBuf>,
    /// How frames are brought to them.
    pub input: InputSettings,
    /// A frame that takes longer means that the child hangs.
    pub frame_deadline: Duration,
    /// Loading, and each step of a trial, may take so long.
    pub load_deadline: Duration,
    /// When a serving child has outgrown its memory.
    pub memory_budget: Budget,
    /// Private memory that an inference child can get at all, bytes; 0: no limit.
    pub memory_limit: u64,
    /// The program that the children are.
    pub exe: PathBuf,
    /// Where its camera's frames travel.
    pub channel: FrameChannel,
}

impl Plan {
    /// True when the camera is this pipeline's; else it looks at another one's.
    pub fn owns_camera(&self) -> bool {
        self.channel.pipeline == self.name
    }
}

/// What comes out of a pipeline, frame by frame. Called from the actor: must not block.
pub trait Sink: Send + Sync + 'static {
    /// A frame was answered.
    fn answered(&self, pipeline: &PipelineName, result: FrameResult);
    /// A frame ended in an error.
    fn failed(&self, pipeline: &PipelineName, seq: u64, reason: &Reason);
    /// Frames went by without an answer.
    fn skipped(&self, pipeline: &PipelineName, count: u64, why: Skip);
    /// The source published frames.
    fn published(&self, pipeline: &PipelineName, frames: u64);
    /// The source held pictures back because nothing moved in them.
    fn still(&self, pipeline: &PipelineName, pictures: u64);
    /// A serving child had grown past its budget, and a fresh one of the same bundle took over.
    fn recycled(&self, pipeline: &PipelineName, excess: Excess);
    /// A child of the pipeline was lost and is started again.
    fn child_lost(&self, pipeline: &PipelineName, role: &'static str, reason: &Reason);
}

/// What serves at the moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Serving {
    /// The bundle.
    pub bundle: BundleRef,
    /// The provider that really runs it.
    pub provider: Provider,
    /// Why it is not the first one that was asked for.
    pub fallback: Option<String>,
    /// Version of ONNX Runtime.
    pub runtime_version: String,
    /// How much each provider runs, the largest share first.
    pub shares: Vec<ProviderShare>,
}

/// A pipeline as others may see it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Status {
    /// The source.
    pub camera: camera::Status,
    /// Why frames come and none is looked at: they are too old. Until one is answered.
    pub stale: Option<Reason>,
    /// What serves.
    pub serving: Option<Serving>,
    /// How long the agent waits for what the child owes that serves or is about to; `None`: nothing.
    pub owed: Option<Duration>,
    /// Why nothing serves although something should.
    pub model_fault: Option<Reason>,
    /// The newest fault of any kind, until what had it works again (`fault`).
    pub last_error: Option<Reason>,
    /// Process ids by role: `capture`, `infer`, `candidate`, `standby`.
    pub pids: Vec<(&'static str, u32)>,
    /// Frames by fate.
    pub totals: Totals,
}

/// What can be asked of a pipeline. Answers come through the `oneshot`.
pub(super) enum Ask {
    Try { bundle: BundleRef, dir: PathBuf, reply: oneshot::Sender<Result<TrialReport, Reason>> },
    Shadow { plan: Compare, progress: watch::Sender<Report>, reply: oneshot::Sender<Result<(), Reason>> },
    Swap { reply: oneshot::Sender<Result<SwapReport, Reason>> },
    Serve { bundle: Option<(BundleRef, PathBuf)>, reply: oneshot::Sender<Result<(), Reason>> },
    Settle,
    Discard,
    Observe { observer: mpsc::Sender<Observation> },
    Stop { reply: oneshot::Sender<()> },
}

/// Speaks to a running pipeline.
#[derive(Clone)]
pub struct Handle {
    plan: Arc<Plan>,
    camera: camera::Handle,
    asks: mpsc::Sender<Ask>,
    status: watch::Receiver<Status>,
}

impl Handle {
    /// Its name, slot and settings.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How it is now, and a way to wait for a change.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Loads a candidate in a child of its own and runs its golden inputs.
    ///
    /// # Errors
    /// Why the candidate is no good.
    pub async fn try_candidate(&self, bundle: BundleRef, dir: PathBuf) -> Result<TrialReport, Reason> {
        self.ask(|reply| Ask::Try { bundle, dir, reply }).await?
    }

    /// The candidate that passed its trial answers live frames beside the model that serves, until enough
    /// of them were compared; what is found so far goes to `progress`.
    ///
    /// # Errors
    /// Why the candidate is not good enough.
    pub async fn shadow(&self, plan: Compare, progress: watch::Sender<Report>) -> Result<(), Reason> {
        self.ask(|reply| Ask::Shadow { plan, progress, reply }).await?
    }

    /// The candidate takes over; the model that served stays loaded, idle.
    ///
    /// # Errors
    /// When there is no candidate that passed its trial, or its child is lost.
    pub async fn swap(&self) -> Result<SwapReport, Reason> {
        self.ask(|reply| Ask::Swap { reply }).await?
    }

    /// Serves this bundle and lets go of anything else.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub async fn serve(&self, bundle: Option<(BundleRef, PathBuf)>) -> Result<(), Reason> {
        self.ask(|reply| Ask::Serve { bundle, reply }).await?
    }

    /// Lets go of the idle child.
    pub async fn settle(&self) {
        let _ = self.asks.send(Ask::Settle).await;
    }

    /// Lets go of a candidate.
    pub async fn discard(&self) {
        let _ = self.asks.send(Ask::Discard).await;
    }

    /// What is seen of the serving model from its takeover by a swap, else from now on; an earlier observer is let
    /// go.
    pub fn observe(&self) -> mpsc::Receiver<Observation> {
        let (observer, observations) = mpsc::channel(OBSERVATIONS);
        let asks = self.asks.clone();
        tokio::spawn(async move {
            let _ = asks.send(Ask::Observe { observer }).await;
        });
        observations
    }

    /// The newest frame as a JPEG.
    ///
    /// # Errors
    /// When there is no frame, or the source does not answer.
    pub async fn snapshot(&self, max_edge: u32) -> Result<Vec<u8>, Reason> {
        self.camera.snapshot(max_edge, None).await
    }

    /// The newest frame as a JPEG with boxes on it. They are those of another frame than the one that is shown,
    /// where things move faster than the model answers.
    ///
    /// # Errors
    /// As [`Handle::snapshot`].
    pub async fn snapshot_with(&self, max_edge: u32, boxes: Boxes) -> Result<Vec<u8>, Reason> {
        self.camera.snapshot(max_edge, Some(boxes)).await
    }

    /// Its camera, which may be another pipeline's too.
    pub fn camera(&self) -> &camera::Handle {
        &self.camera
    }

    /// Ends the pipeline and its inference children.
    pub async fn stop(&self) {
        let _ = self.ask(|reply| Ask::Stop { reply }).await;
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Reason> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(ask(reply)).await.map_err(|_| self.gone("it has ended"))?;
        answer.await.map_err(|_| self.gone("it ended before it answered"))
    }

    fn gone(&self, why: &str) -> Reason {
        Reason::new(ReasonCode::Internal, format!("pipeline {}: {why}", self.plan.name))
    }
}
