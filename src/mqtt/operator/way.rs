//! Where the broker is: the URL that an operator writes.

use crate::config::settings::TlsSettings;
use crate::domain::{Reason, ReasonCode};
use std::path::PathBuf;

/// Where the broker is, and who says so.
#[derive(Debug, Clone)]
pub struct Access {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The path of a web server that speaks MQTT there; plain MQTT without.
    pub web_path: Option<String>,
    /// TLS, where the URL asks for it.
    pub tls: Option<TlsSettings>,
    /// User name and password.
    pub login: Option<(String, Vec<u8>)>,
    /// Where that password is read again before each new try.
    pub password_file: Option<PathBuf>,
}

impl Access {
    /// Reads `mqtt://[user[:password]@]host[:port]` or `mqtts://…`, or `ws://[user[:password]@]host[:port][/path]`
    /// or `wss://…` for a broker behind a web server (`/mqtt` where no path is given). `tls` counts for `mqtts` and
    /// `wss` alone: the certificate authorities, those of the system without, and our own certificate.
    ///
    /// # Errors
    /// [`ReasonCode::BadRequest`] for a URL that makes no sense; it is not repeated, as it may hold a password.
    pub fn of_url(url: &str, tls: Option<TlsSettings>) -> Result<Self, Reason> {
        let BrokerUrl { host, port, web_path, tls: wanted, login } = BrokerUrl::parse(url)?;
        let tls = wanted.then(|| tls.unwrap_or_default());
        Ok(Self { host, port, web_path, tls, login, password_file: None })
    }
}

#[derive(Debug, PartialEq, Eq)]
struct BrokerUrl {
    host: String,
    port: u16,
    web_path: Option<String>,
    tls: bool,
    login: Option<(String, Vec<u8>)>,
}

impl BrokerUrl {
    fn parse(text: &str) -> Result<Self, Reason> {
        // The text may hold a password: it is not repeated.
        let bad = |why: &str| {
            Reason::new(ReasonCode::BadRequest, format!("broker URL: {why}; write mqtt://HOST:PORT"))
        };
        let url: url::Url = text.parse().map_err(|error: url::ParseError| bad(&error.to_string()))?;
        let (port, tls, web) = match url.scheme() {
            "mqtt" => (1883, false, false),
            "mqtts" => (8883, true, false),
            "ws" => (80, false, true),
            "wss" => (443, true, true),
            _ => return Err(bad("the scheme is none of mqtt, mqtts, ws and wss")),
        };
        if url.query().is_some() || url.fragment().is_some() {
            return Err(bad("nothing may follow the path"));
        }
        let path = (!matches!(url.path(), "" | "/")).then(|| url.path().to_owned());
        let web_path = match (web, path) {
            // What brokers and their proxies are set up with.
            (true, path) => Some(path.unwrap_or_else(|| "/mqtt".to_owned())),
            (false, None) => None,
            (false, Some(_)) => return Err(bad("a path is for ws and wss alone")),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| bad("no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = url.port().unwrap_or(port);
        let login = (!url.username().is_empty())
            .then(|| (url.username().to_owned(), url.password().unwrap_or_default().as_bytes().to_vec()));
        Ok(Self { host, port, web_path, tls, login })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broker_urls_are_read() {
        let parse = |text| BrokerUrl::parse(text).map(|u| (u.host, u.port, u.tls, u.login));
        assert_eq!(parse("mqtt://broker"), Ok(("broker".into(), 1883, false, None)));
        assert_eq!(parse("mqtts://[::1]"), Ok(("::1".into(), 8883, true, None)));
        let login = Some(("u".to_owned(), b"p".to_vec()));
        assert_eq!(parse("mqtt://u:p@127.0.0.1:1884"), Ok(("127.0.0.1".into(), 1884, false, login)));
        let web = |text| BrokerUrl::parse(text).map(|u| (u.port, u.tls, u.web_path));
        assert_eq!(web("ws://broker"), Ok((80, false, Some("/mqtt".into()))));
        assert_eq!(web("wss://u:p@broker:8443/a/b"), Ok((8443, true, Some("/a/b".into()))));
        assert_eq!(web("mqtts://broker/"), Ok((8883, true, None)));
        let bad = ["broker:1883", "http://x", "mqtt://", "mqtt://b/mqtt", "ws://b/mqtt?a=b", "ws://", ""];
        for bad in bad {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let secret = parse("http://u:secret@x").unwrap_err();
        assert!(!secret.detail.contains("secret"));
    }
}
