//! What a device has seen once it is never shown older: whichever role is set back, whatever is withheld,
//! and wherever the power fails.

use super::*;
use ReasonCode::*;

/// Raises the versions of the three roles below the root to these.
fn at_versions(lab: &Lab, timestamp: u64, snapshot: u64, targets: u64) -> Files {
    lab.forge(|forgery| {
        forgery.timestamp["version"] = json!(timestamp);
        forgery.snapshot["version"] = json!(snapshot);
        forgery.targets["version"] = json!(targets);
    })
}

impl Lab {
    /// What the device that remembers makes of `files`.
    fn shown(&self, files: Files) -> Result<(), ReasonCode> {
        let device = self.device(Arc::new(Served::new(files)));
        at_once(device.list(self.now)).map(drop).map_err(|reason| reason.code)
    }
}

#[test]
fn no_role_goes_back_alone() {
    for (timestamp, snapshot, targets) in [(9, 10, 10), (11, 9, 10), (11, 11, 9), (9, 9, 9)] {
        let lab = Lab::with_one();
        assert_eq!(lab.shown(at_versions(&lab, 10, 10, 10)), Ok(()));
        let older = at_versions(&lab, timestamp, snapshot, targets);
        let code = lab.shown(older.clone());
        assert_eq!(code, Err(OlderThanSeen), "{timestamp} {snapshot} {targets}");
        assert_eq!(lab.shown(older), code, "asked again it is the same");
        assert_eq!(lab.shown(at_versions(&lab, 12, 12, 12)), Ok(()), "and an honest one is taken");
    }
}

#[test]
fn a_key_that_a_root_took_away_stays_away() {
    let lab = Lab::with_one();
    let (old, fresh) = (lab.files(), Key::generate().unwrap());
    let mut root = payload(&lab.root());
    root["version"] = json!(2);
    root["keys"][fresh.id()] = fresh.public();
    for role in ["targets", "snapshot", "timestamp"] {
        root["roles"][role] = json!({ "keyids": [fresh.id()], "threshold": 1 });
    }
    let rotated = lab.forge(|forgery| {
        forgery.roots.push((root.clone(), vec![lab.key()]));
        forgery.signer = Key::from_seed(&fresh.seed()).unwrap();
    });
    assert_eq!(lab.shown(rotated.clone()), Ok(()));
    // The mirror shows the time before: no second root, and all by the key that was lost.
    assert_eq!(lab.shown(old.clone()), Err(SignatureInvalid));
    // Nor is there a way back through a root that claims to be the next.
    let mut third = payload(&lab.root());
    third["version"] = json!(3);
    let mut files = rotated.clone();
    files.insert("metadata/3.root.json".to_owned(), signed(&third, [&Key::generate().unwrap()]));
    assert_eq!(lab.shown(files), Err(SignatureInvalid));
    let mut files = rotated;
    files.insert("metadata/3.root.json".to_owned(), old["metadata/1.root.json"].clone());
    assert_eq!(lab.shown(files), Err(OlderThanSeen));
}

#[test]
fn a_withheld_snapshot_takes_no_floor_away() {
    let lab = Lab::with_one();
    assert_eq!(lab.shown(at_versions(&lab, 10, 10, 10)), Ok(()));
    // A new timestamp comes through, and its snapshot does not.
    let mut withheld = at_versions(&lab, 11, 11, 10);
    withheld.remove("metadata/11.snapshot.json").unwrap();
    assert_eq!(lab.shown(withheld), Err(RepositoryUnreachable));
    // Who has the keys of timestamp and snapshot now offers an older list, which is signed as it ever was.
    let older = at_versions(&lab, 12, 12, 9);
    assert_eq!(lab.shown(older.clone()), Err(OlderThanSeen));
    assert_eq!(lab.shown(older), Err(OlderThanSeen));
    assert_eq!(lab.shown(at_versions(&lab, 13, 13, 10)), Ok(()));
}

/// A server that lets another client of the same folder see something newer before it answers.
struct Overtaken {
    files: Files,
    newer: Box<dyn Fn() + Send + Sync>,
}

impl Transport for Overtaken {
    fn get<'a>(&'a self, path: &'a str, _: u64) -> BoxFuture<'a, Result<Option<Vec<u8>>, Reason>> {
        if path.ends_with("timestamp.json") {
            (self.newer)();
        }
        Box::pin(async move { Ok(self.files.get(path).cloned()) })
    }

    fn download<'a>(
        &'a self,
        _: &'a str,
        _: u64,
        _: &'a Path,
        _: OnBytes<'a>,
    ) -> BoxFuture<'a, Result<(), Reason>> {
        unreachable!("the client moves metadata and manifests only")
    }
}

#[test]
fn of_two_clients_at_once_the_one_that_is_shown_less_sets_nothing_back() {
    let lab = Lab::with_one();
    assert_eq!(lab.shown(at_versions(&lab, 10, 10, 10)), Ok(()));
    let (newest, root, seen) = (at_versions(&lab, 20, 20, 20), lab.root(), lab.dir.path().join("seen"));
    let now = lab.now;
    let newer = Box::new(move || {
        let client = RepositoryClient::new(Arc::new(Served::new(newest.clone())), root.clone(), seen.clone());
        at_once(client.list(now)).unwrap();
    });
    let transport = Overtaken { files: at_versions(&lab, 15, 15, 15), newer };
    let reason = at_once(lab.device(Arc::new(transport)).list(lab.now)).unwrap_err();
    assert_eq!(reason.code, OlderThanSeen, "{reason}");
    assert!(reason.detail.contains("version 15") && reason.detail.contains("version 20"), "{reason}");
    assert_eq!(lab.shown(at_versions(&lab, 15, 15, 15)), Err(OlderThanSeen), "the floor is the higher one");
    assert_eq!(lab.shown(at_versions(&lab, 20, 20, 20)), Ok(()));
}

#[test]
fn a_power_cut_between_any_two_writes_leaves_whole_files_and_every_floor() {
    let lab = Lab::new();
    let empty = lab.files();
    lab.publish("detector@1.0.0").unwrap();
    let before = lab.files();
    let fresh = Key::generate().unwrap();
    // Two cases: only newer, and with a root that takes the online key away.
    for rotate in [false, true] {
        let after = lab.forge(|forgery| {
            for payload in [&mut forgery.targets, &mut forgery.snapshot, &mut forgery.timestamp] {
                payload["version"] = json!(7);
            }
            if rotate {
                let mut root = forgery.root.clone();
                root["version"] = json!(2);
                root["keys"][fresh.id()] = fresh.public();
                for role in ["targets", "snapshot", "timestamp"] {
                    root["roles"][role] = json!({ "keyids": [fresh.id()], "threshold": 1 });
                }
                forgery.roots.push((root, vec![lab.key()]));
                forgery.signer = Key::from_seed(&fresh.seed()).unwrap();
            }
        });
        let mut cuts = 0;
        loop {
            let folder = tempfile::tempdir().unwrap();
            let client = |files: &Files| {
                let transport = Arc::new(Served::new(files.clone()));
                RepositoryClient::new(transport, lab.root(), folder.path().join("seen"))
            };
            at_once(client(&before).list(lab.now)).unwrap();
            let cut = client(&after);
            *cut.seen().writes_left.lock().unwrap() = Some(cuts);
            let ended = at_once(cut.list(lab.now));
            // All that lies there is whole: as it was served before or after.
            for (name, bytes) in tree(&folder.path().join("seen")) {
                let served = [&before, &after].iter().any(|files| files.values().any(|file| *file == bytes));
                assert!(served, "{name} after {cuts} writes");
            }
            if ended.is_ok() {
                break;
            }
            let replayed = at_once(client(&empty).list(lab.now)).expect_err("older than seen");
            assert!(replayed.code.is_trust(), "after {cuts} writes: {replayed}");
            at_once(client(&after).list(lab.now)).unwrap();
            let replayed = at_once(client(&before).list(lab.now)).expect_err("older than seen");
            assert!(replayed.code.is_trust(), "after {cuts} writes: {replayed}");
            cuts += 1;
        }
        assert!(cuts >= if rotate { 7 } else { 3 }, "only {cuts} writes");
    }
}
