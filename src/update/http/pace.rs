//! Is a body coming, or only dripping? A server that sends a byte now and then is never silent, and would
//! hold an update up for ever (the slow retrieval attack of the TUF specification, 1.5.2).

use std::time::Duration;
use tokio::time::Instant;

/// Least bytes a second on average: the slowest radio links bring ten times as many.
const LEAST: f64 = 64.0;
/// It is judged after so many stall timeouts, and again after each further span of that length.
const STALLS: u32 = 4;

/// How fast a body comes. Only waiting for the server counts, not what is done with its bytes.
#[derive(Debug)]
pub(super) struct Pace {
    span: Duration,
    asked: Instant,
    waited: Duration,
    bytes: usize,
}

impl Pace {
    /// For a body whose server may be silent for `stall` at most.
    pub(super) fn new(stall: Duration, now: Instant) -> Self {
        Self { span: stall * STALLS, asked: now, waited: Duration::ZERO, bytes: 0 }
    }

    /// The server is waited for from now on.
    pub(super) fn asked(&mut self, now: Instant) {
        self.asked = now;
    }

    /// Notes that so many bytes have come; true where that was too little for the time that it took.
    pub(super) fn is_dripping(&mut self, bytes: usize, now: Instant) -> bool {
        self.waited += now.saturating_duration_since(self.asked);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.waited < self.span {
            return false;
        }
        if (self.bytes as f64) < LEAST * self.waited.as_secs_f64() {
            return true;
        }
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        false
    }

    /// What was wrong, for people.
    pub(super) fn told(&self) -> String {
        let waited = self.waited.as_secs_f32();
        format!("only {} bytes came in {waited:.1} s; the server is overloaded or holds this up", self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL: Duration = Duration::from_secs(10);

    /// Whether a body of pieces of `bytes`, each after `wait` and then `work` of our own, is taken.
    fn comes(pieces: usize, bytes: usize, wait: Duration, work: Duration) -> bool {
        let mut now = Instant::now();
        let mut pace = Pace::new(STALL, now);
        for _ in 0..pieces {
            pace.asked(now);
            now += wait;
            if pace.is_dripping(bytes, now) {
                assert!(pace.told().contains("bytes came in"));
                return false;
            }
            now += work;
        }
        true
    }

    #[test]
    fn a_slow_link_is_waited_for_and_a_drip_is_not() {
        let (second, none) = (Duration::from_secs(1), Duration::ZERO);
        assert!(comes(1000, 100, second, none));
        assert!(!comes(1000, 10, second, none));
        assert!(comes(30, 1, second, none), "a short body has come before anybody judges");
        assert!(comes(100, 100, second / 2, STALL * 10), "a rate limit of ours is not the server's fault");
    }

    #[test]
    fn a_server_that_was_fast_may_not_drip_afterwards() {
        let mut now = Instant::now();
        let mut pace = Pace::new(STALL, now);
        assert!(!pace.is_dripping(1 << 20, now));
        let found = (0..200).any(|_| {
            pace.asked(now);
            now += Duration::from_secs(1);
            pace.is_dripping(1, now)
        });
        assert!(found);
    }
}
