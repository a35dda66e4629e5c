//! The reference client, PyPI's `tuf`, on repositories of ours over HTTP.

use super::Desk;
use crate::support::root;
use crate::support::web::Web;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `packaging/setup.sh --tests` installs; a test says that it is skipped where it is missing.
fn python() -> Option<PathBuf> {
    let python = root().join(".deps/tuf-venv/bin/python");
    if python.exists() {
        return Some(python);
    }
    eprintln!("skipped: the reference TUF client is not there; run packaging/setup.sh --tests");
    None
}

/// Fetches a release's manifest as the reference client does, which remembers in `folder`; gives it, or what
/// the client said.
fn fetched(desk: &Desk, python: &Path, web: &Web, folder: &str, release: &str) -> Result<Vec<u8>, String> {
    let (name, version) = release.split_once('@').unwrap();
    let output = Command::new(python)
        .arg(root().join("tests/it/support/tuf_client.py"))
        .arg(desk.path("pinned.json"))
        .arg(web.url())
        .arg(desk.path(folder))
        .arg(format!("{name}/{version}/manifest.json"))
        .output()
        .expect("start python");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let path = String::from_utf8_lossy(&output.stdout);
    println!("reference client: {release}: {}{said}", path.trim());
    if output.status.success() { Ok(std::fs::read(path.trim()).unwrap()) } else { Err(said) }
}

#[test]
fn it_fetches_with_thresholds_of_two_after_a_rotation_and_through_a_delegation() {
    let Some(python) = python() else { return };
    let desk = Desk::new();
    for name in ["alice", "bob", "carol", "acme", "second"] {
        desk.key(name);
    }
    let all = "--sign-with alice/alice.pem --sign-with bob/bob.pem";
    desk.good(&format!(
        "repo init fleet --role-key root,targets,snapshot,timestamp=alice/alice.pub --role-key root,targets,snapshot,timestamp=bob/bob.pub --threshold root,targets,snapshot,timestamp=2 {all}"
    ));
    let bundle = desk.bundle("finder", "1.0.0");
    desk.good(&format!("repo publish fleet {bundle} {all}"));
    std::fs::copy(desk.path("fleet/metadata/1.root.json"), desk.path("pinned.json")).unwrap();
    let web = Web::start(&desk.path("fleet"));
    let manifest = |folder: &str| std::fs::read(desk.path(folder).join("manifest.json")).unwrap();
    let fetch = |folder: &str, release: &str| fetched(&desk, &python, &web, folder, release);
    assert_eq!(fetch("client", "finder@1.0.0").unwrap(), manifest(&bundle));

    // Every role gets other keys.
    let id = |name: &str| {
        let shown = desk.json(&format!("repo key show {name}/{name}.pub"));
        shown["id"].as_str().unwrap().to_owned()
    };
    let roles = "root,targets,snapshot,timestamp";
    let rotated = desk.json(&format!(
        "repo root rotate fleet --add {roles}=carol/carol.pub --revoke {roles}={} {all} --sign-with carol/carol.pem",
        id("alice")
    ));
    assert_eq!(rotated["state"], "live");
    let all = "--sign-with bob/bob.pem --sign-with carol/carol.pem";
    let next = desk.bundle("finder", "2.0.0");
    desk.good(&format!("repo publish fleet {next} {all}"));
    for folder in ["client", "fresh"] {
        assert_eq!(fetch(folder, "finder@2.0.0").unwrap(), manifest(&next), "{folder}");
    }

    // Two keys of a supplier.
    let two = "--sign-with acme/acme.pem --sign-with second/second.pem";
    desk.good(&format!(
        "repo delegate fleet acme --paths face-* --key acme/acme.pub --key second/second.pub --threshold 2 {all} {two}"
    ));
    let faces = desk.bundle("face-finder", "1.0.0");
    desk.good(&format!("repo publish fleet {faces} --delegation acme {all} {two}"));
    for folder in ["client", "fresh", "third"] {
        assert_eq!(fetch(folder, "face-finder@1.0.0").unwrap(), manifest(&faces), "{folder}");
        assert!(fetch(folder, "face-finder@9.0.0").unwrap_err().contains("no role lists"));
    }

    // Its releases, and the delegation itself, taken away again.
    desk.good(&format!("repo delist fleet finder@1.0.0 {all}"));
    assert!(fetch("client", "finder@1.0.0").unwrap_err().contains("no role lists"));
    desk.good(&format!("repo delegate fleet acme --remove {all}"));
    assert!(fetch("client", "face-finder@1.0.0").unwrap_err().contains("no role lists"));
    assert_eq!(fetch("client", "finder@2.0.0").unwrap(), manifest(&next));
    desk.good("repo check fleet --root pinned.json");

    // It is a judge, and not one who nods: a signature less, and it refuses.
    let timestamp = desk.path("fleet/metadata/timestamp.json");
    let mut file: serde_json::Value = serde_json::from_slice(&std::fs::read(&timestamp).unwrap()).unwrap();
    file["signatures"].as_array_mut().unwrap().pop();
    file["signed"]["version"] = 1000.into();
    std::fs::write(&timestamp, file.to_string()).unwrap();
    assert!(fetch("client", "finder@2.0.0").unwrap_err().contains("UnsignedMetadataError"));
}
