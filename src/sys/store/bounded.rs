//! A flush with an end.
//!
//! `sled` 0.34.7 writes from threads of its own, and a flush sleeps until they have. The write of a buffer
//! that was filled up in the middle of a batch notes its failure and wakes nobody
//! (`pagecache/logger.rs`, `exit_reservation`): on a full disk the flush then sleeps for ever. Another
//! flush finds the failure noted and wakes the first. Where that does not help either (a thread of
//! `sled` died), the flush counts as failed, and its thread is left to itself.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// After each of these waits one more flush is begun; after the last, it is given up. A card that is busy
/// with itself takes seconds.
const PATIENCE: [Duration; 6] = [
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
    Duration::from_secs(30),
];

/// What is closed gets so long before it is left to itself.
const CLOSE: Duration = Duration::from_secs(5);

/// Flushes, with an end.
pub(super) fn flush(
    flush: impl Fn() -> Result<(), sled::Error> + Clone + Send + 'static,
) -> Result<(), sled::Error> {
    with_patience(&PATIENCE, flush)
}

/// Drops it, which may flush too; elsewhere where that takes too long.
pub(super) fn let_go<T: Send + 'static>(closed: T) {
    let (done, gone) = channel::<()>();
    let thread = std::thread::Builder::new().name("close".to_owned()).spawn(move || {
        let _done = done;
        // It may assert on what it could not write.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(closed)));
    });
    if thread.is_ok() {
        let _ = gone.recv_timeout(CLOSE);
    }
}

/// `sled` asserts on what it finds after a write that failed.
pub(super) fn unless_it_panics<T>(work: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, sled::Error> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(sled::Error::ReportableBug("the database gave up".to_owned())))
}

fn with_patience(
    patience: &[Duration],
    flush: impl Fn() -> Result<(), sled::Error> + Clone + Send + 'static,
) -> Result<(), sled::Error> {
    let failed = |text: &str| sled::Error::Io(std::io::Error::other(text));
    let (done, flushed) = channel();
    for wait in patience {
        let (flush, done) = (flush.clone(), done.clone());
        let thread = std::thread::Builder::new().name("flush".to_owned()).spawn(move || {
            let end = unless_it_panics(&flush);
            // First of all what it holds of the database: it is to be closed when this one is heard.
            drop(flush);
            let _ = done.send(end);
        });
        thread.map_err(sled::Error::Io)?;
        match flushed.recv_timeout(*wait) {
            Ok(end) => return end,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(failed("the database says nothing")),
        }
    }
    Err(failed("the disk or the database did not answer in time"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Condvar, Mutex};

    const SHORT: [Duration; 3] = [Duration::from_millis(20); 3];

    #[test]
    fn a_flush_that_nobody_wakes_is_woken_by_the_next() {
        let asleep = Arc::new((Mutex::new(0), Condvar::new()));
        let end = with_patience(&[Duration::from_millis(20), Duration::from_secs(60)], move || {
            let mut count = asleep.0.lock().unwrap();
            *count += 1;
            if *count > 1 {
                asleep.1.notify_all();
                return Err(sled::Error::Io(std::io::ErrorKind::StorageFull.into()));
            }
            while *count == 1 {
                count = asleep.1.wait(count).unwrap();
            }
            Err(sled::Error::Io(std::io::ErrorKind::StorageFull.into()))
        });
        let Err(sled::Error::Io(error)) = end else { panic!("{end:?}") };
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    }

    #[test]
    fn one_that_never_ends_or_panics_is_a_fault() {
        let tries = Arc::new(AtomicUsize::new(0));
        let counted = tries.clone();
        let end = with_patience(&SHORT, move || {
            counted.fetch_add(1, Ordering::SeqCst);
            loop {
                std::thread::park();
            }
        });
        assert!(end.unwrap_err().to_string().contains("did not answer in time"));
        assert_eq!(tries.load(Ordering::SeqCst), SHORT.len());
        let panicked = with_patience(&PATIENCE, || panic!("as an assertion would"));
        assert!(panicked.unwrap_err().to_string().contains("gave up"));
        assert!(with_patience(&PATIENCE, || Ok(())).is_ok());
    }
}
