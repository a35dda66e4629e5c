//! Signed commands beside another implementation of DSSE (PyPI's `securesystemslib`), and the command line
//! with which people make keys, lists and commands.

use crate::support::operators::Person;
use crate::support::{Edgewarden, root};
use edgewarden::trust::envelope::{self, PAYLOAD_TYPE};
use edgewarden::trust::{InitOptions, Publisher};
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Reads an envelope and a public key, verifies; signs its payload anew with a key of its own; prints the new
/// envelope, its public key and its key id.
const REFERENCE: &str = r#"
import json, sys
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner, SSlibKey
from securesystemslib.exceptions import VerificationError
given = json.load(sys.stdin)
key = SSlibKey(given["keyid"], "ed25519", "ed25519", {"public": given["public"]})
ours = Envelope.from_dict(given["envelope"])
accepted = list(ours.verify([key], 1))
payload, ours.payload = ours.payload, ours.payload + b" "
try:
    ours.verify([key], 1)
    changed = True
except VerificationError:
    changed = False
signer = CryptoSigner.generate_ed25519()
statement = json.loads(payload)
statement["key"] = signer.public_key.keyid
theirs = Envelope(json.dumps(statement).encode(), given["envelope"]["payloadType"], {})
theirs.sign(signer)
print(json.dumps({
    "accepted": accepted, "changed": changed, "envelope": theirs.to_dict(), "pae": ours.pae().hex(),
    "keyid": signer.public_key.keyid, "public": signer.public_key.keyval["public"],
}))
"#;

/// The interpreter that has `securesystemslib`, where `packaging/setup.sh --tests` ran.
fn python() -> Option<PathBuf> {
    let python = root().join(".deps/securesystemslib-venv/bin/python");
    python.exists().then_some(python)
}

#[test]
fn securesystemslib_takes_our_envelopes_and_we_take_its() {
    let Some(python) = python() else {
        println!("skipped: no securesystemslib; packaging/setup.sh --tests installs it");
        return;
    };
    let anna = Person::new("anna", 1);
    let statement = anna.statement("group:line-3", 41, json!({ "command": "rollback", "slot": "größe" }));
    let ours: Value = serde_json::from_str(&anna.sign(&statement)).unwrap();
    let given = json!({ "envelope": ours, "keyid": anna.key.id(), "public": anna.key.public_hex() });
    let mut child = Command::new(python)
        .args(["-c", REFERENCE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start Python");
    child.stdin.take().unwrap().write_all(given.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "securesystemslib refuses our envelope");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["accepted"], json!([anna.key.id()]), "its key ids are ours");
    assert_eq!(told["changed"], false, "one byte more is another payload");

    let theirs = envelope::read(told["envelope"].to_string().as_bytes()).unwrap();
    let key = told["keyid"].as_str().unwrap();
    assert_eq!(theirs.claimed().key.to_string(), key);
    let public: [u8; 32] = hex::decode(told["public"].as_str().unwrap()).unwrap().try_into().unwrap();
    let verified = theirs.clone().verify(&public).unwrap();
    assert_eq!((verified.get().sequence, &verified.get().action), (41, &statement.action));
    assert!(theirs.verify(&hex::decode(anna.key.public_hex()).unwrap().try_into().unwrap()).is_err());
    // What is signed is the same to the byte.
    let payload = serde_json::to_vec(&statement).unwrap();
    let changed = envelope::pae(PAYLOAD_TYPE, &[&payload[..], b" "].concat());
    assert_eq!(told["pae"].as_str().unwrap(), hex::encode(changed));
}

#[test]
fn operators_are_made_listed_and_shown_from_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let now = jiff::Timestamp::now();
    let keys = dir.path().join("fleet-keys");
    drop(Publisher::init(&dir.path().join("fleet"), &keys, InitOptions::default(), now).unwrap());
    let run = |arguments: &[&str]| {
        let ended = Edgewarden::run(arguments);
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        ended.stdout
    };
    let shown = || -> Value {
        serde_json::from_str(&run(&["repo", "operators", "show", &path("fleet"), "--json"])).unwrap()
    };
    assert_eq!(shown(), json!({ "operators": null }));
    let entry: Value = serde_json::from_str(&run(&[
        "repo",
        "operators",
        "key",
        &path("anna.pem"),
        "--name",
        "anna",
        "--roles",
        "observe,deploy",
    ]))
    .unwrap();
    assert_eq!((&entry["name"], &entry["roles"]), (&json!("anna"), &json!(["observe", "deploy"])));
    // The same key again, not another one.
    let again: Value =
        serde_json::from_str(&run(&["repo", "operators", "key", &path("anna.pem"), "--name", "anna"]))
            .unwrap();
    assert_eq!(again["key"], entry["key"]);

    std::fs::write(path("list.json"), json!({ "format": 1, "operators": [entry] }).to_string()).unwrap();
    let told = run(&["repo", "operators", "set", &path("fleet"), &path("list.json")]);
    assert!(told.contains("Published 1 operator") && told.contains("anna"), "{told}");
    let told = run(&["repo", "operators", "set", &path("fleet"), &path("list.json")]);
    assert!(told.contains("Unchanged"), "{told}");
    assert_eq!(shown()["operators"][0]["roles"], json!(["observe", "deploy"]));
    run(&["repo", "operators", "drop", &path("fleet")]);
    assert_eq!(shown(), json!({ "operators": null }));

    std::fs::write(path("list.json"), r#"{"format":1,"operators":[{"name":"anna"}]}"#).unwrap();
    let ended = Edgewarden::run(["repo", "operators", "set", &path("fleet"), &path("list.json")]);
    assert!(ended.code == Some(1) && ended.stderr.contains("missing field"), "{ended:?}");

    // What is signed is told with its topic; a slip is told before it is sent.
    let sign = |action: &str, more: &[&str]| {
        let key = path("anna.pem");
        let mut arguments = vec!["sign-command", "--key", &key, "--to", "group:line-3", "--action", action];
        arguments.extend(more);
        Edgewarden::run(arguments)
    };
    let ended = sign(r#"{"command":"restart"}"#, &["--id", "18", "--sequence", "7", "--expires", "90s"]);
    assert!(ended.stderr.contains("edgewarden/group/line-3/cmd/restart/18"), "{ended:?}");
    let read = envelope::read(ended.stdout.trim().as_bytes()).unwrap();
    let claimed = read.claimed();
    assert_eq!((claimed.id.as_str(), claimed.sequence), ("18", 7));
    assert_eq!(claimed.expires.as_second() - claimed.issued.as_second(), 90);
    for (action, more) in [
        (r#"{"command":"fly"}"#, &[][..]),
        ("restart", &[]),
        (r#"{"command":"update","slot":"a"}"#, &[]),
        (r#"{"command":"restart"}"#, &["--expires", "31d"]),
        (r#"{"command":"restart"}"#, &["--expires", "10"]),
    ] {
        assert_eq!(sign(action, more).code, Some(64), "{action} {more:?}");
    }
}
