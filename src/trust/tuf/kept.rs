//! The list of operators among what a client sees: fetched with the metadata that lists it, and verified again
//! from what was kept.

use super::{RepositoryClient, Session, check_root, digest_of, one_id_a_key, reason_of};
use crate::bundle::files::sha256;
use crate::domain::{Digest, Reason, ReasonCode};
use crate::trust::operators;
use crate::trust::seen::Seen;
use sigstore_tuf::{Error, Metadata, Targets, TrustedMetadataSet};

impl RepositoryClient {
    /// Refreshes the metadata and keeps the list of operators that belongs to it, for [`operators::kept`].
    ///
    /// Errors: as `resolve`.
    pub async fn refresh_operators(&self, now: jiff::Timestamp) -> Result<(), Reason> {
        let _turn = self.turn.lock().await;
        let session = self.refresh(now).await?;
        self.keep_operators(&session).await
    }

    /// Fetches the list of operators, unless the newest one is here already. Only what the top-level role
    /// itself lists counts.
    pub(super) async fn keep_operators(&self, session: &Session) -> Result<(), Reason> {
        let targets = session.updater.trusted().targets_role("targets");
        let Some(target) = targets.and_then(|role| role.targets.get(operators::TARGET)) else {
            return Ok(());
        };
        let digest = digest_of(target, operators::TARGET)?;
        if self.seen.load(operators::KEPT)?.is_some_and(|bytes| sha256(&bytes) == digest) {
            return Ok(());
        }
        if target.length > operators::MAX_LIST {
            let detail =
                format!("list of operators: {} bytes, {} are allowed", target.length, operators::MAX_LIST);
            return Err(Reason::new(ReasonCode::SizeMismatch, detail));
        }
        let fetched = session.updater.download_target(target, operators::TARGET).await;
        let bytes = fetched.map_err(|error| session.reason(error))?;
        operators::parse(&bytes)?;
        self.seen.store(operators::KEPT, &bytes)?;
        session.all_kept()
    }
}

/// What was seen, verified again from the pinned root: the newest root that it leads to; then, where a list of
/// targets was seen and this root's keys have signed it, the digest of the target `path`, where that list has it
/// itself. Age is not judged.
pub(in crate::trust) fn kept_target(
    pinned_root: &[u8],
    seen: &Seen,
    path: &str,
) -> Result<(Vec<u8>, Option<Option<Digest>>), Reason> {
    check_root(pinned_root, "pinned root")?;
    let wrong = |error: Error| reason_of(&error, "metadata that was seen");
    let mut trusted = TrustedMetadataSet::from_root(pinned_root).map_err(wrong)?;
    while let Some(next) = seen.load(&format!("root_history/{}.root.json", trusted.root().version + 1))? {
        one_id_a_key(&next, "root that was seen")?;
        trusted.update_root(&next).map_err(wrong)?;
    }
    let root = trusted.root_bytes().to_vec();
    let Some(bytes) = seen.load("targets.json")? else { return Ok((root, None)) };
    let targets = Metadata::<Targets>::from_slice(&bytes).map_err(wrong)?;
    let role =
        trusted.root().role("targets").ok_or_else(|| wrong(Error::UnknownRole("targets".to_owned())))?;
    targets.verify_threshold(&trusted.root().keys, role, "targets").map_err(wrong)?;
    let listed = targets.signed().targets.get(path);
    Ok((root, Some(listed.map(|target| digest_of(target, path)).transpose()?)))
}
