//! How ONNX Runtime is set up on this device.

use super::manifest::Provider;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// How an inference process sets up the runtime: the device's configuration over the bundle's hints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeSettings {
    /// `libonnxruntime.so`.
    pub library: PathBuf,
    /// In the order of preference; the last that loads wins over none.
    pub providers: Vec<Provider>,
    /// Fail to load rather than run on a later provider than the first.
    pub required: bool,
    /// Threads inside one operator; the bundle's hint or 1 when absent.
    pub intra_threads: Option<usize>,
    /// Writable folder for engines and timing caches.
    pub engine_cache: PathBuf,
}
