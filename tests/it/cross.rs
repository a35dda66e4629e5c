//! Building for other processors: what `cross` will read, since no container engine runs it here, and the check
//! that a program starts on old systems.

use crate::support::{Edgewarden, root};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

/// The targets that are meant to be built.
const TARGETS: [&str; 2] = ["aarch64-unknown-linux-gnu", "x86_64-unknown-linux-gnu"];

/// `Cross.toml` with the keys that both cross 0.2.5 and its main branch know; any other fails the test, where
/// cross only warns.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Cross {
    target: BTreeMap<String, Target>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Target {
    dockerfile: Dockerfile,
    #[serde(default)]
    env: Env,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Dockerfile {
    /// Relative to the top of the repository, as is the context.
    file: String,
    context: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Env {
    passthrough: Vec<String>,
}

fn cross(file: &str) -> PathBuf {
    root().join("cross").join(file)
}

fn read(file: &str) -> String {
    fs::read_to_string(cross(file)).unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// The instructions of a Dockerfile, each on one line.
fn instructions(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let joined = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    joined.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
}

#[test]
fn cross_toml_has_only_keys_that_cross_knows_and_the_targets_that_are_meant() {
    let parsed: Cross = toml::from_str(&read("Cross.toml")).unwrap();
    assert_eq!(parsed.target.keys().map(String::as_str).collect::<Vec<_>>(), TARGETS);
    for (name, target) in &parsed.target {
        assert!(root().join(&target.dockerfile.file).is_file(), "{name}: {}", target.dockerfile.file);
        // All of the context is sent to the container engine: never the whole repository with its target folder.
        assert_eq!(target.dockerfile.context, "cross", "{name}");
        assert_eq!(target.env.passthrough, ["SOURCE_DATE_EPOCH"], "{name}: builds are reproducible");
    }
    for (fault, says) in [
        ("[target.a]\nimagee = \"b\"", "imagee"),
        ("[targets.a]", "targets"),
        ("[target.a]\ndockerfile = { file = \"a\", contex = \"b\" }", "contex"),
    ] {
        let told = toml::from_str::<Cross>(fault).err().unwrap().to_string();
        assert!(told.contains("unknown field") && told.contains(says), "{told}");
    }
}

#[test]
fn the_image_is_pinned_and_has_the_compilers_of_every_target() {
    let instructions = instructions(&read("Dockerfile"));
    let bases: Vec<&str> = instructions.iter().filter_map(|line| line.strip_prefix("FROM ")).collect();
    assert!(!bases.is_empty());
    for base in bases {
        let (name, digest) = base.split_once("@sha256:").unwrap_or_else(|| panic!("{base}: no digest"));
        assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()), "{base}");
        let tag = name.split_once(':').unwrap_or_else(|| panic!("{base}: no tag for people to read")).1;
        assert!(tag.bytes().any(|byte| byte.is_ascii_digit()), "{base}: a tag that does not move");
    }

    let installed: BTreeSet<&str> = instructions
        .iter()
        .filter(|line| line.contains("apt-get install"))
        .flat_map(|line| line.split_whitespace())
        .collect();
    for wanted in ["cmake", "nasm", "make", "gcc", "g++", "gcc-aarch64-linux-gnu", "g++-aarch64-linux-gnu"] {
        assert!(installed.contains(wanted), "the image lacks {wanted}");
    }
    let set = instructions.iter().filter_map(|line| line.strip_prefix("ENV "));
    let set: Vec<&str> =
        set.flat_map(str::split_whitespace).filter_map(|pair| pair.split('=').next()).collect();
    for target in TARGETS {
        let linker = format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace('-', "_"));
        assert!(set.contains(&linker.as_str()), "the image does not set {linker}");
    }
}

#[test]
fn the_page_tells_how_to_build_each_target() {
    let page = read("README.md");
    for target in TARGETS {
        let command =
            format!("CROSS_CONFIG=cross/Cross.toml cross build --release --locked --target {target}");
        assert!(page.contains(&command), "{command}");
        let machine = target.split('-').next().unwrap();
        assert!(page.contains(&format!("cross/build.sh {machine}")), "{machine}");
    }
}

#[test]
fn the_tools_that_link_are_pinned() {
    let text = read("requirements.txt");
    let pinned: Vec<&str> = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    let names: Vec<&str> = pinned.iter().map(|line| line.split_once("==").unwrap().0).collect();
    assert_eq!(names, ["cargo-zigbuild", "ziglang"]);
}

#[test]
fn a_program_that_needs_a_newer_glibc_or_another_processor_is_found_out() {
    let floor = |arguments: &[&str]| {
        let program = Edgewarden::path();
        Command::new(cross("floor.sh")).arg(program).args(arguments).output().unwrap()
    };
    let here = std::env::consts::ARCH;
    let good = floor(&[here, "2.999"]);
    assert!(good.status.success(), "{}", said(&good));
    let needs = String::from_utf8(good.stdout).unwrap().trim().to_owned();
    assert!(needs.starts_with("2."), "{needs}");
    assert!(floor(&[here, &needs]).status.success(), "what it needs is enough");

    let old = floor(&[here, "2.2"]);
    assert_eq!(old.status.code(), Some(1));
    assert!(said(&old).contains(&format!("needs glibc {needs}, and 2.2 is the newest")), "{}", said(&old));

    let other = if here == "aarch64" { "x86_64" } else { "aarch64" };
    let wrong = floor(&[other, "2.999"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(said(&wrong).contains("not for"), "{}", said(&wrong));

    let text = Command::new(cross("floor.sh")).arg(cross("README.md")).arg(here).output().unwrap();
    assert_eq!(text.status.code(), Some(1));
    assert!(said(&text).contains("is no program"), "{}", said(&text));
}

#[test]
fn answers_that_differ_are_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let line =
        |found: &str| format!("{{\"image\": \"a.jpg\", \"detections\": [{found}], \"timing_ms\": {{}}}}\n");
    let found = |class: u32, score: f32, left: f32| {
        format!("{{\"label\": \"c\", \"class\": {class}, \"score\": {score}, \"box\": [{left}, 5, 90, 80]}}")
    };
    let [nut, washer] = [found(0, 0.9, 10.0), found(1, 0.8, 12.0)];
    let both = line(&format!("{nut}, {washer}"));
    for (other, same) in [
        (both.clone(), true),
        // Rounding, and the order that follows from it.
        (line(&format!("{}, {}", found(1, 0.8004, 12.3), found(0, 0.8996, 9.8))), true),
        (line(&nut), false),
        (line(&format!("{nut}, {washer}, {washer}")), false),
        (line(&format!("{nut}, {}", found(2, 0.8, 12.0))), false),
        (line(&format!("{nut}, {}", found(1, 0.81, 12.0))), false),
        (line(&format!("{nut}, {}", found(1, 0.8, 13.5))), false),
        (both.replace("a.jpg", "b.jpg"), false),
        (String::new(), false),
    ] {
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        fs::write(&one, &both).unwrap();
        fs::write(&two, &other).unwrap();
        let output = Command::new("python3").arg(cross("compare.py")).args([&one, &two]).output().unwrap();
        assert_eq!(output.status.success(), same, "{other}: {}", said(&output));
    }
    let nothing = folder.path().join("nothing");
    fs::write(&nothing, line("")).unwrap();
    let output =
        Command::new("python3").arg(cross("compare.py")).args([&nothing, &nothing]).output().unwrap();
    assert!(!output.status.success(), "two programs that find nothing show nothing: {}", said(&output));
}
