//! The broker away and back, one that refuses, and every command over MQTT.

use crate::support::device::{Device, Options, PATIENCE, PIPELINE, Repository, SLOT, release};
use crate::support::mosquitto::{Mosquitto, Setup};
use crate::support::wait_until;
use crate::support::web::Trouble;
use edgewarden::domain::deployment::Stage;
use edgewarden::domain::health::{HealthState, PipelineState, ProblemCode};
use edgewarden::domain::status::DeviceStatus;
use edgewarden::domain::{Reason, ReasonCode};
use edgewarden::mqtt::payloads::ReplyStatus;
use serde_json::json;

#[test]
fn what_happens_while_the_broker_is_away_arrives_when_it_is_back() {
    let mut broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2"]);
    let mut device = Device::serving(Options::new(&broker, &repository), &release(1));
    broker.stop();
    let told = wait_until("the broken link is told", PATIENCE, || {
        let health = device.status().health;
        health.problems.into_iter().find(|problem| problem.code == ProblemCode::BrokerUnreachable)
    });
    assert!(told.detail.contains(&format!("127.0.0.1:{}", broker.port)), "{}", told.detail);
    // Frames are answered and commands from this machine obeyed all the same.
    let before = device.status().metrics.pipelines[0].frames.answered;
    let updated = device.cli(["update", SLOT, &release(2)]);
    assert_eq!(updated.code, Some(0), "{updated:?}");
    assert!(device.status().metrics.pipelines[0].frames.answered > before);
    device.forget();
    broker.restart();
    device.until("back online", |heard| heard.online().then_some(()));
    device.until("the end of the update", |heard| {
        (heard.stage() == Some(Stage::Committed) && heard.current() == Some(release(2))).then_some(())
    });
    device.until_frames(3);
    assert_eq!(device.status().metrics.mqtt.spool_dropped, 0);
    device.forget();
    assert!(device.stop().success());
    device.until("a goodbye", |heard| (heard.availability.last()? == "offline").then_some(()));
}

#[test]
fn a_broker_that_refuses_is_told_and_the_device_works_on() {
    let broker = Mosquitto::with(&Setup { login: Some(("pi", "right")), ..Setup::default() });
    let repository = Repository::with(&["v1"]);
    let options = Options::default().repository(&repository).set("mqtt.url", broker.url());
    let mut device = Device::new(options.set("mqtt.username", "pi").set("mqtt.password_file", "password"));
    std::fs::write(device.path("password"), "hunter2").unwrap();
    device.start();
    let told = wait_until("the refusal is told", PATIENCE, || {
        let health = device.status().health;
        health.problems.into_iter().find(|problem| problem.code == ProblemCode::BrokerUnreachable)
    });
    assert!(told.detail.contains("password") && !told.detail.contains("hunter2"), "{}", told.detail);
    assert_eq!(device.cli(["update", SLOT, &release(1)]).code, Some(0));
    let running = wait_until("frames are answered", PATIENCE, || {
        let status = device.status();
        (status.health.pipelines[0].state == PipelineState::Running).then_some(status)
    });
    let link = &running.health.mqtt;
    assert!(!link.reached && running.health.state == HealthState::Degraded);
    assert_eq!(link.last_error.as_ref().map(|reason| reason.code), Some(ReasonCode::BrokerRefused));
    // The file is read at the start.
    assert!(device.stop().success());
    std::fs::write(device.path("password"), "right\n").unwrap();
    device.start();
    wait_until("the link", PATIENCE, || device.status().health.mqtt.reached.then_some(()));
}

#[test]
fn every_command_over_mqtt_does_what_it_says() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2"]);
    let mut device = Device::serving(Options::new(&broker, &repository), &release(1));

    let status: DeviceStatus = serde_json::from_value(device.command("status", json!({})).unwrap()).unwrap();
    assert_eq!(status.slots[0].current.as_ref().unwrap().release.to_string(), release(1));

    let updated = device.update(&release(2)).unwrap();
    assert_eq!((&updated["changed"], &updated["release"]), (&json!(true), &json!(release(2))));
    assert_eq!(device.update(&release(2)).unwrap()["changed"], false, "it serves already");

    let snapshot = device.command("snapshot", json!({ "max_edge": 160 })).unwrap();
    let picture = device.until("the picture", |heard| heard.snapshots.first().cloned());
    assert_eq!((&snapshot["pipeline"], &snapshot["bytes"]), (&json!(PIPELINE), &json!(picture.len())));
    let head = turbojpeg::read_header(&picture).expect("a JPEG");
    assert_eq!((head.width, head.height), (160, 120));
    turbojpeg::decompress(&picture, turbojpeg::PixelFormat::RGB).expect("decodable");

    device.command("rollback", json!({ "slot": SLOT })).unwrap();
    device.until("what served before", |heard| (heard.current()? == release(1)).then_some(()));

    repository.web.trouble("timestamp.json", Trouble::Stall(0));
    let hanging = device.send("update", json!({ "slot": SLOT, "release": release(2) }));
    device.until("the stalled update", |heard| (heard.stage()? == Stage::Resolving).then_some(()));
    device.command("abort", json!({ "slot": SLOT })).unwrap();
    assert_eq!(hanging.finish().unwrap_err().code, ReasonCode::Aborted);
    repository.web.well();

    let (pid, births) = (device.pid(), device.heard.lock().unwrap().births.len());
    device.command("restart", json!({})).unwrap();
    device.until("a new birth", |heard| (heard.births.len() > births && heard.online()).then_some(()));
    device.until_frames(3);
    assert_eq!(device.pid(), pid);
    assert_eq!(device.until("a state", |heard| heard.current()), release(1));
    assert!(device.stop().success());
}

#[test]
fn commands_that_make_no_sense_are_refused_with_the_reason() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1"]);
    let device = Device::serving(Options::new(&broker, &repository), &release(1));
    let refused = |name: &str, arguments: serde_json::Value, code: ReasonCode, words: &str| {
        let reason = device.command(name, arguments).unwrap_err();
        assert!(reason.code == code && reason.detail.contains(words), "{name}: {reason}");
    };
    let slot = |slot: &str| json!({ "slot": slot });
    refused("update", json!({ "slot": "none", "release": release(1) }), ReasonCode::BadRequest, SLOT);
    refused("update", json!({ "slot": SLOT, "release": release(9) }), ReasonCode::NotFound, "1.0.0");
    refused("update", json!({ "slot": SLOT, "release": "newest" }), ReasonCode::BadRequest, "release");
    refused(
        "update",
        json!({ "slot": SLOT, "release": release(1), "force": true }),
        ReasonCode::BadRequest,
        "force",
    );
    refused("rollback", slot(SLOT), ReasonCode::NotFound, "no previous");
    refused("rollback", slot("none"), ReasonCode::BadRequest, SLOT);
    refused("abort", slot(SLOT), ReasonCode::BadRequest, "nothing is under way");
    refused("abort", slot("none"), ReasonCode::BadRequest, SLOT);
    refused("snapshot", json!({ "pipeline": "none" }), ReasonCode::BadRequest, PIPELINE);
    refused("snapshot", json!({ "max_edge": 100_000 }), ReasonCode::BadRequest, "max_edge");
    refused("reboot", json!({}), ReasonCode::BadRequest, "update");

    let acked = |id: &str| -> Reason {
        let reply = device.until(id, |heard| {
            heard.acks.iter().find(|ack| ack.id.as_str() == id && ack.status.is_final()).cloned()
        });
        match reply.status {
            ReplyStatus::Failed { reason } => reason,
            other => panic!("{id}: {other:?}"),
        }
    };
    device.publish("cmd/restart/broken", "{\"slot\":", false);
    device.publish("cmd/restart/large", vec![b' '; 20_000], false);
    for (id, words) in [("broken", "payload"), ("large", "20000 bytes")] {
        let reason = acked(id);
        assert!(reason.code == ReasonCode::BadRequest && reason.detail.contains(words), "{reason}");
    }
    // Retained, and so as old as can be: the device gets it when it subscribes again.
    let births = device.heard.lock().unwrap().births.len();
    device.publish("cmd/rollback/kept", format!("{{\"slot\":\"{SLOT}\"}}"), true);
    device.command("restart", json!({})).unwrap();
    device.until("a new birth", |heard| (heard.births.len() > births).then_some(()));
    let reason = wait_until("the refusal of what was kept", PATIENCE, || {
        let heard = device.heard.lock().unwrap();
        heard.acks.iter().find_map(|ack| match &ack.status {
            ReplyStatus::Failed { reason }
                if ack.id.as_str() == "kept" && reason.detail.contains("retained") =>
            {
                Some(reason.clone())
            }
            _ => None,
        })
    });
    assert_eq!(reason.code, ReasonCode::BadRequest);
    assert_eq!(device.until("a state", |heard| heard.current()), release(1), "the first bundle serves on");
}
