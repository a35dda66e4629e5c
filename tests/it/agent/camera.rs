//! The camera's side: several models on one, pauses, still scenes, sources that stall, vanish and return.

use crate::support::device::{Device, Options, PATIENCE, PIPELINE, Repository, SLOT, release, signal};
use crate::support::mosquitto::Mosquitto;
use crate::support::wait_until;
use edgewarden::domain::ReasonCode;
use edgewarden::domain::deployment::Stage;
use edgewarden::domain::health::{HealthState, PipelineState, SourceHealth, SourceState};
use edgewarden::domain::metrics::PipelineMetrics;
use edgewarden::domain::status::DeviceStatus;
use rustix::process::Signal;
use serde_json::json;
use std::path::Path;

fn source(status: &DeviceStatus) -> SourceHealth {
    status
        .health
        .pipelines
        .iter()
        .find(|one| one.name.as_str() == PIPELINE)
        .expect("the pipeline")
        .source
        .clone()
}

fn figures(status: &DeviceStatus, name: &str) -> PipelineMetrics {
    status.metrics.pipelines.iter().find(|one| one.name.as_str() == name).expect("the pipeline").clone()
}

/// Waits until the status gives a value.
fn until<T>(device: &Device, what: &str, mut found: impl FnMut(&DeviceStatus) -> Option<T>) -> T {
    wait_until(what, PATIENCE, || found(&device.status()))
}

fn pid(status: &DeviceStatus, role: &str) -> Option<u32> {
    status.metrics.processes.iter().find(|process| process.role == role).map(|process| process.pid)
}

#[test]
fn several_models_on_one_camera_each_have_their_pace_and_their_account() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2"]);
    let second = format!("name = \"second\"\nfps = 5\nsource_of = \"{PIPELINE}\"");
    let mut device = Device::new(Options::new(&broker, &repository).and(&second));
    device.start();
    device.update(&release(1)).unwrap();
    device.command("update", json!({ "slot": "second", "release": release(2) })).unwrap();

    let answered = |status: &DeviceStatus, name: &str| figures(status, name).frames.answered;
    let status = until(&device, "answers of both", |status| {
        (answered(status, PIPELINE) > 30 && answered(status, "second") > 10).then(|| status.clone())
    });
    let captures = status.metrics.processes.iter().filter(|process| process.role.starts_with("capture"));
    assert_eq!(captures.count(), 1, "{:?}", status.metrics.processes);
    let shared = &status.health.pipelines.iter().find(|one| one.name.as_str() == "second").unwrap().source;
    assert_eq!(shared.shared_from.as_ref().unwrap().as_str(), PIPELINE);
    for name in [PIPELINE, "second"] {
        let sent = device.command("snapshot", json!({ "pipeline": name })).unwrap();
        assert!(sent["bytes"].as_u64().unwrap() > 1000, "{sent}");
    }

    // A camera that dies comes back for both; a model that dies, or is exchanged, is nothing to the other.
    signal(device.child("capture"), Signal::KILL);
    until(&device, "the loss", |status| (source(status).restarts == 1).then_some(()));
    let before = until(&device, "it runs again", |status| {
        (source(status).state == SourceState::Running).then(|| status.clone())
    });
    signal(pid(&before, "infer:main").unwrap(), Signal::KILL);
    until(&device, "answers of the other", |status| {
        (answered(status, "second") > answered(&before, "second") + 5).then_some(())
    });
    let infer = until(&device, "another child", |status| pid(status, "infer:main"));
    device.command("update", json!({ "slot": "second", "release": release(1) })).unwrap();
    let after = until(&device, "answers of both", |status| {
        let more = |name| answered(status, name) > answered(&before, name) + 10;
        (more(PIPELINE) && more("second")).then(|| status.clone())
    });
    assert_eq!(pid(&after, "infer:main"), Some(infer));
    assert_eq!(source(&after).restarts, 1);

    // Every number has its fate, for each of them; one may be under way at the moment of asking.
    assert_eq!(device.cli(["pause", PIPELINE]).code, Some(0));
    for name in [PIPELINE, "second"] {
        let frames = until(&device, "an account that balances", |status| {
            let frames = figures(status, name).frames;
            let fates =
                [frames.answered, frames.skipped, frames.unserved, frames.stale, frames.paced, frames.failed];
            (fates.iter().sum::<u64>() == frames.captured).then_some(frames)
        });
        assert_eq!(
            frames.paced > 0,
            name == "second",
            "20 frames a second, of which one wants 5: {frames:?}"
        );
    }
}

#[test]
fn a_camera_that_nobody_needs_proves_itself_and_is_paused_until_it_is_needed() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2"]);
    let options = Options::new(&broker, &repository).set("pipeline.stall_timeout", "3s");
    let mut device = Device::new(options);
    device.start();
    // A frame may be on its way when the pause begins.
    let paused = |device: &Device| {
        until(device, "a paused source", |status| {
            (source(status).state == SourceState::Paused && source(status).for_s >= 1)
                .then(|| figures(status, PIPELINE).frames.captured)
        })
    };
    let captured = paused(&device);
    assert!(captured > 0, "it was opened and gave a frame");
    // A busy machine may have needed more than one start.
    let restarts = source(&device.status()).restarts;
    // Much longer than what would be a stall.
    until(&device, "some seconds of it", |status| (source(status).for_s >= 7).then_some(()));
    let status = device.status();
    assert_eq!((figures(&status, PIPELINE).frames.captured, source(&status).restarts), (captured, restarts));
    assert_eq!(status.health.pipelines[0].state, PipelineState::NoModel);

    // A picture wakes it, and only for a while.
    device.command("snapshot", json!({})).unwrap();
    device.until("the picture", |heard| heard.snapshots.first().map(|_| ()));
    assert!(paused(&device) > captured, "the picture was a new one");
    device.update(&release(1)).unwrap();
    device.until_frames(5);

    // A person may pause it, and that is no fault.
    let done = device.cli(["pause"]);
    assert!(done.code == Some(0) && done.stdout.contains("paused true"), "{done:?}");
    let captured = paused(&device);
    let restarts = source(&device.status()).restarts;
    until(&device, "some seconds of it", |status| (source(status).for_s >= 7).then_some(()));
    let status = device.status();
    assert_eq!((figures(&status, PIPELINE).frames.captured, source(&status).restarts), (captured, restarts));
    assert_eq!(status.health.pipelines[0].state, PipelineState::Paused);
    assert_ne!(status.health.state, HealthState::Failed);
    let refused = device.command("snapshot", json!({})).unwrap_err();
    assert!(refused.detail.contains("resume it first"), "{refused}");
    // No frame could judge a new model: refused at once, with the way out.
    let refused = device.update(&release(2)).unwrap_err();
    assert_eq!(refused.code, ReasonCode::Busy, "{refused}");
    assert!(refused.detail.contains(&format!("`edgewarden resume {PIPELINE}`")), "{refused}");
    let text = device.cli(["status"]).stdout;
    assert!(text.contains("paused by hand") && text.contains("edgewarden resume"), "{text}");
    assert_eq!(device.cli(["resume", PIPELINE]).code, Some(0));
    device.until_frames(5);
    assert_eq!(source(&device.status()).state, SourceState::Running);
    device.update(&release(2)).unwrap();
    let unknown = device.cli(["pause", "none"]);
    assert!(unknown.code == Some(1) && unknown.stderr.contains("no pipeline none"), "{unknown:?}");
}

#[test]
fn a_pause_is_refused_while_a_deployment_needs_the_frames() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2"]);
    let mut device = Device::serving(Options::new(&broker, &repository), &release(1));
    assert!(device.stop().success());
    device.configure(|options| {
        options.set("update.probation_frames", 1_000_000).set("update.probation_max", "1h")
    });
    device.start();
    device.until_frames(3);
    let update = device.send("update", json!({ "slot": SLOT, "release": release(2) }));
    device.until("a probation", |heard| (heard.stage()? == Stage::Probation).then_some(()));

    let refused = device.cli(["pause", PIPELINE]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for words in [&release(2), SLOT, "needs the frames", &format!("`edgewarden abort {SLOT}`")] {
        assert!(refused.stderr.contains(words), "{words} in {refused:?}");
    }
    device.until_frames(3);
    assert_ne!(source(&device.status()).state, SourceState::Paused);
    // Nothing keeps one that would be lifted from being asked for.
    assert_eq!(device.cli(["resume", PIPELINE]).code, Some(0));

    // The remedy that it names helps.
    assert_eq!(device.cli(["abort", SLOT]).code, Some(0));
    assert_eq!(update.finish().unwrap_err().code, ReasonCode::Aborted);
    assert_eq!(device.cli(["pause", PIPELINE]).code, Some(0));
    until(&device, "a paused source", |status| (source(status).state == SourceState::Paused).then_some(()));
}

/// A grey picture with a bright box at a place from the left.
fn picture(file: &Path, left: Option<u32>) {
    let mut image = image::GrayImage::from_fn(320, 240, |x, y| image::Luma([(40 + x / 8 + y / 8) as u8]));
    if let Some(left) = left {
        for (x, y) in (left..left + 40).flat_map(|x| (100..140).map(move |y| (x, y))) {
            image.put_pixel(x, y, image::Luma([230]));
        }
    }
    // The child may look at any moment: a file is there whole or not at all.
    let half = file.with_extension("half");
    image.save_with_format(&half, image::ImageFormat::Png).unwrap();
    std::fs::rename(half, file).unwrap();
}

#[test]
fn a_still_scene_costs_no_inference_and_motion_in_the_zone_does() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1"]);
    let pictures = tempfile::tempdir().unwrap();
    picture(&pictures.path().join("a.png"), None);
    let motion: toml::Table = r#"
        hold = "300ms"
        keep_alive = "1h"
        zones = [{ rect = [0.0, 0.0, 0.5, 1.0] }]
        "#
    .parse()
    .unwrap();
    let options = Options::new(&broker, &repository)
        .pictures(pictures.path())
        .set("pipeline.motion", motion)
        .set("pipeline.stall_timeout", "3s")
        .set("update.probation_frames", 1);
    let mut device = Device::new(options);
    device.start();
    let moved = |file: &str, left| picture(&pictures.path().join(file), left);
    // The updates want an answered frame, so something moves at first.
    moved("b.png", Some(20));
    device.update(&release(1)).unwrap();
    device.until_frames(3);
    std::fs::remove_file(pictures.path().join("b.png")).unwrap();
    // A busy machine may have needed more than one start.
    let restarts = source(&device.status()).restarts;

    let still = |device: &Device| {
        until(device, "a still scene", |status| {
            let frames = figures(status, PIPELINE).frames;
            (source(status).state == SourceState::Still && source(status).for_s >= 7).then_some(frames)
        })
    };
    let before = still(&device);
    let after = until(&device, "more still pictures", |status| {
        let frames = figures(status, PIPELINE).frames;
        (frames.still > before.still + 40).then_some(frames)
    });
    assert_eq!((after.captured, after.answered), (before.captured, before.answered), "no inference at all");
    let status = device.status();
    assert_eq!(source(&status).restarts, restarts, "still is no stall");
    assert_eq!(status.health.pipelines[0].state, PipelineState::Running);

    // Outside the zone a thing may come and go.
    moved("c.png", Some(240));
    let outside = until(&device, "more still pictures", |status| {
        let frames = figures(status, PIPELINE).frames;
        (frames.still > after.still + 40).then_some(frames)
    });
    assert_eq!(outside.captured, after.captured);
    moved("d.png", Some(20));
    device.until_frames(10);
    assert_eq!(source(&device.status()).state, SourceState::Running);
}

#[test]
fn a_source_that_stalls_is_killed_and_one_that_is_away_comes_back_by_itself() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1"]);
    let folder = tempfile::tempdir().unwrap();
    let (here, away) = (folder.path().join("pictures"), folder.path().join("away"));
    std::fs::create_dir(&here).unwrap();
    for (file, left) in [("a.png", 20), ("b.png", 200)] {
        picture(&here.join(file), Some(left));
    }
    let options = Options::new(&broker, &repository).pictures(&here).set("pipeline.stall_timeout", "3s");
    let device = Device::serving(options, &release(1));
    let agent = device.pid();

    let (hung, before) = (device.child("capture"), source(&device.status()).restarts);
    signal(hung, Signal::STOP);
    // It is back within a second, which one who asks may miss; the count and the log stay.
    until(&device, "the stall", |status| (source(status).restarts > before).then_some(()));
    assert!(device.log().contains("no frame for 3s"), "{}", device.log());
    device.until_frames(5);
    assert_ne!(device.child("capture"), hung);
    assert!(!Path::new(&format!("/proc/{hung}")).exists(), "the hung process is gone");

    // Away for several attempts; the state is clear all the while.
    std::fs::rename(&here, &away).unwrap();
    until(&device, "the loss", |status| (source(status).state == SourceState::Lost).then_some(()));
    let restarts = until(&device, "several attempts", |status| {
        let source = source(status);
        assert_eq!(source.state, SourceState::Lost, "{source:?}");
        assert_eq!(status.health.pipelines[0].state, PipelineState::SourceFailed);
        (source.restarts >= 5).then_some(source)
    });
    let reason = restarts.reason.unwrap();
    assert!(reason.detail.contains("pictures") && reason.detail.contains("source.path"), "{reason}");
    std::fs::rename(&away, &here).unwrap();
    device.until_frames(5);
    let status = device.status();
    assert_eq!(source(&status).state, SourceState::Running, "{:?}", source(&status));
    assert_eq!(source(&status).reason, None);
    assert_eq!((status.health.pipelines[0].state, device.pid()), (PipelineState::Running, agent));
    assert_eq!(status.slots[0].slot.as_str(), SLOT);
}
