//! What the check sees of the world outside: the broker and the repository.

use super::Finding;
use crate::config::settings::{DeviceSettings, MqttSettings, PathSettings, RepositorySettings};
use crate::domain::Reason;
use crate::mqtt::client::{Connection, Options};
use crate::mqtt::message::State;
use crate::sys::clock::Clock;
use crate::trust::folder::FolderTransport;
use crate::trust::transport::Transport;
use crate::trust::tuf::RepositoryClient;
use crate::update::http::HttpTransport;
use std::sync::Arc;
use std::time::Duration;

/// A broker or a repository that does not answer in this time would not serve a device well.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whether the broker takes a connection with these names and keys.
pub async fn broker(device: &DeviceSettings, settings: Option<&MqttSettings>) -> Finding {
    let Some(settings) = settings else {
        let detail =
            "none configured: the device will report nothing and take no commands; add [mqtt] if it should";
        return Finding::ok("broker", detail);
    };
    let target = format!("{}:{}", settings.host, settings.port);
    match connect(device, settings).await {
        Ok(()) => Finding::ok("broker", format!("{target}: takes the connection")),
        Err(reason) => Finding::fail("broker", reason.detail),
    }
}

async fn connect(device: &DeviceSettings, settings: &MqttSettings) -> Result<(), Reason> {
    // A name of its own: a second connection under the device's name would end the agent's.
    let client_id = format!("{}-check-{}", device.id, std::process::id());
    let (connection, _messages) = Connection::open(Options::of(settings, client_id)?)?;
    let mut state = connection.state();
    let settled = tokio::time::timeout(PATIENCE, state.wait_for(|state| !matches!(state, State::Connecting)));
    let ended = match settled.await {
        Ok(Ok(state)) => match &*state {
            State::Up { .. } => Ok(()),
            State::Down { reason } => Err(reason.clone()),
            State::Connecting => Err(silent(settings)),
        },
        Ok(Err(_)) | Err(_) => Err(silent(settings)),
    };
    connection.close(Duration::from_secs(1)).await;
    ended
}

fn silent(settings: &MqttSettings) -> Reason {
    let text = format!(
        "broker {}:{}: no answer within {} s; check mqtt.url and the network",
        settings.host,
        settings.port,
        PATIENCE.as_secs()
    );
    Reason::new(crate::domain::ReasonCode::Internal, text)
}

/// Whether the pinned root leads to a list of releases that is signed and not expired.
pub async fn repository(paths: &PathSettings, settings: Option<&RepositorySettings>) -> Finding {
    let Some(settings) = settings else {
        let detail =
            "none configured: the device takes no bundles; add [repository] with the root.json to trust";
        return Finding::ok("repository", detail);
    };
    let root = match std::fs::read(&settings.root) {
        Ok(root) => root,
        Err(error) => {
            let remedy = "copy it from the repository's owner (`edgewarden repo init` makes it), or set repository.root";
            return Finding::fail(
                "repository",
                format!("pinned root {}: {error}; {remedy}", settings.root.display()),
            );
        }
    };
    let Some(url) = &settings.url else {
        let detail = format!(
            "none configured: bundles come only from files, verified against {}",
            settings.root.display()
        );
        return Finding::ok("repository", detail);
    };
    let transport: Result<Arc<dyn Transport>, Reason> = match url.scheme() {
        "file" => FolderTransport::from_url(url).map(|transport| Arc::new(transport) as _),
        // What is wrong is to be told, not waited for; a second try passes over a connection that was just closed.
        _ => HttpTransport::new(url, &RepositorySettings { retries: 2, ..settings.clone() })
            .map(|transport| Arc::new(transport) as _),
    };
    let transport = match transport {
        Ok(transport) => transport,
        Err(reason) => return Finding::fail("repository", reason.detail),
    };
    let client = RepositoryClient::forgetful(transport, root);
    let now = Clock::open(paths.state.join("clock")).now();
    match tokio::time::timeout(PATIENCE, client.list(now)).await {
        Ok(Ok(listed)) => Finding::ok("repository", format!("{url}: signed, {} releases", listed.len())),
        Ok(Err(reason)) => Finding::fail("repository", format!("{url}: {reason}")),
        Err(_) => {
            let text = format!(
                "{url}: no answer within {} s; check repository.url and the network",
                PATIENCE.as_secs()
            );
            Finding::fail("repository", text)
        }
    }
}
