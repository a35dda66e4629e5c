//! The sources: one actor each, which keeps one capture child alive for all pipelines that look at it.
//!
//! A camera outlives its pipelines' models and knows nothing of them, only whether anybody needs its
//! frames. What it says of itself is one value that is always the newest ([`Status`]): a pipeline that
//! is busy misses nothing, because every number in it only rises.

mod actor;
mod film;

pub use actor::{LONGEST_WAIT, spawn};

use crate::domain::credit::Claim;
use crate::domain::health::SourceState;
use crate::domain::motion::MotionSettings;
use crate::domain::source::SourceSettings;
use crate::domain::{PipelineName, Reason, ReasonCode};
use crate::process::protocol::{Boxes, FrameChannel};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// All that a camera needs to know; fixed for its life.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The pipeline whose source it is; others may look at it too.
    pub name: PipelineName,
    /// What to read.
    pub source: SourceSettings,
    /// Frames a second at most: what the fastest of its pipelines wants.
    pub fps: f32,
    /// Hold still pictures back.
    pub motion: Option<MotionSettings>,
    /// A source that gives nothing for so long is restarted.
    pub stall_timeout: Duration,
    /// The program that the child is.
    pub exe: PathBuf,
    /// Where its frames travel.
    pub channel: FrameChannel,
}

impl Plan {
    /// It may be silent for so long: a slow pace is no stall.
    pub fn silence(&self) -> Duration {
        self.stall_timeout + Duration::from_secs_f64(1.0 / f64::from(self.fps.max(1e-3)))
    }
}

/// A camera as others may see it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Status {
    /// How it is.
    pub state: SourceState,
    /// Since when.
    pub since: Option<Instant>,
    /// Its own description, once it is open.
    pub description: Option<String>,
    /// Why there are no frames, or why the newest picture was none. Until a good frame comes.
    pub fault: Option<Reason>,
    /// The newest frame that it published; numbers go on over restarts.
    pub newest: u64,
    /// Pictures held back because nothing moved in them, so far.
    pub still: u64,
    /// Pictures that were bad, so far.
    pub faults: u64,
    /// Times that it was lost, so far; it is started again after each.
    pub losses: u64,
    /// Signs of life of the child, and its starts and losses, so far.
    pub signs: u64,
    /// The child's process id.
    pub pid: Option<u32>,
    /// True while a person keeps it paused.
    pub held: bool,
}

/// A picture that is wanted.
struct Picture {
    max_edge: u32,
    boxes: Option<Boxes>,
}

/// What can be asked of a camera.
enum Ask {
    Snapshot { wanted: Picture, reply: oneshot::Sender<Result<Vec<u8>, Reason>> },
    Hold { held: bool, reply: oneshot::Sender<()> },
    Stop { reply: oneshot::Sender<()> },
}

/// Speaks to a running camera; cheap to clone. The camera ends with its last handle.
#[derive(Clone)]
pub struct Handle {
    plan: Arc<Plan>,
    asks: mpsc::Sender<Ask>,
    /// The pipelines that need its frames.
    needs: Arc<watch::Sender<BTreeSet<PipelineName>>>,
    /// What they owe, where every frame is to be answered.
    claims: Arc<watch::Sender<film::Claims>>,
    status: watch::Receiver<Status>,
}

impl Handle {
    /// Its name and settings.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How it is now, and a way to wait for a change.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Tells whether this pipeline needs its frames. A camera that nobody needs is paused.
    pub fn need(&self, pipeline: &PipelineName, needed: bool) {
        self.needs.send_if_modified(|needs| match (needs.contains(pipeline), needed) {
            (false, true) => needs.insert(pipeline.clone()),
            (true, false) => needs.remove(pipeline),
            (true, true) | (false, false) => false,
        });
    }

    /// Tells what this pipeline owes; only where every frame is to be answered does it matter.
    pub fn claim(&self, pipeline: &PipelineName, claim: Option<Claim>) {
        self.claims.send_if_modified(|claims| match claim {
            Some(claim) => claims.insert(pipeline.clone(), claim) != Some(claim),
            None => claims.remove(pipeline).is_some(),
        });
    }

    /// The newest frame as a JPEG with these boxes on it; a paused camera is woken for it.
    ///
    /// # Errors
    /// When there is no frame, or the source does not answer.
    pub async fn snapshot(&self, max_edge: u32, boxes: Option<Boxes>) -> Result<Vec<u8>, Reason> {
        let asked = self.ask(|reply| Ask::Snapshot { wanted: Picture { max_edge, boxes }, reply });
        match tokio::time::timeout(Duration::from_secs(5), asked).await {
            Ok(answer) => answer?,
            Err(_) => Err(self.gone("gave no picture within 5 s")),
        }
    }

    /// Keeps it paused for all its pipelines, or lets it go on.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn hold(&self, held: bool) -> Result<(), Reason> {
        self.ask(|reply| Ask::Hold { held, reply }).await
    }

    /// Ends it and its child.
    pub async fn stop(&self) {
        let _ = self.ask(|reply| Ask::Stop { reply }).await;
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Reason> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(ask(reply)).await.map_err(|_| self.gone("has ended"))?;
        answer.await.map_err(|_| self.gone("ended before it answered"))
    }

    fn gone(&self, why: &str) -> Reason {
        Reason::new(ReasonCode::Internal, format!("source of pipeline {}: it {why}", self.plan.name))
    }
}
