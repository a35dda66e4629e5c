//! What the agent tells its supervisor (systemd, `Type=notify`). Without `NOTIFY_SOCKET` nothing is
//! said and nothing fails.
//!
//! What feeds the watchdog is decided by [`domain::watchdog`](crate::domain::watchdog).
//!
//! Nothing here waits: a supervisor that does not read (its socket holds about ten messages) must not
//! hold up the agent. What does not fit is dropped; only the start and the end of the agent are tried
//! again, by a thread of their own and for a limited time.

use sd_notify::NotifyState;
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

/// The agent is alive; said only when a [`Watchdog`](crate::domain::watchdog::Watchdog) has found it so.
/// False where there was no room for it: it is worth another try soon.
pub fn feed() -> bool {
    tell(&[NotifyState::Watchdog])
}

/// How often the watchdog wants to be asked about: a third of `WATCHDOG_USEC`, so that one that comes late
/// does no harm; `None` when nobody watches this process.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 3)
}

/// Says it if there is room for it.
fn tell(states: &[NotifyState<'_>]) -> bool {
    let said = send(&message(states));
    if let Err(error) = &said {
        tracing::warn!("tell the service manager: {error}; dropped");
    }
    said.is_ok()
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;

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
