//! Publishing the list of operators: like a release, a target of the role `targets`.

use super::{Publisher, at_once};
use crate::bundle::checked::{self, NewFile};
use crate::bundle::files::sha256;
use crate::bundle::layout;
use crate::domain::{Digest, Reason, ReasonCode};
use crate::sys::durable;
use crate::trust::folder::FolderTransport;
use crate::trust::operators::{self, Operators};
use crate::trust::transport::Transport;
use jiff::Timestamp;
use serde_json::{Value, json};

impl Publisher {
    /// The list of operators that the repository has now, as it was published; `None` where it has none.
    /// Errors: those of [`crate::trust::RepositoryClient::resolve`] where the repository was tampered with.
    pub fn operators(&self) -> Result<Option<Vec<u8>>, Reason> {
        let payloads = self.payloads()?;
        let Some(digest) = operators::listed_in(&payloads.targets) else { return Ok(None) };
        let (folder, path) = (FolderTransport::new(&self.repository), layout::operators(&digest));
        let bytes = at_once(folder.get(&path, operators::MAX_LIST))?.unwrap_or_default();
        if sha256(&bytes) == digest {
            return Ok(Some(bytes));
        }
        let detail = format!(
            "{path}: is not what was signed, or is missing; publish the list again with `edgewarden repo operators set`"
        );
        Err(Reason::new(ReasonCode::DigestMismatch, detail))
    }

    /// Publishes `list` as the list of operators, in place of the one before. The same list again is no error
    /// and changes nothing; `false` says so. Errors: those of [`operators::parse`], and as
    /// [`Publisher::publish`].
    pub fn set_operators(&mut self, list: &[u8], now: Timestamp) -> Result<(Operators, bool), Reason> {
        let read = operators::parse(list)?;
        let digest = sha256(list);
        let mut payloads = self.payloads()?;
        self.place_operators(list, &digest)?;
        let fresh = operators::listed_in(&payloads.targets) != Some(digest);
        if fresh {
            payloads.targets["targets"][operators::TARGET] =
                json!({ "length": list.len(), "hashes": { "sha256": digest } });
            self.commit(payloads, true, None, now)?;
        }
        Ok((read, fresh))
    }

    /// Takes the list of operators away, so that the owner's key alone commands; `false` where there is none.
    /// Errors: as [`Publisher::publish`].
    pub fn drop_operators(&mut self, now: Timestamp) -> Result<bool, Reason> {
        let mut payloads = self.payloads()?;
        let targets = payloads.targets["targets"].as_object_mut();
        if targets
            .and_then(|targets: &mut serde_json::Map<String, Value>| targets.remove(operators::TARGET))
            .is_none()
        {
            return Ok(false);
        }
        self.commit(payloads, true, None, now)?;
        Ok(true)
    }

    fn place_operators(&self, list: &[u8], digest: &Digest) -> Result<(), Reason> {
        let place = self.repository.join(layout::operators(digest));
        let folder = self.repository.join(layout::TARGETS);
        durable::create_dir_synced(&folder)?;
        let mut file = NewFile::in_dir(&folder)?;
        let what = "list of operators";
        checked::copy(what, &mut &list[..], digest, list.len() as u64, file.file(), &|_| {})?;
        file.keep_as(&place)
    }
}
