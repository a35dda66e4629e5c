//! A pipeline's `source` table: what it looks at. One function per kind.

use super::file::{Section, Value};
use super::sensor;
use super::stream::{command, csi_jetson, csi_pi, http_mjpeg, rtsp, video};
use super::value::{boolean, number, one_of, path, shorten, whole};
use crate::domain::FrameFormat;
use crate::domain::source::{SourceSettings, V4l2Settings};
use std::collections::BTreeMap;

const MAX_EDGE: u64 = 8192;
const MAX_CONTROLS: usize = 64;

/// The formats of cameras, as written.
const FORMATS: [(&str, FrameFormat); 6] = [
    ("mjpeg", FrameFormat::Jpeg),
    ("yuyv", FrameFormat::Yuyv),
    ("nv12", FrameFormat::Nv12),
    ("i420", FrameFormat::I420),
    ("grey", FrameFormat::Grey8),
    ("rgb", FrameFormat::Rgb8),
];

/// Reads one kind's keys.
type Read = fn(&mut Section<'_>) -> Option<SourceSettings>;

/// Every kind, as written, and who reads it.
const KINDS: [(&str, Read); 13] = [
    ("synthetic", synthetic),
    ("folder", folder),
    ("v4l2", v4l2),
    ("rtsp", rtsp),
    ("http_mjpeg", http_mjpeg),
    ("video", video),
    ("csi_pi", csi_pi),
    ("csi_jetson", csi_jetson),
    ("command", command),
    ("lines", sensor::lines),
    ("serial", sensor::serial),
    ("iio", sensor::iio),
    ("mqtt", sensor::mqtt),
];

/// The checked source; `None` with the faults noted.
pub fn read(mut section: Section<'_>) -> Option<SourceSettings> {
    let kind = section.required("kind", "\"v4l2\", \"synthetic\" or \"folder\"", one_of(&KINDS))?;
    let source = kind(&mut section);
    section.finish();
    source
}

fn synthetic(section: &mut Section<'_>) -> Option<SourceSettings> {
    Some(SourceSettings::Synthetic {
        seed: section.or("seed", 1, whole(0..=i64::MAX as u64)),
        width: section.or("width", 640, whole(64..=MAX_EDGE)) as u32,
        height: section.or("height", 480, whole(64..=MAX_EDGE)) as u32,
    })
}

fn folder(section: &mut Section<'_>) -> Option<SourceSettings> {
    let folder = section.required("path", "\"/srv/pictures\"", path);
    let repeat = section.or("repeat", true, boolean);
    folder.map(|path| SourceSettings::Folder { path, repeat })
}

fn v4l2(section: &mut Section<'_>) -> Option<SourceSettings> {
    Some(SourceSettings::V4l2(V4l2Settings {
        device: section.optional("device", path),
        width: section.or("width", 640, whole(16..=MAX_EDGE)) as u32,
        height: section.or("height", 480, whole(16..=MAX_EDGE)) as u32,
        fps: section.optional("fps", number(0.01..=1000.0)),
        format: section.optional("format", one_of(&FORMATS)),
        controls: controls(section),
    }))
}

/// A camera's controls: only the camera knows which it has, so their names are looked at for their form.
fn controls(section: &mut Section<'_>) -> BTreeMap<String, i32> {
    let mut controls = BTreeMap::new();
    let Some(node) = section.take("controls") else { return controls };
    let Value::Table(entries) = node.value else {
        let found = node.value.kind();
        section.fault(
            &node.at,
            "controls",
            format!("expected a table, found {found}; write {{ exposure_auto = 1 }}"),
        );
        return controls;
    };
    if entries.len() > MAX_CONTROLS {
        let detail = format!("names {}; at most {MAX_CONTROLS} are possible", entries.len());
        section.fault(&node.at, "controls", detail);
    }
    for (name, node) in entries.into_iter().take(MAX_CONTROLS) {
        let key = format!("controls.{}", shorten(&name));
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        {
            let remedy = "write the name in small letters with underscores, such as exposure_auto";
            section.fault(&node.at, &key, format!("is no control's name; {remedy}"));
            continue;
        }
        let value = match &node.value {
            Value::Bool(on) => Ok(i32::from(*on)),
            Value::Integer(value) => {
                i32::try_from(*value).map_err(|_| format!("{value} is out of range; no control takes that"))
            }
            other => Err(format!("expected a whole number, true or false, found {}", other.kind())),
        };
        match value {
            Ok(value) => drop(controls.insert(name, value)),
            Err(text) => section.fault(&node.at, &key, text),
        }
    }
    controls
}
