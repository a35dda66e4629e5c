//! The session of ours that the library wants to go on with.

use super::INFLIGHT;
use rumqttc::{PersistedAckMode, PersistedSession, SessionStore, SessionStoreError, SessionStoreKey};
use std::future::Future;
use std::pin::Pin;

/// The library keeps its own name for this to itself.
type SessionFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, SessionStoreError>> + Send + 'a>>;

/// A saved session that holds nothing: lets the library go on with what the broker has kept from
/// before a restart. Nothing is lost by it, as our own spool sends again what was not acknowledged,
/// and QoS 2, which would need more, is not used.
#[derive(Debug)]
pub(super) struct BlankSession;

impl SessionStore for BlankSession {
    fn load<'a>(&'a self, key: &'a SessionStoreKey) -> SessionFuture<'a, Option<PersistedSession>> {
        let session = PersistedSession {
            format_version: 1,
            client_id: key.client_id().to_owned(),
            clean_start: false,
            session_expiry_interval: None,
            outgoing_inflight_upper_limit: Some(INFLIGHT),
            ack_mode: PersistedAckMode::Automatic,
            last_pkid: 0,
            last_puback: 0,
            replay: Vec::new(),
            incoming_qos2: Vec::new(),
        };
        Box::pin(async move { Ok(Some(session)) })
    }

    fn save<'a>(
        &'a self,
        _key: &'a SessionStoreKey,
        _session: &'a PersistedSession,
    ) -> SessionFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn clear<'a>(&'a self, _key: &'a SessionStoreKey) -> SessionFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}
