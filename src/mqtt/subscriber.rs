//! Somebody who only listens, without an async runtime of its own around it: for a child that reads a
//! sensor's topic. It publishes nothing.

use super::client::{Connection, INCOMING, Options};
use super::login;
use super::message::{Received, State};
use crate::config::settings::TlsSettings;
use crate::domain::source::Broker;
use crate::domain::{Reason, ReasonCode};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

/// Between signs of life.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// A connection that is kept up in the background.
pub struct Subscriber {
    connection: Connection,
    received: mpsc::Receiver<Received>,
    // Last, so that what stands on it goes first.
    runtime: Runtime,
}

impl Subscriber {
    /// Begins to connect, and returns at once. What was published while nobody was connected is lost.
    ///
    /// # Errors
    /// A password or certificate file that cannot be read. A broker that is not there is no error.
    pub fn open(broker: &Broker, topic: &str) -> Result<Self, Reason> {
        // One worker, so that signs of life are sent while nobody reads.
        let runtime =
            Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(|error| {
                Reason::new(ReasonCode::Internal, format!("start the connection to the broker: {error}"))
            })?;
        let options = Options {
            client_id: format!("edgewarden-sensor-{}", uuid::Uuid::new_v4().simple()),
            host: broker.host.clone(),
            port: broker.port,
            web_path: None,
            tls: broker
                .tls
                .as_ref()
                .map(|tls| TlsSettings { ca_file: tls.ca_file.clone(), client: tls.client.clone() }),
            login: login(broker.username.as_ref(), broker.password_file.as_ref())?,
            password_file: broker.password_file.clone(),
            keep_alive: KEEP_ALIVE,
            will: None,
            session: None,
            incoming: INCOMING,
            subscriptions: vec![topic.to_owned()],
        };
        let _inside = runtime.enter();
        let (connection, received) = Connection::open(options)?;
        drop(_inside);
        Ok(Self { connection, received, runtime })
    }

    /// The next message; `None` when none came within `wait`.
    pub fn next(&mut self, wait: Duration) -> Option<Received> {
        let received = &mut self.received;
        self.runtime.block_on(async { tokio::time::timeout(wait, received.recv()).await.ok().flatten() })
    }

    /// Why there is no connection, where one was tried in vain.
    pub fn fault(&self) -> Option<Reason> {
        match &*self.connection.state().borrow() {
            State::Connecting | State::Up { .. } => None,
            State::Down { reason } => Some(reason.clone()),
        }
    }
}
