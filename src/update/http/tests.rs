//! A server that misbehaves in a stated way, over real TCP.

use super::access::MAX_REDIRECTS;
use super::*;
use crate::config::settings::AccessSettings;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Longest test; only a hang reaches it.
const GUARD: Duration = Duration::from_secs(180);

fn content() -> Vec<u8> {
    (0..200_000_u32).flat_map(|n| n.to_le_bytes()).collect()
}

/// What the server does with one connection.
#[derive(Clone, Debug)]
enum Act {
    /// Answers ranges as it should.
    Good { tag: &'static str },
    /// The same, but the connection ends after so many body bytes.
    Cut { tag: &'static str, after: usize },
    /// The same, but it falls silent after so many body bytes.
    Stall { tag: &'static str, after: usize },
    /// Answers with the whole file, whatever was asked for.
    NoRanges,
    /// Sends these bytes, then bytes without end.
    Endless { head: &'static str },
    /// Sends these bytes and closes.
    Say(String),
}

struct Server {
    url: Url,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Plays one act for each connection; after the last one, connections are closed at once.
    async fn start(acts: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/repo/", listener.local_addr().unwrap()).parse().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        tokio::spawn(async move {
            let mut acts = acts.into_iter();
            while let Ok((mut socket, _)) = listener.accept().await {
                let Some(act) = acts.next() else { continue };
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = socket.read_u8().await else { break };
                    request.push(byte);
                }
                let request = String::from_utf8(request).unwrap().to_lowercase();
                seen.lock().unwrap().push(request.clone());
                // One task a connection: a stalled one stays open while the next is served.
                tokio::spawn(async move {
                    let _ = play(&mut socket, act, &request).await;
                });
            }
        });
        Self { url, requests }
    }

    fn transport(&self) -> HttpTransport {
        let settings = RepositorySettings {
            url: None,
            root: PathBuf::new(),
            stall_timeout: Duration::from_millis(500),
            retries: 3,
            rate_limit: 0,
            access: AccessSettings::default(),
        };
        let mut transport = HttpTransport::new(&self.url, &settings).unwrap();
        transport.waits = (Duration::from_millis(1), Duration::from_millis(2));
        transport
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn play(socket: &mut tokio::net::TcpStream, act: Act, request: &str) -> std::io::Result<()> {
    let header = |name: &str| {
        request.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
    };
    let content = content();
    let (tag, limit, hang) = match act {
        Act::Good { tag } => (tag, usize::MAX, false),
        Act::Cut { tag, after } => (tag, after, false),
        Act::Stall { tag, after } => (tag, after, true),
        Act::NoRanges => {
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", content.len());
            socket.write_all(head.as_bytes()).await?;
            return socket.write_all(&content).await;
        }
        Act::Say(text) => return socket.write_all(text.as_bytes()).await,
        Act::Endless { head } => {
            socket.write_all(head.as_bytes()).await?;
            loop {
                socket.write_all(&[0; 8192]).await?;
            }
        }
    };
    let first = header("range: bytes=")
        .filter(|_| header("if-range:").is_none_or(|value| value == format!("\"{tag}\"")))
        .map_or(0, |range| range.trim_end_matches('-').parse::<usize>().unwrap());
    let body = &content[first..];
    let status = if first > 0 {
        let last = content.len() - 1;
        format!("206 Partial Content\r\nContent-Range: bytes {first}-{last}/{}", content.len())
    } else {
        "200 OK".to_owned()
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nETag: \"{tag}\"\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).await?;
    socket.write_all(&body[..limit.min(body.len())]).await?;
    if hang {
        std::future::pending::<()>().await;
    }
    Ok(())
}

fn say(status: &str, headers: &str) -> Act {
    Act::Say(format!("HTTP/1.1 {status}\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n"))
}

struct Outcome {
    result: Result<(), Reason>,
    file: Vec<u8>,
    left: Vec<String>,
    requests: Vec<String>,
}

/// Downloads the content from a server that plays `acts`, into a file that holds `have` already.
async fn download(acts: Vec<Act>, have: &[u8], validator: Option<&str>) -> Outcome {
    let server = Server::start(acts).await;
    let dir = tempfile::tempdir().unwrap();
    let into = dir.path().join("file");
    if !have.is_empty() {
        fs::write(&into, have).unwrap();
    }
    if let Some(validator) = validator {
        fs::write(validator_path(&into), validator).unwrap();
    }
    let most = AtomicU64::new(0);
    let progress = |bytes| {
        most.fetch_max(bytes, Ordering::Relaxed);
    };
    let size = content().len() as u64;
    let transport = server.transport();
    let result = timeout(GUARD, transport.download("blobs/abc", size, &into, &progress)).await.unwrap();
    assert!(most.into_inner() <= size);
    let file = fs::read(&into).unwrap_or_default();
    assert!(file.len() as u64 <= size, "more than the size was written");
    let mut left: Vec<String> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    Outcome { result, file, left, requests: server.requests() }
}

#[tokio::test]
async fn a_good_server_gives_the_file_in_one_request() {
    let outcome = download(vec![Act::Good { tag: "a" }], b"", None).await;
    outcome.result.unwrap();
    assert!(outcome.file == content());
    assert_eq!(outcome.left, ["file"]);
    assert_eq!(outcome.requests.len(), 1);
    assert!(outcome.requests[0].starts_with("get /repo/blobs/abc http/1.1"), "{}", outcome.requests[0]);
    assert!(outcome.requests[0].contains("accept-encoding: identity"));
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_stopped() {
    let acts =
        vec![Act::Cut { tag: "a", after: 300_000 }, Act::Cut { tag: "a", after: 1 }, Act::Good { tag: "a" }];
    let outcome = download(acts, b"", None).await;
    outcome.result.unwrap();
    assert!(outcome.file == content());
    assert!(outcome.requests[1].contains("range: bytes=") && outcome.requests[1].contains("if-range: \"a\""));
    assert!(outcome.requests[2].contains("range: bytes="));
}

#[tokio::test]
async fn a_download_goes_on_after_a_restart_of_the_agent() {
    let outcome = download(vec![Act::Good { tag: "a" }], &content()[..500_000], Some("\"a\"")).await;
    outcome.result.unwrap();
    assert!(outcome.file == content());
    assert!(outcome.requests[0].contains("range: bytes=500000-\r\n"), "{}", outcome.requests[0]);
}

#[tokio::test]
async fn a_file_that_changed_meanwhile_starts_from_the_front() {
    let outcome = download(vec![Act::Good { tag: "new" }], &[7; 500_000], Some("\"old\"")).await;
    outcome.result.unwrap();
    assert!(outcome.file == content());
}

#[tokio::test]
async fn a_server_without_ranges_starts_from_the_front() {
    let outcome = download(vec![Act::Cut { tag: "a", after: 300_000 }, Act::NoRanges], b"", None).await;
    outcome.result.unwrap();
    assert!(outcome.file == content());
}

#[tokio::test]
async fn a_range_beyond_the_end_starts_from_the_front() {
    let acts = vec![say("416 Range Not Satisfiable", "Content-Range: bytes */3\r\n"), Act::Good { tag: "a" }];
    let outcome = download(acts, &content()[..10], Some("\"a\"")).await;
    outcome.result.unwrap();
    assert!(outcome.file == content());
    assert!(!outcome.requests[1].contains("range:"), "{}", outcome.requests[1]);
}

#[tokio::test]
async fn a_wrong_range_is_not_appended() {
    let wrong = "Content-Range: bytes 0-799999/800000\r\n";
    let outcome =
        download(vec![say("206 Partial Content", wrong), Act::Good { tag: "a" }], &[1; 10], None).await;
    outcome.result.unwrap();
    assert!(outcome.file == content());
}

#[tokio::test]
async fn a_server_that_falls_silent_is_left_and_asked_again() {
    let outcome =
        download(vec![Act::Stall { tag: "a", after: 400_000 }, Act::Good { tag: "a" }], b"", None).await;
    outcome.result.unwrap();
    assert!(outcome.file == content());
}

#[tokio::test]
async fn a_busy_server_is_asked_again_when_it_says() {
    let acts = vec![say("503 Service Unavailable", "Retry-After: 0\r\n"), Act::Good { tag: "a" }];
    download(acts, b"", None).await.result.unwrap();
}

#[tokio::test]
async fn a_server_that_keeps_failing_is_given_up_with_its_answer() {
    let acts = vec![say("503 Service Unavailable", ""); 9];
    let outcome = download(acts, b"", None).await;
    let reason = outcome.result.unwrap_err();
    assert_eq!(reason.code, ReasonCode::RepositoryUnreachable);
    assert!(reason.detail.contains("/repo/blobs/abc: the server answered 503"), "{reason}");
    assert_eq!(outcome.requests.len(), 3, "tries");
}

#[tokio::test]
async fn tries_without_progress_are_counted_and_progress_begins_the_count_anew() {
    let acts = vec![Act::Cut { tag: "a", after: 100_000 }; 8];
    let outcome = download(acts, b"", None).await;
    outcome.result.unwrap();
    assert_eq!(outcome.requests.len(), 8, "more than the three tries, as each brought 100 000 bytes");
    let outcome = download(vec![Act::Cut { tag: "a", after: 10 }; 9], b"", None).await;
    assert_eq!(outcome.result.unwrap_err().code, ReasonCode::RepositoryUnreachable);
    assert_eq!(outcome.requests.len(), 3);
}

/// It brings enough each time to count as progress, and then has the file begin again.
#[tokio::test]
async fn a_server_that_lets_a_file_begin_again_and_again_is_given_up() {
    let cut = || Act::Cut { tag: "a", after: 100_000 };
    let refuse = || say("416 Range Not Satisfiable", "Content-Range: bytes */3\r\n");
    let acts: Vec<Act> = (0..50).flat_map(|_| [cut(), refuse()]).collect();
    let outcome = download(acts, b"", None).await;
    assert_eq!(outcome.result.unwrap_err().code, ReasonCode::RepositoryUnreachable);
    assert!(outcome.requests.len() < 20, "{}", outcome.requests.len());
    // One whose file changes now and then is not.
    let acts = vec![cut(), refuse(), cut(), Act::Cut { tag: "b", after: 100_000 }, Act::Good { tag: "b" }];
    let outcome = download(acts, b"", None).await;
    outcome.result.unwrap();
    assert!(outcome.file == content());
}

#[tokio::test]
async fn the_rest_of_another_file_is_not_appended() {
    let head = "HTTP/1.1 206 Partial Content\r\nETag: \"b\"\r\nContent-Range: bytes 300000-799999/800000\r\n\
         Content-Length: 500000\r\nConnection: close\r\n\r\n"
        .to_owned();
    let acts = vec![Act::Cut { tag: "a", after: 300_000 }, Act::Say(head), Act::Good { tag: "b" }];
    let outcome = download(acts, b"", None).await;
    outcome.result.unwrap();
    assert!(outcome.file == content());
    assert!(!outcome.requests[2].contains("range:"), "it began from the front: {}", outcome.requests[2]);
}

#[tokio::test]
async fn a_body_without_end_stops_at_the_signed_size() {
    for head in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n"] {
        let outcome = download(vec![Act::Endless { head }], b"", None).await;
        assert_eq!(outcome.result.unwrap_err().code, ReasonCode::SizeMismatch, "{head}");
        assert_eq!(outcome.requests.len(), 1, "a lie is not asked for again");
    }
}

#[tokio::test]
async fn a_length_that_is_not_the_signed_one_is_refused_before_a_byte_is_kept() {
    let outcome = download(vec![say("200 OK", "")], b"", None).await;
    assert_eq!(outcome.result.unwrap_err().code, ReasonCode::SizeMismatch);
    let wrong = "Content-Range: bytes 10-98/99\r\n";
    let outcome = download(vec![say("206 Partial Content", wrong)], &[1; 10], None).await;
    assert_eq!(outcome.result.unwrap_err().code, ReasonCode::SizeMismatch);
}

#[tokio::test]
async fn what_will_not_change_is_not_asked_for_again() {
    for (status, code) in [
        ("404 Not Found", ReasonCode::NotFound),
        ("403 Forbidden", ReasonCode::RepositoryUnreachable),
        ("400 Bad Request", ReasonCode::RepositoryUnreachable),
    ] {
        let outcome = download(vec![say(status, ""); 3], b"", None).await;
        assert_eq!(outcome.result.unwrap_err().code, code, "{status}");
        assert_eq!(outcome.requests.len(), 1, "{status}");
    }
    let compressed = vec![say("200 OK", "Content-Encoding: gzip\r\n"); 3];
    assert!(download(compressed, b"", None).await.result.unwrap_err().detail.contains("compresses"));
    let redirects = vec![say("302 Found", "Location: /repo/blobs/abc\r\n"); 20];
    let outcome = download(redirects, b"", None).await;
    assert!(outcome.result.unwrap_err().detail.contains("too many redirects"));
    assert!(outcome.requests.len() <= MAX_REDIRECTS + 2, "{}", outcome.requests.len());
}

#[tokio::test]
async fn a_whole_file_asks_for_nothing_and_one_too_long_begins_anew() {
    let outcome = download(vec![], &content(), Some("\"a\"")).await;
    outcome.result.unwrap();
    assert_eq!((outcome.requests.len(), outcome.left), (0, vec!["file".to_owned()]));
    let long = [content(), vec![0]].concat();
    let outcome = download(vec![Act::Good { tag: "a" }], &long, None).await;
    outcome.result.unwrap();
    assert!(outcome.file == content());
}

#[tokio::test]
async fn a_link_in_the_file_s_place_is_replaced_and_not_written_through() {
    let server = Server::start(vec![Act::Good { tag: "a" }]).await;
    let dir = tempfile::tempdir().unwrap();
    let (outside, into) = (dir.path().join("outside"), dir.path().join("file"));
    fs::write(&outside, b"").unwrap();
    std::os::unix::fs::symlink(&outside, &into).unwrap();
    server.transport().download("blobs/abc", 800_000, &into, &|_| {}).await.unwrap();
    assert!(fs::symlink_metadata(&into).unwrap().is_file());
    assert_eq!(fs::read(&outside).unwrap(), b"");
}

#[tokio::test]
async fn small_files_are_bounded_and_a_missing_one_is_no_error() {
    let acts = vec![
        say("404 Not Found", ""),
        Act::Good { tag: "a" },
        Act::Endless { head: "HTTP/1.1 200 OK\r\n\r\n" },
        say("500 Internal Server Error", ""),
        Act::Good { tag: "a" },
    ];
    let server = Server::start(acts).await;
    let transport = server.transport();
    let get = async |max| timeout(GUARD, transport.get("metadata/timestamp.json", max)).await.unwrap();
    assert_eq!(get(10).await.unwrap(), None);
    assert_eq!(get(10).await.unwrap_err().code, ReasonCode::SizeMismatch);
    assert_eq!(get(1_000_000).await.unwrap_err().code, ReasonCode::SizeMismatch);
    assert!(get(1_000_000).await.unwrap().unwrap() == content(), "after an error of the server");
}

#[tokio::test]
async fn nobody_listening_is_told_with_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let server = Server { url, requests: Arc::default() };
    let reason = server.transport().get("a", 10).await.unwrap_err();
    assert_eq!(reason.code, ReasonCode::RepositoryUnreachable);
    assert!(
        reason.detail.contains("fetch http://127.0.0.1:") && reason.detail.contains("refused"),
        "{reason}"
    );
}

#[tokio::test]
async fn no_path_leaves_the_repository() {
    let server = Server { url: "http://127.0.0.1:9/repo/".parse().unwrap(), requests: Arc::default() };
    let transport = server.transport();
    for path in [
        "../a",
        "a/../b",
        "/a",
        "",
        "a//b",
        "a/",
        "./a",
        "a\\b",
        "a/%2e%2E/b",
        "%2e/a",
        "a%5Cb",
        "a%00b",
        "%ff",
    ] {
        assert_eq!(transport.get(path, 1).await.unwrap_err().code, ReasonCode::Malformed, "{path}");
    }
    assert_eq!(transport.get("http://other/x", 1).await.unwrap_err().code, ReasonCode::Malformed);
    assert_eq!(transport.url("http:/x?b#c").unwrap().as_str(), "http://127.0.0.1:9/repo/http:/x%3Fb%23c");
    // The names of roles come encoded, and stay one part of the path.
    let role = "metadata/1...%2Fa%3F%23.json";
    assert_eq!(transport.url(role).unwrap().as_str(), format!("http://127.0.0.1:9/repo/{role}"));
}

#[tokio::test]
async fn other_schemes_are_refused() {
    for url in ["ftp://host/", "file:///srv/repo/", "data:,x"] {
        let settings = RepositorySettings {
            url: None,
            root: PathBuf::new(),
            stall_timeout: GUARD,
            retries: 1,
            rate_limit: 0,
            access: AccessSettings::default(),
        };
        assert_eq!(
            HttpTransport::new(&url.parse().unwrap(), &settings).unwrap_err().code,
            ReasonCode::BadRequest,
            "{url}"
        );
    }
}

/// A slow machine takes longer still: only the lower bound is certain.
#[tokio::test]
async fn the_rate_limit_slows_a_download_down() {
    let server = Server::start(vec![Act::Good { tag: "a" }]).await;
    let mut transport = server.transport();
    transport.throttle = Arc::new(Throttle::new(800_000));
    let dir = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    transport.download("blobs/abc", 800_000, &dir.path().join("file"), &|_| {}).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(990), "{:?}", begun.elapsed());
}
