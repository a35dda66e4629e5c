//! Events: begun once, told again, ended, whatever happens to the agent.

use crate::support::device::{Device, Heard, Options, PIPELINE, Repository, model, release};
use crate::support::mosquitto::Mosquitto;
use edgewarden::domain::event::{EndReason, EventId, Kind};
use edgewarden::mqtt::payloads::event::EventMessage;
use std::collections::{BTreeMap, BTreeSet};

fn events(text: &str) -> toml::Value {
    text.parse::<toml::Table>().unwrap().into()
}

/// The kinds that were heard of each event, in the order of arrival.
fn lives(heard: &Heard) -> BTreeMap<EventId, Vec<&EventMessage>> {
    let mut lives: BTreeMap<EventId, Vec<&EventMessage>> = BTreeMap::new();
    for message in &heard.events {
        lives.entry(message.event.id).or_default().push(message);
    }
    lives
}

/// The ids of what was begun and not ended.
fn open(heard: &Heard) -> BTreeSet<EventId> {
    let is_open = |life: &Vec<&EventMessage>| life.iter().all(|one| one.kind != Kind::End);
    lives(heard).into_iter().filter(|(_, life)| is_open(life)).map(|(id, _)| id).collect()
}

/// The built-in belt carries parts through the picture: each comes, goes on, and is gone.
#[test]
fn what_passes_by_is_told_as_new_update_and_end_with_a_picture_and_counts() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v2"]);
    let rules = "inertia = [2, 3]\nlost_after = \"500ms\"\nupdate_every = \"300ms\"\npicture_every = \"1s\"\n\
                 zones = [{ name = \"left\", rect = [0.0, 0.0, 0.5, 1.0] }, \
                 { name = \"right\", rect = [0.5, 0.0, 1.0, 1.0] }]";
    let options = Options::new(&broker, &repository).set("pipeline.events", events(rules));
    let device = Device::serving(options, &release(2));

    let life = device.until("a whole life", |heard| {
        let whole = |life: &Vec<&EventMessage>| {
            [Kind::New, Kind::Update, Kind::End].iter().all(|kind| life.iter().any(|one| one.kind == *kind))
        };
        let life = lives(heard).into_values().find(whole)?;
        Some(life.into_iter().cloned().collect::<Vec<_>>())
    });
    let (first, last) = (&life[0], &life[life.len() - 1]);
    assert_eq!((first.kind, last.kind), (Kind::New, Kind::End), "{life:#?}");
    assert_eq!(life.iter().filter(|one| one.kind != Kind::Update).count(), 2, "{life:#?}");
    assert_eq!(first.pipeline.as_str(), PIPELINE);
    assert_eq!(last.event.reason, Some(EndReason::Lost));
    assert!(["washer", "nut", "bracket", "cracked"].contains(&first.event.label.as_str()));
    assert!(
        life.iter().all(|one| one.event.label == first.event.label && one.event.start == first.event.start)
    );
    assert!(last.event.frames > first.event.frames && last.event.duration_s > first.event.duration_s);
    let [.., right, bottom] = last.event.bbox.unwrap();
    assert!(right <= 330.0 && bottom <= 250.0 && last.event.size == [320, 240], "{last:?}");
    assert!(!last.event.entered_zones.is_empty());

    let picture = device.until("a picture", |heard| heard.snapshots.first().cloned());
    assert_eq!(turbojpeg::read_header(&picture).expect("a JPEG").width, 320);
    let label = &first.event.label;
    device.until("the counts", |heard| {
        let counts = heard.counts.last()?.counts.get(label)?;
        (counts.begun > 0).then_some(())
    });
    device.until("the counts among the figures", |heard| {
        let pipeline = heard.metrics.last()?.pipelines.iter().find(|one| one.name.as_str() == PIPELINE)?;
        pipeline.events.get(label).filter(|count| count.begun > 0).map(drop)
    });
}

/// One picture for ever: what lies in it is one event each, over another version of the model, until the agent
/// ends; and where it is killed, the next one says so.
#[test]
fn what_stands_still_is_one_event_until_the_agent_ends_or_is_killed() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v2"]);
    let next = repository.publish_variant("v2", "2.1.0", |_, _| {});
    let pictures = repository.dir.path().join("pictures");
    std::fs::create_dir(&pictures).unwrap();
    std::fs::copy(model("v2").join("golden/1.jpg"), pictures.join("1.jpg")).unwrap();
    let options = Options::new(&broker, &repository)
        .pictures(&pictures)
        .set("pipeline.events", events("min_score = 0.6\npicture_every = \"off\""));
    let mut device = Device::serving(options, &release(2));

    // Beyond the limit, and not so near it that another processor might see it otherwise.
    let sure = device.until("an answer", |heard| {
        let found = &heard.frames.last()?.output.detections;
        Some(found.iter().filter(|one| one.score > 0.65).count())
    });
    assert!(sure > 0, "the picture shows something");
    let standing =
        device.until("all that is sure", |heard| Some(open(heard)).filter(|open| open.len() >= sure));
    device.update(&next).unwrap();
    device.until_frames(30);
    let heard = device.until("what was heard", |heard| {
        Some(heard.events.iter().map(|one| (one.event.id, one.kind)).collect::<Vec<_>>())
    });
    assert!(heard.iter().all(|(_, kind)| *kind != Kind::End), "nothing ended: {heard:?}");
    let ids: BTreeSet<EventId> = heard.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, standing, "nothing began anew");
    assert!(device.heard.lock().unwrap().snapshots.is_empty(), "no picture left the device");

    assert!(device.stop().success());
    device.until("the ends", |heard| open(heard).is_empty().then_some(()));
    {
        let heard = device.heard.lock().unwrap();
        let ends = || heard.events.iter().filter(|one| one.kind == Kind::End);
        assert!(ends().all(|one| one.event.reason == Some(EndReason::AgentStopped)));
        assert_eq!(ends().count(), standing.len(), "each once");
    }

    device.forget();
    device.start();
    let killed = device.until("events again", |heard| Some(open(heard)).filter(|open| open.len() >= sure));
    assert!(killed.is_disjoint(&standing), "a new agent knows no old object");
    device.kill();
    device.start();
    let reasons = device.until("their ends", |heard| {
        let ends = heard.events.iter().filter(|one| one.kind == Kind::End && killed.contains(&one.event.id));
        let reasons: BTreeMap<EventId, _> = ends.map(|one| (one.event.id, one.event.reason)).collect();
        (reasons.len() == killed.len()).then_some(reasons)
    });
    assert!(reasons.values().all(|reason| *reason == Some(EndReason::AgentRestarted)), "{reasons:?}");
    // And what stands there is told anew, by the agent that sees it.
    device.until("events of this agent", |heard| (open(heard).len() >= sure).then_some(()));
    assert!(device.stop().success());
    device.until("the ends", |heard| open(heard).is_empty().then_some(()));
}
