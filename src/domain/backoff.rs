//! How long to wait before a lost thing is started again.

use std::time::Duration;

/// A wait that doubles with each loss up to a limit, and is short again after a long good time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    shortest: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Begins with the shortest wait.
    pub const fn new(shortest: Duration, longest: Duration) -> Self {
        Self { shortest, longest, next: shortest }
    }

    /// The wait after a loss.
    pub fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (self.next * 2).min(self.longest);
        wait
    }

    /// The wait after the next loss.
    pub fn next(&self) -> Duration {
        self.next
    }

    /// The thing does its work again: the next wait is the shortest.
    pub fn reset(&mut self) {
        self.next = self.shortest;
    }

    /// The wait after a loss; `ran` is how long the thing had done its work. `dice`, any number, spreads
    /// the wait by up to a quarter either way, so that many devices do not come back in step.
    pub fn after(&mut self, ran: Duration, dice: u8) -> Duration {
        if ran > self.longest {
            self.reset();
        }
        self.wait().mul_f64(0.75 + f64::from(dice) / 510.0)
    }
}

/// Losses in a row that are mended in place, each after a longer wait; whoever is above mends the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restarts {
    backoff: Backoff,
    most: u32,
    losses: u32,
}

impl Restarts {
    /// At most `most` in a row.
    pub const fn new(most: u32, backoff: Backoff) -> Self {
        Self { backoff, most, losses: 0 }
    }

    /// The wait after a loss; `None` when it is one too many.
    pub fn wait(&mut self) -> Option<Duration> {
        self.losses += 1;
        (self.losses <= self.most).then(|| self.backoff.wait())
    }

    /// The thing has done its work: what comes now is a new row.
    pub fn reset(&mut self) {
        self.losses = 0;
        self.backoff.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_grows_to_its_limit_and_a_long_good_time_makes_it_short_again() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(500), ms(15_000));
        let waits: Vec<u128> = (0..8).map(|_| backoff.after(ms(100), 128).as_millis()).collect();
        let wanted = [500, 1000, 2000, 4000, 8000, 15_000, 15_000, 15_000];
        for (wait, wanted) in waits.iter().zip(wanted) {
            assert!(wait.abs_diff(wanted) <= wanted / 100, "{waits:?}");
        }
        for dice in [0, 255] {
            let wait = backoff.after(ms(100), dice);
            assert!(wait >= ms(11_250) && wait <= ms(18_750), "{wait:?}");
        }
        assert!(backoff.after(ms(15_001), 128) < ms(510));
    }

    #[test]
    fn so_many_losses_in_a_row_are_mended_and_no_more() {
        let ms = Duration::from_millis;
        let mut restarts = Restarts::new(3, Backoff::new(ms(500), ms(10_000)));
        let waits = |restarts: &mut Restarts| [0; 4].map(|_| restarts.wait());
        let all = [Some(ms(500)), Some(ms(1000)), Some(ms(2000)), None];
        assert_eq!(waits(&mut restarts), all);
        assert_eq!(restarts.wait(), None);
        restarts.reset();
        assert_eq!(waits(&mut restarts), all);
    }
}
