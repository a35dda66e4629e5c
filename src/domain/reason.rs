//! Why something was refused, failed or rolled back, for machines (a code) and people (a sentence).

use serde::{Deserialize, Serialize};
use std::fmt;

/// The code that dashboards and fleet tools count by. Written in `snake_case`; never renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    // Trust: somebody tampered, or what we know is newer than what we are given.
    /// A signature is missing, wrong, or by a key that the role does not list.
    SignatureInvalid,
    /// Bytes do not have the signed SHA-256.
    DigestMismatch,
    /// Bytes are more or fewer than signed.
    SizeMismatch,
    /// Metadata, a command or an operator's key is past its end.
    Expired,
    /// Metadata or a release is older than what the device has already seen.
    OlderThanSeen,
    /// A file of a bundle or of the metadata breaks the format's rules (path, duplicate, size).
    Malformed,
    /// The signature of the model's maker (`model.sig`) is missing, wrong, of other files, or by a key that is
    /// not trusted.
    ModelSignatureInvalid,
    /// A command carries no signature, and must.
    Unsigned,
    /// A command's number is not above the highest that was seen of its key.
    Replayed,
    /// A command was signed for another device or group.
    WrongAudience,
    /// The operator's roles or groups do not reach so far.
    NotAllowed,
    /// A command was issued ahead of the device's clock.
    NotYetValid,
    // The way to the bundle
    /// The release is not in the repository.
    NotFound,
    /// The repository did not answer, or answered with an error.
    RepositoryUnreachable,
    /// Not enough room on the disk.
    DiskFull,
    // The way to the broker
    /// The broker did not answer, or the connection was lost.
    BrokerUnreachable,
    /// The broker refused the connection, a subscription or a message.
    BrokerRefused,
    // Fitness for this device
    /// The bundle needs something that this device lacks (agent version, opset, memory, provider).
    Unsupported,
    /// The runtime refused the model, or the manifest disagrees with it.
    LoadFailed,
    /// The model is encrypted for keys that this device does not have.
    KeyMissing,
    // The trial
    /// An answer to a golden input was outside its tolerance.
    GoldenMismatch,
    /// Slower than its budget.
    TooSlow,
    /// The inference child died.
    ChildCrashed,
    /// The inference child missed its deadline.
    ChildHung,
    /// Too many frames ended in an error.
    TooManyErrors,
    /// Outputs held NaN or infinity.
    NotFinite,
    /// A candidate in the shadow answers other than the model that serves.
    Disagrees,
    /// More memory than it may have.
    TooMuchMemory,
    /// The kernel ended the process because memory ran out, or memory was refused to it.
    OutOfMemory,
    /// The agent restarted too often while the candidate was in probation.
    BootLoop,
    // People
    /// Somebody asked to stop.
    Aborted,
    /// A newer wish took its place.
    Superseded,
    /// The command or its payload makes no sense here.
    BadRequest,
    /// Another change is under way.
    Busy,
    /// More commands came in a minute than may.
    RateLimited,
    /// A configuration was put back because the agent was not well with it.
    NotWell,
    /// A fault of our own or of the machine, told in the detail.
    Internal,
}

impl ReasonCode {
    /// True where the refusal protects the device from somebody: the command line exits with 2 then.
    pub fn is_trust(self) -> bool {
        use ReasonCode::*;
        match self {
            SignatureInvalid
            | DigestMismatch
            | SizeMismatch
            | Expired
            | OlderThanSeen
            | Malformed
            | ModelSignatureInvalid
            | Unsigned
            | Replayed
            | WrongAudience
            | NotAllowed
            | NotYetValid => true,
            NotFound
            | RepositoryUnreachable
            | DiskFull
            | BrokerUnreachable
            | BrokerRefused
            | Unsupported
            | LoadFailed
            | KeyMissing
            | GoldenMismatch
            | TooSlow
            | ChildCrashed
            | ChildHung
            | TooManyErrors
            | NotFinite
            | Disagrees
            | TooMuchMemory
            | OutOfMemory
            | BootLoop
            | Aborted
            | Superseded
            | BadRequest
            | Busy
            | RateLimited
            | NotWell
            | Internal => false,
        }
    }

    /// The code as it is written in payloads.
    pub fn as_str(self) -> &'static str {
        use ReasonCode::*;
        match self {
            SignatureInvalid => "signature_invalid",
            DigestMismatch => "digest_mismatch",
            SizeMismatch => "size_mismatch",
            Expired => "expired",
            OlderThanSeen => "older_than_seen",
            Malformed => "malformed",
            ModelSignatureInvalid => "model_signature_invalid",
            Unsigned => "unsigned",
            Replayed => "replayed",
            WrongAudience => "wrong_audience",
            NotAllowed => "not_allowed",
            NotYetValid => "not_yet_valid",
            NotFound => "not_found",
            RepositoryUnreachable => "repository_unreachable",
            DiskFull => "disk_full",
            BrokerUnreachable => "broker_unreachable",
            BrokerRefused => "broker_refused",
            Unsupported => "unsupported",
            LoadFailed => "load_failed",
            KeyMissing => "key_missing",
            GoldenMismatch => "golden_mismatch",
            TooSlow => "too_slow",
            ChildCrashed => "child_crashed",
            ChildHung => "child_hung",
            TooManyErrors => "too_many_errors",
            NotFinite => "not_finite",
            Disagrees => "disagrees",
            TooMuchMemory => "too_much_memory",
            OutOfMemory => "out_of_memory",
            BootLoop => "boot_loop",
            Aborted => "aborted",
            Superseded => "superseded",
            BadRequest => "bad_request",
            Busy => "busy",
            RateLimited => "rate_limited",
            NotWell => "not_well",
            Internal => "internal",
        }
    }
}

/// A code and a sentence that names the thing and, where there is one, the remedy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct Reason {
    /// For machines.
    pub code: ReasonCode,
    /// For people: one line.
    pub detail: String,
}

impl Reason {
    /// Joins a code and a sentence; line breaks become spaces.
    pub fn new(code: ReasonCode, detail: impl Into<String>) -> Self {
        let detail: String = detail.into();
        Self { code, detail: detail.replace(['\n', '\r'], " ") }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.detail, self.code.as_str())
    }
}
