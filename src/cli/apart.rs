//! Waiting for a process that a command has started, and no longer than it says.

use std::io;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// Looking whether it has ended.
const LOOK: Duration = Duration::from_millis(10);

/// Waits for `child` to end. `None`: it took longer than `time`, and was killed.
///
/// # Errors
/// It cannot be waited for.
pub fn ended_within(child: &mut Child, time: Duration) -> io::Result<Option<ExitStatus>> {
    let until = Instant::now() + time;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= until {
            let _ = child.kill();
            let _ = child.wait();
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_that_takes_too_long_is_killed_and_reaped() {
        let mut quick = Command::new("true").spawn().unwrap();
        assert!(ended_within(&mut quick, Duration::from_secs(30)).unwrap().unwrap().success());
        let mut slow = Command::new("sleep").arg("600").spawn().unwrap();
        assert_eq!(ended_within(&mut slow, Duration::from_millis(30)).unwrap(), None);
        assert!(!slow.try_wait().unwrap().unwrap().success());
    }
}
