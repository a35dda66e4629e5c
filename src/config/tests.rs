//! The configuration as users write it: the example at the top of the repository, the smallest file, and files
//! with faults.

use super::settings::Settings;
use super::{ConfigErrors, Surroundings, from_text};
use crate::domain::manifest::Provider;
use crate::domain::source::SourceSettings;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How a repository is reached.
mod access;
/// `[mqtt]`.
mod broker;
/// `[commands]`.
mod commands;
/// What is an event, and how Home Assistant hears of the device.
mod events;
/// Drop-ins, and what cannot be read.
mod files;
/// When an update may go on.
mod maintenance;
/// Whose models are taken, and which keys open encrypted ones.
mod models;
/// `[[pipeline]]`.
mod pipelines;
/// The `[runtime]` tables and what belongs to them.
mod runtime;

const EXAMPLE: &str = include_str!("../../agent.toml");

fn around() -> Surroundings {
    Surroundings { hostname: "pi-4".into(), onnxruntime: None, credentials: None }
}

fn read(text: &str) -> Result<Settings, ConfigErrors> {
    from_text(text, Path::new("/etc/edgewarden"), &around())
}

/// The faults of a text as lines without the path.
fn faults(text: &str) -> Vec<String> {
    let errors = read(text).expect_err("must be refused");
    errors.to_string().lines().map(|line| line.replace("/etc/edgewarden/", "")).collect()
}

const SMALLEST: &str = "[[pipeline]]\nsource = { kind = \"synthetic\" }\n";

/// `#key = value` and, when `examples`, `#e.g. key = value` made effective.
fn uncommented(examples: bool) -> String {
    EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix("#e.g. ") {
            Some(example) if examples => example.to_owned(),
            Some(_) => line.to_owned(),
            None => match line.strip_prefix('#') {
                Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase()) => key.to_owned(),
                _ => line.to_owned(),
            },
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_example_is_valid() {
    let settings = read(EXAMPLE).unwrap();
    assert_eq!(settings.device.id.as_str(), "pi-4");
    assert_eq!(settings.pipelines[0].name.as_str(), "camera");
    assert_eq!(settings.pipelines[0].slot.as_str(), "detector");
}

#[test]
fn the_defaults_that_the_example_shows_are_those_of_the_code() {
    let shown = uncommented(false);
    assert_ne!(shown, EXAMPLE);
    assert_eq!(read(&shown).unwrap(), read(EXAMPLE).unwrap());
}

#[test]
fn the_example_shows_every_default_of_a_device_that_says_nothing() {
    let example = read(EXAMPLE).unwrap();
    let smallest = read(SMALLEST).unwrap();
    assert_eq!(smallest.device, example.device);
    assert_eq!(smallest.paths, example.paths);
    assert_eq!(smallest.runtime, example.runtime);
    assert_eq!(smallest.update, example.update);
    assert_eq!(smallest.commands, example.commands);
    assert_eq!(smallest.homeassistant, example.homeassistant);
    assert_eq!(smallest.health, example.health);
    assert_eq!(smallest.log, example.log);
    assert_eq!(smallest.pipelines[0].source, example.pipelines[0].source);
    assert_eq!(smallest.mqtt, None);
    assert_eq!(smallest.repository, None);
}

#[test]
fn the_examples_in_the_example_are_valid() {
    // Certificates are only for mqtts://.
    let all = uncommented(true).replace("mqtt://", "mqtts://");
    let settings = read(&all).unwrap();
    let mqtt = settings.mqtt.unwrap();
    assert_eq!(mqtt.port, 1883);
    assert_eq!(mqtt.password_file.unwrap(), Path::new("/run/credentials/edgewarden.service/mqtt-password"));
    let tls = mqtt.tls.unwrap();
    assert!(tls.ca_file.is_some() && tls.client.is_some());
    let repository = settings.repository.unwrap();
    assert_eq!(repository.root, Path::new("/etc/edgewarden/root.json"));
    assert_eq!(repository.rate_limit, 500_000);
    assert_eq!(settings.runtime.intra_threads, Some(2));
    assert_eq!(settings.pipelines[0].crop, Some([0.25, 0.5, 0.5, 0.5]));
}

/// The keys that the code asks for are those that an unknown key is compared with.
#[test]
fn the_example_names_every_key() {
    let runtime = ["runtime.cpu", "runtime.tensorrt", "runtime.cuda", "runtime.openvino", "runtime.xnnpack"];
    let tables = ["device", "paths", "runtime", "mqtt", "commands", "repository", "update", "health", "log"];
    for table in tables.into_iter().chain(runtime).chain(["homeassistant", "pipeline.events"]) {
        let known = faults(&format!("{SMALLEST}[{table}]\nqqqqqqqqqqqqqqqq = 1\n"))
            .into_iter()
            .find_map(|line| Some(line.split_once("known here: ")?.1.to_owned()))
            .unwrap();
        let uncommented = uncommented(true);
        let section = uncommented.split(&format!("\n[{table}]\n")).nth(1).unwrap();
        let section = section.split("\n[").next().unwrap();
        for key in known.split(", ") {
            let shown = section.starts_with(&format!("{key} = "))
                || section.contains(&format!("\n{key} = "))
                || uncommented.contains(&format!("\n[{table}.{key}]\n"));
            assert!(shown, "agent.toml: [{table}] lacks {key}");
        }
    }
}

#[test]
fn overlap_is_auto_or_a_switch() {
    let overlap = |value: &str| format!("{SMALLEST}[runtime]\noverlap = {value}\n");
    for (value, read_as) in [("\"auto\"", None), ("true", Some(true)), ("false", Some(false))] {
        assert_eq!(read(&overlap(value)).unwrap().runtime.overlap, read_as);
    }
    let faults = faults(&overlap("\"yes\""));
    assert!(faults[0].contains("expected true or false") && faults[0].contains("or \"auto\""), "{faults:?}");
}

#[test]
fn the_smallest_file_is_a_pipeline_with_a_source() {
    let settings = read(SMALLEST).unwrap();
    assert_eq!(settings.pipelines.len(), 1);
    assert_eq!(settings.pipelines[0].name.as_str(), "main");
    assert_eq!(settings.pipelines[0].slot.as_str(), "main");
    assert_eq!(settings.runtime.providers, [Provider::Cpu]);
}

#[test]
fn every_fault_is_told_at_once_with_its_line() {
    let text = r#"
[device]
id = "a/b"
[runtime]
providers = ["cpu", "vulkan"]
frame_dedline = "5s"
load_deadline = 20
[mqtt]
url = "http://x"
password = "hunter2"
[update]
max_error_ratio = 1.5
probation_min = "1h"
[[pipeline]]
fps = "fast"
source = { kind = "folder" }
[[pipeline]]
name = "b"
slot = "main"
source = { kind = "synthetic", widht = 10 }
"#;
    let faults = faults(text);
    let expect = [
        (3, "device.id: device id \"a/b\": use 1 to 64"),
        (
            5,
            "runtime.providers: \"vulkan\" is not known; use \"tensorrt\" or \"cuda\" or \"openvino\" or \"xnnpack\" or \"cpu\"",
        ),
        (6, "runtime.frame_dedline: unknown key; did you mean frame_deadline?"),
        (7, "runtime.load_deadline: expected a time span, found a whole number; write a number and its unit"),
        (9, "mqtt.url: \"http://\" is no way to a broker"),
        (10, "mqtt.password: a secret does not belong in this file"),
        (11, "update.probation_max: \"10m\" ends before probation_min \"1h\"; raise it"),
        (12, "update.max_error_ratio: 1.5 is out of range; use 0 to 1"),
        (15, "pipeline.fps: expected a number, found text"),
        (16, "pipeline.source.path: is missing; add path = \"/srv/pictures\""),
        (17, "pipeline.slot: \"main\" already belongs to pipeline \"main\""),
        (20, "pipeline.source.widht: unknown key; did you mean width?"),
    ];
    assert_eq!(faults.len(), expect.len(), "{faults:#?}");
    for (fault, (line, text)) in faults.iter().zip(expect) {
        assert!(
            fault.starts_with(&format!("agent.toml:{line}: {text}")),
            "{fault}\n  wanted line {line}: {text}"
        );
        assert!(!fault.contains("hunter2"), "a secret must not reach the log: {fault}");
    }
}

#[test]
fn single_faults_name_their_remedy() {
    for (text, wanted) in [
        (
            "[[pipeline]]\nname = \"a\"\nmax_age = 2\nsource = { kind = \"synthetic\" }\n",
            "or \"off\" for frames of any age",
        ),
        ("[mqtt]\nurl = \"mqtt://u:hunter2@h\"\n", "mqtt.url: names a user or a password"),
        ("[mqtt]\nurl = \"mqtt://h/topic\"\n", "is not just a host and a port"),
        ("[mqtt]\n", "mqtt.url: is missing; add url = \"mqtt://localhost:1883\""),
        ("[mqtt]\nurl = \"mqtts://h\"\ncert_file = \"a\"\n", "mqtt.key_file: is missing"),
        ("[mqtt]\nurl = \"mqtt://h\"\nca_file = \"a\"\n", "mqtt.url: is without TLS"),
        ("[mqtt]\nurl = \"mqtt://h\"\nroot = \"a/b\"\n", "mqtt.root: must be one level"),
        ("[mqtt]\nurl = \"mqtt://h\"\nspool_messages = 10\n", "mqtt.spool_messages: "),
        ("[mqtt]\nurl = \"mqtt://h\"\nspool_bytes = \"2TiB\"\n", "mqtt.spool_bytes: "),
        (
            "[mqtt]\nurl = \"mqtt://h\"\nusername = \"u\"\npassword_file = \"credential:../x\"\n",
            "mqtt.password_file: is no cred",
        ),
        ("[repository]\nurl = \"ftp://h/\"\n", "repository.url: \"ftp://\" is no way to a repository"),
        ("[repository]\nurl = \"models\"\n", "is no URL"),
        ("[update]\nsideload_grace = \"90\"\n", "update.sideload_grace: \"90\""),
        ("[update]\nsideload_grace = \"4000d\"\n", "update.sideload_grace: \"4000d\""),
        ("[runtime]\nproviders = []\n", "runtime.providers: names none"),
        ("[runtime]\nproviders = [\"cpu\", \"cpu\"]\n", "runtime.providers: names one twice"),
        ("[health]\nprometheus = \"9464\"\n", "write it like \"127.0.0.1:9464\""),
        ("[log]\nlevel = \"loud=very=much\"\n", "log.level: \"loud=very=much\""),
        ("[paths]\nstate = \"~/x\"\n", "paths.state: \"~/x\": \"~\" means nothing"),
        ("[log]\nlevel = 2020-01-01\n", "expected text, found a date"),
        ("[log]\nlevel = \"\"\n", "is empty; leave the key out"),
        ("pipelines = 5\n", "pipelines: unknown key; did you mean pipeline?"),
        ("device = 5\n", "device: expected a table, found a whole number; write [device]"),
        ("[device]\nid = \"group\"\n", "device.id: \"group\" has a meaning of its own"),
        ("[device]\ngroups = \"a\"\n", "device.groups: expected a list, found text"),
        ("[update]\nmax_boots = 99999999999999999999\n", "max_boots: the number is too large"),
    ] {
        // A top-level key must stand before the first table.
        let text =
            if text.starts_with('[') { format!("{SMALLEST}{text}") } else { format!("{text}{SMALLEST}") };
        let faults = faults(&text);
        assert_eq!(faults.len(), 1, "{text}: {faults:?}");
        assert!(faults[0].contains(wanted), "{text}: {faults:?}");
        assert!(!faults[0].contains("hunter2"));
    }
}

#[test]
fn syntax_faults_have_their_line() {
    let faults = faults("[device]\nid = \n[mqtt\n");
    assert!(faults[0].starts_with("agent.toml:2: not TOML: "), "{faults:?}");
    assert!(faults.iter().any(|fault| fault.starts_with("agent.toml:3: ")), "{faults:?}");
}

#[test]
fn the_environment_gives_the_library_and_the_credentials() {
    let around = Surroundings {
        hostname: String::new(),
        onnxruntime: Some("/opt/ort.so".into()),
        credentials: Some("/run/credentials/x".into()),
    };
    let text = format!(
        "{SMALLEST}[mqtt]\nurl = \"mqtts://[::1]\"\nusername = \"u\"\npassword_file = \"credential:pw\"\n"
    );
    let settings = from_text(&text, Path::new("/e"), &around).unwrap();
    assert_eq!(settings.runtime.library, Path::new("/opt/ort.so"));
    let mqtt = settings.mqtt.unwrap();
    assert_eq!(mqtt.password_file, Some(PathBuf::from("/run/credentials/x/pw")));
    assert_eq!((mqtt.host.as_str(), mqtt.port, mqtt.tls.is_some()), ("::1", 8883, true));
    assert_eq!(settings.device.id.as_str(), "device");
}

#[test]
fn a_source_takes_its_password_from_a_credential_too() {
    use crate::domain::source::SensorFrom;
    use crate::domain::stream::StreamSettings;
    let around = Surroundings { credentials: Some("/run/credentials/x".into()), ..Surroundings::default() };
    let source = |keys: &str, around: &Surroundings| {
        let text = format!("[[pipeline]]\n[pipeline.source]\n{keys}");
        from_text(&text, Path::new("/e"), around).map(|settings| settings.pipelines[0].source.clone())
    };
    for (kind, url) in [("rtsp", "rtsp://cam/"), ("http_mjpeg", "http://cam/")] {
        let keys = |file: &str| {
            format!("kind = \"{kind}\"\nurl = \"{url}\"\nuser = \"u\"\npassword_file = \"{file}\"\n")
        };
        let SourceSettings::Stream(stream) = source(&keys("credential:cam"), &around).unwrap() else {
            panic!("{kind} is a stream")
        };
        let login = match stream {
            StreamSettings::Rtsp { login, .. } | StreamSettings::HttpMjpeg { login, .. } => login,
            other => panic!("{other:?}"),
        };
        assert_eq!(login.unwrap().password_file, Path::new("/run/credentials/x/cam"), "{kind}");
        let faults = source(&keys("credential:../cam"), &around).unwrap_err().to_string();
        assert!(faults.contains("source.password_file: is no credential"), "{faults}");
    }
    let topic = "kind = \"mqtt\"\ntopic = \"a\"\nbroker = \"mqtt://h\"\nusername = \"u\"\n\
                 password_file = \"credential:pw\"\ncolumns = [\"x\"]\nrate = 50\nwindow = 100\n";
    let SourceSettings::Sensor(sensor) = source(topic, &Surroundings::default()).unwrap() else {
        panic!("a topic is a sensor")
    };
    let SensorFrom::Mqtt { broker, .. } = sensor.from else { panic!("from a topic") };
    assert_eq!(broker.password_file.unwrap(), Path::new("/run/credentials/edgewarden.service/pw"));
}

proptest::proptest! {
    /// Whatever stands in the file, the answer is settings or faults with a line that exists.
    #[test]
    fn no_text_makes_the_reader_panic(text in "(\\[\\[?(pipeline|mqtt|device|x)\\]?\\]|[a-z]+ = |\"|[0-9.]+|\n|\\{|\\}|s|,|é){0,30}") {
        if let Err(errors) = read(&text) {
            proptest::prop_assert!(!errors.0.is_empty());
            for fault in errors.0 {
                proptest::prop_assert!(fault.at.line >= 1 && fault.at.line <= text.matches('\n').count() + 1);
            }
        }
    }
}
