//! Shadow runs on the whole daemon: the comparison is told, decides, can be ended, and survives the
//! loss of either child.

use crate::support::device::{Device, Options, PATIENCE, Repository, SLOT, release, signal};
use crate::support::mosquitto::Mosquitto;
use crate::support::wait_until;
use edgewarden::domain::ReasonCode;
use edgewarden::domain::deployment::Stage;
use edgewarden::domain::shadow::Report;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn update(number: u32, shadow: Value) -> Value {
    json!({ "slot": SLOT, "release": release(number), "shadow": shadow })
}

/// What the shadow run has found so far.
fn told(device: &Device) -> Option<Report> {
    device.status().slots.remove(0).deployment?.shadow
}

/// The nice values of a process's threads.
fn nices(pid: u32) -> BTreeSet<i32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let nice = |thread: std::io::Result<std::fs::DirEntry>| nice_of(&thread.unwrap().path());
    threads.map(nice).collect()
}

/// Of a process (its main thread) or of a thread, by its folder in `/proc`.
fn nice_of(folder: &std::path::Path) -> i32 {
    let text = std::fs::read_to_string(folder.join("stat")).unwrap();
    // The name in brackets may hold spaces; nice is the 19th field, the 17th after it.
    text.rsplit_once(") ").unwrap().1.split(' ').nth(16).unwrap().parse().unwrap()
}

/// Whether this user may raise a priority again; a candidate is not lowered otherwise.
fn may_raise() -> bool {
    let mut child = std::process::Command::new("nice").args(["-n", "5", "sleep", "60"]).spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let may = rustix::process::setpriority_process(Some(pid), 0).is_ok();
    child.kill().unwrap();
    child.wait().unwrap();
    may
}

/// The database wakes all of its threads for each thing that is remembered, several of them in a swap.
#[test]
fn what_remembers_an_update_leaves_the_frames_their_turn() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1"]);
    let device = Device::serving(Options::new(&broker, &repository), &release(1));
    let process = std::path::PathBuf::from(format!("/proc/{}", device.pid()));
    let own = nice_of(&process);
    let mut lower = BTreeSet::new();
    for thread in std::fs::read_dir(process.join("task")).unwrap().flatten() {
        // One that has ended meanwhile has no name.
        let Ok(name) = std::fs::read_to_string(thread.path().join("comm")) else { continue };
        for kind in
            ["sled-io", "background", "tokio-rt-worker"].into_iter().filter(|kind| name.starts_with(kind))
        {
            lower.insert((kind, nice_of(&thread.path()) > own));
        }
    }
    let expected = [("background", true), ("sled-io", true), ("tokio-rt-worker", false)];
    assert_eq!(lower, BTreeSet::from(expected));
}

#[test]
fn a_candidate_runs_at_low_priority_until_it_takes_over() {
    if !may_raise() {
        println!(
            "skipped a_candidate_runs_at_low_priority_until_it_takes_over: this user may not raise a priority"
        );
        return;
    }
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2"]);
    let device = Device::serving(Options::new(&broker, &repository), &release(1));
    // Its main thread; those for work without hurry are lower.
    let own = BTreeSet::from([nice_of(format!("/proc/{}", device.pid()).as_ref())]);
    let sent =
        device.send("update", update(2, json!({ "frames": 60, "min_agreement": 0, "max_slowdown": 100 })));
    let candidate = device.child("candidate");
    assert_eq!(nices(candidate), BTreeSet::from([19]), "from its first moment on");
    assert_eq!(nices(device.child("infer")), own, "the one that serves keeps its own");
    sent.finish().unwrap();
    assert_eq!(device.child("infer"), candidate, "the same process serves");
    assert_eq!(nices(candidate), own);
}

#[test]
fn a_candidate_is_compared_on_live_frames_before_it_counts() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2"]);
    let device = Device::serving(Options::new(&broker, &repository), &release(1));

    let done = device.command("update", update(2, json!({ "frames": 25, "min_agreement": 0 }))).unwrap();
    let report: Report = serde_json::from_value(done["shadow"].clone()).unwrap();
    println!("{report:?}");
    assert!(report.frames >= 25 && report.needed == 25 && report.errors == 0, "{report:?}");
    assert!(report.boxes.is_some_and(|[all, same]| all > 0 && same <= all), "the belt is not empty");
    for cost in [report.current, report.candidate] {
        assert!(cost.p50_ms > 0.0 && cost.p95_ms >= cost.p50_ms, "{cost:?}");
        assert!(cost.memory_bytes.is_some_and(|bytes| bytes > 1 << 20), "{cost:?}");
    }
    let (stages, running): (Vec<Stage>, Vec<u64>) = {
        let heard = device.heard.lock().unwrap();
        let deployments = heard.states.iter().filter_map(|state| state.deployment.as_ref());
        let deployments = deployments.filter(|one| one.release.to_string() == release(2));
        let shadow = |one: &&edgewarden::domain::deployment::DeploymentState| one.stage == Stage::Shadowing;
        let seen: BTreeSet<u64> = heard.frames.iter().map(|frame| frame.seq).collect();
        assert_eq!(seen.len(), heard.frames.len(), "no frame was answered twice on MQTT");
        let deployments: Vec<_> = deployments.collect();
        (
            deployments.iter().map(|one| one.stage).collect(),
            deployments
                .iter()
                .copied()
                .filter(shadow)
                .filter_map(|one| Some(one.shadow.as_ref()?.frames))
                .collect(),
        )
    };
    assert!(running.len() > 1 && running.is_sorted(), "it is told as it goes: {running:?}");
    let place = |stage| stages.iter().position(|one| *one == stage);
    assert!(
        place(Stage::OnTrial) < place(Stage::Shadowing) && place(Stage::Shadowing) < place(Stage::Swapping)
    );

    // The outcome stays to be read, by people too.
    let slot = device.status().slots.remove(0);
    assert_eq!(slot.deployment.unwrap().shadow.unwrap(), report);
    let text = device.cli(["status"]).stdout;
    assert!(text.contains("shadow: ") && text.contains("agreement"), "{text}");

    // Limits of the deployment refuse it, each with its own code, and what serves goes on.
    for (shadow, code) in [
        (json!({ "frames": 25, "min_agreement": 1.0 }), ReasonCode::Disagrees),
        (json!({ "frames": 1000, "max_memory": 1 << 20 }), ReasonCode::TooMuchMemory),
        (json!({ "frames": 100_000, "max_seconds": 2 }), ReasonCode::TooSlow),
        (json!({ "frames": 5, "min_agreement": 7 }), ReasonCode::BadRequest),
    ] {
        let reason = device.command("update", update(1, shadow)).unwrap_err();
        println!("{reason}");
        assert_eq!(reason.code, code, "{reason}");
        assert_eq!(device.until("a state", |heard| heard.current()), release(2));
    }
    let refused = device.status().slots.remove(0).deployment.unwrap();
    assert_eq!(refused.stage, Stage::Refused);
    assert!(refused.shadow.is_some(), "a refusal tells what was found");
    device.until_frames(3);

    // Over the command line as well.
    let ended = device.cli(["update", SLOT, &release(1), "--shadow", "10", "--min-agreement", "0", "--json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("\"shadow\""), "{}", ended.stdout);
}

#[test]
fn a_lost_candidate_is_refused_a_lost_serving_child_is_not_its_fault() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2"]);
    let device = Device::serving(Options::new(&broker, &repository), &release(1));
    let endless = || update(2, json!({ "frames": 1_000_000, "min_agreement": 0 }));
    let compared = |least: u64| {
        wait_until("compared frames", PATIENCE, || told(&device).filter(|report| report.frames >= least))
    };

    let sent = device.send("update", endless());
    let before = compared(3).frames;
    signal(device.child("infer"), Signal::KILL);
    wait_until("the loss is counted", PATIENCE, || {
        (device.status().metrics.child_restarts.get("infer") == Some(&1)).then_some(())
    });
    compared(before + 10);
    device.until("still comparing", |heard| (heard.stage()? == Stage::Shadowing).then_some(()));

    signal(device.child("candidate"), Signal::KILL);
    let reason = sent.finish().unwrap_err();
    assert_eq!(reason.code, ReasonCode::ChildCrashed, "{reason}");
    device.until("its end", |heard| (heard.stage()? == Stage::Refused).then_some(()));

    let sent = device.send("update", endless());
    wait_until("it compares again", PATIENCE, || {
        (device.until("a state", |heard| heard.stage()) == Stage::Shadowing).then_some(())
    });
    device.command("abort", json!({ "slot": SLOT })).unwrap();
    assert_eq!(sent.finish().unwrap_err().code, ReasonCode::Aborted);

    // The agent is killed in the middle: the trial is begun again, and what served serves.
    let _ = device.send("update", endless());
    wait_until("it compares again", PATIENCE, || {
        (device.until("a state", |heard| heard.stage()) == Stage::Shadowing).then_some(())
    });
    let mut device = device;
    device.kill();
    device.forget();
    device.start();
    device.until_frames(3);
    device.until("it goes on", |heard| (heard.stage()? == Stage::Shadowing).then_some(()));
    assert_eq!(device.until("a state", |heard| heard.current()), release(1));
    device.command("abort", json!({ "slot": SLOT })).unwrap();
}

#[test]
fn a_candidate_that_falls_silent_in_the_shadow_is_refused_as_hung() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2"]);
    // Ten of them are the candidate's patience.
    let options = Options::new(&broker, &repository).set("runtime.frame_deadline", "3s");
    let device = Device::serving(options, &release(1));
    let serving = device.child("infer");
    let sent = device.send("update", update(2, json!({ "frames": 1_000_000, "min_agreement": 0 })));
    wait_until("compared frames", PATIENCE, || told(&device).filter(|report| report.frames >= 3));
    let candidate = device.child("candidate");
    signal(candidate, Signal::STOP);
    let reason = sent.finish().unwrap_err();
    assert_eq!(reason.code, ReasonCode::ChildHung, "{reason}");
    assert!(reason.detail.contains("answered nothing for 30s"), "{reason}");
    wait_until("the end of its process", PATIENCE, || {
        (!std::path::Path::new(&format!("/proc/{candidate}")).exists()).then_some(())
    });
    device.until_frames(3);
    assert_eq!(device.child("infer"), serving, "what serves was not touched");
    assert_eq!(device.until("a state", |heard| heard.current()), release(1));
}
