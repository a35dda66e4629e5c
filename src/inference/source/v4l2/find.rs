//! Which cameras this machine has, by which names, and who holds one.

use super::choose::offered;
use super::kernel::{About, Device, Kind};
use super::offer::{FourCc, Intervals, Mode, Size, readable};
use rustix::io::Errno;
use std::fs;
use std::path::{Path, PathBuf};

/// Device files and links that are looked at.
const MAX_ENTRIES: usize = 256;
/// Processes that are looked at for who holds a camera.
const MAX_PROCESSES: usize = 10_000;

/// A device that gives frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Camera {
    /// Such as `/dev/video0`; the number may be another one at the next plug.
    pub path: PathBuf,
    /// A link to it whose name stays, where the system makes one.
    pub stable: Option<PathBuf>,
    /// What it says of itself.
    pub about: About,
    /// True when it offers a format that can be read.
    pub readable: bool,
}

impl Camera {
    /// Plugged into USB, as opposed to a part of the board.
    pub fn is_usb(&self) -> bool {
        is_usb(&self.about)
    }

    /// Name, path and stable path in one line.
    pub fn line(&self) -> String {
        let link = self.stable.as_ref().map(|stable| format!(" ({})", stable.display()));
        format!("{} \"{}\"{}", self.path.display(), self.about.name, link.unwrap_or_default())
    }
}

/// Whether the device is plugged into USB.
pub fn is_usb(about: &About) -> bool {
    about.bus.starts_with("usb-")
}

/// The device files of cameras, by number, whether they can be opened or not.
pub fn nodes() -> Vec<PathBuf> {
    let number =
        |path: &PathBuf| -> Option<u32> { path.file_name()?.to_str()?.strip_prefix("video")?.parse().ok() };
    let mut nodes: Vec<PathBuf> = entries(Path::new("/dev")).filter(|path| number(path).is_some()).collect();
    nodes.sort_by_key(number);
    nodes.truncate(MAX_ENTRIES);
    nodes
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}

/// Opens every device file and asks it; those that are no cameras are left out, those that cannot be
/// asked come with the reason.
pub fn ask_all() -> Vec<(PathBuf, Result<Camera, Errno>)> {
    let ask = |path: PathBuf| {
        let asked = Device::open(&path).and_then(|device| Ok((device.about()?, device)));
        match asked {
            Ok((about, device)) => {
                let kind = about.kind?;
                let readable = device.formats(kind).into_iter().any(|format| readable(format).is_some());
                Some((path.clone(), Ok(Camera { stable: stable_path(&path), path, about, readable })))
            }
            Err(error) => Some((path, Err(error))),
        }
    };
    nodes().into_iter().filter_map(ask).collect()
}

/// The cameras that can be opened.
pub fn cameras() -> Vec<Camera> {
    ask_all().into_iter().filter_map(|(_, camera)| camera.ok()).collect()
}

/// The link to a device whose name stays over plugs and reboots: by what it is, else by where it is.
pub fn stable_path(node: &Path) -> Option<PathBuf> {
    ["/dev/v4l/by-id", "/dev/v4l/by-path"].iter().find_map(|folder| {
        let mut links: Vec<PathBuf> = entries(Path::new(folder)).take(MAX_ENTRIES).collect();
        links.sort();
        links.into_iter().find(|link| fs::canonicalize(link).is_ok_and(|to| to == node))
    })
}

/// The camera that is meant where none is named: the only one, or the only one on USB, as boards have
/// devices of their own that only look like cameras.
///
/// # Errors
/// What there is, and that one is to be named.
pub fn only(cameras: &[Camera]) -> Result<&Camera, String> {
    let able: Vec<&Camera> = cameras.iter().filter(|camera| camera.readable).collect();
    let on_usb: Vec<&Camera> = able.iter().copied().filter(|camera| camera.is_usb()).collect();
    match (able.as_slice(), on_usb.as_slice()) {
        ([only], _) | (_, [only]) => Ok(only),
        ([], _) => Err("no camera was found; plug one in, or name another kind of source".to_owned()),
        _ => Err(format!("{} cameras were found; name one in source.device: {}", able.len(), list(&able))),
    }
}

/// Cameras in one line.
pub fn list<'c>(cameras: impl IntoIterator<Item = &'c &'c Camera>) -> String {
    cameras.into_iter().map(|camera| camera.line()).collect::<Vec<_>>().join(", ")
}

/// The ways in which a device offers its frames. Where sizes come in steps, the one that is nearest to
/// what is wanted.
pub fn modes(device: &Device, kind: Kind, wanted: Size) -> Vec<Mode> {
    let mut modes: Vec<Mode> = Vec::new();
    for format in device.formats(kind) {
        let mut sizes: Vec<Size> =
            device.sizes(format).into_iter().map(|sizes| sizes.nearest(wanted)).collect();
        if sizes.is_empty() {
            // It tells no list; it tells what it would make of the wish.
            let tried = device.try_format(kind, format, wanted);
            sizes.extend(tried.ok().filter(|layout| layout.format == format).map(|layout| layout.size));
        }
        sizes.dedup();
        let mode = |size: Size| Mode { format, size, intervals: intervals(device, format, size) };
        modes.extend(sizes.into_iter().map(mode));
    }
    modes
}

fn intervals(device: &Device, format: FourCc, size: Size) -> Vec<Intervals> {
    // Nobody asks for the rates of what cannot be read.
    if readable(format).is_some() { device.intervals(format, size) } else { Vec::new() }
}

/// A camera's formats in one line, for people.
pub fn formats_of(camera: &Camera) -> String {
    let modes = match (Device::open(&camera.path), camera.about.kind) {
        (Ok(device), Some(kind)) => modes(&device, kind, Size::new(640, 480)),
        _ => Vec::new(),
    };
    offered(&modes)
}

/// The processes that hold a device open, besides this one, as far as this user may see them.
pub fn holders(node: &Path) -> Vec<String> {
    let Ok(node) = fs::canonicalize(node) else { return Vec::new() };
    let own = std::process::id();
    let pid = |path: &Path| -> Option<u32> { path.file_name()?.to_str()?.parse().ok() };
    let holds = |process: &Path| {
        entries(&process.join("fd"))
            .take(MAX_PROCESSES)
            .any(|fd| fs::read_link(fd).is_ok_and(|to| to == node))
    };
    let processes = entries(Path::new("/proc")).filter_map(|path| Some((pid(&path)?, path)));
    let others = processes.take(MAX_PROCESSES).filter(|(pid, path)| *pid != own && holds(path));
    let named = |(pid, path): (u32, PathBuf)| {
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        format!("{} (process {pid})", name.trim())
    };
    others.map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn camera(number: u32, bus: &str, readable: bool) -> Camera {
        let about = About {
            driver: "driver".into(),
            name: format!("Camera {number}"),
            bus: bus.into(),
            kind: Some(Kind::Single),
        };
        let stable = (bus.starts_with("usb")).then(|| format!("/dev/v4l/by-id/usb-{number}").into());
        Camera { path: format!("/dev/video{number}").into(), stable, about, readable }
    }

    #[test]
    fn the_camera_that_is_meant_is_the_only_one_or_the_only_one_on_usb() {
        let usb = |number| camera(number, "usb-0000:01:00.0-1", true);
        let board = |number| camera(number, "platform:isp", true);
        let raw = |number| camera(number, "platform:unicam", false);
        for (cameras, meant) in [
            (vec![usb(0)], Ok(0)),
            (vec![board(3)], Ok(3)),
            (vec![raw(0), usb(2)], Ok(2)),
            (vec![board(13), board(14), usb(0)], Ok(0)),
            (vec![], Err("no camera was found; plug one in")),
            (vec![raw(0)], Err("no camera was found")),
            (
                vec![board(1), board(2)],
                Err("2 cameras were found; name one in source.device: /dev/video1 \"Camera 1\", /dev"),
            ),
            (
                vec![usb(1), usb(2)],
                Err(
                    "2 cameras were found; name one in source.device: /dev/video1 \"Camera 1\" (/dev/v4l/by-id/usb-1), ",
                ),
            ),
        ] {
            match (only(&cameras), meant) {
                (Ok(camera), Ok(number)) => {
                    assert_eq!(camera.path, Path::new(&format!("/dev/video{number}")))
                }
                (Err(why), Err(begins)) => assert!(why.starts_with(begins), "{why}"),
                (found, meant) => panic!("{found:?} is not {meant:?}"),
            }
        }
    }

    #[test]
    fn this_process_does_not_hold_a_file_against_itself() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(holders(file.path()).is_empty());
        let mut other = std::process::Command::new("sleep");
        let mut other = other.arg("600").stdin(file.reopen().unwrap()).spawn().unwrap();
        let found = holders(file.path());
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(found, [format!("sleep (process {})", other.id())]);
    }
}
