//! `[mqtt]`: the broker, and the files with the secrets for it.

use super::Surroundings;
use super::file::{Node, Section};
use super::read::{secs, url};
use super::settings::{MqttSettings, TlsSettings};
use super::value::{duration, number, parsed, path, shorten, text};
use crate::domain::DeviceId;
use std::path::PathBuf;

/// Host, port, and whether TLS is wanted.
pub(super) fn broker(node: &Node) -> Result<(String, u16, bool), String> {
    let example = "mqtt://localhost:1883 or mqtts://broker.example.com";
    let url = url(node, example)?;
    let tls = match url.scheme() {
        "mqtt" => false,
        "mqtts" => true,
        other => return Err(format!("\"{other}://\" is no way to a broker; write it like {example}")),
    };
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || !matches!(url.path(), "" | "/") {
        return Err(format!(
            "\"{}\" is not just a host and a port; write it like {example}",
            shorten(url.as_str())
        ));
    }
    Ok((host.to_owned(), url.port().unwrap_or(if tls { 8883 } else { 1883 }), tls))
}

/// `[mqtt]`.
pub(super) fn mqtt(mut section: Section<'_>, around: &Surroundings) -> Option<MqttSettings> {
    let at = section.at.clone();
    let broker = section.required("url", "\"mqtt://localhost:1883\"", broker);
    let username = section.optional("username", |node| text(node).map(str::to_owned));
    let password_file = section.optional("password_file", |node| secret_file(node, around));
    if password_file.is_some() && username.is_none() {
        section.fault(&at, "username", "is missing; a password needs the user name that it belongs to");
    }
    let keep_alive = section.or("keep_alive", secs(30), duration(secs(5)..=secs(3600)));
    let root = section.or("root", "edgewarden".to_owned(), |node| {
        parsed::<DeviceId>(node).map(String::from).map_err(|_| {
            "must be one level of a topic: letters, digits, '-', '_', '.', no '/', '+' or '#'".into()
        })
    });
    let results_per_second = section.or("results_per_second", 5.0, number(0.0..=1000.0));
    let ca_file = section.optional("ca_file", path);
    let cert_file = section.optional("cert_file", path);
    let key_file = section.optional("key_file", |node| secret_file(node, around));
    let client = match (cert_file, key_file) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (Some(_), None) => {
            section.fault(&at, "key_file", "is missing; a client certificate needs cert_file and key_file");
            None
        }
        (None, Some(_)) => {
            section.fault(&at, "cert_file", "is missing; a client certificate needs cert_file and key_file");
            None
        }
    };
    let tls = broker.as_ref().and_then(|(_, _, tls)| {
        tls.then(|| TlsSettings { ca_file: ca_file.clone(), client: client.clone() })
    });
    if broker.is_some() && tls.is_none() && (ca_file.is_some() || client.is_some()) {
        section.fault(
            &at,
            "url",
            "is without TLS, but certificates are given; write mqtts:// or leave them out",
        );
    }
    section.finish();
    let (host, port, _) = broker?;
    Some(MqttSettings { host, port, tls, username, password_file, keep_alive, root, results_per_second })
}

/// A file with a secret: a path, or `credential:NAME` for one that systemd hands over.
fn secret_file(node: &Node, around: &Surroundings) -> Result<PathBuf, String> {
    let Some(name) = text(node)?.strip_prefix("credential:") else { return path(node) };
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err(
            "is no credential; write credential:NAME with the name in LoadCredential= of the unit".into()
        );
    }
    // Outside of the unit (`edgewarden check` run by hand) the variable is not set, but the place is known.
    let folder = around.credentials.clone().unwrap_or_else(|| "/run/credentials/edgewarden.service".into());
    Ok(folder.join(name))
}
