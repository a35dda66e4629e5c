//! What the metadata that was last seen says of a release, asked without a network: whether the owner has
//! taken it off the list since it came here.

use super::authority;
use super::publish::lists;
use super::seen::Seen;
use super::tuf;
use crate::bundle::layout;
use crate::domain::{Digest, Reason, ReasonCode, Release};
use serde_json::Value;
use std::path::PathBuf;

/// The digest that the release had in the list that `metadata_dir` remembers, verified again from the pinned
/// root (the content of a `root.json`); `Ok(None)` where that list no longer has it. Age is not judged.
///
/// # Errors
/// Where that cannot be told: nothing was seen yet, what was seen does not hold, or the list of a delegation
/// would have to be asked, which is not remembered.
pub fn listed_digest(
    pinned_root: &[u8],
    metadata_dir: PathBuf,
    release: &Release,
) -> Result<Option<Digest>, Reason> {
    let unknown = |what: &str| {
        Err(Reason::new(ReasonCode::RepositoryUnreachable, format!("release {release}: {what}")))
    };
    let path = layout::target(release);
    let seen = Seen::in_folder(metadata_dir);
    match tuf::kept_target(pinned_root, &seen, &path)?.1 {
        None => unknown("no list of releases was seen yet"),
        Some(Some(digest)) => Ok(Some(digest)),
        Some(None) => {
            let list: Value =
                serde_json::from_slice(&seen.load("targets.json")?.unwrap_or_default()).unwrap_or_default();
            let mut delegations = authority::delegations(&list["signed"]);
            if delegations.any(|delegation| lists::covers(delegation, &path)) {
                return unknown("the list of a delegation may have it, and is not remembered");
            }
            Ok(None)
        }
    }
}

/// The releases in the list that `metadata_dir` remembers, verified again from the pinned root; without those of
/// delegations, whose lists are not remembered. Age is not judged. Empty where none was seen yet.
///
/// # Errors
/// When what was seen does not hold.
pub fn listed(pinned_root: &[u8], metadata_dir: PathBuf) -> Result<Vec<Release>, Reason> {
    let seen = Seen::in_folder(metadata_dir);
    if tuf::kept_target(pinned_root, &seen, "")?.1.is_none() {
        return Ok(Vec::new());
    }
    // The bytes that were just verified: nobody but this agent writes there, one task at a time.
    let list: Value =
        serde_json::from_slice(&seen.load("targets.json")?.unwrap_or_default()).unwrap_or_default();
    let targets = list["signed"]["targets"].as_object().into_iter().flatten();
    Ok(targets.filter_map(|(path, _)| layout::release_of_target(path)).collect())
}
