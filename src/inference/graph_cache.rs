//! What was made of a model for this machine: the optimised graph, and the folders of the providers that
//! keep engines of their own.
//!
//! ```text
//! engines/<SHA-256 of the model>/<key>.onnx      the optimised graph
//!                                <key>.json      its size and SHA-256, written last
//!                                tensorrt-<key>/ the provider's own files
//! ```
//!
//! # Who could plant something here
//!
//! The bundle is read-only to a model's process; this folder is not, so what lies here is believed less.
//! A model's process may write only below the folder of its own model's SHA-256 (see `children::infer`):
//! one that was taken over can plant a graph for nobody but itself, which it did not need to. The recorded
//! SHA-256 is against damage and half-written files, and a graph whose bytes are not the recorded ones is
//! taken away and made anew from the bundle. What is loaded is the very bytes that were checked. Where the
//! kernel has no Landlock a process can write to all of the agent's files, and no record here would help.
//!
//! The key holds the runtime's version, the processor with its features, and how the graph was optimised:
//! memory layouts for one processor are wrong or slow on another.
//!
//! Nothing is kept of a model that is encrypted: a graph and an engine hold its weights in plain.

use crate::bundle::{OpenBundle, files};
use crate::domain::manifest::Provider;
use crate::domain::runtime::{Optimization, RuntimeSettings, Tuning};
use crate::domain::{Digest, Manifest, Reason, ReasonCode};
use crate::inference::hardware;
use crate::sys::durable;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

/// Changes with what is written here, so that older files are not read.
const FORMAT: &str = "1";
/// Largest model that is kept a second time, bytes.
const LARGEST: u64 = 1 << 30;
/// Most graphs, and most engine folders, of one model: one for each runtime and setting in use.
const MOST: usize = 4;
/// A draft so old belongs to a process that is dead.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A model's file, and what it is.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFile {
    /// The ONNX file.
    pub path: PathBuf,
    /// Absent for a file that no manifest describes, and for an encrypted one; nothing is kept of such a one.
    pub identity: Option<Identity>,
    /// The content in plain of a file that is encrypted.
    pub secret: Option<Secret>,
}

/// A model that is nowhere but in memory, where it is wiped when the last of these goes.
#[derive(Clone, PartialEq)]
pub struct Secret(Arc<Zeroizing<Vec<u8>>>);

impl Secret {
    /// The ONNX file.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret of {} bytes", self.0.len())
    }
}

/// What tells one model from another.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    /// SHA-256 of the ONNX file.
    pub model: Digest,
    /// SHA-256 over all files of the bundle that it may read besides.
    pub beside: Digest,
    /// Bytes of all of them.
    pub size: u64,
    /// The bundle's folder.
    pub dir: PathBuf,
}

impl From<&Path> for ModelFile {
    fn from(path: &Path) -> Self {
        Self { path: path.to_owned(), identity: None, secret: None }
    }
}

impl ModelFile {
    /// The model of a bundle; an encrypted one in plain, in memory.
    ///
    /// # Errors
    /// As [`OpenBundle::secret_model`].
    pub fn of(bundle: &OpenBundle) -> Result<Self, Reason> {
        let manifest = &bundle.manifest;
        if let Some(bytes) = bundle.secret_model()? {
            let secret = Some(Secret(Arc::new(bytes)));
            return Ok(Self { path: bundle.model(), identity: None, secret });
        }
        let golden = |path: &str| manifest.golden.iter().any(|sample| sample.input == path);
        let read: Vec<_> = manifest.files.iter().filter(|file| !golden(&file.path)).collect();
        let list: Vec<_> = read.iter().map(|file| format!("{} {}", file.path, file.sha256)).collect();
        let identity = digest_of(manifest).map(|model| Identity {
            model,
            beside: files::sha256(list.join("\n").as_bytes()),
            size: read.iter().map(|file| file.size).sum(),
            dir: bundle.dir.clone(),
        });
        Ok(Self { path: bundle.model(), identity, secret: None })
    }
}

/// SHA-256 of a bundle's ONNX file, as its manifest says.
fn digest_of(manifest: &Manifest) -> Option<Digest> {
    manifest.files.iter().find(|file| file.path == manifest.model).map(|file| file.sha256)
}

/// The folder in which a bundle's model may keep what was made of it.
pub fn folder(root: &Path, manifest: &Manifest) -> Option<PathBuf> {
    digest_of(manifest).map(|digest| root.join(digest.to_string()))
}

/// Where the provider keeps its engines: a folder for this model, machine and setting, made when it is not
/// there; for a model without an identity the cache itself. The calibration table is copied into it, where
/// TensorRT looks for it.
///
/// # Errors
/// `Internal` when the folder cannot be written.
pub fn engines(
    provider: Provider,
    model: &ModelFile,
    settings: &RuntimeSettings,
    runtime: &str,
) -> Result<PathBuf, Reason> {
    let Some(identity) = &model.identity else { return Ok(settings.engine_cache.clone()) };
    let graphics = hardware::graphics(Path::new("/"));
    let setting = setting(provider, &settings.tuning)?;
    let key = key(&[FORMAT, runtime, &identity.beside.to_string(), &graphics, &setting]);
    let parent = settings.engine_cache.join(identity.model.to_string());
    let name = format!("{}-{key}", provider.as_str());
    let dir = parent.join(&name);
    std::fs::create_dir_all(&dir).map_err(|error| unwritable(&dir, &error))?;
    if let (Provider::TensorRt, Some(table)) = (provider, &settings.tuning.tensorrt.calibration_table) {
        std::fs::copy(identity.dir.join(table), dir.join(table)).map_err(|error| unwritable(&dir, &error))?;
    }
    prune(&parent, &format!("{}-", provider.as_str()), &name);
    Ok(dir)
}

/// The settings that change what a provider builds.
fn setting(provider: Provider, tuning: &Tuning) -> Result<String, Reason> {
    let written = match provider {
        Provider::TensorRt => serde_json::to_string(&tuning.tensorrt),
        Provider::Cuda => serde_json::to_string(&tuning.cuda),
        Provider::OpenVino => serde_json::to_string(&tuning.openvino),
        Provider::Xnnpack | Provider::Cpu => Ok(String::new()),
    };
    written.map_err(|error| Reason::new(ReasonCode::Internal, format!("engine cache: {error}")))
}

fn key(parts: &[&str]) -> String {
    // Lengths keep two lists apart whose texts run on into each other alike.
    let text: String = parts.iter().map(|part| format!("{}:{part}\n", part.len())).collect();
    files::sha256(text.as_bytes()).to_string()[..32].to_owned()
}

fn unwritable(path: &Path, error: &std::io::Error) -> Reason {
    let path = path.display();
    let detail = format!("engine cache {path}: {error}; it must be a writable folder");
    Reason::new(ReasonCode::Internal, detail)
}

/// The place of one model's optimised graph.
#[derive(Debug, Clone)]
pub struct GraphCache {
    folder: PathBuf,
    key: String,
}

/// What is recorded of a graph.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    size: u64,
    sha256: Digest,
}

impl GraphCache {
    /// The place for this model on this machine; `None` where nothing is to be kept: not wanted, no
    /// identity, too large, or a processor that does not tell its features.
    pub fn of(model: &ModelFile, settings: &RuntimeSettings, runtime: &str) -> Option<Self> {
        let tuning = &settings.tuning;
        let level = tuning.optimization.unwrap_or(Optimization::All);
        let identity = model.identity.as_ref().filter(|identity| identity.size <= LARGEST)?;
        if tuning.save_optimized == Some(false) || level == Optimization::Disabled {
            return None;
        }
        let processor = hardware::processor(Path::new("/"))?;
        let beside = identity.beside.to_string();
        let key = key(&[FORMAT, runtime, &beside, &processor, &format!("{level:?}")]);
        Some(Self { folder: settings.engine_cache.join(identity.model.to_string()), key })
    }

    fn graph(&self) -> PathBuf {
        self.folder.join(format!("{}.onnx", self.key))
    }

    fn record(&self) -> PathBuf {
        self.folder.join(format!("{}.json", self.key))
    }

    /// The kept graph, if it is there and is what was recorded. What is not is taken away.
    pub fn load(&self) -> Option<Vec<u8>> {
        let record = std::fs::read(self.record()).ok()?;
        let checked = serde_json::from_slice::<Record>(&record)
            .map_err(|error| error.to_string())
            .and_then(|record| self.read(&record));
        match checked {
            Ok(bytes) => Some(bytes),
            Err(fault) => {
                tracing::warn!("{}: {fault}; made anew from the bundle", self.graph().display());
                self.forget();
                None
            }
        }
    }

    fn read(&self, record: &Record) -> Result<Vec<u8>, String> {
        let length = std::fs::metadata(self.graph()).map_err(|error| error.to_string())?.len();
        if length != record.size {
            return Err(format!("has {length} bytes, {} were written", record.size));
        }
        let bytes = std::fs::read(self.graph()).map_err(|error| error.to_string())?;
        if files::sha256(&bytes) != record.sha256 {
            return Err("is not what was written".into());
        }
        Ok(bytes)
    }

    /// Takes the graph away.
    pub fn forget(&self) {
        // The record first: a graph without one is not read.
        let _ = std::fs::remove_file(self.record());
        let _ = std::fs::remove_file(self.graph());
    }

    /// Where the runtime is to write a new graph; [`GraphCache::keep`] gives it its name.
    ///
    /// # Errors
    /// `Internal` when the folder cannot be made.
    pub fn draft(&self) -> Result<PathBuf, Reason> {
        std::fs::create_dir_all(&self.folder).map_err(|error| unwritable(&self.folder, &error))?;
        Ok(self.folder.join(format!("{}{}-{}", durable::TEMPORARY, self.key, std::process::id())))
    }

    /// Keeps what the runtime wrote to the draft, and takes away what is oldest. A cut of power between
    /// the steps leaves a graph without a record, which is not read.
    ///
    /// # Errors
    /// `Internal` or `DiskFull`; the draft is gone then.
    pub fn keep(&self, draft: &Path) -> Result<(), Reason> {
        let kept = (|| {
            let (sha256, size) =
                files::sha256_file(draft, LARGEST * 2).map_err(|error| unwritable(draft, &error))?;
            let record = serde_json::to_vec(&Record { size, sha256 })
                .map_err(|error| Reason::new(ReasonCode::Internal, format!("engine cache: {error}")))?;
            durable::sync_file(draft)?;
            durable::rename_synced(draft, &self.graph())?;
            durable::write_atomic(&self.record(), &record)?;
            Ok(())
        })();
        if kept.is_err() {
            let _ = std::fs::remove_file(draft);
            self.forget();
        }
        self.prune();
        kept
    }

    /// Takes away the oldest graphs beyond [`MOST`], and drafts that a dead process left.
    fn prune(&self) {
        let left = |path: &Path| age(path).elapsed().is_ok_and(|age| age > ABANDONED);
        for path in list(&self.folder) {
            if name_of(&path).starts_with(durable::TEMPORARY) && left(&path) {
                let _ = std::fs::remove_file(path);
            }
        }
        let mut records: Vec<_> =
            list(&self.folder).into_iter().filter(|path| name_of(path).ends_with(".json")).collect();
        records.sort_by_key(|path| std::cmp::Reverse(age(path)));
        for record in records.into_iter().skip(MOST).filter(|record| *record != self.record()) {
            let _ = std::fs::remove_file(&record);
            let _ = std::fs::remove_file(record.with_extension("onnx"));
        }
    }
}

/// Takes away the oldest folders of that beginning beyond [`MOST`], never the one named.
fn prune(folder: &Path, beginning: &str, keep: &str) {
    let mut found: Vec<_> =
        list(folder).into_iter().filter(|path| name_of(path).starts_with(beginning)).collect();
    found.sort_by_key(|path| std::cmp::Reverse(age(path)));
    for old in found.into_iter().skip(MOST).filter(|path| name_of(path) != keep) {
        let _ = std::fs::remove_dir_all(old);
    }
}

fn list(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn age(path: &Path) -> SystemTime {
    path.metadata().and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(folder: &Path, key: &str) -> GraphCache {
        GraphCache { folder: folder.to_owned(), key: key.into() }
    }

    fn kept(folder: &Path, key: &str, bytes: &[u8]) -> GraphCache {
        let cache = cache(folder, key);
        let draft = cache.draft().unwrap();
        std::fs::write(&draft, bytes).unwrap();
        cache.keep(&draft).unwrap();
        cache
    }

    #[test]
    fn what_was_kept_is_read_again_and_what_was_changed_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let cache = kept(dir.path(), "k", b"graph");
        assert_eq!(cache.load().unwrap(), b"graph");
        for change in [&b"grapH"[..], b"graph and more", b""] {
            kept(dir.path(), "k", b"graph");
            std::fs::write(cache.graph(), change).unwrap();
            assert_eq!(cache.load(), None, "{change:?}");
            assert!(!cache.graph().exists() && !cache.record().exists());
        }
        kept(dir.path(), "k", b"graph");
        std::fs::write(cache.record(), b"{}").unwrap();
        assert_eq!(cache.load(), None);
        // A graph without its record: the power failed in between.
        kept(dir.path(), "k", b"graph");
        std::fs::remove_file(cache.record()).unwrap();
        assert_eq!(cache.load(), None);
    }

    #[test]
    fn only_so_many_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let draft = |name: &str| std::fs::File::create(dir.path().join(format!(".tmp-{name}"))).unwrap();
        draft("dead").set_modified(SystemTime::now() - 2 * ABANDONED).unwrap();
        draft("at work");
        for at in 0..MOST + 3 {
            kept(dir.path(), &format!("k{at}"), b"graph");
        }
        let names: Vec<_> = list(dir.path()).iter().map(|path| name_of(path)).collect();
        assert_eq!(names.len(), 2 * MOST + 1, "{names:?}");
        assert!(names.contains(&".tmp-at work".to_owned()), "{names:?}");
        assert!(names.contains(&format!("k{}.onnx", MOST + 2)), "the newest stays: {names:?}");
    }

    #[test]
    fn another_machine_runtime_or_setting_is_another_key() {
        let base = key(&["1", "1.31.1", "beside", "avx2", "All"]);
        for other in [["1", "1.31.1", "beside", "avx512", "All"], ["1", "1.30.0", "beside", "avx2", "All"]] {
            assert_ne!(key(&other), base);
        }
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        let mut tuning = Tuning::default();
        let plain = setting(Provider::TensorRt, &tuning).unwrap();
        tuning.tensorrt.fp16 = Some(true);
        assert_ne!(setting(Provider::TensorRt, &tuning).unwrap(), plain);
    }
}
