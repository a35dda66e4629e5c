//! The way to the broker: plain, over TLS, or through a web server.

use super::super::tls;
use super::Options;
use crate::config::settings::TlsSettings;
use crate::domain::{Reason, ReasonCode};
use crate::sys::tls::TlsError;
use rumqttc::{Broker, TlsConfiguration, Transport};

/// TLS as the files have it now.
pub(super) fn transport(settings: &TlsSettings, web: bool) -> Result<Transport, TlsError> {
    let config = TlsConfiguration::Rustls(tls::config(settings)?);
    Ok(if web { Transport::Wss(config) } else { Transport::tls_with_config(config) })
}

/// Where the broker is. A web server's address is always that of plain HTTP here; TLS is added by the transport.
pub(super) fn broker(options: &Options) -> Result<Broker, Reason> {
    let Some(path) = &options.web_path else { return Ok((options.host.clone(), options.port).into()) };
    let host = match options.host.contains(':') {
        true => format!("[{}]", options.host),
        false => options.host.clone(),
    };
    Broker::websocket(format!("ws://{host}:{}{path}", options.port)).map_err(|error| {
        let detail = format!("broker {host}:{} below {path}: {error}; check mqtt.url", options.port);
        Reason::new(ReasonCode::BadRequest, detail)
    })
}

pub(super) fn no_tls(options: &Options, error: &TlsError) -> Reason {
    let detail = format!("broker {}:{}: cannot set up TLS: {error}", options.host, options.port);
    Reason::new(ReasonCode::BrokerUnreachable, detail)
}
