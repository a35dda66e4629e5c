//! A real device that follows its owner: rotations, delegations, releases taken away, files that come late.

use super::Desk;
use crate::support::device::{Device, Options, Repository, SLOT, model, release, variant};
use crate::support::mosquitto::Mosquitto;
use crate::support::web::Web;
use edgewarden::domain::ReasonCode;
use edgewarden::domain::deployment::Stage;
use edgewarden::trust::keys::Key;
use edgewarden::trust::{Expiry, InitOptions, export};
use serde_json::{Value, json};
use std::path::Path;

/// A device of the repository on a desk, which it reaches through a web server.
fn device(desk: &Desk, broker: &Mosquitto, web: &Web) -> Device {
    let root = desk.path("fleet/metadata/1.root.json");
    let options = Options::default()
        .broker(broker)
        .set("repository.url", web.url())
        .set("repository.root", root.to_str().unwrap())
        .set("repository.retries", 1);
    let mut device = Device::new(options);
    device.start();
    device
}

/// Waits until it says that this release serves.
fn serves(device: &Device, release: &str) {
    device.until(release, |heard| heard.current().filter(|now| now == release));
}

/// Copies a committed model here under another name and version.
fn bundle(desk: &Desk, from: &str, name: &str, version: &str) -> String {
    let folder = format!("{name}-{version}");
    variant(&model(from), &desk.path(&folder), version, |_, manifest| manifest["name"] = name.into());
    folder
}

#[test]
fn a_device_follows_its_owners_to_new_keys() {
    let desk = Desk::new();
    for name in ["alice", "bob", "carol"] {
        desk.key(name);
    }
    let both = "--sign-with alice/alice.pem --sign-with bob/bob.pem";
    desk.good(&format!(
        "repo init fleet --role-key root,targets=alice/alice.pub --role-key root,targets=bob/bob.pub --threshold root,targets=2 {both}"
    ));
    let first = bundle(&desk, "v1", "finder", "1.0.0");
    desk.good(&format!("repo publish fleet {first} {both}"));
    let (broker, web) = (Mosquitto::start(), Web::start(&desk.path("fleet")));
    let device = device(&desk, &broker, &web);
    device.update("finder@1.0.0").unwrap();

    // Alice's key is lost and the online one stolen: both are replaced at once.
    let of = |file: &str| desk.json(&format!("repo key show {file}"))["id"].as_str().unwrap().to_owned();
    desk.good("repo key new fleet-keys/online.pem");
    desk.good(&format!(
        "repo root rotate fleet --add root,targets=carol/carol.pub --revoke root,targets={} --add snapshot,timestamp=fleet-keys/online.pub --revoke snapshot,timestamp={} {both} --sign-with carol/carol.pem",
        of("alice/alice.pub"),
        of("fleet-keys/signing.pem"),
    ));
    let now = "--sign-with bob/bob.pem --sign-with carol/carol.pem";
    let second = bundle(&desk, "v2", "finder", "2.0.0");
    desk.good(&format!("repo publish fleet {second} {now}"));
    device.update("finder@2.0.0").unwrap();
    serves(&device, "finder@2.0.0");

    // What the old keys sign is worth nothing to it: the same repository as Alice and the thief continue it.
    let thief = desk.copy();
    let old = thief.path("fleet");
    for version in 2..9 {
        let _ = std::fs::remove_file(old.join(format!("metadata/{version}.root.json")));
    }
    let online = Key::load(&thief.path("fleet-keys/signing.pem")).unwrap();
    forge(&old, |_, timestamp| timestamp["version"] = json!(1000), &online);
    web.serve(&old);
    let reason = device.update("finder@1.0.0").unwrap_err();
    assert!(reason.code.is_trust(), "{reason}");
    web.serve(&desk.path("fleet"));
    device.update("finder@1.0.0").unwrap();
}

/// Signs the snapshot and the timestamp of a repository again by a key, after a change.
fn forge(repository: &Path, change: impl FnOnce(&mut Value, &mut Value), key: &Key) {
    let metadata = repository.join("metadata");
    let read = |name: &str| -> Value {
        serde_json::from_slice::<Value>(&std::fs::read(metadata.join(name)).unwrap()).unwrap()["signed"]
            .take()
    };
    let mut timestamp = read("timestamp.json");
    let version = timestamp["meta"]["snapshot.json"]["version"].as_u64().unwrap();
    let mut snapshot = read(&format!("{version}.snapshot.json"));
    change(&mut snapshot, &mut timestamp);
    let version = snapshot["version"].as_u64().unwrap();
    let bytes = signed(&snapshot, &[key]);
    std::fs::write(metadata.join(format!("{version}.snapshot.json")), &bytes).unwrap();
    timestamp["meta"]["snapshot.json"] = json!({ "version": version });
    std::fs::write(metadata.join("timestamp.json"), signed(&timestamp, &[key])).unwrap();
}

/// A metadata file; nothing in it needs more of the canonical form than sorted names without blanks.
fn signed(payload: &Value, keys: &[&Key]) -> Vec<u8> {
    let bytes = serde_json::to_vec(payload).unwrap();
    let signatures: Vec<Value> =
        keys.iter().map(|key| json!({ "keyid": key.id(), "sig": key.sign(&bytes) })).collect();
    serde_json::to_vec(&json!({ "signatures": signatures, "signed": payload })).unwrap()
}

#[test]
fn a_supplier_reaches_a_device_under_its_own_names_and_no_others() {
    let desk = Desk::new();
    desk.good("repo init fleet");
    desk.key("acme");
    desk.good("repo delegate fleet acme --paths face-* --key acme/acme.pub --sign-with acme/acme.pem");
    let faces = bundle(&desk, "v1", "face-finder", "1.0.0");
    // The owner puts it there; the supplier signs it at home.
    assert_eq!(desk.json(&format!("repo publish fleet {faces} --delegation acme"))["state"], "waiting");
    desk.sign_at("acme");
    assert_eq!(desk.back_from("acme"), "live");
    let own = bundle(&desk, "v2", "finder", "2.0.0");
    desk.bad(&format!("repo publish fleet {own} --delegation acme"), 1, "covers only face-*");
    let (broker, web) = (Mosquitto::start(), Web::start(&desk.path("fleet")));
    let device = device(&desk, &broker, &web);
    device.update("face-finder@1.0.0").unwrap();

    // A supplier that has stolen the online key as well lists a model under another name.
    let stolen = desk.copy();
    let fleet = stolen.path("fleet");
    let placed = stolen.good(&format!("repo publish fleet {own}"));
    assert!(placed.contains("Published finder@2.0.0"), "{placed}");
    let list: Value = newest(&fleet, "targets");
    let entry = list["targets"]["finder/2.0.0/manifest.json"].clone();
    stolen.good("repo delist fleet finder@2.0.0");
    let mut acme = newest(&fleet, "acme");
    acme["targets"]["finder/2.0.0/manifest.json"] = entry.clone();
    acme["targets"]["face-finder/3.0.0/manifest.json"] = entry;
    let version = acme["version"].as_u64().unwrap() + 1;
    acme["version"] = json!(version);
    let bytes = signed(&acme, &[&Key::load(&stolen.path("acme/acme.pem")).unwrap()]);
    std::fs::write(fleet.join(format!("metadata/{version}.acme.json")), bytes).unwrap();
    let online = Key::load(&stolen.path("fleet-keys/signing.pem")).unwrap();
    forge(
        &fleet,
        |snapshot, timestamp| {
            snapshot["meta"]["acme.json"] = json!({ "version": version });
            for role in [snapshot, timestamp] {
                role["version"] = json!(role["version"].as_u64().unwrap() + 1);
            }
        },
        &online,
    );
    web.serve(&fleet);
    let reason = device.update("finder@2.0.0").unwrap_err();
    assert_eq!(reason.code, ReasonCode::NotFound, "{reason}");
    // The forgery itself is whole: under the supplier's own names it leads to a manifest, of another release.
    let reason = device.update("face-finder@3.0.0").unwrap_err();
    assert!(reason.code == ReasonCode::RepositoryUnreachable || reason.code.is_trust(), "{reason}");
    serves(&device, "face-finder@1.0.0");
}

/// The newest payload of a role.
fn newest(repository: &Path, role: &str) -> Value {
    let of = |version: u64| repository.join(format!("metadata/{version}.{role}.json"));
    let version = (1..100).rev().find(|version| of(*version).exists()).unwrap();
    serde_json::from_slice::<Value>(&std::fs::read(of(version)).unwrap()).unwrap()["signed"].take()
}

#[test]
fn a_delegated_release_travels_in_a_file_with_all_that_proves_it() {
    let desk = Desk::new();
    desk.good("repo init fleet");
    desk.key("acme");
    let key = "--sign-with acme/acme.pem";
    desk.good(&format!("repo delegate fleet acme --paths face-* --key acme/acme.pub {key}"));
    let faces = bundle(&desk, "v1", "face-finder", "1.0.0");
    desk.good(&format!("repo publish fleet {faces} --delegation acme {key}"));
    desk.good("repo export fleet face-finder@1.0.0 -o faces.bundle");
    desk.good("bundle verify faces.bundle --root fleet/metadata/1.root.json");
    let (broker, web) = (Mosquitto::start(), Web::start(Path::new("/nonexistent")));
    let device = device(&desk, &broker, &web);
    device.status();
    let installed = device.cli(["install", desk.path("faces.bundle").to_str().unwrap()]);
    assert_eq!(installed.code, Some(0), "{}", installed.stderr);
    serves(&device, "face-finder@1.0.0");
}

#[test]
fn a_release_that_was_taken_off_the_list_does_not_come_back() {
    let desk = Desk::new();
    desk.good("repo init fleet");
    for (from, version) in [("v1", "1.0.0"), ("v2", "2.0.0"), ("v1", "3.0.0")] {
        let folder = bundle(&desk, from, "finder", version);
        desk.good(&format!("repo publish fleet {folder}"));
    }
    let (broker, web) = (Mosquitto::start(), Web::start(&desk.path("fleet")));
    let device = device(&desk, &broker, &web);
    device.update("finder@1.0.0").unwrap();
    device.update("finder@2.0.0").unwrap();
    desk.good("repo export fleet finder@1.0.0 -o old.bundle");
    desk.good("repo delist fleet finder@1.0.0");
    // It sees the new list with the next thing that it is asked for.
    let reason = device.update("finder@1.0.0").unwrap_err();
    assert_eq!(reason.code, ReasonCode::NotFound, "{reason}");
    let reason = device.command("rollback", json!({ "slot": SLOT })).unwrap_err();
    assert!(reason.code == ReasonCode::NotFound && reason.detail.contains("taken off"), "{reason}");
    let installed = device.cli(["install", desk.path("old.bundle").to_str().unwrap()]);
    assert_eq!(installed.code, Some(2), "{}", installed.stderr);
    serves(&device, "finder@2.0.0");
    // Where nothing was taken away a rollback works, also without the repository.
    device.update("finder@3.0.0").unwrap();
    web.serve(Path::new("/nonexistent"));
    device.command("rollback", json!({ "slot": SLOT })).unwrap();
    serves(&device, "finder@2.0.0");
}

#[test]
fn a_release_that_was_taken_off_the_list_does_not_come_back_by_ending_a_probation() {
    let desk = Desk::new();
    desk.good("repo init fleet");
    let first = bundle(&desk, "v1", "finder", "1.0.0");
    desk.good(&format!("repo publish fleet {first}"));
    let (broker, web) = (Mosquitto::start(), Web::start(&desk.path("fleet")));
    let mut device = device(&desk, &broker, &web);
    device.update("finder@1.0.0").unwrap();
    assert!(device.stop().success());
    device.configure(|options| {
        options.set("update.probation_frames", 1_000_000).set("update.probation_max", "1h")
    });
    device.start();
    device.until_frames(3);
    let second = bundle(&desk, "v2", "finder", "2.0.0");
    desk.good(&format!("repo publish fleet {second}"));
    desk.good("repo delist fleet finder@1.0.0");
    let _update = device.send("update", json!({ "slot": SLOT, "release": "finder@2.0.0" }));
    device.until("a probation", |heard| (heard.stage()? == Stage::Probation).then_some(()));
    for command in ["rollback", "abort"] {
        let reason = device.command(command, json!({ "slot": SLOT })).unwrap_err();
        assert!(
            reason.code == ReasonCode::NotFound && reason.detail.contains("taken off"),
            "{command}: {reason}"
        );
    }
    device.until_frames(3);
    serves(&device, "finder@2.0.0");
}

#[test]
fn a_file_that_comes_late_is_taken_where_the_owner_allows_it_but_never_below_what_was_seen() {
    let options = InitOptions { expiry: Expiry { timestamp: 5, ..Expiry::default() } };
    let long_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * 30);
    let mut repository = Repository::at(&["v1"], options, long_ago);
    let export = |repository: &Repository, number: u32, name: &str| {
        let out = repository.dir.path().join(name);
        let release = release(number).parse().unwrap();
        export::export(&repository.folder(), &release, &out, long_ago, &|_| {}).unwrap();
        out
    };
    let first = export(&repository, 1, "first.bundle");
    repository.publisher.publish(&model("v2"), long_ago, &|_| {}).unwrap();
    let second = export(&repository, 2, "second.bundle");
    let root = repository.publisher.pinned_root();
    let options = Options::default().set("repository.root", root.to_str().unwrap());
    let mut device = Device::new(options.clone());
    device.start();
    let install = |device: &Device, file: &Path| device.cli(["install", file.to_str().unwrap()]);
    device.status();
    let refused = install(&device, &second);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("expired"), "{}", refused.stderr);
    device.stop();
    device.configure(|options| options.set("update.sideload_grace", "60d"));
    device.start();
    device.status();
    let taken = install(&device, &second);
    assert_eq!(taken.code, Some(0), "{}", taken.stderr);
    let older = install(&device, &first);
    assert_eq!(older.code, Some(2), "{}", older.stderr);
    assert!(older.stderr.contains("older_than_seen"), "{}", older.stderr);
    // Grace is for files: the same repository over the network is as old as it is.
    device.stop();
    let url = url_of(&repository.folder());
    device.configure(|options| options.set("repository.url", url.as_str()));
    device.start();
    device.status();
    let update = device.cli(["update", SLOT, &release(1)]);
    assert_eq!(update.code, Some(2), "{}", update.stderr);
    assert!(update.stderr.contains("expired"), "{}", update.stderr);
}

fn url_of(folder: &Path) -> String {
    format!("file://{}/", folder.display())
}
