//! `[[pipeline]]`: what a pipeline looks at, and what of it.

use super::*;
use crate::domain::FrameFormat;
use crate::domain::source::V4l2Settings;
use std::collections::BTreeMap;

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
