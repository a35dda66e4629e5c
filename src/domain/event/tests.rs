//! Whole stories: what is seen frame by frame, and what is told of it.

use super::watch::{LOST_FRAMES, MAX_LABELS, MAX_OBJECTS};
use super::*;
use crate::domain::result::{Anomaly, Classification, Detection, Output};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

const SIZE: [u32; 2] = [1000, 500];

fn rules() -> Rules {
    Rules {
        min_score: 0.5,
        classes: vec![],
        zones: vec![],
        inertia: (3, 5),
        min_duration: Duration::ZERO,
        lost_after: Duration::from_secs(2),
        cool_down: Duration::ZERO,
        update_every: Duration::from_secs(5),
        silence: Duration::from_secs(60),
    }
}

/// A thing of 100 × 100 pixels with its middle at a place.
fn thing(label: &str, x: f32, y: f32) -> Detection {
    Detection { label: label.into(), class: 0, score: 0.9, bbox: [x - 50.0, y - 50.0, x + 50.0, y + 50.0] }
}

fn seen(detections: Vec<Detection>) -> Output {
    Output { detections, ..Output::default() }
}

/// A watch with a clock, so many frames a second.
struct Story {
    watch: Watch,
    now: Duration,
    step: Duration,
    seq: u64,
    ids: u128,
    told: Vec<Told>,
}

impl Story {
    fn new(rules: Rules, fps: f64) -> Self {
        let step = Duration::from_secs_f64(1.0 / fps);
        Self { watch: Watch::new(rules), now: Duration::from_secs(100), step, seq: 0, ids: 0, told: vec![] }
    }

    fn frame(&mut self, output: &Output) {
        self.now += self.step;
        self.seq += 1;
        let at = Timestamp::from_second(1_700_000_000).unwrap() + self.now;
        let ids = &mut self.ids;
        let mut next = || {
            *ids += 1;
            EventId(uuid::Uuid::from_u128(*ids))
        };
        let frame = Frame { now: self.now, at, seq: self.seq, size: SIZE, output };
        self.told.extend(self.watch.see(frame, &mut next));
    }

    fn frames(&mut self, count: usize, output: &Output) {
        (0..count).for_each(|_| self.frame(output));
    }

    fn kinds(&self) -> Vec<Kind> {
        self.told.iter().map(|told| told.kind).collect()
    }

    /// Each event is begun once, first, and ended at most once, last.
    fn check(&self) {
        let mut lives: BTreeMap<EventId, Vec<Kind>> = BTreeMap::new();
        for told in &self.told {
            lives.entry(told.event.id).or_default().push(told.kind);
            assert_eq!(told.kind == Kind::End, told.event.end.is_some() && told.event.reason.is_some());
        }
        for (id, life) in lives {
            assert_eq!(life[0], Kind::New, "{id}: {life:?}");
            let ends = life.iter().filter(|kind| **kind == Kind::End).count();
            assert!(ends <= 1 && (ends == 0 || life.last() == Some(&Kind::End)), "{id}: {life:?}");
            assert_eq!(life.iter().filter(|kind| **kind == Kind::New).count(), 1, "{id}: {life:?}");
        }
    }
}

#[test]
fn one_car_that_stands_for_an_hour_is_one_event() {
    let mut story = Story::new(rules(), 10.0);
    let mut noise = 1_u32;
    for n in 0..36_000 {
        // The detector trembles by some pixels and misses one frame in ten.
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let off = (noise >> 28) as f32 - 8.0;
        let car = if n % 10 == 7 { vec![] } else { vec![thing("car", 400.0 + off, 300.0 - off / 2.0)] };
        story.frame(&seen(car));
    }
    assert_eq!(story.kinds(), [Kind::New], "and nothing to tell while it stands");
    assert_eq!(story.watch.counts()["car"], Count { begun: 1, active: 1 });
    story.frames(25, &seen(vec![]));
    assert_eq!(story.kinds(), [Kind::New, Kind::End]);
    let event = &story.told[1].event;
    assert_eq!((event.reason, event.frames), (Some(EndReason::Lost), 32_400));
    assert!((3595.0..3600.0).contains(&event.duration_s), "{}", event.duration_s);
    assert_eq!(event.end, Some(event.seen));
    assert_eq!(story.watch.counts()["car"], Count { begun: 1, active: 0 });
    story.check();
}

#[test]
fn what_flickers_is_no_event() {
    let mut story = Story::new(rules(), 10.0);
    for n in 0..2000 {
        // Two frames of five, each time elsewhere or at the same place.
        let there = n % 5 < 2;
        let x = if n % 100 < 50 { 200.0 } else { (n * 37 % 900) as f32 };
        story.frame(&seen(if there { vec![thing("ghost", x, 200.0)] } else { vec![] }));
    }
    assert_eq!(story.told, vec![]);
    assert!(story.watch.counts().is_empty());
}

/// Two that cross, in both directions and at several paces; while they cover each other the detector sees one.
#[test]
fn two_that_cross_keep_their_ids() {
    for (speed, slope) in [(4.0, 0.0), (8.0, 0.0), (12.0, 0.1), (20.0, 0.0), (20.0, -0.15)] {
        let mut story = Story::new(Rules { update_every: Duration::ZERO, ..rules() }, 10.0);
        let steps = (800.0 / speed) as i32;
        for n in 0..=steps {
            let moved = speed * n as f32;
            let (a, b) = (100.0 + moved, 900.0 - moved);
            let mut both = vec![thing("person", a, 250.0 + slope * moved), thing("person", b, 270.0)];
            if (a - b).abs() < 30.0 {
                both.pop();
            }
            // What comes first says nothing.
            if n % 2 == 0 {
                both.reverse();
            }
            story.frame(&seen(both));
        }
        let begun: Vec<&Event> =
            story.told.iter().filter(|told| told.kind == Kind::New).map(|told| &told.event).collect();
        assert_eq!(begun.len(), 2, "{speed}: {:?}", story.kinds());
        for first in begun {
            let left = |event: &Event| event.bbox.unwrap()[0] < 450.0;
            let last = story.told.iter().rev().find(|told| told.event.id == first.id).unwrap();
            assert_ne!(left(first), left(&last.event), "{speed}, {slope}: {first:?} → {:?}", last.event);
        }
        story.check();
    }
}

#[test]
fn fast_things_at_few_frames_are_followed() {
    let mut story = Story::new(rules(), 2.0);
    for n in 0..12 {
        story.frame(&seen(vec![thing("car", 60.0 + 70.0 * n as f32, 250.0)]));
    }
    let begun = story.told.iter().filter(|told| told.kind == Kind::New).count();
    assert_eq!(begun, 1, "{:?}", story.kinds());
}

#[test]
fn an_event_is_told_again_when_something_changed_and_not_too_often() {
    let mut story = Story::new(rules(), 10.0);
    for n in 0..200 {
        story.frame(&seen(vec![thing("car", 100.0 + 4.0 * n as f32, 250.0)]));
    }
    let updates: Vec<&Event> =
        story.told.iter().filter(|told| told.kind == Kind::Update).map(|told| &told.event).collect();
    assert_eq!(updates.len(), 3, "20 s, and 5 s between two");
    // A better score alone is worth it, too.
    let sure = Detection { score: 0.99, ..thing("car", 100.0 + 4.0 * 199.0, 250.0) };
    story.frames(60, &seen(vec![sure]));
    let last = &story.told.last().unwrap().event;
    assert_eq!((last.best_score, last.score), (0.99, 0.99));
    story.check();
}

#[test]
fn zones_begin_and_exclude_events_and_tell_where_it_was() {
    let area = |left: f32, right: f32| vec![[left, 0.0], [right, 0.0], [right, 1.0], [left, 1.0]];
    let zone = |name: &str, left, right, exclude| Zone {
        name: name.parse().unwrap(),
        area: area(left, right),
        classes: vec![],
        exclude,
    };
    let zones = vec![
        zone("street", 0.0, 0.2, true),
        zone("yard", 0.4, 0.7, false),
        Zone { classes: vec!["cat".into()], ..zone("sofa", 0.6, 1.0, false) },
    ];
    let mut story = Story::new(Rules { zones, update_every: Duration::ZERO, ..rules() }, 10.0);
    story.frames(50, &seen(vec![thing("car", 100.0, 250.0), thing("car", 300.0, 250.0)]));
    assert_eq!(story.told, vec![], "excluded, and in no zone");
    // It drives through the yard and out of it.
    for n in 0..80 {
        story.frame(&seen(vec![thing("car", 300.0 + 7.0 * n as f32, 250.0)]));
    }
    let event = &story.told[0].event;
    assert_eq!((story.told[0].kind, event.zones[0].as_str()), (Kind::New, "yard"));
    let last = &story.told.last().unwrap().event;
    assert_eq!((last.id, last.zones.len()), (event.id, 0), "it is followed on the other side");
    assert_eq!(last.entered_zones, event.zones, "the sofa is for cats");
    assert_eq!(event.start, story.told.last().unwrap().event.start);
    story.check();
}

#[test]
fn the_rules_for_score_class_and_time_hold() {
    let weak = Detection { score: 0.4, ..thing("car", 500.0, 250.0) };
    let mut story = Story::new(rules(), 10.0);
    story.frames(50, &seen(vec![weak.clone()]));
    assert_eq!(story.told, vec![], "below the limit");
    story.frames(5, &seen(vec![thing("car", 500.0, 250.0)]));
    story.frames(100, &seen(vec![weak]));
    assert_eq!(story.kinds(), [Kind::New], "half of the limit is enough to be known again");

    let mut story = Story::new(Rules { classes: vec!["person".into()], ..rules() }, 10.0);
    story.frames(50, &seen(vec![thing("car", 500.0, 250.0), thing("person", 100.0, 250.0)]));
    assert_eq!(story.told.iter().map(|told| told.event.label.as_str()).collect::<Vec<_>>(), ["person"]);

    let mut story = Story::new(Rules { min_duration: Duration::from_secs(3), ..rules() }, 10.0);
    story.frames(30, &seen(vec![thing("car", 500.0, 250.0)]));
    assert_eq!(story.told, vec![]);
    story.frames(2, &seen(vec![thing("car", 500.0, 250.0)]));
    assert_eq!(story.kinds(), [Kind::New]);
    assert!(story.told[0].event.duration_s >= 3.0, "its start is its first sight");
}

#[test]
fn after_an_event_its_class_rests_in_its_zone_only() {
    let zone = |name: &str, left: f32| Zone {
        name: name.parse().unwrap(),
        area: vec![[left, 0.0], [left + 0.5, 0.0], [left + 0.5, 1.0], [left, 1.0]],
        classes: vec![],
        exclude: false,
    };
    let zones = vec![zone("left", 0.0), zone("right", 0.5)];
    let cool_down = Duration::from_secs(30);
    let mut story = Story::new(Rules { zones, cool_down, ..rules() }, 10.0);
    let (left, right) = (seen(vec![thing("car", 200.0, 250.0)]), seen(vec![thing("car", 800.0, 250.0)]));
    story.frames(10, &left);
    story.frames(30, &seen(vec![]));
    assert_eq!(story.kinds(), [Kind::New, Kind::End]);
    story.frames(100, &left);
    assert_eq!(story.told.len(), 2, "too soon");
    story.frames(10, &right);
    assert_eq!(story.told.len(), 3, "another zone");
    story.frames(5, &seen(vec![thing("dog", 200.0, 250.0)]));
    assert_eq!(story.told.len(), 4, "another class");
    story.frames(300, &left);
    assert!(
        story.told.iter().any(|told| told.kind == Kind::New
            && told.event.bbox.unwrap()[0] < 500.0
            && told.event.label == "car"
            && told.event.id != story.told[0].event.id),
        "it is over"
    );
    story.check();
}

#[test]
fn a_bad_frame_now_and_then_ends_nothing_where_frames_are_rare() {
    // A motion gate lets one still picture through in ten seconds.
    let mut story = Story::new(rules(), 0.1);
    let car = seen(vec![thing("car", 500.0, 250.0)]);
    story.frames(10, &car);
    story.frames(LOST_FRAMES as usize - 1, &seen(vec![]));
    story.frames(10, &car);
    assert_eq!(story.kinds(), [Kind::New]);
    story.frames(LOST_FRAMES as usize, &seen(vec![]));
    assert_eq!(story.kinds(), [Kind::New, Kind::End]);
}

#[test]
fn a_source_that_pauses_keeps_its_events_for_a_while_and_no_longer() {
    let car = seen(vec![thing("car", 500.0, 250.0)]);
    let mut story = Story::new(rules(), 10.0);
    story.frames(10, &car);
    assert_eq!(story.watch.tick(story.now + Duration::from_secs(59)), vec![]);
    story.now += Duration::from_secs(59);
    story.frames(10, &car);
    assert_eq!(story.kinds(), [Kind::New], "a model was swapped, a camera was away");
    let ended = story.watch.tick(story.now + Duration::from_secs(60));
    assert_eq!(ended[0].event.reason, Some(EndReason::NoFrames));
    assert_eq!(story.watch.tick(story.now + Duration::from_secs(120)), vec![], "once");
    story.told.extend(ended);
    // Also where nobody looked at the clock in between.
    story.frames(10, &car);
    story.now += Duration::from_secs(600);
    story.frames(10, &car);
    assert_eq!(story.kinds(), [Kind::New, Kind::End, Kind::New, Kind::End, Kind::New]);
    story.told.extend(story.watch.end_all(EndReason::AgentStopped));
    assert_eq!(story.told.last().unwrap().event.reason, Some(EndReason::AgentStopped));
    assert_eq!(story.watch.end_all(EndReason::AgentStopped), vec![]);
    story.check();
}

#[test]
fn another_model_with_the_same_classes_goes_on_with_the_same_events() {
    let mut story = Story::new(rules(), 10.0);
    story.frames(10, &seen(vec![thing("car", 500.0, 250.0)]));
    // The new one has the classes in another order, boxes a little wider, and took two seconds to come.
    story.now += Duration::from_secs(2);
    let other =
        Detection { class: 7, score: 0.7, bbox: [440.0, 195.0, 560.0, 305.0], ..thing("car", 0.0, 0.0) };
    story.frames(50, &seen(vec![other]));
    assert_eq!(story.kinds(), [Kind::New]);
    // One that knows no cars.
    story.frames(50, &seen(vec![thing("vehicle", 500.0, 250.0)]));
    assert_eq!(story.kinds(), [Kind::New, Kind::New, Kind::End]);
    story.check();
}

#[test]
fn the_class_of_a_picture_and_an_anomaly_are_events_without_a_box() {
    let class = |label: &str, score| Classification { label: label.into(), class: 0, score };
    let worn = Output { classes: vec![class("good", 0.3), class("worn", 0.7)], ..Output::default() };
    let good = Output { classes: vec![class("good", 0.9), class("worn", 0.1)], ..Output::default() };
    let mut story = Story::new(Rules { classes: vec!["worn".into(), ANOMALY.into()], ..rules() }, 10.0);
    story.frames(30, &good);
    story.frames(30, &worn);
    story.frames(30, &good);
    assert_eq!(story.kinds(), [Kind::New, Kind::End]);
    assert_eq!((story.told[0].event.label.as_str(), story.told[0].event.bbox), ("worn", None));
    let odd = |is_anomaly| Output {
        anomaly: Some(Anomaly { score: 4711.0, is_anomaly, channels: vec![] }),
        ..Output::default()
    };
    story.frames(10, &odd(false));
    story.frames(10, &odd(true));
    story.frames(30, &odd(false));
    assert_eq!(story.kinds()[2..], [Kind::New, Kind::End]);
    assert_eq!((story.told[2].event.label.as_str(), story.told[2].event.score), (ANOMALY, 4711.0));
    story.check();
}

#[test]
fn what_is_no_box_does_no_harm() {
    let bad = |bbox: [f32; 4], score: f32| Detection { bbox, score, ..thing("car", 0.0, 0.0) };
    let nan = f32::NAN;
    let output = seen(vec![
        bad([nan, 0.0, 10.0, 10.0], 0.9),
        bad([0.0, 0.0, f32::INFINITY, 10.0], 0.9),
        bad([10.0, 0.0, 0.0, 10.0], 0.9),
        bad([5.0, 5.0, 5.0, 5.0], 0.9),
        bad([0.0, 0.0, 1e30, 1e30], 0.9),
        bad([0.0, 0.0, 10.0, 10.0], nan),
        bad([0.0, 0.0, 10.0, 10.0], f32::INFINITY),
    ]);
    let mut story = Story::new(rules(), 10.0);
    story.frames(20, &output);
    assert_eq!((story.told.len(), story.watch.followed()), (0, 0));
    // Beside a good one, which they do not disturb.
    let mut both = output.clone();
    both.detections.push(thing("car", 500.0, 250.0));
    story.frames(20, &both);
    assert_eq!(story.kinds(), [Kind::New]);
    let empty = Frame { now: story.now, at: Timestamp::UNIX_EPOCH, seq: 1, size: [0, 0], output: &both };
    story.watch.see(empty, &mut || unreachable!());
}

#[test]
fn what_is_kept_is_bounded() {
    let mut story =
        Story::new(Rules { inertia: (1, 1), cool_down: Duration::from_secs(3600), ..rules() }, 10.0);
    for n in 0..600_u32 {
        let things = (0..300).map(|at| {
            let x = (at * 53 + n * 31) % 1000;
            thing(&format!("class {}", (n + at) % 500), x as f32, ((at * 29 + n) % 500) as f32)
        });
        story.frame(&seen(things.collect()));
        assert!(story.watch.followed() <= MAX_OBJECTS);
        story.told.truncate(200_000);
    }
    assert!(story.watch.counts().len() <= MAX_LABELS + 1, "{}", story.watch.counts().len());
    let active: u64 = story.watch.counts().values().map(|count| count.active).sum();
    assert!(active <= MAX_OBJECTS as u64);
}

fn some_detection() -> impl Strategy<Value = Detection> {
    let side = prop_oneof![8 => -50.0..1100.0_f32, 1 => Just(f32::NAN), 1 => any::<f32>()];
    let score = prop_oneof![8 => 0.0..1.0_f32, 1 => any::<f32>()];
    (proptest::array::uniform4(side), score, "[ab]").prop_map(|(bbox, score, label)| Detection {
        label,
        class: 0,
        score,
        bbox,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever comes: no panic, ids once, ends once, nothing grows, and all is ended at the end.
    #[test]
    fn each_event_begins_once_and_ends_once(
        frames in proptest::collection::vec(
            (proptest::collection::vec(some_detection(), 0..8), 0..5000_u64), 1..60),
        least in 1..4_u32,
        cool in 0..3_u64,
    ) {
        let rules = Rules { inertia: (least, 4), cool_down: Duration::from_secs(cool), ..rules() };
        let mut story = Story::new(rules, 10.0);
        for (detections, wait_ms) in frames {
            story.now += Duration::from_millis(wait_ms);
            story.frame(&seen(detections));
            prop_assert!(story.watch.followed() <= MAX_OBJECTS);
        }
        story.told.extend(story.watch.end_all(EndReason::AgentStopped));
        story.check();
        let (new, end) = [Kind::New, Kind::End]
            .map(|kind| story.told.iter().filter(|told| told.kind == kind).count()).into();
        prop_assert_eq!(new, end);
        let counted: u64 = story.watch.counts().values().map(|count| count.begun).sum();
        prop_assert_eq!(counted, new as u64);
    }

    /// Things that keep their distance keep their ids, whatever way each goes.
    #[test]
    fn those_that_keep_apart_keep_their_ids(
        speeds in proptest::collection::vec(-6.0..6.0_f32, 1..4),
        misses in proptest::collection::vec(any::<[u8; 4]>(), 40..80),
    ) {
        let mut story = Story::new(Rules { update_every: Duration::ZERO, ..rules() }, 10.0);
        for (n, missed) in misses.iter().enumerate() {
            // Each in a lane of its own; one frame in eight misses it.
            let things = speeds.iter().enumerate().filter(|(at, _)| missed[*at] >= 32);
            let things = things.map(|(at, speed)| {
                thing("car", 500.0 + speed * n as f32, 60.0 + 120.0 * at as f32)
            });
            story.frame(&seen(things.collect()));
        }
        story.check();
        let begun = story.told.iter().filter(|told| told.kind == Kind::New).count();
        prop_assert!(begun <= speeds.len(), "{} of {}", begun, speeds.len());
        for told in &story.told {
            let lane = |event: &Event| (event.bbox.unwrap()[1] / 120.0) as usize;
            let first = story.told.iter().find(|other| other.event.id == told.event.id).unwrap();
            prop_assert_eq!(lane(&first.event), lane(&told.event));
        }
    }
}
