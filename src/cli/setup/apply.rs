//! What is written, and in which order: first what the drop-in names (root, password), the device's key,
//! and the drop-in last, so that a setup that was cut off is as if it had not been.

use super::before::{Before, read};
use super::owner::{self, Owner};
use crate::config::Settings;
use crate::domain::{Reason, ReasonCode};
use crate::sys::durable::{self, Access};
use crate::trust::identity::Identity;
use crate::trust::pin::{self, Pinned};
use rustix::fs::access;
use std::path::{Path, PathBuf};

/// All may read it.
const PUBLIC: u32 = 0o644;
/// Only the agent may.
const SECRET: u32 = 0o600;
/// Bytes of a password that is made; twice as many digits.
const PASSWORD: usize = 24;

/// A root that is to be pinned.
pub struct Root {
    /// The file that was named.
    pub from: PathBuf,
    /// What is in it.
    pub pinned: Pinned,
    bytes: Vec<u8>,
    /// What is pinned now.
    former: Option<Vec<u8>>,
}

impl Root {
    /// Reads and checks it.
    ///
    /// # Errors
    /// `NotFound`, and what makes it no root.
    pub fn read(from: &Path, before: &Before) -> Result<Self, Reason> {
        let shown = from.display();
        let bytes = read(from)?.ok_or_else(|| {
            let remedy = "it is metadata/1.root.json of the repository";
            Reason::new(ReasonCode::NotFound, format!("root metadata {shown}: is not there; {remedy}"))
        })?;
        let pinned = pin::examine(&bytes, &format!("root metadata {shown}"))?;
        Ok(Self { from: from.to_owned(), pinned, bytes, former: read(&before.root())? })
    }

    /// True when it is not the one that is pinned.
    pub fn is_new(&self) -> bool {
        self.former.as_deref() != Some(&self.bytes)
    }

    /// True when another one is pinned.
    pub fn replaces(&self) -> bool {
        self.former.is_some() && self.is_new()
    }
}

/// What is to be done.
pub struct Changes<'b> {
    /// What is there.
    pub before: &'b Before,
    /// The drop-in's new text.
    pub text: String,
    /// What comes of it.
    pub settings: Settings,
    /// The root to pin.
    pub root: Option<Root>,
    /// Whether the broker's password is ours to make where it is not there yet.
    pub password: bool,
    /// The device's key, where it has one.
    pub key: Option<Identity>,
}

impl Changes<'_> {
    /// True when the drop-in is not as it should be.
    pub fn writes_drop_in(&self) -> bool {
        self.before.text.as_deref() != Some(self.text.as_str())
    }

    /// The password's file, where it is to be made.
    pub fn makes_password(&self) -> Option<PathBuf> {
        Some(self.before.password()).filter(|path| self.password && path.symlink_metadata().is_err())
    }

    /// The files that are there and would become others.
    pub fn replaced(&self) -> Vec<PathBuf> {
        let drop_in = self.before.text.is_some() && self.writes_drop_in();
        let root = self.root.as_ref().is_some_and(Root::replaces);
        let root = root.then(|| self.before.root());
        drop_in.then(|| self.before.drop_in.clone()).into_iter().chain(root).collect()
    }

    /// Whether this user may write where it must.
    ///
    /// # Errors
    /// The folder, and that root can.
    pub fn may_be_written(&self) -> Result<(), Reason> {
        for folder in [self.before.drop_in.parent(), Some(self.settings.paths.state.as_path())] {
            let Some(folder) = folder else { continue };
            let there = folder.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
            access(there, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).map_err(|error| {
                let error = std::io::Error::from(error);
                let remedy = "run it with sudo, or look at what it would do with --dry-run";
                let detail = format!("setup writes to {}: {error}; {remedy}", folder.display());
                Reason::new(ReasonCode::BadRequest, detail)
            })?;
        }
        Ok(())
    }

    /// Writes it all; gives the device's key, and the files that were written.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write(&self) -> Result<(Identity, Vec<PathBuf>), Reason> {
        let mut written = Vec::new();
        let state = &self.settings.paths.state;
        let owner = Owner::of(state);
        if let Some(folder) = self.before.drop_in.parent() {
            owner::folder(folder, 0o755, Owner::Oneself)?;
        }
        if let Some(root) = self.root.as_ref().filter(|root| root.is_new()) {
            let path = self.before.root();
            durable::write_atomic_for(&path, &root.bytes, Access { mode: PUBLIC, owner: None })?;
            written.push(path);
        }
        if let Some(path) = self.makes_password() {
            let access = Access { mode: SECRET, owner: owner.ids() };
            durable::write_atomic_for(&path, format!("{}\n", password()?).as_bytes(), access)?;
            written.push(path);
        }
        let key = match &self.key {
            Some(key) => key.clone(),
            None => {
                owner::folder(state, 0o750, owner)?;
                let key = Identity::make(state, owner.ids())?;
                written.push(key.file.clone());
                key
            }
        };
        // Where other keys are named, the device's own may have been moved, such as into the TPM.
        let (key, made) = match self.settings.runtime.model_keys.is_empty() {
            true => key.with_recipient(state, owner.ids())?,
            false => (key, None),
        };
        written.extend(made);
        if self.writes_drop_in() {
            let access = Access { mode: PUBLIC, owner: None };
            durable::write_atomic_for(&self.before.drop_in, self.text.as_bytes(), access)?;
            written.push(self.before.drop_in.clone());
        }
        Ok((key, written))
    }
}

/// Nobody has to remember it.
fn password() -> Result<String, Reason> {
    let mut bytes = [0; PASSWORD];
    getrandom::fill(&mut bytes)
        .map_err(|error| Reason::new(ReasonCode::Internal, format!("make a password: {error}")))?;
    Ok(hex::encode(bytes))
}
