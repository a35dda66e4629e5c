//! The fuzzer's corpus (`fuzz/corpus/TARGET/`) through the entry points that the fuzzer calls: without the
//! fuzzer, so that what it once found stays mended. `packaging/fuzz.sh` looks for more.

use crate::support::root;
use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

#[path = "../../fuzz/src/lib.rs"]
mod targets;

/// Largest corpus, bytes: it travels with every clone.
const MAX_CORPUS: u64 = 1 << 20;

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn replay(target: &str) {
    let folder = root().join("fuzz/corpus").join(target);
    let inputs = names(&folder);
    assert!(!inputs.is_empty(), "{} is empty", folder.display());
    for name in inputs {
        let input = fs::read(folder.join(&name)).unwrap();
        if catch_unwind(|| targets::run(target, &input)).is_err() {
            panic!("fuzz/corpus/{target}/{name}: see the message above");
        }
    }
}

macro_rules! replayed {
    ($($target:ident)*) => {
        $(
            #[test]
            fn $target() {
                replay(stringify!($target));
            }
        )*

        const REPLAYED: &[&str] = &[$(stringify!($target)),*];
    };
}

replayed! {
    age archive array command configuration delta envelope frame manifest messages mjpeg model_signature onnx operators
    picture repository root_metadata samples y4m
}

#[test]
fn every_target_is_built_and_replayed() {
    let replayed: BTreeSet<String> = REPLAYED.iter().map(|name| (*name).to_owned()).collect();
    let known: BTreeSet<String> = targets::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(replayed, known);
    assert_eq!(names(&root().join("fuzz/corpus")), known, "fuzz/corpus");
    let programs = names(&root().join("fuzz/fuzz_targets"));
    let programs: BTreeSet<String> = programs.iter().map(|name| name.replace(".rs", "")).collect();
    assert_eq!(programs, known, "fuzz/fuzz_targets");
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
    for name in known {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "fuzz/Cargo.toml: {name}");
        let program =
            fs::read_to_string(root().join("fuzz/fuzz_targets").join(format!("{name}.rs"))).unwrap();
        assert!(program.contains(&format!("edgewarden_fuzz::run(\"{name}\", data)")), "{name}");
    }
}

#[test]
fn the_corpus_is_small() {
    let folder = root().join("fuzz/corpus");
    let sizes = names(&folder).into_iter().flat_map(|target| {
        let folder = folder.join(target);
        names(&folder).into_iter().map(move |name| fs::metadata(folder.join(name)).unwrap().len())
    });
    let size: u64 = sizes.sum();
    assert!(size < MAX_CORPUS, "{size} bytes; packaging/fuzz.sh --keep minimises it");
}
