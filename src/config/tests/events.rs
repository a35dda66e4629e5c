//! What is an event, and how Home Assistant hears of the device.

use super::*;
use crate::domain::event::Rules;

fn with(events: &str) -> String {
    format!("{SMALLEST}[pipeline.events]\n{events}")
}

fn rules(text: &str) -> Rules {
    read(text).unwrap().pipelines[0].events.clone().expect("events").rules
}

#[test]
fn the_table_alone_is_enough_and_without_it_there_are_none() {
    assert_eq!(read(SMALLEST).unwrap().pipelines[0].events, None);
    let events = read(&with("")).unwrap().pipelines[0].events.clone().unwrap();
    let rules = events.rules;
    assert_eq!((rules.min_score, rules.inertia, rules.classes.len()), (0.5, (3, 5), 0));
    let spans = [rules.min_duration, rules.lost_after, rules.cool_down, rules.update_every, rules.silence];
    assert_eq!(spans, [0, 5, 0, 5, 60].map(Duration::from_secs));
    assert_eq!(events.picture_every, Some(Duration::from_secs(10)));
    // What agent.toml shows.
    let example = read(&uncommented(true).replace("mqtt://", "mqtts://")).unwrap();
    let shown = example.pipelines[0].events.clone().unwrap();
    assert_eq!(shown.rules.zones.len(), 2);
    assert_eq!(shown.rules.classes, ["washer", "cracked"]);
    assert_eq!(shown.picture_every, events.picture_every);
    let plain = Rules { zones: vec![], classes: vec![], silence: rules.silence, ..shown.rules };
    assert_eq!(plain, rules, "the defaults");
}

#[test]
fn every_rule_is_read() {
    let read_as = rules(&with(
        "min_score = 0.7\nclasses = [\"car\"]\ninertia = [2, 4]\nmin_duration = \"1s\"\nlost_after = \"10s\"\n\
         cool_down = \"1m\"\nupdate_every = \"2s\"\npicture_every = \"off\"\n\
         zones = [{ name = \"yard\", rect = [0, 0.5, 1, 1], classes = [\"car\"] }, \
         { name = \"road\", polygon = [[0, 0], [1, 0], [1, 0.5]], exclude = true }]\n",
    ));
    assert_eq!((read_as.min_score, read_as.inertia), (0.7, (2, 4)));
    assert_eq!(read_as.zones[0].name.as_str(), "yard");
    assert!(!read_as.zones[0].exclude && read_as.zones[1].exclude);
    assert_eq!((read_as.zones[0].classes.len(), read_as.zones[1].area.len()), (1, 3));
}

#[test]
fn a_gate_and_a_slow_pace_are_no_silence() {
    let slow = "[[pipeline]]\nfps = 0.01\nsource = { kind = \"synthetic\" }\n[pipeline.events]\n";
    assert_eq!(rules(slow).silence, Duration::from_secs(500));
    // The gate is that of the pipeline with the source.
    let text = format!(
        "{SMALLEST}[pipeline.motion]\nkeep_alive = \"5m\"\n[[pipeline]]\nname = \"second\"\nsource_of = \"main\"\n\
         [pipeline.events]\n"
    );
    assert_eq!(read(&text).unwrap().pipelines[1].events.clone().unwrap().rules.silence.as_secs(), 900);
}

#[test]
fn all_faults_of_events_are_told_at_once() {
    let told = faults(&with(
        "min_score = 1.5\nclasses = [5]\ninertia = [5, 3]\nlost_after = 5\npicture_every = \"0s\"\nzone = []\n\
         zones = [{ rect = [0, 0, 1, 1] }, { name = \"a b\", rect = [0, 0, 1, 1] }, { name = \"c\" }, \
         { name = \"d\", rect = [0, 0, 1, 1] }, { name = \"d\", rect = [0, 0, 1, 1], exclude = 1 }]\n",
    ));
    for words in [
        "agent.toml:4: pipeline.events.min_score: 1.5 is out of range",
        "agent.toml:5: pipeline.events.classes: expected text",
        "pipeline.events.inertia: write [seen, frames], such as [3, 5]",
        "pipeline.events.lost_after: expected a time span",
        "pipeline.events.picture_every: \"0s\" is out of range; use \"1s\" to \"1d\"; or \"off\"",
        "pipeline.events.zone: unknown key; did you mean zones?",
        "pipeline.events.zones.name: is missing; add name = \"door\"",
        "pipeline.events.zones.name: zone name \"a b\"",
        "pipeline.events.zones.rect: give either rect",
        "pipeline.events.zones.name: is the name of another zone",
        "pipeline.events.zones.exclude: expected true or false",
    ] {
        assert!(told.iter().any(|fault| fault.contains(words)), "{words} in {told:#?}");
    }
}

#[test]
fn home_assistant_hears_of_the_device_unless_it_is_told_not_to() {
    let settings = read(SMALLEST).unwrap().homeassistant;
    assert_eq!((settings.discovery, settings.prefix.as_str()), (true, "homeassistant"));
    let text = format!("{SMALLEST}[homeassistant]\ndiscovery = false\nprefix = \"ha/test\"\n");
    let settings = read(&text).unwrap().homeassistant;
    assert_eq!((settings.discovery, settings.prefix.as_str()), (false, "ha/test"));
    for bad in ["", "a//b", "/a", "#", "a+", "$SYS", "a b", "a/b/c/d/e"] {
        let told = faults(&format!("{SMALLEST}[homeassistant]\nprefix = \"{bad}\"\n"));
        assert!(told.len() == 1 && told[0].starts_with("agent.toml:4: homeassistant.prefix: "), "{told:?}");
    }
    let told = faults(&format!("{SMALLEST}[homeassistant]\ndiscovery = \"no\"\nprefixes = 1\n"));
    assert_eq!(told.len(), 2, "{told:?}");
}
