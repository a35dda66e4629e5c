//! Which paths a bundle may hold: such that no file system, in no language setting, can make two of
//! them one or lead one of them out of the folder.

use super::MANIFEST;
use crate::domain::{Reason, ReasonCode};
use std::collections::HashSet;

/// Longest path, bytes.
const MAX_PATH: usize = 200;

/// Checks one path.
///
/// Only ASCII is allowed, so that two spellings of one Unicode name cannot meet in one file.
///
/// # Errors
/// `Malformed`, with the rule that is broken.
pub fn check(path: &str) -> Result<(), Reason> {
    let broken = |rule: &str| {
        let shown: String = path.chars().take(80).collect();
        Err(Reason::new(ReasonCode::Malformed, format!("path {shown:?} in a bundle: {rule}")))
    };
    if path.is_empty() || path.len() > MAX_PATH {
        return broken("use 1 to 200 bytes");
    }
    if path.starts_with('/') {
        return broken("it must be relative to the bundle's folder");
    }
    if path.contains('\\') {
        return broken("separate folders with \"/\"");
    }
    if !path.chars().all(|c| c.is_ascii_alphanumeric() || "._-+@=,~ /".contains(c)) {
        return broken("use only a-z, A-Z, 0-9, space and ._-+@=,~ in names");
    }
    for part in path.split('/') {
        if matches!(part, "" | "." | "..") {
            return broken("\"..\", \".\" and empty parts could lead out of the folder");
        }
        if part.ends_with('.') || part.starts_with(' ') || part.ends_with(' ') {
            return broken("names must not start or end with a space or end with a dot");
        }
    }
    if path.eq_ignore_ascii_case(MANIFEST) {
        return broken("the manifest does not list itself");
    }
    Ok(())
}

/// Checks a whole list: each path, no two that differ only in case, none that is another's folder.
///
/// # Errors
/// `Malformed`, with the path.
pub fn check_all<'a>(paths: impl IntoIterator<Item = &'a str>) -> Result<(), Reason> {
    let mut seen = HashSet::new();
    let mut all = Vec::new();
    for path in paths {
        check(path)?;
        let folded = path.to_ascii_lowercase();
        if !seen.insert(folded.clone()) {
            return Err(Reason::new(
                ReasonCode::Malformed,
                format!("path {path:?} is listed twice (upper and lower case count as the same)"),
            ));
        }
        all.push((path, folded));
    }
    for (path, folded) in &all {
        let inside = folded.match_indices('/').map(|(at, _)| &folded[..at]).find(|dir| seen.contains(*dir));
        if let Some(dir) = inside {
            return Err(Reason::new(
                ReasonCode::Malformed,
                format!("path {path:?} lies in {dir:?}, which is listed as a file"),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_could_leave_the_folder_or_meet_are_refused() {
        let long = "a".repeat(201);
        for bad in [
            "",
            "/",
            "/etc/passwd",
            "..",
            "../x",
            "a/../b",
            "a/..",
            "./a",
            "a//b",
            "a/",
            ".",
            "a\\b",
            "a\0b",
            "a\nb",
            "C:x",
            "ä.onnx",
            "manifest.json",
            "Manifest.JSON",
            "a.",
            "a./b",
            " a",
            "a /b",
            &long,
        ] {
            assert!(check(bad).is_err(), "{bad:?} was accepted");
        }
        for good in ["model.onnx", "golden/01.jpg", "a b/c+d@e=f,g~h", "..a", ".hidden", "sub/manifest.json"]
        {
            assert!(check(good).is_ok(), "{good:?} was refused");
        }
    }

    #[test]
    fn doubles_are_refused() {
        assert!(check_all(["a", "b/a", "b/c"]).is_ok());
        assert!(check_all(["a", "a"]).is_err());
        assert!(check_all(["Model.onnx", "model.ONNX"]).is_err());
        assert!(check_all(["a", "A/b"]).is_err());
        assert!(check_all(["x/y/z", "x/Y"]).is_err());
    }
}
