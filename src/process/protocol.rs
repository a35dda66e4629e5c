//! What the agent and its children say to each other over their Unix socket pair.
//!
//! One message is one JSON value in a frame with a 4-byte big-endian length, [`MAX_MESSAGE`] at
//! most. The first message to a child is its `Configure`. A child ends when the socket closes: an
//! agent that was killed leaves no orphans.
//!
//! The kind of a message stands outside of it (`{"frame": {…}}`): a kind among the fields would make the
//! reader keep every value of every answer aside until it has found it.

use crate::domain::admission::AdmissionSettings;
use crate::domain::credit::AHEAD;
use crate::domain::ledger::Skip;
use crate::domain::manifest::Provider;
use crate::domain::motion::MotionSettings;
use crate::domain::runtime::{InputSettings, ProviderShare, RuntimeSettings};
use crate::domain::source::SourceSettings;
use crate::domain::{Detection, Digest, FrameResult, PipelineName, Reason, Release};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Longest message in either direction, bytes; a snapshot is the largest.
pub const MAX_MESSAGE: usize = 16 << 20;

/// Where frames of one source travel in shared memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameChannel {
    /// Folder for the shared-memory bookkeeping; one per agent, so that two agents do not meet.
    pub root: PathBuf,
    /// Prefix of the shared-memory names; unique per agent instance.
    pub prefix: String,
    /// The pipeline whose source it is, part of the service's name.
    pub pipeline: PipelineName,
    /// Pipelines that read it; all members of a channel must say the same.
    pub readers: u32,
    /// Readers take every frame in its turn and not only the newest, and their buffers hold as many as
    /// [`domain::credit`](crate::domain::credit) lets out. All members must say the same.
    #[serde(default)]
    pub every: bool,
}

impl FrameChannel {
    /// Frames that can wait for one reader: the newest, or all that may be on their way.
    pub fn room(&self) -> usize {
        if self.every { AHEAD as usize } else { 1 }
    }
}

/// To a capture child.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "the large one is sent once to each child")]
pub enum ToCapture {
    /// First message: what to read and where to put it.
    Configure {
        /// What to read.
        source: SourceSettings,
        /// Frames a second at most.
        fps: f32,
        /// Where to put it.
        channel: FrameChannel,
        /// The next frame gets this number; numbers go on over restarts of the child.
        first_seq: u64,
        /// Hold still pictures back.
        #[serde(default)]
        motion: Option<MotionSettings>,
    },
    /// Answer with the newest frame as a JPEG.
    Snapshot {
        /// Comes back in the answer.
        id: u64,
        /// Longest edge of the JPEG, pixels.
        max_edge: u32,
        /// Drawn on it.
        #[serde(default)]
        boxes: Option<Boxes>,
    },
    /// Publish frames up to this number, and wait with those beyond. Only on a channel of
    /// [every](FrameChannel::every) frame, where nothing is published before the first of these.
    Until {
        /// The last number that may be published.
        seq: u64,
    },
    /// Leave the first pictures of the source out: an earlier child has published them, or held them
    /// back. Before the first `Until`.
    Skip {
        /// How many.
        pictures: u64,
    },
    /// Publish no more frames (or go on).
    Pause {
        /// True to stop, false to go on.
        paused: bool,
    },
}

/// From a capture child.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromCapture {
    /// The source is open.
    Opened {
        /// For people: what it is.
        description: String,
    },
    /// Frames were published: said after each, or fifty times a second where they come faster; also the
    /// sign of life.
    Published {
        /// The newest frame's number.
        seq: u64,
    },
    /// The source lives and gives pictures that are not published: said now and then while it is so.
    Alive {
        /// Pictures since it was last said that were held back because nothing moved in them.
        still: u64,
    },
    /// A picture or a read failed; the source goes on.
    Fault {
        /// What failed, with the file or device named.
        reason: Reason,
    },
    /// The answer to `Snapshot`.
    Snapshot {
        /// The request's.
        id: u64,
        /// A JPEG in base64, or why there is none.
        jpeg: Result<String, Reason>,
    },
    /// The source is at its end (a folder read once).
    Ended,
    /// The source cannot be opened; the child ends after this.
    Failed {
        /// Why, with the remedy.
        reason: Reason,
    },
}

/// What is drawn on a picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Boxes {
    /// Width and height of the picture that they were found in.
    pub size: [u32; 2],
    /// The boxes, with their labels.
    pub detections: Vec<Detection>,
}

/// To an inference child.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "the large one is sent once to each child")]
pub enum ToInfer {
    /// First message: what to load. Answered by `Loaded` or `Failed`.
    Configure {
        /// The bundle's folder.
        bundle: PathBuf,
        /// SHA-256 of its manifest; every file is checked against it again before it is loaded.
        digest: Digest,
        /// The runtime.
        runtime: RuntimeSettings,
        /// How frames are brought to the model.
        #[serde(default)]
        input: InputSettings,
        /// Where frames come from.
        channel: FrameChannel,
        /// Which of them it is not run on.
        #[serde(default)]
        admission: AdmissionSettings,
        /// Files with the keys that open an encrypted model; read before the child locks itself in.
        #[serde(default)]
        model_keys: Vec<PathBuf>,
    },
    /// Run all golden inputs. Answered by `Golden`.
    RunGolden,
    /// Answer frames numbered `from` and above. Answered by `Started`, whose number may be higher
    /// when frames up to it have already gone by.
    Start {
        /// First number wanted.
        from: u64,
    },
    /// Answer frames below `until`, then stop. Answered by `Stopped`.
    Stop {
        /// First number that is no longer ours.
        until: u64,
    },
}

/// From an inference child.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromInfer {
    /// The model is ready.
    Loaded {
        /// What it is.
        release: Release,
        /// The provider that really runs it.
        provider: Provider,
        /// Set when that is not the first one that was asked for: why.
        fallback: Option<String>,
        /// Milliseconds from file to ready.
        load_ms: f32,
        /// Version of ONNX Runtime.
        runtime_version: String,
        /// How much each provider runs, the largest share first.
        #[serde(default)]
        shares: Vec<ProviderShare>,
        /// True when the graph that an earlier start had optimised was used.
        #[serde(default)]
        saved_graph: bool,
        /// Memory that its manifest says it needs, bytes; 0 where that says nothing.
        #[serde(default)]
        needs_memory: u64,
    },
    /// The model cannot be loaded; the child ends after this.
    Failed {
        /// Why, with the remedy.
        reason: Reason,
    },
    /// Said after each golden input, for progress and as a sign of life.
    GoldenProgress {
        /// Inputs done.
        done: usize,
        /// Inputs in all.
        total: usize,
    },
    /// All golden inputs were run.
    Golden {
        /// `Err` names the first input that was off.
        verdict: Result<(), Reason>,
        /// Milliseconds of each run, all stages.
        times_ms: Vec<f32>,
    },
    /// From which frame on this child answers.
    Started {
        /// First number that it will answer or count as skipped.
        from: u64,
    },
    /// One frame is done.
    Frame {
        /// The frame's number.
        seq: u64,
        /// Frames that went by since the last one while the model was busy: the newest frame wins.
        skipped: u64,
        /// What the model said, or why it could not.
        result: Result<FrameResult, Reason>,
    },
    /// A frame was seen and the model was not run on it; a sign of life like an answer.
    Passed {
        /// The frame's number.
        seq: u64,
        /// Frames that went by before it since the last one.
        skipped: u64,
        /// Why.
        why: Skip,
    },
    /// No frame below the asked number will be answered any more.
    Stopped {
        /// The asked number.
        until: u64,
        /// Frames below it that went by unanswered since the last answer.
        skipped: u64,
    },
}

/// To a rebuild child.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToRebuild {
    /// First and only message: the files to open before it locks itself in. Answered by `Rebuilt` or `Failed`.
    Configure {
        /// The file that the device has; none where the delta holds all.
        old: Option<PathBuf>,
        /// The delta. Hostile.
        delta: PathBuf,
        /// The file to write.
        out: PathBuf,
        /// Bytes that it gets at most.
        size: u64,
    },
}

/// From a rebuild child.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromRebuild {
    /// The file has its bytes; whether they are the right ones, the agent finds out.
    Rebuilt,
    /// There is no such file; the child ends after this.
    Failed {
        /// Why.
        reason: Reason,
    },
}
