//! `packaging/THREATS.md` is true where that can be checked: each test that it names is there, each test of
//! an attack is named, and the numbers in it are the code's.

use crate::support::root;
use edgewarden::trust::tuf;
use std::fs;
use std::path::{Path, PathBuf};

fn page() -> String {
    fs::read_to_string(root().join("packaging/THREATS.md")).expect("packaging/THREATS.md")
}

/// The names of tests in the last cell of each row of a table, as nextest prints them.
fn named(page: &str) -> Vec<String> {
    let rows = page.lines().filter(|line| line.starts_with("| ") && line.ends_with(" |"));
    let cells = rows.filter_map(|row| row.trim_end_matches(" |").rsplit_once("| ").map(|(_, last)| last));
    let mut names: Vec<String> = Vec::new();
    for cell in cells {
        // Between backticks, every second piece.
        let marked = cell.split('`').skip(1).step_by(2);
        names.extend(marked.filter(|word| word.contains("::")).map(str::to_owned));
    }
    names
}

/// The files that may hold a module: its own, or that of one above it, where it stands inside.
fn files(modules: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for top in ["tests/it", "src"] {
        for depth in (1..=modules.len()).rev() {
            let path = root().join(top).join(modules[..depth].join("/"));
            found.extend(
                [path.with_extension("rs"), path.join("mod.rs")].into_iter().filter(|path| path.is_file()),
            );
        }
    }
    found
}

/// The tests that stand in a file.
fn tests_of(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).expect("a source file");
    let mut tests = Vec::new();
    let mut marked = false;
    for line in text.lines().map(str::trim) {
        if line == "#[test]" || line.starts_with("#[tokio::test") {
            marked = true;
        } else if marked && let Some((_, after)) = line.split_once("fn ") {
            tests.extend(after.split_once('(').map(|(name, _)| name.to_owned()));
            marked = false;
        }
    }
    tests
}

#[test]
fn every_test_that_the_page_names_is_there() {
    let page = page();
    let names = named(&page);
    assert!(names.len() >= 20, "{names:?}");
    for name in &names {
        let path: Vec<&str> = name.split("::").collect();
        let (test, modules) = path.split_last().expect("a name");
        let found = files(modules).iter().any(|file| tests_of(file).iter().any(|one| one == test));
        assert!(found, "{name}: no such test");
    }
}

#[test]
fn every_attack_that_is_carried_out_is_on_the_page() {
    let names = named(&page());
    let mut seen = 0;
    for file in fs::read_dir(root().join("tests/it/attacks")).expect("the folder of attacks") {
        let file = file.unwrap().path();
        let module = file.file_stem().unwrap().to_str().unwrap().to_owned();
        for test in tests_of(&file) {
            seen += 1;
            assert!(
                names.contains(&format!("attacks::{module}::{test}")),
                "{module}::{test} is not on the page"
            );
        }
    }
    assert!(seen >= 12, "{seen}");
}

#[test]
fn the_limits_on_the_page_are_those_of_the_code() {
    let page = page().split_whitespace().collect::<Vec<_>>().join(" ");
    for (what, limit) in [
        ("root", tuf::MAX_ROOT),
        ("timestamp", tuf::MAX_TIMESTAMP),
        ("snapshot", tuf::MAX_SNAPSHOT),
        ("list of models", tuf::MAX_TARGETS),
    ] {
        let size =
            if limit >= 1 << 20 { format!("{} MiB", limit >> 20) } else { format!("{} KiB", limit >> 10) };
        assert!(page.contains(&format!("{what} {size}")), "{what} {size}");
    }
    for words in [
        format!("{} new roots at once", tuf::MAX_ROOT_ROTATIONS),
        format!("{} roles for one model", tuf::MAX_DELEGATIONS),
    ] {
        assert!(page.contains(&words), "{words}");
    }
}
