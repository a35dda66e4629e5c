//! The list of operators: like a release, a target of the role `targets`, and signed in the same way.

use super::{Outcome, Publisher, at_once};
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
use std::path::Path;

impl Publisher {
    /// The list of operators that the repository has now, as it was published; `None` where it has none.
    /// Errors: those of [`crate::trust::RepositoryClient::resolve`] where the repository was tampered with.
    pub fn operators(&self) -> Result<Option<Vec<u8>>, Reason> {
        let state = self.state()?;
        Ok(published(&self.repository, &state.payloads.targets)?.map(|(_, list)| list))
    }

    /// Publishes `list` as the list of operators, in place of the one before. The same list again is no error
    /// and changes nothing, but a missing file is mended. Errors: those of [`operators::parse`], and as
    /// [`Publisher::publish_all`].
    pub fn set_operators(&mut self, list: &[u8], now: Timestamp) -> Result<(Operators, Outcome), Reason> {
        let read = operators::parse(list)?;
        let digest = sha256(list);
        let state = self.state()?;
        if operators::listed_in(&state.payloads.targets) == Some(digest) {
            self.place_operators(list, &digest)?;
            return Ok((read, Outcome::Unchanged));
        }
        // Before anything is copied: a change that waits is in the way.
        let change = self.begin(&state)?;
        self.place_operators(list, &digest)?;
        let mut targets = state.payloads.targets.clone();
        targets["targets"][operators::TARGET] =
            json!({ "length": list.len(), "hashes": { "sha256": digest } });
        let outcome = self.advance_list(change, &state, "targets", targets, now)?;
        Ok((read, outcome))
    }

    /// Takes the list of operators away, so that the owner's key alone commands, where one key is enough for
    /// the releases; nobody does where more are needed. Errors: as [`Publisher::publish_all`].
    pub fn drop_operators(&mut self, now: Timestamp) -> Result<Outcome, Reason> {
        let state = self.state()?;
        let mut targets = state.payloads.targets.clone();
        let listed = targets.get_mut("targets").and_then(Value::as_object_mut);
        if listed.and_then(|listed| listed.remove(operators::TARGET)).is_none() {
            return Ok(Outcome::Unchanged);
        }
        let change = self.begin(&state)?;
        self.advance_list(change, &state, "targets", targets, now)
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

/// The list of operators that the payload of a `targets` role names, from the repository's folder, with its
/// path there; `None` where it names none.
///
/// # Errors
/// `DigestMismatch` where its file is another one, `RepositoryUnreachable` where it is missing, and those of
/// [`operators::parse`]: a device would let nobody command.
pub(in crate::trust) fn published(
    repository: &Path,
    targets: &Value,
) -> Result<Option<(String, Vec<u8>)>, Reason> {
    const REMEDY: &str = "publish the list again with `edgewarden repo operators set`";
    let Some(digest) = operators::listed_in(targets) else { return Ok(None) };
    let path = layout::operators(&digest);
    let Some(bytes) = at_once(FolderTransport::new(repository).get(&path, operators::MAX_LIST))? else {
        let detail = format!("{path}: the list of operators is missing; {REMEDY}");
        return Err(Reason::new(ReasonCode::RepositoryUnreachable, detail));
    };
    if sha256(&bytes) != digest {
        let detail = format!("{path}: is not the list of operators that was signed; {REMEDY}");
        return Err(Reason::new(ReasonCode::DigestMismatch, detail));
    }
    operators::parse(&bytes)?;
    Ok(Some((path, bytes)))
}
