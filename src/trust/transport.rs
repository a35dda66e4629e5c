//! How files of a repository reach us, whatever carries them: HTTP, a folder, a `.bundle` file.

use crate::domain::Reason;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;

/// A boxed future, so that the trait can be used as an object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Called with the number of bytes of the file that have arrived so far.
pub type OnBytes<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// A way to the files of a repository. Nothing it returns is trusted.
pub trait Transport: Send + Sync {
    /// The whole of a small file at `path` below the repository's root, `Ok(None)` when there is
    /// none. More than `max` bytes are refused with `SizeMismatch`.
    fn get<'a>(&'a self, path: &'a str, max: u64) -> BoxFuture<'a, Result<Option<Vec<u8>>, Reason>>;

    /// Brings a large file at `path` into the file `into`, which may hold a first part of it
    /// already. Afterwards it holds exactly `size` bytes and is synced; their digest is the
    /// caller's to check. More than `size` bytes are never written.
    fn download<'a>(
        &'a self,
        path: &'a str,
        size: u64,
        into: &'a Path,
        progress: OnBytes<'a>,
    ) -> BoxFuture<'a, Result<(), Reason>>;
}
