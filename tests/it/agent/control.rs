//! What is asked of a running agent from afar: a part of the configuration on trial, the log, the check, who it is, a
//! picture with boxes; and the audit log of it all.

use super::commands::{ALL, appoint, options, order};
use crate::support::device::{Device, PATIENCE, PIPELINE, Repository, release};
use crate::support::mosquitto::Mosquitto;
use crate::support::operators::Person;
use crate::support::wait_until;
use edgewarden::domain::{Reason, ReasonCode};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A device whose trials are short.
fn device(broker: &Mosquitto, repository: &Repository) -> Device {
    Device::serving(options(broker, repository).set("commands.set_trial", "8s"), &release(1))
}

fn set(device: &Device, values: Value) -> Result<Value, Reason> {
    device.command("set", json!({ "values": values }))
}

fn drop_in(device: &Device) -> Option<String> {
    std::fs::read_to_string(device.path("config.d/90-remote.toml")).ok()
}

/// Each start presents itself.
fn births(device: &Device) -> usize {
    device.heard.lock().unwrap().births.len()
}

fn entries(device: &Device) -> Vec<Value> {
    device.audit_log().expect("the audit log")
}

#[test]
fn a_setting_from_afar_counts_once_the_agent_is_well_with_it() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1"]);
    let device = device(&broker, &repository);
    let agent = device.pid();
    let values = json!({ "mqtt.results_per_second": 7, "pipeline.main.fps": 10, "log.level": "debug" });
    let answer = set(&device, values.clone()).unwrap();
    assert_eq!(answer, json!({ "changed": true, "values": values }));
    assert_eq!(device.pid(), agent, "in its place");
    let text = drop_in(&device).unwrap();
    assert!(text.contains("results_per_second = 7") && text.contains("fps = 10"), "{text}");
    // The same again changes nothing, and is no reason to start anew.
    let before = births(&device);
    assert_eq!(set(&device, json!({ "log.level": "debug" })).unwrap()["changed"], false);
    assert_eq!(births(&device), before);
    // Over a restart it stays, and what is taken back is gone.
    let answer = set(&device, json!({ "log.level": null, "pipeline.main.fps": null })).unwrap();
    assert_eq!(answer["values"], json!({ "mqtt.results_per_second": 7 }));
    assert!(!drop_in(&device).unwrap().contains("fps"));
    wait_until("nothing is left of the trial", PATIENCE, || {
        (!device.path("config.d/.90-remote.trial").exists()).then_some(())
    });
}

/// The agent starts anew for a setting: until its model is there it says so, and never that it runs without one.
#[test]
fn while_a_setting_comes_into_force_a_pipeline_that_runs_has_its_child() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1"]);
    let device = device(&broker, &repository);
    let before = births(&device);
    let values = json!({ "values": { "mqtt.results_per_second": 7 } });
    device.publish("cmd/set/1", values.to_string(), false);
    let (mut seen, mut started) = (BTreeSet::new(), false);
    let ended = || {
        let heard = device.heard.lock().unwrap();
        heard.acks.iter().any(|ack| ack.id.as_str() == "1" && ack.status.is_final())
    };
    // Some looks after the answer, too.
    let mut left = 50;
    while left > 0 {
        left -= u32::from(ended());
        let shown = device.cli(["status", "--json"]);
        started |= births(&device) > before;
        // No answer: it ends or begins.
        let Ok(shown) = serde_json::from_str::<Value>(&shown.stdout) else { continue };
        let pipeline = &shown["health"]["pipelines"][0];
        let state = pipeline["state"].as_str().unwrap().to_owned();
        let processes = shown["metrics"]["processes"].as_array().unwrap();
        let child = processes.iter().any(|process| process["role"] == format!("infer:{PIPELINE}"));
        assert!(child || state == "starting", "{state} without a child: {shown:#}");
        seen.insert((state, child));
    }
    assert!(started && seen.contains(&("running".to_owned(), true)), "{seen:?}");
}

#[test]
fn what_may_not_be_set_or_would_not_hold_is_refused_and_nothing_changes() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1"]);
    let device = device(&broker, &repository);
    let before = births(&device);
    for (values, says) in [
        (json!({ "mqtt.url": "mqtt://evil" }), "these may: health.interval"),
        (json!({ "repository.root": "/tmp/root.json" }), "these may"),
        (json!({ "commands.insecure": true }), "these may"),
        (json!({ "log.level": "edgewarden=loud", "health.interval": "5s" }), "log.level"),
        (json!({ "health.interval": "1ms" }), "out of range"),
        (json!({ "pipeline.other.fps": 3 }), "source"),
        (json!({}), "give 1 to"),
    ] {
        let reason = set(&device, values.clone()).unwrap_err();
        assert!(reason.code == ReasonCode::BadRequest && reason.detail.contains(says), "{values}: {reason}");
    }
    assert_eq!((drop_in(&device), births(&device)), (None, before));
}

/// A camera that does not work with one setting: its program ends as soon as that is in force.
#[test]
fn a_setting_with_which_a_pipeline_fails_is_put_back_by_itself() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1"]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.jpg"), crate::support::colour_model::jpeg([10, 200, 10])).unwrap();
    let script = "cd \"$0\"; if grep -qs fps drop-in; then echo too fast >&2; exit 1; fi; while :; do cat a.jpg; \
                  sleep 0.05; done";
    let options = options(&broker, &repository).set("commands.set_trial", "8s").script(script, folder.path());
    let device = Device::serving(options, &release(1));
    std::os::unix::fs::symlink(device.path("config.d/90-remote.toml"), folder.path().join("drop-in"))
        .unwrap();
    set(&device, json!({ "mqtt.results_per_second": 9 })).unwrap();
    let reason = set(&device, json!({ "pipeline.main.fps": 3 })).unwrap_err();
    assert!(reason.code == ReasonCode::NotWell && reason.detail.contains("pipeline main"), "{reason}");
    let text = drop_in(&device).unwrap();
    assert!(text.contains("results_per_second = 9") && !text.contains("fps"), "the former one: {text}");
    device.until_frames(3);
    let set: Vec<Value> = entries(&device).into_iter().filter(|entry| entry["command"] == "set").collect();
    let outcomes: Vec<&str> = set.iter().map(|entry| entry["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["admitted", "successful", "admitted", "failed"], "{set:#?}");
}

/// Killed again and again before there is a verdict.
#[test]
fn a_setting_with_which_the_agent_dies_is_put_back_and_its_sender_is_told() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1"]);
    let mut device = Device::serving(
        // No verdict comes before the end of the test.
        options(&broker, &repository).set("commands.set_trial", "1h"),
        &release(1),
    );
    let id = "set-1";
    device.publish(
        &format!("cmd/set/{id}"),
        json!({ "values": { "health.interval": "2s" } }).to_string(),
        false,
    );
    wait_until("it is on trial", PATIENCE, || drop_in(&device));
    for _ in 0..4 {
        device.until("it runs", |heard| heard.online().then_some(()));
        device.kill();
        device.until("the last will", |heard| (heard.availability.last()? == "offline").then_some(()));
        device.start();
    }
    let ended = device.until("the answer", |heard| {
        heard
            .acks
            .iter()
            .find(|ack| ack.id.as_str() == id && ack.status.is_final())
            .map(|ack| ack.status.clone())
    });
    let said = serde_json::to_value(ended).unwrap();
    assert_eq!((&said["status"], &said["reason"]["code"]), (&json!("failed"), &json!("not_well")), "{said}");
    assert_eq!(drop_in(&device), None, "there was none before");
    device.until_frames(3);
}

#[test]
fn the_log_the_check_and_the_device_itself_answer_from_afar_and_here() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1"]);
    let device = device(&broker, &repository);
    let lines = device.command("logs", json!({ "lines": 500 })).unwrap();
    let texts: Vec<&str> =
        lines["lines"].as_array().unwrap().iter().map(|line| line["text"].as_str().unwrap()).collect();
    assert!(texts.iter().any(|text| text.contains("agent") && text.contains("runs")), "{texts:?}");
    let two = device.command("logs", json!({ "lines": 2, "level": "info" })).unwrap();
    assert_eq!(two["lines"].as_array().unwrap().len(), 2);
    let shown = device.cli(["logs", "-n", "500"]);
    assert!(shown.code == Some(0) && shown.stdout.contains("info "), "{shown:?}");

    let who = device.command("identify", json!({ "blink_s": 0 })).unwrap();
    assert_eq!(who["device"], device.id().as_str());
    assert_eq!((&who["groups"], &who["address"]), (&json!(["line"]), &json!("127.0.0.1")));
    assert_eq!(who["light"]["blinks"], false);
    let shown = device.cli(["identify", "--blink", "0"]);
    assert!(shown.code == Some(0) && shown.stdout.contains(device.id().as_str()), "{shown:?}");

    let found = device.command("diagnose", json!({})).unwrap();
    let subjects: Vec<&str> =
        found["findings"].as_array().unwrap().iter().map(|one| one["subject"].as_str().unwrap()).collect();
    assert!(subjects.contains(&"broker") && subjects.contains(&"configuration"), "{found:#}");

    // With boxes: those of the newest result, of which the answer tells how many.
    let plain = device.command("snapshot", json!({ "max_edge": 320 })).unwrap();
    assert_eq!(plain["boxes"], Value::Null);
    let drawn = wait_until("a frame with something in it", PATIENCE, || {
        let told = device.command("snapshot", json!({ "max_edge": 320, "boxes": true })).unwrap();
        (told["boxes"].as_u64()? > 0).then_some(told)
    });
    assert_eq!(drawn["pipeline"], PIPELINE);
    let pictures =
        device.until("three pictures", |heard| (heard.snapshots.len() >= 2).then(|| heard.snapshots.clone()));
    assert!(pictures.iter().all(|jpeg| jpeg.starts_with(&[0xff, 0xd8])));
}

#[test]
fn the_audit_log_tells_who_did_what_and_finds_what_was_changed() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v1"]);
    let mut device = device(&broker, &repository);
    let anna = Person::new("anna", 1);
    appoint(&device, &mut repository, &[anna.entry(&ALL)]);
    order(&device, &anna, 1, json!({ "command": "pause", "pipeline": "main" })).unwrap();
    order(&device, &anna, 2, json!({ "command": "resume" })).unwrap();
    order(&device, &anna, 2, json!({ "command": "pause" })).unwrap_err();
    assert_eq!(device.cli(["pause", PIPELINE]).code, Some(0));
    assert_eq!(device.cli(["resume", PIPELINE]).code, Some(0));
    let uid = rustix::process::getuid().as_raw();
    let told = wait_until("all lines", PATIENCE, || {
        let entries = entries(&device);
        let last = entries.last()?;
        (last["who"]["local"]["uid"] == uid && last["outcome"] == "successful" && last["command"] == "resume")
            .then_some(entries)
    });
    let of = |id: &str| -> Vec<&Value> { told.iter().filter(|entry| entry["id"] == id).collect() };
    let paused = of("anna-1");
    assert_eq!(paused.len(), 2, "{paused:#?}");
    assert_eq!(paused[0]["who"]["operator"]["name"], "anna");
    assert_eq!(paused[0]["who"]["operator"]["key"], anna.key.id());
    assert_eq!((&paused[0]["to"], &paused[0]["outcome"]), (&json!(device.id()), &json!("admitted")));
    assert_eq!(paused[0]["arguments"], json!({ "pipeline": "main" }));
    assert_eq!(paused[1]["outcome"], "successful");
    assert!(of("anna-2").iter().any(|entry| entry["refusal"] == "replayed"), "{told:#?}");
    // Asked for over MQTT it is the same.
    let shipped = device.command("audit", json!({ "lines": 200 })).unwrap();
    assert_eq!(shipped["verified"], true);
    assert_eq!(&shipped["entries"].as_array().unwrap()[..told.len()], told);
    assert_eq!(device.cli(["audit", "--verify"]).code, Some(0));
    let shown = device.cli(["audit"]);
    assert!(shown.stdout.contains("anna (") && shown.stdout.contains("replayed: "), "{shown:?}");

    // Without an agent the files are read. A line that was changed is found with its number.
    assert!(device.stop().success());
    assert_eq!(device.cli(["audit", "--verify"]).code, Some(0));
    let file = std::fs::read_dir(device.path("state/audit")).unwrap().flatten().next().unwrap().path();
    let text = std::fs::read_to_string(&file).unwrap();
    let at = text.lines().position(|line| line.contains("anna-1")).unwrap();
    let lines: Vec<String> = text
        .lines()
        .enumerate()
        .map(|(n, line)| if n == at { line.replace("\"anna\"", "\"ben\"") } else { line.to_owned() })
        .collect();
    std::fs::write(&file, lines.join("\n") + "\n").unwrap();
    let ended = device.cli(["audit", "--verify"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains(&format!("line {} ", at + 1)), "{ended:?}");
}
