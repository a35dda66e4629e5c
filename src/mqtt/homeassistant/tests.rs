//! The discovery message against the keys and values that Home Assistant's documentation demands (the pages "MQTT
//! discovery", "MQTT sensor", "MQTT image", "MQTT event", "MQTT update" and "Sensor entity"), over several
//! devices; and its templates, run by another implementation of their language on messages of ours.

use super::entities::{discovery, object_id};
use super::*;
use crate::domain::deployment::{BundleRef, DeploymentState, SlotState, Stage};
use crate::domain::event::{Count, Event, EventId, Kind};
use crate::domain::metrics::{BoardMetrics, MetricsReport, PipelineMetrics, Quantiles};
use crate::domain::{Digest, Reason, ReasonCode};
use crate::mqtt::commands::{self, Addressee, RawCommand};
use crate::mqtt::payloads::Stamper;
use crate::mqtt::payloads::event::{CountsMessage, EventMessage};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What a platform demands and knows.
struct Platform {
    name: &'static str,
    required: &'static [&'static str],
    known: &'static [&'static str],
}

/// Keys that every entity knows. An entity of a device must have a `unique_id`.
const COMMON: [&str; 10] = [
    "platform",
    "unique_id",
    "name",
    "icon",
    "entity_category",
    "enabled_by_default",
    "json_attributes_topic",
    "json_attributes_template",
    "qos",
    "encoding",
];

const PLATFORMS: [Platform; 4] = [
    Platform {
        name: "sensor",
        required: &["state_topic"],
        known: &[
            "state_topic",
            "value_template",
            "device_class",
            "unit_of_measurement",
            "state_class",
            "options",
            "expire_after",
            "force_update",
            "suggested_display_precision",
        ],
    },
    Platform {
        name: "image",
        required: &["image_topic"],
        known: &["image_topic", "url_topic", "url_template", "content_type", "image_encoding"],
    },
    Platform {
        name: "event",
        required: &["state_topic", "event_types"],
        known: &["state_topic", "event_types", "value_template", "device_class"],
    },
    Platform {
        name: "update",
        required: &[],
        known: &[
            "state_topic",
            "value_template",
            "latest_version_topic",
            "latest_version_template",
            "command_topic",
            "payload_install",
            "device_class",
            "title",
            "release_summary",
            "release_url",
            "entity_picture",
            "display_precision",
            "retain",
        ],
    },
];

/// Units that a sensor of a class may have; none: the class has no unit.
const UNITS: [(&str, &[&str]); 3] =
    [("temperature", &["°C", "°F", "K"]), ("duration", &["d", "h", "min", "s", "ms", "µs"]), ("enum", &[])];
/// What a sensor's value may stand for over time.
const STATE_CLASSES: [&str; 4] = ["measurement", "measurement_angle", "total", "total_increasing"];
/// A sensor is never of the category `config`: nothing can be set by it.
const SENSOR_CATEGORIES: [&str; 1] = ["diagnostic"];
/// Keys of the device, of which one of the first two must be there.
const DEVICE: [&str; 12] = [
    "identifiers",
    "connections",
    "configuration_url",
    "hw_version",
    "manufacturer",
    "model",
    "model_id",
    "name",
    "serial_number",
    "suggested_area",
    "sw_version",
    "via_device",
];

fn topics() -> Topics {
    Topics::new("edgewarden").unwrap()
}

fn pipeline(name: &str) -> PipelineView {
    PipelineView {
        name: name.parse().unwrap(),
        slot: format!("{name}-slot").parse().unwrap(),
        has_pictures: true,
        classes: None,
        offered: None,
        install: None,
    }
}

fn view(pipelines: Vec<PipelineView>) -> View {
    View { agent_version: "0.1.0".into(), board: "Raspberry Pi 5".into(), has_temperature: true, pipelines }
}

fn offering(pipeline: PipelineView, signed: bool) -> PipelineView {
    PipelineView {
        offered: Some("belt@2.0.0".parse().unwrap()),
        install: (!signed).then(|| "homeassistant-1".parse().unwrap()),
        ..pipeline
    }
}

fn counting(pipeline: PipelineView, classes: &[&str]) -> PipelineView {
    PipelineView { classes: Some(classes.iter().map(|class| (*class).to_owned()).collect()), ..pipeline }
}

/// Labels that would break out of a template if they were put in as they are.
const NASTY: [&str; 6] = ["it's", "a \"b\"", "{{ 7 * 7 }}", "%}{% x", "back\\slash", "größer 漢 \n\t"];

/// Devices of all kinds.
fn devices() -> Vec<(&'static str, View)> {
    let many: Vec<String> = (0..500).map(|n| format!("{n:064}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let long = "n".repeat(64);
    let all = (0..16).map(|n| offering(counting(pipeline(&format!("{n:02}{}", &long[..50])), &many), false));
    vec![
        ("pi-1", view(vec![])),
        ("pi-1", view(vec![pipeline("main")])),
        ("pi.4_local", View { has_temperature: false, ..view(vec![offering(pipeline("main"), true)]) }),
        ("pi-1", view(vec![offering(counting(pipeline("front.door"), &["person", "car"]), false)])),
        ("pi-1", view(vec![counting(pipeline("a"), &NASTY), counting(pipeline("b.c"), &["person"])])),
        (
            "pi-1",
            view(vec![PipelineView { has_pictures: false, ..counting(pipeline("press"), &["anomaly"]) }]),
        ),
        ("pi-1", view(vec![counting(pipeline("none-yet"), &[])])),
        ("pi-1", view(all.collect())),
    ]
}

fn text<'a>(entity: &'a Value, key: &str) -> Option<&'a str> {
    entity.get(key).map(|value| value.as_str().unwrap_or_else(|| panic!("{key} is text: {entity}")))
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

fn check_entity(key: &str, entity: &Value, view: &View) {
    let keys: BTreeSet<&str> = entity.as_object().unwrap().keys().map(String::as_str).collect();
    let name = text(entity, "platform").expect("a platform");
    let platform = PLATFORMS.iter().find(|one| one.name == name).unwrap_or_else(|| panic!("{name}"));
    for required in platform.required.iter().chain(&["unique_id", "name"]) {
        assert!(keys.contains(required), "{key} ({name}) lacks {required}");
    }
    for key in &keys {
        assert!(COMMON.contains(key) || platform.known.contains(key), "{name} knows no {key}");
    }
    assert!(is_plain(key), "{key}");
    // Device and origin belong to the whole message and to it alone.
    assert!(!keys.contains("device") && !keys.contains("origin"));
    match name {
        "sensor" => {
            if let Some(category) = text(entity, "entity_category") {
                assert!(SENSOR_CATEGORIES.contains(&category), "{key}: {category}");
            }
            let unit = text(entity, "unit_of_measurement");
            let state_class = text(entity, "state_class");
            if let Some(class) = text(entity, "device_class") {
                let (_, units) = UNITS.iter().find(|(one, _)| *one == class).expect("a class of sensors");
                assert_eq!(unit.is_some(), !units.is_empty(), "{key}: {class}");
                assert!(unit.is_none_or(|unit| units.contains(&unit)), "{key}: {unit:?}");
                // Words have options, and no statistics.
                assert_eq!(class == "enum", keys.contains("options"), "{key}");
                assert!(class != "enum" || state_class.is_none(), "{key}");
            }
            assert!(state_class.is_none_or(|class| STATE_CLASSES.contains(&class)), "{key}: {state_class:?}");
        }
        "image" => {
            assert!(!keys.contains("url_topic"), "one of the two");
            assert_eq!(text(entity, "content_type"), Some("image/jpeg"));
        }
        "event" => {
            let types: Vec<&str> =
                entity["event_types"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
            assert_eq!(types, Kind::ALL.map(Kind::as_str));
        }
        "update" => {
            assert_eq!(keys.contains("command_topic"), keys.contains("payload_install"), "{key}");
            let installable = view.pipelines.iter().any(|one| one.install.is_some());
            assert_eq!(keys.contains("command_topic"), installable, "{key}: only what needs no signature");
            // A kept command would be refused.
            assert!(!keys.contains("retain"));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn the_message_has_what_home_assistant_demands() {
    let mut platforms = BTreeSet::new();
    for (device, view) in devices() {
        let device: DeviceId = device.parse().unwrap();
        let message = discovery(&topics(), &device, &view);
        assert!(message.to_string().len() <= MAX_PAYLOAD, "{} bytes", message.to_string().len());
        let topic = discovery_topic("homeassistant", &topics(), &device);
        let levels: Vec<&str> = topic.split('/').collect();
        assert_eq!((levels[0], levels[1], levels[3]), ("homeassistant", "device", "config"));
        assert!(is_plain(levels[2]), "{topic}");

        let of_device = message["device"].as_object().unwrap();
        assert!(of_device.keys().all(|key| DEVICE.contains(&key.as_str())));
        assert_eq!(of_device["identifiers"], json!([object_id(&topics(), &device)]));
        for key in ["name", "manufacturer", "model", "sw_version"] {
            assert!(of_device[key].as_str().is_some_and(|text| !text.is_empty()), "{key}");
        }
        let origin = message["origin"].as_object().unwrap();
        assert_eq!(origin["name"], "edgewarden", "the one key that must be there");
        assert!(origin.keys().all(|key| ["name", "sw_version", "support_url"].contains(&key.as_str())));
        assert!(origin["support_url"].as_str().unwrap().starts_with("https://"));
        let availability = &message["availability"][0];
        assert_eq!(availability["topic"], format!("edgewarden/{device}/availability"));
        assert_eq!(
            (&availability["payload_available"], &availability["payload_not_available"]),
            (&json!("online"), &json!("offline"))
        );

        let entities = message["components"].as_object().unwrap();
        assert!(!entities.is_empty(), "a message without any would be refused");
        let mut unique = BTreeSet::new();
        for (key, entity) in entities {
            check_entity(key, entity, &view);
            assert!(unique.insert(text(entity, "unique_id").unwrap()), "{key}: another has its unique_id");
            platforms.insert(text(entity, "platform").unwrap().to_owned());
            // Each reads a topic that this device speaks on.
            for key in ["state_topic", "image_topic"] {
                if let Some(topic) = text(entity, key) {
                    let parsed = topics().parse(topic);
                    assert!(matches!(parsed, Some(crate::mqtt::topics::Topic::Said { .. })), "{topic}");
                }
            }
        }
        let counts = entities.keys().filter(|key| key.starts_with("count_")).count();
        assert!(counts <= MAX_CLASSES, "{counts}");
    }
    assert_eq!(platforms.len(), PLATFORMS.len(), "each is checked: {platforms:?}");
}

#[test]
fn two_fleets_on_one_broker_do_not_meet() {
    let (a, b) = (Topics::new("a").unwrap(), Topics::new("b").unwrap());
    let names = ["x", "x.y", "x_y", "x-y", "a_x"].map(|name| name.parse::<DeviceId>().unwrap());
    let ids: BTreeSet<String> =
        names.iter().flat_map(|name| [object_id(&a, name), object_id(&b, name)]).collect();
    assert_eq!(ids.len(), 2 * names.len(), "{ids:?}");
}

/// What Home Assistant reads out of a message.
fn rendered(template: &str, message: &[u8]) -> String {
    let mut jinja = minijinja::Environment::new();
    // As Home Assistant has it.
    jinja.add_filter("to_json", |value: minijinja::Value| serde_json::to_string(&value).unwrap());
    jinja.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    let value: Value = serde_json::from_slice(message).unwrap();
    let context =
        minijinja::context! { value_json => minijinja::Value::from(minijinja::value::Serde(value)) };
    jinja.render_str(template, context).unwrap_or_else(|error| panic!("{error:#}\n{template}"))
}

fn entity(view: &View, key: &str) -> Map<String, Value> {
    let message = discovery(&topics(), &"pi-1".parse().unwrap(), view);
    let entities = message["components"].as_object().unwrap();
    let found = entities.get(key).unwrap_or_else(|| panic!("{key} in {:?}", entities.keys()));
    found.as_object().unwrap().clone()
}

/// What an entity shows of a message of ours.
fn shows(view: &View, key: &str, body: impl serde::Serialize) -> String {
    let message = Stamper::new("pi-1".parse().unwrap(), "boot".to_owned()).json(body).unwrap().into_bytes();
    rendered(entity(view, key)["value_template"].as_str().unwrap(), &message)
}

fn metrics() -> MetricsReport {
    let latency = Quantiles { p50: 41.26, count: 3, ..Quantiles::default() };
    let pipeline = |name: &str, fps| PipelineMetrics {
        name: name.parse().unwrap(),
        fps,
        latency_ms: BTreeMap::from([("end_to_end".to_owned(), latency)]),
        ..serde_json::from_value(json!({"name": name, "fps": 0.0, "latency_ms": {}, "frames":
            {"captured": 0, "answered": 0, "skipped": 0, "failed": 0}}))
        .unwrap()
    };
    let zones = [("cpu", 55.04), ("gpu", 61.26), ("nvme", 40.0)];
    let temperature_celsius = zones.map(|(zone, degrees)| (zone.to_owned(), degrees)).into();
    MetricsReport {
        pipelines: vec![pipeline("a", 4.96), pipeline("b", 12.0)],
        board: BoardMetrics { temperature_celsius, ..BoardMetrics::default() },
        ..MetricsReport::default()
    }
}

#[test]
fn the_sensors_read_our_figures() {
    let view = view(vec![pipeline("a"), pipeline("b"), pipeline("c")]);
    assert_eq!(shows(&view, "fps_a", metrics()), "5.0");
    assert_eq!(shows(&view, "fps_b", metrics()), "12.0");
    assert_eq!(shows(&view, "fps_c", metrics()), "", "no figures yet");
    assert_eq!(shows(&view, "latency_a", metrics()), "41.3");
    assert_eq!(shows(&view, "latency_a", MetricsReport::default()), "");
    assert_eq!(shows(&view, "temperature", metrics()), "61.3", "the hottest");
    assert_eq!(shows(&view, "temperature", MetricsReport::default()), "");
    assert_eq!(
        shows(&view, "health", json!({ "state": crate::domain::health::HealthState::Degraded })),
        "degraded"
    );
}

#[test]
fn each_class_is_counted_whatever_it_is_called() {
    let view = view(vec![counting(pipeline("a"), &NASTY)]);
    let count = |active| Count { begun: 9, active };
    let counts = NASTY.iter().zip(1..).map(|(label, n)| ((*label).to_owned(), count(n))).collect();
    let message = CountsMessage { pipeline: "a".parse().unwrap(), counts };
    let entities = discovery(&topics(), &"pi-1".parse().unwrap(), &view)["components"].clone();
    let mut seen = Vec::new();
    for (key, _) in entities.as_object().unwrap().iter().filter(|(key, _)| key.starts_with("count_")) {
        seen.push(shows(&view, key, &message).parse::<usize>().unwrap());
        let none = CountsMessage { counts: BTreeMap::new(), ..message.clone() };
        assert_eq!(shows(&view, key, none), "0");
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=NASTY.len()).collect::<Vec<_>>());
}

#[test]
fn an_event_carries_its_type_and_what_automations_ask_for() {
    let event = Event {
        id: EventId(uuid::Uuid::from_u128(7)),
        label: "person".into(),
        score: 0.5,
        best_score: 0.75,
        bbox: Some([1.0, 2.0, 3.0, 4.0]),
        size: [640, 480],
        zones: vec!["door".parse().unwrap()],
        entered_zones: vec!["yard".parse().unwrap(), "door".parse().unwrap()],
        start: jiff::Timestamp::UNIX_EPOCH,
        seen: jiff::Timestamp::UNIX_EPOCH,
        end: None,
        duration_s: 1.5,
        frames: 3,
        seq: 9,
        reason: None,
    };
    let view = view(vec![counting(pipeline("a"), &[])]);
    for kind in Kind::ALL {
        let message = EventMessage { pipeline: "a".parse().unwrap(), kind, event: event.clone() };
        let shown: Value = serde_json::from_str(&shows(&view, "event_a", message)).unwrap();
        assert_eq!(shown["event_type"], kind.as_str());
        assert_eq!((&shown["label"], &shown["zones"]), (&json!("person"), &json!(["door"])));
        assert_eq!(shown["id"], event.id.to_string());
        assert_eq!((&shown["best_score"], &shown["start"]), (&json!(0.75), &json!("1970-01-01T00:00:00Z")));
    }
}

fn state(current: Option<&str>, deployment: Option<(&str, Stage, Option<f32>)>) -> SlotState {
    let reason = |stage| {
        let failed = matches!(stage, Stage::Refused | Stage::RolledBack);
        failed.then(|| Reason::new(ReasonCode::TooSlow, "too slow ".repeat(100)))
    };
    SlotState {
        slot: "a-slot".parse().unwrap(),
        current: current.map(|release| BundleRef {
            release: release.parse().unwrap(),
            digest: Digest::from_bytes([7; 32]),
        }),
        previous: None,
        provider: None,
        deployment: deployment.map(|(release, stage, progress)| DeploymentState {
            id: "d1".parse().unwrap(),
            release: release.parse().unwrap(),
            stage,
            progress,
            reason: reason(stage),
            cause: None,
            shadow: None,
            waiting: None,
            transfer: None,
        }),
        safe_mode: None,
    }
}

/// The keys that Home Assistant takes from the state of an update, and what they may be.
fn check_update(shown: &Value) {
    for (key, value) in shown.as_object().unwrap() {
        match key.as_str() {
            "installed_version" | "latest_version" | "title" => {
                assert!(value.as_str().is_some_and(|text| !text.is_empty()), "{key}: {value}");
            }
            "release_summary" => assert!(value.as_str().unwrap().chars().count() <= 255),
            "in_progress" => assert!(value.is_boolean()),
            "update_percentage" => {
                assert!(value.is_null() || (0.0..=100.0).contains(&value.as_f64().unwrap()), "{value}");
            }
            other => panic!("Home Assistant knows no {other}"),
        }
    }
}

#[test]
fn an_update_shows_what_runs_what_is_wanted_and_how_far_it_is() {
    let idle = view(vec![pipeline("a")]);
    let offering = view(vec![offering(pipeline("a"), false)]);
    for (view, state, expected) in [
        (&idle, state(None, None), json!(["none", "none", "none", false, null])),
        (&idle, state(Some("belt@1.0.0"), None), json!(["1.0.0", "1.0.0", "belt", false, null])),
        (&offering, state(Some("belt@1.0.0"), None), json!(["1.0.0", "2.0.0", "belt", false, null])),
        (
            &offering,
            state(Some("belt@1.0.0"), Some(("belt@1.5.0", Stage::Fetching, Some(0.254)))),
            json!(["1.0.0", "1.5.0", "belt", true, 25.0]),
        ),
        (
            &idle,
            state(Some("belt@1.0.0"), Some(("belt@2.0.0", Stage::OnTrial, None))),
            json!(["1.0.0", "2.0.0", "belt", true, null]),
        ),
        (
            &idle,
            state(Some("belt@1.0.0"), Some(("other@1.0.0", Stage::Fetching, Some(1.0)))),
            json!(["belt@1.0.0", "other@1.0.0", "other", true, 100.0]),
        ),
        (
            &idle,
            state(None, Some(("belt@1.0.0", Stage::Resolving, None))),
            json!(["none", "belt@1.0.0", "belt", true, null]),
        ),
        (
            &idle,
            state(Some("belt@2.0.0"), Some(("belt@2.0.0", Stage::Committed, None))),
            json!(["2.0.0", "2.0.0", "belt", false, null]),
        ),
        (
            &offering,
            state(Some("belt@1.0.0"), Some(("belt@2.0.0", Stage::RolledBack, None))),
            json!(["1.0.0", "2.0.0", "belt", false, null]),
        ),
    ] {
        let failed = state.deployment.as_ref().is_some_and(|one| one.reason.is_some());
        let shown: Value = serde_json::from_str(&shows(view, "update_a", &state)).unwrap();
        check_update(&shown);
        let keys = ["installed_version", "latest_version", "title", "in_progress", "update_percentage"];
        assert_eq!(Value::from(keys.map(|key| shown[key].clone()).to_vec()), expected, "{state:?}");
        let summary = shown["release_summary"].as_str().unwrap();
        assert_eq!(summary.starts_with("belt@2.0.0 rolled_back: too slow"), failed, "{summary}");
        let model = state.current.as_ref().map_or("none".to_owned(), |one| one.release.to_string());
        assert_eq!(shows(view, "model_a", &state), model);
    }
}

#[test]
fn the_button_sends_a_command_that_the_device_takes() {
    let update = entity(&view(vec![offering(pipeline("a"), false)]), "update_a");
    let to = Addressee { device: "pi-1".parse().unwrap(), groups: vec![] };
    let raw = RawCommand {
        topic: update["command_topic"].as_str().unwrap(),
        payload: update["payload_install"].as_str().unwrap().as_bytes(),
        retained: false,
    };
    let request = commands::read(&topics(), &to, raw).unwrap();
    assert_eq!((request.id.as_str(), request.command.name()), ("homeassistant-1", "update"));
    let signed = entity(&view(vec![offering(pipeline("a"), true)]), "update_a");
    assert!(!signed.contains_key("command_topic") && !signed.contains_key("payload_install"));
}
