//! Carries the library's wishes to our transport.

use super::one_id_a_key;
use crate::bundle::layout;
use crate::domain::{Reason, ReasonCode};
use crate::trust::transport::Transport;
use sigstore_tuf::{Error, Repository};
use std::sync::{Arc, Mutex, PoisonError};

/// What the library does not keep of a fetch.
#[derive(Default)]
pub(super) struct Notes {
    /// Why the transport failed.
    pub(super) fault: Option<Reason>,
    /// The file that was fetched last.
    pub(super) newest: String,
}

/// The library's way to our transport.
pub(super) struct Carrier {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) notes: Arc<Mutex<Notes>>,
}

impl Carrier {
    async fn get(&self, path: String, max: u64) -> sigstore_tuf::Result<Option<Vec<u8>>> {
        let got = self.transport.get(&path, max).await.and_then(|bytes| match bytes {
            Some(bytes) if bytes.len() as u64 > max => Err(Reason::new(
                ReasonCode::SizeMismatch,
                format!("{path}: {} bytes, more than the {max} allowed", bytes.len()),
            )),
            Some(bytes) => one_id_a_key(&bytes, &path).map(|()| Some(bytes)),
            None => Ok(None),
        });
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.newest = path;
        got.map_err(|reason| {
            let error = Error::transport(reason.detail.clone());
            notes.fault = Some(reason);
            error
        })
    }
}

impl Repository for Carrier {
    fn fetch_metadata<'a>(&'a self, name: &'a str, max: u64) -> sigstore_tuf::transport::FetchFuture<'a> {
        Box::pin(self.get(layout::metadata(name), max))
    }

    fn fetch_target<'a>(&'a self, path: &'a str, max: u64) -> sigstore_tuf::transport::FetchFuture<'a> {
        Box::pin(self.get(format!("{}/{path}", layout::TARGETS), max))
    }
}
