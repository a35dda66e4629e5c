//! How a device of the tests is configured.

use super::{PIPELINE, Repository, SLOT};
use crate::support::mosquitto::Mosquitto;
use crate::support::{Edgewarden, onnxruntime};
use std::path::{Path, PathBuf};

/// How a device is configured; begins with a small synthetic camera and a short probation.
#[derive(Clone)]
pub struct Options {
    table: toml::Table,
    pipeline: toml::Table,
    others: Vec<toml::Table>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) broker: Option<String>,
    pub(super) program: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        let text = format!(
            r#"
            [paths]
            state = "state"
            runtime = "run"
            [runtime]
            library = "{}"
            [update]
            probation_frames = 10
            probation_min = "300ms"
            probation_max = "30s"
            max_error_ratio = 0.1
            slow_floor_ms = 5000
            disk_reserve = "1MiB"
            [health]
            interval = "1s"
            "#,
            onnxruntime().display()
        );
        let pipeline = format!(
            r#"
            name = "{PIPELINE}"
            slot = "{SLOT}"
            fps = 20
            source = {{ kind = "synthetic", seed = 7, width = 320, height = 240 }}
            "#
        );
        Self {
            table: text.parse().unwrap(),
            pipeline: pipeline.parse().unwrap(),
            others: Vec::new(),
            environment: Vec::new(),
            broker: None,
            program: Edgewarden::path().to_owned(),
        }
    }
}

impl Options {
    /// A device with this broker and this repository.
    pub fn new(broker: &Mosquitto, repository: &Repository) -> Self {
        Self::default().broker(broker).repository(repository)
    }

    /// Reports to this broker, and hears what it says there.
    pub fn broker(mut self, broker: &Mosquitto) -> Self {
        self.broker = Some(broker.url());
        self.set("mqtt.url", broker.url()).set("mqtt.results_per_second", 1000)
    }

    /// Pulls from this repository.
    pub fn repository(self, repository: &Repository) -> Self {
        let root = repository.publisher.pinned_root();
        self.set("repository.url", repository.web.url())
            .set("repository.root", root.to_str().unwrap())
            .set("repository.stall_timeout", "1s")
            .set("repository.retries", 2)
    }

    /// Sets a key, such as `update.max_boots` or `pipeline.fps`.
    pub fn set(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        let (section, name) = key.split_once('.').expect("SECTION.KEY");
        let table = match section {
            "pipeline" => &mut self.pipeline,
            _ => self.table.entry(section).or_insert(toml::Table::new().into()).as_table_mut().unwrap(),
        };
        table.insert(name.to_owned(), value.into());
        self
    }

    /// Looks at the pictures of a folder.
    pub fn pictures(self, folder: &Path) -> Self {
        let mut source = toml::Table::new();
        source.insert("kind".into(), "folder".into());
        source.insert("path".into(), folder.to_str().unwrap().into());
        self.set("pipeline.source", source)
    }

    /// Looks at the pictures that a shell's script writes one after the other; `$0` in it is the folder.
    pub fn script(self, script: &str, folder: &Path) -> Self {
        let mut source = toml::Table::new();
        source.insert("kind".into(), "command".into());
        source.insert("format".into(), "mjpeg".into());
        let program = ["sh", "-c", script, folder.to_str().unwrap()].map(toml::Value::from);
        source.insert("program".into(), program.to_vec().into());
        self.set("pipeline.source", source)
    }

    pub(super) fn write(&self, folder: &Path) {
        let mut table = self.table.clone();
        let pipelines = [&self.pipeline].into_iter().chain(&self.others);
        let pipelines = pipelines.map(|one| one.clone().into()).collect();
        table.insert("pipeline".into(), toml::Value::Array(pipelines));
        std::fs::write(folder.join("agent.toml"), table.to_string()).unwrap();
    }

    /// Adds a pipeline, as it stands below `[[pipeline]]`.
    pub fn and(mut self, pipeline: &str) -> Self {
        self.others.push(pipeline.parse().expect("a table"));
        self
    }

    /// Starts the daemon from another file.
    pub fn program(mut self, file: &Path) -> Self {
        file.clone_into(&mut self.program);
        self
    }

    /// Gives the daemon an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }
}
