//! The arguments that the commands share: where the repository and its keys lie, who else signs, and which
//! role is meant.

use crate::cli::exit::Usage;
use crate::trust::Publisher;
use crate::trust::public_key::PublicKey;
use crate::trust::signer::{PATIENCE, Signer};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The repository and its keys.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// The repository's folder
    #[arg(value_name = "DIR")]
    pub repository: PathBuf,
    /// The folder with its keys; never put it on the web server [default: DIR-keys]
    #[arg(long, value_name = "KEYS")]
    pub keys: Option<PathBuf>,
    #[command(flatten)]
    pub signers: Signers,
}

impl Place {
    /// The key folder: beside the repository unless named.
    pub fn keys(&self) -> anyhow::Result<PathBuf> {
        key_folder(&self.repository, self.keys.as_deref())
    }

    /// The publisher, with all keys at hand.
    pub fn open(&self) -> anyhow::Result<Publisher> {
        let signers = self.signers.all()?;
        Ok(Publisher::open(&self.repository, &self.keys()?)?.with_signers(signers))
    }
}

/// The key folder of a repository: beside it unless named.
pub fn key_folder(repository: &Path, named: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(keys) = named {
        return Ok(keys.to_owned());
    }
    let unnamed = || {
        Usage(format!("{}: has no name of its own; name the key folder with --keys", repository.display()))
    };
    let mut name = repository.file_name().ok_or_else(unnamed)?.to_owned();
    name.push("-keys");
    Ok(repository.with_file_name(name))
}

/// Keys beside those of the key folder.
#[derive(Debug, Clone, clap::Args)]
pub struct Signers {
    /// A further private key to sign with, in a file of mode 600; may be given several times
    #[arg(long, value_name = "KEY.pem")]
    sign_with: Vec<PathBuf>,
    /// A program that signs: it gets the bytes on standard input and writes the ed25519 signature, as 64
    /// bytes or 128 hexadecimal digits; run by sh, may ask for a PIN; may be given several times
    #[arg(long, value_name = "COMMAND")]
    signer: Vec<String>,
    /// The public key of each --signer, in their order
    #[arg(long, value_name = "KEY.pub")]
    signer_key: Vec<PathBuf>,
    /// Seconds that a --signer may take
    #[arg(long, value_name = "SECONDS", default_value_t = PATIENCE.as_secs(), value_parser = clap::value_parser!(u64).range(1..=3600))]
    signer_timeout: u64,
}

impl Signers {
    /// All of them.
    pub fn all(&self) -> anyhow::Result<Vec<Signer>> {
        if self.signer.len() != self.signer_key.len() {
            let detail = format!(
                "{} --signer and {} --signer-key; give the public key of each program with --signer-key",
                self.signer.len(),
                self.signer_key.len()
            );
            return Err(Usage(detail).into());
        }
        let mut signers = Vec::new();
        for path in &self.sign_with {
            signers.push(Signer::load(path)?);
        }
        for (command, key) in self.signer.iter().zip(&self.signer_key) {
            let patience = Duration::from_secs(self.signer_timeout);
            signers.push(Signer::program(command, PublicKey::load(key)?, patience));
        }
        Ok(signers)
    }
}

/// A value for some roles, written as `root,targets=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForRoles {
    /// The roles.
    pub roles: Vec<String>,
    /// What they get.
    pub value: String,
}

impl std::str::FromStr for ForRoles {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (roles, value) = text.split_once('=').ok_or("expected ROLE=…, as in root,targets=alice.pub")?;
        if value.is_empty() {
            return Err("nothing stands after the =".to_owned());
        }
        Ok(Self { roles: roles_of(roles)?, value: value.to_owned() })
    }
}

impl ForRoles {
    /// The value as a number of keys.
    pub fn number(&self) -> anyhow::Result<u64> {
        self.value.parse().map_err(|_| {
            Usage(format!("threshold \"{}\": expected a number of keys, as in root=2", self.value)).into()
        })
    }
}

/// Roles, divided by commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles(pub Vec<String>);

impl std::str::FromStr for Roles {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        roles_of(text).map(Self)
    }
}

fn roles_of(text: &str) -> Result<Vec<String>, String> {
    let good = |role: &&str| {
        !role.is_empty() && role.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    let roles: Vec<&str> = text.split(',').map(str::trim).collect();
    if !roles.iter().all(good) {
        return Err("expected roles such as root, targets, snapshot, timestamp, divided by commas".to_owned());
    }
    Ok(roles.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_for_roles_are_read_and_others_told() {
        let read: ForRoles = "root, targets=a=b.pub".parse().unwrap();
        assert_eq!((read.roles.join("+"), read.value.as_str()), ("root+targets".to_owned(), "a=b.pub"));
        assert!(read.number().is_err());
        assert_eq!("root=2".parse::<ForRoles>().unwrap().number().unwrap(), 2);
        for bad in ["root", "=x", "root=", "root,=x", "ro ot=x", "../x=y"] {
            assert!(bad.parse::<ForRoles>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_keys_lie_beside_the_repository_unless_named() {
        assert_eq!(key_folder(Path::new("/srv/fleet"), None).unwrap(), Path::new("/srv/fleet-keys"));
        assert_eq!(key_folder(Path::new(".."), Some(Path::new("k"))).unwrap(), Path::new("k"));
        assert!(key_folder(Path::new("/"), None).is_err());
    }
}
