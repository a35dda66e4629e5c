//! The socket as a client without our own client library sees it.

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn api() -> (LocalApi, mpsc::Receiver<LocalRequest>) {
    let (commands, receiver) = mpsc::channel(4);
    let handed_over = HandedOver::new(&std::env::temp_dir(), 1 << 20, 0);
    (LocalApi { commands, metrics: Arc::new(|| "edgewarden_up 1\n# EOF\n".into()), handed_over }, receiver)
}

async fn start(
    path: &Path,
    api: LocalApi,
) -> (CancellationToken, tokio::task::JoinHandle<Result<(), Reason>>) {
    let shutdown = CancellationToken::new();
    let server = tokio::spawn({
        let (path, shutdown) = (path.to_owned(), shutdown.clone());
        async move { serve(Socket::bind(&path)?, api, shutdown).await }
    });
    while UnixStream::connect(path).await.is_err() {
        assert!(!server.is_finished(), "the server ended");
        tokio::task::yield_now().await;
    }
    (shutdown, server)
}

/// The whole answer to a request whose connection is closed after it.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, head: &str, body: &[u8]) -> String {
    let head =
        format!("{head} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    // A server that refuses by the length alone may close before it has read the body.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn the_socket_is_for_its_owner_and_group_and_replaces_a_dead_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let (api, _commands) = api();
    let (shutdown, server) = start(&path, api).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);

    let second = Socket::bind(&path).err().unwrap();
    assert_eq!(second.code, ReasonCode::Busy);
    assert!(second.detail.contains("an agent already answers"), "{second}");
    assert!(path.exists(), "the first one keeps its socket");

    shutdown.cancel();
    server.await.unwrap().unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn what_is_no_socket_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    std::fs::write(&path, "precious").unwrap();
    let error = Socket::bind(&path).err().unwrap();
    assert!(error.detail.contains("is no socket; remove it"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    let (api, mut commands) = api();
    let _server = start(&path, api).await;
    let stream = UnixStream::connect(&path).await.unwrap();
    let answer = ask(stream, "POST /v1/rollback", &vec![b' '; MAX_BODY + 1]).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(commands.try_recv().is_err());
}

#[tokio::test]
async fn metrics_are_served_on_the_socket_and_on_the_port() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    let (api, _commands) = api();
    let text = api.metrics.clone();
    let _server = start(&path, api).await;
    let answer = ask(UnixStream::connect(&path).await.unwrap(), "GET /metrics", b"").await;
    assert!(answer.contains("application/openmetrics-text") && answer.ends_with("edgewarden_up 1\n# EOF\n"));

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let server = tokio::spawn(serve_metrics(listener, text, shutdown.clone()));
    let connect = || tokio::net::TcpStream::connect(address);
    assert!(ask(connect().await.unwrap(), "GET /metrics", b"").await.ends_with("# EOF\n"));
    let command = ask(connect().await.unwrap(), "POST /v1/rollback", b"{\"slot\":\"a\"}").await;
    assert!(command.starts_with("HTTP/1.1 404"), "the port takes no commands: {command}");
    shutdown.cancel();
    server.await.unwrap().unwrap();

    // A port that is taken is told with its remedy.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = listen_prometheus(address).await.unwrap_err();
    assert!(error.detail.contains("choose another health.prometheus"), "{error}");
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_their_turn() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    let (api, _commands) = api();
    let _server = start(&path, api).await;
    let mut idle = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        idle.push(UnixStream::connect(&path).await.unwrap());
    }
    let late = tokio::spawn({
        let stream = UnixStream::connect(&path).await.unwrap();
        async move { ask(stream, "GET /metrics", b"").await }
    });
    drop(idle);
    assert!(late.await.unwrap().ends_with("# EOF\n"), "served once the others are gone");
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_a_client_that_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    let (api, mut commands) = api();
    let (shutdown, server) = start(&path, api).await;
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let body = "{\"slot\":\"a\"}";
    let head = format!("POST /v1/abort HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    // Held open: the command never ends.
    let _held = commands.recv().await.unwrap();
    shutdown.cancel();
    server.await.unwrap().unwrap();
    assert!(!path.exists());
}
