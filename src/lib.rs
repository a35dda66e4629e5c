//! Edgewarden makes a small Linux machine with a camera or a sensor a managed machine-learning
//! device: it runs a model on what the camera sees, says over MQTT what it saw and how it is, and
//! takes new models over the air: signed, tried before they count, swapped without a lost frame, and
//! rolled back by itself when they are worse.
//!
//! This page is the architecture. The rooms below stand in reading order; each tells in its head what
//! it never does. [`demo`] comes last: the whole story on one machine, with a broker, a repository and
//! the real daemon, asserted by `tests/it/demo.rs`.
//!
//! # Processes
//!
//! ```text
//! edgewarden run           the agent: control; no model and no picture decoder in its address space
//!  ├─ capture <pipeline>   one child per source: frames into shared memory, for all pipelines on it
//!  │   └─ a program        where the source is read by one: ffmpeg, GStreamer, a user's own
//!  └─ infer <bundle>       one child per loaded model: the one that serves, a candidate on trial or in
//!                          the shadow, and the one that served before, until the new one counts
//! ```
//!
//! A model that crashes the runtime, a driver that hangs, or a library that leaks takes down its child
//! and not the part that has to roll back. A child that misses its deadline is ended and started again
//! after a growing wait ([`domain::backoff`]); a candidate that does so has failed. Children end when the
//! agent does: each holds one end of a Unix socket pair and leaves when the other end closes.
//!
//! # A frame's way
//!
//! source → motion gate → shared memory → admission → decode at the needed size → resize, colour,
//! normalise into a tensor that is allocated once → run → decode the outputs → result → agent → MQTT and
//! metrics.
//!
//! A frame is a picture or a window of sensor samples ([`domain::series`]), which has nothing to decode. A
//! source is an actor of its own ([`agent::camera`]): it restarts its child, is paused while nobody needs
//! its frames, and may have several pipelines, each with its own pace and its own account.
//!
//! The buffer holds one frame and the newest wins: a model slower than the camera skips frames, and
//! each skipped number is counted with its reason ([`domain::ledger`]). Where it is wanted, still pictures
//! are not even published ([`domain::motion`]). No model is run on a frame that is too old or before its
//! pipeline's pace asks for one ([`domain::admission`]). Where there is a second processor, the next frame
//! is prepared while the model runs; [`domain::ahead`] says when it is taken, so that it is still the
//! newest. The watchdog is fed by progress, and by what the agent does about the want of it
//! ([`domain::watchdog`]).
//!
//! Where a pipeline has rules for it, answers become events ([`domain::event`]): what is seen is followed over the
//! frames, and its beginning, its changes and its end are told once each; [`agent`] notes on disk what goes on, so that
//! an end follows each beginning also where the agent is killed.
//!
//! The optimised graph of a model is kept on disk ([`inference::graph_cache`]), so that the next start is
//! faster. A child that has outgrown its memory ([`domain::memory`]) is replaced by a fresh one of the same
//! bundle, with the handover of an update.
//!
//! # An update's way
//!
//! `Resolving → Fetching → Verifying → Staged → OnTrial → (Shadowing) → Swapping → Probation →
//! Committed`, with a refusal from each state before the swap and a rollback from each after it.
//! [`domain::lifecycle`] decides, without doing anything; [`update`] writes the new state to the journal,
//! makes it durable, and then acts; every act may be repeated, so whatever instant the power fails at, the
//! next start goes on from the journal. Which model runs is told by two symbolic links on disk and nothing
//! else. A model that brings the agent down start after start gives way to the one before it, and in the end to
//! none ([`domain::boot_loop`]): an agent without a model still takes the next one.
//!
//! In the shadow, where a deployment asks for it, the candidate answers the frames that the serving child
//! answers too; [`domain::shadow`] compares them and nothing else sees its answers. A candidate loads and is
//! compared at low priority ([`process::cost`]), and an update is fetched and checked at low priority
//! ([`sys::background`]): frames go first.
//!
//! At the swap the candidate is told to start first; it names the number N of the first frame that it
//! will answer, and only then is the old one told to stop at N. No frame falls between the two.
//!
//! # Trust
//!
//! A bundle is signed in one way and verified in one way: as a target of a TUF repository whose
//! `root.json` the device has pinned. Carried on a stick it is a slice of that same repository. Only
//! [`trust`] can make a [`trust::Verified`] value, and nothing stages anything else.
//!
//! A repository is written in one way ([`trust::publish`]): as a change that is signed by as many keys as each
//! role needs, here or at other places, and judged by our own client before any device can see it.
//!
//! Commands over MQTT that change the device are signed ([`trust::envelope`]) by operators whom the same
//! repository lists ([`trust::operators`]). [`domain::authority`] decides, and [`agent::authority`] makes a
//! command's number durable before it runs: who holds the broker can hold a command back, not make one, aim it
//! at another device, or have it run twice; who holds an operator's key can choose among signed models only.
//! What was commanded, by whom, and what became of it stands in a chain of hashes on the device
//! ([`domain::audit`]), refusals with their reason from one list ([`domain::refusal`]). A part of the
//! configuration may be set from afar, on trial: the agent puts it back where it is not well with it
//! ([`agent::remote`]).
//!
//! The operator's side of many devices, `edgewarden fleet`, is a reader of what they say ([`domain::fleet`] folds
//! it, [`mqtt::operator`] fetches it) and a sender of such commands. It believes the topic and not the payload about
//! who speaks, and shows nothing that a terminal would obey.
//!
//! # Directions
//!
//! Imports point one way, and one file names each vendor; `tests/it/architecture.rs` holds both
//! against the sources.
//!
//! | room | may import |
//! | --- | --- |
//! | `domain` | nothing of ours |
//! | `config`, `sys` | `domain` |
//! | `bundle` | `domain`, `sys` |
//! | `trust` | `domain`, `config`, `sys`, `bundle` |
//! | `inference` | `domain`, `config`, `sys`, `bundle` |
//! | `process` | `domain`, `config`, `sys` |
//! | `update` | `domain`, `config`, `sys`, `bundle`, `trust` |
//! | `mqtt`, `telemetry` | `domain`, `config`, `sys` |
//! | `children` | `domain`, `config`, `sys`, `bundle`, `inference`, `process`; `mqtt` to listen to a sensor's topic |
//! | `agent` | everything above but `inference` and `children`: no model and no decoder in its address space |
//! | `cli`, `demo` | everything |
//!
//! | vendor | only in |
//! | --- | --- |
//! | ONNX Runtime (`ort`) | `inference/session.rs` and the folder beside it |
//! | `iceoryx2` | `process/frames.rs` |
//! | `rumqttc` | `mqtt/client.rs` and the folder beside it |
//! | `sled` | `sys/store.rs` and the folder beside it |
//! | the kernel's calls for cameras (`rustix::ioctl`) | `inference/source/v4l2/kernel.rs` |
//! | `sigstore-tuf` | `trust/tuf.rs` and the folder beside it |
//! | `zstd` (`zstd-safe`) | `bundle/delta/zstd.rs` |
//! | `reqwest` | `update/http.rs` and the folder beside it; `cli/local.rs` for the agent's own socket |
#![warn(missing_docs)]

pub mod domain;

pub mod config;
pub mod sys;

pub mod bundle;
pub mod trust;

pub mod children;
pub mod inference;
pub mod process;

pub mod update;

pub mod mqtt;
pub mod telemetry;

pub mod agent;

pub mod cli;
pub mod demo;
