//! Encrypted models and their keys, and the signatures of models' makers.

use edgewarden::bundle::parse_manifest;
use edgewarden::sys::age::{ContentKey, Identity, Recipient};
use edgewarden::trust::model_signature;

/// A key of the tests alone: the corpus is encrypted for it.
const KEY: &str = "AGE-SECRET-KEY-17TD27W0MMQ95P9F4F96M4X50H3RA2F7N43SXNGMQWXMAJK4E89ZS0V4ME3";

/// An encrypted file: a header that opens, content of one length and no other; and the same bytes as the text
/// of keys.
pub fn age(data: &[u8]) {
    let keys = Identity::of_key_file(KEY).expect("a key");
    if let Ok(key) = ContentKey::of(&mut &data[..], &keys) {
        // Longer files are opened by the tests beside the code.
        let sizes = 0..=data.len().min(2048);
        let opens = sizes.filter(|size| {
            let plain = key.decrypt(&mut &data[..], *size);
            plain.is_ok_and(|plain| {
                assert_eq!(plain.len(), *size);
                true
            })
        });
        assert!(opens.count() <= 1, "the content has one length");
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(recipient) = text.parse::<Recipient>() {
        assert_eq!(recipient.to_string(), text, "one spelling for one key");
    }
    match Identity::of_key_file(text) {
        Ok(keys) => {
            for key in keys {
                let again = Identity::of_key_file(&key.key_file()).expect("what was written can be read");
                assert_eq!(again[0].recipient(), key.recipient());
            }
        }
        Err(fault) => assert!(fault.len() < 200, "a key must not reach a log: {fault}"),
    }
}

/// A signature file, and the same bytes as the statement in one: compared with a committed bundle. Nobody is
/// trusted, so nothing is verified.
pub fn model_signature(data: &[u8]) {
    let manifest = include_bytes!("../../packaging/models/v1/manifest.json");
    let manifest = parse_manifest(manifest).expect("a committed manifest");
    assert!(model_signature::verify(data, &[]).is_err(), "no key, no signature");
    let short = |text: &str| assert!(text.len() < 4096, "a refusal is not longer than what may be sent");
    if let Err(reason) = model_signature::is_about(data, &manifest) {
        short(&reason.detail);
    }
    if let Err(detail) = model_signature::states(data, &manifest) {
        short(&detail);
    }
}
