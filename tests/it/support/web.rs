//! A static web server on loopback that can misbehave: it says no, stalls, lies about the size, changes
//! a byte, or resets the connection, for the paths that it is told to.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What goes wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// This status and no file.
    Status(u16),
    /// So many bytes of the body, then silence until the trouble is over.
    Stall(usize),
    /// So many bytes of the body, then the connection is reset.
    Reset(usize),
    /// Says that the body is so many bytes longer than it is, and sends junk for them.
    Longer(usize),
    /// Says and sends so many bytes fewer than the file has.
    Shorter(usize),
    /// The byte in the middle is another one.
    Flip,
    /// Junk without end and without saying how much, also where there is no such file.
    Endless,
    /// A byte now and then, so that it is never silent.
    Drip,
}

#[derive(Default)]
struct Shared {
    folder: Mutex<PathBuf>,
    troubles: Mutex<Vec<(String, Trouble)>>,
    /// What was asked for: the path, and the first byte wanted.
    asked: Mutex<Vec<(String, u64)>>,
    ended: AtomicBool,
}

/// A running server; ends with the value.
pub struct Web {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Web {
    /// Serves a folder on a free port.
    pub fn start(folder: &Path) -> Self {
        Self::start_at(folder, (Ipv4Addr::LOCALHOST, 0).into())
    }

    /// Serves a folder at this address, where nobody else listens.
    pub fn start_at(folder: &Path, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared { folder: Mutex::new(folder.to_owned()), ..Shared::default() });
        let serving = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if serving.ended.load(Ordering::Relaxed) {
                    return;
                }
                let shared = serving.clone();
                // An answer that cannot be sent is the client's affair.
                std::thread::spawn(move || drop(answer(stream, &shared)));
            }
        });
        Self { address, shared }
    }

    /// Where it serves.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on another folder is served.
    pub fn serve(&self, folder: &Path) {
        folder.clone_into(&mut self.shared.folder.lock().unwrap());
    }

    /// From now on this goes wrong wherever the path holds `part`.
    pub fn trouble(&self, part: &str, trouble: Trouble) {
        self.shared.troubles.lock().unwrap().push((part.to_owned(), trouble));
    }

    /// All is well again; answers that stall go on.
    pub fn well(&self) {
        self.shared.troubles.lock().unwrap().clear();
    }

    /// What was asked for so far: the path, and the first byte wanted.
    pub fn asked(&self) -> Vec<(String, u64)> {
        self.shared.asked.lock().unwrap().clone()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.shared.troubles.lock().unwrap().clear();
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn trouble(&self, path: &str) -> Option<Trouble> {
        let troubles = self.troubles.lock().unwrap();
        troubles.iter().find(|(part, _)| path.contains(part)).map(|(_, trouble)| *trouble)
    }
}

fn answer(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
    let mut from = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        if header.trim().is_empty() {
            break;
        }
        if let Some(range) = header.to_ascii_lowercase().strip_prefix("range: bytes=") {
            from = range.trim().trim_end_matches('-').parse().unwrap_or(0);
        }
    }
    shared.asked.lock().unwrap().push((path.clone(), from));
    let trouble = shared.trouble(&path);
    if let Some(Trouble::Status(status)) = trouble {
        return write!(stream, "HTTP/1.1 {status} Trouble\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    if trouble == Some(Trouble::Endless) {
        write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
        // Until the client hangs up.
        loop {
            stream.write_all(&[b' '; 16 << 10])?;
        }
    }
    let file = shared.folder.lock().unwrap().join(path.trim_start_matches('/'));
    let Ok(mut body) = std::fs::read(&file) else {
        return write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let whole = body.len();
    match trouble {
        Some(Trouble::Flip) => body[whole / 2] ^= 1,
        Some(Trouble::Longer(more)) => body.resize(whole + more, b'x'),
        Some(Trouble::Shorter(fewer)) => body.truncate(whole.saturating_sub(fewer)),
        Some(
            Trouble::Stall(_) | Trouble::Reset(_) | Trouble::Status(_) | Trouble::Endless | Trouble::Drip,
        )
        | None => {}
    }
    let from = usize::try_from(from).unwrap_or(usize::MAX).min(body.len());
    let (size, body) = (body.len(), &body[from..]);
    if from > 0 {
        let last = size.saturating_sub(1);
        write!(stream, "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{last}/{size}\r\n")?;
    } else {
        write!(stream, "HTTP/1.1 200 OK\r\n")?;
    }
    write!(
        stream,
        "ETag: \"{size}\"\r\nAccept-Ranges: bytes\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    match trouble {
        Some(Trouble::Reset(after)) => {
            stream.write_all(&body[..after.min(body.len())])?;
            stream.flush()?;
            // Closed with nothing lingering, the kernel resets.
            rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
            Ok(())
        }
        Some(Trouble::Stall(after)) => {
            let after = after.min(body.len());
            stream.write_all(&body[..after])?;
            stream.flush()?;
            while matches!(shared.trouble(&path), Some(Trouble::Stall(_))) {
                std::thread::sleep(Duration::from_millis(20));
            }
            stream.write_all(&body[after..])
        }
        Some(Trouble::Drip) => {
            for byte in body {
                stream.write_all(&[*byte])?;
                std::thread::sleep(Duration::from_millis(50));
                if shared.trouble(&path) != Some(Trouble::Drip) {
                    break;
                }
            }
            Ok(())
        }
        Some(
            Trouble::Status(_) | Trouble::Longer(_) | Trouble::Shorter(_) | Trouble::Flip | Trouble::Endless,
        )
        | None => stream.write_all(body),
    }
}
