//! Signed commands and the list of those who may sign them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edgewarden::mqtt::commands;
use edgewarden::trust::envelope::{self, MAX_ENVELOPE, PAYLOAD_TYPE, Statement};
use edgewarden::trust::keys::Key;
use edgewarden::trust::operators::{self, MAX_OPERATORS};
use serde_json::json;

/// An envelope, and the same bytes as the payload of one. A statement that is understood is signed, read and
/// verified again, and its action is read as one that an operator sends.
pub fn envelope(data: &[u8]) {
    let _ = envelope::is_envelope(data);
    understood(data);
    let wrapped = json!({ "payload": STANDARD.encode(data), "payloadType": PAYLOAD_TYPE, "signatures": [] });
    understood(wrapped.to_string().as_bytes());
}

fn understood(bytes: &[u8]) {
    let Ok(read) = envelope::read(bytes) else { return };
    assert!(bytes.len() <= MAX_ENVELOPE && envelope::is_envelope(bytes));
    let key = Key::from_seed(&[7; 32]).expect("a key");
    let claimed = Statement { key: key.id().parse().expect("a key id"), ..read.claimed().clone() };
    if let Err(reason) = commands::action(&claimed.action) {
        assert!(reason.detail.len() < 4096, "a refusal is not longer than what may be sent");
    }
    let public = hex::decode(key.public_hex()).expect("digits").try_into().expect("32 bytes");
    // Nobody has signed it with this key.
    assert!(read.verify(&public).is_err());
    // What was written with more digits or other escapes may not fit any more.
    let Ok(signed) = envelope::sign(&claimed, &key) else { return };
    let again = envelope::read(signed.as_bytes()).expect("what was signed is read");
    assert_eq!(again.verify(&public).expect("what was signed is verified").get(), &claimed);
}

/// The list of operators.
pub fn operators(data: &[u8]) {
    if let Ok(list) = operators::parse(data) {
        assert!(list.is_listed() && list.iter().count() <= MAX_OPERATORS);
        assert!(list.iter().all(|(id, operator)| !operator.roles.is_empty() && list.get(id).is_some()));
    }
}
