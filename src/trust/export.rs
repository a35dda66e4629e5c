//! Looking at a repository in a folder, and carrying a release out of it in one file. Needs no keys.

use super::folder::FolderTransport;
use super::operators::{self, Operators};
use super::publish::at_once;
use super::publish::operators::published;
use super::state::{self, State};
use super::transport::{BoxFuture, OnBytes, Transport};
use super::tuf::RepositoryClient;
use super::verified::{SignedManifest, Verified};
use crate::bundle::archive::{self, Content};
use crate::bundle::{checked, layout};
use crate::domain::{Digest, Reason, ReasonCode, Release};
use crate::sys::durable::failed;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

pub use super::state::RoleState;

/// A release in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Offer {
    /// Name and version.
    pub release: Release,
    /// SHA-256 of its manifest.
    pub digest: Digest,
    /// Bytes of all its files.
    pub size: u64,
    /// One line for people.
    pub description: String,
    /// The list that has it: `targets`, or a delegation.
    pub role: String,
    /// The ids of the keys that have signed that list.
    pub signed_by: Vec<String>,
}

/// What a repository holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Overview {
    /// Its releases, by name and version.
    pub releases: Vec<Offer>,
    /// When each role expires.
    pub expires: BTreeMap<String, Timestamp>,
    /// The roles, with their keys and who has signed.
    pub roles: Vec<RoleState>,
}

/// The root to begin with: the one given, or the first of the repository itself, which then vouches
/// for itself. Errors: `BadRequest` where there is no repository.
fn root_of(repository: &Path, root: Option<&[u8]>) -> Result<Vec<u8>, Reason> {
    if let Some(root) = root {
        return Ok(root.to_owned());
    }
    let path = repository.join(layout::metadata("1.root.json"));
    fs::read(&path).map_err(|error| {
        let detail = format!(
            "repository {0}: no metadata/1.root.json ({error}); begin one with `edgewarden repo init`, or see \
             `edgewarden repo pending {0}` where its first root waits for signatures",
            repository.display()
        );
        Reason::new(ReasonCode::BadRequest, detail)
    })
}

/// A client of the repository in a folder that remembers nothing.
pub(super) fn client(repository: &Path, root: Option<&[u8]>) -> Result<RepositoryClient, Reason> {
    let transport = Arc::new(FolderTransport::new(repository));
    Ok(RepositoryClient::forgetful(transport, root_of(repository, root)?).at_a_desk())
}

/// What the repository in a folder holds, verified but for its age: an expired one is shown too.
/// `root` is the pinned root; without it the repository vouches for itself. Errors: those of
/// [`RepositoryClient::resolve`].
pub fn overview(repository: &Path, root: Option<&[u8]>) -> Result<Overview, Reason> {
    let client = client(repository, root)?;
    let state = State::read(repository, &client)?;
    let roles = state.roles()?;
    let expires = roles.iter().filter_map(|role| Some((role.role.clone(), role.expires?))).collect();
    let mut releases: Vec<Offer> = Vec::new();
    for (role, list) in state.lists() {
        let signed_by = roles.iter().find(|known| known.role == role).map(|known| known.signed_by.clone());
        for (release, _) in state::releases(list) {
            // What two lists have is taken from the first.
            if releases.iter().any(|known| known.release == release) {
                continue;
            }
            let signed = at_once(client.resolve(&release, Timestamp::MIN))?;
            let signed = signed.get();
            releases.push(Offer {
                release,
                digest: signed.digest,
                size: signed.manifest.total_size(),
                description: signed.manifest.description.clone(),
                role: role.to_owned(),
                signed_by: signed_by.clone().unwrap_or_default(),
            });
        }
    }
    releases.sort_by(|a, b| a.release.cmp(&b.release));
    Ok(Overview { releases, expires, roles })
}

/// Who may sign commands by the repository in a folder, verified but for its age. Errors: those of
/// [`overview`], and where its list is damaged.
pub fn operators(repository: &Path, root: Option<&[u8]>) -> Result<Operators, Reason> {
    let state = State::read(repository, &client(repository, root)?)?;
    match published(repository, &state.payloads.targets)? {
        Some((_, list)) => operators::parse(&list),
        None => operators::owners(&state.payloads.root),
    }
}

/// What the repository in a folder says of a release; its blobs are not read. With `now` at its least, also what
/// has expired. Errors: those of [`RepositoryClient::resolve`].
pub fn resolve(
    repository: &Path,
    release: &Release,
    root: Option<&[u8]>,
    now: Timestamp,
) -> Result<Verified<SignedManifest>, Reason> {
    at_once(client(repository, root)?.resolve(release, now))
}

/// Verifies a release of the repository in a folder down to the last byte of its blobs. Errors: those of
/// [`RepositoryClient::resolve`].
pub fn verify_release(
    repository: &Path,
    release: &Release,
    root: Option<&[u8]>,
    now: Timestamp,
) -> Result<Verified<SignedManifest>, Reason> {
    let verified = resolve(repository, release, root, now)?;
    for file in &verified.get().manifest.files {
        let path = repository.join(layout::blob(&file.sha256));
        let mut reader = File::open(&path).map_err(|error| {
            let detail =
                format!("release {release}: {} of {}: {error}; publish it again", file.path, path.display());
            Reason::new(ReasonCode::Malformed, detail)
        })?;
        let what = format!("release {release}: {}", file.path);
        checked::copy(&what, &mut reader, &file.sha256, file.size, &mut std::io::sink(), &|_| {})?;
    }
    Ok(verified)
}

/// Writes `release` with all that proves it into the `.bundle` file `out`, which is then checked by our
/// own client before this returns. The same repository state gives the same bytes. `progress` hears the
/// bytes written so far; the total is [`layout`]'s files together, a little more than the bundle's size.
///
/// Errors: those of [`RepositoryClient::resolve`], `Expired` among them: a file that no device would
/// take is not written.
pub fn export(
    repository: &Path,
    release: &Release,
    out: &Path,
    now: Timestamp,
    progress: OnBytes<'_>,
) -> Result<Verified<SignedManifest>, Reason> {
    let root = root_of(repository, None)?;
    let folder = Arc::new(Recorder { folder: FolderTransport::new(repository), got: Mutex::default() });
    let client = RepositoryClient::forgetful(folder.clone(), root.clone()).at_a_desk();
    let verified = at_once(client.resolve(release, now))?;
    let signed = verified.get();

    // What a client asked for on its way from the root to the manifest is what a device will ask for: the
    // four roles, and the delegations that lead there.
    let got = std::mem::take(&mut *folder.got.lock().unwrap_or_else(PoisonError::into_inner));
    let mut contents: BTreeMap<String, Content> =
        got.into_iter().map(|(name, bytes)| (name, Content::Bytes(bytes))).collect();
    contents.insert(layout::metadata("1.root.json"), Content::Bytes(root.clone()));
    // With it a device that never reaches the repository hears of new and revoked operators.
    let targets = at_once(client.payloads(now))?.targets;
    if let Some((name, list)) = published(repository, &targets)? {
        contents.insert(name, Content::Bytes(list));
    }
    for file in &signed.manifest.files {
        let name = layout::blob(&file.sha256);
        let path = repository.join(&name);
        contents.insert(name, Content::File { path, sha256: file.sha256, size: file.size });
    }
    archive::write(out, &contents, progress)?;

    let transport = super::sideload::ArchiveTransport::open(out);
    let checked = transport.and_then(|transport| {
        let client = RepositoryClient::forgetful(Arc::new(transport), root).at_a_desk();
        at_once(client.resolve(release, now))
    });
    checked.inspect_err(|_| {
        // The fault of the check counts, not that of the clean-up.
        let _ = fs::remove_file(out).map_err(failed("remove", out));
    })
}

/// Notes each small file that a client gets of a folder.
struct Recorder {
    folder: FolderTransport,
    got: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl Transport for Recorder {
    fn get<'a>(&'a self, path: &'a str, max: u64) -> BoxFuture<'a, Result<Option<Vec<u8>>, Reason>> {
        Box::pin(async move {
            let bytes = self.folder.get(path, max).await?;
            if let Some(bytes) = &bytes {
                let mut got = self.got.lock().unwrap_or_else(PoisonError::into_inner);
                got.insert(path.to_owned(), bytes.clone());
            }
            Ok(bytes)
        })
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
