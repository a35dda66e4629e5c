//! File operations and the database from async code: off its threads, and at low priority.
//!
//! Nobody waits for them but those who want something remembered, and each write of the database wakes eight
//! threads of its own. At normal priority a few of them in a row make a frame wait.

use super::background;
use crate::domain::{Reason, ReasonCode};

/// Runs what may block on a [thread of low priority](background) for that.
///
/// # Errors
/// Those of `work`, and `Internal` when it panicked or the runtime ends.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Reason> + Send + 'static,
) -> Result<T, Reason> {
    background::spawn_blocking(work)?
        .await
        .map_err(|error| Reason::new(ReasonCode::Internal, format!("a file operation gave up: {error}")))?
}
