//! What counts as an event, and which part of an answer is looked at for it.

use super::super::result::Output;
use super::ANOMALY;
use super::assign::Sight;
use super::zone::Zone;
use std::time::Duration;

/// Sights of one frame that are looked at, the surest first.
pub const MAX_SIGHTS: usize = 128;
/// Most frames that the inertia looks back on.
pub const MAX_INERTIA: u32 = 64;
/// An object that is known is known again at this share of the score that begins one: a detector that trembles
/// about the limit does not lose it.
const KNOWN_AGAIN: f32 = 0.5;

/// The checked form of a pipeline's `events` table.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// Least score of a sight that begins an event, 0 to 1.
    pub min_score: f32,
    /// Labels that count; none: all.
    pub classes: Vec<String>,
    /// Parts of the picture. Where any is not to be excluded, an event begins only in such a one.
    pub zones: Vec<Zone>,
    /// Seen in so many of the last so many frames, before it counts.
    pub inertia: (u32, u32),
    /// Seen for so long before it counts.
    pub min_duration: Duration,
    /// Over after it was not seen for so long.
    pub lost_after: Duration,
    /// After an event no other of its label begins in its zone for so long.
    pub cool_down: Duration,
    /// Between two things that are told of one event, its end excepted.
    pub update_every: Duration,
    /// Without any frame for so long, nothing is known of what is in the picture.
    pub silence: Duration,
}

impl Rules {
    /// Whether a label counts.
    pub fn wants(&self, label: &str) -> bool {
        self.classes.is_empty() || self.classes.iter().any(|class| class == label)
    }

    /// What of an answer is looked at, the surest first: nothing that is not a finite number, no box without an
    /// area, no more than [`MAX_SIGHTS`].
    pub fn sights<'a>(&self, output: &'a Output, size: [u32; 2]) -> Vec<Sight<'a>> {
        let least = self.min_score * KNOWN_AGAIN;
        let counts = |label: &str, score: f32| score.is_finite() && score >= least && self.wants(label);
        let boxes = output.detections.iter().filter(|one| counts(&one.label, one.score)).filter_map(|one| {
            Some(Sight { label: &one.label, score: one.score, area: Some(shares(one.bbox, size)?) })
        });
        // Of the classes of a whole picture the best one is the answer.
        let class = output.classes.iter().max_by(|a, b| a.score.total_cmp(&b.score));
        let class = class.filter(|class| counts(&class.label, class.score));
        let class = class.map(|class| Sight { label: &class.label, score: class.score, area: None });
        // Its limit is the bundle's threshold, and its score is not a share.
        let anomaly = output
            .anomaly
            .as_ref()
            .filter(|anomaly| anomaly.is_anomaly && anomaly.score.is_finite() && self.wants(ANOMALY));
        let anomaly = anomaly.map(|anomaly| Sight { label: ANOMALY, score: anomaly.score, area: None });
        let mut sights: Vec<Sight<'a>> = boxes.chain(class).chain(anomaly).collect();
        sights.sort_by(|a, b| b.score.total_cmp(&a.score));
        sights.truncate(MAX_SIGHTS);
        sights
    }

    /// Whether a sight is sure enough to begin an event.
    pub fn begins(&self, sight: &Sight<'_>) -> bool {
        sight.label == ANOMALY || sight.score >= self.min_score
    }

    /// The zones for this label in which the box stands.
    pub fn zones_of<'a>(&'a self, label: &'a str, area: [f64; 4]) -> impl Iterator<Item = &'a Zone> {
        self.zones.iter().filter(move |zone| zone.is_for(label) && zone.holds(area))
    }

    /// Whether an event may begin here. What has no place in the picture is in no zone, and may.
    pub fn allows(&self, sight: &Sight<'_>) -> bool {
        let Some(area) = sight.area else { return true };
        let asked = self.zones.iter().any(|zone| !zone.exclude && zone.is_for(sight.label));
        let (mut wanted, mut excluded) = (false, false);
        for zone in self.zones_of(sight.label, area) {
            match zone.exclude {
                true => excluded = true,
                false => wanted = true,
            }
        }
        !excluded && (wanted || !asked)
    }
}

/// Pixels as shares of the picture; `None` for what is no box.
fn shares(pixels: [f32; 4], [width, height]: [u32; 2]) -> Option<[f64; 4]> {
    let of = |pixel: f32, whole: u32| f64::from(pixel) / f64::from(whole);
    let [left, top, right, bottom] = pixels;
    let area = [of(left, width), of(top, height), of(right, width), of(bottom, height)];
    // A box far outside the picture is as useless as one that is not a number.
    let good = area.iter().all(|side| (-8.0..=9.0).contains(side));
    (good && area[0] < area[2] && area[1] < area[3]).then_some(area)
}
