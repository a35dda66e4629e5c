//! `edgewarden bundle`: making and examining bundles.

mod check;
mod golden;
mod init;
mod seal;
mod show;
pub mod verify;

use super::ui;
use crate::domain::manifest::Provider;
use crate::domain::runtime::RuntimeSettings;
use crate::domain::{Output, Reason};
use crate::inference::library::find_library;
use std::path::PathBuf;

/// Subcommands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Draft a bundle from an ONNX file
    Init(init::Args),
    /// Compare a bundle with its model, run it once, list every fault
    Check(check::Args),
    /// Print what a bundle says of itself
    Show(show::Args),
    /// Take the present answers on some pictures as the golden samples
    Golden(golden::Args),
    /// List the bundle's files anew after one was changed or added
    Seal(seal::Args),
    /// Check a bundle file or a published release against the root that devices pin
    Verify(verify::Args),
}

/// Runs the command.
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init(args) => init::run(args),
        Command::Check(args) => check::run(args),
        Command::Show(args) => show::run(args),
        Command::Golden(args) => golden::run(args),
        Command::Seal(args) => seal::run(args),
        Command::Verify(args) => verify::run(args),
    }
}

/// An answer in few words.
fn told(output: &Output) -> String {
    match (&output.detections[..], &output.classes[..], &output.tensors[..]) {
        ([], [best, ..], _) => format!("{} ({:.3})", best.label, best.score),
        ([], [], tensors) if !tensors.is_empty() => ui::count(tensors.len(), "raw output"),
        (boxes, _, _) => format!("{} {}", boxes.len(), if boxes.len() == 1 { "box" } else { "boxes" }),
    }
}

/// How commands that run a model on this machine set up the runtime.
#[derive(Debug, Clone, clap::Args)]
pub struct RuntimeArgs {
    /// ONNX Runtime library [default: the installed one, or the one of this clone]
    #[arg(long, value_name = "LIB", env = "EDGEWARDEN_ONNXRUNTIME")]
    pub runtime: Option<PathBuf>,
    /// Threads inside one operator [default: the bundle's hint, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub threads: Option<u16>,
    /// Execution providers in the order of preference
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = provider, default_value = "cpu")]
    pub providers: Vec<Provider>,
}

fn provider(text: &str) -> Result<Provider, String> {
    let all = [Provider::TensorRt, Provider::Cuda, Provider::Cpu];
    let found = all.into_iter().find(|provider| provider.as_str() == text);
    found.ok_or_else(|| "use tensorrt, cuda or cpu".to_owned())
}

impl RuntimeArgs {
    /// The settings, with engines of TensorRT cached in the system's temporary folder.
    ///
    /// # Errors
    /// `LoadFailed` when no library is found.
    pub fn settings(&self) -> Result<RuntimeSettings, Reason> {
        Ok(RuntimeSettings {
            library: find_library(self.runtime.as_deref())?,
            providers: self.providers.clone(),
            required: false,
            intra_threads: self.threads.map(usize::from),
            engine_cache: std::env::temp_dir(),
        })
    }
}
