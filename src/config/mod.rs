//! The device's configuration: from `agent.toml` and its drop-ins to checked settings.
//!
//! `file` holds what is written, `value` reads one value, `read` goes through the tables and knows the
//! defaults (the other files those of their tables), `settings` is what the rest of the agent sees;
//! nothing else reads a configuration file.
//! This folder never opens a file that the configuration only names (certificates, root metadata,
//! pictures): whether those are there is asked by `edgewarden check` and by whoever uses them.

pub mod settings;

mod file;
mod motion;
mod pipeline;
mod read;
mod runtime;
mod sensor;
mod source;
mod stream;
mod value;

#[cfg(test)]
mod tests;

pub use file::{Fault, Place};
pub use settings::Settings;
pub use value::say_duration;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the packages put the configuration.
pub const DEFAULT_PATH: &str = "/etc/edgewarden/agent.toml";

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

/// Reads `path` and the drop-ins `config.d/*.toml` beside it in the order of their names, later over
/// earlier: tables key by key, pipelines by name. All faults at once.
pub fn load(path: &Path) -> Result<Settings, ConfigErrors> {
    load_in(path, &Surroundings::here())
}

/// Like [`load`], with the machine's part given.
pub fn load_in(path: &Path, surroundings: &Surroundings) -> Result<Settings, ConfigErrors> {
    // Absolute, so that messages and the paths that count from it hold from any working directory.
    let path: Arc<Path> = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()).into();
    let mut faults = Vec::new();
    let mut files = vec![path.clone()];
    match drop_ins(&path) {
        Ok(found) => files.extend(found),
        Err(fault) => faults.push(fault),
    }
    let mut tree = BTreeMap::new();
    for file in files {
        match read_file(&file).map_err(|fault| vec![fault]).and_then(|text| file::parse(&file, &text)) {
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

fn drop_ins(main: &Path) -> Result<Vec<Arc<Path>>, Fault> {
    let folder = main.parent().unwrap_or(Path::new("/")).join("config.d");
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
                    "; name the file with --config, or begin with a copy of the example agent.toml"
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
