//! Which pictures are meant, and where their drawings go.

use crate::cli::exit::Usage;
use anyhow::Context;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Endings of the pictures that are taken from a folder.
const ENDINGS: [&str; 9] = ["jpg", "jpeg", "png", "webp", "bmp", "pnm", "ppm", "pgm", "pbm"];

/// All pictures in the order in which they are named; those of a folder or a pattern in the order of their
/// names. A file that is not there is left in, to be told in its turn.
///
/// # Errors
/// For a folder without pictures, and a pattern that is none or that nothing matches.
pub fn all(named: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in named {
        if path.is_dir() {
            let mut inside = of_folder(path)?;
            inside.sort();
            anyhow::ensure!(!inside.is_empty(), "{}: no pictures in this folder", path.display());
            found.extend(inside);
        } else if let (false, Some(pattern)) = (path.exists(), path.to_str().filter(|text| is_pattern(text)))
        {
            let matches = glob::glob(pattern)
                .map_err(|error| Usage(format!("{pattern}: no pattern: {}", error.msg)))?;
            let matches: Vec<_> = matches.flatten().filter(|path| path.is_file()).collect();
            anyhow::ensure!(!matches.is_empty(), "{pattern}: matches no file");
            found.extend(matches);
        } else {
            found.push(path.clone());
        }
    }
    Ok(found)
}

fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

fn of_folder(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let fault = || format!("list folder {}", folder.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(fault)? {
        let path = entry.with_context(fault)?.path();
        let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
        if ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str())) && path.is_file() {
            found.push(path);
        }
    }
    Ok(found)
}

/// Makes the folder, and says where the drawing of each picture goes: under its name, with a number where
/// that is taken by another drawing or by a picture itself.
///
/// # Errors
/// When the folder cannot be made.
pub fn drawings(dir: &Path, images: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let fault = || format!("make folder {}", dir.display());
    std::fs::create_dir_all(dir).with_context(fault)?;
    let dir = dir.canonicalize().with_context(fault)?;
    // What cannot be found is no picture either.
    let mut taken: HashSet<PathBuf> = images.iter().filter_map(|image| image.canonicalize().ok()).collect();
    let mut place = |image: &PathBuf| {
        let stem = image.file_stem().unwrap_or(image.as_os_str()).to_string_lossy();
        let mut to = dir.join(format!("{stem}.jpg"));
        let mut number = 2_usize;
        while !taken.insert(to.clone()) {
            to = dir.join(format!("{stem}-{number}.jpg"));
            number += 1;
        }
        to
    };
    Ok(images.iter().map(&mut place).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(paths: &[PathBuf]) -> Vec<String> {
        paths.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn drawings_never_take_the_place_of_another_or_of_a_picture() {
        let dir = tempfile::tempdir().unwrap();
        let original = dir.path().join("b.jpg");
        std::fs::write(&original, "x").unwrap();
        let mut images: Vec<PathBuf> = ["one/a.jpg", "two/a.png", "three/a.jpg"].map(PathBuf::from).into();
        images.extend([original, "v1.2.png".into()]);
        let places = drawings(dir.path(), &images).unwrap();
        assert_eq!(names(&places), ["a.jpg", "a-2.jpg", "a-3.jpg", "b-2.jpg", "v1.2.jpg"]);
    }

    #[test]
    fn folders_and_patterns_become_pictures() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.JPG", "a.png", "notes.txt", "c[1].jpg"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        let found = |name: &str| all(&[dir.path().join(name)]);
        assert_eq!(names(&found("").unwrap()), ["a.png", "b.JPG", "c[1].jpg"]);
        assert_eq!(names(&found("*.png").unwrap()), ["a.png"]);
        // A file with that very name is meant itself; one that is missing is told in its turn.
        assert_eq!(names(&found("c[1].jpg").unwrap()), ["c[1].jpg"]);
        assert_eq!(names(&found("missing.jpg").unwrap()), ["missing.jpg"]);
        assert!(found("*.gif").unwrap_err().to_string().contains("matches no file"));
        assert!(found("[").unwrap_err().to_string().contains("no pattern"));
        std::fs::create_dir(dir.path().join("empty")).unwrap();
        assert!(found("empty").unwrap_err().to_string().contains("no pictures"));
    }
}
