//! A web server at the level of sockets that plays a part for each request, request by request, and counts
//! what it was asked for and what it sent. Files are read as they are sent, so that they may be of any size.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What is done about one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// As a server should.
    Good,
    /// A status line, headers, and no file.
    Say(&'static str),
    /// Bytes that are no HTTP.
    Rubbish(&'static str),
    /// So many bytes of the body, then a reset.
    Reset(u64),
    /// So many bytes of the body, then an orderly end.
    Close(u64),
    /// So many bytes of the body, then silence until [`FaultyWeb::release`].
    Stall(u64),
    /// Silence instead of an answer until [`FaultyWeb::release`].
    Silent,
    /// A byte now and then.
    Drip,
    /// The beginning of the file, said to be such, whatever part was asked for.
    WrongRange,
    /// The whole file under another tag, whatever part was asked for.
    OtherTag,
    /// The rest under another tag, though only that of the known one was asked for.
    OtherRest,
    /// The whole file, whatever part was asked for, and no tag.
    NoRanges,
    /// Says that it is compressed.
    Gzip,
    /// Says and sends so many bytes more than there are.
    Longer(u64),
    /// Says and sends so many bytes fewer.
    Shorter(u64),
    /// Bytes without end and without saying how many.
    Endless,
    /// Leads to the same path on another server.
    To(String),
    /// Leads in a circle.
    Circle,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its path.
    pub path: String,
    /// The first byte asked for.
    pub from: u64,
    /// Bytes of the body that were sent.
    pub sent: u64,
}

#[derive(Default)]
struct Shared {
    folder: PathBuf,
    /// Paths that hold this text play these acts, one a request; then all is well, or the last goes on.
    plan: Mutex<(String, Vec<Act>, bool)>,
    asked: Mutex<Vec<Asked>>,
    released: AtomicBool,
    ended: AtomicBool,
}

/// A running server; ends with the value.
pub struct FaultyWeb {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl FaultyWeb {
    /// Serves a folder on a free port.
    pub fn start(folder: &Path) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared { folder: folder.to_owned(), ..Shared::default() });
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

    /// From now on requests whose path holds `part` play these acts, one each; after the last all is well, or
    /// with `forever` the last goes on. What was counted so far is forgotten.
    pub fn plan(&self, part: &str, acts: Vec<Act>, forever: bool) {
        self.shared.released.store(false, Ordering::Relaxed);
        *self.shared.plan.lock().unwrap() = (part.to_owned(), acts, forever);
        self.shared.asked.lock().unwrap().clear();
    }

    /// All is well from now on, and who was kept waiting is served.
    pub fn release(&self) {
        self.shared.plan.lock().unwrap().1.clear();
        self.shared.released.store(true, Ordering::Relaxed);
    }

    /// Requests so far whose path holds this text.
    pub fn asked(&self, part: &str) -> Vec<Asked> {
        let asked = self.shared.asked.lock().unwrap();
        asked.iter().filter(|asked| asked.path.contains(part)).cloned().collect()
    }
}

impl Drop for FaultyWeb {
    fn drop(&mut self) {
        self.release();
        self.shared.ended.store(true, Ordering::Relaxed);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    /// The act for a request, and the request's number.
    fn begin(&self, path: &str, from: u64) -> (Act, usize) {
        let mut asked = self.asked.lock().unwrap();
        asked.push(Asked { path: path.to_owned(), from, sent: 0 });
        let number = asked.len() - 1;
        let (part, acts, forever) = &mut *self.plan.lock().unwrap();
        let act = match acts.first() {
            Some(first) if path.contains(part.as_str()) => {
                let first = first.clone();
                if acts.len() > 1 || !*forever {
                    acts.remove(0);
                }
                first
            }
            Some(_) | None => Act::Good,
        };
        (act, number)
    }

    fn wait(&self) {
        while !self.released.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The stream to the client, which counts a request's body.
struct Body<'a> {
    stream: TcpStream,
    shared: &'a Shared,
    number: usize,
}

impl Body<'_> {
    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)?;
        // A plan that was made meanwhile has forgotten it.
        if let Some(asked) = self.shared.asked.lock().unwrap().get_mut(self.number) {
            asked.sent += bytes.len() as u64;
        }
        Ok(())
    }

    /// So many bytes of the file.
    fn send_from(&mut self, file: &mut File, mut count: u64) -> std::io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        while count > 0 {
            let most = usize::try_from(count).unwrap_or(usize::MAX).min(buffer.len());
            let read = file.read(&mut buffer[..most])?;
            if read == 0 {
                break;
            }
            self.send(&buffer[..read])?;
            count -= read as u64;
        }
        self.stream.flush()
    }
}

fn answer(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
    let (mut from, mut only_if) = (0, None);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(range) = header.strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().unwrap_or(0);
        }
        if let Some(tag) = header.strip_prefix("if-range: ") {
            only_if = Some(tag.to_owned());
        }
    }
    let (act, number) = shared.begin(&path, from);
    let head =
        |stream: &mut TcpStream, text: &str| write!(stream, "HTTP/1.1 {text}\r\nConnection: close\r\n");
    let empty = |stream: &mut TcpStream, text: &str| {
        head(stream, text)?;
        write!(stream, "Content-Length: 0\r\n\r\n")
    };
    match &act {
        Act::Say(text) => return empty(&mut stream, text),
        Act::Rubbish(text) => return stream.write_all(text.as_bytes()),
        Act::To(other) => {
            return empty(&mut stream, &format!("302 Found\r\nLocation: {other}{}", &path[1..]));
        }
        Act::Circle => return empty(&mut stream, &format!("302 Found\r\nLocation: {path}")),
        Act::Silent => {
            shared.wait();
            return Ok(());
        }
        Act::Endless => {
            head(&mut stream, "200 OK")?;
            write!(stream, "\r\n")?;
            let mut body = Body { stream, shared, number };
            // Until the client hangs up.
            loop {
                body.send(&[b' '; 16 << 10])?;
            }
        }
        _ => {}
    }
    let Ok(mut file) = File::open(shared.folder.join(path.trim_start_matches('/'))) else {
        return empty(&mut stream, "404 Not Found");
    };
    let whole = file.metadata()?.len();
    let size = match act {
        Act::Longer(more) => whole + more,
        Act::Shorter(fewer) => whole - fewer,
        _ => whole,
    };
    let tag = match act {
        Act::OtherTag | Act::OtherRest => format!("\"other-{whole}\""),
        _ => format!("\"{whole}\""),
    };
    let known = only_if.is_none_or(|only_if| only_if == tag);
    let first = match act {
        Act::WrongRange | Act::OtherTag | Act::NoRanges => 0,
        Act::OtherRest => from,
        _ if known => from,
        _ => 0,
    };
    let part = first > 0 || (act == Act::WrongRange && from > 0);
    if part {
        let last = size - 1;
        head(&mut stream, &format!("206 Partial Content\r\nContent-Range: bytes {first}-{last}/{size}"))?;
    } else {
        head(&mut stream, "200 OK")?;
    }
    if act != Act::NoRanges {
        write!(stream, "ETag: {tag}\r\n")?;
    }
    if act == Act::Gzip {
        write!(stream, "Content-Encoding: gzip\r\n")?;
    }
    let length = size.saturating_sub(first);
    write!(stream, "Content-Length: {length}\r\n\r\n")?;
    file.seek(SeekFrom::Start(first))?;
    let mut body = Body { stream, shared, number };
    match act {
        Act::Reset(after) => {
            body.send_from(&mut file, after)?;
            // Closed with nothing lingering, the kernel resets; what was sent should arrive before.
            std::thread::sleep(Duration::from_millis(50));
            rustix::net::sockopt::set_socket_linger(&body.stream, Some(Duration::ZERO))?;
            Ok(())
        }
        Act::Close(after) => body.send_from(&mut file, after),
        Act::Stall(after) => {
            body.send_from(&mut file, after)?;
            shared.wait();
            body.send_from(&mut file, length)
        }
        Act::Drip => {
            let mut byte = [0];
            while file.read(&mut byte)? > 0 {
                body.send(&byte)?;
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(())
        }
        Act::Longer(more) => {
            body.send_from(&mut file, length)?;
            body.send(&vec![b'x'; usize::try_from(more).unwrap_or(0)])
        }
        _ => body.send_from(&mut file, length),
    }
}
