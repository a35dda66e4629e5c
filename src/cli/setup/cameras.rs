//! Which cameras this machine has, and which of them is meant where none was named.
//!
//! Ribbon-cable cameras are known by the board's own programs: on a Raspberry Pi by `rpicam-hello`; on a
//! Jetson the kernel shows each sensor as a device that gives nothing readable, and `nvarguscamerasrc`
//! takes it by its number. Neither was tried on its board.

use crate::cli::apart::ended_within;
use crate::domain::source::V4l2Settings;
use crate::inference::source::program;
use crate::inference::source::stream::tools::{Board, Tools};
use crate::inference::source::v4l2::{self, find};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// libcamera looks at every sensor first.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest list of cameras, bytes.
const MAX_LIST: u64 = 64 << 10;
/// What the kernel calls the sensors of a Jetson.
const TEGRA: &str = "vi-output";

/// How a camera is built in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Built {
    /// On USB.
    Usb,
    /// On the board's ribbon cable.
    Ribbon,
    /// A device of the board, which may only look like a camera.
    Board,
}

/// A camera that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// As `--camera` takes it.
    pub camera: String,
    /// What it says of itself.
    pub name: String,
    /// How it is built in; absent where it could not be asked.
    pub built: Option<Built>,
    /// What it offers.
    pub offers: String,
    /// Why it cannot be used, with the remedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// Looks for cameras; nothing of them is changed.
pub fn find() -> Vec<Found> {
    let tools = Tools::here();
    let mut found = Vec::new();
    let mut sensors = 0;
    for (path, asked) in find::ask_all() {
        match asked {
            Ok(camera) if tools.board == Board::Jetson && camera.about.name.starts_with(TEGRA) => {
                found.push(ribbon(sensors, camera.about.name));
                sensors += 1;
            }
            Ok(camera) if camera.readable => found.push(Found {
                built: Some(if camera.is_usb() { Built::Usb } else { Built::Board }),
                offers: find::formats_of(&camera),
                camera: camera.stable.unwrap_or(camera.path).display().to_string(),
                name: camera.about.name,
                trouble: None,
            }),
            // Raw sensors, which others turn into pictures.
            Ok(_) => {}
            Err(_) => found.push(barred(path)),
        }
    }
    if let Some(program) = ["rpicam-hello", "libcamera-hello"].into_iter().find_map(program::find) {
        match listed_by(&program) {
            Ok(list) => found.extend(ribbons(&list).into_iter().map(|(number, name)| ribbon(number, name))),
            Err(why) => found.push(Found { built: None, trouble: Some(why), ..ribbon(0, String::new()) }),
        }
    }
    found
}

fn ribbon(number: u32, name: String) -> Found {
    Found {
        camera: format!("csi:{number}"),
        name,
        built: Some(Built::Ribbon),
        offers: String::new(),
        trouble: None,
    }
}

/// A device that may not even be asked.
fn barred(path: PathBuf) -> Found {
    let camera = path.display().to_string();
    let wanted = V4l2Settings {
        device: Some(path),
        width: 640,
        height: 480,
        fps: None,
        format: None,
        controls: BTreeMap::new(),
    };
    let trouble = v4l2::examine(&wanted).err().map(|reason| reason.detail);
    Found { camera, name: String::new(), built: None, offers: String::new(), trouble }
}

/// What a program says of the ribbon-cable cameras.
fn listed_by(program: &std::path::Path) -> Result<String, String> {
    let shown = program.display();
    let mut child = Command::new(program)
        .arg("--list-cameras")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("{shown}: {error}"))?;
    match ended_within(&mut child, PATIENCE) {
        Ok(Some(_)) => {}
        Ok(None) => return Err(format!("{shown} --list-cameras does not end; look at the camera's cable")),
        Err(error) => return Err(format!("{shown}: {error}")),
    }
    let mut list = Vec::new();
    if let Some(out) = child.stdout.take() {
        let _ = out.take(MAX_LIST).read_to_end(&mut list);
    }
    Ok(String::from_utf8_lossy(&list).into_owned())
}

/// Number and name of each camera in the list of `rpicam-hello`, whose lines are such as
/// `0 : imx219 [3280x2464 10-bit RGGB] (/base/soc/i2c0mux/i2c@1/imx219@10)`. Those on USB are read
/// through the kernel.
fn ribbons(list: &str) -> Vec<(u32, String)> {
    let camera = |line: &str| {
        let (number, rest) = line.split_once(" : ")?;
        let (name, place) = rest.split_once(" (").unwrap_or((rest, ""));
        let number = number.trim().parse().ok()?;
        (!place.contains("/usb")).then(|| (number, name.trim().to_owned()))
    };
    list.lines().filter_map(camera).collect()
}

/// Which camera is meant where none was named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meant<'f> {
    /// There is none that can be used.
    None,
    /// This one.
    One(&'f Found),
    /// Somebody has to choose.
    Several,
}

/// The only one; devices of the board count only where there is no other.
pub fn meant(found: &[Found]) -> Meant<'_> {
    let of = |wanted: &[Built]| -> Vec<&Found> {
        let fits =
            |one: &&Found| one.trouble.is_none() && one.built.is_some_and(|built| wanted.contains(&built));
        found.iter().filter(fits).collect()
    };
    let cameras = of(&[Built::Usb, Built::Ribbon]);
    let cameras = if cameras.is_empty() { of(&[Built::Board]) } else { cameras };
    match cameras.as_slice() {
        [] => Meant::None,
        [only] => Meant::One(only),
        _ => Meant::Several,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_a_raspberry_pi_is_read() {
        let list = "Available cameras\n-----------------\n\
            0 : imx219 [3280x2464 10-bit RGGB] (/base/soc/i2c0mux/i2c@1/imx219@10)\n    \
            Modes: 'SRGGB10_CSI2P' : 640x480 [206.65 fps - (1000, 752)/1280x960 crop]\n                             \
            1640x1232 [41.85 fps - (0, 0)/3280x2464 crop]\n           'SRGGB8' : 640x480 [206.65 fps]\n\
            1 : imx477 [4056x3040] (/base/soc/i2c0mux/i2c@1/pca@70/i2c@1/imx477@1a)\n\
            2 : HD Camera (/base/scb/pcie@7d500000/pci@0,0/usb@0,0-1.2:1.0-046d:0825)\n";
        let found = ribbons(list);
        assert_eq!(found, [(0, "imx219 [3280x2464 10-bit RGGB]".into()), (1, "imx477 [4056x3040]".into())]);
        assert!(ribbons("No cameras available!\n").is_empty());
        assert!(ribbons("").is_empty());
    }

    #[test]
    fn the_camera_that_is_meant_is_the_only_one_beside_those_of_the_board() {
        let one = |camera: &str, built| Found {
            camera: camera.into(),
            name: String::new(),
            built,
            offers: String::new(),
            trouble: None,
        };
        let usb = |camera| one(camera, Some(Built::Usb));
        let board = |camera| one(camera, Some(Built::Board));
        let ribbon = one("csi:0", Some(Built::Ribbon));
        let barred = Found { trouble: Some("may not".into()), ..one("barred", None) };
        for (found, camera) in [
            (vec![], "none"),
            (vec![usb("a")], "a"),
            (vec![board("isp1"), board("isp2"), usb("a")], "a"),
            (vec![board("isp1"), board("isp2"), ribbon.clone()], "csi:0"),
            (vec![board("isp1")], "isp1"),
            (vec![board("isp1"), board("isp2")], "several"),
            (vec![usb("a"), usb("b")], "several"),
            (vec![usb("a"), ribbon], "several"),
            (vec![barred.clone()], "none"),
            (vec![barred, usb("a")], "a"),
        ] {
            let told = match meant(&found) {
                Meant::None => "none",
                Meant::One(one) => one.camera.as_str(),
                Meant::Several => "several",
            };
            assert_eq!(told, camera, "{found:?}");
        }
    }
}
