//! Encrypting a bundle for devices: whom for, and where the encrypted copy lies until it is published.

use super::exit::Usage;
use crate::bundle::{OpenBundle, secret};
use crate::domain::Reason;
use crate::sys::age::Recipient;
use crate::sys::durable::failed;
use crate::trust::export;
use crate::trust::publish::Published;
use anyhow::Context;
use jiff::Timestamp;
use std::path::{Path, PathBuf};

/// Whom a model is encrypted for.
#[derive(Debug, Clone, clap::Args)]
pub struct EncryptArgs {
    /// Encrypt the model for this device, group or person (age1…; `edgewarden setup` prints a device's); may
    /// be given several times
    #[arg(long, value_name = "RECIPIENT")]
    encrypt_to: Vec<Recipient>,
    /// The same for all in this file, one a line
    #[arg(long, value_name = "FILE")]
    encrypt_to_file: Vec<PathBuf>,
}

impl EncryptArgs {
    /// All of them, each once; empty where nothing is to be encrypted.
    ///
    /// # Errors
    /// A file that cannot be read or names none, and a line that is no recipient.
    pub fn recipients(&self) -> anyhow::Result<Vec<Recipient>> {
        let mut all = self.encrypt_to.clone();
        for path in &self.encrypt_to_file {
            let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            let before = all.len();
            for (at, line) in text.lines().map(str::trim).enumerate() {
                if line.is_empty() || line.starts_with('#') {
                    continue;
                }
                let place = || format!("{}:{}", path.display(), at + 1);
                all.push(line.parse().map_err(|fault: String| Usage(format!("{}: {fault}", place())))?);
            }
            if all.len() == before {
                // Nobody may read a model is not what was meant; everybody may still less.
                return Err(Usage(format!("{}: names no recipient", path.display())).into());
            }
        }
        all.sort();
        all.dedup();
        Ok(all)
    }
}

/// What is to be published.
pub enum Ready {
    /// The folder as it is.
    AsItIs,
    /// The encrypted copy in this folder, which goes with the value.
    Encrypted(tempfile::TempDir),
    /// Nothing: exactly this was published before, encrypted for the same recipients.
    Published(Published),
}

/// Encrypts a bundle that is to be published, if it is to be encrypted. Two encryptions of one file differ;
/// so what is in the repository already is compared in plain.
///
/// # Errors
/// As [`secret::encrypted_copy`].
pub fn ready(
    bundle: &OpenBundle,
    repository: &Path,
    recipients: &[Recipient],
    progress: &dyn Fn(u64),
) -> Result<Ready, Reason> {
    if recipients.is_empty() {
        return Ok(Ready::AsItIs);
    }
    if let Some(published) = published(bundle, repository, recipients) {
        return Ok(Ready::Published(published));
    }
    // On the repository's disk, which must have the room in any case.
    let beside = repository.canonicalize().ok().and_then(|path| path.parent().map(Path::to_owned));
    let beside = beside.unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::Builder::new().prefix(".edgewarden-encrypt").tempdir_in(&beside);
    let folder = folder.map_err(failed("make a folder in", &beside))?;
    secret::encrypted_copy(bundle, folder.path(), recipients, progress)?;
    Ok(Ready::Encrypted(folder))
}

/// The release in the repository that is this bundle, encrypted for these recipients. Whatever is wrong with
/// the repository is told by who publishes to it.
fn published(bundle: &OpenBundle, repository: &Path, recipients: &[Recipient]) -> Option<Published> {
    let release = bundle.manifest.release();
    let listed = export::resolve(repository, &release, None, Timestamp::MIN).ok()?;
    let listed = listed.get();
    secret::is_same_in_plain(&bundle.manifest, &listed.manifest, recipients).then(|| Published {
        release,
        digest: listed.digest,
        fresh: false,
        live: true,
        new_files: 0,
        new_bytes: 0,
        total_bytes: listed.manifest.total_size(),
    })
}
