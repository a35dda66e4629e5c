//! The time of day, never earlier than what is already known to have passed.
//!
//! A Raspberry Pi has no battery behind its clock and starts in the past. Certificates and metadata
//! must not be judged by such a clock: `now = max(system clock, build time, last accepted time)`.

use crate::sys::durable::{self, DurableError};
use jiff::Timestamp;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

/// Seconds since 1970 that this program was certainly not built before (2026-01-01).
const BUILT_AFTER: i64 = 1_767_225_600;

/// A clock with a durable floor. Shared by reference.
#[derive(Debug)]
pub struct Clock {
    file: PathBuf,
    floor: Mutex<Timestamp>,
}

impl Clock {
    /// Reads the floor from `file`, which need not exist; one that cannot be read counts as none.
    pub fn open(file: PathBuf) -> Self {
        let built = Timestamp::from_second(BUILT_AFTER).unwrap_or(Timestamp::UNIX_EPOCH);
        let stored = fs::read_to_string(&file).ok().and_then(|text| text.trim().parse::<Timestamp>().ok());
        Self { file, floor: Mutex::new(stored.map_or(built, |stored| stored.max(built))) }
    }

    /// The time to judge expiry by.
    pub fn now(&self) -> Timestamp {
        Timestamp::now().max(self.floor())
    }

    /// True when the system clock is behind what is already known to have passed: it is wrong.
    pub fn is_behind(&self) -> bool {
        Timestamp::now() < self.floor()
    }

    /// Raises the floor to a time that was accepted (such as when metadata was last verified), durably.
    /// An earlier time changes nothing.
    pub fn accept(&self, time: Timestamp) -> Result<(), DurableError> {
        let mut floor = self.floor.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if time > *floor {
            durable::write_atomic(&self.file, time.to_string().as_bytes())?;
            *floor = time;
        }
        Ok(())
    }

    fn floor(&self) -> Timestamp {
        *self.floor.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_falls_behind_what_was_accepted_even_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("clock");
        let clock = Clock::open(file.clone());
        let later = Timestamp::now() + jiff::Span::new().hours(1000);
        clock.accept(later).unwrap();
        clock.accept(Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(clock.now(), later);
        let again = Clock::open(file.clone());
        assert_eq!(again.now(), later);
        assert!(again.is_behind());
        fs::write(&file, b"rubbish").unwrap();
        assert!(Clock::open(file).now() < later);
    }

    #[test]
    fn a_clock_without_a_battery_starts_at_the_build() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::open(dir.path().join("clock"));
        assert!(clock.now() >= Timestamp::from_second(BUILT_AFTER).unwrap());
    }
}
