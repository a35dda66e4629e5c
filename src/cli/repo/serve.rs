//! `edgewarden repo serve`: a repository over HTTP, with ranges and entity tags, as any web server does.

use crate::bundle::layout;
use crate::cli::ui::{self, print_json, say};
use anyhow::Context as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tower_http::services::ServeDir;

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The repository's folder
    #[arg(value_name = "DIR")]
    repository: PathBuf,
    /// Address to listen on; 0.0.0.0:8088 lets other machines in
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8088")]
    listen: SocketAddr,
    #[command(flatten)]
    json: ui::Json,
}

/// Serves until Ctrl-C or a termination signal.
pub(super) fn run(args: Args) -> anyhow::Result<()> {
    crate::trust::export::overview(&args.repository, None)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let served = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(args.listen)
            .await
            .with_context(|| format!("listen on {}; is another server there? try --listen", args.listen))?;
        let url = format!("http://{}/", listener.local_addr()?);
        if args.json.json {
            print_json(&serde_json::json!({ "url": url }))?;
        } else {
            say!("Serving {} at {url}  (Ctrl-C ends it)", args.repository.display());
            say!("In a device's agent.toml: [repository] url = \"{url}\"");
        }
        let ended = ended()?;
        serve(listener, &args.repository, ended).await.context("serve the repository")
    });
    // A client that is slow to fetch must not hold up the end.
    runtime.shutdown_background();
    served
}

/// Serves the repository's three folders, and nothing else of the folder, until `ended`.
pub async fn serve(
    listener: tokio::net::TcpListener,
    repository: &Path,
    ended: impl Future<Output = ()> + Send,
) -> std::io::Result<()> {
    let mut router = axum::Router::new();
    for folder in [layout::METADATA, layout::TARGETS, layout::BLOBS] {
        let files = ServeDir::new(repository.join(folder)).append_index_html_on_directories(false);
        router = router.nest_service(&format!("/{folder}"), files);
    }
    let serving = axum::serve(listener, router);
    tokio::select! {
        result = serving.into_future() => result,
        () = ended => Ok(()),
    }
}

/// Ready when somebody asks this process to end.
fn ended() -> std::io::Result<impl Future<Output = ()> + Send> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn ask(address: SocketAddr, path: &str, header: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).to_lowercase()
    }

    #[tokio::test]
    async fn files_come_in_ranges_with_a_tag_and_nothing_outside_comes_at_all() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("blobs/a", "0123456789"), ("secret", "x")] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let root = dir.path().to_owned();
        let server = tokio::spawn(async move { serve(listener, &root, async { drop(ended.await) }).await });
        let whole = ask(address, "/blobs/a", "").await;
        assert!(whole.starts_with("http/1.1 200") && whole.ends_with("0123456789"), "{whole}");
        assert!(whole.contains("\r\netag: ") && whole.contains("\r\nlast-modified: "), "{whole}");
        let part = ask(address, "/blobs/a", "Range: bytes=4-\r\n").await;
        assert!(part.starts_with("http/1.1 206") && part.ends_with("\r\n\r\n456789"), "{part}");
        for path in ["/secret", "/blobs/../secret", "/blobs/%2e%2e/secret", "/blobs/", "/"] {
            let answer = ask(address, path, "").await;
            assert!(answer.starts_with("http/1.1 404"), "{path}: {answer}");
        }
        end.send(()).unwrap();
        server.await.unwrap().unwrap();
    }
}
