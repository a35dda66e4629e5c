//! Whether the service manager's watchdog is fed. Pure.
//!
//! The watchdog is for what the agent cannot mend itself. A model that hangs, a camera that is silent, a
//! child that dies: for each the agent has a deadline, ends the child and starts another, and a restart of
//! the whole agent would do no better. So inference need not be *fast* to feed the watchdog; the agent must
//! be at work on it. For each pipeline
//!
//! - progress is a finished frame, another child, another thing owed: whatever it is, the agent moved;
//! - nothing can be expected of the model while nothing is owed: no frame came since the last answer (a slow
//!   pace, a motion gate, a film that waits), none is served, or the child waits for its restart;
//! - what is owed may take as long as the agent itself allows (a frame's deadline, the time to load), and
//!   [`GRACE`] more. Who is still silent then was not ended by the agent, which must be broken;
//! - a source may be silent as long as the agent itself allows, and [`GRACE`] more; one that was paused, is
//!   at its end, or waits to be asked, for ever.
//!
//! And the agent's loop must come to ask at all: one that is frozen feeds nobody.

use super::id::PipelineName;
use std::collections::BTreeMap;
use std::time::Duration;

/// What the agent may take beyond its own deadlines until it has acted on them; a busy machine is late.
pub const GRACE: Duration = Duration::from_secs(5);

/// A pipeline's signs of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulse {
    /// The pipeline.
    pub pipeline: PipelineName,
    /// Frames finished since the agent started, also those that ended in an error or were passed over.
    pub finished: u64,
    /// The process of the child that serves or is about to.
    pub child: Option<u32>,
    /// How long the agent waits for what that child owes; `None` when it owes nothing.
    pub owed: Option<Duration>,
    /// Rises with every sign of the source: frames, still pictures, faults, losses.
    pub source: u64,
    /// How long the agent lets the source be silent; `None`: for ever.
    pub silence: Option<Duration>,
}

/// Something that was seen, and since when it has not changed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Since<T> {
    seen: T,
    at: Duration,
}

impl<T: PartialEq> Since<T> {
    /// How long it has stayed the same.
    fn stays(&mut self, seen: T, now: Duration) -> Duration {
        if self.seen != seen {
            *self = Self { seen, at: now };
        }
        now.saturating_sub(self.at)
    }
}

#[derive(Debug)]
struct Watched {
    model: Since<(u64, Option<u32>, Option<Duration>)>,
    source: Since<(u64, Option<Duration>)>,
}

/// Decides whether the watchdog is fed.
#[derive(Debug, Default)]
pub struct Watchdog {
    pipelines: BTreeMap<PipelineName, Watched>,
}

impl Watchdog {
    /// True when every pipeline shows progress, or has good reason for none. `now` counts from any one
    /// moment. To be asked a few times in the watchdog's limit.
    pub fn due(&mut self, pulses: &[Pulse], now: Duration) -> bool {
        // All are looked at, also behind one that hangs.
        pulses.iter().filter(|pulse| !self.lives(pulse, now)).count() == 0
    }

    fn lives(&mut self, pulse: &Pulse, now: Duration) -> bool {
        let model = (pulse.finished, pulse.child, pulse.owed);
        let source = (pulse.source, pulse.silence);
        let watched = self.pipelines.entry(pulse.pipeline.clone()).or_insert_with(|| Watched {
            model: Since { seen: model, at: now },
            source: Since { seen: source, at: now },
        });
        let (model, source) = (watched.model.stays(model, now), watched.source.stays(source, now));
        let within = |silent: Duration, limit: Option<Duration>| {
            limit.is_none_or(|limit| silent <= limit.saturating_add(GRACE))
        };
        within(model, pulse.owed) && within(source, pulse.silence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(5);
    const STALL: Duration = Duration::from_secs(10);

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// One that serves and owes an answer, on a source that may be silent for 10 s.
    fn pulse(pipeline: &str, finished: u64, source: u64) -> Pulse {
        Pulse {
            pipeline: pipeline.parse().unwrap(),
            finished,
            child: Some(7),
            owed: Some(DEADLINE),
            source,
            silence: Some(STALL),
        }
    }

    /// How many seconds it is fed, asked each second with what the second gives.
    fn fed(mut at: impl FnMut(u64) -> Pulse) -> u64 {
        let mut watchdog = Watchdog::default();
        (0..1000).find(|second| !watchdog.due(&[at(*second)], secs(*second))).unwrap_or(1000)
    }

    #[test]
    fn frames_feed_it_however_slow_within_their_deadline() {
        assert_eq!(fed(|second| pulse("a", second, second)), 1000);
        assert_eq!(fed(|second| pulse("a", second / 5, second)), 1000, "one in five seconds");
        assert_eq!(fed(|second| pulse("a", second / 10, second)), 1000, "late by what a busy machine needs");
        assert_eq!(fed(|second| pulse("a", 0, second)), 11, "a hung child that the agent did not end");
    }

    #[test]
    fn what_the_agent_does_about_a_hung_child_is_life() {
        // Every 5 s it ends the child and starts another, which loads for 3 s and hangs again.
        let restarting = |second: u64| {
            let loads = second % 8 < 3;
            Pulse {
                child: Some(second as u32 / 8),
                owed: Some(if loads { secs(600) } else { DEADLINE }),
                ..pulse("a", 0, second)
            }
        };
        assert_eq!(fed(restarting), 1000);
        let loading = |second| Pulse { owed: Some(secs(600)), ..pulse("a", 0, second) };
        assert_eq!(fed(loading), 606, "a model that loads has the time that the agent gives it");
    }

    #[test]
    fn where_nothing_is_owed_nothing_is_expected_of_the_model() {
        // A frame a minute, motion that never comes, a film that waits for another pipeline.
        assert_eq!(fed(|second| Pulse { owed: None, ..pulse("a", 3, second) }), 1000);
        let slow = |second: u64| Pulse {
            silence: Some(secs(70)),
            owed: None,
            ..pulse("a", second / 60, second / 60)
        };
        assert_eq!(fed(slow), 1000);
        // No answer came for long, and then a frame: its time counts from there.
        let rare = |second: u64| Pulse {
            owed: (second % 60 > 55).then_some(DEADLINE),
            ..pulse("a", second / 60, second)
        };
        assert_eq!(fed(rare), 1000);
    }

    #[test]
    fn a_source_that_the_agent_should_have_restarted_is_a_hang_and_a_paused_one_is_none() {
        let silent = |second: u64| Pulse { owed: None, ..pulse("a", 3, second.min(5)) };
        assert_eq!(fed(silent), 21, "5 s, 10 s of silence, and the grace");
        assert_eq!(fed(|second| Pulse { silence: None, ..silent(second) }), 1000);
        // Lost, back, lost: each time it is known.
        assert_eq!(fed(|second| Pulse { owed: None, ..pulse("a", 3, second / 14) }), 1000);
        // Resumed after a pause: its time counts from there.
        let resumed = |second| Pulse { silence: (second > 100).then_some(STALL), ..silent(second) };
        assert_eq!(fed(resumed), 117);
    }

    #[test]
    fn every_pipeline_counts_and_none_hides_another() {
        let mut watchdog = Watchdog::default();
        assert!(watchdog.due(&[], secs(0)), "nothing to do is no hang");
        for second in 0..=10 {
            assert!(watchdog.due(&[pulse("a", 0, second), pulse("b", second, second)], secs(second)));
        }
        assert!(!watchdog.due(&[pulse("a", 0, 11), pulse("b", 11, 11)], secs(11)), "a hangs");
        assert!(watchdog.due(&[pulse("a", 1, 12), pulse("b", 11, 12)], secs(12)), "and goes on");
        for second in 13..=21 {
            assert!(watchdog.due(&[pulse("a", second, second), pulse("b", 11, second)], secs(second)));
        }
        assert!(!watchdog.due(&[pulse("a", 22, 22), pulse("b", 11, 22)], secs(22)), "b since its 11th frame");
    }
}
