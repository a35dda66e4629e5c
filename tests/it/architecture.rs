//! The rules of the source tree, so that they hold without anybody remembering them. The rooms and their
//! directions are explained in the crate's head.

use crate::support::root;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which rooms a room may import. A folder of `src/` that is not listed fails the test.
const ROOMS: [(&str, &[&str]); 14] = [
    ("domain", &[]),
    ("config", &["domain"]),
    ("sys", &["domain"]),
    ("bundle", &["domain", "sys"]),
    ("trust", &["domain", "config", "sys", "bundle"]),
    ("inference", &["domain", "config", "sys", "bundle"]),
    ("process", &["domain", "config", "sys"]),
    ("update", &["domain", "config", "sys", "bundle", "trust"]),
    ("mqtt", &["domain", "config", "sys"]),
    ("telemetry", &["domain", "config", "sys"]),
    // `mqtt`: the capture child listens to a sensor's topic.
    ("children", &["domain", "config", "sys", "bundle", "inference", "process", "mqtt"]),
    // No model and no decoder in the agent's address space: neither `inference` nor `children`.
    ("agent", &["domain", "config", "sys", "bundle", "trust", "process", "update", "mqtt", "telemetry"]),
    ("cli", &["*"]),
    ("demo", &["*"]),
];

/// Crates that only these files, and files of these folders, may name, so that they can be replaced in one
/// place.
const VENDORS: [(&str, &[&str]); 8] = [
    ("ort", &["src/inference/session.rs", "src/inference/session/"]),
    ("rumqttc", &["src/mqtt/client.rs", "src/mqtt/client/"]),
    ("sled", &["src/sys/store.rs", "src/sys/store/"]),
    ("iceoryx2", &["src/process/frames.rs"]),
    // The kernel's interface to cameras.
    ("rustix::ioctl", &["src/inference/source/v4l2/kernel.rs"]),
    ("sigstore_tuf", &["src/trust/tuf.rs", "src/trust/tuf/"]),
    ("zstd_safe", &["src/bundle/delta/zstd.rs"]),
    ("reqwest", &["src/update/http.rs", "src/update/http/", "src/cli/local.rs"]),
];

/// What may lie at the top of the repository besides hidden files.
const TOP: [&str; 10] = [
    "Cargo.toml",
    "Cargo.lock",
    "src",
    "agent.toml",
    "packaging",
    "cross",
    "tests",
    "benches",
    "fuzz",
    "README.md",
];

const MAX_LINES: usize = 600;

struct Source {
    /// Relative to the repository, with slashes.
    path: String,
    text: String,
}

impl Source {
    /// Lines of code with their numbers: comments are left out.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn room(&self) -> Option<&str> {
        self.path.strip_prefix("src/")?.split_once('/').map(|(room, _)| room)
    }
}

fn sources(folders: &[&str]) -> Vec<Source> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries {
            let path = entry.expect("list a folder").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    folders.iter().for_each(|folder| walk(&root().join(folder), &mut found));
    found.sort();
    let source = |path: PathBuf| Source {
        path: path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned(),
        text: fs::read_to_string(&path).expect("a source file is UTF-8"),
    };
    found.into_iter().map(source).collect()
}

fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// The rooms that a line names after `crate::`, singly or in a group.
fn rooms_named(line: &str) -> Vec<&str> {
    let mut named = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            // `use crate::{a::X, b}`: the first word after each comma at the group's own depth.
            Some(group) => {
                let mut depth = 0;
                let mut start = 0;
                for (index, byte) in group.bytes().enumerate() {
                    match byte {
                        b'{' => depth += 1,
                        b'}' if depth == 0 => {
                            named.push(word(&group[start..index]));
                            break;
                        }
                        b'}' => depth -= 1,
                        b',' if depth == 0 => {
                            named.push(word(&group[start..index]));
                            start = index + 1;
                        }
                        _ => {}
                    }
                }
            }
            None => named.push(word(rest)),
        }
    }
    named
}

fn word(text: &str) -> &str {
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// Does the code name this crate: `name::`, not as the end of a longer word or path?
fn names_crate(line: &str, name: &str) -> bool {
    let needle = format!("{name}::");
    line.match_indices(&needle).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
    }) || line.trim_start().starts_with(&format!("use {name};"))
        || line.trim_start().starts_with(&format!("use {name} as"))
}

#[test]
fn the_scanner_sees_what_it_should() {
    assert_eq!(rooms_named("use crate::domain::Reason;"), ["domain"]);
    assert_eq!(rooms_named("use crate::{domain::{A, B}, sys};"), ["domain", "sys"]);
    assert_eq!(rooms_named("let x = crate::mqtt::y(crate::sys::z());"), ["mqtt", "sys"]);
    assert!(names_crate("use ort::session::Session;", "ort"));
    assert!(names_crate("    let x = ort::init_from(p);", "ort"));
    assert!(!names_crate("use super::transport::Transport;", "ort"));
    assert!(!names_crate("report::x()", "ort"));
}

#[test]
fn rooms_import_only_in_their_direction() {
    let mut faults = Vec::new();
    for source in sources(&["src"]) {
        let Some(room) = source.room() else { continue };
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            faults.push(format!("{}: the room {room} is not in the table of this test", source.path));
            continue;
        };
        for (number, line) in source.code() {
            for named in rooms_named(line) {
                let is_room = ROOMS.iter().any(|(name, _)| *name == named);
                if is_room && named != room && !allowed.contains(&named) && !allowed.contains(&"*") {
                    faults.push(format!(
                        "{}:{number}: {room} must not import {named}; meet in a domain type, or be wired in agent",
                        source.path
                    ));
                }
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn a_vendor_is_named_in_its_one_file() {
    let mut faults = Vec::new();
    for source in sources(&["src"]) {
        for (number, line) in source.code() {
            for (vendor, files) in VENDORS {
                let may = files.iter().any(|&file| {
                    source.path == file || (file.ends_with('/') && source.path.starts_with(file))
                });
                if names_crate(line, vendor) && !may {
                    faults.push(format!(
                        "{}:{number}: names {vendor}; only {} may",
                        source.path,
                        files.join(", ")
                    ));
                }
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn the_domain_does_no_io() {
    const OUTSIDE: [&str; 9] = [
        "std::fs",
        "std::net",
        "std::process",
        "std::thread",
        "std::env",
        "tokio::",
        "tracing::",
        "SystemTime::now",
        "Instant::now",
    ];
    let mut faults = Vec::new();
    for source in sources(&["src/domain"]) {
        for (number, line) in source.code() {
            for outside in OUTSIDE.iter().filter(|outside| line.contains(**outside)) {
                faults.push(format!(
                    "{}:{number}: {outside}: the domain is pure; make it an argument",
                    source.path
                ));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn every_file_has_a_head_and_is_not_too_long() {
    let mut faults = Vec::new();
    for source in sources(&["src", "tests", "benches", "fuzz"]) {
        if !source.text.starts_with("//! ") {
            faults.push(format!("{}: begins without a //! head that says what it is", source.path));
        }
        let lines = source.text.lines().count();
        if lines > MAX_LINES {
            faults.push(format!("{}: has {lines} lines; divide it, {MAX_LINES} is the most", source.path));
        }
    }
    assert_none(&faults);
}

#[test]
fn nothing_is_left_for_later() {
    // Written in two parts, so that this file does not find itself.
    let unfinished: [String; 7] = [
        ["todo", "!"].concat(),
        ["unimplemented", "!"].concat(),
        ["dbg", "!("].concat(),
        ["#[igno", "re"].concat(),
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["not written", " yet"].concat(),
    ];
    let mut faults = Vec::new();
    for source in sources(&["src", "tests", "benches"]) {
        for (index, line) in source.text.lines().enumerate() {
            for mark in unfinished.iter().filter(|mark| line.contains(mark.as_str())) {
                faults.push(format!("{}:{}: {mark}", source.path, index + 1));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn the_top_of_the_repository_is_tidy() {
    let mut faults = Vec::new();
    for entry in fs::read_dir(root()).expect("list the repository") {
        let name = entry.expect("list the repository").file_name().to_string_lossy().into_owned();
        let allowed = name.starts_with('.')
            // Cargo's own, which git ignores.
            || name == "target"
            || name.starts_with("LICENSE")
            || TOP.contains(&name.as_str());
        if !allowed {
            faults.push(format!("{name}: does not belong at the top of the repository"));
        }
    }
    assert_none(&faults);
}

/// The program is shipped built for size; `packaging/small-rustc.sh` takes that off the functions with such a name.
#[test]
fn what_sees_every_pixel_is_built_for_speed_where_all_else_is_built_for_size() {
    let added = |arguments: &[&str]| {
        let mut compiler = Command::new(root().join("packaging/small-rustc.sh"));
        let output = compiler.arg("echo").args(arguments).env("CARGO_MANIFEST_DIR", root()).output();
        let output = output.expect("run packaging/small-rustc.sh");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let lib = added(&["--crate-name", "edgewarden", "--crate-type", "lib", "-C", "opt-level=z"]);
    let (mut faults, mut names) = (Vec::new(), Vec::new());
    for source in sources(&["src"]) {
        for (line, text) in source.code() {
            let Some((_, name)) = text.split_once("export_name = \"") else { continue };
            let name = name.split('"').next().expect("a name").to_owned();
            if !lib.contains(&format!("-force-remove-attribute={name}:minsize")) {
                faults.push(format!(
                    "{}:{line}: {name} is built for size; begin its name with hot_",
                    source.path
                ));
            }
            names.push(name);
        }
    }
    assert_none(&faults);
    assert!(names.contains(&"hot_write".to_owned()), "the tensor's writing is one: {names:?}");
    let program = added(&["--crate-name", "edgewarden", "--crate-type", "bin", "-C", "lto=fat"]);
    let level = program.rsplit_once("opt-level=").expect("a level").1;
    assert_eq!(level.split_whitespace().next(), Some("3"), "the last step allows for vectors: {program}");
    let script =
        program.trim_end().rsplit_once("-Wl,-T,").expect("what a waiting agent needs lies side by side").1;
    let script = std::fs::read_to_string(script).expect("read the linker's script");
    assert!(script.contains("edgewarden") && script.contains("INSERT BEFORE .text;"), "{script}");
    let other = added(&["--crate-name", "serde", "--crate-type", "lib", "-C", "opt-level=z"]);
    assert!(!other.contains("llvm-args") && !other.contains("-Wl,-T"), "{other}");
}
