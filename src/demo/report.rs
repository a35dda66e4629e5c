//! The story as a list of steps, and what came of each.

use super::seen::{Accounts, Measured};
use serde::Serialize;
use std::path::PathBuf;

/// The steps, in the order of the story.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Broker, repository and device are there.
    Start,
    /// An empty device takes its first model.
    FirstModel,
    /// A better model takes over, and accuracy rises.
    BetterModel,
    /// Each frame around that swap is answered or counted.
    NoFrameLost,
    /// A model with wrong answers is refused in its trial.
    WrongAnswers,
    /// A model that fails on live frames is rolled back.
    FailsLive,
    /// A bundle with one changed byte is refused.
    Tampered,
    /// The daemon is killed in the middle of an update and finishes it after its restart.
    Killed,
}

impl Step {
    /// All of them.
    pub const ALL: [Step; 8] = [
        Step::Start,
        Step::FirstModel,
        Step::BetterModel,
        Step::NoFrameLost,
        Step::WrongAnswers,
        Step::FailsLive,
        Step::Tampered,
        Step::Killed,
    ];

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Step::Start => "A broker, a signed repository and a device start",
            Step::FirstModel => "v1, a weak model, is installed over the air",
            Step::BetterModel => "v2, a better model, takes over",
            Step::NoFrameLost => "no frame was lost at the swap",
            Step::WrongAnswers => "v3, signed but with wrong answers, is refused in its trial",
            Step::FailsLive => "v4, which fails on live frames, is rolled back",
            Step::Tampered => "v5 with one changed byte is refused",
            Step::Killed => "kill -9 in the middle of an update to v5; it recovers",
        }
    }
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It happened as the story tells.
    Happened,
    /// It did not.
    Failed,
    /// A step before it failed.
    NotReached,
}

/// A step with its outcome.
#[derive(Debug, Clone, Serialize)]
pub struct Told {
    /// Which.
    pub step: Step,
    /// What came of it.
    pub outcome: Outcome,
    /// What happened, or why not: one line.
    pub detail: String,
    /// How long it took.
    pub seconds: f32,
}

/// A model as it was measured while it served.
#[derive(Debug, Clone, Serialize)]
pub struct Served {
    /// Name and version.
    pub release: String,
    /// Its figures.
    #[serde(flatten)]
    pub measured: Measured,
}

/// The whole story.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// True when every step happened.
    pub complete: bool,
    /// Every step of [`Step::ALL`].
    pub steps: Vec<Told>,
    /// What was measured, in the order of time.
    pub models: Vec<Served>,
    /// The frames around the swap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<Accounts>,
    /// Where everything was left to be looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
}

/// Hears the story while it happens.
pub trait Narrator {
    /// A step begins.
    fn begin(&mut self, step: Step);
    /// Something happened within the step.
    fn note(&mut self, text: &str);
    /// How it is at this moment; the next one takes its place.
    fn live(&mut self, text: &str);
    /// A step ended.
    fn end(&mut self, told: &Told);
}
