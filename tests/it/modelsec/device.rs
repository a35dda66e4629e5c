//! Encrypted bundles on a device.

use super::{encrypted, has, holding, marks, new_key};
use crate::support::device::{Device, Options, Repository, SLOT, model, release};
use crate::support::mosquitto::Mosquitto;
use edgewarden::bundle;
use edgewarden::domain::ReasonCode;
use edgewarden::sys::age::Recipient;
use serde_json::json;
use std::path::Path;

/// Publishes a committed bundle under another version, encrypted; gives the release.
fn publish(repository: &mut Repository, name: &str, version: &str, recipients: &[Recipient]) -> String {
    let folder = encrypted(repository.dir.path(), name, version, recipients);
    repository.publisher.publish(&folder, jiff::Timestamp::now(), &|_| {}).expect("publish");
    format!("belt-inspector@{version}")
}

/// Everything regular that a process has open or mapped.
fn open_files(pid: u32) -> Vec<std::path::PathBuf> {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let mut files: Vec<_> = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok()).collect();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    files.extend(
        maps.lines().filter_map(|line| line.split_once('/')).map(|(_, path)| format!("/{path}").into()),
    );
    files.sort();
    files.dedup();
    // What the kernel itself tells is no file; reading some of it waits for ever.
    files.retain(|file| !file.starts_with("/proc") && !file.starts_with("/sys"));
    files.retain(|file| file.metadata().is_ok_and(|meta| meta.is_file()));
    files
}

fn files_below(folder: &Path) -> usize {
    holding(folder, &[]).1
}

#[test]
fn an_encrypted_model_serves_and_nothing_of_it_is_on_the_disk() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v1"]);
    let mut device = Device::new(
        Options::new(&broker, &repository)
            .set("runtime.model_keys", vec!["group.txt"])
            .set("update.shadow_frames", 5)
            // Another model is no fault here.
            .set("update.shadow_min_agreement", 0.0),
    );
    std::fs::create_dir(device.path("state")).unwrap();
    let own = new_key(&device.path("state/model-key.txt"));
    let group = new_key(&device.path("group.txt"));
    let [secret, next] = [
        publish(&mut repository, "v2", "12.0.0", &[own]),
        publish(&mut repository, "v2", "13.0.0", &[group]),
    ];
    device.start();
    device.update(&release(1)).unwrap();
    device.until_frames(3);

    // The search finds a model that is not encrypted, and so would find one that should be.
    let plain = marks(&model("v1").join("model.onnx"));
    let found = holding(&device.path("state/models"), &plain).0;
    assert_eq!(found.len(), 1, "{found:?}");
    let of_plain = bundle::files::sha256(&std::fs::read(model("v1").join("model.onnx")).unwrap()).to_string();
    assert!(files_below(&device.path("state/engines")) > 0, "the graph of a plain model is kept");
    let kept = |device: &Device| {
        let all = std::fs::read_dir(device.path("state/engines")).unwrap().flatten();
        let others = all.filter(|entry| entry.file_name().to_string_lossy() != of_plain);
        others.map(|entry| files_below(&entry.path())).sum::<usize>()
    };
    assert_eq!(kept(&device), 0);

    // Golden inputs, the shadow, the swap and the probation, with the device's own key.
    let marks = marks(&model("v2").join("model.onnx"));
    let told = device.update(&secret).unwrap();
    assert_eq!(told["shadow"]["frames"].as_u64().map(|n| n >= 5), Some(true), "{told}");
    device.until_frames(3);
    let child = device.child("infer");
    let open = open_files(child);
    assert!(open.iter().any(|file| file.to_string_lossy().contains("onnxruntime")), "{open:?}");
    // The program itself brings these models along, for its demo.
    for file in open.into_iter().filter(|file| !file.ends_with("edgewarden")) {
        let bytes = std::fs::read(&file).unwrap_or_default();
        assert!(!has(&bytes, &marks), "process {child} has the plain model open: {}", file.display());
    }
    let limits = std::fs::read_to_string(format!("/proc/{child}/limits")).unwrap();
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().take(2).collect::<Vec<_>>(), ["1", "1"], "a crash leaves no dump");

    // The same with the group's, a rollback to a secret one, and a restart.
    device.update(&next).unwrap();
    device.command("rollback", json!({ "slot": SLOT })).unwrap();
    device.until("the rollback", |heard| (heard.current()? == secret).then_some(()));
    device.until_frames(3);
    device.stop();
    device.forget();
    device.start();
    device.until_frames(3);
    assert_eq!(device.status().health.pipelines[0].release.as_ref().unwrap().to_string(), secret);

    let (found, seen) = holding(device.folder.path(), &marks);
    assert!(found.is_empty() && seen > 10, "{found:?} of {seen} files");
    assert_eq!(kept(&device), 0, "no graph of a secret model is kept");
    // Nor in the memory that processes share, which has names, too.
    assert!(holding(Path::new("/dev/shm"), &marks).0.is_empty());
}

#[test]
fn a_device_without_the_key_says_which_and_keeps_what_it_has() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v1"]);
    let elsewhere = new_key(&repository.dir.path().join("elsewhere"));
    let secret = publish(&mut repository, "v2", "12.0.0", &[elsewhere]);
    let mut device = Device::serving(Options::new(&broker, &repository), &release(1));
    let reason = device.update(&secret).unwrap_err();
    assert_eq!(reason.code, ReasonCode::KeyMissing, "{reason}");
    for part in [elsewhere.to_string().as_str(), "model-key.txt", "runtime.model_keys"] {
        assert!(reason.detail.contains(part), "{part}: {reason}");
    }
    device.until_frames(3);

    // With another key it says whose that is; with the right one the same release is taken.
    let own = new_key(&device.path("state/model-key.txt"));
    let reason = device.update(&secret).unwrap_err();
    assert!(reason.code == ReasonCode::KeyMissing && reason.detail.contains(&own.to_string()), "{reason}");
    std::fs::copy(repository.dir.path().join("elsewhere"), device.path("state/model-key.txt")).unwrap();
    device.update(&secret).unwrap();
    assert_eq!(device.status().slots[0].current.as_ref().unwrap().release.to_string(), secret);

    // A key that was lost: the model cannot be loaded again, and the device says why.
    device.stop();
    std::fs::remove_file(device.path("state/model-key.txt")).unwrap();
    device.forget();
    device.start();
    device.until("the fault in the health report", |heard| {
        let told = serde_json::to_string(heard.health.last()?).unwrap();
        told.contains("key_missing").then_some(())
    });
}

/// As a unit with `LoadCredentialEncrypted=` finds it; who decrypts it, and with what, is systemd's matter.
#[test]
fn a_key_among_the_units_credentials_opens_a_model() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v1"]);
    let credentials = tempfile::tempdir().unwrap();
    let key = credentials.path().join("model-key");
    let group = new_key(&key);
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
    let options = Options::new(&broker, &repository)
        .env("CREDENTIALS_DIRECTORY", credentials.path().to_str().unwrap())
        .set("runtime.model_keys", vec!["credential:model-key"]);
    let device = Device::serving(options, &release(1));
    let secret = publish(&mut repository, "v2", "14.0.0", &[group]);
    device.update(&secret).unwrap();
    assert_eq!(device.status().slots[0].current.as_ref().unwrap().release.to_string(), secret);
}

/// Damage by whoever publishes: signed all the same, so that it arrives.
#[test]
fn a_damaged_encryption_is_refused_in_the_trial() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v1"]);
    let mut device = Device::serving(Options::new(&broker, &repository), &release(1));
    let own = new_key(&device.path("state/model-key.txt"));
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 4] = [
        ("20.0.0", |bytes| bytes.truncate(bytes.len() - 100)),
        ("20.0.1", |bytes| bytes[20_000] ^= 1),
        ("20.0.2", |bytes| bytes[60] ^= 1),
        ("20.0.3", |bytes| bytes.extend([0; 16])),
    ];
    for (version, damage) in damages {
        let folder = encrypted(repository.dir.path(), "v2", version, &[own]);
        let mut bytes = std::fs::read(folder.join("model.onnx")).unwrap();
        damage(&mut bytes);
        std::fs::write(folder.join("model.onnx"), &bytes).unwrap();
        let mut manifest = bundle::read(&folder).unwrap().0;
        let entry = manifest.files.iter_mut().find(|file| file.path == "model.onnx").unwrap();
        (entry.sha256, entry.size) = (bundle::files::sha256(&bytes), bytes.len() as u64);
        bundle::write_manifest(&folder, &manifest).unwrap();
        repository.publisher.publish(&folder, jiff::Timestamp::now(), &|_| {}).expect("publish");
        let reason = device.update(&format!("belt-inspector@{version}")).unwrap_err();
        let expected = [ReasonCode::Malformed, ReasonCode::KeyMissing];
        assert!(expected.contains(&reason.code), "{version}: {reason}");
        assert_eq!(device.status().slots[0].current.as_ref().unwrap().release.to_string(), release(1));
    }
    // On the device's disk: what was staged is fetched anew, what serves is told.
    let secret = publish(&mut repository, "v2", "20.1.0", &[own]);
    device.update(&secret).unwrap();
    let current = device.status().slots[0].current.clone().unwrap();
    let file = device.path(&format!("state/models/{}/model.onnx", current.digest));
    device.stop();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[20_000] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    device.forget();
    device.start();
    device.until("the fault in the health report", |heard| {
        let told = serde_json::to_string(heard.health.last()?).unwrap();
        told.contains("digest_mismatch").then_some(())
    });
}
