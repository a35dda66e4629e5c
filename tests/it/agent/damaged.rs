//! A store that cannot be read, and a disk that cannot be written: the model serves all the same, health tells, and
//! updates work as soon as they can.

use crate::support::device::{Device, Options, PATIENCE, Repository, release};
use crate::support::mosquitto::Mosquitto;
use crate::support::wait_until;
use edgewarden::domain::health::{PipelineState, ProblemCode};
use std::fs;
use std::process::Command;

/// Waits until the release serves and health has a problem with this code and these words.
fn serves_and_tells(device: &Device, wanted: &str, code: ProblemCode, words: &str) {
    device.until(&format!("{wanted}, and a word of {words}"), |heard| {
        let health = heard.health.last()?;
        let pipeline = &health.pipelines[0];
        let serves = pipeline.release.as_ref().is_some_and(|release| release.to_string() == wanted);
        let told =
            health.problems.iter().any(|problem| problem.code == code && problem.detail.contains(words));
        (serves && told && pipeline.state == PipelineState::Running).then_some(())
    });
}

#[test]
fn a_damaged_store_is_put_aside_and_rebuilt_from_the_folders() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2"]);
    let mut device = Device::serving(Options::new(&broker, &repository), &release(1));
    let db = device.path("state/store/db");
    for (round, number) in [(0, 2), (1, 1), (2, 2), (3, 1)] {
        assert!(device.stop().success());
        match round {
            0 => {
                let mut bytes = fs::read(&db).unwrap();
                let middle = bytes.len() / 8;
                bytes[64..middle].fill(0);
                fs::write(&db, bytes).unwrap();
            }
            1 => fs::write(&db, b"no database").unwrap(),
            2 => {
                fs::remove_file(&db).unwrap();
                fs::create_dir(&db).unwrap();
            }
            _ => {
                fs::remove_dir_all(device.path("state/store")).unwrap();
                fs::write(device.path("state/store"), b"no folder").unwrap();
            }
        }
        device.forget();
        device.start();
        let before = release(if number == 2 { 1 } else { 2 });
        serves_and_tells(&device, &before, ProblemCode::StoreRebuilt, "store");
        device.update(&release(number)).unwrap();
    }
    let aside = fs::read_dir(device.path("state"))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("store.corrupt-"));
    assert!((1..=2).contains(&aside.count()), "bounded");
}

#[test]
fn on_a_disk_that_became_read_only_the_model_serves() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2"]);
    let mut device = Device::new(Options::new(&broker, &repository).set("update.disk_reserve", 0));
    let state = device.path("state");
    fs::create_dir(&state).unwrap();
    let mount = |arguments: &[&str]| {
        let mounted = Command::new("mount").args(arguments).arg(&state).output();
        mounted.is_ok_and(|output| output.status.success())
    };
    if !mount(&["-t", "tmpfs", "-o", "size=32m", "tmpfs"]) {
        println!("skipped on_a_disk_that_became_read_only_the_model_serves: this user may not mount");
        return;
    }
    device.start();
    device.update(&release(1)).unwrap();
    device.until_frames(3);
    device.kill();
    wait_until("a read-only disk", PATIENCE, || mount(&["-o", "remount,ro"]).then_some(()));
    device.forget();
    device.start();
    serves_and_tells(&device, &release(1), ProblemCode::Other, "ead-only");
    device.update(&release(2)).unwrap_err();
    assert!(mount(&["-o", "remount,rw"]));
    wait_until("the update", PATIENCE, || device.update(&release(2)).ok());
    let _ = device.stop();
    let _ = Command::new("umount").arg("--lazy").arg(&state).status();
}
