//! Sensor samples that come at any times, made into windows at a fixed rate.
//!
//! Between two samples the value is taken to go in a straight line; nothing is smoothed, so a sensor
//! that is faster than the rate is sampled and not averaged. A hole longer than the allowed one is
//! marked: its points are NaN. Memory and work are bounded whatever the times are: a sample that comes
//! late is left out, several late ones in a row mean that the clock was set back, and a hole as long as
//! a window begins everything anew.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Late samples in a row after which the clock is taken to have been set back.
const MAX_LATE: u32 = 8;

/// How samples become windows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WindowSettings {
    /// Points a second in each channel.
    pub rate: f64,
    /// Points of a window in each channel, at least 1.
    pub length: u32,
    /// Points from the start of one window to the start of the next, at least 1.
    pub stride: u32,
    /// A hole between two samples that is longer, milliseconds, is marked and not bridged.
    pub max_gap_ms: u64,
    /// What becomes of a window with a marked hole.
    #[serde(default)]
    pub gaps: Gaps,
}

impl WindowSettings {
    /// Seconds from the first sample to the first window.
    pub fn seconds(&self) -> f64 {
        f64::from(self.length) / self.rate
    }

    /// Seconds from one window to the next.
    pub fn period(&self) -> f64 {
        f64::from(self.stride) / self.rate
    }
}

/// What becomes of a window with a marked hole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gaps {
    /// It goes to the model, which has its own way with NaN.
    #[default]
    Mark,
    /// It is left out.
    Skip,
}

/// What was seen besides good samples, since the beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Samples that were not later than the one before them.
    pub late: u64,
    /// Holes that were longer than allowed.
    pub gaps: u64,
    /// Times that everything began anew.
    pub restarts: u64,
    /// Windows that were left out because of a hole.
    pub skipped: u64,
}

/// Collects samples of all channels until a window is full.
#[derive(Debug)]
pub struct Windower {
    settings: WindowSettings,
    channels: usize,
    /// Nanoseconds of a million points, so that no rounding adds up.
    million: i128,
    /// Time of point 0.
    anchor: i64,
    /// Number of the next point.
    next: u64,
    /// The newest sample.
    last: Option<i64>,
    values: Vec<f32>,
    late: u32,
    /// The newest points, channel by channel of each; a window's worth at most.
    points: VecDeque<f32>,
    /// Points since the last window.
    fresh: u32,
    window: Vec<f32>,
    counts: Counts,
}

impl Windower {
    /// Nothing collected yet. `rate` must be above 0, `length`, `stride` and `channels` at least 1.
    pub fn new(settings: WindowSettings, channels: usize) -> Self {
        let size = settings.length as usize * channels;
        Self {
            settings,
            channels,
            million: ((1e15 / settings.rate.max(1e-6)) as i128).max(1),
            anchor: 0,
            next: 0,
            last: None,
            values: vec![0.0; channels],
            late: 0,
            points: VecDeque::with_capacity(size + channels),
            fresh: 0,
            window: vec![0.0; size],
            counts: Counts::default(),
        }
    }

    /// What was seen besides good samples.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes one sample: its time in nanoseconds on any clock, and a value for each channel (NaN where
    /// there is none). Returns the newest window that it completes, one channel after the other.
    pub fn push(&mut self, at: i64, values: &[f32]) -> Option<&[f32]> {
        let Some(last) = self.last else { return self.begin(at, values) };
        if at <= last {
            self.late += 1;
            self.counts.late += 1;
            if self.late <= MAX_LATE {
                return None;
            }
            self.counts.restarts += 1;
            return self.begin(at, values);
        }
        self.late = 0;
        let hole = i128::from(at) - i128::from(last);
        let marked = hole > i128::from(self.settings.max_gap_ms) * 1_000_000;
        self.counts.gaps += u64::from(marked);
        if marked && hole * 1_000_000 / self.million >= i128::from(self.settings.length) {
            self.counts.restarts += 1;
            return self.begin(at, values);
        }
        let mut complete = false;
        loop {
            let point = self.time_of(self.next);
            if point > i128::from(at) {
                break;
            }
            let share = (point - i128::from(last)) as f64 / hole as f64;
            for (channel, &value) in values.iter().take(self.channels).enumerate() {
                let value = if point == i128::from(at) {
                    value
                } else if marked {
                    f32::NAN
                } else {
                    between(self.values[channel], value, share)
                };
                self.points.push_back(value);
            }
            self.next += 1;
            complete |= self.point_done();
        }
        self.remember(at, values);
        complete.then_some(&self.window[..])
    }

    fn begin(&mut self, at: i64, values: &[f32]) -> Option<&[f32]> {
        self.late = 0;
        self.points.clear();
        self.anchor = at;
        self.next = 1;
        // The first window is due as soon as it is full.
        self.fresh = self.settings.stride;
        self.points.extend(values.iter().take(self.channels));
        self.remember(at, values);
        self.point_done().then_some(&self.window[..])
    }

    fn remember(&mut self, at: i64, values: &[f32]) {
        self.last = Some(at);
        for (kept, value) in self.values.iter_mut().zip(values) {
            *kept = *value;
        }
    }

    fn time_of(&self, point: u64) -> i128 {
        i128::from(self.anchor) + i128::from(point) * self.million / 1_000_000
    }

    /// Counts a point that was added; true when it completes a window.
    fn point_done(&mut self) -> bool {
        let (length, channels) = (self.settings.length as usize, self.channels);
        self.fresh = self.fresh.saturating_add(1);
        if self.points.len() > length * channels {
            self.points.drain(..channels);
        }
        if self.points.len() < length * channels || self.fresh < self.settings.stride {
            return false;
        }
        self.fresh = 0;
        if self.settings.gaps == Gaps::Skip && self.points.iter().any(|value| value.is_nan()) {
            self.counts.skipped += 1;
            return false;
        }
        for (at, &value) in self.points.iter().enumerate() {
            self.window[at % channels * length + at / channels] = value;
        }
        true
    }
}

fn between(from: f32, to: f32, share: f64) -> f32 {
    let (from, to) = (f64::from(from), f64::from(to));
    (from + (to - from) * share) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: i64 = 1_000_000;

    fn settings(rate: f64, length: u32, stride: u32, max_gap_ms: u64) -> WindowSettings {
        WindowSettings { rate, length, stride, max_gap_ms, gaps: Gaps::Mark }
    }

    /// All windows of a series of one channel.
    fn windows(windower: &mut Windower, samples: &[(i64, f32)]) -> Vec<Vec<f32>> {
        samples.iter().filter_map(|&(at, value)| windower.push(at, &[value]).map(<[f32]>::to_vec)).collect()
    }

    #[test]
    fn windows_come_at_their_stride_one_channel_after_the_other() {
        let mut windower = Windower::new(settings(100.0, 4, 2, 100), 2);
        let mut seen = Vec::new();
        for n in 0..9 {
            let (a, b) = (n as f32, 100.0 + n as f32);
            seen.extend(windower.push(n * 10 * MS, &[a, b]).map(<[f32]>::to_vec));
        }
        let window = |n: f32| {
            let of = |base: f32| (0..4).map(move |at| base + n + at as f32);
            of(0.0).chain(of(100.0)).collect::<Vec<_>>()
        };
        assert_eq!(seen, [window(0.0), window(2.0), window(4.0)]);
        let mut apart = Windower::new(settings(100.0, 2, 3, 100), 1);
        let samples: Vec<_> = (0..8).map(|n| (n * 10 * MS, n as f32)).collect();
        assert_eq!(windows(&mut apart, &samples), [[0.0, 1.0], [3.0, 4.0], [6.0, 7.0]]);
    }

    #[test]
    fn a_hole_is_bridged_or_marked_by_its_length() {
        let samples = [(0, 0.0), (10, 1.0), (40, 4.0), (50, 5.0), (60, 6.0)].map(|(at, v)| (at * MS, v));
        let bridged = windows(&mut Windower::new(settings(100.0, 6, 1, 30), 1), &samples);
        assert_eq!(bridged, [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]);
        let mut windower = Windower::new(settings(100.0, 6, 1, 29), 1);
        let marked = windows(&mut windower, &samples);
        assert_eq!(format!("{:?}", marked[0]), "[0.0, 1.0, NaN, NaN, 4.0, 5.0]");
        assert_eq!(windower.counts().gaps, 1);
        let skip = WindowSettings { gaps: Gaps::Skip, ..settings(100.0, 2, 1, 29) };
        let mut windower = Windower::new(skip, 1);
        let kept =
            windows(&mut windower, &[(0, 0.0), (10, 1.0), (50, 5.0), (60, 6.0)].map(|(t, v)| (t * MS, v)));
        assert_eq!(kept, [[0.0, 1.0], [5.0, 6.0]], "a hole as long as the window begins anew");
    }

    #[test]
    fn late_and_double_samples_are_left_out_and_a_clock_set_back_begins_anew() {
        let mut windower = Windower::new(settings(100.0, 3, 3, 50), 1);
        let samples = [(0, 0.0), (10, 1.0), (10, 9.0), (5, 9.0), (20, 2.0)].map(|(at, v)| (at * MS, v));
        assert_eq!(windows(&mut windower, &samples), [[0.0, 1.0, 2.0]]);
        assert_eq!(windower.counts(), Counts { late: 2, ..Counts::default() });
        let back: Vec<_> = (0..i64::from(MAX_LATE) + 3).map(|n| (n * MS - 1000 * MS, 7.0)).collect();
        assert_eq!(windows(&mut windower, &back), Vec::<Vec<f32>>::new());
        assert_eq!(windower.counts().restarts, 1);
        let on: Vec<_> = (1..4).map(|n| (n * 10 * MS - 990 * MS, 7.0)).collect();
        assert_eq!(windows(&mut windower, &on), [[7.0, 7.0, 7.0]]);
    }

    #[test]
    fn rounding_does_not_add_up() {
        // A third of a second a point: no whole nanoseconds.
        let mut windower = Windower::new(settings(3.0, 1, 1, 10_000), 1);
        let seen = (0..1_000_000).filter(|n| windower.push(n * 1_000 * MS / 3, &[0.0]).is_some()).count();
        assert_eq!(seen, 1_000_000);
        let days = 1_000_000 * 1_000 * i128::from(MS);
        assert!((windower.time_of(3_000_000) - days).abs() <= 1, "a nanosecond in twelve days");
    }

    proptest! {
        #[test]
        fn a_straight_line_stays_one_whatever_the_jitter(
            steps in proptest::collection::vec(1..40 * MS, 60..200),
            rate in 20.0..400.0f64, length in 2..20u32, stride in 1..30u32, slope in -5.0..5.0f32,
        ) {
            let mut windower = Windower::new(settings(rate, length, stride, 40), 1);
            let (mut at, mut points) = (0i64, 0u64);
            for step in steps {
                at += step;
                let line = |at: f64| slope * (at / 1e7) as f32;
                let window = windower.push(at, &[line(at as f64)]).map(<[f32]>::to_vec);
                if let Some(window) = window {
                    points += 1;
                    for pair in window.windows(2) {
                        let wanted = slope * (1e9 / rate / 1e7) as f32;
                        prop_assert!((pair[1] - pair[0] - wanted).abs() < 2e-3, "{window:?} {wanted}");
                    }
                }
            }
            prop_assert_eq!(windower.counts(), Counts::default());
            prop_assert!(points <= windower.next / u64::from(stride) + 1);
        }

        #[test]
        fn any_times_and_values_are_survived(
            samples in proptest::collection::vec((any::<i64>(), any::<f32>()), 0..60),
            near in proptest::collection::vec((-50..200i64, -1.0..1.0f32), 0..300),
            rate in 0.01..10_000.0f64, length in 1..50u32, stride in 1..100u32, gap in 0..100u64,
        ) {
            let mut windower = Windower::new(settings(rate, length, stride, gap), 1);
            for (at, value) in samples {
                if let Some(window) = windower.push(at, &[value]) {
                    prop_assert_eq!(window.len(), length as usize);
                }
            }
            let mut at = 0;
            let mut windower = Windower::new(settings(rate, length, stride, gap), 1);
            for (step, value) in near {
                at += step * MS / 10;
                let window = windower.push(at, &[value]).map(<[f32]>::to_vec);
                prop_assert!(windower.points.len() <= length as usize);
                for value in window.into_iter().flatten() {
                    prop_assert!(value.is_nan() || (-1.0..=1.0).contains(&value), "{}", value);
                }
            }
        }
    }
}
