//! Everything that a device would check of a repository, and what its owner should know besides: roles that
//! run out, files that are missing, damaged, or named by no list. Needs no keys.

use super::deltas;
use super::export;
use super::operators;
use super::publish::at_once;
use super::publish::operators::published;
use super::state::{self, RoleState, State};
use super::transport::OnBytes;
use super::tuf::RepositoryClient;
use crate::bundle::{checked, layout};
use crate::domain::{Digest, Reason, ReasonCode, Release};
use crate::sys::durable::{self, failed};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Note,
    /// Will fail, or fails for some release: to be mended.
    Bad,
    /// A device refuses it, for trust.
    Refused,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is, with the remedy.
    pub detail: String,
}

/// What a check of a repository found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// The roles, where they could be read.
    pub roles: Vec<RoleState>,
    /// Releases that a device takes.
    pub good: Vec<Release>,
    /// Bytes that were held against their signed digest.
    pub bytes: u64,
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
}

impl Audit {
    /// The worst of what was found.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    fn found(&mut self, severity: Severity, detail: String) {
        self.findings.push(Finding { severity, detail });
    }

    /// A refusal of the client, or a failure.
    fn refused(&mut self, reason: &Reason) {
        let severity = if reason.code.is_trust() { Severity::Refused } else { Severity::Bad };
        self.found(severity, reason.to_string());
    }
}

/// Checks the repository in a folder as a device that begins with `root` would (or with the repository's
/// own first one), and that nothing expires within `days`. `progress` hears the bytes read so far.
///
/// # Errors
/// `BadRequest` where there is no repository, and what the disk says; what is wrong with the repository is
/// no error but a finding.
pub fn audit(
    repository: &Path,
    root: Option<&[u8]>,
    days: u32,
    now: Timestamp,
    progress: OnBytes<'_>,
) -> Result<Audit, Reason> {
    let client = export::client(repository, root)?;
    let mut audit = Audit { roles: Vec::new(), good: Vec::new(), bytes: 0, findings: Vec::new() };
    if let Err(reason) = at_once(client.list(now)) {
        audit.refused(&reason);
        // What has only expired can still be looked at.
        if reason.code != ReasonCode::Expired {
            return Ok(audit);
        }
    }
    let state = match State::read(repository, &client) {
        Ok(state) => state,
        Err(reason) => {
            audit.refused(&reason);
            return Ok(audit);
        }
    };
    audit.roles = state.roles()?;
    for role in audit.roles.clone() {
        expiry(&mut audit, &role, days, now);
    }
    let mut named = releases(&mut audit, repository, &client, &state, now, progress)?;
    operators(&mut audit, repository, &state, &mut named);
    orphans(&mut audit, repository, &named)?;
    audit.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Ok(audit)
}

fn expiry(audit: &mut Audit, role: &RoleState, days: u32, now: Timestamp) {
    let Some(expires) = role.expires else { return };
    let left = expires.as_second() - now.as_second();
    // What has expired was found by the client already, but for a delegation.
    let is_old_news = left < 0 && role.paths.is_empty();
    if left >= i64::from(days) * 86_400 || is_old_news {
        return;
    }
    let remedy = match role.role.as_str() {
        "snapshot" | "timestamp" => "run `edgewarden repo refresh`",
        _ => "have it signed with `edgewarden repo refresh --all`",
    };
    let when = expires.strftime("%Y-%m-%d");
    let word = if left < 0 { "expired" } else { "expires" };
    audit.found(Severity::Bad, format!("{} {word} on {when}; {remedy}", role.role));
}

/// Checks every release down to the last byte; gives the files that they name, as paths of the repository.
fn releases(
    audit: &mut Audit,
    repository: &Path,
    client: &RepositoryClient,
    state: &State,
    now: Timestamp,
    progress: OnBytes<'_>,
) -> Result<BTreeSet<String>, Reason> {
    let (mut named, mut known) = (BTreeSet::new(), BTreeMap::new());
    let mut looked = BTreeSet::new();
    let listed: Vec<(String, Release, Option<Digest>)> = state
        .lists()
        .flat_map(|(role, list)| {
            state::releases(list)
                .map(|(release, entry)| (role.to_owned(), release, state::digest_of(entry)))
                .collect::<Vec<_>>()
        })
        .collect();
    for (role, release, digest) in listed {
        let signed = match at_once(client.resolve(&release, now)) {
            Ok(signed) => signed,
            Err(reason) => {
                // An expired repository is told once.
                if reason.code != ReasonCode::Expired {
                    audit.refused(&reason);
                }
                if let Some(digest) = digest {
                    named.insert(layout::manifest(&release, &digest));
                }
                match at_once(client.resolve(&release, Timestamp::MIN)) {
                    Ok(signed) => signed,
                    Err(_) => continue,
                }
            }
        };
        let signed = signed.get();
        if digest != Some(signed.digest) {
            audit.found(
                Severity::Note,
                format!("release {release}: no device takes that of {role}; another list comes before it"),
            );
        }
        named.insert(layout::manifest(&release, &signed.digest));
        let mut whole = true;
        for file in &signed.manifest.files {
            let name = layout::blob(&file.sha256);
            let fault = known.entry(name.clone()).or_insert_with(|| {
                let path = repository.join(&name);
                let done = audit.bytes;
                let opened = File::open(&path).map_err(|error| format!("{}: {error}", path.display()));
                let copied = opened.and_then(|mut file_at| {
                    let told = |bytes| progress(done + bytes);
                    let (digest, size) = (&file.sha256, file.size);
                    let out = &mut std::io::sink();
                    checked::copy(&name, &mut file_at, digest, size, out, &told)
                        .map_err(|reason| reason.detail)
                });
                audit.bytes += file.size;
                copied.err()
            });
            if let Some(fault) = fault {
                whole = false;
                let detail =
                    format!("release {release}: {}: {fault}; publish its bundle folder again", file.path);
                audit.findings.push(Finding { severity: Severity::Bad, detail });
            }
            named.insert(name);
        }
        if looked.insert(signed.digest) {
            named.extend(deltas::named(repository, signed));
            for fault in deltas::faults(repository, signed) {
                audit.found(Severity::Bad, format!("{fault}; run `edgewarden repo deltas`"));
            }
        }
        if whole && !audit.good.contains(&release) {
            audit.good.push(release);
        }
    }
    Ok(named)
}

/// The list of those who may command: a device that cannot read it lets nobody.
fn operators(audit: &mut Audit, repository: &Path, state: &State, named: &mut BTreeSet<String>) {
    let targets = &state.payloads.targets;
    named.extend(operators::listed_in(targets).map(|digest| layout::operators(&digest)));
    if let Err(reason) = published(repository, targets) {
        audit.refused(&reason);
    }
    let threshold = audit.roles.iter().find(|role| role.role == "targets").map_or(1, |role| role.threshold);
    if threshold > 1 && operators::listed_in(targets).is_none() {
        let detail = "releases need several signatures and no operators are listed: nobody can sign commands for \
                      the devices; list some with `edgewarden repo operators set` where commands are signed";
        audit.found(Severity::Note, detail.to_owned());
    }
}

/// Files that no list names, and what an interrupted publisher left.
fn orphans(audit: &mut Audit, repository: &Path, named: &BTreeSet<String>) -> Result<(), Reason> {
    let (mut count, mut bytes) = (0usize, 0u64);
    for folder in [layout::BLOBS, layout::TARGETS, layout::DELTAS] {
        walk(repository, &repository.join(folder), &mut |path, size| {
            if !named.contains(path) {
                count += 1;
                bytes += size;
            }
        })?;
    }
    if count > 0 {
        audit.found(
            Severity::Note,
            format!("{count} files of {bytes} bytes are named by no list: of releases that were taken off, or of a change that waits or was given up"),
        );
    }
    let entries = fs::read_dir(repository).map_err(failed("list", repository))?;
    for entry in entries {
        let name = entry.map_err(failed("list", repository))?.file_name();
        if name.to_string_lossy().starts_with(durable::TEMPORARY) {
            let detail = "a publisher was interrupted; its next run cleans up after it".to_owned();
            audit.found(Severity::Note, detail);
        }
    }
    Ok(())
}

fn walk(root: &Path, folder: &Path, seen: &mut dyn FnMut(&str, u64)) -> Result<(), Reason> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder).map_err(failed("list", folder))? {
        let entry = entry.map_err(failed("list", folder))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(failed("look at", &path))?;
        if kind.is_dir() {
            walk(root, &path, seen)?;
        } else if let Some(name) = path.strip_prefix(root).ok().and_then(Path::to_str) {
            seen(name, entry.metadata().map_or(0, |metadata| metadata.len()));
        }
    }
    Ok(())
}
