//! From an error to one clear line and an exit status, in one place.

use crate::config::{ConfigErrors, Fault};
use crate::domain::{Reason, ReasonCode};
use serde_json::json;
use std::process::ExitCode;

/// It did not work.
pub const FAILED: u8 = 1;
/// Refused for trust: signature, digest, expiry, replay.
pub const REFUSED: u8 = 2;
/// The user ended it with Ctrl-C: 128 and the signal's number, as shells have it.
pub const INTERRUPTED: u8 = 130;
/// The command line or its arguments make no sense.
pub const USAGE: u8 = 64;

/// A wrong argument that `clap` could not see; exits with [`USAGE`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// A fault in a folder of the user's own, which nobody has signed. A word in it that breaks the format is
/// its author's mistake and no refusal for trust, so it exits with [`FAILED`]; changed bytes are refused.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Own(pub Reason);

/// A failure that the command has already told (as a table, or as JSON); only the exit status is left.
#[derive(Debug, thiserror::Error)]
#[error("failed")]
pub struct Told;

/// The user ended it with Ctrl-C; exits with [`INTERRUPTED`].
#[derive(Debug, thiserror::Error)]
#[error("ended by Ctrl-C")]
pub struct Interrupted;

/// Prints the error, if any, on standard error and gives the exit status: one line (a configuration's faults:
/// one line each) or, as [`Shown::Json`], one JSON object.
pub fn code(result: anyhow::Result<()>, shown: Shown) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    if error.downcast_ref::<Told>().is_none() {
        match shown {
            Shown::Json => anstream::eprintln!("{}", object(&error)),
            Shown::Text => match error.downcast_ref::<ConfigErrors>() {
                Some(faults) => faults.0.iter().for_each(|fault| anstream::eprintln!("edgewarden: {fault}")),
                None => anstream::eprintln!("edgewarden: {}", line(&error)),
            },
        }
    }
    status(&error).into()
}

/// How an error looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// For people.
    Text,
    /// For machines, where the command was given `--json`.
    Json,
}

/// The error as JSON: `code` (a reason's code, or `configuration`, `usage`, `interrupted`, `failed`), `message`
/// (what people read), `remedy` (the part of it that says what to do, where there is one), `exit_status`, and
/// for a configuration its `faults`.
fn object(error: &anyhow::Error) -> serde_json::Value {
    let mut message = line(error);
    let mut code = "failed";
    let mut faults = None;
    for cause in error.chain() {
        let own = cause.downcast_ref::<Own>().map(|Own(reason)| reason);
        if let Some(reason) = own.or_else(|| cause.downcast_ref::<Reason>()) {
            code = reason.code.as_str();
            // It has a place of its own.
            message = message.replace(&format!(" ({code})"), "");
        } else if cause.is::<Interrupted>() {
            code = "interrupted";
        } else if cause.is::<Usage>() {
            code = "usage";
        } else if let Some(ConfigErrors(found)) = cause.downcast_ref() {
            code = "configuration";
            faults = Some(found.iter().map(fault).collect::<Vec<_>>());
        }
    }
    let mut told = json!({ "code": code, "message": message, "exit_status": status(error) });
    // "what: why; remedy", as all messages are written.
    if let (None, Some((_, remedy))) = (&faults, message.rsplit_once("; ")) {
        told["remedy"] = remedy.into();
    }
    if let Some(faults) = faults {
        told["faults"] = faults.into();
    }
    told
}

fn fault(fault: &Fault) -> serde_json::Value {
    json!({ "file": fault.at.file.display().to_string(), "line": fault.at.line, "key": fault.key, "message": fault.text })
}

/// What `clap` says of a command line, as JSON.
pub fn usage(text: &str) -> serde_json::Value {
    let what = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    json!({ "code": "usage", "message": what, "exit_status": USAGE, "remedy": "see --help" })
}

/// The chain of causes on one line, each said once.
pub fn line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause.replace(['\n', '\r'], " "));
        }
    }
    text
}

/// The exit status that an error means.
pub fn status(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if let Some(Own(Reason { code: ReasonCode::Malformed, .. })) = cause.downcast_ref() {
            return FAILED;
        }
        let own = cause.downcast_ref::<Own>().map(|Own(reason)| reason);
        if let Some(reason) = own.or_else(|| cause.downcast_ref::<Reason>()) {
            return if reason.code.is_trust() { REFUSED } else { FAILED };
        }
        if cause.downcast_ref::<Interrupted>().is_some() {
            return INTERRUPTED;
        }
        if cause.downcast_ref::<Usage>().is_some() {
            return USAGE;
        }
    }
    FAILED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_error_has_its_status() {
        let tampered = Reason::new(ReasonCode::DigestMismatch, "bundle x: changed");
        assert_eq!(status(&tampered.clone().into()), REFUSED);
        assert_eq!(status(&anyhow::Error::new(tampered.clone()).context("install x")), REFUSED);
        assert_eq!(status(&Own(tampered).into()), REFUSED);
        let typo = Reason::new(ReasonCode::Malformed, "x/manifest.json: unknown field");
        assert_eq!(status(&Own(typo.clone()).into()), FAILED, "a typo of one's own is no attack");
        assert_eq!(status(&typo.into()), REFUSED);
        assert_eq!(status(&Reason::new(ReasonCode::NotFound, "none").into()), FAILED);
        assert_eq!(status(&Usage("no".into()).into()), USAGE);
        assert_eq!(status(&Told.into()), FAILED);
    }

    #[test]
    fn an_error_for_machines_has_its_code_and_its_remedy_apart() {
        let reason = Reason::new(ReasonCode::NotFound, "slot a: has nothing; send it a release");
        let told = object(&anyhow::Error::new(reason).context("rollback"));
        assert_eq!(
            told,
            json!({
                "code": "not_found",
                "message": "rollback: slot a: has nothing; send it a release",
                "remedy": "send it a release",
                "exit_status": FAILED,
            })
        );
        assert_eq!(object(&anyhow::anyhow!("no room"))["code"], "failed");
        assert_eq!(object(&anyhow::anyhow!("no room")).get("remedy"), None);
        assert_eq!(object(&Usage("no".into()).into())["exit_status"], USAGE);
    }

    #[test]
    fn causes_stand_on_one_line_each_once() {
        let error = anyhow::anyhow!("no room\nleft").context("write x").context("write x");
        assert_eq!(line(&error), "write x: no room left");
    }
}
