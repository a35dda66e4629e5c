//! The configuration as users write it: the example at the top of the repository, the smallest file,
//! drop-ins, and files with faults.

use super::settings::Settings;
use super::{ConfigErrors, Surroundings, from_text, load_in};
use crate::domain::FrameFormat;
use crate::domain::manifest::Provider;
use crate::domain::source::{SourceSettings, V4l2Settings};
use std::collections::BTreeMap;
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
/// When an update may go on.
mod maintenance;
/// Whose models are taken, and which keys open encrypted ones.
mod models;
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
fn a_crop_lies_inside_the_picture() {
    let crop = |value: &str| format!("[[pipeline]]\ncrop = {value}\nsource = {{ kind = \"synthetic\" }}\n");
    for (value, read_as) in
        [("[0, 0, 1, 1]", [0.0, 0.0, 1.0, 1.0]), ("[0.1, 0.2, 0.9, 0.8]", [0.1, 0.2, 0.9, 0.8])]
    {
        let got = read(&crop(value)).unwrap().pipelines[0].crop.unwrap();
        assert!(got.iter().zip(read_as).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?}");
        assert!(got[0] + got[2] <= 1.0 && got[1] + got[3] <= 1.0);
    }
    for (value, wanted) in [
        ("[0.5, 0, 0.6, 1]", "reaches over the picture's edge"),
        ("[0, 0, 0, 1]", "is too small"),
        ("[0, 0, 1]", "needs four numbers"),
        ("[0, 0, 1, 2]", "2 is out of range"),
        ("0.5", "expected a list"),
    ] {
        let faults = faults(&crop(value));
        assert!(faults.iter().any(|fault| fault.contains(wanted)), "{value}: {faults:?}");
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
fn a_camera_is_read_and_each_fault_of_it_is_told() {
    let source = |keys: &str| format!("[[pipeline]]\nfps = 5\n[pipeline.source]\nkind = \"v4l2\"\n{keys}");
    let settings = |keys: &str| read(&source(keys)).unwrap().pipelines.remove(0).source;
    let smallest = V4l2Settings {
        device: None,
        width: 640,
        height: 480,
        fps: Some(5.0),
        format: None,
        controls: BTreeMap::new(),
    };
    assert_eq!(settings(""), SourceSettings::V4l2(smallest));
    let full = V4l2Settings {
        device: Some("/dev/v4l/by-id/usb-x".into()),
        width: 1280,
        height: 720,
        fps: Some(30.0),
        format: Some(FrameFormat::Nv12),
        controls: BTreeMap::from([("exposure_auto".to_owned(), 1), ("focus_auto".to_owned(), 0)]),
    };
    let keys = "device = \"/dev/v4l/by-id/usb-x\"\nwidth = 1280\nheight = 720\nfps = 30\nformat = \"nv12\"\n\
                controls = { exposure_auto = 1, focus_auto = false }\n";
    assert_eq!(settings(keys), SourceSettings::V4l2(full));
    for (keys, wanted) in [
        ("width = 8", "pipeline.source.width: 8 is out of range; use 16 to 8192"),
        ("fps = 0", "pipeline.source.fps: 0 is out of range"),
        ("format = \"h264\"", "pipeline.source.format: \"h264\" is not known; use \"mjpeg\" or \"yuyv\""),
        ("device = 0", "pipeline.source.device: expected text, found a whole number"),
        ("repeat = true", "pipeline.source.repeat: unknown key"),
        (
            "controls = 5",
            "pipeline.source.controls: expected a table, found a whole number; write { exposure_auto",
        ),
        (
            "controls = { \"Focus, Auto\" = 1 }",
            "pipeline.source.controls.Focus, Auto: is no control's name; write",
        ),
        (
            "controls = { gain = \"high\" }",
            "controls.gain: expected a whole number, true or false, found text",
        ),
        ("controls = { gain = 3000000000 }", "controls.gain: 3000000000 is out of range"),
    ] {
        let faults = faults(&source(keys));
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].starts_with("agent.toml:5: ") && faults[0].contains(wanted), "{faults:?}");
    }
    let two = faults(&source("controls = { a = 1.5, B = 1 }"));
    assert_eq!(two.len(), 2, "{two:?}");
    let many: String = (0..65).map(|n| format!("c{n} = 1, ")).collect();
    let many = faults(&source(&format!("controls = {{ {} }}", many.trim_end_matches(", "))));
    assert!(many[0].contains("names 65; at most 64 are possible"), "{many:?}");
}

#[test]
fn syntax_faults_have_their_line() {
    let faults = faults("[device]\nid = \n[mqtt\n");
    assert!(faults[0].starts_with("agent.toml:2: not TOML: "), "{faults:?}");
    assert!(faults.iter().any(|fault| fault.starts_with("agent.toml:3: ")), "{faults:?}");
}

#[test]
fn several_pipelines_look_at_one_source() {
    let pipeline = |name: &str, source: &str| format!("[[pipeline]]\nname = \"{name}\"\n{source}\n");
    let own = "stall_timeout = \"3s\"\nsource = { kind = \"synthetic\", seed = 5 }";
    let of = |name: &str| format!("source_of = \"{name}\"");
    // The order does not matter.
    let settings = read(&format!("{}{}", pipeline("a", &of("b")), pipeline("b", own))).unwrap();
    let [a, b] = settings.pipelines.as_slice() else { panic!("{settings:?}") };
    assert_eq!((a.source_of.as_str(), b.source_of.as_str()), ("b", "b"));
    assert_eq!((&a.source, a.stall_timeout), (&b.source, Duration::from_secs(3)));

    let others = format!("{}{}", pipeline("b", own), pipeline("c", &of("b")));
    for (source, wanted) in [
        (of("d"), "pipeline.source_of: there is no pipeline \"d\"; there is b, c, a"),
        (of("a"), "pipeline.source_of: \"a\" is this pipeline itself"),
        (of("c"), "\"c\" has no source of its own, it looks at that of \"b\"; name the pipeline that has"),
        (format!("{own}\n{}", of("b")), "pipeline.source_of: stands beside a source"),
        (format!("{}\nstall_timeout = \"1s\"", of("b")), "pipeline.stall_timeout: belongs to the source"),
        (of("x/y"), "pipeline.source_of: pipeline name \"x/y\""),
        (String::new(), "pipeline.source: is missing"),
    ] {
        let faults = faults(&format!("{others}{}", pipeline("a", &source)));
        assert_eq!(faults.len(), 1, "{source}: {faults:?}");
        assert!(faults[0].contains(wanted), "{source}: {faults:?}");
    }
    // Two that name each other: each is told.
    let circle = faults(&format!("{}{}", pipeline("a", &of("b")), pipeline("b", &of("a"))));
    assert_eq!(circle.len(), 2, "{circle:?}");
}

#[test]
fn the_motion_gate_is_off_unless_there_is_a_table_and_its_faults_are_told() {
    let with = |table: &str| format!("{SMALLEST}[pipeline.motion]\n{table}\n");
    assert_eq!(read(SMALLEST).unwrap().pipelines[0].motion, None);
    let settings =
        read(&with("threshold = 20\nignore = [{ polygon = [[0, 0], [1, 0], [0, 0.5]] }]")).unwrap();
    let motion = settings.pipelines[0].motion.as_ref().unwrap();
    let corners = vec![[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]];
    assert_eq!((&motion.zones[0].area, motion.zones[0].threshold), (&corners, 20.0), "the whole picture");
    assert_eq!((motion.hold_ms, motion.keep_alive_ms, motion.ignore.len()), (2000, 10_000, 1));
    for (table, wanted) in [
        ("threshold = 0", "pipeline.motion.threshold: 0 is out of range"),
        ("keep_alive = \"0s\"", "pipeline.motion.keep_alive"),
        ("zones = [{ rect = [0.5, 0.0, 0.5, 1.0] }]", "write [left, top, right, bottom] in shares"),
        ("zones = [{ rect = [0, 0, 2, 1] }]", "2 is out of range; use 0 to 1"),
        ("zones = [{ polygon = [[0, 0], [1, 1]] }]", "has 2 corners; use 3 to 32"),
        ("ignore = [{ polygon = [[0, 0], [1], [0, 1]] }]", "a corner is [x, y]"),
        ("zones = [{ min_area = 0.1 }]", "give either rect"),
        ("zones = [{ rectangle = 1 }]", "unknown key; known here: threshold, min_area, rect, polygon"),
    ] {
        let faults = faults(&with(table));
        assert!(faults.iter().any(|fault| fault.contains(wanted)), "{table}: {faults:?}");
    }
    let shared = "[[pipeline]]\nname = \"b\"\nsource_of = \"main\"\nmotion = { hold = \"1s\" }\n";
    let faults = faults(&format!("{SMALLEST}{shared}"));
    assert!(faults.len() == 1 && faults[0].contains("pipeline.motion: belongs to the source"), "{faults:?}");
}

#[test]
fn two_pipelines_of_one_name_are_refused() {
    let faults = faults(&format!("{SMALLEST}{SMALLEST}"));
    assert_eq!(
        faults,
        [
            "agent.toml:3: pipeline.name: \"main\" is already the pipeline at line 1; give each pipeline a name of its \
         own"
        ]
    );
}

#[test]
fn pipelines_with_single_brackets_are_explained() {
    let faults = faults("[pipeline]\nname = \"a\"\n");
    assert!(
        faults.iter().any(|fault| fault.contains("expected [[pipeline]] with two brackets")),
        "{faults:?}"
    );
}

fn folder_with(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("config.d")).unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn drop_ins_are_laid_over_in_the_order_of_their_names() {
    let folder = folder_with(&[
        (
            "agent.toml",
            "[device]\nid = \"one\"\n[mqtt]\nurl = \"mqtt://a\"\n[[pipeline]]\nname = \"x\"\nfps = 3\n\
                        source = { kind = \"folder\", path = \"pictures\" }\n",
        ),
        ("config.d/20-last.toml", "[device]\nid = \"three\"\n"),
        (
            "config.d/10-site.toml",
            "[device]\nid = \"two\"\ngroups = [\"g\"]\n[mqtt]\nkeep_alive = \"1m\"\n\
                                   [[pipeline]]\nname = \"x\"\nfps = 7\n[[pipeline]]\nname = \"y\"\n\
                                   source = { kind = \"synthetic\", seed = 9 }\n",
        ),
        ("config.d/.10-site.toml.swp.toml", "not toml"),
        ("config.d/README", "not toml"),
    ]);
    let settings = load_in(&folder.path().join("agent.toml"), &around()).unwrap();
    assert_eq!(settings.device.id.as_str(), "three");
    assert_eq!(settings.device.groups.len(), 1);
    let mqtt = settings.mqtt.unwrap();
    assert_eq!((mqtt.host.as_str(), mqtt.port, mqtt.keep_alive), ("a", 1883, Duration::from_secs(60)));
    assert_eq!(settings.pipelines.len(), 2);
    assert_eq!(settings.pipelines[0].fps, 7.0);
    let pictures = SourceSettings::Folder { path: folder.path().join("pictures"), repeat: true };
    assert_eq!(settings.pipelines[0].source, pictures);
    assert_eq!(settings.pipelines[1].name.as_str(), "y");
}

#[test]
fn a_drop_in_that_changes_the_kind_of_source_replaces_it() {
    let folder = folder_with(&[
        ("agent.toml", "[[pipeline]]\nsource = { kind = \"folder\", path = \"/p\" }\n"),
        ("config.d/a.toml", "[[pipeline]]\nsource = { kind = \"synthetic\" }\n"),
    ]);
    let settings = load_in(&folder.path().join("agent.toml"), &around()).unwrap();
    assert!(matches!(settings.pipelines[0].source, SourceSettings::Synthetic { seed: 1, .. }));
}

#[test]
fn a_fault_in_a_drop_in_names_the_drop_in() {
    let folder = folder_with(&[("agent.toml", SMALLEST), ("config.d/a.toml", "\n[device]\nidd = \"x\"\n")]);
    let errors = load_in(&folder.path().join("agent.toml"), &around()).unwrap_err().to_string();
    assert!(errors.contains("config.d/a.toml:3: device.idd: unknown key; did you mean id?"), "{errors}");
}

#[test]
fn a_device_begins_without_a_file_but_a_mistyped_name_is_told() {
    let folder = folder_with(&[("config.d/50-setup.toml", "[device]\nid = \"three\"\n")]);
    let main = folder.path().join("agent.toml");
    let settings = load_in(&main, &around()).unwrap();
    assert_eq!(settings.device.id.as_str(), "three");
    assert_eq!((settings.pipelines.len(), settings.mqtt, settings.repository), (0, None, None));
    assert_eq!(super::files(&main), [folder.path().join("config.d/50-setup.toml")]);
    // An empty file is as none.
    std::fs::write(&main, "").unwrap();
    assert_eq!(load_in(&main, &around()).unwrap().device.id.as_str(), "three");
    assert_eq!(super::files(&main).len(), 2);
    // A name that nobody knows, a link that leads nowhere, and a folder without drop-ins are faults.
    assert!(load_in(&folder.path().join("agnt.toml"), &around()).is_err());
    std::fs::remove_file(&main).unwrap();
    std::os::unix::fs::symlink("nowhere.toml", &main).unwrap();
    assert!(load_in(&main, &around()).is_err());
    let empty = tempfile::tempdir().unwrap();
    assert!(load_in(&empty.path().join("agent.toml"), &around()).is_err());
    assert!(
        load_in(Path::new(super::DEFAULT_PATH), &around()).is_ok() || Path::new(super::DEFAULT_PATH).exists()
    );
}

#[test]
fn a_drop_in_can_be_tried_before_it_is_written() {
    let folder = folder_with(&[
        ("config.d/50-setup.toml", "[device]\nid = \"old\"\n"),
        ("config.d/90-mine.toml", "[device]\ngroups = [\"g\"]\n"),
    ]);
    let main = folder.path().join("agent.toml");
    let file = super::drop_in(&main, "50-setup.toml");
    let as_if = |text| super::load_as_if(&main, &around(), Some(super::AsIf { file: &file, text }));
    assert_eq!(as_if(None).unwrap().device.id.as_str(), "pi-4");
    let tried = as_if(Some("[device]\nid = \"new\"\ngroups = [\"h\"]\n")).unwrap().device;
    assert_eq!((tried.id.as_str(), tried.groups[0].as_str()), ("new", "g"), "later names win");
    let faults = as_if(Some("\n[device]\nidd = 1\n")).unwrap_err().to_string();
    assert!(faults.contains("50-setup.toml:3: device.idd: unknown key"), "{faults}");
    assert_eq!(load_in(&main, &around()).unwrap().device.id.as_str(), "old", "nothing was written");
}

#[test]
fn drop_ins_are_bounded() {
    let folder = folder_with(&[("agent.toml", SMALLEST)]);
    for number in 0..65 {
        std::fs::write(folder.path().join(format!("config.d/{number}.toml")), "").unwrap();
    }
    let faults = load_in(&folder.path().join("agent.toml"), &around()).unwrap_err().to_string();
    assert!(faults.contains("config.d:1: holds more than 64 drop-ins"), "{faults}");
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = folder_with(&[("agent.toml", SMALLEST)]);
    let missing = load_in(&folder.path().join("other.toml"), &around()).unwrap_err().to_string();
    assert!(
        missing.contains("other.toml:1: cannot read this file") && missing.contains("--config"),
        "{missing}"
    );
    std::fs::write(folder.path().join("config.d/b.toml"), [0xff, 0xfe]).unwrap();
    std::fs::write(folder.path().join("config.d/c.toml"), "x".repeat((1 << 20) + 1)).unwrap();
    let faults = load_in(&folder.path().join("agent.toml"), &around()).unwrap_err().to_string();
    assert!(faults.contains("b.toml:1: cannot read this file") && faults.contains("UTF-8"), "{faults}");
    assert!(faults.contains("c.toml:1: is larger than"), "{faults}");
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
    use crate::domain::source::{SensorFrom, SourceSettings};
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
