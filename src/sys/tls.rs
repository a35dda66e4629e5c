//! TLS as a client: whom to trust and what to show, from files; and what a failed handshake means, in words
//! that name the key to change.

use super::secret;
use crate::domain::Reason;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, RootCertStore};
use std::error::Error as Cause;
use std::io;
use std::path::Path;
use std::sync::Arc;
use x509_cert::der::Decode;

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Nobody to trust: no `ca_file`, and the system has no authorities. The name of the table.
    #[error(
        "{0}: this system has no certificate authorities; apt install ca-certificates, or set {0}.ca_file to the \
         authority's certificate"
    )]
    NoAuthorities(&'static str),
    /// A file that cannot be used.
    #[error("{}", .0.detail)]
    File(Reason),
}

impl From<Reason> for TlsError {
    fn from(reason: Reason) -> Self {
        Self::File(reason)
    }
}

/// The authorities whose certificates are believed: those of the file, else those of the system. `table` is
/// the one of the configuration that has `ca_file`.
///
/// # Errors
/// A file that cannot be read or holds no certificate; a system without any.
pub fn authorities(table: &'static str, ca_file: Option<&Path>) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let key = format!("{table}.ca_file");
            for certificate in certificates(&key, path)? {
                roots.add(certificate).map_err(|error| secret::bad(&key, path, &error.to_string()))?;
            }
        }
        None => {
            // One unreadable certificate among the system's is no reason to stay offline.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(TlsError::NoAuthorities(table));
            }
        }
    }
    Ok(Arc::new(roots))
}

/// The client's side: the server's certificate checked, ours shown where there is one (certificate chain and
/// key).
///
/// # Errors
/// Files that cannot be read, hold no certificate or key, or do not belong together; a key that every user
/// may read.
pub fn client(
    table: &'static str,
    authorities: Arc<RootCertStore>,
    shown: Option<(&Path, &Path)>,
) -> Result<ClientConfig, TlsError> {
    let (cert_key, key_key) = (format!("{table}.cert_file"), format!("{table}.key_file"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| secret::bad(table, Path::new("TLS"), &error.to_string()))?
        .with_root_certificates(authorities);
    let Some((chain, key_file)) = shown else { return Ok(builder.with_no_client_auth()) };
    let pem = secret::read(&key_key, key_file)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        secret::bad(
            &key_key,
            key_file,
            "holds no private key in PEM, or one with a password; write it without",
        )
    })?;
    let config = builder.with_client_auth_cert(certificates(&cert_key, chain)?, key).map_err(|error| {
        let what = match error {
            Error::InconsistentKeys(_) => format!("is not the certificate of the key {}", key_file.display()),
            other => other.to_string(),
        };
        secret::bad(&cert_key, chain, &format!("{what}; renew both together"))
    })?;
    Ok(config)
}

fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Reason> {
    let pem = secret::read_public(key, path)?;
    let list: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| secret::bad(key, path, &format!("is no PEM: {error}")))?;
    if list.is_empty() {
        return Err(secret::bad(key, path, "holds no certificate in PEM"));
    }
    Ok(list)
}

/// When the first certificate of a file ends.
///
/// # Errors
/// A file that cannot be read or holds no certificate.
pub fn ends(key: &str, path: &Path) -> Result<jiff::Timestamp, Reason> {
    let list = certificates(key, path)?;
    let first = list.first().map(|first| x509_cert::Certificate::from_der(first));
    let end = first.and_then(Result::ok).map(|first| first.tbs_certificate.validity.not_after);
    end.and_then(|end| i64::try_from(end.to_unix_duration().as_secs()).ok())
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .ok_or_else(|| secret::bad(key, path, "is no X.509 certificate that can be read"))
}

/// The fault of a handshake somewhere in an error's causes.
pub fn fault_in<'e>(error: &'e (dyn Cause + 'static)) -> Option<&'e Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<Error>() {
            return Some(found);
        }
        // An `io::Error` tells the cause of what is in it, and not that itself.
        cause = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn Cause + 'static)),
            None => error.source(),
        };
    }
    None
}

/// What a failed handshake means, with the remedy; `table` has the keys.
pub fn explain(table: &str, fault: &Error) -> String {
    use AlertDescription as Alert;
    use CertificateError as Bad;
    let (what, remedy) = match fault {
        Error::InvalidCertificate(bad) => match bad {
            Bad::Expired | Bad::ExpiredContext { .. } => (
                "the server's certificate has expired".to_owned(),
                "have it renewed there, or set this machine's clock".to_owned(),
            ),
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => (
                "the server's certificate is not valid yet".to_owned(),
                "set this machine's clock".to_owned(),
            ),
            // The second: signed by somebody of the same name, such as the authority's former key.
            Bad::UnknownIssuer | Bad::BadSignature => (
                "nobody trusted here has signed the server's certificate".to_owned(),
                format!("set {table}.ca_file to its authority, or apt install ca-certificates"),
            ),
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => (
                "the server's certificate is for another host".to_owned(),
                format!("check the host in {table}.url"),
            ),
            Bad::Revoked => {
                ("the server's certificate was revoked".to_owned(), "have it renewed there".to_owned())
            }
            _ => ("the server's certificate is not good".to_owned(), "have it renewed there".to_owned()),
        },
        Error::AlertReceived(Alert::CertificateRequired) => (
            "the server wants a client certificate".to_owned(),
            format!("set {table}.cert_file and {table}.key_file"),
        ),
        Error::AlertReceived(Alert::CertificateExpired) => (
            "the server says that this device's certificate has expired".to_owned(),
            format!("renew {table}.cert_file and {table}.key_file"),
        ),
        Error::AlertReceived(
            Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateUnknown
            | Alert::AccessDenied
            | Alert::DecryptError,
        ) => (
            "the server does not take this device's certificate".to_owned(),
            format!("check {table}.cert_file, and whom the server trusts"),
        ),
        Error::AlertReceived(Alert::HandshakeFailure) => (
            "the server ended the handshake".to_owned(),
            format!("it may want a client certificate ({table}.cert_file), or know no TLS 1.2"),
        ),
        Error::InvalidMessage(_) => {
            ("the server does not speak TLS there".to_owned(), format!("check the port in {table}.url"))
        }
        _ => ("no TLS connection".to_owned(), format!("check {table}.url")),
    };
    format!("{what} ({fault}); {remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_found_below_other_errors_and_names_its_key() {
        let expired = Error::InvalidCertificate(CertificateError::Expired);
        let inner = io::Error::new(io::ErrorKind::InvalidData, expired.clone());
        let outer = io::Error::other(inner);
        assert_eq!(fault_in(&outer), Some(&expired));
        assert_eq!(fault_in(&io::Error::other("something else")), None);
        for (fault, wanted) in [
            (expired, "has expired"),
            (Error::InvalidCertificate(CertificateError::UnknownIssuer), "set mqtt.ca_file"),
            (Error::InvalidCertificate(CertificateError::NotValidForName), "check the host in mqtt.url"),
            (
                Error::AlertReceived(AlertDescription::CertificateRequired),
                "set mqtt.cert_file and mqtt.key_file",
            ),
            (Error::AlertReceived(AlertDescription::UnknownCA), "does not take this device's certificate"),
        ] {
            let text = explain("mqtt", &fault);
            assert!(text.contains(wanted) && text.contains("; "), "{text}");
        }
    }
}
