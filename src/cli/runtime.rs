//! How the commands that run a model on this machine set up ONNX Runtime.

use crate::domain::Reason;
use crate::domain::manifest::Provider;
use crate::domain::runtime::{RuntimeSettings, Tuning};
use crate::inference::library::find_library;
use std::path::PathBuf;

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
    /// File with the key that opens an encrypted model; may be given several times
    #[arg(long, value_name = "FILE")]
    pub model_key: Vec<PathBuf>,
}

/// A provider by its name.
pub fn provider(text: &str) -> Result<Provider, String> {
    let found = Provider::ALL.into_iter().find(|provider| provider.as_str() == text);
    found.ok_or_else(|| "use tensorrt, cuda, openvino, xnnpack or cpu".to_owned())
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
            // Others may write to that folder, so no graph is believed that lies there.
            tuning: Tuning { save_optimized: Some(false), ..Tuning::default() },
        })
    }
}
