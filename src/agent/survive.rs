//! That an update survives anything: its whole way, with the real driver, the real verification and a real
//! repository, on a disk that loses power, or fails, at each of its operations.
//!
//! `fleet` is a small repository made by our own publisher, `device` an agent's update side with models that
//! do as they are told, `scenario` what is done on it, `cuts` a power cut at every operation and the recovery
//! from each disk that it may leave, and `faults` a disk that is full, or broken, or read-only from each
//! operation on. `server` is the web server of one scenario.
//!
//! What each scenario went through is printed as a line, and put into the folder that
//! `EDGEWARDEN_POWER_CUTS` names: `packaging/power-cuts.sh` makes a table of it.

mod cuts;
mod device;
mod faults;
mod fleet;
mod scenario;
mod server;

use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A folder for a device's disk: in memory where this machine has that, for a real disk's syncs take long.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => tempfile::tempdir_in(memory).unwrap(),
        false => tempfile::tempdir().unwrap(),
    }
}

/// A line of the table.
fn tell(kind: &str, name: &str, line: &str) {
    println!("{kind}: {line}");
    if let Some(folder) = std::env::var_os("EDGEWARDEN_POWER_CUTS").map(PathBuf::from) {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{kind}-{name}")), format!("{line}\n")).unwrap();
    }
}
