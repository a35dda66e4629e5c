//! A pipeline's `motion` table: which pictures count as still.

use super::file::{Node, Section, Value};
use super::value::{duration, number};
use crate::domain::motion::{Area, MAX_CORNERS, MAX_ZONES, MotionSettings, Zone};
use std::time::Duration;

/// The checked table; `None` with the faults noted.
pub fn read(mut section: Section<'_>) -> Option<MotionSettings> {
    let threshold = section.or("threshold", 15.0, number(1.0..=255.0));
    let min_area = section.or("min_area", 0.005, number(0.0..=1.0));
    let span = |longest| duration(Duration::ZERO..=Duration::from_secs(longest));
    let hold = section.or("hold", Duration::from_secs(2), span(3600));
    let keep_alive = section.or(
        "keep_alive",
        Duration::from_secs(10),
        duration(Duration::from_millis(100)..=Duration::from_secs(86_400)),
    );
    let zones = section.tables("zones", MAX_ZONES);
    let ignored = section.tables("ignore", MAX_ZONES);
    section.finish();
    let any = !zones.is_empty();
    let mut zones: Vec<Option<Zone>> = zones
        .into_iter()
        .map(|mut zone| {
            let threshold = zone.or("threshold", threshold, number(1.0..=255.0));
            let min_area = zone.or("min_area", min_area, number(0.0..=1.0));
            let area = area(&mut zone);
            zone.finish();
            Some(Zone { area: area?, threshold, min_area })
        })
        .collect();
    if !any {
        zones.push(Some(Zone { area: rectangle([0.0, 0.0, 1.0, 1.0]), threshold, min_area }));
    }
    let ignore = ignored.into_iter().map(|mut zone| {
        let area = area(&mut zone);
        zone.finish();
        area
    });
    let ignore: Vec<Option<Area>> = ignore.collect();
    let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    Some(MotionSettings {
        zones: zones.into_iter().collect::<Option<_>>()?,
        ignore: ignore.into_iter().collect::<Option<_>>()?,
        hold_ms: ms(hold),
        keep_alive_ms: ms(keep_alive),
    })
}

/// `rect` or `polygon`.
pub(super) fn area(section: &mut Section<'_>) -> Option<Area> {
    let at = section.at.clone();
    match (section.take("rect"), section.take("polygon")) {
        (Some(node), None) => rect(&node).map_err(|fault| section.fault(&node.at, "rect", fault)).ok(),
        (None, Some(node)) => polygon(&node).map_err(|fault| section.fault(&node.at, "polygon", fault)).ok(),
        (None, None) | (Some(_), Some(_)) => {
            let remedy = "give either rect = [left, top, right, bottom] or polygon = [[x, y], …]";
            section.fault(&at, "rect", remedy);
            None
        }
    }
}

fn items(node: &Node) -> Result<&[Node], String> {
    match &node.value {
        Value::List(items) => Ok(items),
        other => Err(format!("expected a list, found {}", other.kind())),
    }
}

fn rect(node: &Node) -> Result<Area, String> {
    let sides: Vec<f32> = items(node)?.iter().map(number(0.0..=1.0)).collect::<Result<_, _>>()?;
    match *sides.as_slice() {
        [left, top, right, bottom] if left < right && top < bottom => {
            Ok(rectangle([left, top, right, bottom]))
        }
        _ => {
            Err("write [left, top, right, bottom] in shares of the picture, such as [0.0, 0.5, 1.0, 1.0]"
                .into())
        }
    }
}

fn rectangle([left, top, right, bottom]: [f32; 4]) -> Area {
    vec![[left, top], [right, top], [right, bottom], [left, bottom]]
}

fn polygon(node: &Node) -> Result<Area, String> {
    let corners = items(node)?;
    if !(3..=MAX_CORNERS).contains(&corners.len()) {
        return Err(format!("has {} corners; use 3 to {MAX_CORNERS}", corners.len()));
    }
    let corner = |node: &Node| match items(node)? {
        [x, y] => Ok([number(0.0..=1.0)(x)?, number(0.0..=1.0)(y)?]),
        _ => Err("a corner is [x, y] in shares of the picture".to_owned()),
    };
    corners.iter().map(corner).collect()
}
