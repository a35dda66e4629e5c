//! `agent.toml` through the binary.

use crate::support::{Config, Edgewarden, onnxruntime, root};
use serde_json::Value;
use std::path::Path;

fn check(config: &Path, more: &[&str]) -> crate::support::Ended {
    Edgewarden::run(
        ["check", "--config"].iter().map(Path::new).chain([config]).chain(more.iter().map(Path::new)),
    )
}

fn findings(ended: &crate::support::Ended) -> Vec<Value> {
    let report: Value = serde_json::from_str(&ended.stdout).expect("one JSON object");
    report["findings"].as_array().expect("findings").clone()
}

fn level<'f>(findings: &'f [Value], subject: &str) -> (&'f str, &'f str) {
    let finding = findings.iter().find(|finding| finding["subject"] == subject);
    let finding = finding.unwrap_or_else(|| panic!("nothing on {subject} in {findings:#?}"));
    (finding["level"].as_str().unwrap(), finding["detail"].as_str().unwrap())
}

#[test]
fn every_fault_is_told_at_once_and_exits_with_1() {
    let config = Config::raw("[device]\nidd = \"x\"\n[update]\nmax_boots = 0\n");
    let ended = check(&config.path(), &[]);
    assert_eq!(ended.code, Some(1));
    let faults: Vec<&str> = ended.stdout.lines().filter(|line| line.starts_with("fail")).collect();
    assert_eq!(faults.len(), 2, "{}", ended.stdout);
    assert!(faults[0].contains("agent.toml:2: device.idd: unknown key; did you mean id?"), "{}", faults[0]);
    assert!(faults[1].contains("agent.toml:4: update.max_boots: 0 is out of range"), "{}", faults[1]);

    // Other commands say the same, one fault a line.
    let ended = Edgewarden::run([Path::new("status"), Path::new("--config"), &config.path()]);
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.stderr.lines().count(), 2, "{}", ended.stderr);
}

#[test]
fn a_good_machine_passes() {
    if !onnxruntime().is_file() {
        eprintln!("skipped: {} is missing; run packaging/setup.sh", onnxruntime().display());
        return;
    }
    let config = Config::new("[device]\nid = \"bench-1\"\n[[pipeline]]\nsource = { kind = \"synthetic\" }\n");
    let ended = check(&config.path(), &["--json"]);
    let findings = findings(&ended);
    assert_eq!(ended.code, Some(0), "{findings:#?}");
    for subject in
        ["configuration", "state folder", "runtime folder", "source of main", "ONNX Runtime", "provider cpu"]
    {
        assert_eq!(level(&findings, subject).0, "ok", "{subject}: {findings:#?}");
    }
    // A kernel that does not lock processes in is told, and is no reason to fail.
    let locked = edgewarden::sys::lockdown::probe().gaps().is_empty();
    assert_eq!(level(&findings, "models' processes").0, if locked { "ok" } else { "warn" }, "{findings:#?}");
    assert!(!config.folder().join("state").exists(), "a check changes nothing");
}

#[test]
fn what_would_not_run_is_told_with_its_remedy() {
    let config = Config::new(
        "[device]\nid = \"bench-1\"\n\
         [runtime]\nlibrary = \"/nowhere/libonnxruntime.so\"\n\
         [mqtt]\nurl = \"mqtt://127.0.0.1:1\"\n\
         [repository]\nurl = \"http://127.0.0.1:1/\"\n\
         [[pipeline]]\nname = \"a\"\nsource = { kind = \"folder\", path = \"pictures\" }\n\
         [[pipeline]]\nname = \"b\"\nsource = { kind = \"folder\", path = \"empty\" }\n\
         [[pipeline]]\nname = \"c\"\nsource = { kind = \"folder\", path = \"text\" }\n",
    );
    std::fs::create_dir(config.folder().join("empty")).unwrap();
    std::fs::create_dir(config.folder().join("text")).unwrap();
    std::fs::write(config.folder().join("text/a.jpg"), "this is no picture").unwrap();
    let ended = check(&config.path(), &["--json"]);
    assert_eq!(ended.code, Some(1));
    let findings = findings(&ended);
    for (subject, wanted_level, wanted) in [
        ("ONNX Runtime", "fail", "/nowhere/libonnxruntime.so"),
        ("source of a", "fail", "name a folder that the agent may read"),
        ("source of b", "fail", "holds no .jpg, .jpeg or .png"),
        ("source of c", "warn", "is neither JPEG nor PNG"),
        ("broker", "fail", "127.0.0.1:1"),
        ("repository", "fail", "pinned root"),
    ] {
        let (level, detail) = level(&findings, subject);
        assert_eq!(level, wanted_level, "{subject}: {detail}");
        assert!(detail.contains(wanted), "{subject}: {detail}");
    }
}

#[test]
fn a_library_that_is_none_is_told() {
    let config =
        Config::new("[runtime]\nlibrary = \"fake.so\"\n[[pipeline]]\nsource = { kind = \"synthetic\" }\n");
    std::fs::write(config.folder().join("fake.so"), "#!/bin/sh\n").unwrap();
    let ended = check(&config.path(), &["--json"]);
    assert_eq!(ended.code, Some(1));
    let findings = findings(&ended);
    let (level, detail) = level(&findings, "ONNX Runtime");
    assert_eq!(level, "fail");
    assert!(detail.contains("fake.so"), "{detail}");
}

#[test]
fn the_example_at_the_top_is_read() {
    let ended = check(&root().join("agent.toml"), &["--json"]);
    let findings = findings(&ended);
    // Whether a broker runs here is not the example's affair.
    assert_ne!(level(&findings, "configuration").0, "fail", "{findings:#?}");
    assert_eq!(level(&findings, "source of camera").0, "ok");
}
