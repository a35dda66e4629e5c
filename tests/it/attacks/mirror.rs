//! A mirror, a network or a cache that is not the owner's: it has no key, and every byte that a device hears
//! comes through it.

use super::{copy, look, repelled};
use crate::support::device::{Device, Options, PATIENCE, Repository, SLOT, release};
use crate::support::forge::{Metadata, version};
use crate::support::mosquitto::Mosquitto;
use crate::support::wait_until;
use crate::support::web::Trouble;
use edgewarden::bundle::files::sha256;
use edgewarden::domain::ReasonCode::{self, *};
use edgewarden::domain::deployment::Stage;
use edgewarden::domain::health::ProblemCode;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Bytes that are not the signed ones.
const CHANGED: [ReasonCode; 2] = [DigestMismatch, SizeMismatch];

/// Where a repository's folder has the manifest of a release.
fn manifest(folder: &Path, number: u32) -> PathBuf {
    let dir = folder.join(format!("targets/belt-inspector/{number}.0.0"));
    fs::read_dir(dir).unwrap().next().expect("its manifest").unwrap().path()
}

#[test]
fn arbitrary_software() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2"]);
    let device = Device::serving(Options::new(&broker, &repository), &release(1));
    let model = Repository::model_blob("v2");
    let whole = fs::read(repository.folder().join(&model)).unwrap();

    // A model of the attacker's in the place of the signed one, of the same length and of another.
    for (name, bytes) in [("same", vec![7; whole.len()]), ("other", b"a model of mine".to_vec())] {
        let mirror = copy(&repository, name);
        fs::write(mirror.join(&model), bytes).unwrap();
        repository.web.serve(&mirror);
        assert!(CHANGED.contains(&repelled(&device, &release(2)).code));
    }
    // A manifest of the attacker's, with which that model would fit.
    let mirror = copy(&repository, "manifest");
    let path = manifest(&mirror, 2);
    let mut own: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let file =
        own["files"].as_array_mut().unwrap().iter_mut().find(|file| file["path"] == "model.onnx").unwrap();
    file["sha256"] = json!(sha256(b"a model of mine").to_string());
    fs::write(&path, serde_json::to_vec_pretty(&own).unwrap()).unwrap();
    repository.web.serve(&mirror);
    assert!(CHANGED.contains(&repelled(&device, &release(2)).code));
    // All of it the attacker's own, in good order, and signed.
    let stranger = Repository::with(&["v2"]);
    repository.web.serve(&stranger.folder());
    assert_eq!(repelled(&device, &release(2)).code, SignatureInvalid);

    repository.web.serve(&repository.folder());
    device.update(&release(2)).unwrap();
}

#[test]
fn rollback() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v1"]);
    let old = copy(&repository, "old");
    repository.publish_variant("v2", "2.0.0", |_, _| {});
    let mut device = Device::serving(Options::new(&broker, &repository), &release(1));
    repository.web.serve(&old);
    let reason = repelled(&device, &release(2));
    assert_eq!(reason.code, OlderThanSeen);
    assert!(reason.detail.contains("version") && reason.detail.contains("replays"), "{reason}");
    // What was seen outlives the process.
    device.kill();
    device.until("the last will", |heard| (heard.availability.last()? == "offline").then_some(()));
    device.forget();
    device.start();
    device.until_frames(1);
    assert_eq!(repelled(&device, &release(2)).code, OlderThanSeen);
    repository.web.serve(&repository.folder());
    device.update(&release(2)).unwrap();
}

#[test]
fn endless_data() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v1", "v2"]);
    let device = Device::serving(Options::new(&broker, &repository), &release(1));
    let blob = Repository::model_blob("v2");
    let peak = || {
        let status =
            procfs::process::Process::new(device.pid().try_into().unwrap()).unwrap().status().unwrap();
        status.vmhwm.expect("its peak") / 1024
    };
    let before = peak();
    for (index, part) in
        [".root.json", "timestamp.json", ".snapshot.json", ".targets.json", ".manifest.json", &blob]
            .into_iter()
            .enumerate()
    {
        // What the device has seen already it does not fetch again.
        repository.publish_variant("v1", &format!("1.0.{}", index + 1), |_, _| {});
        repository.web.trouble(part, Trouble::Endless);
        let reason = repelled(&device, &release(2));
        assert_eq!(reason.code, SizeMismatch, "{part}: {reason}");
        repository.web.well();
    }
    // Neither memory nor disk takes what does not end: the longest file that is read whole has 8 MiB.
    assert!(peak() - before < 64, "MiB: {before}, {}", peak());
    let downloads = fs::read_dir(device.path("state/downloads")).into_iter().flatten().flatten();
    let kept: u64 = downloads.map(|file| file.metadata().unwrap().len()).sum();
    assert!(kept < 8 << 20, "{kept}");
    device.update(&release(2)).unwrap();
}

#[test]
fn slow_retrieval() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2"]);
    let device = Device::serving(Options::new(&broker, &repository), &release(1));
    let blob = Repository::model_blob("v2");
    for part in ["timestamp.json", &blob] {
        repository.web.trouble(part, Trouble::Drip);
        let sent = device.send("update", json!({ "slot": SLOT, "release": release(2) }));
        // Meanwhile the model serves.
        device.until_frames(5);
        let reason = sent.finish().unwrap_err();
        look(&device, &release(2), &reason);
        assert_eq!(reason.code, RepositoryUnreachable, "{part}: {reason}");
        assert!(reason.detail.contains("bytes came in"), "{part}: {reason}");
        repository.web.well();
    }
    device.update(&release(2)).unwrap();
}

#[test]
fn extraneous_dependencies() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2"]);
    let device = Device::serving(Options::new(&broker, &repository), &release(1));
    // One file more in the bundle, which lies there, whole and with its digest.
    let mirror = copy(&repository, "mirror");
    let extra = b"wanted by nobody";
    let blob = format!("blobs/{}", sha256(extra));
    fs::write(mirror.join(&blob), extra).unwrap();
    let path = manifest(&mirror, 2);
    let mut own: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let listed = json!({ "path": "extra.bin", "sha256": sha256(extra).to_string(), "size": extra.len() });
    own["files"].as_array_mut().unwrap().push(listed);
    fs::write(&path, serde_json::to_vec_pretty(&own).unwrap()).unwrap();
    repository.web.serve(&mirror);
    assert!(CHANGED.contains(&repelled(&device, &release(2)).code));
    // With the signed manifest, and the file still there: nobody asks for it.
    fs::copy(manifest(&repository.folder(), 2), &path).unwrap();
    device.update(&release(2)).unwrap();
    assert!(!repository.web.asked().iter().any(|(asked, _)| asked.contains(&blob)));
}

#[test]
fn mix_and_match() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v1"]);
    let device = Device::serving(Options::new(&broker, &repository), &release(1));
    let first = Metadata::of(&repository.folder());
    repository.publish_variant("v1", "1.0.1", |_, _| {});
    let second = Metadata::of(&repository.folder());
    repository.publish_variant("v2", "2.0.0", |_, _| {});
    let newest = Metadata::of(&repository.folder());
    // Each file is the owner's and signed, but never stood beside the others.
    let file = |role: &str, of: &Value| format!("metadata/{}.{role}.json", version(of));
    for (name, shown, place) in [
        ("snapshot", file("snapshot", &second.snapshot), file("snapshot", &newest.snapshot)),
        ("targets", file("targets", &first.targets), file("targets", &newest.targets)),
    ] {
        let mirror = copy(&repository, name);
        fs::copy(mirror.join(&shown), mirror.join(&place)).unwrap();
        repository.web.serve(&mirror);
        let reason = repelled(&device, &release(2));
        assert!(CHANGED.contains(&reason.code) && reason.detail.contains(name), "{reason}");
    }
    // The newest metadata and an older bundle's files.
    let mirror = copy(&repository, "blobs");
    fs::copy(mirror.join(Repository::model_blob("v1")), mirror.join(Repository::model_blob("v2"))).unwrap();
    repository.web.serve(&mirror);
    assert!(CHANGED.contains(&repelled(&device, &release(2)).code));
    repository.web.serve(&repository.folder());
    device.update(&release(2)).unwrap();
}

#[test]
fn wrong_software() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2", "v5"]);
    let device = Device::serving(Options::new(&broker, &repository), &release(1));
    // Release 5 is the owner's, signed and on the list; release 2 was asked for.
    let mirror = copy(&repository, "manifest");
    fs::copy(manifest(&mirror, 5), manifest(&mirror, 2)).unwrap();
    repository.web.serve(&mirror);
    assert!(CHANGED.contains(&repelled(&device, &release(2)).code));
    let mirror = copy(&repository, "model");
    fs::copy(mirror.join(Repository::model_blob("v5")), mirror.join(Repository::model_blob("v2"))).unwrap();
    repository.web.serve(&mirror);
    assert!(CHANGED.contains(&repelled(&device, &release(2)).code));
    repository.web.serve(&repository.folder());
    device.update(&release(2)).unwrap();
}

#[test]
fn malicious_mirror() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v1"]);
    let device = Device::serving(Options::new(&broker, &repository), &release(1));
    // It hides what is new: whoever asks for it hears so, with what there is.
    let hiding = copy(&repository, "hiding");
    repository.publish_variant("v2", "2.0.0", |_, _| {});
    repository.web.serve(&hiding);
    let reason = repelled(&device, &release(2));
    assert_eq!(reason.code, NotFound);
    assert!(reason.detail.contains("it has 1.0.0"), "{reason}");
    // It lets the newest timestamp through, and nothing that belongs to it.
    let newest = copy(&repository, "withholding");
    for role in ["snapshot", "targets"] {
        let metadata = Metadata::of(&newest);
        let of = if role == "snapshot" { &metadata.snapshot } else { &metadata.targets };
        let path = newest.join(format!("metadata/{}.{role}.json", version(of)));
        let kept = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        repository.web.serve(&newest);
        assert_eq!(repelled(&device, &release(2)).code, RepositoryUnreachable);
        fs::write(&path, kept).unwrap();
    }
    let told = device.status().health;
    assert!(told.problems.iter().any(|one| one.code == ProblemCode::RepositoryUnreachable), "{told:?}");
    assert!(!told.repository.reached);
    // It answers with errors, nonsense, and somebody else's files.
    for (trouble, codes) in [
        (Trouble::Status(500), &[RepositoryUnreachable][..]),
        (Trouble::Status(403), &[RepositoryUnreachable]),
        (Trouble::Flip, &[SignatureInvalid, Malformed]),
        (Trouble::Shorter(5), &[SignatureInvalid, Malformed]),
    ] {
        repository.web.trouble("timestamp.json", trouble);
        let reason = repelled(&device, &release(2));
        assert!(codes.contains(&reason.code), "{trouble:?}: {reason}");
        repository.web.well();
    }
    let stranger = Repository::with(&["v5"]);
    repository.web.serve(&stranger.folder());
    assert_eq!(repelled(&device, &release(2)).code, SignatureInvalid);
    // Whatever it did, the owner's repository is taken as soon as it is seen again.
    repository.web.serve(&repository.folder());
    device.update(&release(2)).unwrap();
    assert!(device.status().health.repository.reached);
}

#[test]
fn a_kill_between_two_files_of_the_metadata_sets_nothing_back() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v1"]);
    let mut device = Device::serving(Options::new(&broker, &repository), &release(1));
    let old = copy(&repository, "old");
    repository.publish_variant("v2", "2.0.0", |_, _| {});
    let snapshot = format!("{}.snapshot.json", version(&Metadata::of(&repository.folder()).snapshot));
    repository.web.trouble(&snapshot, Trouble::Stall(0));
    drop(device.send("update", json!({ "slot": SLOT, "release": release(2) })));
    wait_until("the timestamp is kept and the snapshot is asked for", PATIENCE, || {
        repository.web.asked().iter().any(|(path, _)| path.contains(&snapshot)).then_some(())
    });
    device.kill();
    device.until("the last will", |heard| (heard.availability.last()? == "offline").then_some(()));
    for name in ["root.json", "timestamp.json", "snapshot.json", "targets.json"] {
        let kept = fs::read(device.path("state/metadata").join(name)).unwrap();
        assert!(serde_json::from_slice::<Value>(&kept).unwrap()["signed"].is_object(), "{name} is whole");
    }
    // The next start goes on with the update, and the mirror shows the time before.
    repository.web.well();
    repository.web.serve(&old);
    device.forget();
    device.start();
    let reason = device.until("its end", |heard| {
        let deployment = heard.states.last()?.deployment.as_ref()?;
        (deployment.stage == Stage::Refused).then(|| deployment.reason.clone()).flatten()
    });
    assert_eq!(reason.code, OlderThanSeen, "{reason}");
    look(&device, &release(2), &reason);
    repository.web.serve(&repository.folder());
    device.update(&release(2)).unwrap();
}
