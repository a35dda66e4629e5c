//! Keys that were stolen, of an owner who keeps them apart: two of three offline keys sign the list of models,
//! one online key signs what is newest.

use super::{copy, repelled};
use crate::support::device::{Device, Options, Repository, release};
use crate::support::forge::{Metadata, Signers, Team, put, signed, version};
use crate::support::mosquitto::Mosquitto;
use edgewarden::domain::ReasonCode::*;
use edgewarden::trust::keys::Key;
use serde_json::json;

/// The path under which the list has release 2.
const SECOND: &str = "belt-inspector/2.0.0/manifest.json";

/// A device with release 1 of a team's repository that also has release 2; and the folder that the thief
/// serves from then on, a copy.
fn prey(broker: &Mosquitto) -> (Repository, Team, Device) {
    let repository = Repository::with(&["v1", "v2"]);
    let team = Team::over(&repository);
    let device = Device::serving(Options::new(broker, &repository), &release(1));
    (repository, team, device)
}

#[test]
fn one_key_of_a_threshold() {
    let broker = Mosquitto::start();
    let (repository, mut team, device) = prey(&broker);
    let mirror = copy(&repository, "thief");
    repository.web.serve(&mirror);
    // The thief has an offline key, the online key, and keys of his own.
    let own = Key::generate().unwrap();
    let mut metadata = Metadata::of(&mirror);
    metadata.targets["targets"][SECOND]["hashes"]["sha256"] = json!("11".repeat(32));
    for targets in [
        vec![&team.offline[0]],
        vec![&team.offline[0], &own],
        vec![&team.offline[0], &team.online],
        vec![&team.offline[0], &team.offline[0]],
    ] {
        let signers = Signers { targets, snapshot: &team.online, timestamp: &team.online };
        metadata.raise_all(1).write(&mirror, &signers);
        assert_eq!(repelled(&device, &release(2)).code, SignatureInvalid);
    }
    // Nor does it make a root, in which his own keys would count.
    let mut root = metadata.root.clone();
    root["version"] = json!(version(&root) + 1);
    root["keys"][own.id()] = own.public();
    root["roles"]["targets"] = json!({ "keyids": [own.id()], "threshold": 1 });
    let name = format!("{}.root.json", version(&root));
    put(&mirror, &name, &signed(&root, &[&team.offline[0], &own]));
    assert_eq!(repelled(&device, &release(2)).code, SignatureInvalid);
    // The owner takes the key away. The thief had the online key as well, and used it; so that goes, too.
    let folder = repository.folder();
    team.replace_offline(0, &folder);
    team.rotate_online(&folder);
    repository.web.serve(&folder);
    device.update(&release(2)).unwrap();
}

#[test]
fn online_keys() {
    let broker = Mosquitto::start();
    let (repository, mut team, device) = prey(&broker);
    let old = Metadata::of(&repository.folder());
    // The owner publishes once more, and the device sees it.
    Metadata::of(&repository.folder()).raise_all(1).write(&repository.folder(), &team.signers());
    let folder = repository.folder();
    repository.web.serve(&folder);
    assert_eq!(device.update("belt-inspector@7.0.0").unwrap_err().code, NotFound);

    let mirror = copy(&repository, "thief");
    repository.web.serve(&mirror);
    let online = || Signers { targets: vec![&team.online], snapshot: &team.online, timestamp: &team.online };
    // A list of his own: the online key has no say over models.
    let mut metadata = Metadata::of(&mirror);
    metadata.targets["targets"][SECOND]["hashes"]["sha256"] = json!("11".repeat(32));
    metadata.raise_all(1).write(&mirror, &online());
    assert_eq!(repelled(&device, &release(2)).code, SignatureInvalid);
    // An older list of the owner's, under newer numbers.
    let mut replay = old.clone();
    replay.snapshot["version"] = json!(version(&metadata.snapshot) + 1);
    replay.timestamp["version"] = json!(version(&metadata.timestamp) + 1);
    replay.write_snapshot(&mirror, &online());
    assert_eq!(repelled(&device, &release(2)).code, OlderThanSeen);
    // The same again after a snapshot that never came.
    replay.raise(1).write_snapshot(&mirror, &online());
    let withheld = format!("metadata/{}.snapshot.json", version(&replay.snapshot));
    std::fs::remove_file(mirror.join(withheld)).unwrap();
    assert_eq!(repelled(&device, &release(2)).code, RepositoryUnreachable);
    replay.raise(1).write_snapshot(&mirror, &online());
    assert_eq!(repelled(&device, &release(2)).code, OlderThanSeen);
    // The owner takes the key away, and the thief's metadata with it.
    team.rotate_online(&folder);
    repository.web.serve(&folder);
    device.update(&release(2)).unwrap();
    repository.web.serve(&mirror);
    assert_eq!(device.update(&release(1)).unwrap_err().code, SignatureInvalid);
}

#[test]
fn fast_forward() {
    let broker = Mosquitto::start();
    let (repository, mut team, device) = prey(&broker);
    // Numbers that the owner will never reach, with the online key.
    let mirror = copy(&repository, "thief");
    Metadata::of(&mirror).raise(1_000_000_000).write_snapshot(&mirror, &team.signers());
    repository.web.serve(&mirror);
    assert_eq!(repelled(&device, "belt-inspector@7.0.0").code, NotFound, "the list itself is the owner's");
    // So the owner's own repository is too old now, and says so.
    let folder = repository.folder();
    repository.web.serve(&folder);
    let reason = repelled(&device, &release(2));
    assert_eq!(reason.code, OlderThanSeen);
    assert!(reason.detail.contains("1000000"), "{reason}");
    // Another online key, in the next root: the numbers begin anew.
    team.rotate_online(&folder);
    device.update(&release(2)).unwrap();
}
