//! The client of the running agent's socket (see [`crate::agent::local`] for the other side).

use crate::agent::local::INSTALL;
use crate::agent::local::handover::Identity;
use crate::config;
use crate::domain::command::Progress;
use crate::domain::shadow::ShadowWish;
use crate::domain::{Reason, ReasonCode, SlotName};
use anyhow::Context;
use reqwest::StatusCode;
use reqwest::header::CONTENT_LENGTH;
use serde_json::json;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the agent puts its socket when nothing is configured.
const DEFAULT_SOCKET: &str = "/run/edgewarden/agent.sock";

/// Longest line that an agent may send; a status of 16 pipelines is far below.
const MAX_LINE: usize = 4 << 20;

/// The agent itself answers within 10 s, also when its loop is stuck.
const STATUS_TIMEOUT: Duration = Duration::from_secs(15);

/// Which agent is meant.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Which {
    /// The agent's socket [default: agent.sock in the configuration's paths.runtime]
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub socket: Option<PathBuf>,
    /// The agent's configuration [default: /etc/edgewarden/agent.toml where there is one]
    #[arg(long, short, value_name = "FILE", env = "EDGEWARDEN_CONFIG")]
    pub config: Option<PathBuf>,
}

impl Which {
    /// The socket of that agent. A configuration that was asked for must be readable; the default
    /// one need not be.
    pub fn socket(&self) -> anyhow::Result<PathBuf> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        if let Some(config) = &self.config {
            return Ok(config::load(config)?.paths.socket());
        }
        let default = config::load(Path::new(config::DEFAULT_PATH));
        Ok(default.map_or_else(|_| DEFAULT_SOCKET.into(), |settings| settings.paths.socket()))
    }

    /// A client for that agent.
    pub fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::new(self.socket()?)?)
    }
}

/// Talks to one agent.
pub struct Client {
    http: reqwest::Client,
    socket: PathBuf,
}

impl Client {
    /// A client for the socket; nothing is connected yet.
    pub fn new(socket: PathBuf) -> Result<Self, Reason> {
        // The HTTP library wants a provider for TLS even where none is spoken; a second
        // installation is refused, which changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .unix_socket(socket.as_path())
            .no_proxy()
            // None is ever looked at; a machine without certificates must not be a reason to fail.
            .tls_certs_only([])
            .build()
            .map_err(|error| internal(format!("make a client for {}: {error}", socket.display())))?;
        Ok(Self { http, socket })
    }

    /// The answer of `GET /v1/status`.
    pub async fn status(&self) -> Result<serde_json::Value, Reason> {
        let request = self.http.get("http://agent/v1/status").timeout(STATUS_TIMEOUT);
        let response = self.send(request).await?;
        let good = response.status().is_success();
        let body = self.body(response).await?;
        if good {
            serde_json::from_slice(&body).map_err(|error| self.foreign(&error))
        } else {
            Err(self.refusal(&body))
        }
    }

    /// Sends a command (`update`, `rollback`, `abort`) and follows it to its end: `on` sees
    /// every progress, also the last; what it answered with is returned.
    pub async fn command(
        &self,
        name: &str,
        body: &serde_json::Value,
        on: impl FnMut(&Progress) -> anyhow::Result<()>,
    ) -> anyhow::Result<serde_json::Value> {
        let request = self.http.post(format!("http://agent/v1/{name}")).body(body.to_string());
        self.follow(self.send(request).await?, on).await
    }

    /// Installs a bundle file, whose path is absolute: by its path or, where the agent cannot open that file
    /// itself, by handing it over.
    pub async fn install(
        &self,
        file: &Path,
        slot: Option<SlotName>,
        shadow: ShadowWish,
        now: bool,
        on: impl FnMut(&Progress) -> anyhow::Result<()>,
    ) -> anyhow::Result<serde_json::Value> {
        let act = || format!("install {}", file.display());
        let opened = tokio::fs::File::open(file).await.with_context(act)?;
        let found = opened.metadata().await.with_context(act)?;
        if !found.is_file() {
            return Err(Reason::new(ReasonCode::BadRequest, format!("{}: is no file", act())).into());
        }
        let identity = Identity::from(&found);
        let body = json!({ "slot": slot, "file": file, "shadow": shadow, "now": now, "identity": identity });
        let request = self.http.post("http://agent/v1/install").body(body.to_string());
        let response = self.send(request).await?;
        if response.status() != StatusCode::CONFLICT {
            return self.follow(response, on).await;
        }
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        // A header is ASCII; the name is for people only.
        let name: String = name.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).collect();
        let request = self
            .http
            .post("http://agent/v1/install/file")
            .header(INSTALL, json!({ "slot": slot, "name": name, "shadow": shadow, "now": now }).to_string())
            .header(CONTENT_LENGTH, found.len())
            .body(opened);
        self.follow(self.send(request).await?, on).await
    }

    async fn follow(
        &self,
        mut response: reqwest::Response,
        mut on: impl FnMut(&Progress) -> anyhow::Result<()>,
    ) -> anyhow::Result<serde_json::Value> {
        if !response.status().is_success() {
            let body = self.body(response).await?;
            return Err(self.refusal(&body).into());
        }
        let mut line = Vec::new();
        while let Some(bytes) = response.chunk().await.map_err(|error| self.broken(&error))? {
            for part in bytes.split_inclusive(|byte| *byte == b'\n') {
                line.extend_from_slice(part);
                if line.len() > MAX_LINE {
                    return Err(self.foreign(&"a line without end").into());
                }
                if !part.ends_with(b"\n") {
                    continue;
                }
                let progress: Progress =
                    serde_json::from_slice(&line).map_err(|error| self.foreign(&error))?;
                line.clear();
                on(&progress)?;
                match progress {
                    Progress::Executing { .. } => {}
                    Progress::Successful { result } => return Ok(result),
                    Progress::Failed { reason } => return Err(reason.into()),
                }
            }
        }
        Err(self.broken(&"it ended without a result").into())
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, Reason> {
        request.send().await.map_err(|error| self.unreachable(&error))
    }

    async fn body(&self, mut response: reqwest::Response) -> Result<Vec<u8>, Reason> {
        let mut body = Vec::new();
        while let Some(bytes) = response.chunk().await.map_err(|error| self.broken(&error))? {
            body.extend_from_slice(&bytes);
            if body.len() > MAX_LINE {
                return Err(self.foreign(&"an answer without end"));
            }
        }
        Ok(body)
    }

    fn refusal(&self, body: &[u8]) -> Reason {
        match serde_json::from_slice(body) {
            Ok(Progress::Failed { reason }) => reason,
            Ok(Progress::Executing { .. } | Progress::Successful { .. }) => {
                self.foreign(&"a refusal without reason")
            }
            Err(error) => self.foreign(&error),
        }
    }

    /// One line with the remedy, from the cause that the operating system gave.
    fn unreachable(&self, error: &reqwest::Error) -> Reason {
        let socket = self.socket.display();
        let text = match io_cause(error) {
            Some(ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                let remedy =
                    "start it with `systemctl start edgewarden` or `edgewarden run`, or name its --config";
                let text = format!("no agent is running at {socket}; {remedy}");
                return Reason::new(ReasonCode::NotFound, text);
            }
            Some(ErrorKind::PermissionDenied) => {
                format!(
                    "{socket} may only be opened by the agent's user and group; join the group or use sudo"
                )
            }
            _ if error.is_timeout() => {
                format!(
                    "the agent at {socket} does not answer; look at its log with `journalctl -u edgewarden`"
                )
            }
            _ => format!("ask the agent at {socket}: {}", chain(error)),
        };
        internal(text)
    }

    fn broken(&self, cause: &dyn std::fmt::Display) -> Reason {
        internal(format!(
            "the agent at {} broke off ({cause}); what it had begun goes on when it runs again, ask `edgewarden status`",
            self.socket.display()
        ))
    }

    fn foreign(&self, cause: &dyn std::fmt::Display) -> Reason {
        internal(format!(
            "what answers at {} does not speak as this version of edgewarden ({cause}); restart the agent after an upgrade",
            self.socket.display()
        ))
    }
}

fn internal(text: String) -> Reason {
    Reason::new(ReasonCode::Internal, text)
}

fn io_cause(error: &reqwest::Error) -> Option<ErrorKind> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        cause = error.source();
    }
    None
}

fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::local::handover::HandedOver;
    use crate::agent::local::{LocalApi, LocalRequest, Socket, serve};
    use crate::domain::command::Command;
    use std::sync::Arc;
    use tokio::sync::mpsc;
    use tokio_util::sync::CancellationToken;

    /// A socket served for a fake agent, and the commands that come in.
    struct FakeAgent {
        commands: mpsc::Receiver<LocalRequest>,
        client: Client,
        shutdown: CancellationToken,
        server: tokio::task::JoinHandle<Result<(), Reason>>,
        folder: tempfile::TempDir,
    }

    async fn fake_agent() -> FakeAgent {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("run/agent.sock");
        let (sender, commands) = mpsc::channel(4);
        let handed_over = HandedOver::new(folder.path(), 1 << 20, 0);
        let api = LocalApi { commands: sender, metrics: Arc::new(|| "# EOF\n".into()), handed_over };
        let shutdown = CancellationToken::new();
        let server = tokio::spawn({
            let (socket, shutdown) = (socket.clone(), shutdown.clone());
            async move { serve(Socket::bind(&socket)?, api, shutdown).await }
        });
        while !socket.exists() {
            assert!(!server.is_finished(), "the server ended");
            tokio::task::yield_now().await;
        }
        FakeAgent { commands, client: Client::new(socket).unwrap(), shutdown, server, folder }
    }

    fn executing(detail: &str) -> Progress {
        Progress::Executing { detail: detail.into(), fraction: Some(0.5) }
    }

    #[tokio::test]
    async fn a_command_is_followed_to_its_end() {
        let FakeAgent { mut commands, client, shutdown, server, folder } = fake_agent().await;
        let agent = tokio::spawn(async move {
            let LocalRequest { request, replies, .. } = commands.recv().await.unwrap();
            replies.send(executing("fetching")).await.unwrap();
            replies.send(executing("trying")).await.unwrap();
            replies.send(Progress::Successful { result: json!({ "stage": "committed" }) }).await.unwrap();
            request.command
        });
        let mut seen = Vec::new();
        let body = json!({ "slot": "detector", "release": "detector@1.2.0" });
        let result = client
            .command("update", &body, |progress| {
                seen.push(progress.clone());
                Ok(())
            })
            .await
            .unwrap();
        assert_eq!(result, json!({ "stage": "committed" }));
        assert_eq!(seen.len(), 3);
        assert_eq!(seen[1], executing("trying"));
        let command = agent.await.unwrap();
        assert_eq!(
            command,
            Command::Update {
                slot: "detector".parse().unwrap(),
                release: "detector@1.2.0".parse().unwrap(),
                shadow: Default::default(),
                start: Default::default(),
            }
        );
        shutdown.cancel();
        server.await.unwrap().unwrap();
        assert!(!folder.path().join("run/agent.sock").exists(), "the socket goes with the agent");
    }

    #[tokio::test]
    async fn a_failed_command_keeps_its_reason() {
        let FakeAgent { mut commands, client, folder: _folder, .. } = fake_agent().await;
        let refused = Reason::new(ReasonCode::SignatureInvalid, "x.bundle: signed by nobody we know");
        let agent = tokio::spawn({
            let reason = refused.clone();
            async move {
                let request = commands.recv().await.unwrap();
                request.replies.send(Progress::Failed { reason }).await.unwrap();
            }
        });
        let body = json!({ "slot": null, "file": "/media/usb/x.bundle" });
        let error = client.command("install", &body, |_| Ok(())).await.unwrap_err();
        assert_eq!(error.downcast_ref::<Reason>(), Some(&refused));
        assert_eq!(crate::cli::exit::status(&error), crate::cli::exit::REFUSED);
        agent.await.unwrap();
    }

    #[tokio::test]
    async fn an_agent_that_dies_under_way_is_told() {
        let FakeAgent { mut commands, client, folder: _folder, .. } = fake_agent().await;
        let agent = tokio::spawn(async move {
            let request = commands.recv().await.unwrap();
            request.replies.send(executing("fetching")).await.unwrap();
        });
        let error = client.command("rollback", &json!({ "slot": "a" }), |_| Ok(())).await.unwrap_err();
        assert!(error.to_string().contains("the agent is stopping"), "{error}");
        agent.await.unwrap();
        // Nobody takes commands any more.
        let error = client.command("rollback", &json!({ "slot": "a" }), |_| Ok(())).await.unwrap_err();
        assert!(error.to_string().contains("the agent is stopping"), "{error}");
    }

    #[tokio::test]
    async fn bad_requests_are_refused_before_the_agent_hears_of_them() {
        let FakeAgent { mut commands, client, folder: _folder, .. } = fake_agent().await;
        for (name, body) in [
            ("rollback", json!({ "slot": "a/b" })),
            ("rollback", json!({})),
            ("rollback", json!({ "slot": "a", "force": true })),
            ("update", json!({ "slot": "a", "release": "newest" })),
            ("install", json!({ "slot": "a", "file": "relative.bundle" })),
            ("install", json!([1, 2])),
        ] {
            let error = client.command(name, &body, |_| Ok(())).await.unwrap_err();
            let reason = error.downcast_ref::<Reason>().unwrap();
            assert_eq!(reason.code, ReasonCode::BadRequest, "{name} {body}: {reason}");
        }
        assert!(commands.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_full_queue_is_told_and_not_waited_for() {
        let FakeAgent { client, commands, folder: _folder, .. } = fake_agent().await;
        let client = Arc::new(client);
        let waiting: Vec<_> = (0..4)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(
                    async move { client.command("abort", &json!({ "slot": "a" }), |_| Ok(())).await },
                )
            })
            .collect();
        while commands.len() < 4 {
            tokio::task::yield_now().await;
        }
        let error = client.command("abort", &json!({ "slot": "a" }), |_| Ok(())).await.unwrap_err();
        assert_eq!(error.downcast_ref::<Reason>().unwrap().code, ReasonCode::Busy);
        waiting.into_iter().for_each(|task| task.abort());
    }

    #[tokio::test]
    async fn status_gives_the_agents_object() {
        let FakeAgent { mut commands, client, folder: _folder, .. } = fake_agent().await;
        let agent = tokio::spawn(async move {
            let request = commands.recv().await.unwrap();
            assert_eq!(request.request.command, Command::Status);
            let result = json!({ "health": { "state": "ok" } });
            request.replies.send(Progress::Successful { result }).await.unwrap();
        });
        assert_eq!(client.status().await.unwrap()["health"]["state"], "ok");
        agent.await.unwrap();
    }

    #[tokio::test]
    async fn no_agent_gives_one_line_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent.sock");
        let client = Client::new(socket.clone()).unwrap();
        let missing = client.status().await.unwrap_err();
        assert!(
            missing.detail.contains("no agent is running at") && missing.detail.contains("systemctl start")
        );
        // What a killed agent leaves.
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let stale = client.status().await.unwrap_err();
        assert!(stale.detail.contains("no agent is running at"), "{stale}");
    }
}
