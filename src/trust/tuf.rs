//! The way from the pinned root to a signed manifest: TUF 1.0, by the OpenSSF's client.
//!
//! With the folder beside it the only file that names `sigstore_tuf`. What that library leaves open is closed here:
//!
//! - a floor against rollback that cannot be kept or read on disk fails the refresh (there it is a warning);
//! - nothing replaces what was kept and is newer (`trust::floors`): there a snapshot that its timestamp no
//!   longer pins, because the next one was withheld, is no floor any more;
//! - one key under two ids would be counted twice: metadata that lists one is refused;
//! - a transport that returns more than it was allowed is refused, not trusted to have checked;
//! - after a rotation of the timestamp's or the snapshot's key the floors of both are dropped
//!   (specification 5.3.11, recovery from a fast-forward attack);
//! - fetched targets are not kept: nothing grows with the number of releases.

use super::seen::Seen;
use super::transport::Transport;
use super::verified::{SignedManifest, Verified};
use crate::bundle::layout;
use crate::bundle::{MAX_MANIFEST, parse_manifest};
use crate::domain::{Digest, Reason, ReasonCode, Release};
use serde_json::Value;
use sigstore_tuf::{Error, TargetFile, Updater, UpdaterConfig};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

mod carrier;
mod checked;
mod kept;
mod store;

use carrier::{Carrier, Notes};
use checked::one_id_a_key;
pub(super) use checked::{check_root, is_signed_by};
pub(super) use kept::kept_target;
use store::Store;

/// Longest root, bytes.
pub const MAX_ROOT: u64 = 512 << 10;
/// Longest timestamp, bytes.
pub const MAX_TIMESTAMP: u64 = 16 << 10;
/// Longest snapshot, bytes.
pub const MAX_SNAPSHOT: u64 = 2 << 20;
/// Longest list of targets, bytes.
pub const MAX_TARGETS: u64 = 5 << 20;
/// Most roots walked in one refresh.
pub const MAX_ROOT_ROTATIONS: u32 = 32;
/// The same at a desk, which forgets and begins with the first root each time.
const MAX_ROOT_ROTATIONS_AT_A_DESK: u32 = 1024;
/// Most roles asked for one target.
pub const MAX_DELEGATIONS: u32 = 16;

/// A release as the signed list has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Name and version.
    pub release: Release,
    /// SHA-256 of its manifest: the bundle's identity.
    pub digest: Digest,
    /// Bytes of its manifest.
    pub manifest_size: u64,
}

/// A client of one repository, bound to the root that the device pins.
pub struct RepositoryClient {
    transport: Arc<dyn Transport>,
    pinned_root: Vec<u8>,
    seen: Arc<Seen>,
    /// Whether `seen` shows all that was trusted, and not the floors alone.
    all: bool,
    /// Most roots walked in one refresh.
    rotations: u32,
    /// One refresh at a time: two would race for the files of `seen`.
    turn: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for RepositoryClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RepositoryClient").field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl RepositoryClient {
    /// A client that remembers in `metadata_dir` what it has seen, over restarts and whatever the
    /// transport, so that one folder serves the network and the USB stick. `pinned_root` is the content
    /// of a `root.json`.
    pub fn new(transport: Arc<dyn Transport>, pinned_root: Vec<u8>, metadata_dir: PathBuf) -> Self {
        Self::with(transport, pinned_root, Seen::in_folder(metadata_dir))
    }

    /// A client that forgets, for a look at a repository from a desk: no protection against rollback.
    pub fn forgetful(transport: Arc<dyn Transport>, pinned_root: Vec<u8>) -> Self {
        Self::with(transport, pinned_root, Seen::in_memory())
    }

    fn with(transport: Arc<dyn Transport>, pinned_root: Vec<u8>, seen: Seen) -> Self {
        super::provider::install();
        Self {
            transport,
            pinned_root,
            seen: Arc::new(seen),
            all: false,
            rotations: MAX_ROOT_ROTATIONS,
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// Keeps delegated roles and targets as well, which grow with the repository: for a look at all that was
    /// trusted. A target that was kept is not fetched again.
    pub fn keeping_all(mut self) -> Self {
        self.all = true;
        self
    }

    /// Walks as many roots at once as a repository may ever get: the folder is the desk's own.
    pub(super) fn at_a_desk(mut self) -> Self {
        self.rotations = MAX_ROOT_ROTATIONS_AT_A_DESK;
        self
    }

    /// What it has seen.
    #[cfg(test)]
    pub(super) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Refreshes the metadata and gives the repository as it is now. Errors: those of
    /// [`RepositoryClient::resolve`] but `NotFound`.
    pub async fn open(&self, now: jiff::Timestamp) -> Result<Session, Reason> {
        let _turn = self.turn.lock().await;
        self.refresh(now).await
    }

    /// Refreshes the metadata and brings the manifest of `release`, verified from the pinned root down.
    /// `now` judges expiry.
    ///
    /// Errors: `SignatureInvalid`, `DigestMismatch`, `SizeMismatch`, `Expired`, `OlderThanSeen`,
    /// `Malformed`; `NotFound` where the release is not listed; `RepositoryUnreachable` and what else
    /// the transport says; `DiskFull` and `Internal` where what was seen cannot be kept.
    pub async fn resolve(
        &self,
        release: &Release,
        now: jiff::Timestamp,
    ) -> Result<Verified<SignedManifest>, Reason> {
        let _turn = self.turn.lock().await;
        let mut session = self.refresh(now).await?;
        if let Err(reason) = self.keep_operators(&session).await {
            // It says so itself, to whoever sends a command, until it was fetched.
            tracing::warn!("operators: {reason}");
        }
        let path = layout::target(release);
        let Some(target) = session.find(&path).await? else {
            return Err(not_listed(release, &session.listed()));
        };
        let digest = digest_of(&target.signed, &path)?;
        let bytes = session.fetch(&target).await?;
        let manifest = parse_manifest(&bytes).map_err(|reason| {
            Reason::new(reason.code, format!("release {release}: its manifest: {}", reason.detail))
        })?;
        if manifest.release() != *release {
            let detail = format!(
                "release {release}: its signed manifest is of {}; publish it again under its own name",
                manifest.release()
            );
            return Err(Reason::new(ReasonCode::Malformed, detail));
        }
        Ok(Verified::mark(SignedManifest { manifest, digest, bytes }))
    }

    /// Refreshes the metadata and tells what is offered, sorted by name and version. Errors: as `resolve`.
    pub async fn list(&self, now: jiff::Timestamp) -> Result<Vec<Listed>, Reason> {
        let _turn = self.turn.lock().await;
        Ok(self.refresh(now).await?.listed())
    }

    /// Refreshes the metadata and tells the digest that this target path has, after the walk through the
    /// delegations that leads there; `None` where no role lists it. Errors: as `resolve`.
    pub(super) async fn listed_digest(
        &self,
        path: &str,
        now: jiff::Timestamp,
    ) -> Result<Option<Digest>, Reason> {
        let _turn = self.turn.lock().await;
        let mut session = self.refresh(now).await?;
        let found = session.updater.get_target_info(path, now).await;
        let found = found.map_err(|error| session.reason(error))?;
        found.map(|target| digest_of(&target, path)).transpose()
    }

    /// Refreshes the metadata and gives its verified payloads to the publisher, who extends them.
    pub(super) async fn payloads(&self, now: jiff::Timestamp) -> Result<Payloads, Reason> {
        let _turn = self.turn.lock().await;
        let session = self.refresh(now).await?;
        let trusted = session.updater.trusted();
        // As signed and not as the library understood it, so that no field is lost or made up when it
        // is signed again. The refresh has verified exactly these files, or has just written them.
        let signed = |name: &str, version: Option<u64>| {
            let bytes = self.seen.load(name)?.unwrap_or_default();
            let payload = serde_json::from_slice::<Value>(&bytes).ok().map(|mut file| file["signed"].take());
            payload.filter(|payload| version.is_some() && payload["version"].as_u64() == version).ok_or_else(
                || {
                    let detail = format!("repository metadata: {name} changed while it was read; try again");
                    Reason::new(ReasonCode::Internal, detail)
                },
            )
        };
        Ok(Payloads {
            root: signed("root.json", Some(trusted.root().version))?,
            timestamp: signed("timestamp.json", trusted.timestamp().map(|role| role.version))?,
            snapshot: signed("snapshot.json", trusted.snapshot().map(|role| role.version))?,
            targets: signed("targets.json", trusted.targets_role("targets").map(|role| role.version))?,
        })
    }

    /// Root chain, timestamp, snapshot, targets.
    async fn refresh(&self, now: jiff::Timestamp) -> Result<Session, Reason> {
        one_id_a_key(&self.pinned_root, "pinned root")?;
        self.seen.fault();
        let notes: Arc<Mutex<Notes>> = Arc::default();
        let carrier = Carrier { transport: self.transport.clone(), notes: notes.clone() };
        let mut config = UpdaterConfig::default();
        config.root_max_length = MAX_ROOT;
        config.timestamp_max_length = MAX_TIMESTAMP;
        config.snapshot_max_length = MAX_SNAPSHOT;
        config.targets_max_length = MAX_TARGETS;
        config.target_max_length = MAX_MANIFEST;
        config.max_root_rotations = self.rotations;
        config.max_delegations = MAX_DELEGATIONS;
        let updater = Updater::new(carrier, &self.pinned_root).map_err(|error| {
            let reason = reason_of(&error, "pinned root");
            let detail = format!("{}; give the device the root.json of its repository again", reason.detail);
            Reason::new(reason.code, detail)
        })?;
        let store = Store { seen: self.seen.clone(), all: self.all };
        let updater = updater.with_config(config).with_store(store);
        let mut session = Session { updater, notes, seen: self.seen.clone(), now };
        session.updater.refresh(now).await.map_err(|error| session.reason(error))?;
        session.all_kept()?;
        Ok(session)
    }
}

/// The verified `signed` parts of the four roles.
#[derive(Debug, Clone)]
pub(super) struct Payloads {
    pub(super) root: Value,
    pub(super) timestamp: Value,
    pub(super) snapshot: Value,
    pub(super) targets: Value,
}

impl Payloads {
    /// Each with its role's name.
    pub(super) fn all(&self) -> [(&'static str, &Value); 4] {
        [
            ("root", &self.root),
            ("targets", &self.targets),
            ("snapshot", &self.snapshot),
            ("timestamp", &self.timestamp),
        ]
    }
}

/// A target as the signed metadata has it.
#[derive(Debug, Clone)]
pub struct Target {
    path: String,
    signed: TargetFile,
}

impl Target {
    /// Its bytes.
    pub fn size(&self) -> u64 {
        self.signed.length
    }
}

/// A repository as one refresh has found it.
pub struct Session {
    updater: Updater,
    notes: Arc<Mutex<Notes>>,
    seen: Arc<Seen>,
    /// What expiry is judged by.
    now: jiff::Timestamp,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("updater", &self.updater).finish_non_exhaustive()
    }
}

impl Session {
    /// The target `path`, in the list or in the roles that it delegates to: depth first, at most
    /// [`MAX_DELEGATIONS`] of them. Errors: as for [`RepositoryClient::resolve`].
    pub async fn find(&mut self, path: &str) -> Result<Option<Target>, Reason> {
        let found = self.updater.get_target_info(path, self.now).await;
        let found = found.map_err(|error| self.reason(error))?;
        self.all_kept()?;
        Ok(found.map(|signed| Target { path: path.to_owned(), signed }))
    }

    /// The content of a target, at most [`MAX_MANIFEST`] bytes, checked against all its signed hashes.
    /// Errors: as for [`RepositoryClient::resolve`].
    pub async fn fetch(&self, target: &Target) -> Result<Vec<u8>, Reason> {
        if let Some(kept) = self.updater.find_cached_target(&target.signed, &target.path) {
            return Ok(kept);
        }
        let fetched = self.updater.download_target(&target.signed, &target.path).await;
        let fetched = fetched.map_err(|error| self.reason(error))?;
        self.all_kept()?;
        Ok(fetched)
    }

    /// What the transport said, where it was at fault; else what the library found.
    fn reason(&self, error: Error) -> Reason {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        match (error, notes.fault.take()) {
            (Error::Transport { .. }, Some(fault)) => fault,
            (error, _) => {
                let reason = reason_of(&error, "repository metadata");
                // What cannot be read at all does not say whose it is: it is what was fetched last.
                if reason.code == ReasonCode::Malformed && !notes.newest.is_empty() {
                    return reason_of(&error, &format!("repository {}", notes.newest));
                }
                reason
            }
        }
    }

    /// An error where something that was seen could not be kept.
    fn all_kept(&self) -> Result<(), Reason> {
        match self.seen.fault() {
            None => Ok(()),
            Some(reason) if reason.code.is_trust() => Err(reason),
            Some(reason) => {
                Err(Reason::new(reason.code, format!("remember repository metadata: {}", reason.detail)))
            }
        }
    }

    /// What the list itself offers, sorted by name and version.
    pub fn listed(&self) -> Vec<Listed> {
        let targets = self.updater.trusted().targets_role("targets").map(|role| &role.targets);
        let mut listed: Vec<Listed> = targets
            .into_iter()
            .flatten()
            .filter_map(|(path, target)| {
                let release = layout::release_of_target(path)?;
                let digest = digest_of(target, path).ok()?;
                Some(Listed { release, digest, manifest_size: target.length })
            })
            .collect();
        listed.sort_by(|a, b| a.release.cmp(&b.release));
        listed
    }
}

/// The canonical JSON that signatures cover.
///
/// # Errors
/// `Internal` for what has no such form: numbers with a fraction.
pub fn canonical(value: &Value) -> Result<Vec<u8>, Reason> {
    sigstore_tuf::canonical_json::to_canonical_bytes(value)
        .map_err(|error| Reason::new(ReasonCode::Internal, format!("write metadata: {error}")))
}

fn not_listed(release: &Release, listed: &[Listed]) -> Reason {
    let mut versions: Vec<String> = listed
        .iter()
        .filter(|l| l.release.name == release.name)
        .map(|l| l.release.version.to_string())
        .collect();
    let older = versions.len().saturating_sub(5);
    let versions = versions.split_off(older).join(", ");
    let offer = if versions.is_empty() {
        format!("it has no model of the name {}", release.name)
    } else {
        format!("of {} it has {versions}", release.name)
    };
    Reason::new(ReasonCode::NotFound, format!("release {release} is not in the repository; {offer}"))
}

/// The signed SHA-256 of a target; every target of ours has one, which is also part of its file's name.
fn digest_of(target: &TargetFile, path: &str) -> Result<Digest, Reason> {
    let digest = target.hashes.get("sha256").and_then(|text| text.parse::<Digest>().ok());
    digest.ok_or_else(|| {
        Reason::new(
            ReasonCode::Malformed,
            format!("repository metadata: target {path} has no SHA-256; publish it again"),
        )
    })
}

/// The library's finding in our words. The texts of two variants are looked into: they alone tell a
/// wrong length from a wrong hash, and a missing file from too many roots; tests pin them.
fn reason_of(error: &Error, what: &str) -> Reason {
    use ReasonCode::*;
    let (code, detail) = match error {
        Error::Expired { role, expires } => (
            Expired,
            format!(
                "{role} expired at {expires}; run `edgewarden repo refresh` where it is published, or check this machine's clock"
            ),
        ),
        Error::Rollback { role, trusted, new } => (
            OlderThanSeen,
            format!(
                "{role} has version {new}, but version {trusted} was seen before; the copy is old or somebody replays it"
            ),
        ),
        Error::BadRootVersion { trusted, new } if new <= trusted => (
            OlderThanSeen,
            format!("the root after {trusted} has version {new}; the copy is old or somebody replays it"),
        ),
        Error::EqualVersion { role, version } => {
            (OlderThanSeen, format!("{role} has version {version} again"))
        }
        Error::ThresholdNotMet { role, found, threshold } => (
            SignatureInvalid,
            format!(
                "{role} has {found} of {threshold} needed signatures by keys that are trusted; it was changed, or it is another repository's"
            ),
        ),
        Error::DuplicateSignature { .. } | Error::Crypto(_) => (SignatureInvalid, error.to_string()),
        Error::IntegrityMismatch(text) => {
            let code = if text.contains("length") {
                SizeMismatch
            } else if text.contains("removes") {
                OlderThanSeen
            } else {
                DigestMismatch
            };
            (code, format!("{text}; it was changed, publish or copy it again"))
        }
        Error::Transport { message, .. } if message.starts_with("exceeded") => {
            (Malformed, "more new roots at once than are taken; try again to take the next ones".to_owned())
        }
        Error::Transport { message, .. } => {
            (RepositoryUnreachable, format!("{message}; the copy is incomplete, publish or copy it again"))
        }
        Error::TargetNotFound(_) => (NotFound, error.to_string()),
        Error::Io { .. } | Error::NotRefreshed => (Internal, error.to_string()),
        // Json, Malformed, NonIntegerNumber, UnusableKey, UnsupportedScheme, UnknownRole, BadRootVersion
        // of a gap, and what a later version of the library may add.
        other => {
            let cause =
                std::error::Error::source(other).map(|cause| format!(": {cause}")).unwrap_or_default();
            (Malformed, format!("{other}{cause}; it was damaged, publish or copy it again"))
        }
    };
    Reason::new(code, format!("{what}: {detail}"))
}
