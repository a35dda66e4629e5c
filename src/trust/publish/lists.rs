//! The lists of releases: what is put on them and taken off.

use super::super::authority;
use super::super::folder::FolderTransport;
use super::super::roles::{self, Expiry};
use super::super::state::{State, digest_of, file_name, read_file, unknown_role};
use super::super::transport::OnBytes;
use super::super::tuf::MAX_TARGETS;
use super::change::Change;
use super::{Outcome, Published, Publisher};
use crate::bundle::{self, layout};
use crate::domain::{Digest, Reason, ReasonCode, Release};
use crate::sys::durable::{self, failed};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::path::Path;
use std::{fs, io};

impl Publisher {
    /// Adds the bundles in these folders, all in one change, to the list of releases or to that of the
    /// delegation `role`. The same bundle again is no error and changes nothing. `progress` hears the bytes
    /// of all their files done so far.
    ///
    /// Errors: `BadRequest` where a version is there with another content, where the delegation does not
    /// cover a name, where another change waits, or where no key at hand may sign; those of
    /// [`super::super::RepositoryClient::resolve`] where the repository was tampered with or the result
    /// would not be accepted; those of opening a bundle; `DiskFull`; `Internal`.
    pub fn publish_all(
        &mut self,
        bundle_dirs: &[&Path],
        role: Option<&str>,
        now: Timestamp,
        progress: OnBytes<'_>,
    ) -> Result<(Vec<Published>, Outcome), Reason> {
        let role = role.unwrap_or("targets");
        let opened: Vec<_> =
            bundle_dirs.iter().map(|dir| bundle::open(dir, None)).collect::<Result<_, _>>()?;
        let state = self.state()?;
        let mut list = list_of(&state, role)?.clone();
        let mut change = None;
        let (mut published, mut done) = (Vec::new(), 0);
        for open in &opened {
            let release = open.manifest.release();
            let fresh = is_fresh(&state, role, &list, &release, &open.digest)?;
            if fresh {
                self.refuse_reuse(&state, &release, &open.digest)?;
                covered(&state, role, &release)?;
                // Before anything is copied: a change that waits is in the way.
                change = Some(change.map_or_else(|| self.begin(&state), Ok)?);
            }
            let placed = self.place(open, &|bytes| progress(done + bytes))?;
            let total_bytes = open.manifest.total_size();
            done += total_bytes;
            if fresh {
                list["targets"][layout::target(&release)] =
                    json!({ "length": placed.manifest_size, "hashes": { "sha256": open.digest } });
            }
            published.push(Published {
                release,
                digest: open.digest,
                fresh,
                live: true,
                new_files: placed.new_files,
                new_bytes: placed.new_bytes,
                total_bytes,
            });
        }
        let Some(change) = change else { return Ok((published, Outcome::Unchanged)) };
        let outcome = self.advance_list(change, &state, role, list, now)?;
        if let Outcome::Waiting { .. } = outcome {
            published.iter_mut().filter(|one| one.fresh).for_each(|one| one.live = false);
        }
        Ok((published, outcome))
    }

    /// Refuses a version that was published with another content before it was taken off its list: devices may
    /// serve that, and would take the one for the other.
    fn refuse_reuse(&self, state: &State, release: &Release, digest: &Digest) -> Result<(), Reason> {
        let manifest = layout::manifest(release, digest);
        let folder = self.repository.join(&manifest);
        let Some(folder) = folder.parent() else { return Ok(()) };
        let names = match fs::read_dir(folder) {
            Ok(entries) => entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed("list", folder)(error).into()),
        };
        // Manifests stay; but one may be of a change that was given up. The old lists tell.
        if names
            .filter(|name| !name.starts_with(durable::TEMPORARY))
            .all(|name| manifest.ends_with(&format!("/{name}")))
        {
            return Ok(());
        }
        let (repository, target) = (FolderTransport::new(&self.repository), layout::target(release));
        for (role, list) in state.lists() {
            for version in (1..roles::version(list)).rev() {
                let Ok(older) = read_file(&repository, &file_name(role, version), MAX_TARGETS) else {
                    continue;
                };
                let entry = older["signed"].get("targets").and_then(|targets| targets.get(&target));
                if entry.and_then(digest_of).is_some_and(|before| before != *digest) {
                    let detail = format!(
                        "release {release}: was published before with another content, which devices may have; give the bundle a new version"
                    );
                    return Err(Reason::new(ReasonCode::BadRequest, detail));
                }
            }
        }
        Ok(())
    }

    /// Takes releases off the lists that have them, in one change. A device no longer takes them, nor is
    /// anything of them removed here. Errors: `NotFound` where one is on no list; as for
    /// [`Publisher::publish_all`].
    pub fn delist(&mut self, releases: &[Release], now: Timestamp) -> Result<Outcome, Reason> {
        let state = self.state()?;
        let mut change = self.begin(&state)?;
        let days = Expiry::of_root(&state.payloads.root);
        for release in releases {
            let roles: Vec<String> = state.listing(release).map(|(role, _)| role.to_owned()).collect();
            if roles.is_empty() {
                let detail =
                    format!("release {release}: not in the repository; `edgewarden repo list` tells what is");
                return Err(Reason::new(ReasonCode::NotFound, detail));
            }
            for role in roles {
                let (begun, published) = (change.payload(&role).cloned(), state.payload(&role).cloned());
                let Some(mut list) = begun.clone().or(published) else { continue };
                if let Some(targets) = list.get_mut("targets").and_then(Value::as_object_mut) {
                    targets.remove(&layout::target(release));
                }
                if begun.is_none() {
                    roles::renew(&mut list, days.targets, now)?;
                }
                change.set(&role, list);
            }
        }
        self.advance(change, Some(&state), now)
    }

    /// Puts the next version of a list into a change.
    pub(super) fn advance_list(
        &mut self,
        mut change: Change,
        state: &State,
        role: &str,
        mut list: Value,
        now: Timestamp,
    ) -> Result<Outcome, Reason> {
        roles::renew(&mut list, Expiry::of_root(&state.payloads.root).targets, now)?;
        change.set(role, list);
        self.advance(change, Some(state), now)
    }
}

/// The list of a role. Errors: `BadRequest` where it is none.
fn list_of<'a>(state: &'a State, role: &str) -> Result<&'a Value, Reason> {
    let found = state.lists().find(|(name, _)| *name == role).map(|(_, list)| list);
    found.ok_or_else(|| unknown_role(state, role))
}

/// Whether a release is new to the repository. Errors: `BadRequest` where it is there with another content.
fn is_fresh(
    state: &State,
    role: &str,
    list: &Value,
    release: &Release,
    digest: &Digest,
) -> Result<bool, Reason> {
    let here = list.get("targets").and_then(|targets| targets.get(layout::target(release)));
    let here = here.map(|entry| (role, digest_of(entry)));
    match here.into_iter().chain(state.listing(release)).next() {
        None => Ok(true),
        Some((_, Some(listed))) if listed == *digest => Ok(false),
        Some((list, _)) => {
            let of = if list == "targets" { String::new() } else { format!(" by {list}") };
            let detail = format!(
                "release {release}: published already{of} with another content; give the bundle a new version"
            );
            Err(Reason::new(ReasonCode::BadRequest, detail))
        }
    }
}

/// Refuses a release that a delegation does not cover, so that no device would find it there.
fn covered(state: &State, role: &str, release: &Release) -> Result<(), Reason> {
    let delegation = authority::delegations(&state.payloads.targets)
        .find(|delegation| authority::name_of(delegation) == Some(role));
    let Some(paths) = delegation.and_then(|delegation| delegation.get("paths")?.as_array()) else {
        return Ok(());
    };
    if delegation.is_some_and(|delegation| covers(delegation, &layout::target(release))) {
        return Ok(());
    }
    let patterns: Vec<&str> = paths.iter().filter_map(Value::as_str).collect();
    let detail = format!(
        "release {release}: the delegation {role} covers only {}; rename the model, or widen it with `edgewarden repo delegate`",
        patterns.join(", ")
    );
    Err(Reason::new(ReasonCode::BadRequest, detail))
}

/// Whether a delegation may list a target path. One that is told by the hashes of its paths counts as if it may
/// list any.
pub(in crate::trust) fn covers(delegation: &Value, path: &str) -> bool {
    let Some(paths) = delegation.get("paths").and_then(Value::as_array) else { return true };
    paths.iter().filter_map(Value::as_str).any(|pattern| matches(pattern, path))
}

/// As clients match: each part between slashes by itself.
fn matches(pattern: &str, path: &str) -> bool {
    let (patterns, parts): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), path.split('/').collect());
    patterns.len() == parts.len()
        && patterns
            .iter()
            .zip(parts)
            .all(|(pattern, part)| glob::Pattern::new(pattern).is_ok_and(|pattern| pattern.matches(part)))
}
