//! Each attack by name: what is done to the repository, and the code that refuses it.

use super::*;
use ReasonCode::*;

const TARGET: &str = "detector/1.0.0/manifest.json";

#[test]
fn the_honest_repository_is_accepted() {
    let lab = Lab::with_one();
    let verified = lab.resolve(lab.files()).unwrap();
    let signed = verified.get();
    assert_eq!(signed.release().to_string(), "detector@1.0.0");
    assert_eq!(signed.digest, sha256(&signed.bytes));
}

#[test]
fn any_changed_byte_of_metadata_or_manifest_is_refused() {
    let lab = Lab::with_one();
    // A root chain of two: near its end of life the root is renewed.
    let lab = Lab { now: later(lab.now, 700), ..lab };
    lab.publisher().refresh(lab.now).unwrap();
    let files = lab.files();
    lab.resolve(files.clone()).unwrap();
    let newest = |role: &str| files.keys().filter(|name| name.ends_with(role)).max().unwrap().clone();
    let pinned = [newest(".snapshot.json"), newest(".targets.json"), newest(".manifest.json")];
    let unpinned = ["metadata/2.root.json".to_owned(), "metadata/timestamp.json".to_owned()];
    for name in pinned.iter().chain(&unpinned) {
        for at in (0..files[name].len()).step_by(3) {
            let mut files = files.clone();
            files.get_mut(name).unwrap()[at] ^= 1;
            let code = lab.refusal(files);
            if pinned.contains(name) {
                assert_eq!(code, DigestMismatch, "{name} at {at}");
            } else {
                assert!(matches!(code, SignatureInvalid | Malformed), "{name} at {at}: {code:?}");
            }
        }
    }
}

#[test]
fn a_byte_more_or_fewer_is_refused() {
    let lab = Lab::with_one();
    for name in lab.files().keys().filter(|name| name.contains(".snapshot.") || name.contains(".manifest.")) {
        let mut more = lab.files();
        more.get_mut(name).unwrap().push(b' ');
        let mut fewer = lab.files();
        fewer.get_mut(name).unwrap().pop();
        // An older snapshot is asked for by nobody.
        if name != "metadata/1.snapshot.json" {
            assert_eq!(lab.refusal(more), SizeMismatch, "{name}");
            assert_eq!(lab.refusal(fewer), SizeMismatch, "{name}");
        }
    }
}

#[test]
fn a_missing_file_is_told_and_accepted_by_nobody() {
    let lab = Lab::with_one();
    for name in ["timestamp.json", "2.snapshot.json", "2.targets.json"] {
        let mut files = lab.files();
        files.remove(&format!("metadata/{name}")).unwrap();
        let reason = lab.resolve(files).unwrap_err();
        assert_eq!(reason.code, RepositoryUnreachable);
        assert!(reason.detail.contains(name), "{reason}");
    }
    let mut files = lab.files();
    files.retain(|name, _| !name.ends_with("manifest.json"));
    assert_eq!(lab.refusal(files), RepositoryUnreachable);
    let client = RepositoryClient::forgetful(Arc::new(Served::new(lab.files())), lab.root());
    let reason = at_once(client.resolve(&"detector@9.0.0".parse().unwrap(), lab.now)).unwrap_err();
    assert_eq!(reason.code, NotFound);
    assert!(reason.detail.contains("1.0.0"), "{reason}");
}

#[test]
fn keys_that_the_root_does_not_list_count_for_nothing() {
    let lab = Lab::with_one();
    let stranger = Lab::with_one();
    assert_eq!(lab.refusal(stranger.files()), SignatureInvalid);
    let forged = lab.forge(|forgery| forgery.signer = Key::generate().unwrap());
    assert_eq!(lab.refusal(forged), SignatureInvalid);
    let mut root = payload(&lab.root());
    root["version"] = json!(2);
    let forged = lab.forge(|forgery| forgery.roots.push((root, vec![Key::generate().unwrap()])));
    assert_eq!(lab.refusal(forged), SignatureInvalid);
}

#[test]
fn expired_metadata_is_refused_whichever_role() {
    let lab = Lab::with_one();
    let long_ago = json!("2026-05-01T00:00:00Z");
    let roles: [fn(&mut Forgery) -> &mut Value; 3] =
        [|f| &mut f.targets, |f| &mut f.snapshot, |f| &mut f.timestamp];
    for role in roles {
        assert_eq!(lab.refusal(lab.forge(|forgery| role(forgery)["expires"] = long_ago.clone())), Expired);
    }
    let mut root = payload(&lab.root());
    root["version"] = json!(2);
    root["expires"] = long_ago;
    let forged = lab.forge(|forgery| forgery.roots.push((root, vec![lab.key()])));
    assert_eq!(lab.refusal(forged), Expired);
    let lab = Lab { now: later(lab.now, 91), ..lab };
    let reason = lab.resolve(lab.files()).unwrap_err();
    assert!(reason.detail.contains("repo refresh"), "{reason}");
}

#[test]
fn a_repository_older_than_seen_is_refused_also_after_a_restart() {
    let lab = Lab::with_one();
    let old = lab.files();
    lab.publish("detector@1.1.0").unwrap();
    let release: Release = "detector@1.0.0".parse().unwrap();
    at_once(lab.device(Arc::new(Served::new(lab.files()))).resolve(&release, lab.now)).unwrap();
    let device = lab.device(Arc::new(Served::new(old.clone())));
    assert_eq!(at_once(device.resolve(&release, lab.now)).unwrap_err().code, OlderThanSeen);
    // The old list under a new timestamp, by a key that was stolen: the list's own version gives it away.
    let replayed = lab.forge(|forgery| {
        forgery.timestamp["version"] = json!(50);
        forgery.snapshot["version"] = json!(50);
        forgery.targets = payload(&old["metadata/2.targets.json"]);
    });
    let device = lab.device(Arc::new(Served::new(replayed)));
    assert_eq!(at_once(device.resolve(&release, lab.now)).unwrap_err().code, OlderThanSeen);
}

#[test]
fn a_frozen_repository_is_refused_when_its_time_is_over() {
    let lab = Lab::with_one();
    let release: Release = "detector@1.0.0".parse().unwrap();
    let device = lab.device(Arc::new(Served::new(lab.files())));
    at_once(device.resolve(&release, lab.now)).unwrap();
    at_once(device.resolve(&release, later(lab.now, 89))).unwrap();
    assert_eq!(at_once(device.resolve(&release, later(lab.now, 91))).unwrap_err().code, Expired);
}

#[test]
fn endless_data_is_refused_for_every_file() {
    let lab = Lab::with_one();
    let served = Arc::new(Served::new(lab.files()));
    let client = RepositoryClient::forgetful(served.clone(), lab.root());
    at_once(client.resolve(&"detector@1.0.0".parse().unwrap(), lab.now)).unwrap();
    let asked = served.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 5, "{asked:?}");
    for (path, max) in asked {
        assert!(max <= 8 << 20, "{path}: {max}");
        let mut files = lab.files();
        files.insert(path.clone(), vec![b' '; max as usize + 1]);
        assert_eq!(lab.refusal(files), SizeMismatch, "{path}");
    }
    let huge = lab.forge(|forgery| forgery.targets["targets"][TARGET]["length"] = json!(1u64 << 40));
    assert_eq!(lab.refusal(huge), SizeMismatch);
}

#[test]
fn a_signed_manifest_of_another_release_is_refused() {
    let lab = Lab::with_one();
    lab.publish("detector@2.0.0").unwrap();
    let forged = lab.forge(|forgery| {
        let other = forgery.targets["targets"]["detector/2.0.0/manifest.json"].clone();
        let digest: Digest = other["hashes"]["sha256"].as_str().unwrap().parse().unwrap();
        let bytes = forgery.files[&format!("targets/detector/2.0.0/{digest}.manifest.json")].clone();
        forgery.files.insert(format!("targets/detector/1.0.0/{digest}.manifest.json"), bytes);
        forgery.targets["targets"][TARGET] = other;
    });
    let reason = lab.resolve(forged).unwrap_err();
    assert_eq!(reason.code, Malformed);
    assert!(reason.detail.contains("detector@2.0.0"), "{reason}");
}

#[test]
fn a_target_without_a_sha256_is_refused() {
    let lab = Lab::with_one();
    let forged = lab.forge(|forgery| forgery.targets["targets"][TARGET]["hashes"] = json!({ "md5": "00" }));
    assert_eq!(lab.refusal(forged), Malformed);
}

#[test]
fn one_key_under_two_ids_counts_once() {
    let lab = Lab::with_one();
    let key = lab.key();
    // Threshold 2, "met" by one key that signs under two names; a second real key stands beside it.
    let mut root = payload(&lab.root());
    root["version"] = json!(2);
    root["keys"]["second-name"] = key.public();
    for role in ["root", "targets", "snapshot", "timestamp"] {
        root["roles"][role] = json!({ "keyids": [key.id(), "second-name"], "threshold": 2 });
    }
    let twice = |payload: &Value| {
        let sig = key.sign(&super::super::tuf::canonical(payload).unwrap());
        let signatures = json!([{ "keyid": key.id(), "sig": sig }, { "keyid": "second-name", "sig": sig }]);
        serde_json::to_vec(&json!({ "signatures": signatures, "signed": payload })).unwrap()
    };
    let mut files = lab.files();
    files.insert("metadata/2.root.json".to_owned(), twice(&root));
    let reason = lab.resolve(files).unwrap_err();
    assert_eq!(reason.code, SignatureInvalid);
    assert!(reason.detail.contains("another id"), "{reason}");
    // As the pinned root as well.
    root["version"] = json!(1);
    let client = RepositoryClient::forgetful(Arc::new(Served::new(lab.files())), twice(&root));
    let reason = at_once(client.list(lab.now)).unwrap_err();
    assert_eq!(reason.code, SignatureInvalid);
    assert!(reason.detail.contains("another id"), "{reason}");
}

#[test]
fn a_threshold_needs_as_many_keys() {
    let lab = Lab::with_one();
    let (first, second) = (lab.key(), Key::generate().unwrap());
    let mut root = payload(&lab.root());
    root["version"] = json!(2);
    root["keys"][second.id()] = second.public();
    for role in ["targets", "snapshot", "timestamp"] {
        root["roles"][role] = json!({ "keyids": [first.id(), second.id()], "threshold": 2 });
    }
    let chain = vec![(root, vec![lab.key()])];
    assert_eq!(lab.refusal(lab.forge(|forgery| forgery.roots = chain)), SignatureInvalid);
}

#[test]
fn root_rotations_are_capped_and_go_on_at_the_next_try() {
    let lab = Lab::with_one();
    let endless = lab.forge(|forgery| {
        for version in 2..=40 {
            let mut root = forgery.root.clone();
            root["version"] = json!(version);
            forgery.roots.push((root, vec![Key::from_seed(&forgery.signer.seed()).unwrap()]));
        }
    });
    let served = Arc::new(Served::new(endless));
    let device = lab.device(served.clone());
    let reason = at_once(device.list(lab.now)).unwrap_err();
    assert_eq!(reason.code, Malformed, "{reason}");
    assert_eq!(served.asked.lock().unwrap().len(), 32);
    at_once(device.list(lab.now)).unwrap();
}

#[test]
fn a_fast_forward_is_undone_by_a_new_root() {
    // A thief of the online key makes a device see version a million; the owner rotates the key.
    for role in ["timestamp", "snapshot"] {
        let lab = Lab::with_one();
        let device = |files| lab.device(Arc::new(Served::new(files)));
        let honest = lab.files();
        let fast = lab.forge(|forgery| {
            forgery.timestamp["version"] = json!(1_000_000);
            forgery.snapshot["version"] = json!(1_000_000);
        });
        at_once(device(fast).list(lab.now)).unwrap();
        assert_eq!(at_once(device(honest).list(lab.now)).unwrap_err().code, OlderThanSeen);
        let recovered = lab.forge(|forgery| {
            let second = Key::generate().unwrap();
            let mut root = forgery.root.clone();
            root["version"] = json!(2);
            root["keys"][second.id()] = second.public();
            root["roles"][role] = json!({ "keyids": [forgery.signer.id(), second.id()], "threshold": 1 });
            forgery.roots.push((root, vec![lab.key()]));
        });
        at_once(device(recovered).list(lab.now)).unwrap();
    }
}

#[test]
fn a_floor_that_cannot_be_kept_or_read_fails_the_refresh() {
    let lab = Lab::with_one();
    let seen = lab.dir.path().join("seen");
    fs::write(&seen, b"a file where the folder should be").unwrap();
    let device = lab.device(Arc::new(Served::new(lab.files())));
    assert_eq!(at_once(device.list(lab.now)).unwrap_err().code, Internal);
    fs::remove_file(&seen).unwrap();
    at_once(device.list(lab.now)).unwrap();
    fs::remove_file(seen.join("timestamp.json")).unwrap();
    fs::create_dir(seen.join("timestamp.json")).unwrap();
    assert_eq!(at_once(device.list(lab.now)).unwrap_err().code, Internal);
}

#[test]
fn what_a_device_keeps_does_not_grow_with_the_releases() {
    let lab = Lab::with_one();
    for version in ["detector@1.1.0", "detector@1.2.0"] {
        lab.publish(version).unwrap();
        let device = lab.device(Arc::new(Served::new(lab.files())));
        at_once(device.resolve(&version.parse().unwrap(), lab.now)).unwrap();
    }
    let kept: Vec<String> = tree(&lab.dir.path().join("seen")).into_keys().collect();
    let expected =
        ["root.json", "root_history/1.root.json", "snapshot.json", "targets.json", "timestamp.json"];
    assert_eq!(kept, expected);
}

#[test]
fn a_pinned_root_that_is_none_is_told_as_such() {
    let lab = Lab::with_one();
    for root in [&b""[..], b"{}", b"\x00\xff", &lab.files()["metadata/timestamp.json"]] {
        let client = RepositoryClient::forgetful(Arc::new(Served::new(lab.files())), root.to_owned());
        let reason = at_once(client.list(lab.now)).unwrap_err();
        assert_eq!(reason.code, Malformed);
        assert!(reason.detail.starts_with("pinned root"), "{reason}");
    }
}

/// Puts `chain` roles, each delegating all releases to the next, below the list; the last one has the
/// release. All are signed by `key`.
pub(super) fn delegate(forgery: &mut Forgery, chain: usize, key: &Key) {
    let target = forgery.targets["targets"].as_object_mut().unwrap().remove(TARGET).unwrap();
    let to = |n: usize| {
        let role = json!({
            "name": format!("models-{n}"), "keyids": [key.id()], "threshold": 1, "terminating": false,
            "paths": ["*/*/manifest.json"],
        });
        json!({ "keys": { key.id(): key.public() }, "roles": [role] })
    };
    forgery.targets["delegations"] = to(1);
    for n in 1..=chain {
        let mut role = forgery.targets.clone();
        role["version"] = json!(1);
        role["targets"] = json!({});
        if n < chain {
            role["delegations"] = to(n + 1);
        } else {
            role.as_object_mut().unwrap().remove("delegations");
            role["targets"][TARGET] = target.clone();
        }
        let bytes = signed(&role, [key]);
        forgery.snapshot["meta"][format!("models-{n}.json")] = roles::pin(1, &bytes);
        forgery.files.insert(format!("metadata/1.models-{n}.json"), bytes);
    }
}

#[test]
fn a_delegated_role_is_followed_and_a_chain_of_them_is_capped() {
    let lab = Lab::with_one();
    let models = Key::generate().unwrap();
    lab.resolve(lab.forge(|forgery| delegate(forgery, 1, &models))).unwrap();
    let endless = Arc::new(Served::new(lab.forge(|forgery| delegate(forgery, 100, &models))));
    let client = RepositoryClient::forgetful(endless.clone(), lab.root());
    let reason = at_once(client.resolve(&"detector@1.0.0".parse().unwrap(), lab.now)).unwrap_err();
    assert_eq!(reason.code, NotFound);
    let asked = endless.asked.lock().unwrap();
    let delegated = asked.iter().filter(|(path, _)| path.contains("models-")).count();
    assert_eq!(
        delegated,
        super::super::tuf::MAX_DELEGATIONS as usize - 1,
        "the list itself is the first role"
    );
    drop(asked);
    // The key of the role is the one that the list names, and may be there under one id only.
    let stranger = Key::generate().unwrap();
    let foreign = lab.forge(|forgery| {
        delegate(forgery, 1, &models);
        let bytes = signed(&payload(&forgery.files["metadata/1.models-1.json"]), [&stranger]);
        forgery.snapshot["meta"]["models-1.json"] = roles::pin(1, &bytes);
        forgery.files.insert("metadata/1.models-1.json".to_owned(), bytes);
    });
    assert_eq!(lab.refusal(foreign), SignatureInvalid);
    let double = lab.forge(|forgery| {
        delegate(forgery, 1, &models);
        forgery.targets["delegations"]["keys"]["second-name"] = models.public();
    });
    assert_eq!(lab.refusal(double), SignatureInvalid);
}
