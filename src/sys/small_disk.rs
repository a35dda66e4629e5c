//! A disk that tests can fill, for what becomes of it then.

use std::fs::File;
use std::path::{Path, PathBuf};

/// A small disk that is unmounted at the end; `None`, told, where this user may not mount.
pub fn small_disk(test: &str) -> Option<(tempfile::TempDir, impl Drop)> {
    struct Unmount(PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status();
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
        .arg(dir.path())
        .output()
        .is_ok_and(|output| output.status.success());
    if !mounted {
        eprintln!("skipped {test}: only root can mount a small disk");
        return None;
    }
    let mount = Unmount(dir.path().to_owned());
    Some((dir, mount))
}

/// Fills the disk to the last byte.
pub fn fill(dir: &Path) -> PathBuf {
    let filler = dir.join("filler");
    let mut file = File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[1; 512]).is_ok() {}
    filler
}
