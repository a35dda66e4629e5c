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

/// How one pipeline's frames are brought to its models: the same for every bundle that serves it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Feed {
    /// Prepare the next frame on a second thread while the model runs; absent: where there are two
    /// processors or more.
    pub overlap: Option<bool>,
    /// The part of each picture that is looked at: left, top, width, height as shares of it, 0 to 1;
    /// absent: all of it. Boxes are in pixels of the whole picture all the same.
    pub crop: Option<[f32; 4]>,
}
