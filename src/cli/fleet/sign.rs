//! The operator's signature under a command, with a key file or by a program.

use super::access::File;
use crate::cli::exit::Usage;
use crate::cli::sign_command::lifetime;
use crate::domain::authority::Audience;
use crate::domain::{CommandId, Reason, ReasonCode};
use crate::trust::envelope::{self, Statement};
use crate::trust::public_key::PublicKey;
use crate::trust::signer::{PATIENCE, Signer};
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::time::Duration;

/// The arguments of commands that may be signed.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Signature")]
pub struct SignArgs {
    /// The operator's private key: ed25519, PKCS#8 in PEM
    #[arg(long, value_name = "FILE", conflicts_with = "signer")]
    key: Option<PathBuf>,
    /// A program that signs instead: bytes on standard input, the ed25519 signature on standard output
    #[arg(long, value_name = "COMMAND", requires = "signer_key")]
    signer: Option<String>,
    /// Its public key
    #[arg(long, value_name = "KEY.pub", requires = "signer")]
    signer_key: Option<PathBuf>,
    /// How long the command counts: 90s, 10m, 2h; at most 30d
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = lifetime)]
    expires: Duration,
}

/// Who signs, if anybody does.
pub(super) struct Signing {
    signer: Option<Signer>,
    expires: Duration,
}

impl SignArgs {
    /// Reads the key: that of the command line, else that of the operator's file.
    pub(super) fn ready(&self, file: &File) -> anyhow::Result<Signing> {
        let by_program = |command: &str, key: &PathBuf| -> Result<Signer, Reason> {
            Ok(Signer::program(command, PublicKey::load(key)?, PATIENCE))
        };
        let signer = match (&self.key, &self.signer, &self.signer_key) {
            (Some(key), _, _) => Some(Signer::load(key)?),
            (None, Some(command), Some(key)) => Some(by_program(command, key)?),
            (None, _, _) => match (&file.key, &file.signer, &file.signer_key) {
                (Some(key), None, None) => Some(Signer::load(key)?),
                (None, Some(command), Some(key)) => Some(by_program(command, key)?),
                (None, None, None) => None,
                _ => {
                    let detail = "fleet.toml: give key, or signer with signer_key, and not both";
                    return Err(Usage(detail.to_owned()).into());
                }
            },
        };
        Ok(Signing { signer, expires: self.expires })
    }
}

impl Signing {
    /// The payload of a command: signed where there is somebody who signs, else as it is. `action` is the
    /// command's name under `command`, and beside it what it takes.
    pub(super) fn payload(
        &self,
        id: &CommandId,
        audience: &Audience,
        command: &str,
        arguments: &Map<String, Value>,
    ) -> Result<String, Reason> {
        let Some(signer) = &self.signer else { return Ok(Value::Object(arguments.clone()).to_string()) };
        let internal = |what: &dyn std::fmt::Display| {
            Reason::new(ReasonCode::Internal, format!("sign a command: {what}"))
        };
        let mut action = arguments.clone();
        action.insert("command".to_owned(), command.into());
        let issued = Timestamp::now();
        let statement = Statement {
            id: id.clone(),
            key: signer.id().parse().map_err(|error: crate::domain::id::IdError| internal(&error))?,
            audience: audience.clone(),
            // The time rises by itself, over all machines that a key is used on.
            sequence: u64::try_from(issued.as_microsecond()).unwrap_or(0),
            issued,
            expires: issued.checked_add(self.expires).map_err(|error| internal(&error))?,
            action,
        };
        envelope::sign_by(&statement, signer)
    }
}
