//! What is made of messages: of good ones, and of all others.

use super::answers::{Answers, Reply, Standing};
use super::row::{Filter, Order, Row, rows};
use super::text::{is_obeyed, shown, shown_json};
use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

const STALE: i64 = 300_000;
/// 2027-01-15T08:00:00Z.
const NOW: i64 = 1_800_000_000_000;
const SAID: &str = "2027-01-15T08:00:00Z";

fn id(text: &str) -> DeviceId {
    text.parse().unwrap()
}

fn hear(fleet: &mut Fleet, device: &str, kind: Kind, payload: &[u8]) {
    fleet.take(Heard { device: &id(device), kind: &kind, payload, retained: true, now_ms: NOW });
}

fn slot() -> Kind {
    Kind::Slot("detector".parse().unwrap())
}

fn health(device: &str, state: &str) -> Value {
    json!({
        "schema": 1, "sent_at": SAID, "device": device, "state": state, "clock_synchronised": true,
        "problems": [], "uptime_s": 5,
        "pipelines": [
            { "name": "a", "slot": "detector", "state": "running", "fps": 10.5, "release": "belt@1.0.0" },
            { "name": "b", "slot": "detector", "state": "running", "fps": 4.5 },
        ],
        "board": { "temperature_celsius": { "cpu": 51.5, "gpu": 60.25, "lie": 1e300, "wrong": "hot" } },
    })
}

fn one(fleet: &Fleet) -> Row {
    let all = rows(fleet, &Filter::default(), Order::Device, NOW, STALE);
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].clone()
}

#[test]
fn a_device_is_summed_up_from_what_it_said() {
    let mut fleet = Fleet::new(10);
    hear(&mut fleet, "pi", Kind::Availability, b"online");
    let birth = json!({ "sent_at": SAID, "device": "pi", "groups": ["line"], "agent_version": "9.9" });
    hear(&mut fleet, "pi", Kind::Birth, birth.to_string().as_bytes());
    hear(&mut fleet, "pi", Kind::Health, health("pi", "ok").to_string().as_bytes());
    let state = json!({ "sent_at": SAID, "slot": "detector", "current": { "release": "belt@1.0.0", "digest": "x" },
        "deployment": { "id": "d", "release": "belt@2.0.0", "stage": "fetching", "progress": 0.4 } });
    hear(&mut fleet, "pi", slot(), state.to_string().as_bytes());
    let row = one(&fleet);
    assert!(row.is_well());
    assert_eq!((row.frames_per_second, row.temperature_celsius), (Some(15.0), Some(60.25)));
    assert_eq!(row.models[0].release.as_deref(), Some("belt@1.0.0"));
    assert_eq!((row.groups, row.agent_version.as_deref()), (vec!["line".to_owned()], Some("9.9")));
    assert!(row.deployments[0].deployment.goes_on());
    assert_eq!((row.problem, row.age_s), (None, Some(0)));

    // What was retained is taken away, topic by topic; at last there is no such device.
    for kind in [Kind::Availability, Kind::Birth, Kind::Health] {
        hear(&mut fleet, "pi", kind, b"");
        assert_eq!(one(&fleet).presence, Presence::Unknown);
    }
    hear(&mut fleet, "pi", slot(), b"");
    assert!(fleet.devices().is_empty());
}

#[test]
fn presence_goes_by_the_word_of_the_broker_and_then_by_signs_of_life() {
    let view = |availability: Option<&[u8]>, synchronised: Option<bool>, health_too: bool| {
        let mut view = DeviceView::default();
        let device = id("pi");
        let mut take = |kind: &Kind, payload: &[u8]| {
            view.take(Heard { device: &device, kind, payload, retained: true, now_ms: NOW });
        };
        if let Some(word) = availability {
            take(&Kind::Availability, word);
        }
        if health_too {
            let mut health = health("pi", "ok");
            health["clock_synchronised"] = json!(synchronised);
            take(&Kind::Health, health.to_string().as_bytes());
        }
        view
    };
    let much_later = NOW + STALE + 1;
    for (availability, synchronised, health_too, now, expected) in [
        (Some(&b"online"[..]), Some(true), true, NOW, Presence::Online),
        (Some(b"online"), Some(true), true, NOW + STALE, Presence::Online),
        (Some(b"online"), Some(true), true, much_later, Presence::Stale),
        (Some(b"online"), None, true, much_later, Presence::Stale),
        // Its clock is not set: nobody knows when it spoke.
        (Some(b"online"), Some(false), true, much_later, Presence::Online),
        (Some(b"online"), None, false, much_later, Presence::Online),
        // Its clock runs ahead.
        (Some(b"online"), Some(true), true, NOW - 10 * STALE, Presence::Online),
        (Some(b"offline"), Some(true), true, NOW, Presence::Offline),
        (Some(b"offline"), Some(true), true, much_later, Presence::Offline),
        (Some(b"perhaps"), Some(true), true, NOW, Presence::Unknown),
        (None, Some(true), true, NOW, Presence::Unknown),
    ] {
        let view = view(availability, synchronised, health_too);
        assert_eq!(
            view.presence(now, STALE),
            expected,
            "{availability:?} {synchronised:?} {health_too} {now}"
        );
    }
    // What comes live is a sign of life by our own clock, whatever the device's says.
    let mut view = view(Some(b"online"), Some(true), true);
    let live = health("pi", "ok").to_string();
    let device = id("pi");
    view.take(Heard {
        device: &device,
        kind: &Kind::Health,
        payload: live.as_bytes(),
        retained: false,
        now_ms: much_later,
    });
    assert_eq!(view.presence(much_later, STALE), Presence::Online);
}

#[test]
fn the_topic_tells_who_speaks_and_a_lie_is_told() {
    let mut fleet = Fleet::new(10);
    hear(&mut fleet, "thief", Kind::Health, health("victim", "ok").to_string().as_bytes());
    let row = one(&fleet);
    assert_eq!(row.device, id("thief"));
    assert!(row.problem.unwrap().detail.contains("\"victim\""));
}

#[test]
fn what_is_worst_is_told_first() {
    let mut fleet = Fleet::new(10);
    let mut report = health("pi", "degraded");
    report["pipelines"][1]["last_error"] = json!({ "code": "child_crashed", "detail": "it died" });
    hear(&mut fleet, "pi", Kind::Health, report.to_string().as_bytes());
    assert_eq!(one(&fleet).problem.unwrap().detail, "it died");
    report["problems"] =
        json!([{ "code": "a_word_of_tomorrow", "detail": "worst" }, { "code": "x", "detail": "less" }]);
    hear(&mut fleet, "pi", Kind::Health, report.to_string().as_bytes());
    assert_eq!(
        one(&fleet).problem,
        Some(Problem { code: "a_word_of_tomorrow".into(), detail: "worst".into() })
    );
    hear(&mut fleet, "pi", Kind::Birth, b"[1]");
    assert!(one(&fleet).problem.unwrap().detail.contains("birth makes no sense"));
}

#[test]
fn devices_are_filtered_and_sorted() {
    let mut fleet = Fleet::new(10);
    for (device, word, state, group) in [
        ("a", "online", "ok", "x"),
        ("b", "offline", "ok", "y"),
        ("c", "online", "failed", "y"),
        ("d", "online", "degraded", "x"),
    ] {
        hear(&mut fleet, device, Kind::Availability, word.as_bytes());
        let birth = json!({ "groups": [group], "sent_at": SAID });
        hear(&mut fleet, device, Kind::Birth, birth.to_string().as_bytes());
        hear(&mut fleet, device, Kind::Health, health(device, state).to_string().as_bytes());
    }
    let names = |filter: &Filter, order| -> String {
        rows(&fleet, filter, order, NOW, STALE).iter().map(|row| row.device.as_str()).collect()
    };
    let all = Filter::default();
    assert_eq!(names(&all, Order::Device), "abcd");
    assert_eq!(names(&all, Order::Problem), "bcda");
    assert_eq!(names(&Filter { groups: vec!["y".into()], ..all.clone() }, Order::Device), "bc");
    assert_eq!(names(&Filter { offline: true, ..all.clone() }, Order::Device), "b");
    assert_eq!(names(&Filter { problem: true, ..all.clone() }, Order::Device), "bcd");
    let both = Filter { groups: vec!["x".into()], problem: true, ..all };
    assert_eq!(names(&both, Order::Device), "d");
}

#[test]
fn a_flood_of_devices_and_slots_is_bounded() {
    let mut fleet = Fleet::new(3);
    for n in 0..10 {
        hear(&mut fleet, &format!("d{n}"), Kind::Availability, b"online");
    }
    assert_eq!((fleet.devices().len(), fleet.beyond()), (3, 7));
    // Those that are known go on.
    hear(&mut fleet, "d0", Kind::Availability, b"offline");
    assert_eq!(fleet.devices()[&id("d0")].connected, Some(false));
    for n in 0..1000 {
        hear(&mut fleet, "d0", Kind::Slot(format!("s{n}").parse().unwrap()), b"{}");
    }
    assert_eq!(fleet.devices()[&id("d0")].slots.len(), MOST);
    let many: Vec<Value> =
        (0..1000).map(|n| json!({ "name": format!("p{n}"), "code": "x", "fps": 1 })).collect();
    let report = json!({ "problems": many, "pipelines": many });
    hear(&mut fleet, "d0", Kind::Health, report.to_string().as_bytes());
    let kept = fleet.devices()[&id("d0")].health.clone().unwrap();
    assert_eq!((kept.problems.len(), kept.pipelines.len()), (MOST, MOST));
}

fn reply(status: Value) -> Vec<u8> {
    status.to_string().into_bytes()
}

#[test]
fn a_command_has_ended_when_all_who_are_expected_have() {
    let mut answers = Answers::new([id("a"), id("b")], 3);
    let failed = reply(json!({ "status": "failed", "reason": { "code": "busy", "detail": "later" } }));
    let done = reply(json!({ "status": "successful", "result": { "x": 1 } }));
    assert_eq!(answers.take(&id("a"), &reply(json!({ "status": "init" }))), Some(Reply::Init));
    assert!(!answers.are_complete());
    assert!(matches!(answers.take(&id("a"), &done), Some(Reply::Successful { .. })));
    assert_eq!(answers.take(&id("a"), &failed), None, "what follows the end does not count");
    for rubbish in [&b""[..], b"[]", b"{}", b"\xff", br#"{"status":7}"#, br#"{"status":"perhaps"}"#] {
        assert_eq!(answers.take(&id("b"), rubbish), None);
    }
    assert_eq!(answers.of(Standing::Open).collect::<Vec<_>>(), [&id("b")]);
    // One that nobody knew of is waited for too, once it has begun.
    answers.take(&id("c"), &reply(json!({ "status": "executing", "detail": "x", "fraction": 7 })));
    assert!(matches!(answers.take(&id("b"), &failed), Some(Reply::Failed { .. })));
    assert!(!answers.are_complete());
    answers.take(&id("c"), &done);
    assert!(answers.are_complete() && !answers.has_beyond());
    assert_eq!(answers.take(&id("d"), &done), None);
    assert!(answers.has_beyond());
    assert_eq!(
        (answers.of(Standing::Done).count(), answers.of(Standing::Failed).count(), answers.len()),
        (2, 1, 3)
    );
}

#[test]
fn what_a_terminal_would_obey_is_written_out() {
    assert_eq!(shown("a\u{1b}[2Jb\u{9b}31m\u{202e}c", 80), "a\\u{1b}[2Jb\\u{9b}31m\\u{202e}c");
    assert_eq!(shown("Grüße, 世界 🙂", 80), "Grüße, 世界 🙂");
    assert_eq!(shown("abcdef", 3), "abc…");
}

/// Any JSON, with the keys and words of ours among others.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
        "(online|ok|failed|running|fetching|successful|executing|1800-01-01T00:00:00Z)".prop_map(Value::from),
        "[\\x00-\\x1f\\x7f-\\u{9f}\\u{202a}-\\u{202e}]{0,500}".prop_map(Value::from),
    ];
    let key = prop_oneof![
        Just("state"),
        Just("problems"),
        Just("pipelines"),
        Just("code"),
        Just("detail"),
        Just("name"),
        Just("fps"),
        Just("board"),
        Just("temperature_celsius"),
        Just("deployment"),
        Just("release"),
        Just("stage"),
        Just("progress"),
        Just("reason"),
        Just("current"),
        Just("groups"),
        Just("device"),
        Just("sent_at"),
        Just("status"),
        Just("result"),
        Just("mqtt"),
        Just("target"),
        Just("clock_synchronised"),
        Just("x"),
    ];
    leaf.prop_recursive(4, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..12).prop_map(|pairs| Value::Object(
                pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
            )),
        ]
    })
}

fn any_payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => any_json().prop_map(|value| value.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..64),
        1 => "(online|offline|)".prop_map(String::into_bytes),
    ]
}

fn any_kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Availability),
        Just(Kind::Birth),
        Just(Kind::Health),
        "[a-c]".prop_map(|slot| Kind::Slot(slot.parse().unwrap()))
    ]
}

proptest! {
    #[test]
    fn whatever_is_said_a_row_is_safe_to_show(
        messages in prop::collection::vec(("[a-c]", any_kind(), any_payload(), any::<bool>(), any::<i64>()), 0..12),
        now: i64,
    ) {
        let mut fleet = Fleet::new(2);
        for (device, kind, payload, retained, now_ms) in &messages {
            fleet.take(Heard { device: &id(device), kind, payload, retained: *retained, now_ms: *now_ms });
        }
        prop_assert!(fleet.devices().len() <= 2);
        for order in [Order::Device, Order::Problem, Order::Model, Order::Rate, Order::Temperature] {
            for row in rows(&fleet, &Filter::default(), order, now, STALE) {
                let json = serde_json::to_string(&row).unwrap();
                prop_assert!(!json.chars().any(is_obeyed), "{json:?}");
                prop_assert!(json.len() < 64 << 10);
                prop_assert!(row.temperature_celsius.is_none_or(|heat| heat.abs() <= 300.0));
                prop_assert!(row.frames_per_second.is_none_or(f64::is_finite));
            }
        }
    }

    #[test]
    fn the_newest_of_each_topic_counts_and_a_double_changes_nothing(
        messages in prop::collection::vec((any_kind(), any_payload()), 1..12),
    ) {
        let device = id("pi");
        let fold = |messages: &[(Kind, Vec<u8>)]| {
            let mut view = DeviceView::default();
            for (kind, payload) in messages {
                view.take(Heard { device: &device, kind, payload, retained: true, now_ms: 0 });
            }
            view
        };
        let once = fold(&messages);
        let doubled: Vec<_> = messages.iter().flat_map(|message| [message.clone(), message.clone()]).collect();
        prop_assert_eq!(&fold(&doubled), &once);
        // What a later message of the same topic replaced has left nothing but the time of its sending.
        let newest: Vec<_> = messages
            .iter()
            .enumerate()
            .filter(|(at, (kind, _))| !messages[at + 1..].iter().any(|(later, _)| later == kind))
            .map(|(_, message)| message.clone())
            .collect();
        let short = fold(&newest);
        prop_assert_eq!((&short.connected, &short.birth, &short.health, &short.slots),
            (&once.connected, &once.birth, &once.health, &once.slots));
    }

    #[test]
    fn devices_do_not_touch_each_other(
        mine in prop::collection::vec((any_kind(), any_payload()), 0..6),
        theirs in prop::collection::vec((any_kind(), any_payload()), 0..6),
    ) {
        let mut apart = Fleet::new(10);
        mine.iter().for_each(|(kind, payload)| hear(&mut apart, "mine", kind.clone(), payload));
        let mut mixed = Fleet::new(10);
        let longest = mine.len().max(theirs.len());
        for at in 0..longest {
            if let Some((kind, payload)) = theirs.get(at) { hear(&mut mixed, "theirs", kind.clone(), payload); }
            if let Some((kind, payload)) = mine.get(at) { hear(&mut mixed, "mine", kind.clone(), payload); }
        }
        prop_assert_eq!(apart.devices().get(&id("mine")), mixed.devices().get(&id("mine")));
    }

    #[test]
    fn whatever_is_answered_an_end_is_an_end(payloads in prop::collection::vec(any_payload(), 0..20)) {
        let mut answers = Answers::new([id("a")], 10);
        let mut ends = 0;
        for payload in &payloads {
            let reply = answers.take(&id("a"), payload);
            ends += usize::from(matches!(reply, Some(Reply::Successful { .. } | Reply::Failed { .. })));
            prop_assert!(ends == usize::from(answers.are_complete()));
        }
    }

    #[test]
    fn json_that_is_made_safe_is_the_same_json(value in any_json()) {
        let safe = shown_json(&value.to_string());
        prop_assert!(!safe.chars().any(is_obeyed));
        prop_assert_eq!(serde_json::from_str::<Value>(&safe).unwrap(), serde_json::from_str::<Value>(&value.to_string()).unwrap());
    }

    #[test]
    fn text_that_is_made_safe_is_bounded(text: String, most in 0_usize..50) {
        let safe = shown(&text, most);
        prop_assert!(!safe.chars().any(is_obeyed));
        prop_assert!(safe.chars().count() <= 10 * most + 1);
    }
}
