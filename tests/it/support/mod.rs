//! What the modules share: the binary, temporary configurations, and waiting without sleeping blindly.

pub mod certificates;
pub mod colour_model;
pub mod device;
pub mod ear;
pub mod faulty_web;
pub mod forge;
pub mod light;
pub mod mosquitto;
pub mod operators;
pub mod rough_line;
pub mod secure_web;
pub mod series_model;
pub mod stream;
pub mod web;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Only a guard against a test that hangs for ever; no test passes or fails by how long it takes.
pub const HANG: Duration = Duration::from_secs(120);

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The ONNX Runtime library that `packaging/setup.sh` fetches, or the one that the environment names.
pub fn onnxruntime() -> PathBuf {
    std::env::var_os("EDGEWARDEN_ONNXRUNTIME")
        .map_or_else(|| root().join(".deps/onnxruntime/libonnxruntime.so"), PathBuf::from)
}

/// Compiles a library in C from the repository, with `-D…` for what it is to know.
pub fn compile_library(source: &str, to: &Path, defines: &[String]) {
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-pthread", "-o"])
        .arg(to)
        .args(defines)
        .arg(root().join(source))
        .status()
        .expect("run cc, which packaging/setup.sh asks for");
    assert!(compiled.success());
}

/// The real binary, with an environment that the machine's own settings do not reach.
pub struct Edgewarden;

/// How a run ended and what it said.
#[derive(Debug)]
pub struct Ended {
    /// Exit status; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Edgewarden {
    /// The binary of this build.
    pub fn path() -> &'static Path {
        Path::new(env!("CARGO_BIN_EXE_edgewarden"))
    }

    /// A command that is still to be given its arguments.
    pub fn command() -> Command {
        Self::command_of(Self::path())
    }

    /// The same for another file with the program.
    pub fn command_of(program: &Path) -> Command {
        let mut command = Command::new(program);
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("EDGEWARDEN_"))
        {
            command.env_remove(name);
        }
        command.env("EDGEWARDEN_ONNXRUNTIME", onnxruntime()).stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub fn run<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(arguments: I) -> Ended {
        let output = Self::command().args(arguments).output().expect("start the binary");
        Ended {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("standard output is text"),
            stderr: String::from_utf8(output.stderr).expect("standard error is text"),
        }
    }
}

/// An `agent.toml` in a folder of its own, which goes with the value.
pub struct Config {
    folder: tempfile::TempDir,
}

impl Config {
    /// A configuration whose state and runtime folders lie in the same folder. `text` must not have a
    /// `[paths]` table.
    pub fn new(text: &str) -> Self {
        let config = Self::raw("");
        let paths = "\n[paths]\nstate = \"state\"\nruntime = \"run\"\n";
        std::fs::write(config.path(), format!("{text}{paths}")).expect("write agent.toml");
        config
    }

    /// A configuration exactly as given.
    pub fn raw(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("make a folder");
        let config = Self { folder };
        std::fs::write(config.path(), text).expect("write agent.toml");
        config
    }

    /// The folder it lies in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The file.
    pub fn path(&self) -> PathBuf {
        self.folder().join("agent.toml")
    }
}

/// Waits until the condition gives a value; panics with `what` after `deadline`.
pub fn wait_until<T>(what: &str, deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < deadline, "waited {deadline:?} for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
