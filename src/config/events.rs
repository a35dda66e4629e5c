//! A pipeline's `events` table: what of that which its model sees is an event.

use super::file::{Node, Section, Value};
use super::motion::area;
use super::settings::EventSettings;
use super::value::{boolean, duration, number, parsed, text, whole};
use crate::domain::event::rules::MAX_INERTIA;
use crate::domain::event::zone::MAX_ZONES;
use crate::domain::event::{Rules, Zone};
use crate::domain::motion::MotionSettings;
use std::time::Duration;

/// Labels that can be named.
const MAX_CLASSES: usize = 256;
/// Longest label, characters.
const MAX_LABEL: usize = 64;
/// Frames may stay away for so long in any case before nothing counts as known any more.
const SILENCE: Duration = Duration::from_secs(60);

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// The checked table; `None` with the faults noted. `silence` is still to be [`complete`]d.
pub fn read(mut section: Section<'_>) -> Option<EventSettings> {
    let min_score = section.or("min_score", 0.5, number(0.0..=1.0));
    let classes = section.list("classes", MAX_CLASSES, label).unwrap_or_default();
    let inertia = inertia(&mut section);
    let day = secs(86_400);
    let min_duration = section.or("min_duration", secs(0), duration(secs(0)..=day));
    let lost_after = section.or("lost_after", secs(5), duration(secs(0)..=day));
    let cool_down = section.or("cool_down", secs(0), duration(secs(0)..=7 * day));
    let update_every = section.or("update_every", secs(5), duration(Duration::from_millis(100)..=day));
    let picture_every = section.or("picture_every", Some(secs(10)), picture_every);
    let zones = zones(&mut section);
    section.finish();
    let rules = Rules {
        min_score,
        classes,
        zones: zones?,
        inertia: inertia?,
        min_duration,
        lost_after,
        cool_down,
        update_every,
        silence: SILENCE,
    };
    Some(EventSettings { rules, picture_every })
}

/// Tells the rules how long frames may stay away while all is well: by the pace, by a motion gate, and while a
/// source is started again.
pub fn complete(events: &mut EventSettings, fps: f32, motion: Option<&MotionSettings>, stall: Duration) {
    let between = Duration::try_from_secs_f32(1.0 / fps).unwrap_or(SILENCE);
    let gate = motion.map_or(Duration::ZERO, |motion| Duration::from_millis(motion.keep_alive_ms));
    let silence = SILENCE.max(5 * between).max(gate.saturating_mul(3)).max(stall.saturating_mul(3));
    events.rules.silence = silence.max(events.rules.lost_after);
}

fn label(node: &Node) -> Result<String, String> {
    let label = text(node)?;
    match label.chars().count() <= MAX_LABEL && !label.chars().any(char::is_control) {
        true => Ok(label.to_owned()),
        false => Err(format!("is no label of a model; use at most {MAX_LABEL} characters")),
    }
}

/// Seen in so many of so many frames.
fn inertia(section: &mut Section<'_>) -> Option<(u32, u32)> {
    let at = section.at.clone();
    let Some(frames) = section.list("inertia", 2, whole(1..=u64::from(MAX_INERTIA))) else {
        return Some((3, 5));
    };
    let frames: Vec<u32> = frames.into_iter().filter_map(|frames| u32::try_from(frames).ok()).collect();
    match frames[..] {
        [least, of] if least <= of => Some((least, of)),
        _ => {
            let text = "write [seen, frames], such as [3, 5]: seen in 3 of the last 5 frames";
            section.fault(&at, "inertia", text);
            None
        }
    }
}

/// A time span, or "off".
fn picture_every(node: &Node) -> Result<Option<Duration>, String> {
    match &node.value {
        Value::Text(word) if word == "off" => Ok(None),
        _ => duration(secs(1)..=secs(86_400))(node)
            .map(Some)
            .map_err(|fault| format!("{fault}; or \"off\" for no pictures")),
    }
}

fn zones(section: &mut Section<'_>) -> Option<Vec<Zone>> {
    let sections = section.tables("zones", MAX_ZONES);
    let mut zones: Vec<Option<Zone>> = Vec::new();
    for mut one in sections {
        let at = one.at.clone();
        let name = one.required("name", "\"door\"", parsed);
        let area = area(&mut one);
        let classes = one.list("classes", MAX_CLASSES, label).unwrap_or_default();
        let exclude = one.or("exclude", false, boolean);
        if zones.iter().flatten().any(|zone| Some(&zone.name) == name.as_ref()) {
            one.fault(&at, "name", "is the name of another zone of this pipeline; give each its own");
        }
        one.finish();
        zones.push(name.zip(area).map(|(name, area)| Zone { name, area, classes, exclude }));
    }
    zones.into_iter().collect()
}
