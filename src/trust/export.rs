//! Looking at a repository in a folder, and carrying a release out of it in one file. Needs no keys.

use super::folder::FolderTransport;
use super::operators;
use super::publish::at_once;
use super::roles;
use super::transport::{OnBytes, Transport};
use super::tuf::{MAX_ROOT, MAX_SNAPSHOT, MAX_TARGETS, MAX_TIMESTAMP, RepositoryClient};
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
use std::sync::Arc;

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
}

/// What a repository holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Overview {
    /// Its releases, by name and version.
    pub releases: Vec<Offer>,
    /// When each role expires.
    pub expires: BTreeMap<&'static str, Timestamp>,
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
            "repository {}: no metadata/1.root.json ({error}); begin one with `edgewarden repo init`",
            repository.display()
        );
        Reason::new(ReasonCode::BadRequest, detail)
    })
}

fn client(repository: &Path, root: Option<&[u8]>) -> Result<RepositoryClient, Reason> {
    let transport = Arc::new(FolderTransport::new(repository));
    Ok(RepositoryClient::forgetful(transport, root_of(repository, root)?))
}

/// What the repository in a folder holds, verified but for its age: an expired one is shown too.
/// `root` is the pinned root; without it the repository vouches for itself. Errors: those of
/// [`RepositoryClient::resolve`].
pub fn overview(repository: &Path, root: Option<&[u8]>) -> Result<Overview, Reason> {
    let client = client(repository, root)?;
    let payloads = at_once(client.payloads(Timestamp::MIN))?;
    let expires = payloads
        .all()
        .into_iter()
        .filter_map(|(role, payload)| Some((role, roles::expiry_of(payload)?)))
        .collect();
    let mut releases = Vec::new();
    for listed in at_once(client.list(Timestamp::MIN))? {
        let signed = at_once(client.resolve(&listed.release, Timestamp::MIN))?;
        let manifest = &signed.get().manifest;
        releases.push(Offer {
            release: listed.release,
            digest: listed.digest,
            size: manifest.total_size(),
            description: manifest.description.clone(),
        });
    }
    Ok(Overview { releases, expires })
}

/// Verifies a release of the repository in a folder down to the last byte of its blobs. Errors: those of
/// [`RepositoryClient::resolve`].
pub fn verify_release(
    repository: &Path,
    release: &Release,
    root: Option<&[u8]>,
    now: Timestamp,
) -> Result<Verified<SignedManifest>, Reason> {
    let verified = at_once(client(repository, root)?.resolve(release, now))?;
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
    let folder = FolderTransport::new(repository);
    let client = RepositoryClient::forgetful(Arc::new(folder.clone()), root.clone());
    let verified = at_once(client.resolve(release, now))?;
    let payloads = at_once(client.payloads(now))?;
    let signed = verified.get();

    let mut contents = BTreeMap::new();
    let mut add = |name: String, max: u64| -> Result<(), Reason> {
        let bytes = at_once(folder.get(&name, max))?.ok_or_else(|| {
            let detail = format!("repository {}: {name} is missing; publish again", repository.display());
            Reason::new(ReasonCode::RepositoryUnreachable, detail)
        })?;
        contents.insert(name, Content::Bytes(bytes));
        Ok(())
    };
    for version in 1..=roles::version(&payloads.root) {
        add(layout::metadata(&format!("{version}.root.json")), MAX_ROOT)?;
    }
    add(layout::metadata("timestamp.json"), MAX_TIMESTAMP)?;
    add(layout::metadata(&format!("{}.snapshot.json", roles::version(&payloads.snapshot))), MAX_SNAPSHOT)?;
    add(layout::metadata(&format!("{}.targets.json", roles::version(&payloads.targets))), MAX_TARGETS)?;
    // With it a device that never reaches the repository hears of new and revoked operators.
    if let Some(digest) = operators::listed_in(&payloads.targets) {
        add(layout::operators(&digest), operators::MAX_LIST)?;
    }
    contents.insert(layout::manifest(release, &signed.digest), Content::Bytes(signed.bytes.clone()));
    for file in &signed.manifest.files {
        let name = layout::blob(&file.sha256);
        let path = repository.join(&name);
        contents.insert(name, Content::File { path, sha256: file.sha256, size: file.size });
    }
    archive::write(out, &contents, progress)?;

    let transport = super::sideload::ArchiveTransport::open(out);
    let checked = transport.and_then(|transport| {
        at_once(RepositoryClient::forgetful(Arc::new(transport), root).resolve(release, now))
    });
    checked.inspect_err(|_| {
        // The fault of the check counts, not that of the clean-up.
        let _ = fs::remove_file(out).map_err(failed("remove", out));
    })
}
