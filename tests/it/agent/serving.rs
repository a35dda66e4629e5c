//! Answers on real photographs, swaps without a lost frame, children that die or hang.

use crate::support::device::{Device, Options, PATIENCE, PIPELINE, Repository, release, signal};
use crate::support::mosquitto::Mosquitto;
use crate::support::{Edgewarden, root, wait_until};
use edgewarden::domain::health::{PipelineState, Problem, ProblemCode};
use edgewarden::domain::metrics::{FrameCounts, MetricsReport};
use edgewarden::domain::result::iou;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeSet;

#[test]
fn a_real_model_answers_a_folder_of_photographs_as_expected() {
    let data = root().join("../shared/data");
    if !data.join("ultraface/version-RFB-320.onnx").is_file() {
        println!("skipped a_real_model_answers_a_folder_of_photographs_as_expected: no {}", data.display());
        return;
    }
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&[]);
    let bundle = repository.dir.path().join("faces");
    let (onnx, folder) = (data.join("ultraface/version-RFB-320.onnx"), bundle.display().to_string());
    let made = Edgewarden::run(["bundle", "init", onnx.to_str().unwrap(), &folder]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let path = bundle.join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    manifest["name"] = "faces".into();
    manifest["labels"] = json!(["face"]);
    let input = &mut manifest["inputs"][0];
    (input["scale"], input["mean"], input["std"]) = (1.into(), json!([127]), json!([128]));
    let keep = &mut manifest["decode"]["keep"];
    (keep["score_threshold"], keep["iou_threshold"]) = (json!(0.7), json!(0.3));
    std::fs::write(&path, serde_json::to_vec(&manifest).unwrap()).unwrap();
    let published = repository.publisher.publish(&bundle, jiff::Timestamp::now(), &|_| {}).unwrap();

    // Only the pictures that answers are given for, in the order of their names.
    let expected: Value =
        serde_json::from_slice(&std::fs::read(data.join("ultraface/expected.json")).unwrap()).unwrap();
    let expected = expected.as_object().unwrap();
    let pictures = repository.dir.path().join("pictures");
    std::fs::create_dir(&pictures).unwrap();
    for name in expected.keys() {
        std::fs::copy(data.join("frames").join(name), pictures.join(name)).unwrap();
    }
    let options = Options::new(&broker, &repository).pictures(&pictures).set("pipeline.fps", 10);
    let device = Device::serving(options, &published.release.to_string());

    // The folder begins again after its end; a frame's number tells its picture.
    let names: Vec<&String> = expected.keys().collect();
    let mut seen = BTreeSet::new();
    let frames = device.until("an answer to each picture", |heard| {
        seen.extend(heard.frames.iter().map(|frame| (frame.seq - 1) as usize % names.len()));
        (seen.len() == names.len()).then(|| heard.frames.clone())
    });
    let (mut wanted, mut met) = (0, 0);
    for frame in &frames {
        let name = names[(frame.seq - 1) as usize % names.len()];
        for face in expected[name].as_array().unwrap().iter().filter(|face| face[4].as_f64().unwrap() > 0.8) {
            let face = std::array::from_fn(|at| face[at].as_f64().unwrap() as f32);
            wanted += 1;
            met += usize::from(frame.output.detections.iter().any(|found| iou(found.bbox, face) > 0.5));
        }
    }
    assert!(wanted > 50 && met * 100 >= wanted * 99, "{met} of {wanted} clear faces");
}

fn counts(metrics: &MetricsReport) -> FrameCounts {
    metrics.pipelines.iter().find(|pipeline| pipeline.name.as_str() == PIPELINE).expect("the pipeline").frames
}

/// Every frame that the source published is answered once, or counted with the reason why not.
#[test]
fn swap_after_swap_no_frame_is_lost() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2"]);
    let device = Device::serving(Options::new(&broker, &repository), &release(1));
    let before = counts(&device.status().metrics);
    let swaps = [release(2), release(1), release(2)];
    for next in &swaps {
        device.update(next).unwrap_or_else(|reason| panic!("{next}: {reason}"));
    }
    device.command("rollback", json!({ "slot": "detector" })).unwrap();
    device.until("the rollback", |heard| (heard.current()? == release(1)).then_some(()));
    device.until_frames(5);

    let after = wait_until("an account that balances", PATIENCE, || {
        let metrics = device.status().metrics;
        let counts = counts(&metrics);
        assert_eq!(metrics.mqtt.live_dropped, 0, "every answer was sent");
        let answered = counts.answered as usize;
        let heard = device.until("all answers", |heard| {
            (heard.frames.len() >= answered)
                .then(|| heard.frames[..answered].iter().map(|frame| frame.seq).collect::<Vec<_>>())
        });
        let distinct: BTreeSet<u64> = heard.iter().copied().collect();
        assert_eq!(distinct.len(), heard.len(), "no frame is answered twice");
        // Figures are taken while frames go on: one may be half counted, then they are taken again.
        let missing = distinct.last().unwrap() - heard.len() as u64;
        let excused = counts.skipped + counts.unserved + counts.failed;
        (missing == excused).then_some(counts)
    });
    assert_eq!(after.unserved, before.unserved, "some model served at every moment");
    assert!(after.answered > before.answered + 20);
    assert_eq!(after.failed, 0);
    assert_eq!(device.status().metrics.swaps, 5);
}

#[test]
fn children_that_die_or_hang_are_noticed_told_and_started_again() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1"]);
    let options = Options::new(&broker, &repository)
        .set("runtime.frame_deadline", "4s")
        .set("pipeline.stall_timeout", "4s");
    let device = Device::serving(options, &release(1));
    let agent = device.pid();

    let mut restarts = 0;
    for (role, how, word) in [
        ("infer", Signal::KILL, "was killed by"),
        ("infer", Signal::STOP, "took longer than 4s"),
        ("capture", Signal::KILL, "was killed by"),
        ("capture", Signal::STOP, "no frame for 4s"),
    ] {
        let old = device.child(role);
        if role == "capture" && how == Signal::KILL {
            restarts = 0;
        }
        restarts += 1;
        signal(old, how);
        wait_until(&format!("{role}: counted"), PATIENCE, || {
            (device.status().metrics.child_restarts.get(role) == Some(&restarts)).then_some(())
        });
        assert_ne!(device.child(role), old, "{role}: another process");
        let last = device.heard.lock().unwrap().frames.last().unwrap().seq;
        device.until("newer frames", |heard| {
            heard.frames.last().is_some_and(|frame| frame.seq > last + 3).then_some(())
        });
        let health = device.status().health;
        let pipeline = &health.pipelines[0];
        assert_eq!(pipeline.state, PipelineState::Running, "{pipeline:?}");
        let (log, role) = (device.log(), format!("role=\"{role}\""));
        let mut losses = log.lines().filter(|line| line.contains("child lost") && line.contains(&role));
        assert!(losses.any(|line| line.contains(word)), "{role}: the loss is told: {word}");
        assert_eq!(device.pid(), agent);
    }
    // It works again: what was wrong stays in the figures and in the log only.
    wait_until("good health", PATIENCE, || {
        let health = device.status().health;
        let unwell = |problem: &Problem| problem.code == ProblemCode::FrameErrors;
        (health.pipelines[0].last_error.is_none() && !health.problems.iter().any(unwell)).then_some(())
    });
    assert_eq!(device.status().metrics.child_restarts["infer"], 2);
    let heard = device.heard.lock().unwrap();
    assert!(heard.frames.windows(2).all(|pair| pair[0].seq < pair[1].seq), "numbers only rise");
    assert_eq!(heard.births.len(), 1, "the agent itself lived on");
}

#[test]
fn a_child_that_dies_again_and_again_is_started_again_and_again() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1"]);
    let device = Device::serving(Options::new(&broker, &repository), &release(1));
    for _ in 0..3 {
        let pid = device.child("infer");
        signal(pid, Signal::KILL);
        wait_until("another child or none", PATIENCE, || {
            let status = device.status();
            let role = format!("infer:{PIPELINE}");
            let now = status.metrics.processes.iter().find(|process| process.role == role).map(|one| one.pid);
            (now != Some(pid)).then_some(())
        });
    }
    device.until_frames(3);
    assert_eq!(device.status().metrics.child_restarts["infer"], 3);
}
