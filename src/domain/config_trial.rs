//! Is the agent well with a configuration that was set from afar? Pure.
//!
//! What worked before must work with it: the pipelines that had frames and a model, and the way to the broker that
//! brought the command. It must do so for a while without a break, as a source that is lost every second also works
//! every second. What did not work before is no reason against it.

use super::health::{HealthReport, PipelineState};
use super::id::PipelineName;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Longest time that all must be well.
const HOLD: Duration = Duration::from_secs(10);

/// Starts with it that may end before the verdict, for whatever reason.
pub const MAX_STARTS: u32 = 3;

/// What worked before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// Pipelines that did their work.
    pub pipelines: Vec<PipelineName>,
    /// The broker was reached.
    pub broker: bool,
}

impl Before {
    /// What works by this report.
    pub fn of(report: &HealthReport) -> Self {
        let working = report.pipelines.iter().filter(|pipeline| works(pipeline.state));
        Self {
            pipelines: working.map(|pipeline| pipeline.name.clone()).collect(),
            broker: report.mqtt.reached,
        }
    }

    /// What does not work any more, for people; `None` where all of it does.
    pub fn missing(&self, now: &HealthReport) -> Option<String> {
        if self.broker && !now.mqtt.reached {
            let why = now.mqtt.last_error.as_ref().map_or("", |reason| reason.detail.as_str());
            return Some(format!("the broker is not reached: {why}"));
        }
        self.pipelines.iter().find_map(|name| {
            let Some(found) = now.pipelines.iter().find(|pipeline| pipeline.name == *name) else {
                return Some(format!("pipeline {name} is gone"));
            };
            let why =
                found.last_error.as_ref().map_or("it gives no results", |reason| reason.detail.as_str());
            (!works(found.state)).then(|| format!("pipeline {name}: {why}"))
        })
    }
}

fn works(state: PipelineState) -> bool {
    match state {
        PipelineState::Running | PipelineState::Ended | PipelineState::Paused => true,
        PipelineState::NoModel
        | PipelineState::Starting
        | PipelineState::SourceFailed
        | PipelineState::ModelFailed
        | PipelineState::SafeMode => false,
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Look again.
    Wait,
    /// Keep it.
    Good,
    /// Put the former one back; why.
    Bad(String),
}

/// Looks at the agent until there is a verdict.
#[derive(Debug, Clone)]
pub struct Watch {
    patience: Duration,
    well_since: Option<Duration>,
}

impl Watch {
    /// It must be well within this time.
    pub fn new(patience: Duration) -> Self {
        Self { patience, well_since: None }
    }

    /// A look at `now`, counted from the agent's start; `missing` as [`Before::missing`] tells it.
    pub fn look(&mut self, missing: Option<String>, now: Duration) -> Verdict {
        match missing {
            None => {
                let since = *self.well_since.get_or_insert(now);
                if now.saturating_sub(since) >= HOLD.min(self.patience / 4) {
                    Verdict::Good
                } else {
                    Verdict::Wait
                }
            }
            Some(why) => {
                self.well_since = None;
                if now >= self.patience { Verdict::Bad(why) } else { Verdict::Wait }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn ill() -> Option<String> {
        Some("ill".to_owned())
    }

    #[test]
    fn good_is_what_is_well_for_a_while_without_a_break() {
        let mut watch = Watch::new(secs(120));
        assert_eq!(watch.look(ill(), secs(1)), Verdict::Wait);
        assert_eq!(watch.look(None, secs(2)), Verdict::Wait);
        assert_eq!(watch.look(ill(), secs(8)), Verdict::Wait, "a break");
        assert_eq!(watch.look(None, secs(9)), Verdict::Wait);
        assert_eq!(watch.look(None, secs(18)), Verdict::Wait);
        assert_eq!(watch.look(None, secs(19)), Verdict::Good);
    }

    #[test]
    fn bad_is_what_is_not_well_in_time() {
        let mut watch = Watch::new(secs(20));
        for second in 0..20 {
            let missing = if second % 4 == 3 { ill() } else { None };
            assert_eq!(watch.look(missing, secs(second)), Verdict::Wait, "{second}");
        }
        assert_eq!(watch.look(None, secs(20)), Verdict::Wait, "it may just have begun to be well");
        assert_eq!(watch.look(ill(), secs(21)), Verdict::Bad("ill".into()));
    }
}
