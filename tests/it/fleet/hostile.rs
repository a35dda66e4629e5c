//! Messages of devices that were taken over, or that nobody has ever seen before.

use super::{Somebody, command, fleet, json_lines, row_of};
use crate::support::mosquitto::Mosquitto;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

/// Clears the screen, sets the title, asks for the terminal's name, turns the order of letters around.
const EVIL: &str = "x\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}c\r\n\u{202e}\u{0}y";

fn rubbish() -> Vec<(&'static str, Vec<u8>)> {
    let json = |value: Value| value.to_string().into_bytes();
    let deep = [b"{\"state\":".to_vec(), vec![b'['; 100_000], vec![b']'; 100_000], b"}".to_vec()].concat();
    let many: Vec<Value> =
        (0..300).map(|n| json!({ "name": format!("p{n}"), "code": EVIL, "detail": EVIL })).collect();
    vec![
        ("evil/availability", b"online".to_vec()),
        (
            "evil/birth",
            json(json!({ "device": EVIL, "groups": [EVIL, 5, null], "agent_version": EVIL, "os": EVIL,
            "commands": [EVIL], "board": EVIL, "new_in_2030": { "a": [1] } })),
        ),
        (
            "evil/health",
            json(json!({ "device": "evil", "state": EVIL, "problems": [{ "code": EVIL, "detail": EVIL }],
            "pipelines": [{ "name": EVIL, "state": EVIL, "release": EVIL, "fps": 1e308, "last_error": { "detail": EVIL } }],
            "mqtt": { "target": EVIL, "reached": "perhaps" }, "uptime_s": u64::MAX,
            "board": { "temperature_celsius": { "cpu": 1e308 }, "disk_free_bytes": u64::MAX } })),
        ),
        (
            "evil/model/a/state",
            json(json!({ "current": { "release": EVIL }, "deployment": { "release": EVIL,
            "stage": EVIL, "progress": -1e300, "reason": { "code": EVIL, "detail": EVIL } } })),
        ),
        ("types/availability", b"ONLINE".to_vec()),
        ("types/birth", json(json!({ "device": 7, "groups": "line", "agent_version": [], "commands": {} }))),
        (
            "types/health",
            json(
                json!({ "state": 5, "problems": "none", "pipelines": { "a": 1 }, "board": [], "sent_at": {},
            "uptime_s": -3 }),
            ),
        ),
        ("types/model/a/state", json(json!({ "current": "belt", "deployment": [1], "safe_mode": 5 }))),
        ("bytes/birth", vec![0xff, 0xfe, 0x00, 0x1b]),
        ("bytes/health", deep),
        ("bytes/availability", vec![0x1b; 2000]),
        ("many/health", json(json!({ "problems": many, "pipelines": many }))),
        // Longer than any device of ours says, and longer than the reader takes.
        ("long/health", [b"\"".to_vec(), vec![b'x'; 200_000], b"\"".to_vec()].concat()),
        ("longer/health", vec![b'x'; 400_000]),
        ("array/health", b"[]".to_vec()),
        ("group/birth", b"{}".to_vec()),
        ("a b/birth", b"{}".to_vec()),
        ("\u{1b}[2J/birth", b"{}".to_vec()),
        ("good/one/more/level", b"{}".to_vec()),
        ("good/model/..%2f/state", b"{}".to_vec()),
    ]
}

#[test]
fn rubbish_that_the_broker_has_kept_does_no_harm() {
    let broker = Mosquitto::start();
    let url = broker.url();
    let somebody = Somebody::at(&broker);
    somebody.plays("good", "line");
    for (below, payload) in rubbish() {
        // Control characters in a topic are the broker's to refuse; what it takes must be stood.
        if !below.chars().any(char::is_control) {
            somebody.says(&format!("edgewarden/{below}"), payload, true).unwrap();
        }
    }
    // `fleet` itself looks for what only a terminal understands.
    let table = fleet(&url, &["list"]);
    assert_eq!(table.code, Some(0), "{table:?}");
    assert!(table.stdout.contains("good") && table.stdout.contains("evil"), "{table:?}");
    let told = fleet(&url, &["list", "--json"]);
    let rows = json_lines(&told.stdout);
    assert_eq!(row_of(&rows, "good").unwrap()["state"], "ok");
    let evil = row_of(&rows, "evil").unwrap();
    assert_eq!(evil["temperature_celsius"], Value::Null);
    assert_eq!(
        evil["problem"]["code"].as_str().unwrap(),
        "x\\u{1b}[2J\\u{1b}]0;owned\\u{7}\\u{9b}c\\u{d}\\u{a}\\u{202e}\\u{0}y"
    );
    assert_eq!(row_of(&rows, "types").unwrap()["presence"], "unknown");
    assert!(
        row_of(&rows, "bytes").unwrap()["problem"]["detail"].as_str().unwrap().contains("makes no sense")
    );
    assert!(row_of(&rows, "group").is_none() && row_of(&rows, "a b").is_none(), "{rows:?}");
    for device in ["evil", "types", "bytes", "many", "good"] {
        let shown = fleet(&url, &["show", device]);
        assert_eq!(shown.code, Some(0), "{device}: {shown:?}");
        assert!(shown.stdout.len() < 64 << 10, "{device} fills the screen");
        // The documents as they are, and yet nothing that a terminal would obey.
        let raw = fleet(&url, &["show", device, "--json"]);
        assert_eq!(json_lines(&raw.stdout)[0]["device"], device);
    }
    let raw = json_lines(&fleet(&url, &["show", "evil", "--json"]).stdout).remove(0);
    assert_eq!(raw["documents"]["birth"]["os"], EVIL, "for machines it is told as it was said");

    let mut child = command(&url, &["watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    serde_json::from_str::<Value>(&first).unwrap();
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn answers_that_make_no_sense_are_passed_over_and_the_end_is_shown_safely() {
    let broker = Mosquitto::start();
    let url = broker.url();
    let device = Somebody::as_user(&broker, "", &["edgewarden/press-7/cmd/+/+"]);
    device.plays("press-7", "line");
    for json in [false, true] {
        std::thread::scope(|scope| {
            let mut arguments = vec!["send", "press-7", "dance"];
            arguments.extend(json.then_some("--json"));
            let url = &url;
            let asked = scope.spawn(move || fleet(url, &arguments));
            let (topic, _) = device.hears("");
            let ack = topic.replace("/cmd/", "/ack/");
            let other = ack.replace("press-7", "press-8");
            let id = ack.rsplit_once('/').unwrap().1.to_owned();
            let says = |topic: &str, status: Value| {
                let mut reply = json!({ "schema": 1, "message_id": "01890000-0000-7000-8000-000000000000",
                    "message_seq": 1, "sent_at": jiff::Timestamp::now(), "device": "press-7", "command": "dance", "id": id });
                reply.as_object_mut().unwrap().extend(status.as_object().unwrap().clone());
                device.says(topic, reply.to_string(), false).unwrap();
            };
            for rubbish in
                [&b""[..], b"null", b"[1]", b"\xff", br#"{"status":"successful"#, br#"{"status":["failed"]}"#]
            {
                device.says(&ack, rubbish.to_vec(), false).unwrap();
            }
            // In the name of the device, from the topic of another.
            says(&other, json!({ "status": "failed", "reason": { "code": "busy", "detail": "a lie" } }));
            says(&ack, json!({ "status": "executing", "detail": EVIL, "fraction": 1e300 }));
            says(&ack, json!({ "status": "successful", "result": { EVIL: [EVIL], "n": u64::MAX } }));
            let ended = asked.join().unwrap();
            assert_eq!(ended.code, Some(0), "{ended:?}");
            assert!(!ended.stdout.contains("a lie"), "{ended:?}");
            if json {
                assert_eq!(json_lines(&ended.stdout).last().unwrap()["result"][EVIL][0], EVIL);
            } else {
                assert!(ended.stdout.contains("owned"), "{ended:?}");
            }
        });
    }
}
