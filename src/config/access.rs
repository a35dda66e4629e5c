//! The keys of `[repository]` that say how it is reached (authority, certificate, token, proxy), and those of
//! TLS, which `[mqtt]` has too.

use super::file::{Node, Section};
use super::settings::{AccessSettings, ProxySettings, TlsSettings};
use super::value::{path, shorten, text};
use std::net::IpAddr;
use url::Url;

/// Entries of `no_proxy`.
const MAX_NO_PROXY: usize = 64;

/// Reads the keys and holds them against the repository's address.
pub fn read(section: &mut Section<'_>, repository: Option<&Url>) -> AccessSettings {
    let at = section.at.clone();
    let tls = tls(section);
    let token_file = section.secret_file("token_file");
    let proxy = proxy(section);
    let scheme = repository.map_or("", Url::scheme);
    let given = tls.ca_file.is_some() || tls.client.is_some();
    if given && scheme != "https" {
        let text = "is without TLS, but certificates are given; write https:// or leave them out";
        section.fault(&at, "url", text);
    }
    if token_file.is_some()
        && scheme != "https"
        && !(scheme == "http" && repository.is_some_and(|url| is_loopback(host_of(url))))
    {
        let text = "would send the token in the clear; write https://, or leave token_file out";
        section.fault(&at, "url", text);
    }
    if proxy != ProxySettings::Environment && !matches!(scheme, "http" | "https") {
        section.fault(&at, "proxy", "is only for a repository.url with https:// or http://; leave it out");
    }
    AccessSettings { tls, token_file, proxy }
}

/// Authority, certificate and key.
pub fn tls(section: &mut Section<'_>) -> TlsSettings {
    let at = section.at.clone();
    let ca_file = section.optional("ca_file", path);
    let (cert_file, key_file) = (section.optional("cert_file", path), section.secret_file("key_file"));
    let missing = |key| {
        section.fault(&at, key, "is missing; a client certificate needs cert_file and key_file");
        None
    };
    let client = match (cert_file, key_file) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (Some(_), None) => missing("key_file"),
        (None, Some(_)) => missing("cert_file"),
    };
    TlsSettings { ca_file, client }
}

/// Whether a host is this machine, by a name or an address that leads nowhere else.
pub fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// The host of a URL, an address without its brackets.
fn host_of(url: &Url) -> &str {
    url.host_str().unwrap_or_default().trim_matches(['[', ']'])
}

fn proxy(section: &mut Section<'_>) -> ProxySettings {
    let at = section.at.clone();
    let named = section.or("proxy", ProxySettings::Environment, proxy_url);
    let user = section.optional("proxy_username", |node| text(node).map(str::to_owned));
    let password = section.secret_file("proxy_password_file");
    let except = section.list("no_proxy", MAX_NO_PROXY, |node| text(node).and_then(host));
    let login = match (user, password) {
        (Some(user), Some(password)) => Some((user, password)),
        (None, None) => None,
        (user, _) => {
            let key = if user.is_some() { "proxy_password_file" } else { "proxy_username" };
            section.fault(&at, key, "is missing; a proxy that asks wants a user and a password");
            None
        }
    };
    match named {
        ProxySettings::Through { url, .. } => {
            ProxySettings::Through { url, login, no_proxy: except.unwrap_or_default() }
        }
        other @ (ProxySettings::Environment | ProxySettings::Direct) => {
            if login.is_some() || except.is_some() {
                let text = "is missing or \"none\"; no_proxy and a login belong to a proxy that is named here \
                            (for one of the environment: NO_PROXY)";
                section.fault(&at, "proxy", text);
            }
            other
        }
    }
}

fn proxy_url(node: &Node) -> Result<ProxySettings, String> {
    let example = "http://proxy.example.com:3128, socks5h://127.0.0.1:1080 or none";
    let written = text(node)?;
    if written == "none" {
        return Ok(ProxySettings::Direct);
    }
    let url: Url = written
        .parse()
        .map_err(|error| format!("\"{}\" is no URL ({error}); write it like {example}", shorten(written)))?;
    if url.password().is_some() || !url.username().is_empty() {
        // Not repeated in the message: it may be a password.
        return Err("names a user or a password, which do not belong in a URL; use proxy_username and \
                    proxy_password_file"
            .into());
    }
    let only_host = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    if !matches!(url.scheme(), "http" | "https" | "socks5" | "socks5h")
        || url.host_str().unwrap_or_default().is_empty()
        || !only_host
    {
        return Err(format!("\"{}\" is no proxy; write it like {example}", shorten(written)));
    }
    Ok(ProxySettings::Through { url, login: None, no_proxy: Vec::new() })
}

/// One host, domain, address or network.
fn host(written: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '/' | '*');
    if written.chars().all(fits) && !written.contains("://") {
        return Ok(written.to_owned());
    }
    Err(format!(
        "\"{}\" is no host; write a host or domain (\"lan.example.com\"), an address or a network \
         (\"10.0.0.0/8\") each",
        shorten(written)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for host in ["localhost", "127.0.0.1", "127.1.2.3", "::1"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["broker", "localhost.example.com", "192.168.1.4", "10.0.0.1", "0.0.0.0", "::", ""] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
