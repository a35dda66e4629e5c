//! Checks of what a manifest says about encrypted files.

use super::{malformed, shorten};
use crate::bundle::onnx::MAX_ONNX;
use crate::domain::manifest::Encryption;
use crate::domain::{Manifest, Reason, ReasonCode};
use crate::sys::age::{MAX_RECIPIENTS, Recipient};
use std::collections::BTreeSet;

/// Checks the list of recipients and of plain files.
pub(super) fn check(manifest: &Manifest, encryption: &Encryption) -> Result<(), Reason> {
    let recipients = &encryption.recipients;
    if recipients.is_empty() || recipients.len() > MAX_RECIPIENTS {
        let count = recipients.len();
        return malformed(format!("encryption.recipients: {count} listed; use 1 to {MAX_RECIPIENTS}"));
    }
    let mut known = BTreeSet::new();
    for text in recipients {
        let recipient: Recipient = text
            .parse()
            .map_err(|fault| Reason::new(ReasonCode::Malformed, format!("encryption.recipients: {fault}")))?;
        if !known.insert(recipient) {
            return malformed(format!("encryption.recipients: {} is listed twice", shorten(text)));
        }
    }
    let [file] = &encryption.files[..] else {
        return malformed(format!(
            "encryption.files: {} listed; the model and no other",
            encryption.files.len()
        ));
    };
    if file.path != manifest.model {
        return Err(Reason::new(
            ReasonCode::Unsupported,
            format!(
                "encryption.files: {:?}: only the model's own file can be encrypted",
                shorten(&file.path)
            ),
        ));
    }
    let Some(listed) = manifest.files.iter().find(|listed| listed.path == file.path) else {
        return malformed(format!("encryption.files: {:?} is not one of `files`", shorten(&file.path)));
    };
    if file.size > MAX_ONNX || file.size >= listed.size {
        return malformed(format!(
            "encryption.files: {} states {} bytes in plain, {} encrypted; plain is less, and at most 2 GiB",
            file.path, file.size, listed.size
        ));
    }
    without_calibration(manifest)
}

/// TensorRT would have to write the table, the engine and with it the weights to a folder, which is not done for
/// an encrypted model.
///
/// # Errors
/// `Unsupported` where the manifest names a calibration table.
pub(in crate::bundle) fn without_calibration(manifest: &Manifest) -> Result<(), Reason> {
    let Some(table) = &manifest.runtime.tensorrt.calibration_table else { return Ok(()) };
    let detail = format!(
        "runtime.tensorrt.calibration_table: {:?} cannot be used with an encrypted model; quantise the model itself \
         (QuantizeLinear and DequantizeLinear in it) and leave the table out, or publish the model unencrypted",
        shorten(table)
    );
    Err(Reason::new(ReasonCode::Unsupported, detail))
}

#[cfg(test)]
mod tests {
    use crate::bundle::manifest::{check, parse_manifest, to_bytes};
    use crate::bundle::tests::sample;
    use crate::domain::manifest::{Encryption, FileEntry, Scheme};
    use crate::domain::{Digest, Manifest, ReasonCode};
    use crate::sys::age::Identity;

    fn encrypted() -> Manifest {
        let mut manifest = sample();
        let plain = FileEntry { sha256: Digest::from_bytes([7; 32]), size: 3, ..manifest.files[0].clone() };
        manifest.encryption = Some(Encryption {
            scheme: Scheme::Age,
            recipients: vec![Identity::generate().unwrap().recipient().to_string()],
            files: vec![plain],
        });
        manifest
    }

    #[test]
    fn it_is_read_back_and_the_plain_files_are_known() {
        let manifest = encrypted();
        assert_eq!(parse_manifest(&to_bytes(&manifest).unwrap()).unwrap(), manifest);
        assert!(manifest.has_secret_model() && !sample().has_secret_model());
        assert_eq!(manifest.plain_files().next().unwrap().size, 3);
        let text = String::from_utf8(to_bytes(&manifest).unwrap()).unwrap();
        assert!(parse_manifest(text.replace("\"age\"", "\"rot13\"").as_bytes()).is_err());
    }

    #[test]
    fn every_fault_is_named() {
        type Edit = fn(&mut Encryption);
        let edits: &[(&str, ReasonCode, Edit)] = &[
            ("recipients: 0", ReasonCode::Malformed, |e| e.recipients.clear()),
            ("listed twice", ReasonCode::Malformed, |e| e.recipients.push(e.recipients[0].clone())),
            ("is no recipient", ReasonCode::Malformed, |e| e.recipients.push("age1x".into())),
            ("recipients: 257", ReasonCode::Malformed, |e| e.recipients = vec![String::new(); 257]),
            ("files: 0", ReasonCode::Malformed, |e| e.files.clear()),
            ("only the model", ReasonCode::Unsupported, |e| e.files[0].path = "golden.jpg".into()),
            ("in plain", ReasonCode::Malformed, |e| e.files[0].size = 1 << 40),
        ];
        for (word, code, edit) in edits {
            let mut manifest = encrypted();
            edit(manifest.encryption.as_mut().unwrap());
            let reason = check(&manifest).unwrap_err();
            assert!(reason.code == *code && reason.detail.contains(word), "{word}: {reason}");
        }
    }

    #[test]
    fn a_calibration_table_is_refused_with_an_encrypted_model_alone() {
        let with_table = |mut manifest: Manifest| {
            manifest.files.push(FileEntry { path: "table".into(), ..manifest.files[0].clone() });
            manifest.runtime.tensorrt.calibration_table = Some("table".into());
            manifest
        };
        check(&with_table(sample())).unwrap();
        let reason = check(&with_table(encrypted())).unwrap_err();
        assert_eq!(reason.code, ReasonCode::Unsupported);
        assert!(reason.detail.contains("\"table\"") && reason.detail.contains("quantise"), "{reason}");
    }
}
