//! File operations from async code, off its threads.

use crate::domain::{Reason, ReasonCode};

/// Runs what may block on a thread for that.
///
/// # Errors
/// Those of `work`, and `Internal` when it panicked or the runtime ends.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Reason> + Send + 'static,
) -> Result<T, Reason> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Reason::new(ReasonCode::Internal, format!("a file operation gave up: {error}"))),
    }
}
