//! The URL of a broker.

use super::file::Node;
use super::read::url;
use super::value::shorten;

/// How it is written.
const EXAMPLE: &str = "mqtt://localhost:1883 or mqtts://broker.example.com";

/// Where a broker is, and the way to it.
#[derive(Debug, Default)]
pub(super) struct BrokerUrl {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: bool,
    /// The path at a web server, where one stands before the broker.
    pub(super) web_path: Option<String>,
}

/// A broker that is reached in any way.
pub(super) fn any_way(node: &Node) -> Result<BrokerUrl, String> {
    let url = url(node, EXAMPLE)?;
    let (usual_port, tls, web) = match url.scheme() {
        "mqtt" => (1883, false, false),
        "mqtts" => (8883, true, false),
        "ws" => (80, false, true),
        "wss" => (443, true, true),
        other => {
            return Err(format!(
                "\"{other}://\" is no way to a broker; write it like {EXAMPLE}, or wss://broker.example.com/mqtt"
            ));
        }
    };
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let path = Some(url.path()).filter(|path| !matches!(*path, "" | "/"));
    if host.is_empty() || (path.is_some() && !web) {
        let written = shorten(url.as_str());
        return Err(format!("\"{written}\" is not just a host and a port; write it like {EXAMPLE}"));
    }
    // What brokers and their proxies are set up with.
    let web_path = web.then(|| path.unwrap_or("/mqtt").to_owned());
    Ok(BrokerUrl { host: host.to_owned(), port: url.port().unwrap_or(usual_port), tls, web_path })
}

/// A broker that is reached without a web server.
pub(super) fn direct(node: &Node) -> Result<BrokerUrl, String> {
    let broker = any_way(node)?;
    if broker.web_path.is_some() {
        return Err("goes through a web server; a topic is read over mqtt:// or mqtts:// only".into());
    }
    Ok(broker)
}
