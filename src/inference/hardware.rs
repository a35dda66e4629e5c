//! What this machine computes with, as text: what was made for one machine must not be used on another.
//!
//! All paths are below a root, so that the tests have machines of every kind.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The lines of `/proc/cpuinfo` that tell what kernels a processor takes.
const TRAITS: [&str; 13] = [
    "vendor_id",
    "cpu family",
    "model",
    "model name",
    "stepping",
    "flags",
    "Features",
    "CPU implementer",
    "CPU architecture",
    "CPU variant",
    "CPU part",
    "isa",
    "uarch",
];

/// Where the libraries of TensorRT lie.
const LIBRARIES: [&str; 5] =
    ["usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib64", "usr/lib", "usr/local/lib"];

/// The processor with its features; `None` where the kernel does not tell. Cores of different kinds are
/// all named.
pub fn processor(root: &Path) -> Option<String> {
    let text = std::fs::read_to_string(root.join("proc/cpuinfo")).ok()?;
    let told: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(key, _)| TRAITS.contains(&key.trim()))
        .map(|(key, value)| format!("{}={}", key.trim(), value.trim()))
        .collect();
    (!told.is_empty()).then(|| told.into_iter().collect::<Vec<_>>().join("\n"))
}

/// The graphics processors, their driver and TensorRT, as far as they are told.
pub fn graphics(root: &Path) -> String {
    let mut told = Vec::new();
    let first_line = |path: &str| {
        let text = std::fs::read_to_string(root.join(path)).ok()?;
        text.lines().next().map(|line| line.trim_matches('\0').trim().to_owned())
    };
    told.extend(first_line("proc/driver/nvidia/version"));
    told.extend(first_line("etc/nv_tegra_release"));
    told.extend(first_line("proc/device-tree/model"));
    let mut boards: Vec<String> = list(&root.join("proc/driver/nvidia/gpus"))
        .into_iter()
        .filter_map(|board| {
            let text = std::fs::read_to_string(board.join("information")).ok()?;
            text.lines().find_map(|line| line.strip_prefix("Model:")).map(|model| model.trim().to_owned())
        })
        .collect();
    boards.sort();
    told.extend(boards);
    let mut libraries: Vec<String> = LIBRARIES
        .iter()
        .flat_map(|folder| list(&root.join(folder)))
        .filter_map(|path| path.file_name()?.to_str().map(str::to_owned))
        .filter(|name| name.starts_with("libnvinfer.so."))
        .collect();
    libraries.sort();
    told.extend(libraries);
    told.join("\n")
}

fn list(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn a_processor_is_its_features_and_not_its_speed_of_the_moment() {
        let text = |mhz: &str, flags: &str| {
            format!(
                "processor\t: 0\nmodel name\t: X 1\ncpu MHz\t: {mhz}\nflags\t: {flags}\n\nprocessor\t: 1\nmodel name\t: X 1\nflags\t: {flags}\n"
            )
        };
        let of = |text: &str| processor(machine(&[("proc/cpuinfo", text)]).path());
        let one = of(&text("800", "avx2 fma")).unwrap();
        assert_eq!(one, "flags=avx2 fma\nmodel name=X 1");
        assert_eq!(of(&text("4200", "avx2 fma")).unwrap(), one);
        assert_ne!(of(&text("800", "avx2 fma avx512f")).unwrap(), one);
        // Two kinds of cores.
        let arm = "CPU part\t: 0xd05\nFeatures\t: fp asimd\n\nCPU part\t: 0xd41\nFeatures\t: fp asimd\n";
        assert_eq!(of(arm).unwrap(), "CPU part=0xd05\nCPU part=0xd41\nFeatures=fp asimd");
        assert_eq!(of("nothing that is known"), None);
        assert_eq!(processor(machine(&[]).path()), None);
        assert!(processor(Path::new("/")).is_some(), "this machine tells");
    }

    #[test]
    fn a_graphics_processor_is_its_model_its_driver_and_its_library() {
        let files = [
            ("proc/driver/nvidia/version", "NVRM version: 560.35\nGCC version: 12\n"),
            ("proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: \t\t NVIDIA T4\nIRQ: 1\n"),
            ("usr/lib/x86_64-linux-gnu/libnvinfer.so.10.3.0", ""),
        ];
        let told = graphics(machine(&files).path());
        assert_eq!(told, "NVRM version: 560.35\nNVIDIA T4\nlibnvinfer.so.10.3.0");
        assert_eq!(graphics(machine(&[]).path()), "");
    }
}
