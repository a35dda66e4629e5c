//! Work that is in no hurry: it runs on threads of low priority, so that frames go first.
//!
//! An update is checked, hashed and written within milliseconds or minutes, and nobody waits for it; on a
//! small machine the same milliseconds at normal priority come out of the frames' latency. A thread that
//! was lowered cannot be raised again without rights, so these threads are apart from all others.

use crate::domain::{Reason, ReasonCode};
use rustix::process::{getpriority_process, setpriority_process};
use std::sync::OnceLock;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// Not the lowest: on a machine that is always busy, this gets about a tenth of a processor.
const NICE: i32 = 10;

/// Work that was begun. Dropped, it is cancelled at its next wait.
#[derive(Debug)]
pub struct Task<T>(JoinHandle<T>);

impl<T> Task<T> {
    /// Its result; may be waited for again when the wait was dropped.
    ///
    /// # Errors
    /// `Internal` when it panicked.
    pub async fn result(&mut self) -> Result<T, Reason> {
        (&mut self.0).await.map_err(|error| {
            Reason::new(ReasonCode::Internal, format!("work in the background gave up: {error}"))
        })
    }

    /// Cancels it, and waits until all that it held is let go. A file operation under way is not cut.
    pub async fn cancel(mut self) {
        self.0.abort();
        // Cancelled, or ended just before.
        let _ = (&mut self.0).await;
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Begins work on the threads of low priority.
///
/// # Errors
/// `Internal` when there are no threads for it.
pub fn spawn<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<Task<T>, Reason> {
    Ok(Task(threads()?.spawn(work)))
}

/// Begins what may block, on threads of low priority that are there for that. It is not cut when nobody
/// waits for it.
///
/// # Errors
/// `Internal` when there are no threads for it.
pub fn spawn_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Reason> {
    Ok(threads()?.spawn_blocking(work))
}

fn threads() -> Result<&'static Runtime, Reason> {
    static THREADS: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let threads = THREADS.get_or_init(|| {
        Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("background")
            .on_thread_start(|| lower_this_thread(NICE))
            .enable_all()
            .build()
            .map_err(|error| format!("no threads for work in the background: {error}"))
    });
    threads.as_ref().map_err(|detail| Reason::new(ReasonCode::Internal, detail.clone()))
}

/// Begins work on the threads of the caller, to be cancelled in the same way.
pub fn spawn_here<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Task<T> {
    Task(tokio::spawn(work))
}

/// Lowers the thread that calls to this nice value, unless it is lower already. Threads and processes that
/// it starts inherit it.
pub fn lower_this_thread(nice: i32) {
    let lower = getpriority_process(None).map_or(nice, |own| own.max(nice));
    if let Err(error) = setpriority_process(None, lower) {
        tracing::warn!(%error, "a thread for work without hurry runs at normal priority");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn nice() -> i32 {
        getpriority_process(None).unwrap()
    }

    #[tokio::test]
    async fn work_runs_low_with_all_that_it_starts_and_the_caller_stays() {
        let before = nice();
        let mut task = spawn(async {
            let blocking = tokio::task::spawn_blocking(nice).await.unwrap();
            let own = std::thread::spawn(nice).join().unwrap();
            [nice(), blocking, own]
        })
        .unwrap();
        assert_eq!(task.result().await.unwrap(), [NICE.max(before); 3]);
        assert_eq!(nice(), before);
    }

    #[tokio::test]
    async fn cancelled_work_has_let_go_when_that_is_said() {
        for spawned in [spawn as fn(_) -> _, |work| Ok(spawn_here(work))] {
            let held = Arc::new(());
            let holder = held.clone();
            let mut task = spawned(Box::pin(async move {
                std::future::pending::<()>().await;
                drop(holder);
            }))
            .unwrap();
            let wait = tokio::time::timeout(std::time::Duration::from_millis(10), task.result());
            assert!(wait.await.is_err());
            task.cancel().await;
            assert_eq!(Arc::strong_count(&held), 1);
        }
    }

    #[tokio::test]
    async fn a_panic_is_told() {
        let mut task = spawn(async { panic!("broken") }).unwrap();
        let reason: Reason = task.result().await.map(|(): ()| ()).unwrap_err();
        assert_eq!(reason.code, ReasonCode::Internal);
    }
}
