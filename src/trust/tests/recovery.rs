//! What an owner finds after a crash, an old backup of the key folder, or a second founding.

use super::super::publish::keyring::Edit;
use super::super::publish::{Founding, Outcome};
use super::super::signer::Signer;
use super::super::state::to_bytes;
use super::*;

/// A repository whose lists need a key that is not in the key folder, before that key has signed, and the key.
fn begun_by(keys: &str, lab: &Lab, absent: &Key) {
    let founding =
        Founding { keys: [("targets".to_owned(), vec![absent.public_key()])].into(), ..Founding::default() };
    let keys = lab.dir.path().join(keys);
    let (_, outcome) = Publisher::found(&lab.repository(), &keys, &founding, vec![], lab.now).unwrap();
    assert!(matches!(outcome, Outcome::Waiting { .. }));
}

fn empty() -> (Lab, Key) {
    let lab = Lab { dir: tempfile::tempdir().unwrap(), now: "2026-06-01T12:00:00Z".parse().unwrap() };
    (lab, Key::generate().unwrap())
}

fn again(key: &Key) -> Vec<Signer> {
    vec![Signer::from(Key::from_seed(&key.seed()).unwrap())]
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    for (name, bytes) in tree(from) {
        fs::create_dir_all(to.join(&name).parent().unwrap()).unwrap();
        fs::write(to.join(name), bytes).unwrap();
    }
}

/// Keys that all the world can read are not taken.
fn restrict(keys: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(keys.join("signing.pem"), fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_backup_from_before_the_founding_overwrites_nothing_and_the_remedy_works() {
    let (lab, absent) = empty();
    begun_by("fleet-keys", &lab, &absent);
    let backup = lab.dir.path().join("backup");
    copy(&lab.keys(), &backup);
    let mut publisher = Publisher::open_unfinished(&lab.repository(), &lab.keys()).unwrap();
    publisher = publisher.with_signers(again(&absent));
    assert!(matches!(publisher.sign(None, lab.now).unwrap().outcome, Outcome::Live { .. }));
    let bundle = lab.bundle("detector@1.0.0", b"one");
    assert!(publisher.publish(&bundle, lab.now, &|_| {}).unwrap().live);
    drop(publisher);

    copy(&backup, &lab.keys());
    restrict(&lab.keys());
    let before = lab.files();
    let reason = Publisher::open_unfinished(&lab.repository(), &lab.keys()).unwrap_err();
    assert_eq!(reason.code, ReasonCode::BadRequest);
    assert!(
        reason.detail.contains("was begun already") && reason.detail.contains("as root.json"),
        "{reason}"
    );
    assert_eq!(lab.files(), before);

    fs::write(lab.keys().join("root.json"), lab.root()).unwrap();
    let mut publisher = lab.publisher().with_signers(again(&absent));
    publisher.sign(None, lab.now).expect_err("what waits begins a repository");
    assert_eq!(lab.files(), before);
    assert!(publisher.discard().unwrap());
    let next = lab.bundle("detector@2.0.0", b"two");
    assert!(publisher.publish(&next, lab.now, &|_| {}).unwrap().live);
}

#[test]
fn of_two_foundings_of_one_repository_the_second_is_refused() {
    let (lab, absent) = empty();
    begun_by("fleet-keys", &lab, &absent);
    begun_by("other-keys", &lab, &absent);
    let other = lab.dir.path().join("other-keys");
    let open = |keys: &Path| {
        Publisher::open_unfinished(&lab.repository(), keys).map(|found| found.with_signers(again(&absent)))
    };
    // Both are open at the moment when the first one is begun: no, a repository has one publisher at a time.
    let mut first = open(&lab.keys()).unwrap();
    assert_eq!(open(&other).unwrap_err().code, ReasonCode::Busy);
    assert!(matches!(first.sign(None, lab.now).unwrap().outcome, Outcome::Live { .. }));
    drop(first);
    let before = lab.files();
    let reason = open(&other).unwrap_err();
    assert!(reason.detail.contains("was begun already"), "{reason}");
    assert_eq!(lab.files(), before);
}

#[test]
fn a_founding_that_was_interrupted_before_its_last_step_is_completed() {
    let (lab, absent) = empty();
    begun_by("fleet-keys", &lab, &absent);
    let waits = fs::read(lab.keys().join("pending.json")).unwrap();
    let sign = || {
        let publisher = Publisher::open_unfinished(&lab.repository(), &lab.keys()).unwrap();
        publisher.with_signers(again(&absent)).sign(None, lab.now).map(|signed| signed.outcome)
    };
    assert!(matches!(sign().unwrap(), Outcome::Live { .. }));
    // As a power cut between the publisher's root and the repository's leaves it.
    fs::remove_file(lab.repository().join("metadata/1.root.json")).unwrap();
    fs::write(lab.keys().join("pending.json"), waits).unwrap();
    assert!(matches!(sign().unwrap(), Outcome::Live { .. }));
    assert_eq!(fs::read(lab.keys().join("root.json")).unwrap(), lab.root());
    let bundle = lab.bundle("detector@1.0.0", b"detector@1.0.0");
    assert!(lab.publisher().with_signers(again(&absent)).publish(&bundle, lab.now, &|_| {}).unwrap().live);
    lab.resolve(lab.files()).unwrap();
}

#[test]
fn a_change_of_keys_that_was_interrupted_between_root_and_timestamp_is_completed() {
    let lab = Lab::with_one();
    // A folder that is a link cannot be exchanged with another, as on a disk that has no exchange.
    let (metadata, elsewhere) = (lab.repository().join("metadata"), lab.dir.path().join("elsewhere"));
    fs::rename(&metadata, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &metadata).unwrap();
    let new = Key::generate().unwrap();
    let edits: Vec<Edit> = ["snapshot", "timestamp"]
        .iter()
        .flat_map(|role| {
            let role = (*role).to_owned();
            let (id, key) = (lab.key().id().to_owned(), new.public_key());
            [Edit::Add { role: role.clone(), key }, Edit::Revoke { role, id }]
        })
        .collect();
    // In the way of a file, so that the placing ends there.
    let obstacle = metadata.join("3.snapshot.json/x");
    fs::create_dir_all(&obstacle).unwrap();
    lab.publisher().with_signers(again(&new)).rotate(&edits, lab.now).unwrap_err();
    fs::remove_dir_all(obstacle.parent().unwrap()).unwrap();
    lab.resolve(lab.files()).expect("devices see the old repository");

    // What a crash just before the timestamp leaves.
    let pending = lab.keys().join("pending.json");
    let kept = fs::read(&pending).unwrap();
    let change: Value = serde_json::from_slice(&kept).unwrap();
    for (name, role) in [("3.snapshot.json", "snapshot"), ("2.root.json", "root")] {
        fs::write(metadata.join(name), to_bytes(&change["roles"][role]).unwrap()).unwrap();
    }
    lab.resolve(lab.files()).expect_err("the timestamp is not the new key's");
    let mut publisher = lab.publisher().with_signers(again(&new));
    lab.resolve(lab.files()).expect("completed");
    assert!(!pending.exists());
    let bundle = lab.bundle("detector@2.0.0", b"two");
    assert!(publisher.publish(&bundle, lab.now, &|_| {}).unwrap().live);
    drop(publisher);

    // A crash just before it is dropped does not bring the older timestamp back.
    fs::write(&pending, kept).unwrap();
    let before = lab.files();
    drop(lab.publisher());
    assert_eq!(lab.files(), before);
}

#[test]
fn a_change_of_keys_places_file_by_file_where_folders_cannot_be_exchanged() {
    let lab = Lab::with_one();
    let (metadata, elsewhere) = (lab.repository().join("metadata"), lab.dir.path().join("elsewhere"));
    fs::rename(&metadata, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &metadata).unwrap();
    let key = Key::generate().unwrap().public_key();
    let add = [Edit::Add { role: "timestamp".to_owned(), key }];
    assert!(matches!(lab.publisher().rotate(&add, lab.now).unwrap(), Outcome::Live { .. }));
    assert!(!lab.keys().join("pending.json").exists());
    assert!(lab.files().contains_key("metadata/2.root.json"));
    lab.resolve(lab.files()).unwrap();
}

#[test]
fn a_version_that_was_taken_off_the_list_comes_back_with_the_same_content_only() {
    let lab = Lab::with_one();
    lab.publish("detector@2.0.0").unwrap();
    lab.publisher().delist(&["detector@1.0.0".parse().unwrap()], lab.now).unwrap();
    let before = lab.files();
    let other = lab.bundle("detector@1.0.0", b"another model");
    let reason = lab.publisher().publish(&other, lab.now, &|_| {}).unwrap_err();
    assert!(reason.detail.contains("give the bundle a new version"), "{reason}");
    assert_eq!(lab.files(), before);
    assert!(lab.publish("detector@1.0.0").unwrap().live);
    lab.resolve(lab.files()).unwrap();

    // A version that was only prepared and then given up was never seen by a device.
    let (lab, absent) = empty();
    begun_by("fleet-keys", &lab, &absent);
    let open = || Publisher::open_unfinished(&lab.repository(), &lab.keys()).unwrap();
    open().with_signers(again(&absent)).sign(None, lab.now).unwrap();
    let mut publisher = open();
    assert!(!publisher.publish(&lab.bundle("detector@1.0.0", b"draft"), lab.now, &|_| {}).unwrap().live);
    assert!(publisher.discard().unwrap());
    let bundle = lab.bundle("detector@1.0.0", b"final");
    assert!(publisher.with_signers(again(&absent)).publish(&bundle, lab.now, &|_| {}).unwrap().live);
}
