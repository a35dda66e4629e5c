//! The agent's local door: HTTP over a Unix socket for people on the machine, and the metrics for
//! Prometheus, on the same socket and, where configured, on a port.
//!
//! It knows commands and their progress, not how they are carried out: requests go into a bounded
//! channel and each brings the channel for its replies. Who may open the socket (its owner and its
//! group) may command; the port gives metrics and nothing else.
//!
//! | | |
//! | --- | --- |
//! | `GET /v1/status` | one JSON object |
//! | `POST /v1/install` `{"slot"?, "file", "shadow"?, "now"?, "identity"?}` | [`Progress`], one JSON object a line, until it has ended; with an [`Identity`], 409 where the agent cannot open that file |
//! | `POST /v1/install/file`, header `edgewarden-install: {"slot"?, "name", "shadow"?, "now"?}`, the file as the body | the same, for a file that the agent cannot open |
//! | `POST /v1/update` `{"slot", "release", "shadow"?, "now"?}` | the same; `shadow` as in [`ShadowWish`]; `now` waits for nothing |
//! | `POST /v1/rollback` `{"slot"}`, `POST /v1/abort` `{"slot"}` | the same |
//! | `POST /v1/pause` `{"pipeline"?}`, `POST /v1/resume` `{"pipeline"?}` | the same |
//! | `POST /v1/look` `{"command", …}`: `logs`, `identify`, `diagnose`, `audit` and their like | the same |
//! | `GET /metrics` | OpenMetrics text |
//!
//! A client that goes away does not stop its command: an update is stopped with `abort`.

use self::handover::{HandedOver, Identity};
use crate::domain::authority::{Role, role};
use crate::domain::command::{Command, Progress, Request};
use crate::domain::maintenance::StartWish;
use crate::domain::shadow::ShadowWish;
use crate::domain::{CommandId, PipelineName, Reason, ReasonCode, Release, SlotName};
use axum::body::{Body, Bytes};
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::{IncomingStream, Listener};
use axum::{Router, serve as http_serve};
use serde::Deserialize;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// Largest request body, bytes; the longest path fits many times.
const MAX_BODY: usize = 64 << 10;

/// Open connections at most on each listener; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 16;

/// Replies that may wait for a slow client; the agent drops what does not fit, except the last.
pub const REPLY_QUEUE: usize = 64;

/// The agent answers a status at once; longer means that its loop is stuck.
const STATUS_TIMEOUT: Duration = Duration::from_secs(10);

/// What open connections get to end after the shutdown.
const DRAIN: Duration = Duration::from_secs(2);

/// The header that says what to do with a file that is handed over, in JSON.
pub const INSTALL: &str = "edgewarden-install";

/// Gives the metrics as OpenMetrics text.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

/// A command from this machine, and where its progress goes.
#[derive(Debug)]
pub struct LocalRequest {
    /// What to do, with an id of its own.
    pub request: Request,
    /// Takes any number of `Executing`, then one end. Closed when the client is gone, which is no
    /// reason to stop.
    pub replies: mpsc::Sender<Progress>,
    /// The user who asks, where the kernel told.
    pub uid: Option<u32>,
}

/// The agent's side of the door.
#[derive(Clone)]
pub struct LocalApi {
    /// Where commands go.
    pub commands: mpsc::Sender<LocalRequest>,
    /// Where metrics come from.
    pub metrics: MetricsText,
    /// Where files go that the agent cannot open.
    pub handed_over: HandedOver,
}

/// Who is at the other end of the socket, as the kernel says.
#[derive(Debug, Clone, Copy)]
struct Peer {
    uid: Option<u32>,
    pid: Option<i32>,
}

/// Serves the socket until the shutdown.
pub async fn serve(socket: Socket, api: LocalApi, shutdown: CancellationToken) -> Result<(), Reason> {
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/install", post(install))
        .route("/v1/install/file", post(install_file))
        .route("/v1/update", post(update))
        .route("/v1/rollback", post(rollback))
        .route("/v1/abort", post(abort))
        .route("/v1/pause", post(pause))
        .route("/v1/resume", post(resume))
        .route("/v1/look", post(look))
        .route("/metrics", get(|State(api): State<LocalApi>| async move { metrics(&api.metrics) }))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(api);
    let Socket { listener, file } = socket;
    let server = http_serve(Limited::new(listener), router.into_make_service_with_connect_info::<Peer>())
        .with_graceful_shutdown(shutdown.clone().cancelled_owned());
    until(shutdown, server.into_future(), || format!("serve the socket {}", file.path.display())).await
}

/// Listens for Prometheus at `address`. Errors: what keeps it, with the remedy.
pub async fn listen_prometheus(address: SocketAddr) -> Result<TcpListener, Reason> {
    TcpListener::bind(address).await.map_err(|error| {
        let remedy = "choose another health.prometheus address";
        Reason::new(ReasonCode::Internal, format!("listen for Prometheus on {address}: {error}; {remedy}"))
    })
}

/// Serves `GET /metrics` and nothing else until the shutdown.
pub async fn serve_metrics(
    listener: TcpListener,
    text: MetricsText,
    shutdown: CancellationToken,
) -> Result<(), Reason> {
    let router = Router::new()
        .route("/metrics", get(|State(text): State<MetricsText>| async move { metrics(&text) }))
        .with_state(text);
    let server =
        http_serve(Limited::new(listener), router).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    until(shutdown, server.into_future(), || "serve the metrics".into()).await
}

/// Runs a server to its end, which comes at latest [`DRAIN`] after the shutdown.
async fn until(
    shutdown: CancellationToken,
    server: impl Future<Output = io::Result<()>>,
    act: impl Fn() -> String,
) -> Result<(), Reason> {
    tokio::select! {
        ended = server => {
            ended.map_err(|error| Reason::new(ReasonCode::Internal, format!("{}: {error}", act())))
        }
        () = async { shutdown.cancelled().await; tokio::time::sleep(DRAIN).await } => Ok(()),
    }
}

/// The bound socket; its file goes with it.
pub struct Socket {
    listener: UnixListener,
    /// Held for its drop too.
    file: SocketFile,
}

struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Socket {
    /// Binds the socket at `path` (mode 0660). One that a dead agent left is replaced; that of a running
    /// one is not. Errors: `Busy` where an agent answers there; `Internal` with the remedy.
    pub fn bind(path: &Path) -> Result<Self, Reason> {
        let cannot = |act: &str, error: io::Error| {
            let remedy = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "; run the agent as a user who may write there, or set paths.runtime"
                }
                _ => "",
            };
            Reason::new(ReasonCode::Internal, format!("{act} {}: {error}{remedy}", path.display()))
        };
        let folder = path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(folder).map_err(|error| cannot("make the folder of the socket", error))?;
        refuse_living(path)?;
        // Bound under another name and renamed, so that nobody can connect before the mode is set,
        // and the old name never points to nothing.
        let fresh = folder.join(".agent.new");
        remove_socket(&fresh).map_err(|error| cannot("remove what a broken start left beside", error))?;
        let listener = UnixListener::bind(&fresh).map_err(|error| cannot("make the socket", error))?;
        let set_up = || {
            std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o660))?;
            std::fs::rename(&fresh, path)?;
            Ok(std::fs::metadata(path)?.ino())
        };
        let inode = set_up().map_err(|error| cannot("put the socket in its place", error))?;
        Ok(Self { listener, file: SocketFile { path: path.to_owned(), inode } })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Not the one that a successor has put there meanwhile.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|now| now.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn remove_socket(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::other("there is something that is no socket; remove it")),
    }
}

/// An agent that answers there keeps its socket; anything but a socket is not ours to replace.
fn refuse_living(path: &Path) -> Result<(), Reason> {
    match std::fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(found) if !found.file_type().is_socket() => {
            let text = format!("{} is no socket; remove it or set paths.runtime", path.display());
            Err(Reason::new(ReasonCode::Internal, text))
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => {
                let text = format!(
                    "an agent already answers at {}; stop it, or set another paths.runtime for this one",
                    path.display()
                );
                Err(Reason::new(ReasonCode::Busy, text))
            }
            Err(_) => Ok(()),
        },
    }
}

fn metrics(text: &MetricsText) -> Response {
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text())
        .into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InstallBody {
    slot: Option<SlotName>,
    file: PathBuf,
    #[serde(default)]
    shadow: ShadowWish,
    #[serde(default)]
    now: bool,
    identity: Option<Identity>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InstallHeader {
    slot: Option<SlotName>,
    name: String,
    #[serde(default)]
    shadow: ShadowWish,
    #[serde(default)]
    now: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateBody {
    slot: SlotName,
    release: Release,
    #[serde(default)]
    shadow: ShadowWish,
    #[serde(default)]
    now: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SlotBody {
    slot: SlotName,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PipelineBody {
    pipeline: Option<PipelineName>,
}

async fn install(State(api): State<LocalApi>, ConnectInfo(peer): ConnectInfo<Peer>, body: Bytes) -> Response {
    let body = match read::<InstallBody>(&body) {
        Ok(body) => body,
        Err(reason) => return refusal(&reason),
    };
    if !body.file.is_absolute() {
        let text = format!("install {}: the path must be absolute", body.file.display());
        return refusal(&Reason::new(ReasonCode::BadRequest, text));
    }
    if let Some(identity) = body.identity
        && let Err(reason) = handover::readable(body.file.clone(), identity).await
    {
        // Before a long way for nothing.
        return match api.handed_over.fits(&body.file.display().to_string(), identity.size).await {
            Ok(()) => json(StatusCode::CONFLICT, &Progress::Failed { reason }),
            Err(reason) => refusal(&reason),
        };
    }
    let start = StartWish { now: body.now, spread: false };
    begin(&api, peer, Command::Install { slot: body.slot, file: body.file, shadow: body.shadow, start })
}

async fn install_file(
    State(api): State<LocalApi>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let taken = async {
        let bad = |what: &str| Reason::new(ReasonCode::BadRequest, format!("the request's {what}"));
        let wish = headers.get(INSTALL).ok_or_else(|| bad("header edgewarden-install is missing"))?;
        let InstallHeader { slot, name, shadow, now } = read(wish.as_bytes())?;
        let size = headers.get(header::CONTENT_LENGTH).and_then(|size| size.to_str().ok()?.parse().ok());
        let size = size.ok_or_else(|| bad("content-length is missing"))?;
        let file = api.handed_over.take(&name, size, body).await?;
        Ok(Command::Install { slot, file, shadow, start: StartWish { now, spread: false } })
    };
    match taken.await {
        Ok(command) => begin(&api, peer, command),
        Err(reason) => refusal(&reason),
    }
}

async fn update(State(api): State<LocalApi>, ConnectInfo(peer): ConnectInfo<Peer>, body: Bytes) -> Response {
    command(&api, peer, &body, |body: UpdateBody| {
        let start = StartWish { now: body.now, spread: false };
        Ok(Command::Update { slot: body.slot, release: body.release, shadow: body.shadow, start })
    })
}

async fn rollback(
    State(api): State<LocalApi>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Bytes,
) -> Response {
    command(&api, peer, &body, |body: SlotBody| Ok(Command::Rollback { slot: body.slot }))
}

async fn abort(State(api): State<LocalApi>, ConnectInfo(peer): ConnectInfo<Peer>, body: Bytes) -> Response {
    command(&api, peer, &body, |body: SlotBody| Ok(Command::Abort { slot: body.slot }))
}

async fn pause(State(api): State<LocalApi>, ConnectInfo(peer): ConnectInfo<Peer>, body: Bytes) -> Response {
    command(&api, peer, &body, |body: PipelineBody| {
        Ok(Command::Pause { pipeline: body.pipeline, paused: true })
    })
}

async fn resume(State(api): State<LocalApi>, ConnectInfo(peer): ConnectInfo<Peer>, body: Bytes) -> Response {
    command(&api, peer, &body, |body: PipelineBody| {
        Ok(Command::Pause { pipeline: body.pipeline, paused: false })
    })
}

/// One of the commands that only look, as it is written in a signed command.
async fn look(State(api): State<LocalApi>, ConnectInfo(peer): ConnectInfo<Peer>, body: Bytes) -> Response {
    let command = read(&body).and_then(|action| crate::mqtt::commands::action(&action));
    match command {
        Ok(command) if role(&command) == Role::Observe => begin(&api, peer, command),
        Ok(command) => {
            let detail = format!("{} is not one of the commands that only look", command.name());
            refusal(&Reason::new(ReasonCode::BadRequest, detail))
        }
        Err(reason) => refusal(&reason),
    }
}

async fn status(State(api): State<LocalApi>) -> Response {
    let mut replies = match hand_over(&api, None, Command::Status) {
        Ok((_, replies)) => replies,
        Err(reason) => return refusal(&reason),
    };
    let end = async {
        loop {
            match replies.recv().await {
                Some(Progress::Executing { .. }) => {}
                Some(Progress::Successful { result }) => return Ok(result),
                Some(Progress::Failed { reason }) => return Err(reason),
                None => return Err(gone()),
            }
        }
    };
    match tokio::time::timeout(STATUS_TIMEOUT, end).await {
        Ok(Ok(result)) => json(StatusCode::OK, &result),
        Ok(Err(reason)) => refusal(&reason),
        Err(_) => {
            let text =
                format!("the agent did not answer within {} s; look at its log", STATUS_TIMEOUT.as_secs());
            refusal(&Reason::new(ReasonCode::Internal, text))
        }
    }
}

/// Reads the body, hands the command over, and streams its progress.
fn command<B: for<'de> Deserialize<'de>>(
    api: &LocalApi,
    peer: Peer,
    body: &[u8],
    to_command: impl FnOnce(B) -> Result<Command, Reason>,
) -> Response {
    match read(body).and_then(to_command) {
        Ok(command) => begin(api, peer, command),
        Err(reason) => refusal(&reason),
    }
}

fn read<B: for<'de> Deserialize<'de>>(text: &[u8]) -> Result<B, Reason> {
    serde_json::from_slice(text)
        .map_err(|error| Reason::new(ReasonCode::BadRequest, format!("the request's body: {error}")))
}

/// Hands a command over, and streams its progress.
fn begin(api: &LocalApi, peer: Peer, command: Command) -> Response {
    let name = command.name();
    match hand_over(api, peer.uid, command) {
        Ok((id, replies)) => {
            tracing::info!(command = name, %id, uid = peer.uid, pid = peer.pid, "command from this machine");
            ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines(replies)))
                .into_response()
        }
        Err(reason) => {
            tracing::warn!(command = name, uid = peer.uid, pid = peer.pid, %reason, "command not taken");
            refusal(&reason)
        }
    }
}

/// Never waits: a full channel is told to the client.
fn hand_over(
    api: &LocalApi,
    uid: Option<u32>,
    command: Command,
) -> Result<(CommandId, mpsc::Receiver<Progress>), Reason> {
    let id: CommandId = format!("local-{}", uuid::Uuid::now_v7())
        .parse()
        .map_err(|error| Reason::new(ReasonCode::Internal, format!("name a command: {error}")))?;
    let (replies, receiver) = mpsc::channel(REPLY_QUEUE);
    let request = LocalRequest { request: Request { id: id.clone(), command }, replies, uid };
    api.commands.try_send(request).map_err(|error| match error {
        mpsc::error::TrySendError::Full(_) => {
            Reason::new(ReasonCode::Busy, "too many commands wait already; try again in a moment")
        }
        mpsc::error::TrySendError::Closed(_) => gone(),
    })?;
    Ok((id, receiver))
}

fn gone() -> Reason {
    Reason::new(ReasonCode::Internal, "the agent is stopping; ask `edgewarden status` when it runs again")
}

/// One JSON object a line; ends after the last word of the command, and has one in any case.
fn lines(replies: mpsc::Receiver<Progress>) -> impl futures_util::Stream<Item = io::Result<Bytes>> {
    futures_util::stream::unfold(Some(replies), |replies| async {
        let mut replies = replies?;
        let progress = replies.recv().await.unwrap_or_else(|| Progress::Failed { reason: gone() });
        let more = matches!(progress, Progress::Executing { .. });
        let line = serde_json::to_vec(&progress).map_err(io::Error::other).map(|mut line| {
            line.push(b'\n');
            Bytes::from(line)
        });
        Some((line, more.then_some(replies)))
    })
}

fn refusal(reason: &Reason) -> Response {
    let status = match reason.code {
        ReasonCode::BadRequest => StatusCode::BAD_REQUEST,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    json(status, &Progress::Failed { reason: reason.clone() })
}

fn json(status: StatusCode, value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// A listener that has at most [`MAX_CONNECTIONS`] connections open.
struct Limited<L> {
    listener: L,
    permits: Arc<Semaphore>,
}

impl<L> Limited<L> {
    fn new(listener: L) -> Self {
        Self { listener, permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)) }
    }
}

/// A connection that gives its permit back when it is dropped.
struct Permitted<T> {
    io: T,
    _permit: OwnedSemaphorePermit,
}

impl<L: Listener> Listener for Limited<L> {
    type Io = Permitted<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let Ok(permit) = self.permits.clone().acquire_owned().await else {
            // Only a closed semaphore refuses, and nobody closes this one.
            return std::future::pending().await;
        };
        let (io, address) = self.listener.accept().await;
        (Permitted { io, _permit: permit }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl Connected<IncomingStream<'_, Limited<UnixListener>>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Limited<UnixListener>>) -> Self {
        let socket: &UnixStream = &stream.io().io;
        let credentials = socket.peer_cred().ok();
        Self { uid: credentials.map(|c| c.uid()), pid: credentials.and_then(|c| c.pid()) }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Permitted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Permitted<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

pub mod handover;

#[cfg(test)]
mod tests;
