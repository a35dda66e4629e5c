//! The device's configuration: from `agent.toml` and its drop-ins to checked settings.
//!
//! `file` holds what is written, `value` reads one value, `read` goes through the tables and knows the
//! defaults (the other files those of their tables), `settings` is what the rest of the agent sees;
//! nothing else reads a configuration file.
//! This folder never opens a file that the configuration only names (certificates, root metadata,
//! pictures): whether those are there is asked by `edgewarden check` and by whoever uses them.

pub mod settings;

pub mod access;
mod broker;
mod commands;
mod events;
mod file;
mod homeassistant;
mod maintenance;
mod motion;
mod pipeline;
mod read;
pub mod remote;
mod runtime;
mod sensor;
mod source;
mod stream;
mod value;

#[cfg(test)]
mod tests;

pub use file::{Fault, Place};
pub use settings::Settings;
pub use value::{say_duration, span};

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the packages put the configuration.
pub const DEFAULT_PATH: &str = "/etc/edgewarden/agent.toml";

/// The folder of the drop-ins, beside the main file.
const DROP_INS: &str = "config.d";

/// Largest configuration file, bytes.
const MAX_FILE: u64 = 1 << 20;

/// Most drop-ins.
const MAX_DROP_INS: usize = 64;

/// All faults of a configuration, in the order of files and lines. Displayed one to a line, as
/// `FILE:LINE: KEY: what is wrong; remedy`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<Fault>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

/// What the machine around the configuration gives to its defaults.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The host name.
    pub hostname: String,
    /// `EDGEWARDEN_ONNXRUNTIME`: the runtime's library.
    pub onnxruntime: Option<PathBuf>,
    /// `CREDENTIALS_DIRECTORY`, set by systemd for a unit with `LoadCredential=`.
    pub credentials: Option<PathBuf>,
}

impl Surroundings {
    /// Those of this process.
    pub fn here() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value: &OsString| !value.is_empty());
        Self {
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            onnxruntime: variable("EDGEWARDEN_ONNXRUNTIME").map(PathBuf::from),
            credentials: variable("CREDENTIALS_DIRECTORY").map(PathBuf::from),
        }
    }
}

/// A drop-in as it might be, to see what would come of it.
#[derive(Debug, Clone, Copy)]
pub struct AsIf<'a> {
    /// Which one; see [`drop_in`].
    pub file: &'a Path,
    /// What it would say; `None`: as if it were not there.
    pub text: Option<&'a str>,
}

/// Reads `path` and the drop-ins `config.d/*.toml` beside it in the order of their names, later over
/// earlier: tables key by key, pipelines by name. All faults at once. No file at the usual place is as an
/// empty one: a device begins without, and `edgewarden setup` writes a drop-in.
pub fn load(path: &Path) -> Result<Settings, ConfigErrors> {
    load_in(path, &Surroundings::here())
}

/// Like [`load`], with the machine's part given.
pub fn load_in(path: &Path, surroundings: &Surroundings) -> Result<Settings, ConfigErrors> {
    load_as_if(path, surroundings, None)
}

/// Like [`load_in`], as if one drop-in were another.
pub fn load_as_if(
    path: &Path,
    surroundings: &Surroundings,
    as_if: Option<AsIf<'_>>,
) -> Result<Settings, ConfigErrors> {
    let path = absolute(path);
    let mut faults = Vec::new();
    let mut files = Vec::new();
    match drop_ins(&path) {
        Ok(found) => files.extend(found),
        Err(fault) => faults.push(fault),
    }
    if let Some(AsIf { file, text }) = as_if {
        files.retain(|found| **found != *file);
        files.extend(text.map(|_| Arc::from(file)));
        files.sort();
    }
    if !(is_absent(&path) && may_be_absent(&path, as_if.is_some())) {
        files.insert(0, path.clone());
    }
    let mut tree = BTreeMap::new();
    for file in files {
        let text = match as_if {
            Some(AsIf { file: other, text: Some(text) }) if *file == *other => Ok(text.to_owned()),
            Some(_) | None => read_file(&file),
        };
        match text.map_err(|fault| vec![fault]).and_then(|text| file::parse(&file, &text)) {
            Ok(over) => file::merge(&mut tree, over),
            Err(more) => faults.extend(more),
        }
    }
    if !faults.is_empty() {
        // What a half-read tree lacks would be reported as missing.
        return Err(ConfigErrors(faults));
    }
    read::settings(&path, tree, surroundings)
}

/// Settings from a text as if it stood in `folder/agent.toml`, without drop-ins.
pub fn from_text(text: &str, folder: &Path, surroundings: &Surroundings) -> Result<Settings, ConfigErrors> {
    let file: Arc<Path> = folder.join("agent.toml").into();
    let tree = file::parse(&file, text).map_err(ConfigErrors)?;
    read::settings(&file, tree, surroundings)
}

/// The path of the drop-in `name` beside the main file `path`.
pub fn drop_in(path: &Path, name: &str) -> PathBuf {
    absolute(path).with_file_name(DROP_INS).join(name)
}

/// The files that make up a configuration, in the order in which they are read.
pub fn files(path: &Path) -> Vec<PathBuf> {
    let main = absolute(path);
    let above = drop_ins(&main).unwrap_or_default();
    let main = Some(main).filter(|main| !is_absent(main));
    main.into_iter().chain(above).map(|file| file.to_path_buf()).collect()
}

/// So that messages, and the paths that count from it, hold from any working directory.
fn absolute(path: &Path) -> Arc<Path> {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()).into()
}

/// A link that leads nowhere is there, and is told.
fn is_absent(main: &Path) -> bool {
    matches!(main.symlink_metadata(), Err(error) if error.kind() == std::io::ErrorKind::NotFound)
}

/// Where a device begins without a file. Any other place was named by somebody, who may have mistyped it.
fn may_be_absent(main: &Path, before_setup: bool) -> bool {
    let usual = Path::new(DEFAULT_PATH);
    let beside_drop_ins = || before_setup || main.with_file_name(DROP_INS).is_dir();
    main == usual || (main.file_name() == usual.file_name() && beside_drop_ins())
}

fn drop_ins(main: &Path) -> Result<Vec<Arc<Path>>, Fault> {
    let folder = main.with_file_name(DROP_INS);
    let fault = |text: String| Fault {
        at: Place { file: folder.as_path().into(), line: 1 },
        key: String::new(),
        text,
    };
    let cannot = |error: std::io::Error| fault(format!("cannot list this folder: {error}"));
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(cannot(error)),
    };
    let mut found: Vec<Arc<Path>> = Vec::new();
    for entry in entries {
        let path = entry.map_err(cannot)?.path();
        // A leading dot hides an editor's swap file.
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.extension().is_some_and(|extension| extension == "toml") && !hidden {
            found.push(path.into());
        }
        if found.len() > MAX_DROP_INS {
            return Err(fault(format!("holds more than {MAX_DROP_INS} drop-ins; join some of them")));
        }
    }
    found.sort();
    Ok(found)
}

fn read_file(path: &Arc<Path>) -> Result<String, Fault> {
    let fault = |text| Fault { at: Place { file: path.clone(), line: 1 }, key: String::new(), text };
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text));
    match read {
        Err(error) => {
            let remedy = match error.kind() {
                std::io::ErrorKind::NotFound => {
                    "; name the file with --config, write one with `edgewarden setup`, or begin with a copy of the \
                     example agent.toml"
                }
                std::io::ErrorKind::PermissionDenied => "; run as a user who may read it",
                std::io::ErrorKind::InvalidData => "; it must be UTF-8 text",
                _ => "",
            };
            Err(fault(format!("cannot read this file: {error}{remedy}")))
        }
        Ok(_) if text.len() as u64 > MAX_FILE => {
            Err(fault(format!("is larger than {MAX_FILE} bytes; this cannot be a configuration")))
        }
        Ok(_) => Ok(text),
    }
}
