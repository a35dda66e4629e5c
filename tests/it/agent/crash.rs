//! `kill -9` of the daemon at every stage of a deployment, and at calls that change the disk: the next start ends the
//! deployment with exactly one good model serving, and a history that agrees.

use crate::support::device::{Device, Options, PATIENCE, Repository, SLOT, release};
use crate::support::mosquitto::Mosquitto;
use crate::support::web::Trouble;
use crate::support::{compile_library, wait_until};
use edgewarden::domain::deployment::Stage;
use edgewarden::domain::health::{PipelineState, ProblemCode};
use edgewarden::sys::store::Store;
use edgewarden::update::journal::Journal;
use serde_json::json;

/// Starts an update, kills the daemon once it has told `stage`, and gives what the journal holds.
fn kill_at(device: &mut Device, wanted: &str, stage: Stage) -> Stage {
    device.forget();
    drop(device.send("update", json!({ "slot": SLOT, "release": wanted })));
    device.until(&format!("{wanted} at {stage:?}"), |heard| {
        heard
            .states
            .iter()
            .filter_map(|state| state.deployment.as_ref())
            .any(|deployment| deployment.release.to_string() == wanted && deployment.stage == stage)
            .then_some(())
    });
    device.kill();
    journal(device).newest(&SLOT.parse().unwrap()).unwrap().expect("a deployment").stage()
}

fn journal(device: &Device) -> Journal {
    let opened = Store::open(&device.path("state/store")).unwrap();
    assert_eq!(opened.quarantined, None, "a kill damages nothing");
    Journal::new(&opened.store)
}

/// Starts it again and waits for the deployment's end; gives how it ended and what serves.
fn recover(device: &mut Device, wanted: &str) -> (Stage, String) {
    device.until("the last will", |heard| (heard.availability.last()? == "offline").then_some(()));
    device.forget();
    device.start();
    let ended = device.until("the deployment's end", |heard| {
        let deployment = heard.states.last()?.deployment.as_ref()?;
        let ours = deployment.release.to_string() == wanted && deployment.stage.is_final();
        (heard.online() && ours).then_some(deployment.stage)
    });
    device.until_frames(3);
    let status = device.status();
    let slot = &status.slots[0];
    let current = slot.current.clone().expect("something serves");
    let serving = status.health.pipelines[0].release.clone().expect("it runs");
    assert_eq!(serving, current.release, "what the link names is what runs");
    let link = std::fs::read_link(device.path(&format!("state/slots/{SLOT}/current"))).unwrap();
    assert_eq!(link.file_name().unwrap().to_str().unwrap(), current.digest.to_string());
    (ended, current.release.to_string())
}

#[test]
fn a_kill_at_any_stage_ends_with_one_good_model() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2", "v5"]);
    let options = Options::new(&broker, &repository)
        .set("update.probation_min", "1s")
        .set("repository.stall_timeout", "60s")
        // The kills of this test are no boot loop.
        .set("update.max_boots", 10);
    let mut device = Device::serving(options, &release(1));
    let mut deployments = 1;

    for (stage, trouble, number) in [
        (Stage::Resolving, Some("timestamp.json"), 2),
        (Stage::Fetching, Some("blobs/"), 5),
        (Stage::Verifying, None, 2),
        (Stage::Staged, None, 5),
        (Stage::OnTrial, None, 2),
        (Stage::Swapping, None, 5),
        (Stage::Probation, None, 2),
    ] {
        let wanted = release(number);
        if let Some(part) = trouble {
            repository.web.trouble(part, Trouble::Stall(10));
        }
        let recorded = kill_at(&mut device, &wanted, stage);
        println!("told {stage:?}, killed at {recorded:?}");
        if trouble.is_some() || stage == Stage::Probation {
            assert_eq!(recorded, stage, "held up there");
        }
        repository.web.well();
        let (ended, serves) = recover(&mut device, &wanted);
        assert_eq!((ended, serves), (Stage::Committed, wanted), "killed at {recorded:?}");
        deployments += 1;
    }

    assert!(device.stop().success());
    let history = journal(&device).history().unwrap();
    assert_eq!(history.len(), deployments, "one entry a deployment: {history:#?}");
    assert!(history.iter().all(|ended| ended.deployment.stage() == Stage::Committed));
    // Of all that came only the two that a link names are kept, and nothing half done.
    let count = |folder: &str| std::fs::read_dir(device.path(folder)).unwrap().count();
    assert_eq!((count("state/models"), count("state/downloads")), (2, 0));
}

#[test]
fn a_kill_while_a_bad_model_is_rolled_back_ends_with_the_good_one() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2"]);
    let mut device = Device::serving(Options::new(&broker, &repository), &release(1));
    assert!(device.stop().success());
    // A second start in the same probation is a boot loop from now on.
    device.configure(|options| options.set("update.probation_min", "25s").set("update.max_boots", 1));
    device.start();
    device.until("the device is back", |heard| heard.online().then_some(()));
    let recorded = kill_at(&mut device, &release(2), Stage::Probation);
    assert_eq!(recorded, Stage::Probation);
    device.forget();
    device.start();
    device.until("the second start", |heard| heard.online().then_some(()));
    device.until_frames(1);
    device.kill();
    let (ended, serves) = recover(&mut device, &release(2));
    assert_eq!((ended, serves), (Stage::RolledBack, release(1)));
    assert!(device.stop().success());
    let history = journal(&device).history().unwrap();
    let reason = history.last().unwrap().deployment.reason().expect("why").clone();
    assert_eq!(reason.code, edgewarden::domain::ReasonCode::BootLoop, "{reason}");
}

#[test]
fn a_model_that_takes_the_agent_down_gives_way_and_safe_mode_takes_updates() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2", "v5"]);
    let options =
        Options::new(&broker, &repository).set("update.probation_min", "1s").set("update.max_starts", 2);
    let mut device = Device::serving(options, &release(1));
    device.update(&release(2)).unwrap();
    assert!(device.stop().success(), "an end that somebody wants counts against no model");
    // Killed as soon as its model answers, as a model does that takes the machine down.
    let mut crash = |serves: &str| {
        device.forget();
        device.start();
        device.until("the device is back", |heard| heard.online().then_some(()));
        device.until_frames(1);
        let status = device.status();
        assert_eq!(status.health.pipelines[0].release.as_ref().unwrap().to_string(), serves);
        device.kill();
        status
    };
    for _ in 0..2 {
        crash(&release(2));
    }
    let status = crash(&release(1));
    let fallback = status.slots[0].deployment.as_ref().unwrap();
    assert_eq!(fallback.cause.as_ref().unwrap().code, edgewarden::domain::ReasonCode::BootLoop);
    crash(&release(1));

    device.forget();
    device.start();
    device.until("the device is back", |heard| heard.online().then_some(()));
    let problem = device.until("safe mode", |_| {
        let health = device.status().health;
        health.problems.into_iter().find(|problem| problem.code == ProblemCode::SafeMode)
    });
    assert!(problem.detail.contains(&release(1)), "{problem:?}");
    let status = device.status();
    assert_eq!(status.health.pipelines[0].state, PipelineState::SafeMode);
    assert_eq!(status.health.pipelines[0].release, None, "no model serves");
    device.update(&release(5)).unwrap();
    device.until_frames(3);
    let status = device.status();
    assert_eq!(status.health.pipelines[0].release.as_ref().unwrap().to_string(), release(5));
    assert!(status.slots[0].safe_mode.is_none());
    assert!(device.stop().success());
}

/// Whether a process of ours has ended and was not waited for.
fn is_dead(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with('Z'))
}

/// Every 29th of them here; `packaging/kill-lab.sh` tries each.
#[test]
fn a_kill_at_a_call_that_changes_the_disk_ends_with_one_good_model() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2"]);
    let shim = repository.dir.path().join("kill.so");
    compile_library("tests/data/kill.c", &shim, &[]);
    let shim = shim.to_str().unwrap().to_owned();
    let options = Options::new(&broker, &repository)
        .set("update.max_boots", 100)
        // The kills of this test are no boot loop.
        .set("update.max_starts", 0);
    let mut device = Device::serving(options, &release(1));
    device.configure(|options| options.env("LD_PRELOAD", &shim));
    assert!(device.stop().success());
    let mut kills = 0;
    for number in (5..).step_by(29) {
        let wanted = release(if kills % 2 == 0 { 2 } else { 1 });
        device.configure(|options| options.env("EDGEWARDEN_TEST_KILL", &number.to_string()));
        device.forget();
        device.start();
        let pid = device.pid();
        let mut asked = false;
        let died = wait_until("the kill, or the end", PATIENCE, || {
            if is_dead(pid) {
                return Some(true);
            }
            let heard = device.heard.lock().unwrap();
            let ended = heard.current() == Some(wanted.clone()) && heard.stage() == Some(Stage::Committed);
            let online = heard.online();
            drop(heard);
            if online && !asked {
                asked = true;
                drop(device.send("update", json!({ "slot": SLOT, "release": wanted })));
            }
            (asked && ended).then_some(false)
        });
        device.kill();
        device.configure(|options| options.env("EDGEWARDEN_TEST_KILL", "-1"));
        device.forget();
        device.start();
        device.until("it is back", |heard| heard.online().then_some(()));
        device.until_frames(1);
        // To an end, whether it was asked for before the kill or not.
        device.update(&wanted).unwrap_or_else(|reason| panic!("after a kill at call {number}: {reason}"));
        device.until_frames(3);
        let status = device.status();
        let current = status.slots[0].current.clone().expect("something serves");
        assert_eq!(current.release.to_string(), wanted, "call {number}");
        assert_eq!(status.health.pipelines[0].release, Some(current.release), "call {number}");
        assert!(device.stop().success());
        if !died {
            break;
        }
        kills += 1;
    }
    println!("{kills} kills");
    assert!(kills >= 5, "only {kills} kills");
    let count = |folder: &str| std::fs::read_dir(device.path(folder)).unwrap().count();
    assert_eq!((count("state/models"), count("state/downloads")), (2, 0));
}

/// Killed between making a file of shared memory and giving it a size, a process leaves an empty one.
#[test]
fn shared_memory_that_was_only_begun_holds_up_no_later_start() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1"]);
    let mut device = Device::serving(Options::new(&broker, &repository), &release(1));
    let prefix = edgewarden::process::frames::prefix_of(&device.path("state"));
    let children: Vec<u32> = ["capture", "infer"].map(|role| device.child(role)).into();
    device.kill();
    wait_until("its children are gone", PATIENCE, || {
        children.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
    let left = std::fs::read_dir("/dev/shm").unwrap().flatten().filter(|entry| {
        let name = entry.file_name().into_string().unwrap();
        name.starts_with(&prefix) && name.ends_with(".dynamic")
    });
    let left: Vec<_> = left.map(|entry| entry.path()).collect();
    assert!(!left.is_empty(), "the killed agent left its part");
    for path in left {
        std::fs::File::create(path).unwrap();
    }
    device.start();
    device.until_frames(3);
}
