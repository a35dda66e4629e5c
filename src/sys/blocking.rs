//! File operations and the database from async code: off its threads, and at low priority.
//!
//! Nobody waits for them but those who want something remembered, and each write of the database wakes eight
//! threads of its own. At normal priority a few of them in a row make a frame wait.

use super::background;
use crate::domain::{Reason, ReasonCode};
use tokio::sync::oneshot;

/// Runs what may block on a [thread of low priority](background) for that.
///
/// # Errors
/// Those of `work`, and `Internal` when it panicked or the runtime ends.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Reason> + Send + 'static,
) -> Result<T, Reason> {
    let (tell, told) = oneshot::channel();
    // Nobody may be left to hear it.
    run(Box::new(move || drop(tell.send(work())))).await?;
    told.await.unwrap_or_else(|_| Err(gave_up("it gave no result")))
}

/// Of one type, whatever the work: the runtime's code for a task is there once for every type of work.
async fn run(work: Box<dyn FnOnce() + Send>) -> Result<(), Reason> {
    background::spawn_blocking(work)?.await.map_err(|error| gave_up(&error.to_string()))
}

fn gave_up(why: &str) -> Reason {
    Reason::new(ReasonCode::Internal, format!("a file operation gave up: {why}"))
}
