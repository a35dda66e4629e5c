//! Bit rot: a byte of a verified bundle changes on the disk. It is fetched again, or the bundle before it serves; it
//! never serves itself.

use crate::support::device::{Device, Options, PATIENCE, Repository, SLOT, release, signal};
use crate::support::mosquitto::Mosquitto;
use crate::support::wait_until;
use crate::support::web::Trouble;
use edgewarden::domain::ReasonCode;
use edgewarden::domain::deployment::Stage;
use edgewarden::domain::health::PipelineState;
use serde_json::json;
use std::path::PathBuf;

/// The model file behind a link of the slot.
fn model_of(device: &Device, link: &str) -> PathBuf {
    std::fs::canonicalize(device.path(&format!("state/slots/{SLOT}/{link}/model.onnx"))).unwrap()
}

/// Changes one byte in the middle; gives what stood there before.
fn rot(file: &PathBuf) -> Vec<u8> {
    let good = std::fs::read(file).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    std::fs::write(file, bad).unwrap();
    good
}

/// Waits until this release answers frames, and looks that nothing else did since the last `forget`.
fn until_serving(device: &Device, wanted: &str) {
    device.until(&format!("frames of {wanted}"), |heard| {
        let pipeline = &heard.health.last()?.pipelines[0];
        let serves = pipeline.release.as_ref().is_some_and(|release| release.to_string() == wanted);
        (serves && pipeline.state == PipelineState::Running && !heard.frames.is_empty()).then_some(())
    });
    for health in &device.heard.lock().unwrap().health {
        let by = health.pipelines[0].release.as_ref().map(ToString::to_string);
        assert!(by.as_deref().is_none_or(|by| by == wanted), "answered by {by:?}");
    }
}

/// From now on only what is told from here counts; that it is online stays known.
fn forget_answers(device: &Device) {
    let mut heard = device.heard.lock().unwrap();
    heard.health.clear();
    heard.frames.clear();
}

fn start(device: &mut Device) {
    device.forget();
    device.start();
}

#[test]
fn a_rotten_bundle_is_fetched_again() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2"]);
    let mut device = Device::serving(Options::new(&broker, &repository), &release(1));

    // While the agent is off.
    assert!(device.stop().success());
    let model = model_of(&device, "current");
    let good = rot(&model);
    let before = repository.web.asked().len();
    start(&mut device);
    until_serving(&device, &release(1));
    assert!(std::fs::read(&model).unwrap() == good, "whole again");
    let asked = repository.web.asked()[before..].to_vec();
    let blobs: Vec<_> = asked.iter().filter(|(path, _)| path.contains("blobs/")).collect();
    assert_eq!(blobs.len(), 1, "only the rotten file: {asked:?}");
    assert!(device.log().contains("is not as it was verified"), "{}", device.log());

    // While it runs: found when the model's process is started anew.
    rot(&model);
    forget_answers(&device);
    signal(device.child("infer"), rustix::process::Signal::KILL);
    wait_until("the whole file", PATIENCE, || (std::fs::read(&model).unwrap() == good).then_some(()));
    forget_answers(&device);
    until_serving(&device, &release(1));

    // The one that a rollback brings.
    device.update(&release(2)).unwrap();
    let previous = model_of(&device, "previous");
    assert_eq!(previous, model);
    rot(&previous);
    device.command("rollback", json!({ "slot": SLOT })).unwrap();
    forget_answers(&device);
    until_serving(&device, &release(1));
    assert!(std::fs::read(&model).unwrap() == good, "whole again");
}

#[test]
fn without_the_repository_the_bundle_before_serves() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2"]);
    let mut device = Device::serving(Options::new(&broker, &repository), &release(1));
    device.update(&release(2)).unwrap();
    assert!(device.stop().success());
    let model = model_of(&device, "current");
    let good = rot(&model);
    repository.web.trouble("", Trouble::Status(503));
    start(&mut device);
    until_serving(&device, &release(1));
    device.until("it is told", |heard| {
        let deployment = heard.states.last()?.deployment.as_ref()?;
        (deployment.stage == Stage::Committed && heard.current() == Some(release(1))).then_some(())
    });

    // A restart finds the same, and what is rotten does not come back by a command either.
    device.kill();
    start(&mut device);
    until_serving(&device, &release(1));
    let refused = device.command("rollback", json!({ "slot": SLOT })).unwrap_err();
    assert_eq!(refused.code, ReasonCode::DigestMismatch, "{refused}");
    forget_answers(&device);
    until_serving(&device, &release(1));

    // Until it can be fetched again.
    repository.web.well();
    device.command("rollback", json!({ "slot": SLOT })).unwrap();
    forget_answers(&device);
    until_serving(&device, &release(2));
    assert!(std::fs::read(&model).unwrap() == good, "whole again");
}

#[test]
fn with_nothing_to_go_back_to_it_is_told_and_tried_until_the_repository_is_there() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1"]);
    let mut device = Device::serving(Options::new(&broker, &repository), &release(1));
    assert!(device.stop().success());
    rot(&model_of(&device, "current"));
    repository.web.trouble("", Trouble::Status(503));
    start(&mut device);
    device.until("it is told", |heard| {
        let pipeline = &heard.health.last()?.pipelines[0];
        let why = pipeline.last_error.as_ref()?;
        (pipeline.state == PipelineState::ModelFailed && why.code == ReasonCode::DigestMismatch).then_some(())
    });
    assert_eq!(device.heard.lock().unwrap().frames.len(), 0);
    repository.web.well();
    until_serving(&device, &release(1));
}
