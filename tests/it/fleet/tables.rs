//! Tables, live and not, and all of one device.

use super::{Somebody, command, fleet, json_lines, row_of, rows, until_online};
use crate::support::device::{Device, Options, PATIENCE, Repository, release};
use crate::support::mosquitto::Mosquitto;
use crate::support::wait_until;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

fn interrupt(child: &Child) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
}

#[test]
fn a_table_shows_who_is_there_what_they_run_and_who_has_gone() {
    let broker = Mosquitto::start();
    let url = broker.url();
    let repository = Repository::with(&["v1"]);
    let serving = Device::serving(Options::new(&broker, &repository), &release(1));
    let mut empty = Device::new(Options::default().broker(&broker));
    empty.start();
    until_online(&empty);
    let (a, b) = (serving.id().as_str().to_owned(), empty.id().as_str().to_owned());

    rows(&url, "both, one of them with its model and frames", |rows| {
        let (serving, empty) = (row_of(rows, &a)?, row_of(rows, &b)?);
        assert_eq!(rows.len(), 2, "{rows:?}");
        (serving["models"][0]["release"] == "belt-inspector@1.0.0"
            && serving["frames_per_second"].as_f64()? > 0.0
            && serving["presence"] == "online"
            && empty["presence"] == "online"
            && empty["problem"]["code"] == "no_model"
            && empty["groups"] == serde_json::json!(["line"]))
        .then_some(())
    });
    let table = fleet(&url, &["list"]);
    assert!(
        table.stdout.starts_with(" DEVICE") && table.stdout.contains("belt-inspector@1.0.0"),
        "{table:?}"
    );
    assert!(table.stderr.contains("2 devices: 2 online"), "{table:?}");
    assert_eq!(fleet(&url, &["list", "--group", "elsewhere"]).stdout, "");
    assert_eq!(fleet(&url, &["list", "--offline", "--json"]).stdout, "");
    let worst_first = json_lines(&fleet(&url, &["list", "--sort", "problem", "--json"]).stdout);
    assert_eq!(worst_first.len(), 2);
    let of_the_group = json_lines(&fleet(&url, &["list", "--group", "line", "--problem", "--json"]).stdout);
    assert!(row_of(&of_the_group, &b).is_some(), "{of_the_group:?}");

    let shown = fleet(&url, &["show", &a]);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    for words in [&a, "online", "groups: line", "detector: belt-inspector@1.0.0", "running"] {
        assert!(shown.stdout.contains(words), "{words}: {}", shown.stdout);
    }
    let told = json_lines(&fleet(&url, &["show", &a, "--json"]).stdout).remove(0);
    assert_eq!(told["documents"]["birth"]["device"], a.as_str());
    assert_eq!(told["documents"]["model"]["detector"]["current"]["release"], "belt-inspector@1.0.0");

    empty.kill();
    rows(&url, "the one that was killed is offline", |rows| {
        (row_of(rows, &b)?["presence"] == "offline" && row_of(rows, &a)?["presence"] == "online")
            .then_some(())
    });
    let check = fleet(&url, &["list", "--offline", "--check", "--json"]);
    assert_eq!((check.code, json_lines(&check.stdout).len()), (Some(1), 1), "{check:?}");
}

#[test]
fn a_device_that_nobody_knows_and_a_broker_that_is_not_there_are_told_in_a_line() {
    let broker = Mosquitto::start();
    for arguments in [&["show", "nobody"][..], &["send", "nobody", "pause"], &["logs", "nobody"]] {
        let ended = fleet(&broker.url(), arguments);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("nobody: the broker knows of no such device"), "{ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    }
    let ended = fleet(&broker.url(), &["send", "group:none", "pause"]);
    assert!(ended.code == Some(1) && ended.stderr.contains("no device of it is online"), "{ended:?}");
    // Nothing there is not well either.
    assert_eq!(fleet(&broker.url(), &["list", "--check"]).code, Some(1));

    let port = crate::support::mosquitto::free_port();
    let ended = fleet(&format!("mqtt://127.0.0.1:{port}"), &["list", "--json"]);
    let told: Value = serde_json::from_str(&ended.stderr).unwrap();
    assert_eq!((ended.code, &told["code"]), (Some(1), &Value::from("broker_unreachable")), "{told}");
    for wrong in [
        &["send", "a b", "pause"][..],
        &["send", "pi", "pa/use"],
        &["send", "pi", "update", "detector"],
        &["send", "pi", "pause", "--now"],
        &["send", "pi", "dance", "--args", "[1]"],
        &["send", "pi", "pause", "--signer", "true"],
        &["snapshot", "pi"],
        &["list", "--stale", "soon"],
        &["list", "--ca", "/x"],
    ] {
        let ended = fleet(&broker.url(), wrong);
        assert!(ended.code == Some(64) && !ended.stderr.is_empty(), "{wrong:?}: {ended:?}");
    }
}

#[test]
fn what_the_broker_keeps_of_many_devices_is_read_whole() {
    let broker = Mosquitto::start();
    let somebody = Somebody::at(&broker);
    let count = 700;
    for n in 0..count {
        somebody.plays(&format!("d{n:03}"), "many");
    }
    // Three kinds of message of each: more than mosquitto keeps for one reader at once.
    let told = fleet(&broker.url(), &["list", "--json", "--check"]);
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    let rows = json_lines(&told.stdout);
    assert_eq!(rows.len(), count);
    for row in &rows {
        assert_eq!(
            (&row["presence"], &row["state"], &row["agent_version"]),
            (&"online".into(), &"ok".into(), &"9.9.9".into())
        );
    }
}

#[test]
fn watch_tells_each_change_as_a_line_of_json_until_it_is_interrupted() {
    let broker = Mosquitto::start();
    let somebody = Somebody::at(&broker);
    somebody.plays("press-7", "line");
    let mut child =
        command(&broker.url(), &["watch", "--group", "line"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut until = |what: &str, is: &dyn Fn(&Value) -> bool| loop {
        let line = lines.next().unwrap_or_else(|| panic!("ended before: {what}")).unwrap();
        if is(&serde_json::from_str(&line).unwrap()) {
            break;
        }
    };
    until("what is there", &|row| row["device"] == "press-7" && row["presence"] == "online");
    somebody.plays("press-8", "line");
    until("one more", &|row| {
        row["device"] == "press-8" && row["presence"] == "online" && row["state"] == "ok"
    });
    somebody.says("edgewarden/press-7/availability", "offline", true).unwrap();
    until("one less online", &|row| row["device"] == "press-7" && row["presence"] == "offline");
    for below in ["availability", "birth", "health"] {
        somebody.says(&format!("edgewarden/press-8/{below}"), "", true).unwrap();
    }
    until("it is gone", &|row| row["device"] == "press-8" && row["gone"] == true);
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn watch_draws_on_a_terminal_and_puts_it_back() {
    let broker = Mosquitto::start();
    let somebody = Somebody::at(&broker);
    somebody.plays("press-7", "line");
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let theirs = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
    let theirs = File::options().read(true).write(true).open(theirs).unwrap();
    let mut child = command(&broker.url(), &["watch"])
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .stdout(theirs.try_clone().unwrap())
        .stderr(theirs)
        .spawn()
        .unwrap();
    let screen = Arc::new(Mutex::new(String::new()));
    let (mut output, seen) = (File::from(ours), screen.clone());
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = output.read(&mut buffer) {
            seen.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    });
    let sees =
        |words: &str| wait_until(words, PATIENCE, || screen.lock().unwrap().contains(words).then_some(()));
    sees("press-7");
    somebody.says("edgewarden/press-7/availability", "offline", true).unwrap();
    sees("\u{1b}[1m\u{1b}[31moffline");
    sees("\u{1b}[H");
    interrupt(&child);
    sees("\u{1b}[?25h\u{1b}[?1049l");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
