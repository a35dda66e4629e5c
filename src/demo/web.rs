//! The static web server of the story: a folder on loopback, as slow as the story wants it.

use anyhow::Context;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tower_http::services::ServeDir;
use url::Url;

/// Bytes sent at once while throttled.
const PIECE: usize = 4096;

/// What the server counts and obeys.
#[derive(Debug, Default)]
struct Dial {
    /// Bytes per second of every answer; 0 is no limit.
    rate: AtomicU64,
    /// Bytes of answers' bodies handed out.
    sent: AtomicU64,
    /// Answers that went on from the middle of a file.
    resumed: AtomicU64,
}

/// A running server; it ends when this is dropped.
pub struct Web {
    /// `http://127.0.0.1:PORT/`
    pub url: Url,
    /// What is served.
    pub folder: PathBuf,
    dial: Arc<Dial>,
    task: tokio::task::JoinHandle<()>,
}

impl Web {
    /// Serves `folder` on a free loopback port.
    pub async fn start(folder: &Path) -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("listen on 127.0.0.1 for the repository")?;
        let address = listener.local_addr().context("listen on 127.0.0.1 for the repository")?;
        let dial = Arc::new(Dial::default());
        let app = axum::Router::new()
            .fallback_service(ServeDir::new(folder))
            .layer(middleware::from_fn_with_state(dial.clone(), throttle));
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                tracing::error!("the repository's web server ended: {error}");
            }
        });
        let url = Url::parse(&format!("http://{address}/")).context("name the repository")?;
        Ok(Self { url, folder: folder.to_owned(), dial, task })
    }

    /// From now on each answer is sent at `rate` bytes a second; `None` sends as fast as it can.
    pub fn limit(&self, rate: Option<u64>) {
        self.dial.rate.store(rate.unwrap_or(0), Ordering::Relaxed);
    }

    /// Bytes handed out so far.
    pub fn sent(&self) -> u64 {
        self.dial.sent.load(Ordering::Relaxed)
    }

    /// Answers so far that went on from the middle of a file.
    pub fn resumed(&self) -> u64 {
        self.dial.resumed.load(Ordering::Relaxed)
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn throttle(State(dial): State<Arc<Dial>>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let from_the_middle = response.status() == StatusCode::PARTIAL_CONTENT
        && response
            .headers()
            .get(header::CONTENT_RANGE)
            .and_then(|range| range.to_str().ok())
            .is_some_and(|range| !range.starts_with("bytes 0-"));
    if from_the_middle {
        dial.resumed.fetch_add(1, Ordering::Relaxed);
    }
    let (parts, body) = response.into_parts();
    let pieces = body.into_data_stream().flat_map(|chunk| match chunk {
        Ok(chunk) => futures_util::stream::iter(split(chunk).map(Ok).collect::<Vec<_>>()),
        Err(error) => futures_util::stream::iter(vec![Err(error)]),
    });
    let paced = pieces.then(move |piece| {
        let dial = dial.clone();
        async move {
            let length = piece.as_ref().map_or(0, Bytes::len) as u64;
            // Read for every piece, so that a new limit holds for answers under way too.
            let rate = dial.rate.load(Ordering::Relaxed);
            if let Some(micros) = (length * 1_000_000).checked_div(rate) {
                tokio::time::sleep(Duration::from_micros(micros)).await;
            }
            dial.sent.fetch_add(length, Ordering::Relaxed);
            piece
        }
    });
    Response::from_parts(parts, Body::from_stream(paced))
}

fn split(mut chunk: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || (!chunk.is_empty()).then(|| chunk.split_to(chunk.len().min(PIECE))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// What a plain HTTP/1.0 client reads.
    async fn get(web: &Web, path: &str, headers: &str) -> (String, Vec<u8>) {
        let mut socket =
            tokio::net::TcpStream::connect(web.url.socket_addrs(|| None).unwrap()[0]).await.unwrap();
        let request = format!("GET /{path} HTTP/1.0\r\n{headers}\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.unwrap();
        let head = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        (String::from_utf8(answer[..head].to_vec()).unwrap(), answer[head + 4..].to_vec())
    }

    #[tokio::test]
    async fn files_are_served_whole_in_part_and_slowly() {
        let folder = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..20_000u32).map(|i| i as u8).collect();
        std::fs::write(folder.path().join("blob"), &content).unwrap();
        let web = Web::start(folder.path()).await.unwrap();

        let (head, body) = get(&web, "blob", "").await;
        assert!(head.contains("200 OK"), "{head}");
        assert_eq!(body, content);
        assert_eq!((web.sent(), web.resumed()), (20_000, 0));

        let (head, body) = get(&web, "blob", "Range: bytes=5000-\r\n").await;
        assert!(head.contains("206 "), "{head}");
        assert_eq!(body, content[5000..]);
        assert_eq!(web.resumed(), 1);

        web.limit(Some(200_000));
        let (_, body) = get(&web, "blob", "").await;
        assert_eq!(body, content);
        assert!(get(&web, "none", "").await.0.contains("404"));
    }
}
