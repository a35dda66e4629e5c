//! The clock on the wall: the device's local time, as its system says (`timedatectl`, `TZ`).

use crate::domain::maintenance::Moment;
use jiff::{SignedDuration, Zoned};
use std::time::Duration;

/// One moment in the device's local time.
#[derive(Debug, Clone)]
pub struct LocalTime(Zoned);

impl LocalTime {
    /// The moment that the system clock shows.
    pub fn now() -> Self {
        Self(Zoned::now())
    }

    /// Seconds since 1970.
    pub fn unix(&self) -> i64 {
        self.0.timestamp().as_second()
    }

    /// Its place in the week.
    pub fn moment(&self) -> Moment {
        let day = u8::try_from(self.0.weekday().to_monday_zero_offset()).unwrap_or(0);
        let (hour, minute, second) = (self.0.hour(), self.0.minute(), self.0.second());
        let second = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
        Moment { day, second: u32::try_from(second).unwrap_or(0) }
    }

    /// When the clock on the wall shows so much more than now, RFC 3339. Where it is changed in between (summer
    /// time), that is less or more later than it seems.
    pub fn after(&self, wait: Duration) -> Option<String> {
        let wait = SignedDuration::try_from(wait).ok()?;
        let shows = self.0.datetime().checked_add(wait).ok()?;
        let then = shows.to_zoned(self.0.time_zone().clone()).ok()?;
        Some(then.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> LocalTime {
        LocalTime(text.parse().unwrap())
    }

    #[test]
    fn a_moment_has_its_day_and_the_wall_s_time() {
        let sunday = at("2026-11-22T01:59:50+00:00[UTC]");
        assert_eq!(sunday.moment(), Moment { day: 6, second: 2 * 3600 - 10 });
        assert_eq!(sunday.after(Duration::from_secs(10)).unwrap(), "2026-11-22T02:00:00+00:00");
        assert_eq!(sunday.unix(), 1_795_312_790);
    }

    /// With a zone that needs no table of zones on the machine.
    #[test]
    fn the_wall_counts_and_not_universal_time() {
        let zone = jiff::tz::TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let before = LocalTime("2026-03-28T22:00:00Z".parse::<jiff::Timestamp>().unwrap().to_zoned(zone));
        assert_eq!(before.moment(), Moment { day: 5, second: 23 * 3600 });
        // An hour is skipped that night: five on the wall is five hours from then.
        assert_eq!(before.after(Duration::from_secs(6 * 3600)).unwrap(), "2026-03-29T05:00:00+02:00");
    }
}
