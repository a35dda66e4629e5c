//! What the agent tells its supervisor (systemd, `Type=notify`). Without `NOTIFY_SOCKET` nothing is
//! said and nothing fails.
//!
//! The watchdog is fed by finished frames, never by a timer: an agent whose timers run while no
//! frame gets through is what a watchdog is for.

use crate::domain::PipelineName;
use sd_notify::NotifyState;
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest status line, characters.
const MAX_STATUS: usize = 200;

/// The agent has started: its pipelines are set up and it takes commands.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(&line(status))]);
}

/// One line for `systemctl status`.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(&line(status))]);
}

/// The agent ends.
pub fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(&line(status))]);
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

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("tell the service manager: {error}");
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
}
