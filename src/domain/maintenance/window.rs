//! A span of local time that comes again every week.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Windows that a configuration may have.
pub const MAX_WINDOWS: usize = 32;

const DAY: u32 = 86_400;
const WEEK: u32 = 7 * DAY;
const NAMES: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const EXAMPLE: &str = "write it like \"02:00-05:00\", \"Sat,Sun 00:00-24:00\" or \"Mon-Fri 22:00-04:00\"";

/// A moment of a week, by the clock on the wall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Monday is 0.
    pub day: u8,
    /// Second of the day.
    pub second: u32,
}

/// On which days it begins, and from when to when. An end that is not after the beginning is on the next day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    days: [bool; 7],
    /// Second of the day.
    from: u32,
    /// Seconds, 60 to a whole day.
    length: u32,
}

impl Window {
    /// How long until it is open; nothing while it is.
    pub fn opens_in(&self, at: Moment) -> Duration {
        let now = (u32::from(at.day % 7) * DAY + at.second) % WEEK;
        let waits = (0..7).filter(|day| self.days[*day as usize]).map(|day: u32| {
            let begins = day * DAY + self.from;
            let since = (now + WEEK - begins) % WEEK;
            if since < self.length { 0 } else { WEEK - since }
        });
        Duration::from_secs(waits.min().unwrap_or(WEEK).into())
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let short: String = text.chars().take(80).collect();
        let fault = |what: &str| format!("\"{short}\": {what}; {EXAMPLE}");
        let (days, span) = match text.trim().rsplit_once(char::is_whitespace) {
            Some((days, span)) => (Some(days), span),
            None => (None, text.trim()),
        };
        let (from, to) = span.split_once('-').ok_or_else(|| fault("is no span of time"))?;
        let (from, to) = match (time(from), time(to)) {
            (Some(from), Some(to)) if from < DAY => (from, to),
            _ => return Err(fault("has a time that no clock shows")),
        };
        if from == to {
            return Err(fault("begins and ends at the same time"));
        }
        let length = if to > from { to - from } else { DAY - from + to };
        let days = match days {
            None => [true; 7],
            Some(days) => {
                names(days).ok_or_else(|| fault("has a day that is not known (Mon, Tue, … Sun)"))?
            }
        };
        Ok(Self { days, from, length })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days != [true; 7] {
            let days: Vec<&str> = (0..7).filter(|day| self.days[*day]).map(|day| NAMES[day]).collect();
            write!(f, "{} ", days.join(","))?;
        }
        let to = self.from + self.length;
        let to = if to > DAY { to - DAY } else { to };
        let (hour, minute) = (|second: u32| second / 3600, |second: u32| second / 60 % 60);
        write!(f, "{:02}:{:02}-{:02}:{:02}", hour(self.from), minute(self.from), hour(to), minute(to))
    }
}

/// Second of the day; 24:00 is its end.
fn time(text: &str) -> Option<u32> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str| -> Option<u32> {
        let fits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| fits)
    };
    let (hour, minute) = (number(hour)?, number(minute)?);
    let second = hour * 3600 + minute * 60;
    (minute < 60 && second <= DAY).then_some(second)
}

/// `Sat,Sun`, `Mon-Fri`, `Fri-Mon`.
fn names(text: &str) -> Option<[bool; 7]> {
    let index = |name: &str| NAMES.iter().position(|one| one.eq_ignore_ascii_case(name.trim()));
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (index(first)?, index(last)?);
        for step in 0..=(last + 7 - first) % 7 {
            days[(first + step) % 7] = true;
        }
    }
    Some(days)
}
