//! The example of an access list, held against a real mosquitto: what devices, operators and others may do, and what
//! they may not.

use super::{Somebody, fleet, json_lines, row_of, rows};
use crate::support::device::{Device, Options};
use crate::support::mosquitto::{Mosquitto, Setup};
use crate::support::root;
use edgewarden::domain::ReasonCode;
use serde_json::json;

const EXAMPLE: &str = "packaging/examples/mosquitto-acl.conf";

fn broker() -> Mosquitto {
    let setup = Setup { lines: vec!["acl_file {dir}/acl"], files: vec![("acl", "")], ..Setup::default() };
    let broker = Mosquitto::with(&setup);
    grant(broker, "")
}

/// Takes the example, and more lines behind it.
fn grant(mut broker: Mosquitto, more: &str) -> Mosquitto {
    let example = std::fs::read_to_string(root().join(EXAMPLE)).unwrap();
    std::fs::write(broker.dir.path().join("acl"), format!("{example}\n{more}")).unwrap();
    broker.restart();
    broker
}

fn as_user(broker: &Mosquitto, user: &str) -> String {
    format!("mqtt://{user}@127.0.0.1:{}", broker.port)
}

#[test]
fn a_device_reports_and_obeys_under_the_list_and_an_operator_commands() {
    let broker = broker();
    // The device's id is made by the test's support, so its lines are, too.
    let mut device = Device::new(Options::default().broker(&broker));
    let id = device.id().as_str().to_owned();
    let broker = grant(broker, &format!("user {id}\ntopic read edgewarden/group/line/cmd/+/+\n"));
    device.configure(|options| options.set("mqtt.username", id.as_str()));
    device.start();
    let anna = as_user(&broker, "anna");
    rows(&anna, "the device is online and has said how it is", |rows| {
        let row = row_of(rows, &id)?;
        (row["presence"] == "online" && row["groups"] == json!(["line"]) && !row["state"].is_null())
            .then_some(())
    });
    for to in [id.as_str(), "group:line"] {
        let ended = fleet(&anna, &["send", to, "status", "--json"]);
        assert_eq!(ended.code, Some(0), "{to}: {ended:?}");
        let lines = json_lines(&ended.stdout);
        assert_eq!(
            (&lines.last().unwrap()["device"], &lines.last().unwrap()["status"]),
            (&json!(id), &json!("successful"))
        );
    }
    // Who only looks sees the same, and is refused a command by the broker.
    let viewer = as_user(&broker, "viewer");
    let seen = json_lines(&fleet(&viewer, &["list", "--json"]).stdout);
    assert!(row_of(&seen, &id).is_some(), "{seen:?}");
    let ended = fleet(&viewer, &["send", &id, "pause"]);
    assert!(ended.code == Some(1) && ended.stderr.contains("allow it in its access list"), "{ended:?}");
    // Whoever has no name sees nothing.
    let nobody = format!("mqtt://127.0.0.1:{}", broker.port);
    assert_eq!(fleet(&nobody, &["list"]).stdout, "");
}

#[test]
fn nobody_speaks_or_commands_in_the_name_of_another() {
    let broker = broker();
    let press = Somebody::as_user(&broker, "press-7", &["edgewarden/#", "homeassistant/#"]);
    let anna = Somebody::as_user(&broker, "anna", &["edgewarden/#"]);
    let home = Somebody::as_user(&broker, "homeassistant", &["homeassistant/#"]);
    let viewer = Somebody::as_user(&broker, "viewer", &[]);
    let refused = |who: &Somebody, topics: &[&str]| {
        for topic in topics {
            let reason = who.says(topic, "x", false).expect_err(topic);
            assert_eq!(reason.code, ReasonCode::BrokerRefused, "{topic}: {reason}");
        }
    };
    let taken = |who: &Somebody, topics: &[&str]| {
        for topic in topics {
            who.says(topic, "x", false).unwrap_or_else(|reason| panic!("{topic}: {reason}"));
        }
    };
    taken(
        &press,
        &[
            "edgewarden/press-7/availability",
            "edgewarden/press-7/birth",
            "edgewarden/press-7/model/detector/state",
            "edgewarden/press-7/telemetry/main",
            "edgewarden/press-7/snapshot/main",
            "edgewarden/press-7/ack/update/1",
            "edgewarden/press-7/event/main",
            "edgewarden/_reply/operator-1",
            "homeassistant/device/press-7/config",
        ],
    );
    refused(
        &press,
        &[
            "edgewarden/press-8/availability",
            "edgewarden/press-8/ack/update/1",
            "edgewarden/press-8/cmd/restart/1",
            "edgewarden/press-70/birth",
            "edgewarden/group/line-3/cmd/restart/1",
            "edgewarden/press-8/model/a/desired",
            "edgewarden/group/line-3/model/a/desired",
            "homeassistant/device/press-8/config",
            "homeassistant/status",
            "elsewhere",
        ],
    );
    taken(
        &anna,
        &[
            "edgewarden/press-7/cmd/restart/1",
            "edgewarden/group/line-3/cmd/restart/1",
            "edgewarden/press-7/model/a/desired",
            "edgewarden/group/line-3/model/a/desired",
        ],
    );
    refused(
        &anna,
        &[
            "edgewarden/press-7/availability",
            "edgewarden/press-7/birth",
            "edgewarden/press-7/ack/restart/1",
            "homeassistant/status",
        ],
    );
    taken(&home, &["homeassistant/status", "edgewarden/press-7/cmd/update/1"]);
    refused(&home, &["edgewarden/press-7/birth", "edgewarden/group/line-3/cmd/restart/1"]);
    refused(
        &viewer,
        &["edgewarden/press-7/cmd/restart/1", "edgewarden/viewer-2/birth", "homeassistant/status"],
    );

    // What another was told is not heard: only its own and its group's comes. The last one says when to stop.
    taken(&anna, &["edgewarden/press-8/cmd/restart/2", "edgewarden/group/line-4/cmd/restart/2"]);
    taken(&anna, &["edgewarden/press-7/cmd/last/3"]);
    let mut heard = Vec::new();
    while heard.last().is_none_or(|topic: &String| !topic.ends_with("cmd/last/3")) {
        heard.push(press.hears("").0);
    }
    let own = |topic: &String| {
        [
            "edgewarden/press-7/cmd/",
            "edgewarden/group/line-3/cmd/",
            "edgewarden/press-7/model/a/desired",
            "edgewarden/group/line-3/model/a/desired",
            "homeassistant/status",
        ]
        .iter()
        .any(|start| topic.starts_with(start))
    };
    assert!(heard.iter().all(own), "{heard:?}");
    for wanted in ["edgewarden/press-7/cmd/restart/1", "edgewarden/group/line-3/cmd/restart/1"] {
        assert!(heard.iter().any(|topic| topic == wanted), "{wanted}: {heard:?}");
    }
}
