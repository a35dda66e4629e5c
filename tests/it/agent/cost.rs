//! Memory: a fresh process for a model that has grown, limits that hold, and an end by the kernel told as
//! such.

use crate::support::device::{Device, Options, PATIENCE, PIPELINE, Repository, release};
use crate::support::mosquitto::Mosquitto;
use crate::support::wait_until;
use edgewarden::bundle::onnx::graph::field;
use edgewarden::bundle::onnx::wire::{Field, Message};
use edgewarden::domain::ReasonCode;
use edgewarden::domain::health::PipelineState;
use edgewarden::domain::metrics::MetricsReport;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// What a model of [`hungry`] holds in memory, far above what the limits here leave it.
const HUNGER: usize = 96 << 20;
const LIMIT: u64 = 48 << 20;

/// Publishes a model that works, with a weight that fills memory; gives the release.
fn hungry(repository: &mut Repository) -> String {
    repository.publish_variant("v1", "9.0.0", |folder, _| {
        let path = folder.join("model.onnx");
        let bytes = std::fs::read(&path).unwrap();
        let mut model = Message::parse(&bytes).unwrap();
        let mut graph = Message::parse(model.content(field::MODEL_GRAPH).unwrap()).unwrap();
        let weight = vec![
            Field::number(1, (HUNGER / 4) as i64),
            Field::number(2, 1),
            Field::text(8, "hunger"),
            Field::bytes(9, vec![1; HUNGER]),
        ];
        graph.fields.push(Field::bytes(field::INITIALIZER, Message { fields: weight }.to_bytes()));
        let graph = graph.to_bytes();
        model.set(Field::bytes(field::MODEL_GRAPH, graph));
        std::fs::write(&path, model.to_bytes()).unwrap();
    })
}

/// The budget is less than any model needs, so that it must be replaced again and again.
#[test]
fn a_model_above_its_budget_is_replaced_without_a_lost_frame() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1"]);
    let options = Options::new(&broker, &repository)
        .set("runtime.memory_budget", "1MiB")
        .set("runtime.recycle_interval", "2s");
    let device = Device::serving(options, &release(1));
    let before = device.status().metrics;
    let recycles = |metrics: &MetricsReport| metrics.recycles.get(PIPELINE).copied().unwrap_or(0);
    let mut pids = BTreeSet::new();
    wait_until("fresh processes", PATIENCE, || {
        pids.insert(device.child("infer"));
        (recycles(&device.status().metrics) >= recycles(&before) + 3).then_some(())
    });
    pids.insert(device.child("infer"));
    assert!(pids.len() >= 3, "other processes serve: {pids:?}");
    let before = before.pipelines[0].frames;
    device.until_frames(3);
    let status = device.status();
    let after = status.metrics.pipelines[0].frames;
    assert_eq!((after.unserved, after.failed), (before.unserved, before.failed), "no frame was lost");
    assert!(
        status.metrics.child_restarts.is_empty(),
        "none of them crashed: {:?}",
        status.metrics.child_restarts
    );
    assert_eq!(status.health.pipelines[0].state, PipelineState::Running);
    assert_eq!(status.metrics.swaps, 1, "it is the same model");
    let heard = device.heard.lock().unwrap();
    // Around a handover the last answers of the old child may come after the first of the new one.
    let distinct: BTreeSet<u64> = heard.frames.iter().map(|frame| frame.seq).collect();
    assert_eq!(distinct.len(), heard.frames.len(), "no frame is answered twice");
    drop(heard);
    assert!(device.log().contains("its budget is 1 MiB"), "{}", device.log());
}

/// The same budget; but the model's publisher has said that it needs more.
#[test]
fn a_model_within_what_its_manifest_says_that_it_needs_is_left_alone() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&[]);
    let modest = repository.publish_variant("v1", "1.0.1", |_, m| m["needs"]["memory_mb"] = 1.into());
    let honest = repository.publish_variant("v1", "1.0.2", |_, m| m["needs"]["memory_mb"] = 512.into());
    let options = Options::new(&broker, &repository)
        .set("runtime.memory_budget", "1MiB")
        .set("runtime.recycle_interval", "1s");
    let device = Device::serving(options, &modest);
    let recycles = || device.status().metrics.recycles.get(PIPELINE).copied().unwrap_or(0);
    wait_until("a fresh process", PATIENCE, || (recycles() > 0).then_some(()));
    device.update(&honest).unwrap();
    let child = device.child("infer");
    let before = recycles();
    // Far more looks at it than lead to a replacement.
    device.until_frames(100);
    assert_eq!((device.child("infer"), recycles()), (child, before));
}

#[test]
fn a_model_that_wants_more_than_the_limit_is_refused_with_the_remedy() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v1"]);
    let hungry = hungry(&mut repository);
    let options =
        Options::new(&broker, &repository).set("runtime.memory_limit", format!("{}MiB", LIMIT >> 20));
    let mut device = Device::new(options);
    device.start();
    let reason = device.update(&hungry).unwrap_err();
    println!("{reason}");
    assert_eq!(reason.code, ReasonCode::OutOfMemory, "{reason}");
    assert!(reason.detail.contains("runtime.memory_limit"), "{reason}");
    assert_eq!(device.status().health.pipelines[0].state, PipelineState::NoModel);

    assert!(device.stop().success());
    device.configure(|options| options.set("runtime.memory_limit", "1GiB"));
    device.start();
    device.update(&release(1)).unwrap();
    device.until_frames(3);
}

/// A memory cgroup of this test, of either version; removed with the value.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(bytes: u64) -> Option<Self> {
        let name = format!("edgewarden-test-{}", std::process::id());
        for (root, file) in
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]
        {
            let path = PathBuf::from(root).join(&name);
            if std::fs::create_dir(&path).is_err() {
                continue;
            }
            let cgroup = Self(path);
            if std::fs::write(cgroup.0.join(file), bytes.to_string()).is_ok() {
                for swap in ["memory.memsw.limit_in_bytes", "memory.swap.max"] {
                    let _ = std::fs::write(cgroup.0.join(swap), if swap.ends_with("max") { "0" } else { "" });
                }
                return Some(cgroup);
            }
        }
        None
    }

    fn add(&self, pid: u32) -> bool {
        std::fs::write(self.0.join("cgroup.procs"), pid.to_string()).is_ok()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Its processes have just been killed.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

#[test]
fn a_child_that_the_kernel_ends_for_lack_of_memory_is_told_as_such() {
    const NAME: &str = "a_child_that_the_kernel_ends_for_lack_of_memory_is_told_as_such";
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v1"]);
    let hungry = hungry(&mut repository);
    let Some(cgroup) = Cgroup::new(LIMIT) else {
        println!("skipped {NAME}: no memory cgroup can be made here");
        return;
    };
    let mut device = Device::new(Options::new(&broker, &repository));
    device.start();
    device.until("the device is online", |heard| heard.online().then_some(()));
    let agent = device.pid();
    // What it has stays where it is; what comes from now on, and its children, count here.
    if !cgroup.add(agent) {
        println!("skipped {NAME}: no process can be put into a cgroup here");
        return;
    }
    let reason = device.update(&hungry).unwrap_err();
    println!("{reason}");
    assert_eq!(reason.code, ReasonCode::OutOfMemory, "{reason}");
    assert!(reason.detail.contains("memory ran out"), "{reason}");
    assert_eq!(device.pid(), agent);
    device.status();
    drop(device);
    drop(cgroup);
}
