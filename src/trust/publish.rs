//! Making a repository: files first, metadata last, `timestamp.json` very last.
//!
//! Until the new `timestamp.json` has its name, every client sees the old repository, whole; nothing
//! that it refers to is ever changed or removed. A change of keys replaces the whole folder of the metadata
//! at one stroke instead. So a publish may be interrupted anywhere and run again. What would be published
//! goes through our own client before that last step.
//!
//! One key may sign everything, or each role may have keys of its own and need several of them. What the
//! keys at hand cannot sign to the end waits in the key folder, beside the repository and never served,
//! until signers at other places have signed it ([`change`]).
//!
//! The key folder belongs to one repository and must not lie inside it:
//!
//! ```text
//! KEYS/signing.pem   the private key (more may be there; all that a role lists are used)
//! KEYS/root.json     the root that this publisher pins, as devices do
//! KEYS/pending.json  the change that waits for signatures
//! KEYS/seen/         what it has seen, so that it never builds on an older copy of the repository
//! KEYS/lock          held while a publisher is at work
//! ```

pub mod change;
pub mod delegation;
pub mod keyring;
pub mod lists;
pub mod pending;

mod commit;
mod follows;
pub(super) mod operators;
mod place;
mod words;

use super::authority::TOP_LEVEL;
use super::folder::FolderTransport;
use super::keys::{self, Key};
use super::public_key::PublicKey;
use super::roles::{self, Expiry};
use super::signer::Signer;
use super::state::State;
use super::transport::OnBytes;
use super::tuf::RepositoryClient;
use crate::bundle::layout;
use crate::domain::{Digest, Reason, ReasonCode, Release};
use crate::sys::durable::{self, failed};
use change::{Change, Missing, is_there};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a repository of one key folder is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InitOptions {
    /// How long signatures are good; kept in the root.
    pub expiry: Expiry,
}

/// How a repository is begun.
#[derive(Debug, Clone, Default)]
pub struct Founding {
    /// How long signatures are good; kept in the root.
    pub expiry: Expiry,
    /// The keys of each of the four roles; what a role without any gets, [`Publisher::found`] tells.
    pub keys: BTreeMap<String, Vec<PublicKey>>,
    /// How many of its keys a role needs; one where nothing is said.
    pub thresholds: BTreeMap<String, u64>,
}

/// What a publish did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Published {
    /// Name and version.
    pub release: Release,
    /// SHA-256 of its manifest.
    pub digest: Digest,
    /// False where exactly this was published before: nothing was changed but missing files.
    pub fresh: bool,
    /// False where it waits for signatures.
    pub live: bool,
    /// Files that the repository did not have yet.
    pub new_files: usize,
    /// Their bytes.
    pub new_bytes: u64,
    /// Bytes of all files.
    pub total_bytes: u64,
}

/// What was signed anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Resigned {
    /// The role.
    pub role: String,
    /// Its new version.
    pub version: u64,
    /// Its new expiry.
    pub expires: Timestamp,
}

/// Where a change stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Outcome {
    /// Nothing was to be changed.
    Unchanged,
    /// Devices see it.
    Live {
        /// What was signed.
        resigned: Vec<Resigned>,
    },
    /// It waits for signatures; devices see the state before it.
    Waiting {
        /// The file to carry to the next signer.
        request: PathBuf,
        /// What is missing.
        missing: Vec<Missing>,
    },
}

/// Changes a repository in a folder. One at a time works on a key folder, and on a repository.
#[derive(Debug)]
pub struct Publisher {
    repository: PathBuf,
    key_folder: PathBuf,
    signers: Vec<Signer>,
    /// `None` while the first root waits for signatures.
    pinned_root: Option<Vec<u8>>,
    /// Locked while this value lives: the key folder, and the repository where its disk can.
    _locks: (File, Option<File>),
}

impl Publisher {
    /// Begins a repository in the folder `repository`, with the keys of `key_folder`, or a new one where
    /// it has none; every key may sign everything. Errors: as [`Publisher::found`].
    pub fn init(
        repository: &Path,
        key_folder: &Path,
        options: InitOptions,
        now: Timestamp,
    ) -> Result<Self, Reason> {
        let founding = Founding { expiry: options.expiry, ..Founding::default() };
        Ok(Self::found(repository, key_folder, &founding, Vec::new(), now)?.0)
    }

    /// Begins a repository in the folder `repository`. Roles without keys of their own get those of
    /// `key_folder`, and those of `more` as well where no role has keys of its own; or a new one where
    /// there are none. Where other keys must sign, too, it waits for them.
    ///
    /// Errors: `BadRequest` where there is a repository already, where the key folder is another
    /// repository's or inside this one, or where a threshold is more than the keys; `Busy`; `DiskFull`;
    /// `Internal`.
    pub fn found(
        repository: &Path,
        key_folder: &Path,
        founding: &Founding,
        more: Vec<Signer>,
        now: Timestamp,
    ) -> Result<(Self, Outcome), Reason> {
        let refuse = |detail: String| Err(Reason::new(ReasonCode::BadRequest, detail));
        founding.expiry.check()?;
        // Before anything is made, and again when nobody else can begin one.
        refuse_begun(repository)?;
        durable::create_dir_synced(repository)?;
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(key_folder).map_err(failed("make folder", key_folder))?;
        let keys = key_folder.display();
        if real(key_folder)?.starts_with(real(repository)?) {
            return refuse(format!(
                "key folder {keys}: inside the repository, where all the world could read it; name another with --keys"
            ));
        }
        let locks = (lock(key_folder)?, lock_repository(repository)?);
        refuse_begun(repository)?;
        if key_folder.join("seen").exists() || key_folder.join(pending::FILE).exists() {
            return refuse(format!(
                "key folder {keys}: belongs to another repository; name another with --keys"
            ));
        }
        let all_named = TOP_LEVEL.iter().all(|role| founding.keys.contains_key(*role));
        // Where roles have keys of their own, those of their owners are not meant for the others.
        let takes_all = founding.keys.is_empty() && !more.is_empty();
        if keys::files(key_folder)?.is_empty() && !takes_all && !all_named {
            Key::generate()?.save(&key_folder.join("signing.pem"))?;
        }
        let mut unnamed = signers_of(key_folder, Vec::new())?;
        let in_folder = unnamed.len();
        add_signers(&mut unnamed, more);
        let at_hand = if takes_all { &unnamed[..] } else { &unnamed[..in_folder] };
        let root = first_root(founding, at_hand, now)?;
        let signers = unnamed;
        for folder in [layout::METADATA, layout::TARGETS, layout::BLOBS] {
            durable::create_dir_synced(&repository.join(folder))?;
        }
        let mut change = Change::founding();
        change.set("root", root);
        let mut list = roles::first_list();
        roles::renew(&mut list, founding.expiry.targets, now)?;
        change.set("targets", list);
        let (repository, key_folder) = (repository.to_owned(), key_folder.to_owned());
        let mut publisher = Self { repository, key_folder, signers, pinned_root: None, _locks: locks };
        let outcome = publisher.advance(change, None, now)?;
        Ok((publisher, outcome))
    }

    /// Opens a repository that [`Publisher::init`] began. Errors: `BadRequest` where the key folder has
    /// no `root.json`, or where the repository's first root still waits for signatures; `Busy` where
    /// another publisher is at work.
    pub fn open(repository: &Path, key_folder: &Path) -> Result<Self, Reason> {
        let publisher = Self::open_unfinished(repository, key_folder)?;
        if publisher.pinned_root.is_none() {
            let detail = format!(
                "repository {0}: not begun yet, its first root waits for signatures; see `edgewarden repo pending {0}`",
                repository.display()
            );
            return Err(Reason::new(ReasonCode::BadRequest, detail));
        }
        Ok(publisher)
    }

    /// The same, also where the first root still waits for signatures.
    pub fn open_unfinished(repository: &Path, key_folder: &Path) -> Result<Self, Reason> {
        let refuse = |detail: String| Err(Reason::new(ReasonCode::BadRequest, detail));
        if !repository.join(layout::METADATA).is_dir() {
            return refuse(format!(
                "repository {}: there is none; begin one with `edgewarden repo init`",
                repository.display()
            ));
        }
        let root_path = key_folder.join("root.json");
        if !is_there(&root_path)? && !is_there(&key_folder.join(pending::FILE))? {
            return refuse(format!(
                "key folder {}: no root.json; name the folder that `repo init` made with --keys",
                key_folder.display()
            ));
        }
        let locks = (lock(key_folder)?, lock_repository(repository)?);
        let kept = is_there(&root_path)?.then(|| fs::read(&root_path)).transpose();
        let kept = kept.map_err(failed("read", &root_path))?;
        let first = repository.join(layout::metadata("1.root.json"));
        let pinned_root = match (kept, is_there(&first)?) {
            // The founding was interrupted just before its last step, which is done again.
            (Some(_), false) if pending::is_founding(key_folder) => None,
            // Whatever waits here is of a time before the repository was begun, such as from a backup.
            (None, true) => {
                return refuse(format!(
                    "key folder {}: no root.json, but repository {} was begun already; compare its {} with what your devices pin, and put it into the key folder as root.json",
                    key_folder.display(),
                    repository.display(),
                    first.display()
                ));
            }
            (kept, _) => kept,
        };
        let signers = signers_of(key_folder, Vec::new())?;
        let folders =
            [repository.to_owned(), repository.join(layout::METADATA), repository.join(layout::BLOBS)];
        for folder in folders.iter().filter(|folder| folder.is_dir()) {
            durable::remove_temporaries(folder)?;
        }
        let (repository, key_folder) = (repository.to_owned(), key_folder.to_owned());
        let publisher = Self { repository, key_folder, signers, pinned_root, _locks: locks };
        publisher.complete_rotation()?;
        Ok(publisher)
    }

    /// Adds signers to those of the key folder.
    pub fn with_signers(mut self, more: Vec<Signer>) -> Self {
        add_signers(&mut self.signers, more);
        self
    }

    /// The `root.json` that devices of this repository pin.
    pub fn pinned_root(&self) -> PathBuf {
        self.repository.join(layout::metadata("1.root.json"))
    }

    /// Adds the bundle in the folder `bundle_dir`. The same bundle again is no error and changes nothing.
    /// `progress` hears the bytes of all its files done so far. Errors: as [`Publisher::publish_all`].
    pub fn publish(
        &mut self,
        bundle_dir: &Path,
        now: Timestamp,
        progress: OnBytes<'_>,
    ) -> Result<Published, Reason> {
        let (mut published, _) = self.publish_all(&[bundle_dir], None, now, progress)?;
        published.pop().ok_or_else(|| Reason::new(ReasonCode::Internal, "publish: nothing was published"))
    }

    /// Signs again what expires first: timestamp and snapshot, by the keys that are online; and the lists
    /// and the root where less than half of their time is left and the keys at hand suffice. A change
    /// that waits goes on waiting; meanwhile the root stays, which the signatures of the change hang on.
    ///
    /// Errors: as [`Publisher::publish_all`]; `BadRequest` where the keys of the timestamp or the snapshot
    /// are not at hand.
    pub fn refresh(&mut self, now: Timestamp) -> Result<Vec<Resigned>, Reason> {
        let state = self.state()?;
        let waiting = self.waiting(Some(&state))?;
        let mut change = Change::upon(&state, self.roots(&state)?);
        let days = Expiry::of_root(&state.payloads.root);
        let lists = state.lists().map(|(role, _)| role);
        for role in std::iter::once("root").chain(lists) {
            let days = roles::days_of(role, &days);
            let waits =
                waiting.as_ref().is_some_and(|waiting| role == "root" || waiting.file(role).is_some());
            let Some(payload) = state.payload(role) else { continue };
            if waits || !roles::is_half_over(payload, days, now) {
                continue;
            }
            let mut payload = payload.clone();
            roles::renew(&mut payload, days, now)?;
            change.set(role, payload);
            if !change.is_within_reach(role, &self.signers)? {
                change.unset(role);
            }
        }
        let (_, missing) = self.finish(&mut change, Some(&state), now)?;
        if let Some(Missing { role, have, threshold, .. }) = missing.first() {
            let detail = format!(
                "sign {role}: {threshold} keys are needed and {have} of them are at hand; name the folder with the right ones with --keys"
            );
            return Err(Reason::new(ReasonCode::BadRequest, detail));
        }
        self.put_live(&change, Some(&state), now)
    }

    /// Signs everything anew, also what the keys at hand cannot sign alone; the root only where less than half
    /// of its time is left, because every device must walk through all roots. Errors: as
    /// [`Publisher::publish_all`].
    pub fn renew_all(&mut self, now: Timestamp) -> Result<Outcome, Reason> {
        let state = self.state()?;
        let mut change = self.begin(&state)?;
        let days = Expiry::of_root(&state.payloads.root);
        let lists = state.lists().map(|(role, _)| role);
        for role in std::iter::once("root").chain(lists) {
            let Some(payload) = state.payload(role) else { continue };
            let days = roles::days_of(role, &days);
            if role == "root" && !roles::is_half_over(payload, days, now) {
                continue;
            }
            let mut payload = payload.clone();
            roles::renew(&mut payload, days, now)?;
            change.set(role, payload);
        }
        self.advance(change, Some(&state), now)
    }

    /// The repository's verified state. Expiry is not judged: an expired repository is to be mended here.
    fn state(&self) -> Result<State, Reason> {
        let pinned = self.pinned_root.clone().unwrap_or_default();
        let transport = Arc::new(FolderTransport::new(&self.repository));
        let client = RepositoryClient::new(transport, pinned, self.key_folder.join("seen")).at_a_desk();
        State::read(&self.repository, &client)
    }
}

/// The first root, with the keys and thresholds that were asked for.
fn first_root(founding: &Founding, signers: &[Signer], now: Timestamp) -> Result<serde_json::Value, Reason> {
    let refuse = |detail: String| Err(Reason::new(ReasonCode::BadRequest, detail));
    let at_hand: Vec<PublicKey> = signers.iter().map(|signer| signer.public().clone()).collect();
    for role in founding.keys.keys().chain(founding.thresholds.keys()) {
        if !TOP_LEVEL.contains(&role.as_str()) {
            return refuse(format!("role {role}: there is none; a root has {}", TOP_LEVEL.join(", ")));
        }
    }
    let mut listed = Vec::new();
    for role in TOP_LEVEL {
        let keys = founding.keys.get(role).unwrap_or(&at_hand);
        let mut distinct: Vec<PublicKey> = Vec::new();
        for key in keys {
            if !distinct.contains(key) {
                distinct.push(key.clone());
            }
        }
        let threshold = founding.thresholds.get(role).copied().unwrap_or(1);
        keyring::check_threshold(role, threshold, distinct.len())?;
        listed.push((role, distinct, threshold));
    }
    let listed = listed.iter().map(|(role, keys, threshold)| (*role, keys.as_slice(), *threshold));
    roles::first_root(listed, &founding.expiry, now)
}

/// The keys of a folder, and these.
fn signers_of(key_folder: &Path, more: Vec<Signer>) -> Result<Vec<Signer>, Reason> {
    let mut signers = keys::load_all(key_folder)?.into_iter().map(Signer::from).collect();
    add_signers(&mut signers, more);
    Ok(signers)
}

fn add_signers(signers: &mut Vec<Signer>, more: Vec<Signer>) {
    for signer in more {
        if signers.iter().all(|known| known.id() != signer.id()) {
            signers.push(signer);
        }
    }
}

/// Refuses to begin a repository where there is one.
fn refuse_begun(repository: &Path) -> Result<(), Reason> {
    if !is_there(&repository.join(layout::metadata("1.root.json")))? {
        return Ok(());
    }
    let detail =
        format!("repository {}: exists already; go on with `edgewarden repo publish`", repository.display());
    Err(Reason::new(ReasonCode::BadRequest, detail))
}

/// The path without links, so that two can be compared.
fn real(path: &Path) -> Result<PathBuf, Reason> {
    Ok(path.canonicalize().map_err(failed("look at", path))?)
}

/// Takes the key folder for this publisher, until the file is dropped.
fn lock(key_folder: &Path) -> Result<File, Reason> {
    let path = key_folder.join("lock");
    let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let mut file = opened.map_err(failed("open", &path))?;
    if file.try_lock().is_err() {
        return Err(busy(&format!("key folder {}", key_folder.display())));
    }
    // For a person who wonders who it is.
    let _ = file.set_len(0).and_then(|()| file.write_all(std::process::id().to_string().as_bytes()));
    Ok(file)
}

/// Takes the repository, which several key folders may belong to; `None` where its disk knows no locks.
pub(super) fn lock_repository(repository: &Path) -> Result<Option<File>, Reason> {
    let folder = File::open(repository).map_err(failed("open", repository))?;
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(TryLockError::WouldBlock) => Err(busy(&format!("repository {}", repository.display()))),
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

fn busy(what: &str) -> Reason {
    Reason::new(ReasonCode::Busy, format!("{what}: another publisher is at work; wait for it"))
}

/// The value of a future over a folder, which never waits for anything; so it needs no runtime and may
/// be asked for inside one.
pub(super) fn at_once<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        std::thread::yield_now();
    }
}
