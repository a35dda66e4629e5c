//! From a machine to a device: the agent that is not configured, `edgewarden setup`, credentials, and a
//! machine without certificate authorities.

/// The agent before and beside its configuration.
mod bare;
/// Setup with a person at a terminal.
mod person;
/// Setup by flags alone.
mod writing;

use crate::support::{Edgewarden, Ended, onnxruntime};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The configuration's folder of a machine that nobody has set up: only where things lie is told, in a
/// drop-in, so that nothing outside is touched.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("ew").tempdir().unwrap();
        let machine = Self(folder);
        std::fs::create_dir(machine.path("config.d")).unwrap();
        let text = format!(
            "[paths]\nstate = \"{}\"\nruntime = \"{}\"\n[runtime]\nlibrary = \"{}\"\n[health]\ninterval = \"1s\"\n\
             [update]\nprobation_frames = 10\nprobation_min = \"300ms\"\ndisk_reserve = \"1MiB\"\n",
            machine.path("state").display(),
            machine.path("run").display(),
            onnxruntime().display()
        );
        std::fs::write(machine.path("config.d/00-paths.toml"), text).unwrap();
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path("agent.toml")
    }

    fn drop_in(&self) -> PathBuf {
        self.path("config.d/50-setup.toml")
    }

    /// The drop-in as tables.
    fn written(&self) -> toml::Table {
        std::fs::read_to_string(self.drop_in()).unwrap().parse().unwrap()
    }

    /// A command of this machine.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Edgewarden::command();
        command.args(arguments).arg("--config").arg(self.config());
        command
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        let output = self.command(arguments).output().unwrap();
        Ended {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// `setup` with these flags, and what it says in JSON.
    fn setup(&self, flags: &[&str]) -> (Ended, Value) {
        let ended = self.run(&[&["setup", "--json"], flags].concat());
        let said = serde_json::from_str(&ended.stdout).unwrap_or(Value::Null);
        (ended, said)
    }
}

/// Everything in a folder, with its content.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(contents(&path)),
            false => found.push((path.clone(), std::fs::read(&path).unwrap())),
        }
    }
    found.sort();
    found
}

/// A camera of the machine on which the tests run would be found as well.
fn has_cameras() -> bool {
    let is_camera = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("video"))
    };
    let found = std::fs::read_dir("/dev").unwrap().any(is_camera);
    if found {
        println!("skipped: this machine has cameras of its own");
    }
    found
}
