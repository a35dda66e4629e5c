//! What a pipeline looks at: a source of its own, or that of another pipeline.
//!
//! Several models on one camera are several pipelines of which one has the source and the others name
//! it with `source_of`. What belongs to the camera (its stall timeout, the motion gate) is set where the source is.

use super::file::{Faults, Node, Place, Section, Value};
use super::settings::{EventSettings, MqttSettings, PipelineSettings};
use super::value::{duration, number, parsed, say_duration};
use super::{events, sensor, source};
use crate::domain::motion::MotionSettings;
use crate::domain::source::SourceSettings;
use crate::domain::{PipelineName, SlotName};
use std::time::Duration;

/// Keys that belong to the camera.
const OF_THE_CAMERA: [&str; 1] = ["stall_timeout"];
/// Most frames a second.
const MAX_FPS: f32 = 1000.0;

/// A time span, or "off".
pub fn max_age(node: &Node) -> Result<Option<Duration>, String> {
    match &node.value {
        Value::Text(word) if word == "off" => Ok(None),
        _ => duration(Duration::from_millis(10)..=Duration::from_secs(86_400))(node)
            .map(Some)
            .map_err(|fault| format!("{fault}; or \"off\" for frames of any age")),
    }
}

/// How fast frames are looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// So many a second at most.
    Fps(f32),
    /// All of them, as fast as the model goes.
    Max,
}

impl Pace {
    /// Frames a second at most.
    fn fps(self) -> f32 {
        match self {
            Pace::Fps(fps) => fps,
            Pace::Max => MAX_FPS,
        }
    }
}

/// A number, or "max".
pub fn pace(node: &Node) -> Result<Pace, String> {
    match &node.value {
        Value::Text(word) if word == "max" => Ok(Pace::Max),
        Value::Text(_) => {
            number(0.01..=MAX_FPS)(node).map(Pace::Fps).map_err(|fault| format!("{fault}; or \"max\""))
        }
        _ => number(0.01..=MAX_FPS)(node).map(Pace::Fps),
    }
}

/// The oldest frame that is looked at.
pub fn oldest(section: &mut Section<'_>, pace: Pace) -> Option<Duration> {
    let at = section.at.clone();
    let default = if pace == Pace::Max { None } else { Some(Duration::from_secs(2)) };
    let oldest = section.or("max_age", default, max_age);
    if pace == Pace::Max && oldest.is_some() {
        let text = "leaves frames out, and fps = \"max\" wants them all; remove one of the two";
        section.fault(&at, "max_age", text);
    }
    oldest
}

/// The least share of a picture that is looked at, across and down.
const LEAST_CROP: f32 = 0.01;

/// Left, top, width, height as shares of the picture.
pub fn crop(section: &mut Section<'_>) -> Option<[f32; 4]> {
    let at = section.at.clone();
    let shares = section.list("crop", 4, number(0.0..=1.0))?;
    let fault = match shares[..] {
        [left, top, width, height] if width >= LEAST_CROP && height >= LEAST_CROP => {
            // Room for what 0.1 + 0.9 is in binary.
            if left + width <= 1.0 + 1e-6 && top + height <= 1.0 + 1e-6 {
                return Some([left, top, width.min(1.0 - left), height.min(1.0 - top)]);
            }
            "reaches over the picture's edge; left + width and top + height are at most 1"
        }
        [_, _, _, _] => "is too small; width and height are at least 0.01",
        _ => {
            "needs four numbers: left, top, width, height, as shares of the picture, such as [0, 0.5, 1, 0.5]"
        }
    };
    section.fault(&at, "crop", fault);
    None
}

/// What a pipeline looks at, as it is written.
pub enum Look {
    /// Its own source.
    Own(SourceSettings),
    /// That of this pipeline.
    Of(PipelineName, Place),
}

/// Reads `source` or `source_of`; `None` with the faults noted.
pub fn look(section: &mut Section<'_>, motion: bool, pace: Pace) -> Option<Look> {
    let at = section.at.clone();
    let shared = section.take("source_of");
    let own = section.table("source");
    match (own, shared) {
        (Some(own), None) => {
            let source = source::read(own)?;
            if pace == Pace::Max && !source.waits() {
                let text = format!(
                    "\"max\" is for sources that wait (folder, synthetic, video without realtime, command with \
                     pace = \"asked\"), and {} is live; give a number, the newest frame wins",
                    source.kind()
                );
                section.fault(&at, "fps", text);
            }
            Some(Look::Own(source))
        }
        (None, Some(node)) => {
            for key in OF_THE_CAMERA {
                if let Some(node) = section.take(key) {
                    section.fault(&node.at, key, "belongs to the source; set it at the pipeline that has it");
                }
            }
            if motion {
                section.fault(
                    &node.at,
                    "motion",
                    "belongs to the source; set it at the pipeline that has it",
                );
            }
            match parsed(&node) {
                Ok(pipeline) => Some(Look::Of(pipeline, node.at)),
                Err(fault) => {
                    section.fault(&node.at, "source_of", fault);
                    None
                }
            }
        }
        (Some(_), Some(node)) => {
            section.fault(&node.at, "source_of", "stands beside a source; a pipeline has one or the other");
            None
        }
        (None, None) => {
            section.fault(
                &at,
                "source",
                "is missing; add source = { kind = \"synthetic\" } or a folder of pictures",
            );
            None
        }
    }
}

/// Takes what a source leaves to other tables from there.
pub fn complete(
    section: &Section<'_>,
    source: &mut SourceSettings,
    mqtt: Option<&MqttSettings>,
    stall_timeout: Duration,
) {
    if let Err(text) = sensor::complete(source, mqtt) {
        section.fault(&section.at, "source", text);
    }
    if let Some(silence) = sensor::longest_silence(source).filter(|silence| *silence >= stall_timeout) {
        let (silence, limit) = (silence.as_secs_f64(), say_duration(stall_timeout));
        let text = format!(
            "\"{limit}\" is shorter than a window of the sensor takes, {silence} s; raise it above that"
        );
        section.fault(&section.at, "stall_timeout", text);
    }
}

/// A pipeline whose source may still have to be found.
pub struct Draft {
    pub name: PipelineName,
    pub slot: SlotName,
    pub pace: Pace,
    pub max_age: Option<Duration>,
    pub stall_timeout: Duration,
    pub crop: Option<[f32; 4]>,
    pub motion: Option<MotionSettings>,
    pub events: Option<EventSettings>,
    pub look: Look,
}

/// Finds every source; `known` are the names of all pipelines, also of those with faults.
pub fn resolve(drafts: Vec<Draft>, known: &[PipelineName], faults: &Faults) -> Option<Vec<PipelineSettings>> {
    let find = |draft: &Draft| -> Option<(SourceSettings, PipelineName, Duration)> {
        let (other, at) = match &draft.look {
            Look::Own(source) => {
                let source = source.clone().at_pace(draft.pace.fps());
                return Some((source, draft.name.clone(), draft.stall_timeout));
            }
            Look::Of(other, at) => (other, at),
        };
        let fault = |text: String| faults.add(at, "pipeline.source_of", text);
        if *other == draft.name {
            fault(format!("\"{other}\" is this pipeline itself; name one that has a source"));
            return None;
        }
        match drafts.iter().find(|draft| draft.name == *other).map(|draft| (draft, &draft.look)) {
            Some((owner, Look::Own(source))) => {
                if (draft.pace, owner.pace) == (Pace::Max, Pace::Fps(owner.pace.fps())) {
                    let text = "\"max\" must stand at the pipeline that has the source, too";
                    faults.add(at, "pipeline.fps", text.to_owned());
                    return None;
                }
                let source = source.clone().at_pace(owner.pace.fps());
                Some((source, owner.name.clone(), owner.stall_timeout))
            }
            Some((_, Look::Of(next, _))) => {
                fault(format!(
                    "\"{other}\" has no source of its own, it looks at that of \"{next}\"; name the pipeline that has the source"
                ));
                None
            }
            // Its own faults are told where they are.
            None if known.contains(other) => None,
            None => {
                let names: Vec<&str> = known.iter().map(PipelineName::as_str).collect();
                fault(format!("there is no pipeline \"{other}\"; there is {}", names.join(", ")));
                None
            }
        }
    };
    let found: Vec<_> = drafts.iter().map(find).collect();
    let settings = drafts.iter().zip(found).map(|(draft, found)| {
        let (source, source_of, stall_timeout) = found?;
        let motion =
            drafts.iter().find(|owner| owner.name == source_of).and_then(|owner| owner.motion.as_ref());
        let mut events = draft.events.clone();
        if let Some(events) = &mut events {
            events::complete(events, draft.pace.fps(), motion, stall_timeout);
        }
        Some(PipelineSettings {
            name: draft.name.clone(),
            slot: draft.slot.clone(),
            fps: draft.pace.fps(),
            every: draft.pace == Pace::Max,
            max_age: draft.max_age,
            stall_timeout,
            crop: draft.crop,
            motion: draft.motion.clone(),
            events,
            source,
            source_of,
        })
    });
    settings.collect()
}
