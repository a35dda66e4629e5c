//! The decisions and the words of the product, as pure values and functions.
//!
//! This folder never opens a file or a socket, never reads a clock, never logs, and knows no
//! vendor type: time, randomness and facts about the machine are arguments. It imports nothing of
//! ours. Everything here can be tested by enumeration.

pub mod admission;
pub mod ahead;
pub mod allowance;
pub mod audit;
pub mod authority;
pub mod backoff;
pub mod boot_loop;
pub mod command;
pub mod config_trial;
pub mod credit;
pub mod delta;
pub mod deployment;
pub mod desired;
pub mod event;
pub mod fleet;
pub mod frame;
pub mod garbage;
pub mod health;
pub mod id;
pub mod importance;
pub mod ledger;
pub mod lifecycle;
pub mod maintenance;
pub mod manifest;
pub mod memory;
pub mod metrics;
pub mod motion;
pub mod pace;
pub mod probation;
pub mod reason;
pub mod refusal;
pub mod result;
pub mod runtime;
pub mod series;
pub mod shadow;
pub mod source;
pub mod status;
pub mod stream;
pub mod trial;
pub mod watchdog;
pub mod window;

pub use frame::{FrameFormat, FrameMeta};
pub use id::{
    CommandId, DeploymentId, DeviceId, Digest, ModelName, OperatorName, PipelineName, Release, SlotName,
    ZoneName,
};
pub use manifest::Manifest;
pub use reason::{Reason, ReasonCode};
pub use result::{Classification, Detection, FrameResult, Output, StageTimes};
