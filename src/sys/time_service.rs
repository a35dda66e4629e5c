//! Whether the clock is set by a time service.

use std::path::Path;

/// Whether the clock follows a time server: systemd-timesyncd leaves a mark, and the kernel knows of
/// every other service. `None` where neither can be asked.
pub fn clock_synchronised(root: &Path) -> Option<bool> {
    if root.join("run/systemd/timesync/synchronized").exists() {
        return Some(true);
    }
    // SAFETY: an all-zero `timex` asks without changing (modes 0), and the call writes only into it.
    let (state, status) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut timex), timex.status)
    };
    // A container may forbid the question.
    (state >= 0).then_some(state != libc::TIME_ERROR && status & libc::STA_UNSYNC == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_of_timesyncd_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("run/systemd/timesync")).unwrap();
        std::fs::write(dir.path().join("run/systemd/timesync/synchronized"), "").unwrap();
        assert_eq!(clock_synchronised(dir.path()), Some(true));
    }
}
