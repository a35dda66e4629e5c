//! Signatures of made-up bundles: every part of the file changed, and every way in which a bundle can differ
//! from what was signed. Against the public tool: `tests/it/modelsec`.

use super::*;
use crate::domain::Digest;
use crate::domain::manifest::{Encryption, GoldenSample, Scheme};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;

struct Desk {
    dir: tempfile::TempDir,
    key: SigningKey,
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pair =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new()).unwrap();
        let path = dir.path().join("key");
        let body = BASE64.encode(pair.as_ref());
        std::fs::write(&path, format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n"))
            .unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let key = SigningKey::load(&path).unwrap();
        Self { dir, key }
    }

    fn public(&self) -> [PublicKey; 1] {
        [self.key.public()]
    }

    /// The signature of a statement that somebody wrote by hand.
    fn signed(&self, statement: &Value) -> Vec<u8> {
        let payload = statement.to_string().into_bytes();
        let mut file: Value = serde_json::from_slice(&make(&manifest(), &self.key).unwrap()).unwrap();
        let signature = self.key.sign(&pae(PAYLOAD_TYPE, &payload)).unwrap();
        file["dsseEnvelope"]["payload"] = BASE64.encode(&payload).into();
        file["dsseEnvelope"]["signatures"][0]["sig"] = BASE64.encode(signature).into();
        file.to_string().into_bytes()
    }
}

fn entry(path: &str, content: u8) -> FileEntry {
    FileEntry { path: path.into(), sha256: Digest::from_bytes([content; 32]), size: 100 }
}

/// A model, weights in a folder beside it, and a golden input.
fn manifest() -> Manifest {
    let files = ["golden/1.jpg", "model.onnx", "weights/a", "weights.txt"];
    let golden = GoldenSample { input: "golden/1.jpg".into(), expected: Default::default() };
    Manifest {
        files: files.iter().zip(1..).map(|(path, content)| entry(path, content)).collect(),
        golden: vec![golden],
        ..crate::bundle::tests::sample()
    }
}

fn statement(signature: &[u8]) -> Value {
    serde_json::from_slice(&opened(signature).unwrap().0).unwrap()
}

#[test]
fn what_is_made_is_verified_and_lists_the_files_folder_by_folder() {
    let desk = Desk::new();
    let made = make(&manifest(), &desk.key).unwrap();
    let signed = verify(&made, &desk.public()).unwrap();
    compare(&signed, &manifest()).unwrap();
    is_about(&made, &manifest()).unwrap();
    assert_eq!(signed.key, desk.key.public().id());
    let statement = statement(&made);
    let names: Vec<_> =
        statement["predicate"]["resources"].as_array().unwrap().iter().map(|r| &r["name"]).collect();
    assert_eq!(names, ["golden/1.jpg", "model.onnx", "weights/a", "weights.txt"]);
    assert_eq!(statement["predicate"]["serialization"]["ignore_paths"], serde_json::json!([MANIFEST, FILE]));
    let digests: Vec<u8> = (1..5).flat_map(|content| [content; 32]).collect();
    assert_eq!(statement["subject"][0]["digest"]["sha256"], sha256(&digests).to_string());
}

#[test]
fn another_key_and_every_changed_part_are_refused() {
    let desk = Desk::new();
    let made = make(&manifest(), &desk.key).unwrap();
    let other = Desk::new().public();
    let reason = verify(&made, &other).unwrap_err();
    assert_eq!(reason.code, ReasonCode::ModelSignatureInvalid);
    assert!(reason.detail.contains("is not trusted"), "{reason}");
    let both = [desk.public(), other].concat();
    assert_eq!(verify(&made, &both).unwrap().key, desk.key.public().id());
    assert!(verify(&made, &[]).is_err());

    type Edit = fn(&mut Value);
    let edits: [(&str, Edit); 8] = [
        ("mediaType", |file| file["mediaType"] = "application/json".into()),
        ("payloadType", |file| file["dsseEnvelope"]["payloadType"] = "text/plain".into()),
        ("payload", |file| file["dsseEnvelope"]["payload"] = BASE64.encode("{}").into()),
        ("base64", |file| file["dsseEnvelope"]["payload"] = "?".into()),
        ("signature", |file| file["dsseEnvelope"]["signatures"][0]["sig"] = BASE64.encode([0; 70]).into()),
        ("no signature", |file| file["dsseEnvelope"]["signatures"] = Value::Array(vec![])),
        ("no envelope", |file| drop(file.as_object_mut().unwrap().remove("dsseEnvelope"))),
        ("a certificate", |file| {
            file["verificationMaterial"] = serde_json::json!({ "x509CertificateChain": {} });
            file["dsseEnvelope"]["signatures"][0]["sig"] = "".into();
        }),
    ];
    for (what, edit) in edits {
        let mut file: Value = serde_json::from_slice(&made).unwrap();
        edit(&mut file);
        let reason = verify(file.to_string().as_bytes(), &desk.public()).expect_err(what);
        assert_eq!(reason.code, ReasonCode::ModelSignatureInvalid, "{what}");
    }
    assert!(verify(&vec![b' '; MAX_FILE as usize + 1], &desk.public()).is_err());
}

#[test]
fn a_statement_that_is_signed_must_still_be_one_of_a_model() {
    let desk = Desk::new();
    let good = statement(&make(&manifest(), &desk.key).unwrap());
    assert!(verify(&desk.signed(&good), &desk.public()).is_ok());
    type Edit = fn(&mut Value);
    let edits: [(&str, Edit); 10] = [
        ("of type", |s| s["_type"] = "https://in-toto.io/Statement/v0.1".into()),
        ("predicate", |s| s["predicateType"] = "https://slsa.dev/provenance/v1".into()),
        ("newer tool", |s| s["predicateType"] = "https://model_signing/Digests/v0.1".into()),
        ("shards", |s| s["predicate"]["serialization"]["method"] = "shards".into()),
        ("blake3", |s| s["predicate"]["serialization"]["hash_type"] = "blake3".into()),
        ("subjects", |s| s["subject"] = Value::Array(vec![])),
        ("subject stands for", |s| s["subject"][0]["digest"]["sha256"] = "00".repeat(32).into()),
        ("subject stands for", |s| drop(s["predicate"]["resources"].as_array_mut().unwrap().pop())),
        ("has no SHA-256", |s| s["predicate"]["resources"][0]["algorithm"] = "sha512".into()),
        ("listed twice", |s| s["predicate"]["resources"][0]["name"] = "model.onnx".into()),
    ];
    for (what, edit) in edits {
        let mut statement = good.clone();
        edit(&mut statement);
        let reason = verify(&desk.signed(&statement), &desk.public()).expect_err(what);
        assert!(reason.detail.contains(what), "{what}: {reason}");
        assert_eq!(reason.code, ReasonCode::ModelSignatureInvalid);
    }
}

#[test]
fn every_difference_between_bundle_and_signature_is_named() {
    let desk = Desk::new();
    let made = make(&manifest(), &desk.key).unwrap();
    let signed = verify(&made, &desk.public()).unwrap();
    type Edit = fn(&mut Manifest);
    let faults: [(&str, Edit); 5] = [
        ("model.onnx is not the file that was signed", |m| m.files[1] = entry("model.onnx", 9)),
        ("golden/1.jpg is not the file", |m| m.files[0] = entry("golden/1.jpg", 9)),
        ("more was not signed", |m| m.files.push(entry("more", 9))),
        ("more was not signed (the same was signed as \"weights/a\")", |m| m.files.push(entry("more", 3))),
        ("\"weights/a\" was signed and is not in the bundle", |m| drop(m.files.remove(2))),
    ];
    for (what, edit) in faults {
        let mut changed = manifest();
        edit(&mut changed);
        let reason = compare(&signed, &changed).expect_err(what);
        assert!(reason.detail.contains(what), "{what}: {reason}");
    }
    let mut many = manifest();
    many.files.iter_mut().for_each(|file| file.sha256 = Digest::from_bytes([77; 32]));
    assert!(compare(&signed, &many).unwrap_err().detail.contains("and 1 more"));
    // What comes after the signature: itself, and further golden inputs.
    let mut later = manifest();
    later.files.extend([entry(FILE, 50), entry("golden/2.jpg", 51)]);
    later.golden.push(GoldenSample { input: "golden/2.jpg".into(), expected: Default::default() });
    compare(&signed, &later).unwrap();
}

#[test]
fn what_is_ignored_never_is_the_model() {
    let desk = Desk::new();
    let mut of_weights = manifest();
    of_weights.files.retain(|file| file.path.starts_with("weights/"));
    let mut statement = statement(&make(&of_weights, &desk.key).unwrap());
    let mut compared = |ignored: Value| {
        statement["predicate"]["serialization"]["ignore_paths"] = ignored;
        let signed = verify(&desk.signed(&statement), &desk.public()).unwrap();
        compare(&signed, &manifest()).unwrap_err().detail
    };
    let all = compared(serde_json::json!(["model.onnx", "weights.txt"]));
    assert!(all.starts_with("model.onnx was not signed;"), "{all}");
    let beginning = compared(serde_json::json!(["weights"]));
    assert!(beginning.contains("weights.txt was not signed"), "a beginning is no folder: {beginning}");
}

#[test]
fn a_calibration_table_must_be_signed_whatever_else_it_is() {
    let desk = Desk::new();
    let mut statement = statement(&make(&manifest(), &desk.key).unwrap());
    statement["predicate"]["serialization"]["ignore_paths"] = serde_json::json!(["table"]);
    let signed = verify(&desk.signed(&statement), &desk.public()).unwrap();
    let mut later = manifest();
    later.files.push(entry("table", 9));
    later.golden.push(GoldenSample { input: "table".into(), expected: Default::default() });
    compare(&signed, &later).unwrap();
    later.runtime.tensorrt.calibration_table = Some("table".into());
    let reason = compare(&signed, &later).unwrap_err();
    assert!(reason.detail.contains("table was not signed"), "{reason}");
}

/// The maker signs what was trained; what travels is encrypted.
#[test]
fn of_an_encrypted_model_the_plain_form_is_compared() {
    let desk = Desk::new();
    let signed = verify(&make(&manifest(), &desk.key).unwrap(), &desk.public()).unwrap();
    let mut encrypted = manifest();
    let plain = encrypted.files[1].clone();
    encrypted.files[1] = entry("model.onnx", 99);
    assert!(compare(&signed, &encrypted).is_err());
    encrypted.encryption =
        Some(Encryption { scheme: Scheme::Age, recipients: vec!["age1".into()], files: vec![plain] });
    compare(&signed, &encrypted).unwrap();
}

#[test]
fn the_check_of_a_folder_says_what_is_missing_and_which_key_signed() {
    let desk = Desk::new();
    let path = |name: &str| desk.dir.path().join(name);
    let der = [&keys::SPKI[..], &desk.key.public().point].concat();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(der));
    std::fs::write(path("key.pub"), pem).unwrap();
    let keys = [path("key.pub")];
    let check = |manifest: &Manifest, keys: &[PathBuf]| check(desk.dir.path(), manifest, keys);
    let missing = check(&manifest(), &keys).unwrap_err();
    assert!(
        missing.code == ReasonCode::ModelSignatureInvalid && missing.detail.contains("is missing"),
        "{missing}"
    );

    let made = make(&manifest(), &desk.key).unwrap();
    std::fs::write(path(FILE), &made).unwrap();
    let mut whole = manifest();
    whole.files.push(FileEntry { path: FILE.into(), sha256: sha256(&made), size: made.len() as u64 });
    assert_eq!(check(&whole, &keys).unwrap(), desk.key.public().id());
    whole.files[4].sha256 = Digest::from_bytes([0; 32]);
    assert!(check(&whole, &keys).unwrap_err().detail.contains("that the manifest lists"));
    for (name, text) in
        [("nothing", None), ("empty", Some("")), ("private", Some("-----BEGIN PRIVATE KEY-----"))]
    {
        if let Some(text) = text {
            std::fs::write(path(name), text).unwrap();
        }
        let reason = check(&whole, &[path(name)]).unwrap_err();
        assert!(reason.code == ReasonCode::BadRequest && reason.detail.contains(name), "{reason}");
    }
}

#[test]
fn a_private_key_is_its_owners_alone() {
    let desk = Desk::new();
    let path = desk.dir.path().join("key");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(SigningKey::load(&path).unwrap_err().detail.contains("chmod 600"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&path, "no key").unwrap();
    assert!(SigningKey::load(&path).unwrap_err().detail.contains("P-256"));
    assert!(!format!("{:?}", desk.key).contains("PRIVATE"));
}
