//! How far a capture child can be locked in: that depends on who reads its source.
//!
//! | source | what it may still do |
//! | --- | --- |
//! | synthetic, folder, v4l2, serial, iio | read its pictures and what the system's libraries need, write frames, wake the models |
//! | mqtt | the same as before but for other programs, other processes and the rights of files |
//! | video, rtsp, http, csi, command, lines | what their programs may: these open files, networks and devices of their own |
//!
//! What was opened before the lock stays open: a camera is held, not looked for again; one that was lost is
//! opened by the next child.

use crate::domain::source::{SensorFrom, SourceSettings};
use crate::process::protocol::FrameChannel;
use crate::sys::lockdown::{self, Role};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Folders that links among the pictures lead to; more are not looked at.
const MAX_LINKED: usize = 64;
/// Entries of a folder that are looked at for links.
const MAX_ENTRIES: usize = 10_000;

fn role(source: &SourceSettings) -> Role {
    match source {
        SourceSettings::Synthetic { .. } | SourceSettings::Folder { .. } | SourceSettings::V4l2(_) => {
            Role::Reader
        }
        SourceSettings::Stream(_) => Role::Starter,
        SourceSettings::Sensor(sensor) => match sensor.from {
            SensorFrom::Serial { .. } | SensorFrom::Iio { .. } => Role::Reader,
            SensorFrom::Mqtt { .. } => Role::Client,
            SensorFrom::Command { .. } => Role::Starter,
        },
    }
}

/// Before the source is opened: what starts threads or programs must be locked in first.
pub fn before(source: &SourceSettings) {
    match role(source) {
        Role::Model | Role::Reader => {}
        role @ (Role::Client | Role::Starter) => lockdown::refuse_calls(role).tell("the source's"),
    }
}

/// When the source is open, and before a byte of it is read.
pub fn after(source: &SourceSettings, channel: &FrameChannel) {
    if role(source) == Role::Reader {
        lockdown::lock_down(Role::Reader, &read(source), std::slice::from_ref(&channel.root))
            .tell("the source's");
    }
}

/// What is read on after the source was opened.
fn read(source: &SourceSettings) -> Vec<PathBuf> {
    match source {
        SourceSettings::Folder { path, .. } => {
            let mut folders = linked(path);
            folders.insert(path.clone());
            folders.into_iter().collect()
        }
        SourceSettings::Sensor(sensor) => match &sensor.from {
            SensorFrom::Iio { root, .. } => vec![root.clone()],
            SensorFrom::Serial { .. } | SensorFrom::Mqtt { .. } | SensorFrom::Command { .. } => Vec::new(),
        },
        SourceSettings::Synthetic { .. } | SourceSettings::V4l2(_) | SourceSettings::Stream(_) => Vec::new(),
    }
}

/// The folders of the pictures that are links.
fn linked(folder: &Path) -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().take(MAX_ENTRIES);
    let links = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()));
    let targets = links.filter_map(|link| link.path().canonicalize().ok());
    let mut folders = BTreeSet::new();
    for target in targets {
        if folders.len() == MAX_LINKED {
            tracing::warn!(
                "folder {}: links lead to more than {MAX_LINKED} folders; pictures beyond cannot be read",
                folder.display()
            );
            break;
        }
        folders.extend(target.parent().map(Path::to_owned));
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_behind_links_stay_readable() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for folder in ["pictures", "elsewhere", "other"] {
            std::fs::create_dir(path(folder)).unwrap();
        }
        std::fs::write(path("elsewhere/a.jpg"), b"a").unwrap();
        std::fs::write(path("other/b.jpg"), b"b").unwrap();
        std::os::unix::fs::symlink("../elsewhere/a.jpg", path("pictures/a.jpg")).unwrap();
        std::os::unix::fs::symlink("/nowhere", path("pictures/c.jpg")).unwrap();
        let source = SourceSettings::Folder { path: path("pictures"), repeat: true };
        assert_eq!(role(&source), Role::Reader);
        let folders = [path("elsewhere").canonicalize().unwrap(), path("pictures")];
        assert_eq!(read(&source).into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(folders));
    }
}
