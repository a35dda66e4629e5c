//! TLS of the connection to the broker, from the files that `[mqtt]` names.

use crate::config::settings::TlsSettings;
use crate::sys::tls::{self, TlsError};
use std::sync::Arc;

/// The table of the configuration that the keys belong to.
pub(super) const TABLE: &str = "mqtt";

/// The client's side of a TLS connection: the server's certificate checked, ours shown where there
/// is one.
///
/// # Errors
/// A file that cannot be used, or a system without certificate authorities.
pub(super) fn config(settings: &TlsSettings) -> Result<Arc<rustls::ClientConfig>, TlsError> {
    let authorities = tls::authorities(TABLE, settings.ca_file.as_deref())?;
    let shown = settings.client.as_ref().map(|(chain, key)| (chain.as_path(), key.as_path()));
    Ok(Arc::new(tls::client(TABLE, authorities, shown)?))
}
