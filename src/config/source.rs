//! A pipeline's `source` table: what it looks at. One function per kind.

use super::file::Section;
use super::sensor;
use super::value::{boolean, one_of, path, whole};
use crate::domain::source::SourceSettings;

const MAX_EDGE: u64 = 8192;

/// Reads one kind's keys.
type Read = fn(&mut Section<'_>) -> Option<SourceSettings>;

/// Every kind, as written, and who reads it.
const KINDS: [(&str, Read); 6] = [
    ("synthetic", synthetic),
    ("folder", folder),
    ("lines", sensor::lines),
    ("serial", sensor::serial),
    ("iio", sensor::iio),
    ("mqtt", sensor::mqtt),
];

/// The checked source; `None` with the faults noted.
pub fn read(mut section: Section<'_>) -> Option<SourceSettings> {
    let kind = section.required("kind", "\"synthetic\" or \"folder\"", one_of(&KINDS))?;
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
