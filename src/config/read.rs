//! From the merged tree to settings: every table, every key, its default and its bounds.

use super::broker::{self, BrokerUrl};
use super::file::{DEFAULT_PIPELINE, Faults, Node, Section};
use super::settings::{
    DeviceSettings, HealthSettings, LogFormat, LogSettings, MqttSettings, PathSettings, PipelineSettings,
    RepositorySettings, RuntimeSection, Settings, SpoolBounds, TlsSettings, UpdateSettings,
};
use super::value::{
    boolean, bytes, duration, number, one_of, parsed, path, say_duration, shorten, text, whole,
};
use super::{ConfigErrors, Surroundings, commands, events, homeassistant, maintenance, motion, pipeline};
use crate::domain::DeviceId;
use crate::domain::garbage::Spare;
use crate::domain::manifest::Provider;
use crate::domain::shadow::ShadowWish;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const MAX_PIPELINES: usize = 16;
const MAX_GROUPS: usize = 32;
const MAX_KEY_FILES: usize = 16;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Reads all tables; every fault at once.
pub fn settings(
    file: &Arc<Path>,
    tree: BTreeMap<String, Node>,
    around: &Surroundings,
) -> Result<Settings, ConfigErrors> {
    let faults = Faults::default();
    let mut root = Section::root(file, tree, &faults, around.credentials.as_deref());
    let device = device(root.table_or_empty("device"), around);
    let paths = paths(root.table_or_empty("paths"));
    let runtime = runtime(root.table_or_empty("runtime"), around);
    let mqtt = root.table("mqtt").map(mqtt);
    let homeassistant = homeassistant::homeassistant(root.table_or_empty("homeassistant"));
    let commands = commands::commands(root.table_or_empty("commands"));
    let repository = root.table("repository").map(|section| repository(section, file));
    let update = update(root.table_or_empty("update"));
    let health = health(root.table_or_empty("health"));
    let log = log(root.table_or_empty("log"));
    setup(root.table_or_empty("setup"));
    let sections = root.tables("pipeline", MAX_PIPELINES);
    let pipelines = pipelines(sections, &faults, mqtt.as_ref().and_then(Option::as_ref));
    root.finish();

    let faults = faults.into_sorted();
    match (mqtt.transpose_or(), repository.transpose_or(), pipelines, faults.is_empty()) {
        (Some(mqtt), Some(repository), Some(pipelines), true) => Ok(Settings {
            device,
            paths,
            runtime,
            mqtt,
            homeassistant,
            commands,
            repository,
            update,
            health,
            log,
            pipelines,
        }),
        _ => Err(ConfigErrors(faults)),
    }
}

/// `Option<Option<T>>` where the outer is "the table is there" and the inner "it could be read".
trait TransposeOr<T> {
    /// `None` when the table is there but could not be read; its faults are noted.
    fn transpose_or(self) -> Option<Option<T>>;
}

impl<T> TransposeOr<T> for Option<Option<T>> {
    fn transpose_or(self) -> Option<Option<T>> {
        match self {
            None => Some(None),
            Some(read) => read.map(Some),
        }
    }
}

fn device(mut section: Section<'_>, around: &Surroundings) -> DeviceSettings {
    let id = section.optional("id", device_id).unwrap_or_else(|| id_from(&around.hostname));
    let groups = section.list("groups", MAX_GROUPS, parsed).unwrap_or_default();
    section.finish();
    DeviceSettings { id, groups }
}

/// A device called `group` would be mistaken for the level under which groups are addressed.
fn device_id(node: &Node) -> Result<DeviceId, String> {
    let id: DeviceId = parsed(node)?;
    if id.as_str() == "group" {
        return Err("\"group\" has a meaning of its own in topics; choose another id".into());
    }
    Ok(id)
}

/// The host name as a device id: what may not stand in one becomes a dash.
fn id_from(hostname: &str) -> DeviceId {
    let safe: String = hostname
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(crate::domain::id::MAX_NAME)
        .collect();
    let safe = if safe == "group" { "device".to_owned() } else { safe.replace("..", "--") };
    safe.parse().or_else(|_| "device".parse()).unwrap_or_else(|_| unreachable!("\"device\" is a name"))
}

fn paths(mut section: Section<'_>) -> PathSettings {
    let state = section.or("state", PathBuf::from("/var/lib/edgewarden"), path);
    let runtime = section.or("runtime", PathBuf::from("/run/edgewarden"), |node| {
        let folder = path(node)?;
        // sun_path has 108 bytes, one of them the closing zero.
        if folder.join("agent.sock").as_os_str().len() > 107 {
            return Err("is too long for a Unix socket; use a path of at most 96 bytes".into());
        }
        Ok(folder)
    });
    section.finish();
    PathSettings { state, runtime }
}

fn runtime(mut section: Section<'_>, around: &Surroundings) -> RuntimeSection {
    let library = around
        .onnxruntime
        .as_ref()
        .map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()))
        .unwrap_or_else(|| "/usr/lib/edgewarden/onnxruntime/libonnxruntime.so".into());
    let library = section.or("library", library, path);
    let at = section.at.clone();
    let word = one_of(&[
        ("tensorrt", Provider::TensorRt),
        ("cuda", Provider::Cuda),
        ("openvino", Provider::OpenVino),
        ("xnnpack", Provider::Xnnpack),
        ("cpu", Provider::Cpu),
    ]);
    let providers = match section.list("providers", 8, word) {
        Some(list) if list.is_empty() => {
            section.fault(&at, "providers", "names none; write [\"cpu\"] or leave the key out");
            list
        }
        Some(list) => {
            if (1..list.len()).any(|index| list[..index].contains(&list[index])) {
                section.fault(&at, "providers", "names one twice; name each once, the preferred one first");
            }
            list
        }
        None => vec![Provider::Cpu],
    };
    let settings = RuntimeSection {
        library,
        model_keys: section.secret_files("model_keys", MAX_KEY_FILES),
        providers,
        required: section.or("required", false, boolean),
        intra_threads: section.optional("intra_threads", whole(1..=256)).map(|threads| threads as usize),
        overlap: section.or("overlap", None, switch_or_auto),
        tuning: super::runtime::tuning(&mut section),
        frame_deadline: section.or("frame_deadline", secs(5), duration(ms(50)..=secs(600))),
        load_deadline: section.or("load_deadline", secs(1200), duration(secs(1)..=secs(6 * 3600))),
        memory_budget: section.or("memory_budget", 0, bytes(0..=1 << 50)),
        recycle_interval: section.or("recycle_interval", secs(3600), duration(secs(1)..=secs(30 * 86400))),
        memory_limit: section.or("memory_limit", 0, memory_limit),
    };
    if settings.memory_limit > 0 && settings.memory_budget >= settings.memory_limit {
        let text = "is not below memory_limit, so that the model ends before it can be replaced; lower it";
        section.fault(&at, "memory_budget", text);
    }
    section.finish();
    settings
}

/// `"auto"`, `true` or `false`.
fn switch_or_auto(node: &Node) -> Result<Option<bool>, String> {
    if text(node).is_ok_and(|word| word == "auto") {
        return Ok(None);
    }
    boolean(node).map(Some).map_err(|fault| format!("{fault}, or \"auto\""))
}

/// No limit, or one under which a runtime can at least start.
fn memory_limit(node: &Node) -> Result<u64, String> {
    match bytes(0..=1 << 50)(node)? {
        limit if (1..16 << 20).contains(&limit) => {
            Err("is less than a runtime needs; write 0 for no limit, or at least \"16MiB\"".into())
        }
        limit => Ok(limit),
    }
}

/// A URL without a user or a password in it.
pub(super) fn url(node: &Node, example: &str) -> Result<url::Url, String> {
    let written = text(node)?;
    let url: url::Url = written
        .parse()
        .map_err(|error| format!("\"{}\" is no URL ({error}); write it like {example}", shorten(written)))?;
    if url.password().is_some() || !url.username().is_empty() {
        // Not repeated in the message: it may be a password.
        return Err(
            "names a user or a password, which do not belong in a URL; leave them out (for the broker: \
                    use mqtt.username and mqtt.password_file)"
                .into(),
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!(
            "\"{}\": nothing may follow the path; write it like {example}",
            shorten(written)
        ));
    }
    Ok(url)
}

fn mqtt(mut section: Section<'_>) -> Option<MqttSettings> {
    let at = section.at.clone();
    let broker = section.required("url", "\"mqtt://localhost:1883\"", broker::any_way);
    let username = section.optional("username", |node| text(node).map(str::to_owned));
    let password_file = section.secret_file("password_file");
    if password_file.is_some() && username.is_none() {
        section.fault(&at, "username", "is missing; a password needs the user name that it belongs to");
    }
    let keep_alive = section.or("keep_alive", secs(30), duration(secs(5)..=secs(3600)));
    let root = section.or("root", "edgewarden".to_owned(), |node| {
        parsed::<DeviceId>(node).map(String::from).map_err(|_| {
            "must be one level of a topic: letters, digits, '-', '_', '.', no '/', '+' or '#'".into()
        })
    });
    let results_per_second = section.or("results_per_second", 5.0, number(0.0..=1000.0));
    let TlsSettings { ca_file, client } = super::access::tls(&mut section);
    if broker.as_ref().is_some_and(|broker| !broker.tls) && (ca_file.is_some() || client.is_some()) {
        section.fault(
            &at,
            "url",
            "is without TLS, but certificates are given; write mqtts:// (or wss://) or leave them out",
        );
    }
    let spool = spool_bounds(&mut section);
    section.finish();
    let BrokerUrl { host, port, tls, web_path } = broker?;
    Some(MqttSettings {
        host,
        port,
        web_path,
        tls: tls.then_some(TlsSettings { ca_file, client }),
        username,
        password_file,
        keep_alive,
        root,
        results_per_second,
        spool,
    })
}

fn spool_bounds(section: &mut Section<'_>) -> SpoolBounds {
    let SpoolBounds { messages, bytes: most } = SpoolBounds::default();
    // One message is at most 128 KiB.
    SpoolBounds {
        messages: section.or("spool_messages", messages as u64, whole(100..=1_000_000)) as usize,
        bytes: section.or("spool_bytes", most as u64, bytes(1 << 20..=1 << 30)) as usize,
    }
}

fn repository(mut section: Section<'_>, file: &Path) -> Option<RepositorySettings> {
    let beside = file.parent().unwrap_or(Path::new("/")).join("root.json");
    let url = section.or("url", None, |node| {
        let example = "https://models.example.com/ or file:///srv/models/";
        let mut url = url(node, example)?;
        if !matches!(url.scheme(), "http" | "https" | "file") {
            return Err(format!(
                "\"{}://\" is no way to a repository; write it like {example}",
                url.scheme()
            ));
        }
        if url.scheme() != "file" && url.host_str().unwrap_or_default().is_empty() {
            return Err(format!("names no host; write it like {example}"));
        }
        if !url.path().ends_with('/') {
            let path = format!("{}/", url.path());
            url.set_path(&path);
        }
        Ok(Some(url))
    });
    let root = section.or("root", beside, path);
    let stall_timeout = section.or("stall_timeout", secs(30), duration(secs(1)..=secs(3600)));
    let retries = section.or("retries", 5, whole(0..=1000)) as usize;
    let rate_limit = section.or("rate_limit", 0, bytes(0..=1 << 40));
    let access = super::access::read(&mut section, url.as_ref());
    section.finish();
    Some(RepositorySettings { url, root, stall_timeout, retries, rate_limit, access })
}

fn update(mut section: Section<'_>) -> UpdateSettings {
    let at = section.at.clone();
    let settings = UpdateSettings {
        probation_frames: section.or("probation_frames", 300, whole(1..=100_000_000)),
        probation_min: section.or("probation_min", secs(30), duration(ms(0)..=secs(7 * 86400))),
        probation_max: section.or("probation_max", secs(600), duration(secs(1)..=secs(30 * 86400))),
        max_error_ratio: section.or("max_error_ratio", 0.01, number(0.0..=1.0)),
        max_slowdown: section.or("max_slowdown", 2.0, number(1.0..=1000.0)),
        slow_floor_ms: section.or("slow_floor_ms", 20.0, number(0.0..=600_000.0)),
        shadow_frames: section.or("shadow_frames", 0, whole(0..=ShadowWish::MAX_FRAMES)),
        shadow_max: section.or("shadow_max", secs(600), duration(secs(1)..=secs(ShadowWish::MAX_SECONDS))),
        shadow_min_agreement: section.or("shadow_min_agreement", 0.5, number(0.0..=1.0)),
        shadow_max_memory: section.or("shadow_max_memory", 0, bytes(0..=1 << 50)),
        max_boots: section.or("max_boots", 3, whole(1..=1000)) as u32,
        max_starts: section.or("max_starts", 10, whole(0..=1000)) as u32,
        settled: section.or("settled", secs(300), duration(secs(1)..=secs(86400))),
        resume_max: section.or("resume_max", secs(600), duration(secs(0)..=secs(86400))),
        disk_reserve: section.or("disk_reserve", 256 << 20, bytes(0..=1 << 50)),
        max_bundle: section.or("max_bundle", 2 << 30, bytes(1 << 10..=1 << 40)),
        spare: Spare {
            count: section.or("keep_bundles", 0, whole(0..=1000)) as usize,
            bytes: section.or("keep_bytes", 1 << 30, bytes(0..=1 << 50)),
        },
        sideload_grace: section.or("sideload_grace", ms(0), duration(ms(0)..=secs(3650 * 86400))),
        require_model_signature: section
            .list("require_model_signature", MAX_KEY_FILES, path)
            .unwrap_or_default(),
        rules: maintenance::rules(&mut section),
    };
    if settings.probation_min > settings.probation_max {
        let (min, max) = (say_duration(settings.probation_min), say_duration(settings.probation_max));
        section.fault(
            &at,
            "probation_max",
            format!("\"{max}\" ends before probation_min \"{min}\"; raise it"),
        );
    }
    section.finish();
    settings
}

fn health(mut section: Section<'_>) -> HealthSettings {
    let interval = section.or("interval", secs(30), duration(secs(1)..=secs(86400)));
    let prometheus = section.optional("prometheus", |node| {
        let written = text(node)?;
        written.parse().map_err(|_| {
            format!("\"{}\" is no address and port; write it like \"127.0.0.1:9464\"", shorten(written))
        })
    });
    section.finish();
    HealthSettings { interval, prometheus }
}

/// What `edgewarden setup` remembers for itself.
fn setup(mut section: Section<'_>) {
    let words = one_of(&[("broker", ()), ("repository", ()), ("camera", ())]);
    section.list("without", 3, words);
    section.finish();
}

fn log(mut section: Section<'_>) -> LogSettings {
    let filter = section.or("level", "info".to_owned(), |node| {
        let written = text(node)?;
        let parsed = written.parse::<tracing_subscriber::filter::Targets>();
        parsed.map(|_| written.to_owned()).map_err(|error| {
            format!("\"{}\": {error}; write error, warn, info, debug or trace", shorten(written))
        })
    });
    let format = section.or(
        "format",
        LogFormat::Text,
        one_of(&[("text", LogFormat::Text), ("json", LogFormat::Json)]),
    );
    section.finish();
    LogSettings { filter, format }
}

fn pipelines(
    sections: Vec<Section<'_>>,
    faults: &Faults,
    mqtt: Option<&MqttSettings>,
) -> Option<Vec<PipelineSettings>> {
    let mut known = Vec::new();
    let mut slots: HashMap<String, String> = HashMap::new();
    let read: Vec<_> =
        sections.into_iter().map(|section| read_pipeline(section, &mut slots, &mut known, mqtt)).collect();
    let complete = read.iter().all(Option::is_some);
    let resolved = pipeline::resolve(read.into_iter().flatten().collect(), &known, faults);
    resolved.filter(|_| complete)
}

/// `slots`: which pipeline took which slot so far.
fn read_pipeline(
    mut section: Section<'_>,
    slots: &mut HashMap<String, String>,
    known: &mut Vec<crate::domain::PipelineName>,
    mqtt: Option<&MqttSettings>,
) -> Option<pipeline::Draft> {
    let at = section.at.clone();
    let default_name = || DEFAULT_PIPELINE.parse().unwrap_or_else(|_| unreachable!("a constant name"));
    let name: crate::domain::PipelineName = section.optional("name", parsed).unwrap_or_else(default_name);
    // Both are names by the same rule.
    let slot: crate::domain::SlotName = section
        .optional("slot", parsed)
        .or_else(|| name.as_str().parse().ok())
        .unwrap_or_else(|| unreachable!("a pipeline's name is a slot's name"));
    if let Some(other) = slots.insert(slot.to_string(), name.to_string()) {
        section.fault(
            &at,
            "slot",
            format!(
                "\"{slot}\" already belongs to pipeline \"{other}\"; give each pipeline a slot of its own"
            ),
        );
    }
    let pace = section.or("fps", pipeline::Pace::Fps(15.0), pipeline::pace);
    let max_age = pipeline::oldest(&mut section, pace);
    let motion = section.table("motion").map(motion::read);
    let events = section.table("events").map(events::read);
    let mut look = pipeline::look(&mut section, motion.is_some(), pace);
    let stall_timeout = section.or("stall_timeout", secs(10), duration(ms(100)..=secs(86400)));
    if let Some(pipeline::Look::Own(source)) = &mut look {
        pipeline::complete(&section, source, mqtt, stall_timeout);
    }
    let crop = pipeline::crop(&mut section);
    section.finish();
    known.push(name.clone());
    Some(pipeline::Draft {
        name,
        slot,
        pace,
        max_age,
        stall_timeout,
        crop,
        motion: motion.transpose_or()?,
        events: events.transpose_or()?,
        look: look?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_host_name_gives_a_device_id() {
        for (host, id) in [
            ("raspberrypi", "raspberrypi"),
            ("pi 4.local", "pi-4.local"),
            ("-x", "x"),
            ("..", "device"),
            ("", "device"),
            ("küche", "k-che"),
            ("a..b", "a--b"),
            ("group", "device"),
        ] {
            assert_eq!(id_from(host).as_str(), id, "{host}");
        }
        assert_eq!(id_from(&"a".repeat(300)).as_str().len(), 64);
    }
}
