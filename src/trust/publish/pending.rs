//! The change that waits for signatures: looked at, signed here or at another place, completed, given up.

use super::super::folder::FolderTransport;
use super::super::roles;
use super::super::signer::Signer;
use super::super::state::{State, read_file};
use super::super::tuf::MAX_ROOT;
use super::change::{self, Change, Made, Missing, ONLINE};
use super::{Outcome, Publisher};
use crate::domain::{Reason, ReasonCode};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use std::path::Path;

/// Its file in the key folder.
pub const FILE: &str = "pending.json";

/// What signing did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Signed {
    /// What the change does, a line for each thing.
    pub changes: Vec<String>,
    /// Signatures made by keys at hand.
    pub made: Vec<Made>,
    /// Signatures taken from the request.
    pub taken: usize,
    /// True where the request is of a change that did not wait here: now it does, and nothing was signed.
    pub taken_up: bool,
    /// Where the change stands now.
    pub outcome: Outcome,
}

impl Publisher {
    /// The change that waits for signatures, if one does. Errors: `BadRequest` where its file is none; those of
    /// [`Change::check`].
    pub fn pending(&self) -> Result<Option<Change>, Reason> {
        let state = self.pinned_root.is_some().then(|| self.state()).transpose()?;
        let waiting = self.waiting(state.as_ref())?;
        // The file may have been changed by whoever can write here.
        waiting.iter().try_for_each(|waiting| waiting.check(self.pinned_root.as_deref()))?;
        Ok(waiting)
    }

    /// Gives up the change that waits; tells whether there was one. What was copied for it stays as files
    /// that no list names.
    pub fn discard(&mut self) -> Result<bool, Reason> {
        let path = self.key_folder.join(FILE);
        let there = change::is_there(&path)?;
        change::remove(&path)?;
        Ok(there)
    }

    /// Adds the signatures of `request`, if any, and of the keys at hand to the change that waits, and
    /// publishes it when it lacks nothing. A change that does not wait here, because it was begun at another
    /// place or given up, is only taken up: it waits from then on, to be looked at and signed by the next call.
    ///
    /// # Errors
    /// `BadRequest` where nothing waits, where nothing was added, or where the repository has moved on;
    /// those of [`Change::check`] and [`Publisher::publish_all`].
    pub fn sign(&mut self, request: Option<Change>, now: Timestamp) -> Result<Signed, Reason> {
        let refuse = |detail: &str| Err(Reason::new(ReasonCode::BadRequest, detail));
        let state = self.pinned_root.is_some().then(|| self.state()).transpose()?;
        let waiting = self.waiting(state.as_ref())?;
        waiting.iter().try_for_each(|waiting| waiting.check(self.pinned_root.as_deref()))?;
        let taken_up = waiting.is_none();
        let (mut change, taken) = match (waiting, request) {
            (Some(mut waiting), Some(request)) => {
                let taken = waiting.merge(&request)?;
                (waiting, taken)
            }
            (Some(waiting), None) => (waiting, 0),
            (None, Some(request)) => {
                request.check(self.pinned_root.as_deref())?;
                let upon = match &state {
                    Some(state) => Change::upon(state, self.roots(state)?),
                    None => Change::founding(),
                };
                (request.taken_up(upon), 0)
            }
            (None, None) => return refuse("nothing waits for signatures; publish or change something first"),
        };
        if change.is_empty() || !self.is_next(&change, state.as_ref()) {
            return refuse(
                "the repository has moved on since this change was begun; give it up with `edgewarden repo pending DIR --discard` and make it again",
            );
        }
        if taken_up {
            change.check(self.pinned_root.as_deref())?;
        }
        let changes = change.describe();
        if taken_up {
            let request = self.key_folder.join(FILE);
            change.save(&request)?;
            let outcome = Outcome::Waiting { request, missing: change.missing()? };
            return Ok(Signed { changes, made: Vec::new(), taken, taken_up, outcome });
        }
        let (made, missing) = self.finish(&mut change, state.as_ref(), now)?;
        if made.is_empty() && taken == 0 && !missing.is_empty() {
            return refuse(&format!("no signature was added: {}", lacking(&missing)));
        }
        let outcome = self.settle(change, missing, state.as_ref(), now)?;
        Ok(Signed { changes, made, taken, taken_up, outcome })
    }

    /// Begins a change. Errors: `BadRequest` while another one waits.
    pub(super) fn begin(&self, state: &State) -> Result<Change, Reason> {
        if self.waiting(Some(state))?.is_some() {
            let detail = format!(
                "repository {0}: a change waits for signatures; complete it with `edgewarden repo sign {0}`, or give it up with `edgewarden repo pending {0} --discard`",
                self.repository.display()
            );
            return Err(Reason::new(ReasonCode::BadRequest, detail));
        }
        Ok(Change::upon(state, self.roots(state)?))
    }

    /// The change that waits; none where a publisher was interrupted just after it was published.
    pub(super) fn waiting(&self, state: Option<&State>) -> Result<Option<Change>, Reason> {
        let path = self.key_folder.join(FILE);
        if !change::is_there(&path)? {
            return Ok(None);
        }
        let change = Change::load(&path)?;
        let is_live = |role: &str| {
            state.and_then(|state| state.payload(role)).is_some_and(|live| change.payload(role) == Some(live))
        };
        let offline = || change.roles().filter(|role| !ONLINE.contains(role));
        if !change.is_empty() && offline().all(is_live) {
            return Ok(None);
        }
        Ok(Some(change))
    }

    /// Whether every part of the change is the next version of what is published.
    fn is_next(&self, change: &Change, state: Option<&State>) -> bool {
        let Some(state) = state else { return change.is_founding() };
        let published = |role: &str| {
            let pinned = || state.pin(role).map(roles::version);
            state.payload(role).map(roles::version).or_else(pinned).unwrap_or(0)
        };
        let root = change.published("root");
        root == Some(&state.payloads.root)
            && change
                .roles()
                .filter(|role| !ONLINE.contains(role))
                .all(|role| change.payload(role).map_or(0, roles::version) == published(role) + 1)
    }

    /// Every root that is published, the first one first.
    pub(super) fn roots(&self, state: &State) -> Result<Vec<Value>, Reason> {
        let folder = FolderTransport::new(&self.repository);
        let newest = roles::version(&state.payloads.root);
        (1..=newest).map(|version| read_file(&folder, &format!("{version}.root.json"), MAX_ROOT)).collect()
    }
}

/// Whether what waits in a key folder begins a repository.
pub(super) fn is_founding(key_folder: &Path) -> bool {
    Change::load(&key_folder.join(FILE)).is_ok_and(|waiting| waiting.is_founding())
}

/// Signs a change that was carried here in a file, which gets the signatures. `pinned` is the root that
/// the signer trusts. Tells what the change does and what was signed.
///
/// # Errors
/// Those of [`Change::check`]; `BadRequest` where no key may sign it, or all have.
pub fn sign_request(
    path: &Path,
    signers: &[Signer],
    pinned: Option<&[u8]>,
) -> Result<(Change, Vec<Made>), Reason> {
    let mut change = Change::load(path)?;
    change.check(pinned)?;
    let made = change.sign(signers)?;
    if made.is_empty() {
        let missing = change.missing()?;
        let why = match missing.is_empty() {
            true => "it has all the signatures that can be made now; carry it back".to_owned(),
            false => lacking(&missing),
        };
        let detail = format!("signing request {}: no signature was added: {why}", path.display());
        return Err(Reason::new(ReasonCode::BadRequest, detail));
    }
    change.save(path)?;
    Ok((change, made))
}

/// Which keys could go on.
fn lacking(missing: &[Missing]) -> String {
    use super::super::public_key::short;
    let one = |missing: &Missing| {
        let keys: Vec<String> = missing.may_sign.iter().map(|id| short(id)).collect();
        format!(
            "{} needs {} of {} by {}",
            missing.role,
            missing.threshold - missing.have,
            missing.threshold,
            keys.join(", ")
        )
    };
    let told: Vec<String> = missing.iter().map(one).collect();
    format!("{}; give one of these keys with --sign-with or --signer", told.join("; "))
}
