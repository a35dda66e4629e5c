//! A web server for a repository that breaks off the first time.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes that are sent at a time.
const PIECE: usize = 2000;

/// Files of at least so many bytes are broken off.
const LARGE: usize = 5000;

/// Serves until the process ends.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    breaks_off: Arc<AtomicBool>,
}

impl Server {
    pub(super) fn start(repository: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let breaks_off = Arc::new(AtomicBool::new(false));
        let once = breaks_off.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (repository, once) = (repository.clone(), once.clone());
                // Whoever hangs up early is no fault of the server.
                std::thread::spawn(move || drop(answer(&repository, &stream, &once)));
            }
        });
        Self { address, breaks_off }
    }

    /// Sends half of the next large file.
    pub(super) fn break_off(&self) {
        self.breaks_off.store(true, Ordering::SeqCst);
    }
}

fn answer(repository: &Path, mut stream: &TcpStream, breaks_off: &AtomicBool) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap_or(Ok(String::new()))?;
    let path = first.split(' ').nth(1).unwrap_or("/").trim_start_matches('/').to_owned();
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let Ok(bytes) = fs::read(repository.join(&path)) else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    };
    let tag = format!("\"{:08x}\"", crc32fast::hash(&bytes));
    let from = headers
        .get("range")
        .filter(|_| headers.get("if-range").is_none_or(|wanted| *wanted == tag))
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok())
        .filter(|from| *from < bytes.len());
    let status = match from {
        Some(from) => {
            format!("206 Partial Content\r\ncontent-range: bytes {from}-{}/{}", bytes.len() - 1, bytes.len())
        }
        None => "200 OK".to_owned(),
    };
    let body = &bytes[from.unwrap_or(0)..];
    let head = format!(
        "HTTP/1.1 {status}\r\netag: {tag}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    let breaks = body.len() >= LARGE && breaks_off.swap(false, Ordering::SeqCst);
    let sent = if breaks { &body[..body.len() / 2] } else { body };
    for piece in sent.chunks(PIECE) {
        stream.write_all(piece)?;
        // Another packet, another write to the disk.
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    Ok(())
}
