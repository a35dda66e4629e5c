//! The time of day, never earlier than what is already known to have passed.
//!
//! A Raspberry Pi has no battery behind its clock and starts in the past. Certificates and metadata
//! must not be judged by such a clock: `now = max(system clock, build time, last accepted time)`.
//!
//! A time is accepted only after metadata was verified at it, so a clock that jumps past the end of all
//! metadata leaves no trace. One that jumps less far and back again does: until that time has come, it is
//! what expiry is judged by.

use crate::sys::durable::{self, DurableError};
use jiff::Timestamp;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

/// Seconds since 1970 that this program was certainly not built before: the date that a package is built for,
/// else 2026-01-01.
const BUILT_AFTER: i64 = {
    let (stated, known) = (seconds(option_env!("SOURCE_DATE_EPOCH")), 1_767_225_600);
    if stated > known { stated } else { known }
};

/// A number of seconds in decimal digits; 0 for anything else.
const fn seconds(text: Option<&str>) -> i64 {
    let Some(text) = text else { return 0 };
    let (digits, mut value, mut at) = (text.as_bytes(), 0, 0);
    // More than eleven digits are no date that this program will see.
    if digits.len() > 11 {
        return 0;
    }
    while at < digits.len() {
        if !digits[at].is_ascii_digit() {
            return 0;
        }
        value = value * 10 + (digits[at] - b'0') as i64;
        at += 1;
    }
    value
}

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
        self.judged(Timestamp::now())
    }

    /// The same, where the system clock shows `system`.
    fn judged(&self, system: Timestamp) -> Timestamp {
        system.max(self.floor())
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

    /// What the system clock shows.
    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_clock_without_a_battery_starts_at_the_build() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::open(dir.path().join("clock"));
        let built = Timestamp::from_second(BUILT_AFTER).unwrap();
        assert_eq!(clock.judged(Timestamp::UNIX_EPOCH), built);
        assert!(clock.now() >= built, "this machine's own clock is set");
        // Once the time is set, that counts.
        assert_eq!(clock.judged(at("2031-01-01T00:00:00Z")), at("2031-01-01T00:00:00Z"));
    }

    #[test]
    fn each_start_in_1970_goes_on_from_the_last_accepted_time() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("clock");
        let mut known = Timestamp::UNIX_EPOCH;
        for year in 2030..2034 {
            let clock = Clock::open(file.clone());
            assert!(clock.judged(Timestamp::UNIX_EPOCH) >= known, "before a time server answers");
            known = clock.judged(at(&format!("{year}-05-01T00:00:00Z")));
            clock.accept(known).unwrap();
        }
        assert_eq!(Clock::open(file).judged(Timestamp::UNIX_EPOCH), at("2033-05-01T00:00:00Z"));
    }

    #[test]
    fn time_may_step_back_and_forth_and_never_counts_backwards() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::open(dir.path().join("clock"));
        let mut last = clock.judged(Timestamp::UNIX_EPOCH);
        for shown in [
            "2030-06-01T00:00:00Z",
            "1970-01-01T00:00:10Z",
            "2030-06-01T00:00:01Z",
            "2030-05-31T23:59:00Z",
            "2030-07-01T00:00:00Z",
            "1970-01-01T00:00:10Z",
        ] {
            let now = clock.judged(at(shown));
            clock.accept(now).unwrap();
            assert!(now >= last, "{shown}: {now} after {last}");
            last = now;
        }
        assert_eq!(last, at("2030-07-01T00:00:00Z"));
        // A step that was never accepted, because nothing could be verified so late, is forgotten.
        assert_eq!(clock.judged(at("2099-01-01T00:00:00Z")), at("2099-01-01T00:00:00Z"));
        assert_eq!(clock.judged(at("2030-07-02T00:00:00Z")), at("2030-07-02T00:00:00Z"));
    }

    #[test]
    fn the_build_time_is_read_from_what_a_package_is_built_for() {
        assert_eq!(seconds(Some("1800000000")), 1_800_000_000);
        for odd in [None, Some(""), Some("soon"), Some("-5"), Some("18000000000000")] {
            assert_eq!(seconds(odd), 0, "{odd:?}");
        }
    }
}
