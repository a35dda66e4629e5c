//! The in-toto statement of a model signature: which files were signed, and how they were listed.
//!
//! The subject's digest is the SHA-256 over the raw digests of the files, one after the other in the order
//! in which the statement lists them: by path, folder by folder.

use super::is_beside;
use crate::bundle::MANIFEST;
use crate::domain::{Digest, Manifest, Reason, ReasonCode};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://model_signing/signature/v1.0";
const METHOD: &str = "files";
const ALGORITHM: &str = "sha256";
/// Most files that a statement may list; a bundle cannot hold so many.
const MAX_FILES: usize = 4096;
/// Faults that are told; the rest is counted.
const TOLD: usize = 3;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    predicate_type: String,
    predicate: serde_json::Value,
}

#[derive(Debug, Serialize, Deserialize)]
struct Subject {
    #[serde(default)]
    name: String,
    digest: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Predicate {
    serialization: Serialization,
    resources: Vec<Resource>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Serialization {
    method: String,
    hash_type: String,
    #[serde(default)]
    allow_symlinks: bool,
    #[serde(default)]
    ignore_paths: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Resource {
    name: String,
    algorithm: String,
    digest: String,
}

/// What was signed.
#[derive(Debug)]
pub struct Statement {
    model: String,
    files: BTreeMap<String, Digest>,
    /// Paths, and folders with all that is below, that the signer left out.
    ignored: Vec<String>,
}

impl Statement {
    /// Reads a statement and checks that it agrees with itself.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let raw: Raw = serde_json::from_slice(json).map_err(|error| format!("no statement: {error}"))?;
        if raw.kind != STATEMENT {
            return Err(format!("a statement of type {:?}; expected {STATEMENT}", cut(&raw.kind)));
        }
        if raw.predicate_type != PREDICATE {
            return Err(format!(
                "a statement with predicate {:?}; expected {PREDICATE}, which version 1 of the format has; sign \
                 the model again with a newer tool",
                cut(&raw.predicate_type)
            ));
        }
        // Only now: another kind of statement has another predicate.
        let predicate: Predicate =
            serde_json::from_value(raw.predicate).map_err(|error| format!("no list of files: {error}"))?;
        let how = &predicate.serialization;
        if how.method != METHOD || how.hash_type != ALGORITHM {
            return Err(format!(
                "files listed by {:?} with {:?}; sign the model with whole files and SHA-256",
                cut(&how.method),
                cut(&how.hash_type)
            ));
        }
        let [subject] = &raw.subject[..] else {
            return Err(format!("{} subjects; expected one", raw.subject.len()));
        };
        if predicate.resources.len() > MAX_FILES {
            return Err(format!("{} files; at most {MAX_FILES}", predicate.resources.len()));
        }
        let mut all = Sha256::new();
        let mut files = BTreeMap::new();
        for resource in predicate.resources {
            let digest = resource.digest.parse::<Digest>().ok().filter(|_| resource.algorithm == ALGORITHM);
            let digest = digest.ok_or_else(|| format!("{:?} has no SHA-256", cut(&resource.name)))?;
            all.update(digest.as_bytes());
            if files.insert(resource.name.clone(), digest).is_some() {
                return Err(format!("{:?} is listed twice", cut(&resource.name)));
            }
        }
        let all = Digest::from_bytes(all.finalize().into()).to_string();
        if subject.digest.get(ALGORITHM) != Some(&all) {
            return Err("its files are not those that its subject stands for".into());
        }
        Ok(Self { model: subject.name.clone(), files, ignored: how.ignore_paths.clone() })
    }

    /// A statement of all files of a bundle.
    pub fn of(manifest: &Manifest) -> Self {
        let files = manifest.plain_files().filter(|file| !is_beside(&file.path));
        Self {
            model: manifest.name.to_string(),
            files: files.map(|file| (file.path.clone(), file.sha256)).collect(),
            ignored: vec![MANIFEST.into(), super::FILE.into()],
        }
    }

    /// It as it is signed.
    pub fn to_json(&self) -> Result<Vec<u8>, Reason> {
        let mut files: Vec<_> = self.files.iter().collect();
        files.sort_by(|(a, _), (b, _)| a.split('/').cmp(b.split('/')));
        let mut all = Sha256::new();
        files.iter().for_each(|(_, digest)| all.update(digest.as_bytes()));
        let resources = files.iter().map(|(name, digest)| Resource {
            name: (*name).clone(),
            algorithm: ALGORITHM.into(),
            digest: digest.to_string(),
        });
        let predicate = Predicate {
            serialization: Serialization {
                method: METHOD.into(),
                hash_type: ALGORITHM.into(),
                allow_symlinks: false,
                ignore_paths: self.ignored.clone(),
            },
            resources: resources.collect(),
        };
        let all = Digest::from_bytes(all.finalize().into()).to_string();
        let written = serde_json::to_value(predicate).and_then(|predicate| {
            serde_json::to_vec(&Raw {
                kind: STATEMENT.into(),
                subject: vec![Subject {
                    name: self.model.clone(),
                    digest: BTreeMap::from([(ALGORITHM.to_owned(), all)]),
                }],
                predicate_type: PREDICATE.into(),
                predicate,
            })
        });
        written.map_err(|error| Reason::new(ReasonCode::Internal, format!("write a statement: {error}")))
    }

    /// Whether these are the files of the bundle.
    ///
    /// # Errors
    /// The first few that were changed, added or left out.
    pub fn compare(&self, manifest: &Manifest) -> Result<(), String> {
        let mut faults = Vec::new();
        let mut missing: BTreeMap<_, _> = self.files.iter().collect();
        for file in manifest.plain_files().filter(|file| !is_beside(&file.path)) {
            match missing.remove(&file.path) {
                Some(digest) if *digest == file.sha256 => {}
                Some(_) => faults.push(format!("{} is not the file that was signed", file.path)),
                None if self.may_be_unsigned(&file.path, manifest) => {}
                None => {
                    let same = self.files.iter().find(|(_, digest)| **digest == file.sha256);
                    let same = same.map(|(name, _)| format!(" (the same was signed as {:?})", cut(name)));
                    faults.push(format!("{} was not signed{}", file.path, same.unwrap_or_default()));
                }
            }
        }
        faults.extend(
            missing.keys().map(|name| format!("{:?} was signed and is not in the bundle", cut(name))),
        );
        let more = faults.len().saturating_sub(TOLD);
        if faults.is_empty() {
            return Ok(());
        }
        faults.truncate(TOLD);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        Err(format!("{}{more}; sign the model again, or take the files that were signed", faults.join("; ")))
    }

    fn may_be_unsigned(&self, path: &str, manifest: &Manifest) -> bool {
        // Answers depend on these, whatever else the manifest says that they are.
        let table = manifest.runtime.tensorrt.calibration_table.as_deref();
        if path == manifest.model || table == Some(path) {
            return false;
        }
        let below = |ignored: &String| {
            let ignored = ignored.trim_end_matches('/');
            path.strip_prefix(ignored).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        manifest.golden.iter().any(|sample| sample.input == path) || self.ignored.iter().any(below)
    }
}

/// A name from outside, short.
fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}
