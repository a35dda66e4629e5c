//! What is there before setup changes anything: the other files of the configuration, and what an
//! earlier setup wrote.

use super::Args;
use super::plan::{self, Thing};
use crate::cli::exit::Usage;
use crate::config::{self, AsIf, Settings, Surroundings};
use crate::domain::Reason;
use crate::sys::durable::failed;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// The drop-in that setup writes, and the only file of the configuration that it does write.
const DROP_IN: &str = "50-setup.toml";
/// The pinned root and the broker's password, in the configuration's folder.
const ROOT: &str = "root.json";
const PASSWORD: &str = "mqtt-password";
/// Longest file that is read, bytes; a configuration is no longer.
const MAX_FILE: u64 = 1 << 20;

/// What is there.
pub struct Before {
    /// The configuration's main file, which need not be there.
    pub config: PathBuf,
    /// Where the drop-in belongs.
    pub drop_in: PathBuf,
    /// What it says now.
    pub text: Option<String>,
    /// The same in tables; empty where it cannot be read as such.
    pub tables: Table,
    /// What the other files say.
    pub others: Settings,
    /// The device's id in them is the host name.
    unnamed: bool,
}

impl Before {
    /// Reads it all.
    ///
    /// # Errors
    /// The faults of the other files, which would be faults afterwards too.
    pub fn read(config: &Path) -> anyhow::Result<Self> {
        let config = std::path::absolute(config)?;
        let drop_in = config::drop_in(&config, DROP_IN);
        let without = Some(AsIf { file: &drop_in, text: None });
        let here = Surroundings::here();
        let (others, whole) = match config::load_as_if(&config, &here, without) {
            Ok(others) => (others, true),
            // A later drop-in may build on ours: then all that ours says counts as said by nobody else.
            Err(faults) => (bare(config::load_in(&config, &here).map_err(|_| faults)?), false),
        };
        // An id that follows the host name is nobody's decision.
        let renamed = Surroundings { hostname: format!("x{}", here.hostname), ..here };
        let named = |settings: Settings| settings.device.id == others.device.id;
        let unnamed = whole && !config::load_as_if(&config, &renamed, without).is_ok_and(named);
        let text = read(&drop_in)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let tables = text.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default();
        Ok(Self { config, drop_in, text, tables, others, unnamed })
    }

    /// The settings, if the drop-in said this.
    ///
    /// # Errors
    /// [`Usage`] where what is wrong comes from arguments and answers; else the faults of other files.
    pub fn settings_with(&self, text: &str) -> anyhow::Result<Settings> {
        let as_if = AsIf { file: &self.drop_in, text: Some(text) };
        config::load_as_if(&self.config, &Surroundings::here(), Some(as_if)).map_err(|faults| {
            if faults.0.iter().any(|fault| *fault.at.file != *self.drop_in) {
                return faults.into();
            }
            let told: Vec<String> =
                faults.0.iter().map(|fault| format!("{}: {}", fault.key, fault.text)).collect();
            Usage(format!("what was asked for cannot be configured: {}", told.join("; "))).into()
        })
    }

    /// Whether the drop-in is there and no TOML.
    pub fn is_damaged(&self) -> bool {
        self.text.as_deref().is_some_and(|text| text.parse::<Table>().is_err())
    }

    /// Whether the drop-in has something of this table.
    pub fn has(&self, table: &str) -> bool {
        match self.tables.get(table) {
            Some(Value::Array(list)) => !list.is_empty(),
            Some(_) => true,
            None => false,
        }
    }

    /// Whether an earlier setup was told to do without it.
    pub fn declined(&self, thing: Thing) -> bool {
        plan::declined(&self.tables, thing)
    }

    /// Whether nobody gave the device an id yet.
    pub fn is_unnamed(&self) -> bool {
        self.unnamed && self.tables.get("device").and_then(|device| device.get("id")).is_none()
    }

    /// A user name was given, and no password for it anywhere.
    pub fn lacks_password(&self, args: &Args) -> bool {
        let here = self.tables.get("mqtt").and_then(|mqtt| mqtt.get("password_file")).is_some();
        let others = self.others.mqtt.as_ref().is_some_and(|mqtt| mqtt.password_file.is_some());
        args.username.is_some() && args.password_file.is_none() && !here && !others
    }

    /// The only pipeline of the other files that has a source; `None` where they have none.
    ///
    /// # Errors
    /// [`Usage`] where there are several.
    pub fn pipeline_elsewhere(&self) -> Result<Option<String>, Usage> {
        let own = self.others.pipelines.iter().filter(|pipeline| pipeline.source_of == pipeline.name);
        let names: Vec<String> = own.map(|pipeline| pipeline.name.to_string()).collect();
        match names.as_slice() {
            [] => Ok(None),
            [only] => Ok(Some(only.clone())),
            several => Err(Usage(format!(
                "--camera: {} has the pipelines {}; change the source there",
                self.config.display(),
                several.join(", ")
            ))),
        }
    }

    /// Where a pinned root goes.
    pub fn root(&self) -> PathBuf {
        self.config.with_file_name(ROOT)
    }

    /// Where the broker's password goes.
    pub fn password(&self) -> PathBuf {
        self.config.with_file_name(PASSWORD)
    }
}

/// Settings without what setup could have written.
fn bare(settings: Settings) -> Settings {
    Settings { mqtt: None, repository: None, pipelines: Vec::new(), ..settings }
}

/// A file's content, `None` where it is not there.
///
/// # Errors
/// Any other fault, and a file that is too long to be what it should.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, Reason> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error).into()),
        Ok(_) if bytes.len() as u64 > MAX_FILE => {
            let detail = format!("read {}: it is longer than {MAX_FILE} bytes", path.display());
            Err(Reason::new(crate::domain::ReasonCode::BadRequest, detail))
        }
        Ok(_) => Ok(Some(bytes)),
    }
}
