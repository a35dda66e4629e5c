//! Model signatures: ours against the public tool's (`model_signing`, which `packaging/setup.sh --tests`
//! installs), and what a device that requires them takes.

use super::good;
use crate::support::device::{Device, Options, Repository, SLOT, copy_tree, model, release};
use crate::support::mosquitto::Mosquitto;
use crate::support::{Edgewarden, Ended, root};
use edgewarden::domain::ReasonCode;
use edgewarden::trust::model_signature::{self, SigningKey};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn openssl(arguments: &[&str]) {
    let run = Command::new("openssl").args(arguments).output().expect("openssl");
    assert!(run.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&run.stderr));
}

/// A new key, as the tool's manual makes it; `NAME` and `NAME.pub`.
fn key(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let (private, public) = (folder.join(name), folder.join(format!("{name}.pub")));
    openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", text(&private)]);
    openssl(&["ec", "-in", text(&private), "-pubout", "-out", text(&public)]);
    std::fs::set_permissions(&private, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    (private, public)
}

/// A copy of a committed bundle.
fn bundle(folder: &Path) -> PathBuf {
    let bundle = folder.join("bundle");
    copy_tree(&model("v1"), &bundle);
    bundle
}

fn check(bundle: &Path, public: &Path) -> Ended {
    Edgewarden::run(["bundle", "check", text(bundle), "--model-signer", text(public)])
}

/// The public tool, where it is installed.
fn tool() -> Option<PathBuf> {
    let tool = root().join(".deps/model-signing-venv/bin/model_signing");
    if !tool.exists() {
        println!("skipped: model_signing is not installed; packaging/setup.sh --tests installs it");
        return None;
    }
    Some(tool)
}

fn run(tool: &Path, arguments: &[&str]) -> (bool, String) {
    let run = Command::new(tool).args(arguments).output().unwrap();
    let said = [run.stdout, run.stderr].concat();
    (run.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn their_tool_verifies_what_we_sign() {
    let Some(tool) = tool() else { return };
    let dir = tempfile::tempdir().unwrap();
    let ((private, public), (_, other)) = (key(dir.path(), "key"), key(dir.path(), "other"));
    let bundle = bundle(dir.path());
    good(&["bundle", "seal", text(&bundle), "--model-signature-key", text(&private)]);
    let signature = bundle.join("model.sig");
    let verify = |public: &Path| {
        let signature = ["--signature", text(&signature), "--public_key", text(public)];
        run(&tool, &[&["verify", "key", text(&bundle)][..], &signature].concat())
    };
    let (verified, said) = verify(&public);
    assert!(verified, "{said}");
    let (verified, said) = verify(&other);
    assert!(!verified, "another key: {said}");
    let picture = bundle.join("golden/1.jpg");
    let before = std::fs::read(&picture).unwrap();
    std::fs::write(&picture, b"changed").unwrap();
    let (verified, said) = verify(&public);
    assert!(!verified && said.contains("golden/1.jpg"), "a changed file: {said}");
    std::fs::write(&picture, before).unwrap();
    std::fs::write(bundle.join("more"), b"added").unwrap();
    let (verified, said) = verify(&public);
    assert!(!verified && said.contains("more"), "an added file: {said}");
}

#[test]
fn we_verify_what_their_tool_signs() {
    let Some(tool) = tool() else { return };
    let dir = tempfile::tempdir().unwrap();
    let ((private, public), (_, other)) = (key(dir.path(), "key"), key(dir.path(), "other"));
    // Where the model was trained there are no golden inputs and no manifest.
    let trained = dir.path().join("trained");
    std::fs::create_dir(&trained).unwrap();
    std::fs::copy(model("v1").join("model.onnx"), trained.join("model.onnx")).unwrap();
    let signature = dir.path().join("model.sig");
    let sign = |folder: &Path| {
        let with = ["--signature", text(&signature), "--private_key", text(&private)];
        let (signed, said) = run(&tool, &[&["sign", "key", text(folder)][..], &with].concat());
        assert!(signed, "{said}");
    };
    sign(&trained);
    let bundle = bundle(dir.path());
    let seal = ["bundle", "seal", text(&bundle), "--model-signature", text(&signature)];
    good(&seal);
    let ended = check(&bundle, &public);
    assert!(ended.code == Some(0) && ended.stdout.contains("the model is signed by key"), "{ended:?}");
    let ended = check(&bundle, &other);
    assert!(ended.code == Some(1) && ended.stdout.contains("is not trusted"), "{ended:?}");

    // Another model than the one that was signed, one that was left out, one that came in.
    let refused = |what: &str| {
        let ended = Edgewarden::run(seal);
        assert!(ended.code == Some(2) && ended.stderr.contains(what), "{what}: {ended:?}");
        assert!(ended.stderr.contains("model_signature_invalid"), "{ended:?}");
    };
    std::fs::write(bundle.join("notes.txt"), b"added").unwrap();
    refused("notes.txt was not signed");
    std::fs::remove_file(bundle.join("notes.txt")).unwrap();
    std::fs::write(trained.join("notes.txt"), b"of the training").unwrap();
    sign(&trained);
    refused("\"notes.txt\" was signed and is not in the bundle");
    std::fs::copy(trained.join("notes.txt"), bundle.join("notes.txt")).unwrap();
    good(&seal);
    std::fs::copy(model("v2").join("model.onnx"), trained.join("model.onnx")).unwrap();
    sign(&trained);
    refused("model.onnx is not the file that was signed");

    // The whole bundle, without what changes with the signature.
    sign(&bundle);
    refused("manifest.json");
    let with = ["--signature", text(&signature), "--private_key", text(&private)];
    let (manifest, old, folder) = (bundle.join("manifest.json"), bundle.join("model.sig"), text(&bundle));
    let leave = ["--ignore-paths", text(&manifest), "--ignore-paths"];
    let arguments = [&["sign", "key", folder][..], &with, &leave, &[text(&old)]].concat();
    let (signed, said) = run(&tool, &arguments);
    assert!(signed, "{said}");
    good(&seal);
    assert_eq!(check(&bundle, &public).code, Some(0));
}

#[test]
fn a_device_that_requires_signatures_takes_no_model_without() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v1", "v2"]);
    let keys = tempfile::tempdir().unwrap();
    let ((private, public), (foreign, _)) = (key(keys.path(), "key"), key(keys.path(), "foreign"));
    let mut signed = |version: &str, private: &Path, after: fn(&Path)| {
        let private = SigningKey::load(private).unwrap();
        repository.publish_variant("v2", version, |folder, manifest| {
            // As `bundle seal` does it: the files are listed, signed, and listed again with the signature.
            std::fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
            let sealed = edgewarden::bundle::seal(folder).unwrap();
            let bytes = model_signature::make(&sealed, &private).unwrap();
            std::fs::write(folder.join("model.sig"), bytes).unwrap();
            after(folder);
        })
    };
    let good = signed("30.0.0", &private, |_| {});
    let next = signed("30.1.0", &private, |_| {});
    let bad = [
        (signed("30.0.1", &foreign, |_| {}), "is not trusted"),
        (
            signed("30.0.2", &private, |folder| std::fs::write(folder.join("more"), b"x").unwrap()),
            "more was not signed",
        ),
        (
            signed("30.0.3", &private, |folder| {
                std::fs::copy(model("v1").join("model.onnx"), folder.join("model.onnx")).unwrap();
            }),
            "model.onnx is not the file that was signed",
        ),
        (
            signed("30.0.4", &private, |folder| std::fs::write(folder.join("model.sig"), b"{}").unwrap()),
            "not a model signature",
        ),
        (release(2), "is missing, and update.require_model_signature asks for it"),
    ];
    let options = Options::new(&broker, &repository);
    let mut device = Device::serving(options, &release(1));
    device.stop();
    device.configure(|options| options.set("update.require_model_signature", vec![text(&public)]));
    device.forget();
    device.start();
    device.until_frames(3);
    for (release_of, what) in bad {
        let reason = device.update(&release_of).unwrap_err();
        assert_eq!(reason.code, ReasonCode::ModelSignatureInvalid, "{release_of}: {reason}");
        assert!(reason.detail.contains(what), "{what}: {reason}");
        assert_eq!(device.status().slots[0].current.as_ref().unwrap().release.to_string(), release(1));
    }
    // A key that cannot be read lets nothing in; put back, it is read again without a restart.
    std::fs::rename(&public, keys.path().join("away")).unwrap();
    assert_eq!(device.update(&good).unwrap_err().code, ReasonCode::BadRequest);
    std::fs::rename(keys.path().join("away"), &public).unwrap();
    device.update(&good).unwrap();
    device.until_frames(3);

    // Nor by a rollback: what served before has no signature. One that has comes back.
    let reason = device.command("rollback", json!({ "slot": SLOT })).unwrap_err();
    assert_eq!(reason.code, ReasonCode::ModelSignatureInvalid, "{reason}");
    assert!(reason.detail.contains(&release(1)) && reason.detail.contains("does not come back"), "{reason}");
    assert_eq!(device.status().slots[0].current.as_ref().unwrap().release.to_string(), good);
    device.update(&next).unwrap();
    device.command("rollback", json!({ "slot": SLOT })).unwrap();
    assert_eq!(device.status().slots[0].current.as_ref().unwrap().release.to_string(), good);
    device.until_frames(3);
}
