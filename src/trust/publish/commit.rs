//! From a change to what devices see: signatures, the online roles above it, our own client's judgement,
//! and then the files, so that devices see the old repository or the new one and nothing between.

use super::super::authority::{self, Authority};
use super::super::folder::FolderTransport;
use super::super::operators::listed_in;
use super::super::roles::{self, Expiry};
use super::super::state::{self, State, to_bytes};
use super::super::transport::{BoxFuture, OnBytes, Transport};
use super::super::tuf::RepositoryClient;
use super::change::{self, Change, Made, Missing, ONLINE};
use super::{Outcome, Publisher, Resigned, at_once, operators, pending};
use crate::bundle::layout;
use crate::domain::{Reason, ReasonCode};
use crate::sys::durable::{self, failed};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

impl Publisher {
    /// Brings a change as far as the keys at hand go: it is published, or waits.
    pub(super) fn advance(
        &mut self,
        mut change: Change,
        state: Option<&State>,
        now: Timestamp,
    ) -> Result<Outcome, Reason> {
        if !self.signers.is_empty() && !change.concerns(&self.signers)? {
            let detail = format!(
                "key folder {}: none of its keys may sign for this repository; name the right one with --keys",
                self.key_folder.display()
            );
            return Err(Reason::new(ReasonCode::BadRequest, detail));
        }
        let (_, missing) = self.finish(&mut change, state, now)?;
        self.settle(change, missing, state, now)
    }

    /// Publishes a change that lacks nothing; lets any other wait.
    pub(super) fn settle(
        &mut self,
        change: Change,
        missing: Vec<Missing>,
        state: Option<&State>,
        now: Timestamp,
    ) -> Result<Outcome, Reason> {
        let request = self.key_folder.join(pending::FILE);
        if missing.is_empty() {
            let resigned = self.put_live(&change, state, now)?;
            change::remove(&request)?;
            return Ok(Outcome::Live { resigned });
        }
        change.save(&request)?;
        Ok(Outcome::Waiting { request, missing })
    }

    /// Signs with the keys at hand; once the offline roles have their signatures, makes snapshot and
    /// timestamp over them. Tells the signatures made, and what is missing.
    pub(super) fn finish(
        &self,
        change: &mut Change,
        state: Option<&State>,
        now: Timestamp,
    ) -> Result<(Vec<Made>, Vec<Missing>), Reason> {
        if let Some(state) = state {
            change.catch_up(state);
        }
        let mut made = change.sign(&self.signers)?;
        for role in ONLINE {
            let missing = change.missing()?;
            let below = missing.iter().any(|missing| !ONLINE.contains(&missing.role.as_str()));
            let earlier = role == "timestamp" && missing.iter().any(|missing| missing.role == "snapshot");
            if below || earlier {
                change.unset("timestamp");
                if below {
                    change.unset("snapshot");
                }
                return Ok((
                    made,
                    missing.into_iter().filter(|one| change.file(&one.role).is_some()).collect(),
                ));
            }
            let payload = online_payload(change, role, now)?;
            change.set(role, payload);
            made.extend(change.sign(&self.signers)?);
        }
        Ok((made, change.missing()?))
    }

    /// Lets our own client judge the change together with what lies in the folder, and only then writes it.
    pub(super) fn put_live(
        &mut self,
        change: &Change,
        state: Option<&State>,
        now: Timestamp,
    ) -> Result<Vec<Resigned>, Reason> {
        let files = change.files()?;
        self.judge(change, state, &files, now)?;
        let place = |file: &(String, Vec<u8>)| self.place_metadata(file);
        if state.is_none() {
            let (roots, others): (Vec<_>, Vec<_>) =
                files.iter().partition(|(name, _)| name.ends_with("/1.root.json"));
            others.into_iter().try_for_each(place)?;
            let mut pinned = None;
            // The repository's first root is the mark that all the rest is there.
            for root in roots {
                durable::write_atomic(&self.key_folder.join("root.json"), &root.1)?;
                place(root)?;
                pinned = Some(root.1.clone());
            }
            self.pinned_root = pinned.or(self.pinned_root.take());
        } else if change.file("root").is_none() {
            files.iter().try_for_each(place)?;
        } else if !swap_metadata(&self.repository, &files)? {
            // Between the new root and the timestamp nobody could read the repository, its owner included: what
            // completes it is kept until it is complete.
            let kept = self.key_folder.join(pending::FILE);
            change.save(&kept)?;
            files.iter().try_for_each(place)?;
            change::remove(&kept)?;
        }
        let after = self.state()?;
        let resigned = change.roles().filter_map(|role| {
            let payload = after.payload(role)?;
            let (version, expires) = (roles::version(payload), roles::expiry_of(payload)?);
            Some(Resigned { role: role.to_owned(), version, expires })
        });
        Ok(resigned.collect())
    }

    fn place_metadata(&self, (name, bytes): &(String, Vec<u8>)) -> Result<(), Reason> {
        Ok(durable::write_atomic(&self.repository.join(name), bytes)?)
    }

    /// Completes a change of the root that was interrupted while its files were placed one by one, on a disk
    /// where folders cannot be exchanged: its root is there and its timestamp is not. It was judged before the
    /// first of them was placed.
    pub(super) fn complete_rotation(&self) -> Result<(), Reason> {
        let kept = self.key_folder.join(pending::FILE);
        if self.pinned_root.is_none() || !change::is_there(&kept)? {
            return Ok(());
        }
        // What is no change is told by whoever needs it.
        let Ok(change) = Change::load(&kept) else { return Ok(()) };
        let (Some(root), Some(timestamp)) = (change.file("root"), change.payload("timestamp")) else {
            return Ok(());
        };
        let root_name = state::file_name("root", roles::version(&root["signed"]));
        let lies = |name: &str| fs::read(self.repository.join(layout::metadata(name)));
        let is_begun = lies(&root_name).is_ok_and(|there| to_bytes(root).is_ok_and(|root| root == there));
        let live = lies("timestamp.json").ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let is_behind = live.is_none_or(|live| roles::version(&live["signed"]) < roles::version(timestamp));
        if !is_begun
            || !is_behind
            || change.check(self.pinned_root.as_deref()).is_err()
            || !change.missing()?.is_empty()
        {
            return Ok(());
        }
        tracing::info!(repository = %self.repository.display(), "completing a change of keys that was interrupted");
        change.files()?.iter().try_for_each(|file| self.place_metadata(file))?;
        change::remove(&kept)
    }

    /// What a device would say: the roles, each new release with its files, each changed delegation.
    fn judge(
        &self,
        change: &Change,
        state: Option<&State>,
        files: &[(String, Vec<u8>)],
        now: Timestamp,
    ) -> Result<(), Reason> {
        let root = state.and_then(|state| state.file("root")).or_else(|| change.file("root"));
        let root = root.map(to_bytes).transpose()?.unwrap_or_default();
        let folder = FolderTransport::new(&self.repository);
        let overlay = Overlay { folder, files: files.iter().cloned().collect() };
        let client = RepositoryClient::forgetful(Arc::new(overlay), root);
        at_once(client.list(now))?;
        covered(change, state)?;
        for role in change.roles().filter(|role| *role != "root" && !ONLINE.contains(role)) {
            let (Some(new), old) = (change.payload(role), change.published(role)) else { continue };
            for (release, entry) in state::releases(new) {
                let path = layout::target(&release);
                let known = old.and_then(|old| old.get("targets")?.get(&path));
                if known == Some(entry) {
                    continue;
                }
                let signed = at_once(client.resolve(&release, now))?;
                let signed = signed.get();
                if state::digest_of(entry) != Some(signed.digest) {
                    let detail = format!(
                        "release {release}: another list comes before {role} and has it with another content; give the bundle a new version"
                    );
                    return Err(Reason::new(ReasonCode::BadRequest, detail));
                }
                for file in &signed.manifest.files {
                    let blob = self.repository.join(layout::blob(&file.sha256));
                    if fs::metadata(&blob).map_or(u64::MAX, |found| found.len()) != file.size {
                        let detail = format!(
                            "release {release}: {} is missing in the repository; publish its bundle folder here",
                            file.path
                        );
                        return Err(Reason::new(ReasonCode::BadRequest, detail));
                    }
                }
            }
            if role == "targets" {
                if listed_in(new) != old.and_then(listed_in) {
                    operators::published(&self.repository, new)?;
                }
            } else {
                for sample in samples(change, role) {
                    at_once(client.listed_digest(&sample, now))?;
                }
            }
        }
        Ok(())
    }
}

/// Refuses a change after which a delegated list would lack signatures: a key was taken away while the change
/// waited, and meanwhile that key signed the list anew. Clients read such a list only when they are led to it.
fn covered(change: &Change, state: Option<&State>) -> Result<(), Reason> {
    let Some(list) = change.after("targets") else { return Ok(()) };
    for name in authority::delegations(list).filter_map(authority::name_of) {
        let Some(file) = change.file(name).or_else(|| state?.file(name)) else { continue };
        let authority = Authority::of_delegation(list, name);
        if !authority.map(|authority| authority.is_met_by(file)).transpose()?.unwrap_or(false) {
            let detail = format!(
                "delegation {name}: its list was signed anew since this change was begun, by keys that are too few after it; give the change up with `edgewarden repo pending DIR --discard` and make it again"
            );
            return Err(Reason::new(ReasonCode::BadRequest, detail));
        }
    }
    Ok(())
}

/// Target paths that lead a client to a delegation.
fn samples(change: &Change, role: &str) -> Vec<String> {
    let delegation = change
        .after("targets")
        .and_then(|list| authority::delegations(list).find(|one| authority::name_of(one) == Some(role)));
    let paths = delegation.and_then(|delegation| delegation.get("paths")?.as_array());
    let paths = paths.into_iter().flatten().filter_map(Value::as_str);
    paths.map(|path| path.replace(['*', '?'], "x")).collect()
}

/// What the next snapshot or timestamp pins: what the published one does, and the files of the change.
pub(super) fn online_meta(change: &Change, role: &str) -> Result<Value, Reason> {
    let first = || roles::first(role, "meta");
    let meta = change.published(role).cloned().unwrap_or_else(first).get("meta").cloned();
    let mut meta = meta.filter(Value::is_object).ok_or_else(|| {
        Reason::new(ReasonCode::Malformed, format!("{role}: what is published of it pins nothing"))
    })?;
    let pinned: Vec<&str> = match role {
        "timestamp" => vec!["snapshot"],
        _ => change.roles().filter(|role| *role != "root" && !ONLINE.contains(role)).collect(),
    };
    for name in pinned {
        let Some(file) = change.file(name) else { continue };
        let version = roles::version(&file["signed"]);
        meta[format!("{name}.json")] = roles::pin(version, &to_bytes(file)?);
    }
    Ok(meta)
}

/// The next snapshot or timestamp over a change; the one that waits already where it still fits.
fn online_payload(change: &Change, role: &str, now: Timestamp) -> Result<Value, Reason> {
    let first = || roles::first(role, "meta");
    let mut payload = change.published(role).cloned().unwrap_or_else(first);
    payload["meta"] = online_meta(change, role)?;
    let version = roles::version(&payload) + 1;
    if let Some(waiting) = change.payload(role)
        && waiting["meta"] == payload["meta"]
        && roles::version(waiting) == version
    {
        return Ok(waiting.clone());
    }
    let root = change.after("root").cloned().unwrap_or_default();
    roles::renew(&mut payload, roles::days_of(role, &Expiry::of_root(&root)), now)?;
    Ok(payload)
}

/// Puts a whole new folder of metadata in the place of the old one at one stroke, because a root with other
/// keys and a timestamp signed by them count only together. `false` where the disk cannot do that, and
/// nothing was changed.
fn swap_metadata(repository: &Path, files: &[(String, Vec<u8>)]) -> Result<bool, Reason> {
    let (old, new) =
        (repository.join(layout::METADATA), repository.join(format!("{}metadata", durable::TEMPORARY)));
    let kind = fs::symlink_metadata(&old).map_err(failed("look at", &old))?;
    if !kind.is_dir() {
        return Ok(false);
    }
    fs::create_dir(&new).map_err(failed("make folder", &new))?;
    fs::set_permissions(&new, kind.permissions()).map_err(failed("set mode", &new))?;
    let swapped =
        fill(&old, &new, files).and_then(|whole| match whole.then(|| durable::exchange_synced(&new, &old)) {
            Some(Ok(())) => Ok(true),
            Some(Err(error)) if !cannot_exchange(&error.source) => Err(error.into()),
            Some(Err(_)) | None => Ok(false),
        });
    // The old folder, or a new one that was not used.
    fs::remove_dir_all(&new).map_err(failed("remove folder", &new))?;
    swapped
}

/// Whether a disk said that it has no exchange of two names.
fn cannot_exchange(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error();
    [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP, Errno::XDEV]
        .iter()
        .any(|one| code == Some(one.raw_os_error()))
}

/// Fills a new folder of metadata with the old files, as links, and the new ones. `false` where the disk
/// has no links.
fn fill(old: &Path, new: &Path, files: &[(String, Vec<u8>)]) -> Result<bool, Reason> {
    let names: Vec<&str> = files.iter().filter_map(|(path, _)| path.strip_prefix("metadata/")).collect();
    for entry in fs::read_dir(old).map_err(failed("list", old))? {
        let name = entry.map_err(failed("list", old))?.file_name();
        let known =
            name.to_str().is_some_and(|name| names.contains(&name) || name.starts_with(durable::TEMPORARY));
        if !known && fs::hard_link(old.join(&name), new.join(&name)).is_err() {
            return Ok(false);
        }
    }
    for (name, (_, bytes)) in names.iter().zip(files) {
        durable::write_atomic(&new.join(name), bytes)?;
    }
    durable::sync_dir(new)?;
    Ok(true)
}

/// A folder with files that are not there yet.
struct Overlay {
    folder: FolderTransport,
    files: BTreeMap<String, Vec<u8>>,
}

impl Transport for Overlay {
    fn get<'a>(&'a self, path: &'a str, max: u64) -> BoxFuture<'a, Result<Option<Vec<u8>>, Reason>> {
        match self.files.get(path) {
            Some(bytes) => Box::pin(async { Ok(Some(bytes.clone())) }),
            None => self.folder.get(path, max),
        }
    }

    fn download<'a>(
        &'a self,
        path: &'a str,
        size: u64,
        into: &'a Path,
        progress: OnBytes<'a>,
    ) -> BoxFuture<'a, Result<(), Reason>> {
        self.folder.download(path, size, into, progress)
    }
}
