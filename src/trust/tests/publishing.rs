//! The publisher: what it writes, what it refuses, and what an interruption leaves behind.

use super::*;
use crate::bundle::layout;

#[test]
fn releases_are_listed_and_share_the_files_that_are_the_same() {
    let lab = Lab::new();
    let first = lab.publish("detector@1.0.0").unwrap();
    assert_eq!((first.fresh, first.new_files), (true, 2));
    let second = lab.publish("detector@1.1.0").unwrap();
    assert_eq!((second.fresh, second.new_files), (true, 1));
    lab.publish("counter@0.1.0-rc.1").unwrap();
    let overview = super::super::export::overview(&lab.repository(), None).unwrap();
    let releases: Vec<String> = overview.releases.iter().map(|offer| offer.release.to_string()).collect();
    assert_eq!(releases, ["counter@0.1.0-rc.1", "detector@1.0.0", "detector@1.1.0"]);
    assert_eq!(overview.releases[1].digest, first.digest);
    assert_eq!(overview.releases[1].size, first.total_bytes);
    assert_eq!(overview.expires["timestamp"], later(lab.now, 90));
}

#[test]
fn the_same_bundle_again_changes_nothing_and_another_one_is_refused() {
    let lab = Lab::with_one();
    let before = lab.files();
    let again = lab.publish("detector@1.0.0").unwrap();
    assert_eq!((again.fresh, again.new_files), (false, 0));
    assert_eq!(lab.files(), before);
    let other = lab.bundle("detector@1.0.0", b"another model");
    let reason = lab.publisher().publish(&other, lab.now, &|_| {}).unwrap_err();
    assert_eq!(reason.code, ReasonCode::BadRequest);
    assert_eq!(lab.files(), before);
}

#[test]
fn a_damaged_or_missing_file_is_mended_by_publishing_again() {
    let lab = Lab::with_one();
    let before = lab.files();
    for name in before.keys().filter(|name| name.starts_with("blobs/") || name.starts_with("targets/")) {
        fs::write(lab.repository().join(name), b"damaged").unwrap();
        lab.publish("detector@1.0.0").unwrap();
        fs::remove_file(lab.repository().join(name)).unwrap();
        lab.publish("detector@1.0.0").unwrap();
        assert_eq!(lab.files(), before, "{name}");
    }
}

#[test]
fn an_interrupted_publish_leaves_the_old_repository_valid_at_every_step() {
    let lab = Lab::with_one();
    let old = lab.files();
    lab.publish("detector@1.1.0").unwrap();
    let new = lab.files();
    // In the order in which they are written.
    let order = |name: &&String| match name.split_once('/').unwrap() {
        ("blobs", _) => 0,
        ("targets", _) => 1,
        (_, name) if name.ends_with("targets.json") => 2,
        (_, name) if name.ends_with("snapshot.json") => 3,
        (_, name) => 4 + usize::from(name == "timestamp.json"),
    };
    let mut changed: Vec<&String> = new.keys().filter(|name| old.get(*name) != new.get(*name)).collect();
    changed.sort_by_key(order);
    assert_eq!(changed.last().unwrap().as_str(), "metadata/timestamp.json");
    let replaced: Vec<_> = changed.iter().filter(|name| old.contains_key(**name)).collect();
    assert_eq!(replaced.len(), 1, "nothing but the timestamp may change in place: {replaced:?}");
    for step in 0..changed.len() {
        let mut files = old.clone();
        files.extend(changed[..step].iter().map(|name| ((*name).clone(), new[*name].clone())));
        lab.resolve(files.clone()).unwrap();
        // And the publisher goes on from there.
        let other = Lab { dir: tempfile::tempdir().unwrap(), now: lab.now };
        write_tree(&other.repository(), &files);
        write_tree(&other.keys(), &tree(&lab.keys()));
        fs::remove_dir_all(other.keys().join("seen")).unwrap();
        restrict(&other.keys());
        other.publish("detector@1.1.0").unwrap();
        other.publish("detector@1.2.0").unwrap();
        other.resolve(other.files()).unwrap();
    }
}

fn write_tree(root: &Path, files: &Files) {
    for (name, bytes) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

fn restrict(keys: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(keys.join("signing.pem"), fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn the_publisher_does_not_sign_what_somebody_else_put_there() {
    let lab = Lab::with_one();
    let honest = lab.files();
    let stranger = Key::generate().unwrap();
    let mut targets = payload(&honest["metadata/2.targets.json"]);
    targets["targets"]["evil/1.0.0/manifest.json"] =
        targets["targets"]["detector/1.0.0/manifest.json"].clone();
    write_tree(
        &lab.repository(),
        &Files::from([("metadata/2.targets.json".to_owned(), signed(&targets, [&stranger]))]),
    );
    // Built from scratch the publisher has no memory; the signatures alone must tell.
    fs::remove_dir_all(lab.keys().join("seen")).unwrap();
    assert!(lab.publish("detector@1.1.0").unwrap_err().code.is_trust());

    let lab = Lab::with_one();
    let old = lab.files();
    lab.publish("detector@1.1.0").unwrap();
    write_tree(&lab.repository(), &old);
    assert_eq!(lab.publish("detector@1.2.0").unwrap_err().code, ReasonCode::OlderThanSeen);
}

#[test]
fn the_same_keys_time_and_bundles_give_the_same_bytes() {
    let lab = Lab::new();
    let other = Lab { dir: tempfile::tempdir().unwrap(), now: lab.now };
    fs::create_dir_all(other.keys()).unwrap();
    fs::copy(lab.keys().join("signing.pem"), other.keys().join("signing.pem")).unwrap();
    Publisher::init(&other.repository(), &other.keys(), InitOptions::default(), lab.now).unwrap();
    for lab in [&lab, &other] {
        lab.publish("detector@1.0.0").unwrap();
    }
    assert_eq!(lab.files(), other.files());
}

#[test]
fn a_refresh_signs_again_what_runs_out_and_mends_an_expired_repository() {
    let lab = Lab::with_one();
    let roles = |resigned: Vec<super::super::publish::Resigned>| {
        let mut roles: Vec<_> = resigned.into_iter().map(|r| (r.role, r.version)).collect();
        roles.sort();
        roles
    };
    let expected =
        |roles: &[(&str, u64)]| roles.iter().map(|(r, v)| ((*r).to_owned(), *v)).collect::<Vec<_>>();
    let lab = Lab { now: later(lab.now, 100), ..lab };
    assert_eq!(lab.refusal(lab.files()), ReasonCode::Expired);
    assert_eq!(
        roles(lab.publisher().refresh(lab.now).unwrap()),
        expected(&[("snapshot", 3), ("timestamp", 3)])
    );
    lab.resolve(lab.files()).unwrap();
    let lab = Lab { now: later(lab.now, 1200), ..lab };
    let all = expected(&[("root", 2), ("snapshot", 4), ("targets", 3), ("timestamp", 4)]);
    assert_eq!(roles(lab.publisher().refresh(lab.now).unwrap()), all);
    lab.resolve(lab.files()).unwrap();
}

#[test]
fn init_refuses_what_would_leak_or_overwrite() {
    let lab = Lab::new();
    let init = |repository: &Path, keys: &Path| {
        Publisher::init(repository, keys, InitOptions::default(), lab.now).map(drop).unwrap_err()
    };
    let inside = lab.dir.path().join("web");
    let reason = init(&inside, &inside.join("keys"));
    assert!(reason.detail.contains("inside the repository"), "{reason}");
    let reason = init(&lab.repository(), &lab.keys());
    assert!(reason.detail.contains("exists already"), "{reason}");
    let reason = init(&lab.dir.path().join("second"), &lab.keys());
    assert!(reason.detail.contains("another repository"), "{reason}");
    let _held = lab.publisher();
    assert_eq!(Publisher::open(&lab.repository(), &lab.keys()).unwrap_err().code, ReasonCode::Busy);
    let options = InitOptions { expiry: super::super::Expiry { root: 0, ..Default::default() } };
    let none = Publisher::init(&lab.dir.path().join("a"), &lab.dir.path().join("b"), options, lab.now);
    assert_eq!(none.unwrap_err().code, ReasonCode::BadRequest);
}

#[test]
fn all_the_world_can_read_the_repository_and_its_owner_alone_the_keys() {
    use std::os::unix::fs::PermissionsExt;
    let lab = Lab::with_one();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for name in lab.files().keys() {
        assert_eq!(mode(&lab.repository().join(name)) & 0o400, 0o400, "{name}");
        let metadata = mode(&lab.repository().join(layout::metadata("timestamp.json")));
        assert_eq!(mode(&lab.repository().join(name)), metadata, "{name}");
    }
    assert_eq!(mode(&lab.keys()), 0o700);
    assert_eq!(mode(&lab.keys().join("signing.pem")), 0o600);
}

#[test]
fn what_other_tools_put_into_the_metadata_stays_and_nothing_is_made_up() {
    let lab = Lab::with_one();
    let extra = json!({ "note": "by another tool", "list": [1, 2] });
    let forged = lab.forge(|forgery| {
        forgery.targets["version"] = json!(3);
        forgery.targets["x-other"] = extra.clone();
        forgery.targets["targets"]["detector/1.0.0/manifest.json"]["custom"] = extra.clone();
        forgery.targets["targets"]["operators.json"] =
            json!({ "length": 1, "hashes": { "sha256": sha256(b"x") } });
        forgery.snapshot["version"] = json!(3);
        forgery.snapshot["meta"]["models.json"] = json!({ "version": 7, "x-other": 1 });
        forgery.timestamp["version"] = json!(3);
    });
    write_tree(&lab.repository(), &forged);
    lab.publish("detector@1.1.0").unwrap();
    let files = lab.files();
    let targets = payload(&files["metadata/4.targets.json"]);
    assert_eq!(targets["x-other"], extra);
    assert_eq!(targets["targets"]["detector/1.0.0/manifest.json"]["custom"], extra);
    assert!(targets["targets"]["operators.json"].is_object());
    assert_eq!(
        payload(&files["metadata/4.snapshot.json"])["meta"]["models.json"],
        json!({ "version": 7, "x-other": 1 })
    );
    for (name, bytes) in files.iter().filter(|(name, _)| name.starts_with("metadata/")) {
        // The reference client refuses a null where a field may be absent.
        assert!(!String::from_utf8_lossy(bytes).contains("null"), "{name}");
    }
}

#[test]
fn a_desk_walks_through_more_roots_than_a_device_takes_at_once() {
    let lab = Lab::with_one();
    for _ in 0..=super::super::tuf::MAX_ROOT_ROTATIONS {
        lab.publisher().rotate(&[], lab.now).unwrap();
    }
    assert_eq!(lab.refusal(lab.files()), ReasonCode::Malformed);
    let overview = super::super::export::overview(&lab.repository(), None).unwrap();
    assert_eq!(overview.releases.len(), 1);
}
