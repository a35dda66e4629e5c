//! OpenSSF Model Signing 1.0: the signature that a model's maker puts beside it, `model.sig`.
//!
//! It is a Sigstore bundle with a DSSE envelope around an in-toto statement that lists each file of the model
//! with its SHA-256 (`statement`), signed with ECDSA P-256 (`keys`). The public tool `model_signing`
//! makes and checks the same files (`model_signing sign key`, `model_signing verify key`); a test has each
//! check the other's. Signatures by certificates and by Sigstore's own service are not taken.
//!
//! It is no second way into the device: a bundle is trusted by the repository's metadata alone. Where the
//! owner requires this signature besides, who publishes bundles cannot bring in a model that nobody made. So
//! what a device compares are the digests of the signed manifest with those of the statement; that the files
//! are those of the manifest was checked when they were staged, and is again when they are loaded. Of an
//! encrypted model the digest in plain is compared.
//!
//! Every file of the bundle must be signed but the manifest, `model.sig`, golden inputs (which a bundle's
//! author adds, and no answer depends on), and what the statement says is to be ignored; the model itself must
//! be in any case, and so must TensorRT's calibration table. Every signed file must be there.

mod keys;
mod statement;

pub use keys::{PublicKey, SigningKey};

use super::envelope::pae;
use crate::bundle::files::sha256;
use crate::bundle::{MANIFEST, MODEL_SIGNATURE};
use crate::domain::manifest::FileEntry;
use crate::domain::{Manifest, Reason, ReasonCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use statement::Statement;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Its name in a bundle.
pub const FILE: &str = MODEL_SIGNATURE;
/// Longest, bytes.
pub const MAX_FILE: u64 = 4 << 20;
/// Most signatures of one envelope that are looked at.
const MAX_SIGNATURES: usize = 16;
const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SigstoreBundle {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Envelope,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    /// Absent where a certificate vouches.
    #[serde(default)]
    public_key: Option<Hint>,
    #[serde(default)]
    tlog_entries: Vec<serde_json::Value>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Hint {
    /// SHA-256 of the public key's PEM text.
    #[serde(default)]
    hint: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Signature {
    sig: String,
    #[serde(default)]
    keyid: String,
}

/// What a signature says, once it is known who said it.
#[derive(Debug)]
pub struct Signed {
    statement: Statement,
    /// SHA-256 of the PEM text of the key that signed, as the format names keys.
    pub key: String,
}

fn invalid(detail: impl Into<String>) -> Reason {
    Reason::new(ReasonCode::ModelSignatureInvalid, detail)
}

/// Reads a signature file and checks that one of the keys made it.
///
/// # Errors
/// `ModelSignatureInvalid` with what is wrong.
pub fn verify(bytes: &[u8], trusted: &[PublicKey]) -> Result<Signed, Reason> {
    let (payload, envelope) = opened(bytes)?;
    let text = pae(PAYLOAD_TYPE, &payload);
    for signature in envelope.dsse_envelope.signatures.iter().take(MAX_SIGNATURES) {
        let Ok(signature) = BASE64.decode(&signature.sig) else { continue };
        if let Some(key) = trusted.iter().find(|key| key.verifies(&text, &signature)) {
            return Ok(Signed { statement: Statement::parse(&payload).map_err(invalid)?, key: key.id() });
        }
    }
    let made_by = match envelope.verification_material.public_key.and_then(|key| key.hint) {
        Some(hint) if trusted.iter().any(|key| key.id() == hint) => {
            "it names a trusted key, but was not made with it, or was changed".to_owned()
        }
        Some(hint) => format!("made with key {}…, which is not trusted", shorten(&hint)),
        None => "not made with a key that is trusted".to_owned(),
    };
    let keys: Vec<_> = trusted.iter().map(|key| format!("{}…", shorten(&key.id()))).collect();
    Err(invalid(format!("{made_by}; trusted: {}", keys.join(", "))))
}

/// The payload of a signature file, and the file; nothing of it is verified.
fn opened(bytes: &[u8]) -> Result<(Vec<u8>, SigstoreBundle), Reason> {
    if bytes.len() as u64 > MAX_FILE {
        return Err(invalid(format!("more than {} MiB", MAX_FILE >> 20)));
    }
    let file: SigstoreBundle = serde_json::from_slice(bytes).map_err(|error| {
        invalid(format!("not a model signature with a key ({error}); `model_signing sign key` makes one"))
    })?;
    if file.media_type != MEDIA_TYPE || file.dsse_envelope.payload_type != PAYLOAD_TYPE {
        return Err(invalid(format!(
            "a {} with {}; expected {MEDIA_TYPE} with {PAYLOAD_TYPE}",
            shorten(&file.media_type),
            shorten(&file.dsse_envelope.payload_type)
        )));
    }
    let payload = BASE64.decode(&file.dsse_envelope.payload);
    Ok((payload.map_err(|error| invalid(format!("its payload is not base64: {error}")))?, file))
}

fn shorten(text: &str) -> String {
    // A digest is known by its beginning.
    let most = if text.len() == 64 { 12 } else { 60 };
    text.chars().filter(|c| !c.is_control()).take(most).collect()
}

/// Whether what was signed is what the bundle holds.
///
/// # Errors
/// `ModelSignatureInvalid` with the first few files that were changed, added or left out.
pub fn compare(signed: &Signed, manifest: &Manifest) -> Result<(), Reason> {
    signed.statement.compare(manifest).map_err(invalid)
}

/// Whether a signature file is about this bundle's files, whoever made it: for its author.
///
/// # Errors
/// As [`compare`], and for a file that is no signature.
pub fn is_about(bytes: &[u8], manifest: &Manifest) -> Result<(), Reason> {
    let (payload, _) = opened(bytes)?;
    states(&payload, manifest).map_err(invalid)
}

/// Whether the statement in a signature file is about this bundle's files.
///
/// # Errors
/// What is wrong, for people.
pub fn states(payload: &[u8], manifest: &Manifest) -> Result<(), String> {
    Statement::parse(payload)?.compare(manifest)
}

/// Checks the signature in the folder of a bundle whose manifest was verified; gives the id of the key that
/// signed. The keys are read anew each time, so that one can be exchanged while the agent runs.
///
/// # Errors
/// `ModelSignatureInvalid` where there is none, or where it is not good; `BadRequest` where a key cannot be
/// read: then nobody can be known.
pub fn check(dir: &Path, manifest: &Manifest, key_files: &[PathBuf]) -> Result<String, Reason> {
    let trusted: Vec<PublicKey> =
        key_files.iter().map(|path| PublicKey::load(path)).collect::<Result<_, _>>()?;
    let named = |reason: Reason| {
        let release = manifest.release();
        Reason::new(reason.code, format!("bundle {release}: {FILE}: {}", reason.detail))
    };
    let Some(entry) = manifest.files.iter().find(|file| file.path == FILE) else {
        return Err(named(invalid(
            "is missing, and update.require_model_signature asks for it; `edgewarden bundle seal --model-signature` \
             puts one in",
        )));
    };
    let bytes = read(dir, entry).map_err(named)?;
    let signed = verify(&bytes, &trusted).map_err(named)?;
    compare(&signed, manifest).map_err(named)?;
    Ok(signed.key)
}

/// The file's bytes, which must be those that the manifest lists.
fn read(dir: &Path, entry: &FileEntry) -> Result<Vec<u8>, Reason> {
    let mut bytes = Vec::new();
    std::fs::File::open(dir.join(FILE))
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| invalid(format!("cannot be read: {error}")))?;
    if sha256(&bytes) != entry.sha256 {
        return Err(invalid("is not the file that the manifest lists"));
    }
    Ok(bytes)
}

/// A signature of all the bundle's files, as `model_signing sign key` would make it of the bundle's folder.
///
/// # Errors
/// `Internal` when the system gives no random numbers.
pub fn make(manifest: &Manifest, key: &SigningKey) -> Result<Vec<u8>, Reason> {
    let payload = Statement::of(manifest).to_json()?;
    let signature = key.sign(&pae(PAYLOAD_TYPE, &payload))?;
    let file = SigstoreBundle {
        media_type: MEDIA_TYPE.into(),
        verification_material: Material {
            public_key: Some(Hint { hint: Some(key.public().id()) }),
            tlog_entries: Vec::new(),
        },
        dsse_envelope: Envelope {
            payload: BASE64.encode(&payload),
            payload_type: PAYLOAD_TYPE.into(),
            signatures: vec![Signature { sig: BASE64.encode(signature), keyid: String::new() }],
        },
    };
    serde_json::to_vec(&file)
        .map_err(|error| Reason::new(ReasonCode::Internal, format!("write {FILE}: {error}")))
}

/// True for the files of a bundle that a signature never lists.
fn is_beside(path: &str) -> bool {
    path == FILE || path == MANIFEST
}

#[cfg(test)]
mod tests;
