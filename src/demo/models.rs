//! The five bundles of the story: files of the package, and of a clone of the sources.
//!
//! `packaging/models/README.md` tells how they were made and what each is for. A megabyte that only the demo needs is
//! not in the program, which lies in every device's memory.

use crate::domain::{Reason, ReasonCode, Release};
use std::path::{Path, PathBuf};

/// Where the package puts them.
pub const INSTALLED: &str = "/usr/share/edgewarden/models";
/// Where they lie in a clone of the repository.
pub const LOCAL: &str = "packaging/models";

/// One of the bundles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Model {
    /// `1.0.0` and so on.
    pub version: &'static str,
    /// The name of its folder.
    folder: &'static str,
}

/// A first, weak model.
pub const V1: Model = Model { version: "1.0.0", folder: "v1" };
/// A better one.
pub const V2: Model = Model { version: "2.0.0", folder: "v2" };
/// Signed, but its answers to its golden inputs are wrong.
pub const V3: Model = Model { version: "3.0.0", folder: "v3" };
/// Right on its golden inputs, but fails on a busy belt.
pub const V4: Model = Model { version: "4.0.0", folder: "v4" };
/// As good as the second; the story lets somebody tamper with it.
pub const V5: Model = Model { version: "5.0.0", folder: "v5" };
/// All of them, in the order of the story.
pub const ALL: [Model; 5] = [V1, V2, V3, V4, V5];

/// The name of the model, the same over all versions.
pub const NAME: &str = "belt-inspector";

/// The folder with all bundles: `explicit`, which is taken whether it is right or not, else [`LOCAL`] below the current
/// folder or a folder above the program, else [`INSTALLED`].
///
/// # Errors
/// `BadRequest` where a bundle is missing, with the places that were searched.
pub fn find(explicit: Option<&Path>) -> Result<PathBuf, Reason> {
    let whole = |folder: &Path| ALL.iter().all(|model| model.folder(folder).join("manifest.json").is_file());
    let fault = |detail: String| Reason::new(ReasonCode::BadRequest, detail);
    if let Some(folder) = explicit {
        let told = || fault(format!("{}: the demo's bundles (v1 to v5) are not there", folder.display()));
        return whole(folder).then(|| folder.to_owned()).ok_or_else(told);
    }
    let here = std::env::current_dir().ok();
    let program = std::env::current_exe().ok();
    let above = program.iter().flat_map(|program| program.ancestors().skip(1));
    let local = here.iter().map(PathBuf::as_path).chain(above).map(|folder| folder.join(LOCAL));
    local.chain([PathBuf::from(INSTALLED)]).find(|folder| whole(folder)).ok_or_else(|| {
        fault(format!(
            "the demo's bundles are neither in {INSTALLED} nor in {LOCAL}: install the package, or name the folder \
             {LOCAL} of a clone with --models"
        ))
    })
}

impl Model {
    /// Name and version.
    pub fn release(&self) -> Result<Release, Reason> {
        format!("{NAME}@{}", self.version)
            .parse()
            .map_err(|error| Reason::new(crate::domain::ReasonCode::Internal, format!("demo model: {error}")))
    }

    /// Its bundle's folder below that of all.
    pub fn folder(&self, models: &Path) -> PathBuf {
        models.join(self.folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle;
    use crate::inference::source::scene::CLASSES;

    #[test]
    fn each_bundle_is_whole_small_and_what_the_story_says() {
        let models = find(None).unwrap();
        for model in ALL {
            // Opening it holds each file against the digest in the manifest.
            let bundle = bundle::open(&model.folder(&models), None).unwrap();
            let manifest = &bundle.manifest;
            assert_eq!(manifest.release(), model.release().unwrap());
            assert_eq!(manifest.labels, CLASSES, "the truth and the models number the classes alike");
            assert_eq!(manifest.golden.len(), 4);
            assert!(manifest.total_size() < 1 << 20, "under 1 MB");
        }
    }

    #[test]
    fn a_folder_without_the_bundles_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let fault = find(Some(folder.path())).unwrap_err().detail;
        assert!(fault.contains(&folder.path().display().to_string()), "{fault}");
    }
}
