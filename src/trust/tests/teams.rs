//! Keys of several people, as a library user meets them: what waits, what a rotation leaves, what a
//! delegation gives.

use super::super::publish::delegation::Delegation;
use super::super::publish::keyring::Edit;
use super::super::publish::{Founding, Outcome};
use super::super::signer::Signer;
use super::*;
use std::os::unix::fs::MetadataExt;

/// A key by itself, as often as it is wanted.
fn again(key: &Key) -> Key {
    Key::from_seed(&key.seed()).unwrap()
}

fn is_live(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Live { .. })
}

#[test]
fn a_root_rotation_replaces_the_metadata_at_one_stroke_and_cleans_up_after_a_crash() {
    let lab = Lab::with_one();
    let metadata = lab.repository().join("metadata");
    let before = fs::metadata(&metadata).unwrap().ino();
    // Left by one that was interrupted just before the exchange.
    let half = lab.repository().join(".tmp-metadata");
    fs::create_dir(&half).unwrap();
    fs::write(half.join("2.root.json"), b"torn").unwrap();
    lab.resolve(lab.files()).unwrap();

    let new = Key::generate().unwrap();
    let roles = ["root", "targets", "snapshot", "timestamp"];
    let edits: Vec<Edit> = roles
        .iter()
        .flat_map(|role| {
            let role = (*role).to_owned();
            let (id, key) = (lab.key().id().to_owned(), new.public_key());
            [Edit::Add { role: role.clone(), key }, Edit::Revoke { role, id }]
        })
        .collect();
    let mut publisher = lab.publisher().with_signers(vec![Signer::from(again(&new))]);
    assert!(is_live(&publisher.rotate(&edits, lab.now).unwrap()));
    drop(publisher);
    let files = lab.files();
    lab.resolve(files.clone()).unwrap();
    assert!(!half.exists());
    assert_ne!(fs::metadata(&metadata).unwrap().ino(), before, "the folder was exchanged");
    assert!(files.contains_key("metadata/1.root.json") && files.contains_key("metadata/2.root.json"));
    assert!(files.contains_key("metadata/2.targets.json"), "older files stay for those who still ask");
    // The key that is gone signs nothing any more, the new one everything.
    let reason = lab.publish("detector@2.0.0").unwrap_err();
    assert!(reason.detail.contains("none of its keys may sign"), "{reason}");
    let bundle = lab.bundle("detector@2.0.0", b"two");
    let mut publisher = lab.publisher().with_signers(vec![Signer::from(new)]);
    assert!(publisher.publish(&bundle, lab.now, &|_| {}).unwrap().live);
}

#[test]
fn a_change_that_was_published_just_before_a_crash_does_not_wait_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab { dir, now: "2026-06-01T12:00:00Z".parse().unwrap() };
    let (one, two) = (Key::generate().unwrap(), Key::generate().unwrap());
    let mut founding = Founding::default();
    founding.keys.insert("targets".to_owned(), vec![one.public_key(), two.public_key()]);
    founding.thresholds.insert("targets".to_owned(), 2);
    let both = || vec![Signer::from(again(&one)), Signer::from(again(&two))];
    let (publisher, outcome) =
        Publisher::found(&lab.repository(), &lab.keys(), &founding, both(), lab.now).unwrap();
    assert!(is_live(&outcome));
    drop(publisher);
    // The other roles got a key of the key folder, and not those of these two.
    assert!(lab.keys().join("signing.pem").exists());
    let bundle = lab.bundle("detector@1.0.0", b"one");
    let mut publisher = lab.publisher().with_signers(vec![Signer::from(again(&one))]);
    assert!(!publisher.publish(&bundle, lab.now, &|_| {}).unwrap().live);
    let pending = lab.keys().join("pending.json");
    let waits = fs::read(&pending).unwrap();
    drop(publisher);
    let mut publisher = lab.publisher().with_signers(both());
    assert!(is_live(&publisher.sign(None, lab.now).unwrap().outcome));
    assert!(!pending.exists());
    fs::write(&pending, waits).unwrap();
    assert!(publisher.pending().unwrap().is_none());
    let next = lab.bundle("detector@2.0.0", b"two");
    assert!(publisher.publish(&next, lab.now, &|_| {}).unwrap().live);
    assert!(publisher.pending().unwrap().is_none());
    assert!(!pending.exists());
}

#[test]
fn a_name_that_is_delegated_again_goes_on_where_it_ended() {
    let lab = Lab::with_one();
    let (one, two) = (Key::generate().unwrap(), Key::generate().unwrap());
    let delegation = |key: &Key| Delegation {
        name: "acme".to_owned(),
        models: vec!["face-*".to_owned()],
        keys: vec![key.public_key()],
        threshold: 1,
        terminating: true,
    };
    let publisher = |key: &Key| lab.publisher().with_signers(vec![Signer::from(again(key))]);
    assert!(is_live(&publisher(&one).delegate(&delegation(&one), lab.now).unwrap()));
    let bundle = lab.bundle("face-finder@1.0.0", b"faces");
    let (published, _) = publisher(&one).publish_all(&[&bundle], Some("acme"), lab.now, &|_| {}).unwrap();
    assert!(published[0].live);
    let device = || lab.device(Arc::new(Served::new(lab.files())));
    let release: Release = "face-finder@1.0.0".parse().unwrap();
    at_once(device().resolve(&release, lab.now)).unwrap();

    assert!(is_live(&lab.publisher().undelegate("acme", lab.now).unwrap()));
    assert_eq!(at_once(device().resolve(&release, lab.now)).unwrap_err().code, ReasonCode::NotFound);
    // To somebody else: the first one's releases are gone, and its versions are not used again.
    assert!(is_live(&publisher(&two).delegate(&delegation(&two), lab.now).unwrap()));
    assert!(lab.files().contains_key("metadata/3.acme.json"));
    assert_eq!(at_once(device().resolve(&release, lab.now)).unwrap_err().code, ReasonCode::NotFound);
    let (published, _) = publisher(&two).publish_all(&[&bundle], Some("acme"), lab.now, &|_| {}).unwrap();
    assert!(published[0].fresh);
    at_once(device().resolve(&release, lab.now)).unwrap();
    // With another key the list is signed anew and keeps its releases.
    assert!(is_live(&publisher(&one).delegate(&delegation(&one), lab.now).unwrap()));
    at_once(device().resolve(&release, lab.now)).unwrap();
}

#[test]
fn what_the_main_list_has_no_delegation_can_replace() {
    let lab = Lab::with_one();
    let acme = Key::generate().unwrap();
    let delegation = Delegation {
        name: "acme".to_owned(),
        models: vec!["*".to_owned()],
        keys: vec![acme.public_key()],
        threshold: 1,
        terminating: false,
    };
    let publisher = || lab.publisher().with_signers(vec![Signer::from(again(&acme))]);
    assert!(is_live(&publisher().delegate(&delegation, lab.now).unwrap()));
    let other = lab.bundle("detector@1.0.0", b"another model");
    let reason = publisher().publish_all(&[&other], Some("acme"), lab.now, &|_| {}).unwrap_err();
    assert!(reason.detail.contains("another content"), "{reason}");
}

#[test]
fn the_memory_of_a_device_tells_what_is_no_longer_listed() {
    use super::super::remembered::listed_digest;
    let lab = Lab::with_one();
    lab.publish("detector@2.0.0").unwrap();
    let seen = lab.dir.path().join("seen");
    let one: Release = "detector@1.0.0".parse().unwrap();
    let ask = |release: &Release| listed_digest(&lab.root(), seen.clone(), release);
    assert_eq!(ask(&one).unwrap_err().code, ReasonCode::RepositoryUnreachable, "nothing was seen yet");
    let device = lab.device(Arc::new(Served::new(lab.files())));
    let digest = at_once(device.resolve(&one, lab.now)).unwrap().get().digest;
    assert_eq!(ask(&one).unwrap(), Some(digest));
    lab.publisher().delist(std::slice::from_ref(&one), lab.now).unwrap();
    assert_eq!(ask(&one).unwrap(), Some(digest), "not seen yet");
    at_once(lab.device(Arc::new(Served::new(lab.files()))).list(lab.now)).unwrap();
    assert_eq!(ask(&one).unwrap(), None);
    assert!(ask(&"detector@2.0.0".parse().unwrap()).unwrap().is_some());
}
