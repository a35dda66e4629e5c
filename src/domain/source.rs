//! What a pipeline looks at.

use super::stream::StreamSettings;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What a capture child reads; the checked form of a pipeline's `source` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SourceSettings {
    /// The built-in camera over a conveyor belt, with known truth.
    Synthetic {
        /// Picks the scene; the same seed gives the same frames.
        seed: u64,
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
    },
    /// The pictures of a folder in the order of their names.
    Folder {
        /// The folder.
        path: PathBuf,
        /// Start again after the last; else end.
        repeat: bool,
    },
    /// What another program reads for us.
    Stream(StreamSettings),
}
