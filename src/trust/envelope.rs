//! Signed commands: DSSE v1 envelopes (github.com/secure-systems-lab/dsse) with an ed25519 signature. Pure:
//! bytes in, a statement or a refusal out; no file, no clock, no socket. Only [`sign_by`] may run a program.
//!
//! ```text
//! {"payload": BASE64, "payloadType": "application/vnd.edgewarden.command.v1+json",
//!  "signatures": [{"keyid": …, "sig": BASE64}]}
//!
//! payload: {"id": "18", "key": KEYID, "audience": {"device": "press-7"}, "sequence": 1800000000000,
//!           "issued": "2027-01-15T08:00:00Z", "expires": "2027-01-15T08:10:00Z",
//!           "action": {"command": "rollback", "slot": "detector"}}
//! ```
//!
//! What is signed is the pre-authentication encoding: the type and the payload with their lengths. Nothing of
//! the payload counts before the signature is checked. `key` is the TUF key id of the key that commands, and
//! only a signature by that key counts. Without it, an envelope with the signatures of two operators could be
//! taken apart and run twice, once by the number of each. Other signatures are looked past, as are `keyid`
//! hints and unknown fields of the envelope, which nobody has signed; an unknown field of the payload is
//! refused.

use super::keys::Key;
use super::signer::Signer;
use super::verified::Verified;
use crate::domain::authority::Audience;
use crate::domain::{CommandId, Digest, Reason, ReasonCode};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use ed25519_dalek::{Signature, VerifyingKey};
use jiff::Timestamp;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// What the payload is.
pub const PAYLOAD_TYPE: &str = "application/vnd.edgewarden.command.v1+json";
/// Longest envelope, bytes.
pub const MAX_ENVELOPE: usize = 16 << 10;
/// Most signatures that are looked at.
pub const MAX_SIGNATURES: usize = 8;

/// What is signed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// The sender's name for the command.
    pub id: CommandId,
    /// The key id of the key that commands.
    pub key: Digest,
    /// To whom.
    pub audience: Audience,
    /// Rises with each command of this key to this audience.
    pub sequence: u64,
    /// When it was signed.
    pub issued: Timestamp,
    /// From when on it does not count any more.
    pub expires: Timestamp,
    /// The command's name under `command`, and beside it what it takes.
    pub action: Map<String, Value>,
}

/// An envelope that was read; its signature is still to be checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    claimed: Statement,
    /// The bytes that a signature must cover.
    signed: Vec<u8>,
    signatures: Vec<[u8; 64]>,
}

/// The envelope as it is written. Unknown fields are ignored, as DSSE wants it.
#[derive(Deserialize)]
struct Written {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: Vec<WrittenSignature>,
}

#[derive(Deserialize)]
struct WrittenSignature {
    sig: String,
}

/// Whether these bytes are meant as an envelope: a JSON object with a field that only envelopes have.
pub fn is_envelope(bytes: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Probe {
        #[serde(rename = "payloadType")]
        payload_type: Option<IgnoredAny>,
        signatures: Option<IgnoredAny>,
    }
    bytes.len() <= MAX_ENVELOPE
        && object::<Probe>(bytes)
            .is_ok_and(|probe| probe.payload_type.is_some() || probe.signatures.is_some())
}

/// Reads an envelope. Nothing in it is trusted yet.
///
/// # Errors
/// [`ReasonCode::SizeMismatch`] for one that is too long, [`ReasonCode::Malformed`] for what is no envelope
/// of a command.
pub fn read(bytes: &[u8]) -> Result<Envelope, Reason> {
    if bytes.len() > MAX_ENVELOPE {
        let detail = format!("signed command: {} bytes, {MAX_ENVELOPE} are allowed", bytes.len());
        return Err(Reason::new(ReasonCode::SizeMismatch, detail));
    }
    let written: Written = object(bytes).map_err(|error| bad(&format!("envelope: {error}")))?;
    if written.payload_type != PAYLOAD_TYPE {
        let claimed: String = written.payload_type.chars().take(80).flat_map(char::escape_default).collect();
        return Err(bad(&format!("payloadType \"{claimed}\", expected \"{PAYLOAD_TYPE}\"")));
    }
    if written.signatures.len() > MAX_SIGNATURES {
        return Err(bad(&format!("more than {MAX_SIGNATURES} signatures")));
    }
    let payload = base64(&written.payload).ok_or_else(|| bad("the payload is no base64"))?;
    let claimed: Statement = object(&payload).map_err(|error| bad(&format!("payload: {error}")))?;
    // What is no signature counts as little as a wrong one.
    let signatures = written.signatures.iter().filter_map(|one| base64(&one.sig)?.try_into().ok()).collect();
    Ok(Envelope { claimed, signed: pae(PAYLOAD_TYPE, &payload), signatures })
}

impl Envelope {
    /// What it says, before anybody has vouched for it.
    pub fn claimed(&self) -> &Statement {
        &self.claimed
    }

    /// What it says, if `public` (32 bytes, ed25519) has signed it. Whose key that is, is for the caller to
    /// know: it must be the one that the statement names.
    ///
    /// # Errors
    /// [`ReasonCode::SignatureInvalid`].
    pub fn verify(self, public: &[u8; 32]) -> Result<Verified<Statement>, Reason> {
        let key = VerifyingKey::from_bytes(public).ok();
        let good = key.is_some_and(|key| {
            // Strict: weak keys and malleable signatures are refused.
            let by_it =
                |bytes: &[u8; 64]| key.verify_strict(&self.signed, &Signature::from_bytes(bytes)).is_ok();
            self.signatures.iter().any(by_it)
        });
        if good {
            return Ok(Verified::mark(self.claimed));
        }
        let key = self.claimed.key.short();
        let detail = format!(
            "signed command: no good signature by the key {key}… that it names; it was changed on its way, or signed by another key"
        );
        Err(Reason::new(ReasonCode::SignatureInvalid, detail))
    }
}

/// Signs a statement; it must name the key that signs. The envelope is one line of JSON.
///
/// # Errors
/// [`ReasonCode::BadRequest`] where the statement names another key, or the envelope gets too long.
pub fn sign(statement: &Statement, key: &Key) -> Result<String, Reason> {
    if statement.key.to_string() != key.id() {
        return Err(Reason::new(
            ReasonCode::BadRequest,
            "sign a command: it names another key than the one that signs",
        ));
    }
    enclose(statement, |bytes| Ok(key.sign(bytes)))
}

/// The same by a key that may lie elsewhere: its program is asked, which may take its time.
///
/// # Errors
/// As [`sign`], and where the program gives no signature.
pub fn sign_by(statement: &Statement, signer: &Signer) -> Result<String, Reason> {
    if statement.key.to_string() != signer.id() {
        return Err(Reason::new(
            ReasonCode::BadRequest,
            "sign a command: it names another key than the one that signs",
        ));
    }
    enclose(statement, |bytes| signer.sign("command", bytes))
}

/// The envelope of a statement; `sign` gives 128 hexadecimal digits.
fn enclose(
    statement: &Statement,
    sign: impl FnOnce(&[u8]) -> Result<String, Reason>,
) -> Result<String, Reason> {
    let payload = serde_json::to_vec(statement)
        .map_err(|error| Reason::new(ReasonCode::Internal, format!("write a command: {error}")))?;
    let signature = hex::decode(sign(&pae(PAYLOAD_TYPE, &payload))?)
        .map_err(|error| Reason::new(ReasonCode::Internal, format!("sign a command: {error}")))?;
    let envelope = json!({
        "payload": STANDARD.encode(payload),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{ "keyid": statement.key, "sig": STANDARD.encode(signature) }],
    })
    .to_string();
    if envelope.len() > MAX_ENVELOPE {
        let detail = format!(
            "sign a command: {} bytes, {MAX_ENVELOPE} are allowed; shorten its action",
            envelope.len()
        );
        return Err(Reason::new(ReasonCode::BadRequest, detail));
    }
    Ok(envelope)
}

/// The pre-authentication encoding of DSSE v1: what is really signed.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// Standard or URL-safe, with or without padding: DSSE lets a signer choose.
fn base64(text: &str) -> Option<Vec<u8>> {
    let engines = [&STANDARD, &URL_SAFE, &STANDARD_NO_PAD, &URL_SAFE_NO_PAD];
    engines.into_iter().find_map(|engine| engine.decode(text).ok())
}

/// A JSON object. A derived type also reads an array; fields must be named.
fn object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err("expected a JSON object".to_owned());
    }
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

fn bad(what: &str) -> Reason {
    let what: String = what.chars().take(300).collect();
    Reason::new(
        ReasonCode::Malformed,
        format!("signed command: {what}; make it with `edgewarden sign-command`"),
    )
}

#[cfg(test)]
mod tests;
