//! The discovery message: a device, where it comes from, and its entities with the templates that read our
//! messages. Templates are Jinja, as Home Assistant runs it; what is put into them (names of pipelines, labels)
//! is written as a string of that language, whatever stands in it.

use super::super::payloads::{OFFLINE, ONLINE};
use super::super::topics::{Audience, Said, Topics};
use super::{MAX_CLASSES, PipelineView, View};
use crate::domain::DeviceId;
use crate::domain::event::Kind;
use serde_json::{Map, Value, json};

/// Longest name of a class in Home Assistant, characters.
const MAX_LABEL: usize = 64;

/// The device's name in Home Assistant's topics and registry: letters, digits, `_` and `-`. Two roots on one
/// broker may have a device of one name each.
pub fn object_id(topics: &Topics, device: &DeviceId) -> String {
    plain(&format!("{}_{device}", topics.root()))
}

/// The text with nothing but letters, digits, `_` and `-`. Where something had to be replaced, its checksum
/// keeps it apart from others.
fn plain(text: &str) -> String {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let replaced: String = text.chars().map(|c| if good(c) { c } else { '_' }).collect();
    match replaced == text {
        true => replaced,
        false => format!("{replaced}-{:08x}", crc32fast::hash(text.as_bytes())),
    }
}

/// The text as a string of the template language.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The whole message.
pub fn discovery(topics: &Topics, device: &DeviceId, view: &View) -> Value {
    let object_id = object_id(topics, device);
    let said = |said: Said| topics.said(device, &said);
    let mut entities = Entities { object_id: &object_id, all: Map::new() };
    entities.add("health", health(&said(Said::Health)));
    if view.has_temperature {
        entities.add("temperature", temperature(&said(Said::Metrics)));
    }
    let mut classes_left = MAX_CLASSES;
    for pipeline in &view.pipelines {
        let id = |what: &str| format!("{what}_{}", plain(pipeline.name.as_str()));
        // One pipeline is the device; of several each is named.
        let named = |what: &str| match view.pipelines.len() {
            0 | 1 => capital(what),
            _ => format!("{} {what}", pipeline.name),
        };
        let metrics = said(Said::Metrics);
        entities.add(&id("fps"), frame_rate(&named("frame rate"), &metrics, pipeline));
        entities.add(&id("latency"), latency(&named("latency"), &metrics, pipeline));
        let state = said(Said::SlotState(pipeline.slot.clone()));
        entities.add(&id("model"), model(&named("model"), &state));
        entities.add(&id("update"), update(&named("model update"), &state, topics, device, pipeline));
        if pipeline.has_pictures {
            let image_topic = said(Said::Snapshot(pipeline.name.clone()));
            let picture = json!({
                "platform": "image",
                "name": named("picture"),
                "image_topic": image_topic,
                "content_type": "image/jpeg",
            });
            entities.add(&id("picture"), picture);
        }
        let Some(classes) = &pipeline.classes else { continue };
        entities.add(&id("event"), event(&named("event"), &said(Said::Event(pipeline.name.clone()))));
        let counts = said(Said::Counts(pipeline.name.clone()));
        for label in classes.iter().take(classes_left) {
            let shown: String = label.chars().take(MAX_LABEL).collect();
            let key = format!("{}_{}", id("count"), plain(&shown));
            entities.add(&key, count(&named(&format!("{shown} count")), &counts, label));
        }
        classes_left = classes_left.saturating_sub(classes.len());
    }
    json!({
        "device": {
            "identifiers": [object_id],
            "name": device,
            "manufacturer": "Edgewarden",
            "model": view.board,
            "sw_version": view.agent_version,
        },
        "origin": {
            "name": "edgewarden",
            "sw_version": view.agent_version,
            "support_url": env!("CARGO_PKG_REPOSITORY"),
        },
        "availability": [{
            "topic": said(Said::Availability),
            "payload_available": ONLINE,
            "payload_not_available": OFFLINE,
        }],
        "qos": 1,
        "components": entities.all,
    })
}

/// The entities by their keys.
struct Entities<'a> {
    object_id: &'a str,
    all: Map<String, Value>,
}

impl Entities<'_> {
    fn add(&mut self, key: &str, mut entity: Value) {
        entity["unique_id"] = format!("{}_{key}", self.object_id).into();
        self.all.insert(key.to_owned(), entity);
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn health(topic: &str) -> Value {
    json!({
        "platform": "sensor",
        "name": "Health",
        "state_topic": topic,
        "value_template": "{{ value_json.state }}",
        "device_class": "enum",
        "options": ["ok", "degraded", "failed"],
        "entity_category": "diagnostic",
    })
}

/// That of the hottest zone of the board.
fn temperature(topic: &str) -> Value {
    let template = "{% set t = value_json.board.temperature_celsius %}\
                    {% if t %}{{ (t | dictsort(by='value') | last | last) | round(1) }}{% endif %}";
    json!({
        "platform": "sensor",
        "name": "Temperature",
        "state_topic": topic,
        "value_template": template,
        "device_class": "temperature",
        "unit_of_measurement": "°C",
        "state_class": "measurement",
        "entity_category": "diagnostic",
    })
}

/// A figure of one pipeline; nothing, which Home Assistant passes over, where there is none yet.
fn of_pipeline(pipeline: &PipelineView, figure: &str) -> String {
    let name = quoted(pipeline.name.as_str());
    format!("{{% for p in value_json.pipelines if p.name == {name} %}}{figure}{{% endfor %}}")
}

fn frame_rate(name: &str, topic: &str, pipeline: &PipelineView) -> Value {
    json!({
        "platform": "sensor",
        "name": name,
        "state_topic": topic,
        "value_template": of_pipeline(pipeline, "{{ p.fps | round(1) }}"),
        "unit_of_measurement": "frames/s",
        "state_class": "measurement",
        "entity_category": "diagnostic",
    })
}

/// From capture to answer, the median.
fn latency(name: &str, topic: &str, pipeline: &PipelineView) -> Value {
    let median =
        "{% if p.latency_ms.end_to_end.count %}{{ p.latency_ms.end_to_end.p50 | round(1) }}{% endif %}";
    json!({
        "platform": "sensor",
        "name": name,
        "state_topic": topic,
        "value_template": of_pipeline(pipeline, median),
        "device_class": "duration",
        "unit_of_measurement": "ms",
        "state_class": "measurement",
        "entity_category": "diagnostic",
    })
}

fn model(name: &str, topic: &str) -> Value {
    json!({
        "platform": "sensor",
        "name": name,
        "state_topic": topic,
        "value_template": "{{ value_json.current.release if value_json.current else 'none' }}",
        "entity_category": "diagnostic",
    })
}

/// The version that is wanted is, while a deployment is under way, that one; else a newer release that the
/// repository lists, where the device knows of one; else the one that serves. Versions are shown without the name of
/// the model, unless the two have different names.
fn update(name: &str, state: &str, topics: &Topics, device: &DeviceId, pipeline: &PipelineView) -> Value {
    let offered =
        pipeline.offered.as_ref().map_or_else(|| "none".to_owned(), |release| quoted(&release.to_string()));
    let template = format!(
        "{{% set c = value_json.current.release if value_json.current else none %}}\
         {{% set d = value_json.deployment %}}\
         {{% set busy = d and d.stage not in ['committed', 'rolled_back', 'refused'] %}}\
         {{% set w = d.release if busy else ({offered} or c) %}}\
         {{% set same = c and w and c.split('@')[0] == w.split('@')[0] %}}\
         {{{{ {{'installed_version': (c.split('@')[1] if same else c) if c else 'none', \
         'latest_version': (w.split('@')[1] if same else w) if w else 'none', \
         'title': (w or 'none').split('@')[0], \
         'in_progress': true if busy else false, \
         'update_percentage': (d.progress * 100) | round(0) if busy and d.progress else none, \
         'release_summary': (d.release ~ ' ' ~ d.stage ~ ': ' ~ d.reason.detail)[:255] if d and d.reason else ''\
         }} | to_json }}}}"
    );
    let mut entity = json!({
        "platform": "update",
        "name": name,
        "state_topic": state,
        "value_template": template,
    });
    if let (Some(release), Some(id)) = (&pipeline.offered, &pipeline.install) {
        entity["command_topic"] = topics.command(&Audience::Device(device.clone()), "update", id).into();
        entity["payload_install"] = json!({ "slot": pipeline.slot, "release": release }).to_string().into();
    }
    entity
}

fn event(name: &str, topic: &str) -> Value {
    let template = "{{ {'event_type': value_json.type, 'id': value_json.id, 'label': value_json.label, \
                    'score': value_json.score, 'best_score': value_json.best_score, \
                    'zones': value_json.zones, 'entered_zones': value_json.entered_zones, \
                    'duration_s': value_json.duration_s, 'start': value_json.start} | to_json }}";
    json!({
        "platform": "event",
        "name": name,
        "state_topic": topic,
        "value_template": template,
        "event_types": Kind::ALL.map(Kind::as_str),
    })
}

/// How many of a class are there now.
fn count(name: &str, topic: &str, label: &str) -> Value {
    let label = quoted(label);
    json!({
        "platform": "sensor",
        "name": name,
        "state_topic": topic,
        "value_template": format!("{{% set c = value_json.counts[{label}] %}}{{{{ c.active if c else 0 }}}}"),
        "state_class": "measurement",
    })
}
