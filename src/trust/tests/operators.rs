//! The list of operators: read, published, kept, revoked, withheld, and who may not make one.

use super::*;
use crate::domain::authority::Role;
use crate::trust::export::export;
use crate::trust::operators::{self, Operators};
use crate::trust::sideload::ArchiveTransport;
use ReasonCode::*;

fn public(seed: u8) -> String {
    Key::from_seed(&[seed; 32]).unwrap().public_hex()
}

fn id(seed: u8) -> Digest {
    Key::from_seed(&[seed; 32]).unwrap().id().parse().unwrap()
}

fn list(operators: Value) -> Vec<u8> {
    json!({ "format": 1, "operators": operators }).to_string().into_bytes()
}

fn anna() -> Value {
    json!({ "name": "anna", "key": public(1), "roles": ["deploy"] })
}

fn ben() -> Value {
    json!({ "name": "ben", "key": public(2), "roles": ["observe", "operate"], "groups": ["line-3"] })
}

impl Lab {
    fn appoint(&self, operators: Value) {
        self.publisher().set_operators(&list(operators), self.now).unwrap();
    }

    /// What a device with a memory knows after a look at `files`.
    fn known(&self, files: Files) -> Result<Operators, Reason> {
        let device = self.device(Arc::new(Served::new(files)));
        // Whether it went well is seen by what is kept.
        let _ = at_once(device.refresh_operators(self.now));
        self.kept()
    }

    /// What it knows without a network.
    fn kept(&self) -> Result<Operators, Reason> {
        operators::kept(&self.root(), &self.dir.path().join("seen"))
    }
}

#[test]
fn a_list_is_read_and_its_keys_are_known_by_their_tuf_ids() {
    let operators = operators::parse(&list(json!([anna(), ben()]))).unwrap();
    assert!(operators.is_listed());
    let (key, ben) = operators.get(&id(2)).unwrap();
    assert_eq!(hex::encode(key), public(2));
    assert_eq!(ben.name.as_str(), "ben");
    assert_eq!(ben.roles, [Role::Observe, Role::Operate].into());
    assert_eq!(ben.groups.as_ref().unwrap().len(), 1);
    assert_eq!(operators.get(&id(3)), None);
    assert_eq!(operators::parse(&list(json!([]))).unwrap().iter().count(), 0, "nobody may be listed");
}

#[test]
fn a_list_with_a_fault_is_refused_whole() {
    let with = |field: &str, value: Value| {
        let mut entry = anna();
        entry[field] = value;
        list(json!([entry]))
    };
    let many: Vec<Value> = (0..=operators::MAX_OPERATORS).map(|_| anna()).collect();
    for (bytes, says) in [
        (b"[]".to_vec(), "JSON object"),
        (b"{".to_vec(), "EOF"),
        (json!({ "format": 2, "operators": [] }).to_string().into_bytes(), "format 2"),
        (json!({ "format": 1, "operators": [], "x": 1 }).to_string().into_bytes(), "unknown field"),
        (with("roles", json!(["admin"])), "unknown variant"),
        (with("roles", json!([])), "roles of anna"),
        (with("key", json!("ab")), "key of anna"),
        (with("key", json!("zz".repeat(32))), "key of anna"),
        // The neutral point: every message has a signature of it that some verifiers let pass.
        (with("key", json!(format!("01{}", "00".repeat(31)))), "key of anna"),
        (with("name", json!("a/b")), "operator name"),
        (with("groups", json!(["+"])), "device id"),
        (with("expires", json!("never")), ""),
        (with("admin", json!(true)), "unknown field"),
        (list(json!([anna(), anna()])), "anna is listed twice"),
        (list(json!([anna(), { "name": "eve", "key": public(1), "roles": ["observe"] }])), "key of eve"),
        (list(many.into()), "more than 256"),
    ] {
        let reason = operators::parse(&bytes).unwrap_err();
        assert!(reason.code == Malformed && reason.detail.contains(says), "{says}: {reason}");
    }
    let long = vec![b' '; operators::MAX_LIST as usize + 1];
    assert_eq!(operators::parse(&long).unwrap_err().code, SizeMismatch);
}

#[test]
fn a_list_is_published_kept_replaced_and_dropped() {
    let lab = Lab::with_one();
    let owner: Digest = lab.key().id().parse().unwrap();
    // Before any look at the repository, and before there is a list: who may sign releases.
    for known in [lab.kept(), lab.known(lab.files())] {
        let known = known.unwrap();
        assert!(!known.is_listed() && known.get(&owner).is_some() && known.get(&id(1)).is_none());
        assert_eq!(known.get(&owner).unwrap().1.roles, Role::ALL.into());
    }
    assert_eq!(lab.publisher().operators().unwrap(), None);

    lab.appoint(json!([anna(), ben()]));
    assert!(!lab.publisher().set_operators(&list(json!([anna(), ben()])), lab.now).unwrap().1);
    assert_eq!(lab.publisher().operators().unwrap(), Some(list(json!([anna(), ben()]))));
    assert!(!lab.kept().unwrap().is_listed(), "the device has not looked yet");
    let known = lab.known(lab.files()).unwrap();
    assert!(known.is_listed() && known.get(&id(1)).is_some() && known.get(&id(2)).is_some());
    assert_eq!(known.get(&owner), None, "the owner commands only where nobody is listed");
    assert_eq!(lab.kept().unwrap(), known);

    lab.appoint(json!([ben()]));
    let known = lab.known(lab.files()).unwrap();
    assert!(known.get(&id(1)).is_none() && known.get(&id(2)).is_some(), "a revoked key is gone");
    assert_eq!(lab.kept().unwrap(), known);

    assert!(lab.publisher().drop_operators(lab.now).unwrap());
    assert!(!lab.publisher().drop_operators(lab.now).unwrap());
    let known = lab.known(lab.files()).unwrap();
    assert!(!known.is_listed() && known.get(&owner).is_some());
    lab.resolve(lab.files()).unwrap();
}

#[test]
fn an_update_brings_the_list_with_it() {
    let lab = Lab::with_one();
    lab.appoint(json!([anna()]));
    let device = lab.device(Arc::new(Served::new(lab.files())));
    at_once(device.resolve(&"detector@1.0.0".parse().unwrap(), lab.now)).unwrap();
    assert!(lab.kept().unwrap().get(&id(1)).is_some());
    // Also one that fails, and one from a stick.
    lab.appoint(json!([ben()]));
    let device = lab.device(Arc::new(Served::new(lab.files())));
    assert_eq!(
        at_once(device.resolve(&"detector@9.0.0".parse().unwrap(), lab.now)).unwrap_err().code,
        NotFound
    );
    assert!(lab.kept().unwrap().get(&id(1)).is_none());
    lab.appoint(json!([anna()]));
    let stick = lab.dir.path().join("detector.bundle");
    let release: Release = "detector@1.0.0".parse().unwrap();
    export(&lab.repository(), &release, &stick, lab.now, &|_| {}).unwrap();
    let device = lab.device(Arc::new(ArchiveTransport::open(&stick).unwrap()));
    at_once(device.resolve(&release, lab.now)).unwrap();
    assert!(lab.kept().unwrap().get(&id(1)).is_some());
}

/// A mirror that shows the new list of targets and keeps the new list of operators back, to keep a revoked
/// key alive.
#[test]
fn a_list_that_is_withheld_or_changed_leaves_nobody_in_command() {
    let lab = Lab::with_one();
    lab.appoint(json!([anna(), ben()]));
    lab.known(lab.files()).unwrap();
    lab.appoint(json!([ben()]));
    let path = |files: &Files| {
        let name = crate::bundle::layout::operators(&crate::bundle::files::sha256(&list(json!([ben()]))));
        assert!(files.contains_key(&name));
        name
    };
    let mut withheld = lab.files();
    withheld.remove(&path(&withheld));
    assert_eq!(lab.known(withheld).unwrap_err().code, RepositoryUnreachable);
    let mut changed = lab.files();
    changed.insert(path(&changed), list(json!([anna(), ben()])));
    assert!(lab.known(changed).is_err());
    // The honest one mends it.
    assert!(lab.known(lab.files()).unwrap().get(&id(2)).is_some());
}

#[test]
fn what_was_kept_is_verified_again_when_it_is_loaded() {
    let lab = Lab::with_one();
    lab.appoint(json!([ben()]));
    lab.known(lab.files()).unwrap();
    let seen = lab.dir.path().join("seen");
    for name in ["operators.target", "targets.json"] {
        let good = fs::read(seen.join(name)).unwrap();
        let mut bad = good.clone();
        let at = bad.len() / 2;
        bad[at] ^= 1;
        fs::write(seen.join(name), bad).unwrap();
        lab.kept().unwrap_err();
        fs::write(seen.join(name), good).unwrap();
        lab.kept().unwrap();
    }
    fs::write(seen.join("operators.target"), list(json!([anna()]))).unwrap();
    lab.kept().unwrap_err();
    fs::remove_file(seen.join("operators.target")).unwrap();
    lab.kept().unwrap_err();
    fs::write(seen.join("operators.target"), list(json!([ben()]))).unwrap();
    fs::rename(seen.join("targets.json"), seen.join("away")).unwrap();
    lab.kept().expect_err("a list that nothing vouches for, and no word that there is none");
    fs::rename(seen.join("away"), seen.join("targets.json")).unwrap();
    lab.kept().unwrap();
    // Another root than that of the repository.
    let stranger = Lab::with_one();
    operators::kept(&stranger.root(), &seen).unwrap_err();
    operators::kept(b"", &seen).unwrap_err();
    // Nothing there at all: nobody, and no list to be wrong about.
    let empty = lab.dir.path().join("nothing");
    assert_eq!(operators::kept(b"", &empty).unwrap(), Operators::none());
}

/// Whom the owner lets publish models under every path must not be able to appoint operators.
#[test]
fn a_delegated_role_cannot_appoint_operators() {
    let lab = Lab::with_one();
    let models = Key::from_seed(&[9; 32]).unwrap();
    let evil = list(json!([{ "name": "eve", "key": public(9), "roles": ["deploy"] }]));
    let digest = crate::bundle::files::sha256(&evil);
    let mut files = lab.forge(|forgery| {
        forgery.targets["delegations"] = json!({
            "keys": { models.id(): models.public() },
            "roles": [{ "name": "models", "keyids": [models.id()], "threshold": 1, "terminating": false,
                        "paths": ["*"] }],
        });
        let role = json!({
            "_type": "targets", "spec_version": "1.0.31", "version": 1, "expires": "2030-01-01T00:00:00Z",
            "targets": { "operators.json": { "length": evil.len(), "hashes": { "sha256": digest } } },
        });
        let bytes = signed(&role, [&models]);
        forgery.snapshot["meta"]["models.json"] = roles::pin(1, &bytes);
        forgery.files.insert("metadata/1.models.json".to_owned(), bytes);
        for role in [&mut forgery.targets, &mut forgery.snapshot, &mut forgery.timestamp] {
            role["version"] = (roles::version(role) + 1).into();
        }
    });
    files.insert(crate::bundle::layout::operators(&digest), evil);
    let known = lab.known(files).unwrap();
    assert!(!known.is_listed() && known.get(&id(9)).is_none());
}

#[test]
fn where_releases_need_two_signatures_no_single_key_stands_in_for_a_list() {
    let lab = Lab::with_one();
    let mut root = payload(&lab.root());
    root["roles"]["targets"]["threshold"] = json!(2);
    let pinned = signed(&root, [&lab.key()]);
    let known = operators::kept(&pinned, &lab.dir.path().join("nothing")).unwrap();
    assert_eq!(known, Operators::none());
}
