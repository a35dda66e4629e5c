//! Every field of an envelope tampered with, the published test vector of DSSE, and rubbish.

use super::*;
use proptest::prelude::*;

fn key(seed: u8) -> Key {
    Key::from_seed(&[seed; 32]).unwrap()
}

fn public(key: &Key) -> [u8; 32] {
    hex::decode(key.public_hex()).unwrap().try_into().unwrap()
}

fn statement(key: &Key) -> Statement {
    Statement {
        id: "18".parse().unwrap(),
        key: key.id().parse().unwrap(),
        audience: "group:line-3".parse().unwrap(),
        sequence: 41,
        issued: "2027-01-15T08:00:00Z".parse().unwrap(),
        expires: "2027-01-15T08:10:00Z".parse().unwrap(),
        action: serde_json::from_str(r#"{"command":"rollback","slot":"detector"}"#).unwrap(),
    }
}

fn signed() -> Value {
    let key = key(1);
    serde_json::from_str(&sign(&statement(&key), &key).unwrap()).unwrap()
}

fn open(envelope: &Value, key: &Key) -> Result<Statement, ReasonCode> {
    let read = read(envelope.to_string().as_bytes()).map_err(|reason| reason.code)?;
    read.verify(&public(key)).map(|verified| verified.get().clone()).map_err(|reason| reason.code)
}

/// The envelope with another payload under the same signature.
fn with_payload(change: impl FnOnce(&mut Value)) -> Value {
    let mut envelope = signed();
    let bytes = STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap();
    let mut payload = serde_json::from_slice(&bytes).unwrap();
    change(&mut payload);
    envelope["payload"] = STANDARD.encode(payload.to_string()).into();
    envelope
}

#[test]
fn what_was_signed_is_read_back() {
    assert_eq!(open(&signed(), &key(1)), Ok(statement(&key(1))));
    assert_eq!(open(&signed(), &key(2)), Err(ReasonCode::SignatureInvalid));
    assert!(is_envelope(signed().to_string().as_bytes()));
    assert!(!is_envelope(br#"{"slot":"detector"}"#));
    assert!(!is_envelope(b"[1]") && !is_envelope(b"") && !is_envelope(b"{"));
}

/// "hello world" under `http://example.com/HelloWorld`, from the specification's text.
#[test]
fn the_encoding_is_that_of_the_specification() {
    let expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world";
    assert_eq!(pae("http://example.com/HelloWorld", b"hello world"), expected);
    assert_eq!(pae("", b""), b"DSSEv1 0  0 ");
}

#[test]
fn each_changed_field_breaks_the_signature() {
    let other = key(2).id().to_owned();
    let changes: [(&str, Value); 7] = [
        ("id", json!("19")),
        ("key", json!(other)),
        ("audience", json!({ "device": "pi-1" })),
        ("sequence", json!(42)),
        ("issued", json!("2027-01-15T08:00:01Z")),
        ("expires", json!("2028-01-15T08:10:00Z")),
        ("action", json!({ "command": "restart" })),
    ];
    for (field, value) in changes {
        let envelope = with_payload(|payload| payload[field] = value);
        assert_eq!(open(&envelope, &key(1)), Err(ReasonCode::SignatureInvalid), "{field}");
    }
    // The same text with one blank more is another text.
    let mut blank = signed();
    let mut bytes = STANDARD.decode(blank["payload"].as_str().unwrap()).unwrap();
    bytes.push(b' ');
    blank["payload"] = STANDARD.encode(bytes).into();
    assert_eq!(open(&blank, &key(1)), Err(ReasonCode::SignatureInvalid));
}

#[test]
fn only_a_signature_by_the_named_key_counts_whatever_stands_beside_it() {
    let good = signed()["signatures"][0].clone();
    let rubbish = json!({ "keyid": key(1).id(), "sig": STANDARD.encode([7; 64]) });
    let short = json!({ "sig": "AAAA" });
    let of_another = {
        let payload = STANDARD.decode(signed()["payload"].as_str().unwrap()).unwrap();
        let bytes = hex::decode(key(2).sign(&pae(PAYLOAD_TYPE, &payload))).unwrap();
        json!({ "keyid": key(1).id(), "sig": STANDARD.encode(bytes) })
    };
    for (signatures, taken) in [
        (json!([good, rubbish]), true),
        (json!([rubbish, short, of_another, good]), true),
        // The hint is not signed: another one, or none, changes nothing.
        (json!([{ "keyid": "other", "sig": good["sig"] }]), true),
        (json!([{ "sig": good["sig"] }]), true),
        (json!([]), false),
        (json!([of_another, rubbish]), false),
        (json!([short]), false),
    ] {
        let mut envelope = signed();
        envelope["signatures"] = signatures.clone();
        let opened = open(&envelope, &key(1));
        assert_eq!(opened.is_ok(), taken, "{signatures}");
        if !taken {
            assert_eq!(opened, Err(ReasonCode::SignatureInvalid), "{signatures}");
        }
    }
}

#[test]
fn the_type_is_signed_and_a_raw_signature_is_none() {
    let mut envelope = signed();
    envelope["payloadType"] = "application/json".into();
    assert_eq!(open(&envelope, &key(1)), Err(ReasonCode::Malformed));
    // Somebody has the key sign the payload's bytes for another purpose: without the encoding that is nothing.
    let payload = STANDARD.decode(signed()["payload"].as_str().unwrap()).unwrap();
    for text in [payload.clone(), pae("application/json", &payload)] {
        let mut envelope = signed();
        envelope["signatures"][0]["sig"] = STANDARD.encode(hex::decode(key(1).sign(&text)).unwrap()).into();
        assert_eq!(open(&envelope, &key(1)), Err(ReasonCode::SignatureInvalid));
    }
}

#[test]
fn either_base64_is_read() {
    let mut envelope = signed();
    for field in ["/payload", "/signatures/0/sig"] {
        let value = envelope.pointer_mut(field).unwrap();
        let bytes = STANDARD.decode(value.as_str().unwrap()).unwrap();
        *value = URL_SAFE_NO_PAD.encode(bytes).into();
    }
    assert_eq!(open(&envelope, &key(1)), Ok(statement(&key(1))));
}

#[test]
fn what_is_no_envelope_of_a_command_is_refused() {
    let nine = vec![json!({ "sig": "" }); 9];
    for envelope in [
        json!({}),
        json!([]),
        json!({ "payload": "", "payloadType": PAYLOAD_TYPE, "signatures": [] }),
        json!({ "payload": "*", "payloadType": PAYLOAD_TYPE, "signatures": [] }),
        with_payload(|payload| payload["force"] = true.into()),
        with_payload(|payload| payload["audience"] = json!({ "device": "a", "group": "b" })),
        with_payload(|payload| payload["audience"] = json!("pi-1")),
        with_payload(|payload| payload["sequence"] = json!(-1)),
        with_payload(|payload| payload["sequence"] = json!(1.5)),
        with_payload(|payload| payload["issued"] = json!("yesterday")),
        with_payload(|payload| payload["key"] = json!("ab")),
        with_payload(|payload| payload["id"] = json!("a/b")),
        with_payload(|payload| payload["action"] = json!([])),
        with_payload(|payload| drop(payload.as_object_mut().unwrap().remove("expires"))),
        {
            let mut envelope = signed();
            envelope["signatures"] = nine.into();
            envelope
        },
    ] {
        assert_eq!(open(&envelope, &key(1)), Err(ReasonCode::Malformed), "{envelope}");
    }
    let long = format!("{}{}", signed(), " ".repeat(MAX_ENVELOPE));
    assert_eq!(read(long.as_bytes()).unwrap_err().code, ReasonCode::SizeMismatch);
    assert!(!is_envelope(long.as_bytes()));
    // A name twice: which one would count?
    let twice = signed().to_string().replacen('{', r#"{"payload":"","#, 1);
    assert_eq!(read(twice.as_bytes()).unwrap_err().code, ReasonCode::Malformed);
}

#[test]
fn a_statement_is_signed_by_the_key_that_it_names_and_fits() {
    assert_eq!(sign(&statement(&key(1)), &key(2)).unwrap_err().code, ReasonCode::BadRequest);
    let mut long = statement(&key(1));
    long.action.insert("x".into(), "x".repeat(MAX_ENVELOPE).into());
    assert_eq!(sign(&long, &key(1)).unwrap_err().code, ReasonCode::BadRequest);
}

proptest! {
    #[test]
    fn no_bytes_are_a_panic(bytes: Vec<u8>, payload: Vec<u8>) {
        let _ = (is_envelope(&bytes), read(&bytes).is_ok());
        let envelope = json!({
            "payload": STANDARD.encode(&payload), "payloadType": PAYLOAD_TYPE, "signatures": [],
        });
        let _ = read(envelope.to_string().as_bytes());
    }

    #[test]
    fn one_changed_byte_is_never_accepted_as_something_else(at in 0_usize..700, by in 1_u8..=255) {
        let mut bytes = signed().to_string().into_bytes();
        let at = at % bytes.len();
        bytes[at] = bytes[at].wrapping_add(by);
        if let Ok(envelope) = read(&bytes)
            && let Ok(verified) = envelope.verify(&public(&key(1)))
        {
            // The hint, the spelling of base64, blanks: what was signed is what is read.
            prop_assert_eq!(verified.get(), &statement(&key(1)));
        }
    }
}
