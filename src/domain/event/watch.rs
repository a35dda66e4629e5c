//! Watches one pipeline: follows what its model sees, and says when an event begins, changes and is over.
//!
//! A known object is at first a candidate, of which nobody hears. It becomes an event once it was seen often and
//! long enough in a place where events may begin, and then stays one wherever it goes, until it is out of sight
//! for good. An `end` is said when the object is taken off the list, so exactly once.
//!
//! Out of sight for good is what was not seen for `lost_after` **and** not in [`LOST_FRAMES`] frames: where a
//! motion gate lets a still picture through every ten seconds only, one bad frame is no end. Time without any
//! frame ends nothing by itself, until it is so long (`silence`) that nothing is known any more.

use super::assign::{Awaited, Sight, assign};
use super::kalman::Filter;
use super::{Count, Counts, EndReason, Event, EventId, Kind, Rules, Told};
use crate::domain::id::ZoneName;
use crate::domain::result::{Output, iou};
use jiff::Timestamp;
use std::time::Duration;

/// Objects that are followed at once.
pub const MAX_OBJECTS: usize = 64;
/// Labels that are counted; events with others are counted together.
pub const MAX_LABELS: usize = 64;
/// The name under which those are counted.
pub const OTHERS: &str = "other";
/// Frames that an object must at least be missed in before it is lost.
pub const LOST_FRAMES: u32 = 3;
/// Cool-downs that are remembered.
const MAX_COOL_DOWNS: usize = 256;
/// A sight that lies so much on a known object of its label, and is not that object, is a double of it.
const DOUBLE: f64 = 0.7;
/// A score that rose by so much is worth telling.
const BETTER: f32 = 0.05;
/// An object that overlaps its last told box less than this has moved.
const MOVED: f64 = 0.7;

/// A frame and what the model said about it.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// When it was captured, on a clock that is never set and counts from anywhere.
    pub now: Duration,
    /// When it was captured, by the device's clock.
    pub at: Timestamp,
    /// Its number.
    pub seq: u64,
    /// Pixels across and down.
    pub size: [u32; 2],
    /// The answer.
    pub output: &'a Output,
}

/// Something that is followed.
#[derive(Debug, Clone)]
struct Object {
    label: String,
    filter: Option<Filter>,
    /// One bit a frame, the newest lowest: it was seen, sure enough, where an event may begin.
    history: u64,
    first: Duration,
    start: Timestamp,
    last: Duration,
    seen: Timestamp,
    seq: u64,
    missed: u32,
    frames: u64,
    score: f32,
    best_score: f32,
    area: Option<[f64; 4]>,
    bbox: Option<[f32; 4]>,
    size: [u32; 2],
    zones: Vec<ZoneName>,
    entered: Vec<ZoneName>,
    /// What it is as an event; none for a candidate.
    event: Option<Open>,
}

/// An event that is going on.
#[derive(Debug, Clone)]
struct Open {
    id: EventId,
    /// The zone in which it began.
    home: Option<ZoneName>,
    told: Duration,
    told_zones: Vec<ZoneName>,
    told_best: f32,
    told_area: Option<[f64; 4]>,
}

/// After an event: no other of this label in this zone before.
#[derive(Debug, Clone)]
struct CoolDown {
    label: String,
    zone: Option<ZoneName>,
    until: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct Watch {
    rules: Rules,
    objects: Vec<Object>,
    cool_downs: Vec<CoolDown>,
    begun: std::collections::BTreeMap<String, u64>,
    last: Option<Duration>,
}

impl Watch {
    /// Nothing was seen so far.
    pub fn new(rules: Rules) -> Self {
        Self { rules, objects: Vec::new(), cool_downs: Vec::new(), begun: Default::default(), last: None }
    }

    /// Looks at a frame. `ids` gives a new id at each call.
    pub fn see(&mut self, frame: Frame<'_>, ids: &mut dyn FnMut() -> EventId) -> Vec<Told> {
        // Frames of two children may come in another order around a swap.
        let now = self.last.map_or(frame.now, |last| last.max(frame.now));
        let mut told = self.tick(now);
        let dt = self.last.map_or(0.0, |last| now.saturating_sub(last).as_secs_f64());
        self.last = Some(now);
        let sights = self.rules.sights(frame.output, frame.size);
        for object in &mut self.objects {
            object.history <<= 1;
            if let Some(filter) = &mut object.filter {
                filter.predict(dt);
            }
        }
        let awaited: Vec<Awaited<'_>> = self.objects.iter().map(Object::awaited).collect();
        let pairs = assign(&awaited, &sights);
        let mut known = vec![false; sights.len()];
        let mut in_sight = vec![false; self.objects.len()];
        for (object, sight) in pairs {
            (in_sight[object], known[sight]) = (true, true);
            self.objects[object].sighted(&sights[sight], frame, now, &self.rules);
        }
        for (object, _) in self.objects.iter_mut().zip(&in_sight).filter(|(_, in_sight)| !**in_sight) {
            object.missed += 1;
            if let Some(filter) = &mut object.filter {
                filter.coast(dt);
            }
        }
        for (sight, _) in sights.iter().zip(&known).filter(|(_, known)| !**known) {
            self.meet(sight, frame, now);
        }
        self.let_go(now, &mut told);
        self.tell(now, ids, &mut told);
        told
    }

    /// Time goes by without a frame: what is over for want of frames.
    pub fn tick(&mut self, now: Duration) -> Vec<Told> {
        let silent = self.last.is_some_and(|last| now.saturating_sub(last) >= self.rules.silence);
        if silent { self.end_all(EndReason::NoFrames) } else { Vec::new() }
    }

    /// Ends all that goes on.
    pub fn end_all(&mut self, reason: EndReason) -> Vec<Told> {
        let now = self.last.unwrap_or_default();
        let objects = std::mem::take(&mut self.objects);
        objects.into_iter().filter_map(|object| self.end(object, reason, now)).collect()
    }

    /// How many events there were of each label, and are now.
    pub fn counts(&self) -> Counts {
        let count = |(label, begun): (&String, &u64)| (label.clone(), Count { begun: *begun, active: 0 });
        let mut counts: Counts = self.begun.iter().map(count).collect();
        for object in self.objects.iter().filter(|object| object.event.is_some()) {
            let known = counts.contains_key(&object.label);
            let label = if known { object.label.as_str() } else { OTHERS };
            if let Some(count) = counts.get_mut(label) {
                count.active += 1;
            }
        }
        counts
    }

    /// Objects that are followed, candidates too.
    pub fn followed(&self) -> usize {
        self.objects.len()
    }

    /// A sight that is no known object.
    fn meet(&mut self, sight: &Sight<'_>, frame: Frame<'_>, now: Duration) {
        if !self.rules.begins(sight) || self.objects.iter().any(|object| object.is_doubled_by(sight)) {
            return;
        }
        if self.objects.len() >= MAX_OBJECTS {
            // Events stay; of the candidates the one goes that was missed longest.
            let candidates = self.objects.iter().enumerate().filter(|(_, object)| object.event.is_none());
            let Some((at, missed)) =
                candidates.map(|(at, object)| (at, object.missed)).max_by_key(|one| one.1)
            else {
                return;
            };
            if missed == 0 {
                return;
            }
            self.objects.swap_remove(at);
        }
        let mut object = Object::new(sight, frame, now);
        object.sighted(sight, frame, now, &self.rules);
        self.objects.push(object);
    }

    /// Takes off the list what is out of sight for good.
    fn let_go(&mut self, now: Duration, told: &mut Vec<Told>) {
        let mut at = 0;
        while at < self.objects.len() {
            let object = &self.objects[at];
            let unseen = now.saturating_sub(object.last);
            let lost = object.missed >= LOST_FRAMES && unseen >= self.rules.lost_after;
            // Of a candidate nothing is left when the inertia has forgotten it.
            let forgotten = object.event.is_none() && object.missed >= self.rules.inertia.1.max(LOST_FRAMES);
            if lost || forgotten {
                let object = self.objects.remove(at);
                told.extend(self.end(object, EndReason::Lost, now));
            } else {
                at += 1;
            }
        }
    }

    /// The end of an object that was taken off the list.
    fn end(&mut self, object: Object, reason: EndReason, now: Duration) -> Option<Told> {
        let open = object.event.as_ref()?;
        if !self.rules.cool_down.is_zero() {
            self.cool_downs.retain(|cool_down| cool_down.until > now);
            if self.cool_downs.len() >= MAX_COOL_DOWNS {
                self.cool_downs.remove(0);
            }
            let until = now.saturating_add(self.rules.cool_down);
            self.cool_downs.push(CoolDown { label: object.label.clone(), zone: open.home.clone(), until });
        }
        Some(Told { kind: Kind::End, event: object.event(open.id).ended(reason) })
    }

    /// Says what began and what changed.
    fn tell(&mut self, now: Duration, ids: &mut dyn FnMut() -> EventId, told: &mut Vec<Told>) {
        for object in &mut self.objects {
            if object.missed > 0 {
                continue;
            }
            if let Some(open) = &object.event {
                let due = now.saturating_sub(open.told) >= self.rules.update_every;
                if due && object.has_changed(open) {
                    let (id, home) = (open.id, open.home.clone());
                    told.push(Told { kind: Kind::Update, event: object.event(id) });
                    object.event = Some(object.open(id, home, now));
                }
                continue;
            }
            let home = object.zones.first().cloned();
            let cooling = self.cool_downs.iter().any(|cool_down| {
                cool_down.until > now && cool_down.label == object.label && cool_down.zone == home
            });
            if cooling || !object.counts(&self.rules) {
                continue;
            }
            let label = match self.begun.contains_key(&object.label) || self.begun.len() < MAX_LABELS {
                true => object.label.as_str(),
                false => OTHERS,
            };
            *self.begun.entry(label.to_owned()).or_default() += 1;
            let id = ids();
            told.push(Told { kind: Kind::New, event: object.event(id) });
            object.event = Some(object.open(id, home, now));
        }
    }
}

impl Object {
    fn new(sight: &Sight<'_>, frame: Frame<'_>, now: Duration) -> Self {
        Self {
            label: sight.label.to_owned(),
            filter: sight.area.map(Filter::new),
            history: 0,
            first: now,
            start: frame.at,
            last: now,
            seen: frame.at,
            seq: frame.seq,
            missed: 0,
            frames: 0,
            score: sight.score,
            best_score: sight.score,
            area: None,
            bbox: None,
            size: frame.size,
            zones: Vec::new(),
            entered: Vec::new(),
            event: None,
        }
    }

    fn awaited(&self) -> Awaited<'_> {
        let area = self.filter.as_ref().map(Filter::area);
        Awaited { label: &self.label, area, seen_before: self.missed == 0 }
    }

    /// It was seen in a frame.
    fn sighted(&mut self, sight: &Sight<'_>, frame: Frame<'_>, now: Duration, rules: &Rules) {
        if let (Some(filter), Some(area)) = (&mut self.filter, sight.area) {
            filter.correct(area);
        }
        self.history |= u64::from(rules.begins(sight) && rules.allows(sight));
        (self.last, self.seen, self.seq, self.size) = (now, frame.at, frame.seq, frame.size);
        self.missed = 0;
        self.frames += 1;
        self.score = sight.score;
        self.best_score = self.best_score.max(sight.score);
        self.area = sight.area;
        let [width, height] = frame.size.map(f64::from);
        self.bbox = sight.area.map(|[left, top, right, bottom]| {
            [left * width, top * height, right * width, bottom * height].map(|side| side as f32)
        });
        self.zones.clear();
        if let Some(area) = sight.area {
            let zones = rules.zones_of(sight.label, area).filter(|zone| !zone.exclude);
            self.zones.extend(zones.map(|zone| zone.name.clone()));
        }
        for zone in &self.zones {
            if !self.entered.contains(zone) {
                self.entered.push(zone.clone());
            }
        }
    }

    /// Whether a sight lies on this object so much that it is no other one. What is to be asked only of sights
    /// that belong to no object.
    fn is_doubled_by(&self, sight: &Sight<'_>) -> bool {
        let on_it = match (self.area, sight.area) {
            (Some(here), Some(there)) => iou(here, there) >= DOUBLE,
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        self.missed == 0 && self.label == sight.label && on_it
    }

    /// Whether the candidate counts as an event by now, in a frame in which it was seen.
    fn counts(&self, rules: &Rules) -> bool {
        let (least, of) = rules.inertia;
        let window = if of >= u64::BITS { u64::MAX } else { (1 << of) - 1 };
        self.history & 1 == 1
            && (self.history & window).count_ones() >= least
            && self.last.saturating_sub(self.first) >= rules.min_duration
    }

    fn has_changed(&self, open: &Open) -> bool {
        let moved = match (self.area, open.told_area) {
            (Some(here), Some(there)) => iou(here, there) < MOVED,
            (None, None) => false,
            (Some(_), None) | (None, Some(_)) => true,
        };
        moved || self.zones != open.told_zones || self.best_score >= open.told_best + BETTER
    }

    fn open(&self, id: EventId, home: Option<ZoneName>, now: Duration) -> Open {
        Open {
            id,
            home,
            told: now,
            told_zones: self.zones.clone(),
            told_best: self.best_score,
            told_area: self.area,
        }
    }

    fn event(&self, id: EventId) -> Event {
        Event {
            id,
            label: self.label.clone(),
            score: self.score,
            best_score: self.best_score,
            bbox: self.bbox,
            size: self.size,
            zones: self.zones.clone(),
            entered_zones: self.entered.clone(),
            start: self.start,
            seen: self.seen,
            end: None,
            duration_s: self.last.saturating_sub(self.first).as_secs_f64(),
            frames: self.frames,
            seq: self.seq,
            reason: None,
        }
    }
}
