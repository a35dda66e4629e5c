//! Certificates and keys of the connection to the broker, from their files.

use crate::config::settings::TlsSettings;
use crate::domain::{Reason, ReasonCode};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use std::sync::Arc;

/// The client's side of a TLS connection: the server's certificate checked, ours shown where there
/// is one.
///
/// # Errors
/// [`ReasonCode::BadRequest`] for a file that cannot be read or holds no certificate or key.
pub(super) fn config(settings: &TlsSettings) -> Result<Arc<rustls::ClientConfig>, Reason> {
    let bad = |detail: String| Reason::new(ReasonCode::BadRequest, detail);
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, Reason> {
        let unreadable = |error| bad(format!("mqtt.tls: {}: {error}", path.display()));
        let list = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(unreadable)?;
        if list.is_empty() {
            return Err(bad(format!("mqtt.tls: {} holds no PEM certificate", path.display())));
        }
        Ok(list)
    };

    let mut roots = rustls::RootCertStore::empty();
    match &settings.ca_file {
        Some(path) => {
            for certificate in certificates(path)? {
                roots
                    .add(certificate)
                    .map_err(|error| bad(format!("mqtt.tls: {}: {error}", path.display())))?;
            }
        }
        None => {
            // One unreadable certificate among the system's is no reason to stay offline.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(bad("mqtt.tls: the system has no certificate authorities; install ca-certificates or set mqtt.tls.ca_file".to_owned()));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(format!("mqtt.tls: {error}")))?
        .with_root_certificates(roots);
    let config = match &settings.client {
        None => builder.with_no_client_auth(),
        Some((chain, key_file)) => {
            let key = PrivateKeyDer::from_pem_file(key_file)
                .map_err(|error| bad(format!("mqtt.tls: {}: {error}", key_file.display())))?;
            builder
                .with_client_auth_cert(certificates(chain)?, key)
                .map_err(|error| bad(format!("mqtt.tls: {}: {error}", chain.display())))?
        }
    };
    Ok(Arc::new(config))
}
