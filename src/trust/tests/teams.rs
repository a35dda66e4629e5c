//! Keys of several people, as a library user meets them: what waits, what a rotation leaves, what a
//! delegation gives.

use super::super::publish::change::Change;
use super::super::publish::delegation::Delegation;
use super::super::publish::keyring::Edit;
use super::super::publish::{Founding, Outcome};
use super::super::roles::Expiry;
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

/// A repository whose list needs both of two keys, which are not in its key folder; that has all the others.
fn of_two(expiry: Expiry) -> (Lab, Key, Key) {
    let lab = Lab { dir: tempfile::tempdir().unwrap(), now: "2026-06-01T12:00:00Z".parse().unwrap() };
    let (one, two) = (Key::generate().unwrap(), Key::generate().unwrap());
    let mut founding = Founding { expiry, ..Founding::default() };
    founding.keys.insert("targets".to_owned(), vec![one.public_key(), two.public_key()]);
    founding.thresholds.insert("targets".to_owned(), 2);
    let both = signers(&[&one, &two]);
    let begun = Publisher::found(&lab.repository(), &lab.keys(), &founding, both, lab.now).unwrap();
    assert!(is_live(&begun.1));
    drop(begun);
    (lab, one, two)
}

fn signers(keys: &[&Key]) -> Vec<Signer> {
    keys.iter().map(|key| Signer::from(again(key))).collect()
}

fn acme(name: &str, keys: &[&Key]) -> Delegation {
    Delegation {
        name: name.to_owned(),
        models: vec![format!("{name}-*")],
        keys: keys.iter().map(|key| key.public_key()).collect(),
        threshold: 1,
        terminating: true,
    }
}

/// What somebody does to a request.
type Tamper<'a> = &'a dyn Fn(&mut Value);

#[test]
fn a_request_can_hide_nothing_from_its_signers() {
    let (lab, one, two) = of_two(Expiry::default());
    let (supplier, other) = (Key::generate().unwrap(), Key::generate().unwrap());
    for name in ["acme", "zeta"] {
        let mut publisher = lab.publisher().with_signers(signers(&[&one, &two, &supplier]));
        assert!(is_live(&publisher.delegate(&acme(name, &[&supplier]), lab.now).unwrap()));
    }
    let bundle = lab.bundle("detector@1.0.0", b"one");
    assert!(!lab.publisher().publish(&bundle, lab.now, &|_| {}).unwrap().live);
    let whole: Value = serde_json::from_slice(&fs::read(lab.keys().join("pending.json")).unwrap()).unwrap();
    let root = lab.root();
    let tampered = |tamper: &dyn Fn(&mut Value)| -> Change {
        let mut value = whole.clone();
        tamper(&mut value);
        serde_json::from_value(value).unwrap()
    };
    tampered(&|_| {}).check(Some(&root)).unwrap();
    let id = supplier.id();
    let list = |value: &mut Value, change: &dyn Fn(&mut Value)| {
        change(&mut value["roles"]["targets"]["signed"]);
    };
    let blank = json!({
        "keytype": "ed25519", "scheme": "ed25519", "keyval": { "public": format!(" {}", other.public_hex()) },
    });
    let duplicate = |list: &mut Value| {
        let mut again = list["delegations"]["roles"][0].clone();
        again["paths"] = json!(["*/*/manifest.json"]);
        list["delegations"]["roles"].as_array_mut().unwrap().insert(0, again);
    };
    let refused: [(Tamper<'_>, &str); 8] = [
        // Another key under the known id; one that only the TUF library reads; one under an id of its own making.
        (&|v| list(v, &|l| l["delegations"]["keys"][id] = other.public()), "not the one of this id"),
        (&|v| list(v, &|l| l["delegations"]["keys"][id] = blank.clone()), "not the one of this id"),
        (&|v| list(v, &|l| l["delegations"]["keys"]["00"] = other.public()), "not the one of this id"),
        (&|v| list(v, &duplicate), "delegates to acme twice"),
        (&|v| list(v, &|l| l["delegations"]["roles"][0]["name"] = json!("a\u{1b}[2K")), "can be no name"),
        (&|v| list(v, &|l| l["delegations"]["roles"][0]["name"] = json!("root")), "can be no name"),
        (&|v| v["roles"]["a\u{1b}[2K"] = v["before"]["acme"].clone(), "a name has A-Z"),
        (&|v| v["before"]["snapshot"] = json!({ "signed": "x" }), "something else"),
    ];
    for (tamper, words) in refused {
        let reason = tampered(tamper).check(Some(&root)).unwrap_err();
        assert!(reason.code == ReasonCode::Malformed && reason.detail.contains(words), "{words}: {reason}");
        assert!(!reason.detail.contains(char::is_control), "{reason}");
    }
    let told: [(Tamper<'_>, &str); 4] = [
        (
            &|v| list(v, &|l| l["delegations"]["roles"].as_array_mut().unwrap().reverse()),
            "asks in this order: zeta, acme",
        ),
        (&|v| list(v, &|l| l["delegations"]["x"] = json!(1)), "delegations: x becomes 1"),
        (&|v| list(v, &|l| l["x"] = json!("say \"hello\"")), "targets: x becomes \"say \\\"hello\\\"\""),
        (
            &|v| list(v, &|l| l["targets"]["a\u{1b}[1A\u{9b}2K\nb"] = json!({})),
            r"adds target a\u{1b}[1A\u{9b}2K\nb, SHA-256 none",
        ),
    ];
    for (tamper, line) in told {
        let change = tampered(tamper);
        change.check(Some(&root)).unwrap();
        let lines = change.describe();
        assert!(lines.iter().any(|told| told == line), "{line}: {lines:#?}");
        assert!(lines.iter().all(|line| !line.contains(char::is_control)), "{lines:#?}");
    }
    // Also to somebody who only looks: the whole id of the key that counts.
    let lines = tampered(&|v| list(v, &|l| l["delegations"]["keys"][id] = other.public())).describe();
    let line = format!("acme: key {} may sign", other.id());
    assert!(lines.contains(&line), "{lines:#?}");
    // A file in the key folder that was changed is not shown nor signed, and can be given up.
    let mut value = whole.clone();
    list(&mut value, &duplicate);
    fs::write(lab.keys().join("pending.json"), value.to_string()).unwrap();
    let mut publisher = lab.publisher().with_signers(signers(&[&one, &two]));
    assert_eq!(publisher.pending().unwrap_err().code, ReasonCode::Malformed);
    assert_eq!(publisher.sign(None, lab.now).unwrap_err().code, ReasonCode::Malformed);
    assert!(publisher.discard().unwrap());
}

#[test]
fn a_change_from_elsewhere_waits_to_be_looked_at_and_brings_no_expiry_along() {
    let (lab, one, two) = of_two(Expiry::default());
    // A desk without the online key leaves a list that is complete, and a snapshot that is not.
    let (key, away) = (lab.keys().join("signing.pem"), lab.dir.path().join("away.pem"));
    fs::rename(&key, &away).unwrap();
    let bundle = lab.bundle("detector@1.0.0", b"one");
    let mut publisher = lab.publisher().with_signers(signers(&[&one, &two]));
    assert!(!publisher.publish(&bundle, lab.now, &|_| {}).unwrap().live);
    let pending = lab.keys().join("pending.json");
    let mut value: Value = serde_json::from_slice(&fs::read(&pending).unwrap()).unwrap();
    value["roles"]["snapshot"]["signed"]["expires"] = json!("2099-01-01T00:00:00Z");
    assert!(publisher.discard().unwrap());
    drop(publisher);
    fs::rename(&away, &key).unwrap();

    let before = lab.files();
    let mut publisher = lab.publisher();
    let signed = publisher.sign(Some(serde_json::from_value(value).unwrap()), lab.now).unwrap();
    assert!(signed.taken_up && signed.made.is_empty() && !is_live(&signed.outcome));
    assert!(signed.changes.iter().any(|line| line.starts_with("adds detector@1.0.0")), "{signed:?}");
    assert_eq!(lab.files(), before);
    let signed = publisher.sign(None, lab.now).unwrap();
    assert!(!signed.taken_up && is_live(&signed.outcome));
    let snapshot = payload(&lab.files()["metadata/2.snapshot.json"]);
    assert_eq!(snapshot["expires"], roles::expires(lab.now, Expiry::default().snapshot).unwrap());
}

#[test]
fn a_refresh_leaves_the_root_alone_while_a_change_waits() {
    let (mut lab, one, two) = of_two(Expiry { root: 100, ..Expiry::default() });
    let bundle = lab.bundle("detector@1.0.0", b"one");
    let mut publisher = lab.publisher().with_signers(signers(&[&one]));
    assert!(!publisher.publish(&bundle, lab.now, &|_| {}).unwrap().live);
    lab.now = later(lab.now, 60);
    let resigned = publisher.refresh(lab.now).unwrap();
    assert!(resigned.iter().all(|role| role.role != "root"), "{resigned:?}");
    drop(publisher);
    let mut publisher = lab.publisher().with_signers(signers(&[&two]));
    assert!(is_live(&publisher.sign(None, lab.now).unwrap().outcome), "what was signed before still counts");
    drop(publisher);
    let mut publisher = lab.publisher().with_signers(signers(&[&one, &two]));
    assert!(is_live(&publisher.renew_all(lab.now).unwrap()));
    assert!(lab.files().contains_key("metadata/2.root.json"), "half of its time is over");
}

#[test]
fn a_revocation_that_waited_does_not_leave_a_list_without_signatures() {
    let (lab, one, two) = of_two(Expiry::default());
    let (stays, goes) = (Key::generate().unwrap(), Key::generate().unwrap());
    let mut publisher = lab.publisher().with_signers(signers(&[&one, &two, &stays]));
    assert!(is_live(&publisher.delegate(&acme("acme", &[&stays, &goes]), lab.now).unwrap()));
    let revoke = [Edit::Revoke { role: "acme".to_owned(), id: goes.id().to_owned() }];
    drop(publisher);
    assert!(!is_live(&lab.publisher().rotate(&revoke, lab.now).unwrap()));
    // Meanwhile the key that is to go signs the list at another desk.
    let desk = lab.dir.path().join("other-keys");
    fs::create_dir(&desk).unwrap();
    for name in ["root.json", "signing.pem"] {
        fs::copy(lab.keys().join(name), desk.join(name)).unwrap();
    }
    let bundle = lab.bundle("acme-finder@1.0.0", b"faces");
    let mut publisher = Publisher::open(&lab.repository(), &desk).unwrap().with_signers(signers(&[&goes]));
    let (_, outcome) = publisher.publish_all(&[&bundle], Some("acme"), lab.now, &|_| {}).unwrap();
    assert!(is_live(&outcome));
    drop(publisher);

    let before = lab.files();
    let mut publisher = lab.publisher().with_signers(signers(&[&one, &two, &stays]));
    let reason = publisher.sign(None, lab.now).unwrap_err();
    assert!(reason.code == ReasonCode::BadRequest && reason.detail.contains("make it again"), "{reason}");
    assert_eq!(lab.files(), before);
    // The remedy.
    assert!(publisher.discard().unwrap());
    assert!(is_live(&publisher.rotate(&revoke, lab.now).unwrap()));
    let device = lab.device(Arc::new(Served::new(lab.files())));
    at_once(device.resolve(&"acme-finder@1.0.0".parse().unwrap(), lab.now)).unwrap();
}
