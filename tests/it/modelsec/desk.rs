//! Encrypted bundles at the desk.

use super::{encrypted, good, has, holding, marks, new_key};
use crate::support::Edgewarden;
use crate::support::device::{copy_tree, model};
use edgewarden::bundle::files::sha256;
use edgewarden::bundle::{self, layout};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// The answers on a picture, without the times.
fn answers(line: &str) -> Value {
    let mut answer: Value = serde_json::from_str(line).unwrap();
    let object = answer.as_object_mut().unwrap();
    object.retain(|key, _| key == "detections" || key == "classes" || key == "output");
    assert!(!object.is_empty(), "{line}");
    answer
}

#[test]
fn each_of_two_devices_and_their_group_opens_it_and_nobody_else() {
    let desk = Desk::new();
    let [one, two, group, other] = ["one", "two", "group", "other"].map(|name| desk.path(name));
    let keys = [&one, &two, &group].map(|path| new_key(path));
    new_key(&other);
    let bundle = desk.path("bundle");
    copy_tree(&model("v1"), &bundle);
    std::fs::write(desk.path("recipients"), format!("# the line\n{}\n\n{}\n", keys[1], keys[2])).unwrap();
    let out = desk.path("secret");
    let (first, file) = (keys[0].to_string(), desk.path("recipients"));
    let seal = ["bundle", "seal", text(&bundle), "--encrypt-to", &first, "--encrypt-to-file", text(&file)];
    let ended = Edgewarden::run(seal);
    assert!(ended.code == Some(64) && ended.stderr.contains("--output"), "{ended:?}");
    let said: Value =
        serde_json::from_str(&good(&[&seal[..], &["--output", text(&out), "--json"]].concat()).stdout)
            .unwrap();
    assert_eq!(said["encrypted_to"].as_array().unwrap().len(), 3);

    // The plain bundle stays, and nothing of it is in the other.
    let plain = marks(&model("v1").join("model.onnx"));
    assert!(bundle::open(&bundle, None).is_ok());
    assert_eq!(holding(&bundle, &plain).0, [bundle.join("model.onnx")]);
    assert!(holding(&out, &plain).0.is_empty());

    let picture = model("v1").join("golden/1.jpg");
    let want = answers(&good(&["predict", text(&bundle), text(&picture)]).stdout);
    for key in [&one, &two, &group] {
        let ended = good(&["predict", text(&out), text(&picture), "--model-key", text(key)]);
        assert_eq!(answers(&ended.stdout), want);
    }
    let ended = Edgewarden::run(["predict", text(&out), text(&picture), "--model-key", text(&other)]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for part in ["key_missing", &first, text(&other), "--model-key"] {
        assert!(ended.stderr.contains(part), "{part}: {ended:?}");
    }
    let ended = Edgewarden::run(["predict", text(&out), text(&picture)]);
    assert!(ended.code == Some(1) && ended.stderr.contains("no key is at hand"), "{ended:?}");

    // The other commands that run a model.
    let check = good(&["bundle", "check", text(&out), "--model-key", text(&two)]);
    assert!(check.stdout.contains("answered as expected"), "{check:?}");
    let ended = Edgewarden::run(["bundle", "check", text(&out)]);
    assert!(ended.code == Some(1) && ended.stdout.contains("key_missing"), "{ended:?}");
    let bench = ["bench", text(&out), "--seconds", "0.05", "--threads", "1", "--providers", "cpu", "--json"];
    let bench = good(&[&bench[..], &["--model-key", text(&group)]].concat());
    let bench: Value = serde_json::from_str(&bench.stdout).unwrap();
    assert!(bench["settings"][0]["measured"]["frames"].as_u64().unwrap() >= 3, "{bench}");
    assert_eq!(bench["settings"][0]["measured"]["saved_load_ms"], Value::Null, "no graph is kept");
    let optimize = Edgewarden::run(["bundle", "optimize", text(&out), "--output", text(&desk.path("fast"))]);
    assert!(optimize.code == Some(64) && optimize.stderr.contains("encrypted"), "{optimize:?}");
    let golden = ["bundle", "golden", text(&out), text(&picture), "--model-key", text(&one)];
    good(&golden);
    assert!(bundle::open(&out, None).unwrap().manifest.has_secret_model(), "it stays encrypted");
    let shown = good(&["bundle", "show", text(&out)]);
    assert!(shown.stdout.contains("secret") && shown.stdout.contains(&first), "{shown:?}");
}

/// The list of models holds the digest of the manifest, and that the digest of the encrypted file.
fn encrypted_file_is_what_is_signed(repo: &Path, said: &str) {
    let said: Value = serde_json::from_str(said).unwrap();
    let digest = said["digest"].as_str().unwrap();
    let lists = std::fs::read_dir(repo.join("metadata")).unwrap().flatten();
    let signed = lists.filter(|file| file.file_name().to_string_lossy().contains("targets.json"));
    let signed: Vec<_> = signed.map(|file| std::fs::read_to_string(file.path()).unwrap()).collect();
    assert!(signed.iter().any(|list| list.contains(digest)), "{digest} in {signed:?}");
    let release = said["release"].as_str().unwrap().parse().unwrap();
    let bytes = std::fs::read(repo.join(layout::manifest(&release, &digest.parse().unwrap()))).unwrap();
    assert_eq!(sha256(&bytes).to_string(), digest);
    let manifest = bundle::parse_manifest(&bytes).unwrap();
    let listed = manifest.files.iter().find(|file| file.path == "model.onnx").unwrap();
    let blob = std::fs::read(repo.join(layout::blob(&listed.sha256))).unwrap();
    assert_eq!((sha256(&blob), blob.len() as u64), (listed.sha256, listed.size));
    assert!(blob.starts_with(b"age-encryption.org/v1\n"));
    let plain = std::fs::read(model("v1").join("model.onnx")).unwrap();
    let stated = manifest.plain("model.onnx").unwrap();
    assert_eq!((stated.sha256, stated.size), (sha256(&plain), plain.len() as u64));
}

#[test]
fn what_is_published_for_devices_is_encrypted_and_the_same_again_is_no_error() {
    let desk = Desk::new();
    let (repo, bundle) = (desk.path("repo"), desk.path("bundle"));
    copy_tree(&model("v1"), &bundle);
    let [one, two] = ["one", "two"].map(|name| new_key(&desk.path(name)).to_string());
    good(&["repo", "init", text(&repo)]);
    let publish = |to: &[&str]| {
        let mut arguments = vec!["repo", "publish", text(&repo), text(&bundle), "--json"];
        to.iter().for_each(|to| arguments.extend(["--encrypt-to", *to]));
        Edgewarden::run(arguments)
    };
    let fresh = |ended: &crate::support::Ended| {
        assert_eq!(ended.code, Some(0), "{ended:?}");
        serde_json::from_str::<Value>(&ended.stdout).unwrap()["fresh"].clone()
    };
    let first = publish(&[&one]);
    assert_eq!(fresh(&first), true);
    encrypted_file_is_what_is_signed(&repo, &first.stdout);
    assert_eq!(fresh(&publish(&[&one])), false);
    let other = publish(&[&one, &two]);
    assert!(other.code == Some(1) && other.stderr.contains("give the bundle a new version"), "{other:?}");
    let plain = publish(&[]);
    assert!(plain.code == Some(1) && plain.stderr.contains("new version"), "{plain:?}");
    assert_eq!(publish(&["age1nobody"]).code, Some(64));
    let plain = marks(&bundle.join("model.onnx"));
    let (found, seen) = holding(&repo, &plain);
    assert!(found.is_empty() && seen > 5, "{found:?} of {seen}");
    let left: Vec<_> = std::fs::read_dir(desk.path("")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{left:?}");

    // Carried on a stick, it is encrypted as well.
    let file = desk.path("one.bundle");
    good(&["repo", "export", text(&repo), "belt-inspector@1.0.0", "--output", text(&file)]);
    assert!(!has(&std::fs::read(&file).unwrap(), &plain));
    let picture = model("v1").join("golden/1.jpg");
    good(&["predict", text(&file), text(&picture), "--model-key", text(&desk.path("one"))]);
}

#[test]
fn a_key_file_is_never_written_over_and_others_may_not_read_it() {
    let desk = Desk::new();
    let key = desk.path("key");
    let recipient = new_key(&key);
    let before = std::fs::read(&key).unwrap();
    let again = Edgewarden::run(["bundle", "key", "--new", text(&key)]);
    assert!(again.code == Some(1) && again.stderr.contains("exists"), "{again:?}");
    assert_eq!(std::fs::read(&key).unwrap(), before);
    assert_eq!(good(&["bundle", "key", text(&key)]).stdout.trim(), recipient.to_string());
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let open = Edgewarden::run(["bundle", "key", text(&key)]);
    assert!(open.code == Some(64) && open.stderr.contains("chmod 600"), "{open:?}");
    let secret = encrypted(&desk.path(""), "v1", "1.0.1", &[recipient]);
    let picture = model("v1").join("golden/1.jpg");
    let ended = Edgewarden::run(["predict", text(&secret), text(&picture), "--model-key", text(&key)]);
    assert!(ended.code == Some(1) && ended.stderr.contains("chmod 600"), "{ended:?}");
}
