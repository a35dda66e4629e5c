//! Encrypted models: made for the keys of devices, groups and people, and opened in memory.
//!
//! What is written to a disk, published and carried is the encrypted file alone. It is opened in two steps, so
//! that a process that runs a model never holds the device's own key beside it: [`Secrets::unlock`] reads the
//! key files, takes the one file's key out of the header, and forgets the rest; [`OpenBundle::secret_model`]
//! decrypts with what is left.

use super::files::{sha256, sha256_file};
use super::{MANIFEST, MAX_FILE, MODEL_SIGNATURE, OpenBundle, checked, manifest, onnx};
use crate::domain::manifest::{Encryption, FileEntry, Scheme};
use crate::domain::{Manifest, Reason, ReasonCode};
use crate::sys::age::{self, AgeError, ContentKey, Identity, MAX_KEY_FILE, Recipient};
use crate::sys::durable::failed;
use crate::sys::memory_only;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Recipients that an error names; the rest is counted.
const NAMED: usize = 3;
/// Where systemd puts the credentials of its units, each readable by its unit alone.
const CREDENTIALS: &str = "/run/credentials";

/// What opens a bundle's encrypted model, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secrets(ContentKey);

impl Secrets {
    /// Opens the header of the bundle's encrypted model with the keys of these files; `None` where nothing is
    /// encrypted. A file that cannot be read is passed over while another has the key. What this process
    /// holds is kept off the disk from here on, as far as it may.
    ///
    /// # Errors
    /// `KeyMissing` with what it was encrypted for and what there is, `Malformed` for a file that is not
    /// encrypted as the manifest says.
    pub fn unlock(dir: &Path, manifest: &Manifest, key_files: &[PathBuf]) -> Result<Option<Self>, Reason> {
        let Some(encryption) = &manifest.encryption else { return Ok(None) };
        // Before the first secret is here.
        memory_only::keep().tell();
        let mut identities = Vec::new();
        let mut told = Vec::new();
        for path in key_files {
            match read_keys(path) {
                Ok(keys) => {
                    let all: Vec<_> = keys.iter().map(|key| key.recipient().to_string()).collect();
                    told.push(format!("{} (of {})", path.display(), named(&all)));
                    identities.extend(keys);
                }
                Err(fault) => told.push(fault),
            }
        }
        let path = dir.join(&manifest.model);
        let mut file = File::open(&path).map_err(failed("open", &path))?;
        match ContentKey::of(&mut file, &identities) {
            Ok(key) => Ok(Some(Self(key))),
            Err(AgeError::NoKey) => {
                let told = if told.is_empty() { "no key is at hand".to_owned() } else { told.join("; ") };
                let detail = format!(
                    "bundle {}: its model is encrypted for {}; here there is: {told}; encrypt it for this device \
                     too, or name the file with the key (runtime.model_keys; for a command --model-key)",
                    manifest.release(),
                    named(&encryption.recipients),
                );
                Err(Reason::new(ReasonCode::KeyMissing, detail))
            }
            Err(error) => Err(broken(manifest, &error)),
        }
    }
}

/// The first few of a list.
fn named(recipients: &[String]) -> String {
    let more = recipients.len().saturating_sub(NAMED);
    let first = recipients[..recipients.len() - more].join(", ");
    if more > 0 { format!("{first} and {more} more") } else { first }
}

fn broken(manifest: &Manifest, error: &AgeError) -> Reason {
    let code = match error {
        AgeError::Damaged(_) | AgeError::NoKey => ReasonCode::Malformed,
        AgeError::Io(_) | AgeError::Random(_) => ReasonCode::Internal,
    };
    let (release, model) = (manifest.release(), &manifest.model);
    Reason::new(code, format!("bundle {release}: decrypt {model}: {error}; publish it again"))
}

/// The keys of a key file, as `age-keygen` writes it, that nobody but its owner may read.
///
/// # Errors
/// What is wrong with the file, with its name and the remedy.
pub fn read_keys(path: &Path) -> Result<Vec<Identity>, String> {
    let named = |fault: &dyn std::fmt::Display| format!("key file {}: {fault}", path.display());
    let file = File::open(path).map_err(|error| named(&error))?;
    let mode = file.metadata().map_err(|error| named(&error))?.permissions().mode();
    // A credential's mode shows systemd's own entry for the unit's user.
    if mode & 0o077 != 0 && !path.starts_with(CREDENTIALS) {
        return Err(named(&"others than its owner may read it; run chmod 600 on it"));
    }
    let mut text = Zeroizing::new(String::with_capacity(MAX_KEY_FILE as usize + 1));
    file.take(MAX_KEY_FILE + 1).read_to_string(&mut text).map_err(|error| named(&error))?;
    if text.len() as u64 > MAX_KEY_FILE {
        return Err(named(&"too long for keys"));
    }
    Identity::of_key_file(&text).map_err(|fault| named(&fault))
}

impl OpenBundle {
    /// Opens the encrypted model's header with the keys of these files; without an encrypted model, or where
    /// it is open already, nothing happens.
    ///
    /// # Errors
    /// As [`Secrets::unlock`].
    pub fn unlock(&mut self, key_files: &[PathBuf]) -> Result<(), Reason> {
        if self.secrets.is_none() {
            self.secrets = Secrets::unlock(&self.dir, &self.manifest, key_files)?;
        }
        Ok(())
    }

    /// The encrypted model in plain, in memory that is wiped when it goes; `None` where it is not encrypted.
    ///
    /// # Errors
    /// `KeyMissing` where it was not [unlocked](Self::unlock); `Malformed` where it was changed since;
    /// `DigestMismatch` where it is not what the manifest says; `Unsupported` where it has weights in files
    /// beside it, which would have to lie there in plain.
    pub fn secret_model(&self) -> Result<Option<Zeroizing<Vec<u8>>>, Reason> {
        let manifest = &self.manifest;
        let Some(plain) = manifest.plain(&manifest.model) else { return Ok(None) };
        let Some(Secrets(key)) = &self.secrets else {
            let detail = format!(
                "bundle {}: its model is encrypted; name the file with the key (for a command --model-key)",
                manifest.release()
            );
            return Err(Reason::new(ReasonCode::KeyMissing, detail));
        };
        let path = self.model();
        let mut file = File::open(&path).map_err(failed("open", &path))?;
        let size = usize::try_from(plain.size).unwrap_or(usize::MAX);
        let bytes = key.decrypt(&mut file, size).map_err(|error| broken(manifest, &error))?;
        if sha256(&bytes) != plain.sha256 {
            let (release, model) = (manifest.release(), &manifest.model);
            let detail = format!(
                "bundle {release}: {model} is in plain not what its manifest states; publish it again"
            );
            return Err(Reason::new(ReasonCode::DigestMismatch, detail));
        }
        let header = onnx::parse(&bytes).map_err(|error| onnx::no_model(&path, &error))?;
        alone(manifest, &header)?;
        Ok(Some(bytes))
    }
}

/// Weights beside the model would not be encrypted with it.
fn alone(manifest: &Manifest, header: &onnx::Header) -> Result<(), Reason> {
    let Some(beside) = header.external.first() else { return Ok(()) };
    let detail = format!(
        "bundle {}: {} has weights in {beside:?} beside it, which cannot be encrypted with it; save the model as one file",
        manifest.release(),
        manifest.model
    );
    Err(Reason::new(ReasonCode::Unsupported, detail))
}

/// What nothing names may be weights as well, in plain: who puts a file into a bundle to be encrypted must
/// know what it is there for.
fn nothing_unnamed(manifest: &Manifest) -> Result<(), Reason> {
    let named = |path: &str| {
        [&manifest.model, MODEL_SIGNATURE].contains(&path)
            || manifest.golden.iter().any(|sample| sample.input == path)
    };
    let Some(file) = manifest.files.iter().find(|file| !named(&file.path)) else { return Ok(()) };
    let detail = format!(
        "bundle {}: {:?} is neither the model nor a golden input nor {MODEL_SIGNATURE}, and only the model is \
         encrypted; take it out and seal the bundle again",
        manifest.release(),
        file.path
    );
    Err(Reason::new(ReasonCode::Unsupported, detail))
}

/// Writes a copy of the bundle into the empty or missing folder `to`, its model encrypted for `recipients`.
/// The bundle itself stays as it is. `progress` hears the bytes of the model done so far.
///
/// # Errors
/// `BadRequest` where the bundle is encrypted already, where `to` is not empty, or without recipients;
/// `Unsupported` for a model with weights in files beside it, for files that nothing in the manifest names, and
/// for a calibration table of TensorRT; what the disk says.
pub fn encrypted_copy(
    bundle: &OpenBundle,
    to: &Path,
    recipients: &[Recipient],
    progress: &dyn Fn(u64),
) -> Result<Manifest, Reason> {
    let refuse = |detail: String| Err(Reason::new(ReasonCode::BadRequest, detail));
    let (from, mut manifest) = (bundle.dir.display(), bundle.manifest.clone());
    if manifest.encryption.is_some() {
        return refuse(format!("bundle {from}: is encrypted already; begin with the plain one"));
    }
    manifest::without_calibration(&manifest)?;
    alone(&manifest, &onnx::header(&bundle.model())?)?;
    nothing_unnamed(&manifest)?;
    let mut sorted = recipients.to_vec();
    sorted.sort();
    sorted.dedup();
    fs::create_dir_all(to).map_err(failed("make folder", to))?;
    if fs::read_dir(to).map_err(failed("list", to))?.next().is_some() {
        return refuse(format!(
            "{}: is not empty; name another folder for the encrypted bundle",
            to.display()
        ));
    }
    let mut plain = Vec::new();
    for file in &mut manifest.files {
        let (source, target) = (bundle.dir.join(&file.path), to.join(&file.path));
        let folder = target.parent().unwrap_or(to);
        fs::create_dir_all(folder).map_err(failed("make folder", folder))?;
        let mut reader = File::open(&source).map_err(failed("open", &source))?;
        let mut writer = checked::NewFile::in_dir(folder)?;
        if file.path == manifest.model {
            encrypt(&mut reader, writer.file(), &sorted, progress, &source)?;
            plain.push(file.clone());
            writer.keep_as(&target)?;
            let (sha256, size) = sha256_file(&target, MAX_FILE).map_err(failed("read", &target))?;
            *file = FileEntry { path: file.path.clone(), sha256, size };
        } else {
            let what = source.display().to_string();
            checked::copy(&what, &mut reader, &file.sha256, file.size, writer.file(), &|_| {})?;
            writer.keep_as(&target)?;
        }
    }
    let recipients = sorted.iter().map(Recipient::to_string).collect();
    manifest.encryption = Some(Encryption { scheme: Scheme::Age, recipients, files: plain });
    manifest::check(&manifest)?;
    manifest::write_manifest(to, &manifest)?;
    Ok(manifest)
}

fn encrypt(
    from: &mut File,
    to: &mut File,
    recipients: &[Recipient],
    progress: &dyn Fn(u64),
    source: &Path,
) -> Result<(), Reason> {
    let mut to = std::io::BufWriter::with_capacity(1 << 20, to);
    let done = age::encrypt(from, &mut to, recipients, progress);
    let done = done.and_then(|()| to.flush().map_err(AgeError::Io));
    done.map_err(|error| {
        let code = match &error {
            AgeError::Damaged(_) => ReasonCode::BadRequest,
            AgeError::Io(_) | AgeError::Random(_) | AgeError::NoKey => ReasonCode::Internal,
        };
        Reason::new(code, format!("encrypt {}: {error}", source.display()))
    })
}

/// Whether what the manifest says about encryption still holds for the files that are there now.
///
/// # Errors
/// `BadRequest` where an encrypted file was replaced: whether it may be read by all is its author's to say.
pub(super) fn still_holds(dir: &Path, before: &Manifest, now: &[FileEntry]) -> Result<(), Reason> {
    let Some(encryption) = &before.encryption else { return Ok(()) };
    for file in &encryption.files {
        let entry =
            |list: &[FileEntry]| list.iter().find(|entry| entry.path == file.path).map(|entry| entry.sha256);
        if entry(now).is_none() || entry(now) != entry(&before.files) {
            let detail = format!(
                "bundle {}: {} was encrypted and is another file now; take `encryption` out of {MANIFEST} if it may \
                 be read by all, and encrypt the bundle anew if not",
                dir.display(),
                file.path
            );
            return Err(Reason::new(ReasonCode::BadRequest, detail));
        }
    }
    Ok(())
}

/// True where two bundles are the same in plain, and the second is encrypted for these recipients.
pub fn is_same_in_plain(plain: &Manifest, other: &Manifest, recipients: &[Recipient]) -> bool {
    let Some(encryption) = &other.encryption else { return false };
    let mut texts: Vec<_> = recipients.to_vec();
    texts.sort();
    texts.dedup();
    let same_recipients = texts.iter().map(Recipient::to_string).eq(encryption.recipients.iter().cloned());
    let files = other.plain_files().cloned().collect();
    let other = Manifest { files, encryption: None, ..other.clone() };
    same_recipients && other == *plain
}

#[cfg(test)]
mod tests;
