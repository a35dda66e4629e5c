//! Updates that move what differs: from `repo publish` over a real web server to the daemon that serves the
//! result; and the whole file wherever a delta leads to nothing.

use crate::support::device::{Device, Options, PATIENCE, Repository, model, release};
use crate::support::mosquitto::Mosquitto;
use crate::support::web::Trouble;
use crate::support::{Edgewarden, wait_until};
use edgewarden::bundle::delta::{Layout, Source, make, offers};
use edgewarden::bundle::layout;
use edgewarden::domain::Digest;
use edgewarden::domain::delta::{Method, Offer, Transfer};
use edgewarden::domain::deployment::Stage;
use edgewarden::domain::maintenance::Hold;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::fs;
use std::path::Path;

/// Every weight of a model, moved by so little that its answers stay.
fn nudge(folder: &Path, seed: u8) {
    let path = folder.join("model.onnx");
    let mut bytes = fs::read(&path).unwrap();
    // Not those of 64 bits, which are shapes.
    for tensor in Layout::of_model(&bytes).unwrap().own.into_iter().filter(|one| one.width == 4) {
        let (at, length) = (tensor.at as usize, tensor.length as usize);
        for (index, number) in bytes[at..at + length].chunks_exact_mut(4).enumerate() {
            number[0] ^= (index as u8).wrapping_mul(seed) & 15;
        }
    }
    fs::write(path, bytes).unwrap();
}

/// Publishes v2 with its weights moved.
fn published(repository: &mut Repository, version: &str, seed: u8) -> String {
    repository.publish_variant("v2", version, |folder, _| nudge(folder, seed))
}

/// Runs `repo deltas` for one release, as a person would.
fn deltas(repository: &Repository, release: &str) -> Value {
    let folder = repository.folder();
    let ended = Edgewarden::run(["repo", "deltas", folder.to_str().unwrap(), release, "--json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let made: Value = serde_json::from_str(ended.stdout.trim()).unwrap();
    made[0].clone()
}

/// Bytes of the files that were asked for, of paths that begin so.
fn asked(repository: &Repository, begin: &str) -> u64 {
    let asked = repository.web.asked();
    let files = asked.iter().filter(|(path, _)| path.trim_start_matches('/').starts_with(begin));
    let length = |path: &str| fs::metadata(repository.folder().join(path.trim_start_matches('/')));
    files.map(|(path, from)| length(path).map_or(0, |meta| meta.len() - from)).sum()
}

fn blob(folder: &Path) -> (Vec<u8>, Digest) {
    let bytes = fs::read(folder.join("model.onnx")).unwrap();
    let digest = Digest::from_bytes(Sha256::digest(&bytes).into());
    (bytes, digest)
}

/// The list of a release's deltas, in the repository.
fn index(repository: &Repository, wanted: &str) -> std::path::PathBuf {
    let (name, version) = wanted.split_once('@').unwrap();
    let folder = repository.folder().join("targets").join(name).join(version);
    let manifest = fs::read_dir(folder).unwrap().next().unwrap().unwrap().file_name();
    let digest = manifest.to_str().unwrap().split('.').next().unwrap().parse().unwrap();
    repository.folder().join(layout::delta_index(&digest))
}

fn transfer(device: &Device, wanted: &str) -> Transfer {
    device.until("what it took to come", |heard| {
        let state = heard.states.last()?;
        let deployment = state.deployment.as_ref()?;
        let is_it = deployment.stage == Stage::Committed && deployment.release.to_string() == wanted;
        is_it.then(|| deployment.transfer.clone()).flatten()
    })
}

/// The model's file that serves is the one that was published.
fn serves(device: &Device, repository: &Repository, version: &str) {
    let (bytes, _) = blob(&repository.dir.path().join(format!("bundle-{version}")));
    let current = device.path("state/slots/detector/current");
    assert!(fs::read(current.join("model.onnx")).unwrap() == bytes, "the model of {version}");
    let left: Vec<_> = fs::read_dir(device.path("state/downloads")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn an_update_moves_what_differs_and_is_the_signed_file() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v2"]);
    let next = published(&mut repository, "2.1.0", 3);
    let made = deltas(&repository, &next);
    let update = &made["updates"][1];
    assert_eq!(update["from"], release(2));
    let (whole, digest) = blob(&repository.dir.path().join("bundle-2.1.0"));
    assert_eq!(update["whole_bytes"], whole.len());
    let promised = update["bytes"].as_u64().unwrap();
    assert!(promised * 4 < whole.len() as u64, "{made}");

    let device = Device::serving(Options::new(&broker, &repository), &release(2));
    let before = asked(&repository, "deltas/");
    device.update(&next).unwrap();
    let told = transfer(&device, &next);
    serves(&device, &repository, "2.1.0");
    let blob = layout::blob(&digest);
    assert_eq!(asked(&repository, &blob), 0, "the whole file was not asked for");
    let over_the_wire = asked(&repository, "deltas/") - before;
    let list = fs::metadata(index(&repository, &next)).unwrap().len();
    assert_eq!(over_the_wire, promised + list);
    assert_eq!(told.deltas.get(&Method::Planes), Some(&1), "{told:?}");
    assert!(told.moved_bytes >= over_the_wire && told.failed == 0, "{told:?}");
    assert_eq!(told.saved_bytes, whole.len() as u64 - promised);
    let status = device.status();
    assert_eq!(status.metrics.transfers.deltas.get(&Method::Planes), Some(&1));
    assert!(device.cli(["status"]).stdout.contains("deltas saved"));
}

#[test]
fn a_first_install_takes_the_packed_file() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v2"]);
    let made = deltas(&repository, &release(2));
    let first = &made["updates"][0];
    assert_eq!(first["from"], Value::Null);
    assert!(first["bytes"].as_u64() < first["whole_bytes"].as_u64(), "{made}");
    let device = Device::serving(Options::new(&broker, &repository), &release(2));
    let (bytes, digest) = blob(&model("v2"));
    assert_eq!(asked(&repository, &layout::blob(&digest)), 0);
    let told = transfer(&device, &release(2));
    assert_eq!(told.deltas.get(&Method::Zstd), Some(&1), "{told:?}");
    assert!(fs::read(device.path("state/slots/detector/current/model.onnx")).unwrap() == bytes);
}

#[test]
fn where_a_delta_leads_to_nothing_the_whole_file_comes() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v2"]);
    let device = Device::serving(Options::new(&broker, &repository), &release(2));
    type Spoil = fn(&Repository, &str, &Path);
    /// Writes a list with one offer: these bytes for the model.
    fn offer(repository: &Repository, wanted: &str, bundle: &Path, delta: &[u8]) {
        let sha256 = Digest::from_bytes(Sha256::digest(delta).into());
        let (_, file) = blob(bundle);
        let offer = Offer { file, from: None, method: Method::Zstd, size: delta.len() as u64, sha256 };
        fs::write(repository.folder().join(layout::delta(&sha256)), delta).unwrap();
        fs::write(index(repository, wanted), offers::write(&[offer])).unwrap();
    }
    let cases: [(&str, bool, Spoil); 8] = [
        ("the deltas are gone", true, |repository, wanted, _| {
            let listed = offers::parse(&fs::read(index(repository, wanted)).unwrap()).unwrap();
            for one in listed {
                fs::remove_file(repository.folder().join(layout::delta(&one.sha256))).unwrap();
            }
        }),
        ("a byte of them is another one", true, |repository, wanted, _| {
            let listed = offers::parse(&fs::read(index(repository, wanted)).unwrap()).unwrap();
            listed.iter().for_each(|one| repository.web.trouble(&layout::delta(&one.sha256), Trouble::Flip));
        }),
        ("the list has no end", false, |repository, _, _| {
            repository.web.trouble("deltas/", Trouble::Endless)
        }),
        ("the list is not one", false, |repository, wanted, _| {
            fs::write(index(repository, wanted), "{\"format\":1,\"offers\":[1,{},\"x\"]}").unwrap();
        }),
        ("it is rubbish with the right digest", true, |repository, wanted, bundle| {
            offer(repository, wanted, bundle, &b"EWDELTA1\xff\xff\xff\xff".repeat(100));
        }),
        ("it leads to another file of the same size", true, |repository, wanted, bundle| {
            let (other, _) = blob(&model("v2"));
            let (mut delta, other) = (Vec::new(), &other[..]);
            make(None, Source { bytes: &other, tensors: &[] }, 3, &mut delta, &|_| {}).unwrap();
            offer(repository, wanted, bundle, &delta);
        }),
        ("it leads to a file without end", true, |repository, wanted, bundle| {
            let (long, mut delta) = (vec![0u8; 32 << 20], Vec::new());
            make(None, Source { bytes: &&long[..], tensors: &[] }, 3, &mut delta, &|_| {}).unwrap();
            offer(repository, wanted, bundle, &delta);
        }),
        ("it is of a later version", false, |repository, wanted, _| {
            let path = index(repository, wanted);
            let text = fs::read_to_string(&path).unwrap().replace("\"format\":1", "\"format\":2");
            fs::write(path, text).unwrap();
        }),
    ];
    for (number, (what, is_tried, spoil)) in cases.into_iter().enumerate() {
        let version = format!("2.1.{number}");
        let next = published(&mut repository, &version, number as u8 * 2 + 1);
        deltas(&repository, &next);
        let bundle = repository.dir.path().join(format!("bundle-{version}"));
        spoil(&repository, &next, &bundle);
        device.update(&next).unwrap_or_else(|reason| panic!("{what}: {reason}"));
        repository.web.well();
        let told = transfer(&device, &next);
        assert!(told.deltas.is_empty(), "{what}: {told:?}");
        assert_eq!((told.saved_bytes, told.failed > 0), (0, is_tried), "{what}: {told:?}");
        let (whole, digest) = blob(&bundle);
        assert_eq!(asked(&repository, &layout::blob(&digest)), whole.len() as u64, "{what}");
        serves(&device, &repository, &version);
        device.until_frames(2);
    }
    let log = device.log();
    for words in ["a delta for file", "the delta is damaged or hostile", "what a delta led to"] {
        assert!(log.contains(words), "{words}");
    }
}

#[test]
fn on_a_metered_connection_what_the_deltas_take_counts_and_no_whole_file_follows() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v2"]);
    let mut device = Device::serving(Options::new(&broker, &repository), &release(2));
    let small = published(&mut repository, "2.1.0", 3);
    let cost = deltas(&repository, &small)["updates"][1]["bytes"].as_u64().unwrap();
    device.stop();
    device.configure(|options| {
        let options = options.set("update.connection", "metered").set("update.metered", "small");
        options.set("update.metered_max", format!("{cost}B"))
    });
    device.start();
    device.update(&small).unwrap();
    serves(&device, &repository, "2.1.0");

    // One that is damaged on its way would have the whole file come: that waits, until somebody says so.
    let next = repository.publish_variant("v2", "2.2.0", |folder, _| nudge(folder, 5));
    deltas(&repository, &next);
    let (whole, digest) = blob(&repository.dir.path().join("bundle-2.2.0"));
    device.stop();
    device.configure(|options| options.set("update.metered_max", format!("{}B", whole.len() - 1)));
    let listed = offers::parse(&fs::read(index(&repository, &next)).unwrap()).unwrap();
    listed.iter().for_each(|one| repository.web.trouble(&layout::delta(&one.sha256), Trouble::Flip));
    device.forget();
    device.start();
    let update = device.send("update", serde_json::json!({ "slot": "detector", "release": next }));
    device.until("it waits for another connection", |heard| {
        let deployment = heard.states.last()?.deployment.as_ref()?;
        (deployment.waiting.as_ref()?.hold == Hold::Metered).then_some(())
    });
    assert_eq!(asked(&repository, &layout::blob(&digest)), 0);
    assert!(asked(&repository, "deltas/") > 0, "they were tried");
    device.cli(["update", "detector", &next, "--now"]);
    update.finish().unwrap();
    assert_eq!(asked(&repository, &layout::blob(&digest)), whole.len() as u64);
}

#[test]
fn a_delta_goes_on_after_a_restart_where_it_was_cut() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v2"]);
    let next = published(&mut repository, "2.1.0", 3);
    deltas(&repository, &next);
    let listed = offers::parse(&fs::read(index(&repository, &next)).unwrap()).unwrap();
    let delta = listed.iter().find(|one| one.from.is_some()).unwrap();
    let path = layout::delta(&delta.sha256);
    let options = Options::new(&broker, &repository).set("repository.stall_timeout", "30s");
    let mut device = Device::serving(options, &release(2));
    repository.web.trouble(&path, Trouble::Stall(5000));
    let _under_way = device.send("update", serde_json::json!({ "slot": "detector", "release": next }));
    let part = device.path("state/downloads").join(delta.sha256.to_string());
    wait_until("a part of the delta", PATIENCE, || {
        fs::metadata(&part).is_ok_and(|meta| meta.len() >= 5000).then_some(())
    });
    device.kill();
    repository.web.well();
    device.start();
    let told = transfer(&device, &next);
    assert_eq!(told.deltas.get(&Method::Planes), Some(&1), "{told:?}");
    let resumed = repository.web.asked().iter().any(|(asked, from)| asked.contains(&path) && *from >= 5000);
    assert!(resumed, "{:?}", repository.web.asked());
    serves(&device, &repository, "2.1.0");
}

#[test]
fn publishing_makes_them_tells_the_cost_and_clears_up() {
    let desk = tempfile::tempdir().unwrap();
    let run = |line: &str| {
        let ended = Edgewarden::command().current_dir(desk.path()).args(line.split(' ')).output().unwrap();
        let text = String::from_utf8([ended.stdout, ended.stderr].concat()).unwrap();
        (ended.status.code(), text)
    };
    let good = |line: &str| {
        let (code, text) = run(line);
        assert_eq!(code, Some(0), "{line}: {text}");
        text
    };
    good("repo init fleet");
    for number in 0..3u8 {
        let version = format!("2.{number}.0");
        let folder = desk.path().join(format!("b{number}"));
        crate::support::device::variant(&model("v2"), &folder, &version, |folder, _| {
            if number > 0 {
                nudge(folder, number);
            }
        });
    }
    good("repo publish fleet b0 --deltas 0");
    assert!(!desk.path().join("fleet/deltas").exists());
    let told = good("repo publish fleet b1");
    assert!(told.contains("belt-inspector@2.0.0") && told.contains("nothing"), "{told}");
    let told = good("repo publish fleet b2 --json");
    let told: Value = serde_json::from_str(told.lines().next().unwrap()).unwrap();
    let updates = told["deltas"]["updates"].as_array().unwrap();
    let from: Vec<_> = updates.iter().map(|one| one["from"].as_str().unwrap_or("nothing")).collect();
    assert_eq!(from, ["nothing", "belt-inspector@2.1.0", "belt-inspector@2.0.0"]);
    assert!(updates[1]["bytes"].as_u64().unwrap() * 4 < updates[1]["whole_bytes"].as_u64().unwrap());
    assert!(good("repo deltas fleet").contains("0 deltas made"), "what is there is not made again");

    assert!(good("repo check fleet").contains("3 releases that a device takes"));
    let files = || {
        let entries = fs::read_dir(desk.path().join("fleet/deltas")).unwrap();
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let all = files();
    let spoilt = all.iter().find(|path| path.extension().is_none()).unwrap();
    let kept = fs::read(spoilt).unwrap();
    let mut bytes = kept.clone();
    bytes[kept.len() / 2] ^= 1;
    fs::write(spoilt, &bytes).unwrap();
    let (code, told) = run("repo check fleet");
    assert!(code == Some(1) && told.contains("repo deltas"), "{told}");
    fs::write(spoilt, &kept).unwrap();

    good("repo delist fleet belt-inspector@2.1.0");
    assert!(good("repo check fleet").contains("named by no list"));
    good("repo deltas fleet");
    let left = files();
    assert!(left.len() < all.len(), "{left:?}");
    assert!(
        !fs::read_dir(desk.path().join("fleet/deltas"))
            .unwrap()
            .any(|entry| { entry.unwrap().file_name().to_string_lossy().starts_with('.') })
    );
    // Whoever has 2.0.0 still gets 2.2.0 so.
    let told = good("repo deltas fleet --json");
    let told: Value = serde_json::from_str(told.trim()).unwrap();
    assert_eq!(told[0]["updates"][1]["from"], "belt-inspector@2.0.0");
    let (code, told) = run("repo deltas fleet belt-inspector@9.0.0");
    assert!(code == Some(1) && told.contains("not on the list"), "{told}");
}

#[test]
fn encrypted_models_have_none() {
    let desk = tempfile::tempdir().unwrap();
    let good = |line: &str| {
        let ended = Edgewarden::command().current_dir(desk.path()).args(line.split(' ')).output().unwrap();
        let text = String::from_utf8(ended.stdout).unwrap();
        assert!(ended.status.success(), "{line}: {text}{}", String::from_utf8_lossy(&ended.stderr));
        text
    };
    // Nobody has its private part.
    const NOBODY: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    good("repo init fleet");
    for version in ["2.0.0", "2.1.0"] {
        let folder = desk.path().join(version);
        crate::support::device::variant(&model("v2"), &folder, version, |_, _| {});
        let told = good(&format!("repo publish fleet {version} --encrypt-to {NOBODY} --json"));
        let told: Value = serde_json::from_str(told.lines().next().unwrap()).unwrap();
        let why = told["deltas"]["none_because"].as_str().unwrap();
        assert!(why.contains("encrypted") && told["deltas"]["new"] == 0, "{told}");
    }
}
