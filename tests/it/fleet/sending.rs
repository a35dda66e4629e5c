//! Commands to a device and to a group, with and without a signature; pictures.

use super::{Somebody, command, fleet, json_lines, until_online};
use crate::support::device::{Device, Options, Repository, SLOT, release};
use crate::support::mosquitto::Mosquitto;
use crate::support::operators::{Person, list};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

#[test]
fn a_group_answers_each_for_itself_and_one_that_fails_is_told() {
    let broker = Mosquitto::start();
    let url = broker.url();
    let mut first = Device::new(Options::default().broker(&broker));
    let mut second = Device::new(Options::default().broker(&broker).set("pipeline.name", "other"));
    for device in [&mut first, &mut second] {
        device.start();
        until_online(device);
    }
    let ended = fleet(&url, &["send", "group:line", "pause", "main"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let line = |device: &Device| {
        let found = ended.stdout.lines().find(|line| line.starts_with(device.id().as_str()));
        found.unwrap_or_else(|| panic!("{ended:?}")).to_owned()
    };
    assert!(line(&first).contains("done pause") && line(&first).contains("paused true"), "{ended:?}");
    assert!(line(&second).contains("failed:") && line(&second).contains("main"), "{ended:?}");
    assert!(ended.stderr.contains("1 of 2 done, 1 failed, 0 without an end"), "{ended:?}");

    let told = fleet(&url, &["send", "group:line", "status", "--json"]);
    assert_eq!(told.code, Some(0), "{told:?}");
    let lines = json_lines(&told.stdout);
    for device in [&first, &second] {
        let last = lines.iter().rfind(|line| line["device"] == device.id().as_str()).unwrap();
        assert_eq!((&last["status"], &last["command"]), (&json!("successful"), &json!("status")));
        assert_eq!(last["result"]["health"]["device"], device.id().as_str());
    }
    // For people, as on the device itself.
    let shown = fleet(&url, &["send", first.id().as_str(), "status"]);
    assert!(shown.stdout.contains("paused by hand"), "{shown:?}");
    let done = fleet(&url, &["send", first.id().as_str(), "resume"]);
    assert!(done.code == Some(0) && done.stdout.contains("done resume"), "{done:?}");

    // One that has gone is not waited for, and is named.
    second.stop();
    second.until("it is offline", |heard| (!heard.online()).then_some(()));
    let ended = fleet(&url, &["send", "group:line", "resume", "main"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains(second.id().as_str()), "{ended:?}");
    let ended = fleet(&url, &["send", second.id().as_str(), "resume"]);
    assert!(ended.code == Some(1) && ended.stderr.contains("is offline"), "{ended:?}");
}

#[test]
fn what_is_signed_is_done_and_what_is_not_is_refused() {
    let broker = Mosquitto::start();
    let url = broker.url();
    let mut repository = Repository::with(&["v1", "v2"]);
    let options = Options::new(&broker, &repository).set("commands.refresh", "1s");
    let device = Device::serving(options, &release(1));
    let id = device.id().as_str();
    let (anna, watcher) = (Person::new("anna", 1), Person::new("watcher", 2));
    let entries = [anna.entry(&["observe", "operate", "deploy"]), watcher.entry(&["observe"])];
    repository.publisher.set_operators(&list(&entries), jiff::Timestamp::now()).unwrap();
    device.until("signatures are required", |heard| (!heard.births.last()?.commands_unsigned).then_some(()));

    let file = |name: &str| device.path(name).to_str().unwrap().to_owned();
    let (key, other, public) = (file("anna.pem"), file("watcher.pem"), file("anna.pub"));
    anna.key.save(&device.path("anna.pem")).unwrap();
    watcher.key.save(&device.path("watcher.pem")).unwrap();
    std::fs::write(&public, anna.key.public_hex()).unwrap();

    let unsigned = fleet(&url, &["send", id, "pause"]);
    assert_eq!(unsigned.code, Some(2), "refused for trust: {unsigned:?}");
    assert!(unsigned.stdout.contains("(unsigned)"), "{unsigned:?}");
    let not_allowed = fleet(&url, &["send", id, "pause", "--key", &other]);
    assert!(not_allowed.code == Some(2) && not_allowed.stdout.contains("(not_allowed)"), "{not_allowed:?}");
    let paused = fleet(&url, &["send", id, "pause", "--key", &key]);
    assert!(paused.code == Some(0) && paused.stdout.contains("paused true"), "{paused:?}");
    // By a program, and one command after the other: the number has risen.
    let signer = format!("openssl pkeyutl -sign -inkey {key} -rawin -in /dev/stdin");
    let resumed =
        fleet(&url, &["send", "group:line", "resume", "--signer", &signer, "--signer-key", &public]);
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    // By the key that stands in the operator's own file.
    std::fs::write(device.path("fleet.toml"), format!("broker = \"{url}\"\nkey = \"anna.pem\"\n")).unwrap();
    let update = crate::support::Edgewarden::run([
        "fleet",
        "send",
        id,
        "update",
        SLOT,
        &release(2),
        "--config",
        &file("fleet.toml"),
        "--json",
    ]);
    assert_eq!(update.code, Some(0), "{update:?}");
    let lines = json_lines(&update.stdout);
    assert!(lines.iter().any(|line| line["status"] == "executing"), "{lines:?}");
    assert_eq!(lines.last().unwrap()["result"]["release"], json!(release(2)));
}

#[test]
fn a_picture_is_saved_whole() {
    let broker = Mosquitto::start();
    let url = broker.url();
    let repository = Repository::with(&["v1"]);
    let device = Device::serving(Options::new(&broker, &repository), &release(1));
    let id = device.id().as_str();
    let path = device.path("picture.jpg");
    // What somebody else says at the same place is not taken for it.
    device.publish("snapshot/main", "no picture", true);
    let ended = fleet(&url, &["snapshot", id, "-o", path.to_str().unwrap(), "--max-edge", "160"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let jpeg = std::fs::read(&path).unwrap();
    assert!(jpeg.starts_with(&[0xff, 0xd8]) && jpeg.ends_with(&[0xff, 0xd9]));
    let output = command(&url, &["snapshot", id, "--pipeline", "main", "-o", "-"]).output().unwrap();
    assert!(output.status.success() && output.stdout.starts_with(&[0xff, 0xd8]), "{:?}", output.stderr);
    assert!(output.stdout.len() > jpeg.len(), "as large as the camera's, as nothing smaller was asked for");
    let ended = fleet(&url, &["snapshot", id, "--pipeline", "none", "-o", path.to_str().unwrap()]);
    assert!(ended.code == Some(1) && ended.stderr.contains("none"), "{ended:?}");
    assert_eq!(std::fs::read(&path).unwrap(), jpeg, "what was there stays");
}

#[test]
fn log_lines_are_printed_as_they_are_and_no_answer_is_no_success() {
    let broker = Mosquitto::start();
    let url = broker.url();
    let device = Somebody::as_user(&broker, "", &["edgewarden/press-7/cmd/+/+"]);
    device.plays("press-7", "line");
    let answer = |status: Value| {
        let (topic, payload) = device.hears("");
        let (command, id) = topic.strip_prefix("edgewarden/press-7/cmd/").unwrap().split_once('/').unwrap();
        let mut reply = json!({ "schema": 1, "message_id": uuid(), "message_seq": 1,
            "sent_at": jiff::Timestamp::now(), "device": "press-8", "command": command, "id": id });
        reply.as_object_mut().unwrap().extend(status.as_object().unwrap().clone());
        device.says(&format!("edgewarden/press-7/ack/{command}/{id}"), reply.to_string(), false).unwrap();
        serde_json::from_slice::<Value>(&payload).unwrap()
    };
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| fleet(&url, &["logs", "press-7", "-n", "3"]));
        let lines = json!({ "lines": ["one", "two \u{1b}[2J\u{9b}31m", 3] });
        let payload = answer(json!({ "status": "successful", "result": lines }));
        assert_eq!(payload, json!({ "lines": 3 }));
        let ended = asked.join().unwrap();
        assert_eq!(ended.stdout, "one\ntwo \\u{1b}[2J\\u{9b}31m\n3\n", "{ended:?}");

        // Who has answered is told by the topic; the payload says press-8.
        let asked =
            scope.spawn(|| fleet(&url, &["send", "press-7", "dance", "--args", r#"{"steps":2}"#, "--json"]));
        assert_eq!(answer(json!({ "status": "failed" })), json!({ "steps": 2 }));
        let ended = asked.join().unwrap();
        let lines = json_lines(&ended.stdout);
        assert_eq!((ended.code, &lines[0]["device"]), (Some(1), &json!("press-7")), "{ended:?}");

        let ended = fleet(&url, &["send", "press-7", "dance", "--timeout", "1s", "--json"]);
        let lines = json_lines(&ended.stdout);
        assert_eq!((ended.code, &lines[0]["status"]), (Some(1), &json!("no_answer")), "{ended:?}");
    });
}

fn uuid() -> String {
    "01890000-0000-7000-8000-000000000000".to_owned()
}

#[test]
fn an_interrupted_command_stays_with_the_device() {
    let broker = Mosquitto::start();
    let device = Somebody::as_user(&broker, "", &["edgewarden/press-7/cmd/+/+"]);
    device.plays("press-7", "line");
    let mut child = command(&broker.url(), &["send", "press-7", "dance"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (topic, _) = device.hears("");
    let id = topic.rsplit_once('/').unwrap().1.to_owned();
    let says = json!({ "schema": 1, "message_id": uuid(), "message_seq": 1, "sent_at": jiff::Timestamp::now(),
        "device": "press-7", "command": "dance", "id": id, "status": "executing", "detail": "turning", "fraction": 0.5 });
    device.says(&format!("edgewarden/press-7/ack/dance/{id}"), says.to_string(), false).unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "press-7: turning");
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert!(rest.iter().any(|line| line.contains("goes on there")), "{rest:?}");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
