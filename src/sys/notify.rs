//! What the agent tells its supervisor (systemd, `Type=notify`). Without `NOTIFY_SOCKET` nothing is
//! said and nothing fails.
//!
//! The watchdog is fed by finished frames, never by a timer: an agent whose timers run while no
//! frame gets through is what a watchdog is for.
//!
//! Nothing here waits: a supervisor that does not read (its socket holds about ten messages) must not
//! hold up the agent. What does not fit is dropped; only the start and the end of the agent are tried
//! again, by a thread of their own and for a limited time.

use crate::domain::PipelineName;
use sd_notify::NotifyState;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// Longest status line, characters.
const MAX_STATUS: usize = 200;
/// A message that must arrive is tried for so long, this often: systemd's own patience at a start.
const INSIST: (Duration, Duration) = (Duration::from_secs(90), Duration::from_millis(50));

/// The agent has started: its pipelines are set up and it takes commands.
pub fn ready(status: &str) {
    insist(&[NotifyState::Ready, NotifyState::Status(&line(status))]);
}

/// One line for `systemctl status`.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(&line(status))]);
}

/// The agent ends.
pub fn stopping(status: &str) {
    insist(&[NotifyState::Stopping, NotifyState::Status(&line(status))]);
}

/// The agent is alive; said only when a [`Watchdog`] has found it so.
pub fn feed() {
    tell(&[NotifyState::Watchdog]);
}

/// How often the watchdog wants to be asked about: a third of `WATCHDOG_USEC`, so that one late
/// frame does no harm; `None` when nobody watches this process.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 3)
}

/// Says it if there is room for it.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = send(&message(states)) {
        tracing::warn!("tell the service manager: {error}; dropped");
    }
}

/// Says it, and where there is no room tries again beside the agent's work.
fn insist(states: &[NotifyState<'_>]) {
    let text = message(states);
    let again = match send(&text) {
        Ok(()) => return,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            std::thread::Builder::new().name("notify".to_owned()).spawn(move || try_again(&text)).map(drop)
        }
        Err(error) => Err(error),
    };
    if let Err(error) = again {
        tracing::warn!("tell the service manager: {error}");
    }
}

fn try_again(text: &str) {
    let start = Instant::now();
    loop {
        std::thread::sleep(INSIST.1);
        match send(text) {
            Ok(()) => return,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && start.elapsed() < INSIST.0 => {}
            Err(error) => return tracing::warn!("tell the service manager: {error}"),
        }
    }
}

fn message(states: &[NotifyState<'_>]) -> String {
    states.iter().fold(String::new(), |mut text, state| {
        // A text takes all that is written to it.
        let _ = writeln!(text, "{state}");
        text
    })
}

/// One datagram to `NOTIFY_SOCKET`, without waiting for room: `WouldBlock` where there is none.
fn send(text: &str) -> io::Result<()> {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address(&name)?)?;
    match socket.send(text.as_bytes())? {
        sent if sent == text.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// A path, or `@name` for a socket that has none (systemd in a container).
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}

/// The protocol has one assignment per line.
fn line(text: &str) -> String {
    text.chars().take(MAX_STATUS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A pipeline's sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulse {
    /// The pipeline.
    pub pipeline: PipelineName,
    /// Frames finished since the agent started, also those that ended in an error.
    pub finished: u64,
    /// True while no frame can be expected: no bundle yet, paused, at the end of its folder, or its
    /// child is known to be away and waits for its restart.
    pub waiting: bool,
}

/// Decides whether the watchdog is fed.
#[derive(Debug, Default)]
pub struct Watchdog {
    /// Finished frames when it was fed last.
    fed: BTreeMap<PipelineName, u64>,
}

impl Watchdog {
    /// True when every pipeline has finished a frame since this was last true, or waits for a good
    /// reason. Ask once per [`watchdog_interval`].
    pub fn due(&mut self, pulses: &[Pulse]) -> bool {
        let alive = |pulse: &Pulse| {
            pulse.waiting || pulse.finished > self.fed.get(&pulse.pipeline).copied().unwrap_or(0)
        };
        if !pulses.iter().all(alive) {
            return false;
        }
        self.fed = pulses.iter().map(|pulse| (pulse.pipeline.clone(), pulse.finished)).collect();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;

    fn pulse(pipeline: &str, finished: u64, waiting: bool) -> Pulse {
        Pulse { pipeline: pipeline.parse().unwrap(), finished, waiting }
    }

    #[test]
    fn only_frames_of_every_pipeline_feed_it() {
        let mut watchdog = Watchdog::default();
        assert!(!watchdog.due(&[pulse("a", 0, false)]), "no frame yet");
        assert!(watchdog.due(&[pulse("a", 5, false), pulse("b", 1, false)]));
        assert!(!watchdog.due(&[pulse("a", 9, false), pulse("b", 1, false)]), "b hangs");
        assert!(!watchdog.due(&[pulse("a", 20, false), pulse("b", 1, false)]));
        assert!(watchdog.due(&[pulse("a", 20, false), pulse("b", 2, false)]), "a's frames since then count");
        assert!(!watchdog.due(&[pulse("a", 20, false), pulse("b", 3, false)]));
        assert!(watchdog.due(&[pulse("a", 20, true), pulse("b", 3, false)]), "a waits for a good reason");
        assert!(!watchdog.due(&[pulse("a", 20, false), pulse("b", 4, false)]), "and no longer");
        assert!(watchdog.due(&[]), "nothing to do is no hang");
    }

    /// Says everything once. Run by itself it shows that nothing fails without a supervisor; run as
    /// a process of the next test, with a socket.
    #[test]
    fn says_everything_once() {
        ready("1 pipeline\nREADY=0");
        status("belt 15 fps");
        feed();
        stopping("bye");
        let watched = std::env::var_os("WATCHDOG_USEC").is_some();
        assert_eq!(watchdog_interval(), watched.then_some(Duration::from_secs(3)));
    }

    #[test]
    fn a_supervisor_hears_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        // The environment of this process is shared by all tests: another one gets the socket.
        let done = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sys::notify::tests::says_everything_once"])
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "9000000")
            .env_remove("WATCHDOG_PID")
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
        for expected in [
            "READY=1\nSTATUS=1 pipeline READY=0\n",
            "STATUS=belt 15 fps\n",
            "WATCHDOG=1\n",
            "STOPPING=1\nSTATUS=bye\n",
        ] {
            let mut buffer = [0; 1024];
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(std::str::from_utf8(&buffer[..length]).unwrap(), expected);
        }
    }

    /// As a process of the next test: says far more than a socket holds that nobody reads.
    #[test]
    fn says_more_than_fits() {
        let Some(folder) = std::env::var_os("EDGEWARDEN_TEST_NOTIFY").map(std::path::PathBuf::from) else {
            return;
        };
        for number in 0..1000 {
            status(&number.to_string());
            feed();
        }
        ready("here I am");
        std::fs::write(folder.join("said"), "").unwrap();
        let start = Instant::now();
        while !folder.join("heard").exists() && start.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn a_supervisor_that_does_not_read_holds_nothing_up_and_hears_of_the_start_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sys::notify::tests::says_more_than_fits"])
            .env("NOTIFY_SOCKET", &path)
            .env("EDGEWARDEN_TEST_NOTIFY", dir.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while !dir.path().join("said").exists() {
            if start.elapsed() > Duration::from_secs(30) {
                let _ = child.kill();
                panic!("it waits for its supervisor");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let heard = (0..1000).any(|_| {
            let mut buffer = [0; 1024];
            let length = socket.recv(&mut buffer).unwrap();
            buffer[..length].starts_with(b"READY=1\n")
        });
        assert!(heard, "what must arrive has arrived");
        std::fs::write(dir.path().join("heard"), "").unwrap();
        assert!(child.wait().unwrap().success());
    }
}
