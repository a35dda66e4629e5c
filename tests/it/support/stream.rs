//! What the tests of stream sources share: films made by ffmpeg, an RTSP server, a camera over HTTP,
//! and what is installed.

use crate::support::{HANG, root, wait_until};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// True when all of them can be run; else says that the test is skipped. `packaging/setup.sh --tests`
/// installs them, and `packaging/test.sh` calls that.
pub fn installed(programs: &[&str]) -> bool {
    let missing: Vec<&&str> = programs.iter().filter(|name| !has(name)).collect();
    if !missing.is_empty() {
        println!("skipped: not installed: {missing:?} (packaging/setup.sh --tests installs them)");
    }
    missing.is_empty()
}

fn has(name: &str) -> bool {
    let Some(element) = name.strip_prefix("gst:") else {
        return Command::new("sh")
            .args(["-c", "command -v \"$0\" >/dev/null", name])
            .status()
            .is_ok_and(|status| status.success());
    };
    Command::new("gst-inspect-1.0")
        .args(["--exists", element])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The GStreamer elements that reading a film or a network camera takes.
pub const GSTREAMER: [&str; 4] = ["gst-launch-1.0", "gst:decodebin", "gst:y4menc", "gst:avdec_h264"];

/// A real H.264 film of so many frames, each of another grey, so that every frame can be told.
pub fn film(folder: &Path, size: (u32, u32), frames: u32) -> PathBuf {
    let file = folder.join("film 1: \"it's\".mp4");
    let (width, height) = size;
    let greys = format!(
        "nullsrc=size={width}x{height}:rate=25,format=yuv420p,geq=lum='16+mod(N*7,220)':cb=128:cr=128"
    );
    let made = Command::new("ffmpeg")
        .args(["-nostdin", "-hide_banner", "-loglevel", "error", "-f", "lavfi", "-i", &greys])
        .args(["-frames:v", &frames.to_string(), "-c:v", "libx264", "-qp", "4", "-g", "10", "-y"])
        .arg(format!("file:{}", file.display()))
        .status()
        .unwrap();
    assert!(made.success(), "ffmpeg made no film");
    file
}

/// The number of the film's frame that this grey is, modulo 220.
pub fn grey_of(frame: u32) -> u8 {
    (16 + frame * 7 % 220) as u8
}

/// A real RTSP server, GStreamer's, as a process of its own; dropping it kills it.
pub struct RtspServer {
    process: Child,
    /// Where it listens.
    pub port: u16,
}

impl RtspServer {
    /// True when it can be started; else says why not.
    pub fn installed() -> bool {
        let script =
            "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer";
        let there = Command::new("/usr/bin/python3").args(["-c", script]).stderr(Stdio::null()).status();
        let there = there.is_ok_and(|status| status.success());
        if !there {
            println!(
                "skipped: no RTSP server: gir1.2-gst-rtsp-server-1.0 (packaging/setup.sh --tests installs it)"
            );
        }
        there && installed(&["ffmpeg", "gst:rtph264pay", "gst:openh264enc"])
    }

    /// Starts it on `port` (0: any). With `login`, only `me` with that password is served.
    pub fn start(port: u16, login: Option<&str>) -> Self {
        let mut process = Command::new("/usr/bin/python3")
            .arg(root().join("tests/it/support/rtsp_server.py"))
            .arg(port.to_string())
            .args(login)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().unwrap_or_else(|_| panic!("the RTSP server said {line:?}"));
        Self { process, port }
    }

    /// Where its camera is.
    pub fn url(&self) -> String {
        format!("rtsp://127.0.0.1:{}/cam", self.port)
    }
}

impl Drop for RtspServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A camera that sends JPEGs over HTTP without end, as network cameras do.
pub struct HttpCamera {
    /// Where it listens.
    pub port: u16,
    stop: Arc<AtomicBool>,
    /// Requests that came with the right user and password.
    pub let_in: Arc<AtomicUsize>,
}

impl HttpCamera {
    /// Sends `pictures` in turn. With `login` (`user:password` in base64) it asks for that.
    pub fn start(pictures: Vec<Vec<u8>>, login: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, let_in) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, counted) = (stop.clone(), let_in.clone());
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (pictures, stopped, counted) = (pictures.clone(), stopped.clone(), counted.clone());
                // An ended reader is an error here, and the end of the thread.
                std::thread::spawn(move || serve(connection, &pictures, login, &stopped, &counted));
            }
        });
        Self { port, stop, let_in }
    }
}

impl Drop for HttpCamera {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(
    mut to: TcpStream,
    pictures: &[Vec<u8>],
    login: Option<&str>,
    stop: &AtomicBool,
    let_in: &AtomicUsize,
) -> std::io::Result<()> {
    let mut allowed = login.is_none();
    for line in BufReader::new(to.try_clone()?).lines() {
        let line = line?;
        let basic =
            line.split_once("Basic ").filter(|(name, _)| name.eq_ignore_ascii_case("authorization: "));
        allowed |= basic.is_some_and(|(_, given)| Some(given) == login);
        if line.is_empty() {
            break;
        }
    }
    if !allowed {
        let refusal = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"cam\"\r\nContent-Length: 0\r\n\
                       Connection: close\r\n\r\n";
        return to.write_all(refusal.as_bytes());
    }
    let_in.fetch_add(1, Ordering::Relaxed);
    to.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n")?;
    for picture in pictures.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let length = picture.len();
        write!(to, "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {length}\r\n\r\n")?;
        to.write_all(picture)?;
        to.write_all(b"\r\n")?;
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Ok(())
}

/// Processes whose command line holds this word.
pub fn running(word: &str) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id() && command_line(*pid).contains(word)).collect()
}

/// The whole command line of a process, as `ps` shows it; empty when it is gone or dead.
pub fn command_line(pid: u32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// Waits until no process has this word in its command line.
pub fn wait_gone(word: &str) {
    wait_until(&format!("the end of {word}"), HANG, || running(word).is_empty().then_some(()));
}
