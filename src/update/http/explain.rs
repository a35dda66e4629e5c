//! What a failed request means, in one sentence with the remedy.

use super::access::{Access, TABLE};
use crate::config::settings::{AccessSettings, ProxySettings};
use crate::domain::{Reason, ReasonCode};
use crate::sys::tls;
use reqwest::StatusCode;
use std::error::Error;
use std::io;
use url::Url;

/// Nobody could be asked.
pub(super) fn failed(access: &Access, url: &Url, error: &reqwest::Error) -> Reason {
    unreachable(url, &why(&access.settings, url, error))
}

fn why(settings: &AccessSettings, url: &Url, error: &reqwest::Error) -> String {
    let told = chain(error);
    if let Some(fault) = tls::fault_in(error) {
        return tls::explain(TABLE, fault);
    }
    let host = url.host_str().unwrap_or_default();
    if told.contains("proxy authorization required") {
        return format!("{}; {LOGIN}", refused_by_proxy(settings));
    }
    if told.contains("tunnel error: unsuccessful") {
        return format!(
            "the proxy does not let this device through to {host}; allow it there, or name the host in \
             repository.no_proxy (NO_PROXY)"
        );
    }
    if told.contains("socks") || told.contains("tunnel error") {
        return format!("{told}; check repository.proxy, its user and its password");
    }
    // The resolver's error has no type of its own.
    if told.contains("dns error") || told.contains("failed to lookup address") {
        let proxy = if matches!(settings.proxy, ProxySettings::Through { .. }) {
            " and repository.proxy"
        } else {
            ""
        };
        return format!(
            "{told}; check the host name in repository.url{proxy}, and the network's name server"
        );
    }
    if is_refused(error) {
        return format!(
            "{told}; nothing listens there: check repository.url, and whether the web server runs"
        );
    }
    format!("{told}; check repository.url and the network")
}

const LOGIN: &str = "set repository.proxy with proxy_username and proxy_password_file";

fn refused_by_proxy(settings: &AccessSettings) -> String {
    let known = matches!(settings.proxy, ProxySettings::Through { login: Some(_), .. });
    let what = if known { "does not take this user and password" } else { "wants a user and a password" };
    format!("the proxy {what} (407 Proxy Authentication Required)")
}

/// The server gave an answer that is not the file.
pub(super) fn answered(access: &Access, url: &Url, status: StatusCode) -> Reason {
    let AccessSettings { tls, token_file, .. } = &access.settings;
    let what = format!("the server answered {status}");
    let text = match status {
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            format!("{}; {LOGIN}", refused_by_proxy(&access.settings))
        }
        StatusCode::UNAUTHORIZED => match token_file {
            Some(file) => format!("{what}: it does not take the token; renew it in {}", file.display()),
            None => format!("{what}: it wants a token; set repository.token_file"),
        },
        StatusCode::FORBIDDEN => format!("{what}: let this device read the repository there"),
        // How nginx asks for one.
        StatusCode::BAD_REQUEST if url.scheme() == "https" && tls.client.is_none() => {
            format!("{what}; check repository.url; it may want a client certificate (repository.cert_file)")
        }
        StatusCode::BAD_REQUEST if url.scheme() == "https" => {
            format!(
                "{what}; check repository.url, and whether it takes the certificate of repository.cert_file"
            )
        }
        StatusCode::TOO_MANY_REQUESTS => {
            format!(
                "{what}: it limits how often it is asked; spread a fleet (update.start_jitter), or ask later"
            )
        }
        _ if status.is_server_error() => format!("{what}; see the web server's log"),
        _ => format!("{what}; check repository.url"),
    };
    unreachable(url, &text)
}

/// A reason to try later or to look at the way.
pub(super) fn unreachable(url: &Url, what: &str) -> Reason {
    Reason::new(ReasonCode::RepositoryUnreachable, format!("fetch {url}: {what}"))
}

fn is_refused(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// An error with its causes: `reqwest` hides them in its `Display`.
pub(super) fn chain(error: &reqwest::Error) -> String {
    let mut text = if error.is_connect() { "cannot connect".to_owned() } else { "failed".to_owned() };
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
