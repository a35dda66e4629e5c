//! What metadata may hold: fields that nobody knows, several hashes, and no more bytes than its role has.

use super::super::tuf;
use super::*;
use ReasonCode::*;

const TARGET: &str = "detector/1.0.0/manifest.json";

#[test]
fn each_file_is_asked_for_with_the_limit_of_its_role() {
    let lab = Lab::with_one();
    let key = Key::generate().unwrap();
    let files = lab.forge(|forgery| {
        let mut root = forgery.root.clone();
        root["version"] = json!(2);
        forgery.roots.push((root, vec![lab.key()]));
        super::attacks::delegate(forgery, 1, &key);
    });
    let served = Arc::new(Served::new(files.clone()));
    let client = RepositoryClient::forgetful(served.clone(), lab.root());
    at_once(client.resolve(&"detector@1.0.0".parse().unwrap(), lab.now)).unwrap();
    let asked = served.asked.lock().unwrap().clone();
    let manifest = files.keys().find(|name| name.ends_with(".manifest.json")).unwrap();
    let expected = [
        ("metadata/2.root.json", tuf::MAX_ROOT),
        ("metadata/3.root.json", tuf::MAX_ROOT),
        ("metadata/timestamp.json", tuf::MAX_TIMESTAMP),
        ("metadata/2.snapshot.json", tuf::MAX_SNAPSHOT),
        ("metadata/2.targets.json", tuf::MAX_TARGETS),
        ("metadata/1.models-1.json", tuf::MAX_TARGETS),
        (manifest.as_str(), files[manifest].len() as u64),
    ];
    assert_eq!(asked, expected.map(|(path, max)| (path.to_owned(), max)));
    // And whoever sends more is refused, for each of them.
    for (path, max) in asked {
        let mut files = files.clone();
        files.insert(path.clone(), vec![b' '; max as usize + 1]);
        assert_eq!(lab.refusal(files), SizeMismatch, "{path}");
    }
}

#[test]
fn unknown_fields_are_accepted_kept_and_signed_with_the_rest() {
    let lab = Lab::with_one();
    let extra = json!({ "a": [1, 2, { "b": null }], "c": "ü\n\"\\", "d": false });
    let files = lab.forge(|forgery| {
        let mut root = forgery.root.clone();
        root["version"] = json!(2);
        root["x-new"] = extra.clone();
        root["roles"]["snapshot"]["x-new"] = extra.clone();
        for key in root["keys"].as_object_mut().unwrap().values_mut() {
            key["x-new"] = extra.clone();
        }
        forgery.roots.push((root, vec![lab.key()]));
        for payload in [&mut forgery.targets, &mut forgery.snapshot, &mut forgery.timestamp] {
            payload["x-new"] = extra.clone();
        }
        forgery.targets["targets"][TARGET]["custom"] = extra.clone();
        forgery.snapshot["meta"]["other.json"] = json!({ "version": 3, "x-new": extra });
    });
    let device = lab.device(Arc::new(Served::new(files.clone())));
    at_once(device.resolve(&"detector@1.0.0".parse().unwrap(), lab.now)).unwrap();
    let seen = tree(&lab.dir.path().join("seen"));
    for (kept, served) in [
        ("root.json", "metadata/2.root.json"),
        ("root_history/2.root.json", "metadata/2.root.json"),
        ("timestamp.json", "metadata/timestamp.json"),
        ("snapshot.json", "metadata/2.snapshot.json"),
        ("targets.json", "metadata/2.targets.json"),
    ] {
        assert_eq!(seen[kept], files[served], "{kept}: byte for byte as served");
    }
    // Nobody can slip one in, take one out or change one afterwards.
    for (name, code) in
        [("metadata/2.root.json", SignatureInvalid), ("metadata/timestamp.json", SignatureInvalid)]
    {
        let changes: [fn(&mut Value); 3] = [
            |signed| signed["x-other"] = json!(1),
            |signed| drop(signed.as_object_mut().unwrap().remove("x-new")),
            |signed| signed["x-new"]["a"][0] = json!(2),
        ];
        for change in changes {
            let mut file: Value = serde_json::from_slice(&files[name]).unwrap();
            change(&mut file["signed"]);
            let mut files = files.clone();
            files.insert(name.to_owned(), serde_json::to_vec(&file).unwrap());
            assert_eq!(lab.refusal(files), code, "{name}");
        }
    }
}

/// The digests that a pin may have, by their names.
fn hashes(bytes: &[u8], names: &[&str]) -> Value {
    use sha2::{Digest as _, Sha512};
    let named = names.iter().map(|name| {
        let digest = match *name {
            "sha256" => sha256(bytes).to_string(),
            "sha512" => hex::encode(Sha512::digest(bytes)),
            _ => "00".repeat(20),
        };
        ((*name).to_owned(), json!(digest))
    });
    Value::Object(named.collect())
}

#[test]
fn of_several_hashes_every_known_one_must_fit_and_one_must_be_known() {
    let lab = Lab::with_one();
    let manifest = lab.files().into_iter().find(|(name, _)| name.ends_with(".manifest.json")).unwrap().1;
    let wrong = |mut hashes: Value, name: &str| {
        hashes[name] = json!("00".repeat(if name == "sha512" { 64 } else { 32 }));
        hashes
    };
    for (names, accepted) in [
        (&["sha256"][..], Ok(())),
        (&["sha256", "sha512"], Ok(())),
        (&["sha256", "sha512", "blake3"], Ok(())),
        // Ours is part of the file's name, and of the bundle's identity.
        (&["sha512"], Err(Malformed)),
        (&["blake3"], Err(Malformed)),
        (&[], Err(Malformed)),
    ] {
        let files =
            lab.forge(|forgery| forgery.targets["targets"][TARGET]["hashes"] = hashes(&manifest, names));
        assert_eq!(lab.resolve(files).map(drop).map_err(|reason| reason.code), accepted, "{names:?}");
    }
    let forged = |hashes: Value| lab.forge(|forgery| forgery.targets["targets"][TARGET]["hashes"] = hashes);
    let both = hashes(&manifest, &["sha256", "sha512"]);
    assert_eq!(lab.refusal(forged(wrong(both.clone(), "sha512"))), DigestMismatch);
    // The file's name is made of it, so that there is none of that name.
    assert_eq!(lab.refusal(forged(wrong(both, "sha256"))), RepositoryUnreachable);
}

#[test]
fn metadata_may_be_pinned_by_any_known_hash_or_by_its_version_alone() {
    let lab = Lab::with_one();
    let pinned = |pin: &dyn Fn(&[u8]) -> Value| {
        let mut files = lab.files();
        let snapshot = files["metadata/2.snapshot.json"].clone();
        // The same under another number.
        files.insert("metadata/3.snapshot.json".to_owned(), snapshot.clone());
        let mut timestamp = payload(&files["metadata/timestamp.json"]);
        timestamp["meta"]["snapshot.json"] = pin(&snapshot);
        files.insert("metadata/timestamp.json".to_owned(), signed(&timestamp, [&lab.key()]));
        lab.resolve(files).map(drop).map_err(|reason| reason.code)
    };
    for names in [&["sha512"][..], &["sha256", "sha512", "blake3"]] {
        assert_eq!(pinned(&|bytes| json!({ "version": 2, "hashes": hashes(bytes, names) })), Ok(()));
    }
    assert_eq!(pinned(&|_| json!({ "version": 2 })), Ok(()), "length and hashes may be left out");
    let other = |bytes: &[u8]| json!({ "version": 2, "hashes": hashes(bytes, &["blake3"]) });
    assert_eq!(pinned(&other), Err(DigestMismatch), "a hash that cannot be checked is none");
    assert_eq!(pinned(&|_| json!({ "version": 2, "length": 10 })), Err(SizeMismatch));
    assert_eq!(pinned(&|_| json!({ "version": 3 })), Err(DigestMismatch), "another version than it says");
}

#[test]
fn odd_metadata_is_refused_whichever_role() {
    let lab = Lab::with_one();
    let roles: [fn(&mut Forgery) -> &mut Value; 3] =
        [|f| &mut f.targets, |f| &mut f.snapshot, |f| &mut f.timestamp];
    let oddities: [fn(&mut Value); 7] = [
        |signed| signed["_type"] = json!("root"),
        |signed| signed["spec_version"] = json!("2.0.0"),
        |signed| drop(signed.as_object_mut().unwrap().remove("version")),
        |signed| signed["version"] = json!("2"),
        |signed| signed["version"] = json!(-1),
        |signed| signed["expires"] = json!("soon"),
        |signed| drop(signed.as_object_mut().unwrap().remove("expires")),
    ];
    for role in roles {
        for odd in oddities {
            let reason = lab.resolve(lab.forge(|forgery| odd(role(forgery)))).unwrap_err();
            assert_eq!(reason.code, Malformed, "{reason}");
        }
    }
}
