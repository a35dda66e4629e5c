//! Takes from this process what it does not need, before it opens a file that came from elsewhere.
//!
//! A model file is parsed by a large C++ library. Should a model manage to take it over, the process
//! can read the system's libraries and its own bundle, write the engine cache and the frames' shared
//! memory, and reach nothing else: no key, no configuration, no network, no program with more rights.
//! The kernel's part is Landlock, as far as this kernel has it; what it has not is told, loudly.

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};
use std::path::{Path, PathBuf};

/// The newest rules asked for (Linux 6.12); older kernels enforce the part that they know.
const WANTED: ABI = ABI::V6;

/// What every process with a runtime in it must read: libraries, their configuration, what they ask
/// the kernel about processor and boards.
const SYSTEM: [&str; 8] =
    ["/usr", "/lib", "/lib64", "/opt/nvidia", "/etc/ld.so.cache", "/etc/nv_tegra_release", "/proc", "/sys"];

/// Files below `/dev` that the runtime and its drivers read, write and command, by the beginning of
/// their names: the usual ones, NVIDIA's, and the graphics nodes.
const DEVICES: [&str; 8] = ["null", "zero", "full", "random", "urandom", "nv", "dri", "dxg"];

/// How much of it the kernel enforces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enforcement {
    /// All of it.
    Full,
    /// Some; what not, and the remedy.
    Partial(String),
    /// Nothing but "no new privileges"; why, and the remedy.
    None(String),
}

/// Locks this thread, and all threads that it will start, in for good: `read` (folders or files) may be
/// read, `write` (folders) may be read and written, besides what the system's libraries need. Call it
/// before another thread is started.
pub fn lock_down(read: &[PathBuf], write: &[PathBuf]) -> Enforcement {
    if let Err(error) = rustix::thread::set_no_new_privs(true) {
        tracing::warn!(%error, "this process may still gain privileges by running other programs");
    }
    match restrict(read, write) {
        Ok(enforcement) => enforcement,
        Err(error) => Enforcement::None(format!("Landlock refused its rules: {error}")),
    }
}

fn restrict(read: &[PathBuf], write: &[PathBuf]) -> Result<Enforcement, RulesetError> {
    let all = AccessFs::from_all(WANTED);
    // No program is run from here: libraries are mapped, which is reading.
    let writing = all & !AccessFs::Execute;
    let reading = AccessFs::from_read(WANTED) & !AccessFs::Execute;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        // Handled and never allowed: no port at all.
        .handle_access(AccessNet::from_all(WANTED))?
        .scope(Scope::from_all(WANTED))?
        .create()?
        .add_rules(path_beneath_rules(SYSTEM, reading))?
        .add_rules(path_beneath_rules(library_path(), reading))?
        .add_rules(path_beneath_rules(read, reading))?
        .add_rules(path_beneath_rules(devices(), reading | device_access()))?
        .add_rules(path_beneath_rules(["/dev/shm"], writing))?
        // Threads are named there.
        .add_rules(path_beneath_rules(["/proc/self/task"], reading | AccessFs::WriteFile))?
        .add_rules(path_beneath_rules(write, writing))?
        .restrict_self()?;
    Ok(match status.landlock {
        LandlockStatus::NotImplemented => Enforcement::None(
            "this kernel has no Landlock; Linux 5.13 or newer with CONFIG_SECURITY_LANDLOCK has".to_owned(),
        ),
        LandlockStatus::NotEnabled => {
            Enforcement::None("Landlock is off; add landlock to the kernel's lsm= list at boot".to_owned())
        }
        LandlockStatus::Available { effective_abi, .. } => missing(effective_abi),
    })
}

/// What a kernel of this Landlock version does not enforce.
fn missing(abi: ABI) -> Enforcement {
    let parts = [
        (ABI::V3, "cutting files short (Linux 6.2)"),
        (ABI::V4, "TCP (Linux 6.7)"),
        (ABI::V5, "commands to devices (Linux 6.10)"),
        (ABI::V6, "signals and abstract sockets (Linux 6.12)"),
    ];
    let missing: Vec<&str> = parts.iter().filter(|(needs, _)| abi < *needs).map(|(_, what)| *what).collect();
    if missing.is_empty() {
        Enforcement::Full
    } else {
        Enforcement::Partial(format!("this kernel does not restrict {}", missing.join(", ")))
    }
}

fn device_access() -> BitFlags<AccessFs> {
    AccessFs::WriteFile | AccessFs::IoctlDev
}

/// The devices that exist and that we have a use for.
fn devices() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir("/dev") else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            DEVICES.iter().any(|wanted| name.as_encoded_bytes().starts_with(wanted.as_bytes()))
        })
        .map(|entry| entry.path())
        .collect()
}

/// Where the user has told the loader to look, too.
fn library_path() -> Vec<PathBuf> {
    std::env::var_os("LD_LIBRARY_PATH")
        .map(|path| std::env::split_paths(&path).filter(|path| path.is_absolute()).collect())
        .unwrap_or_default()
}

/// The folder of a library by every name it has: as given, and behind its links.
pub fn library_folders(library: &Path) -> Vec<PathBuf> {
    let real = library.canonicalize().ok();
    [Some(library), real.as_deref()]
        .into_iter()
        .flatten()
        .filter_map(|library| library.parent().map(Path::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn what_a_kernel_lacks_is_named() {
        assert_eq!(missing(ABI::V7), Enforcement::Full);
        let Enforcement::Partial(text) = missing(ABI::V2) else { panic!("not partial") };
        assert!(text.contains("TCP (Linux 6.7)") && text.contains("6.2"), "{text}");
    }

    /// The rules bind the thread that sets them, so each test thread can be locked in by itself.
    #[test]
    fn a_locked_thread_reaches_its_bundle_and_its_cache_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for folder in ["bundle", "cache", "keys"] {
            fs::create_dir(path(folder)).unwrap();
            fs::write(path(folder).join("file"), folder).unwrap();
        }
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let (bundle, cache, keys) = (path("bundle"), path("cache"), path("keys"));
        let enforcement = std::thread::spawn(move || {
            let enforcement = lock_down(std::slice::from_ref(&bundle), std::slice::from_ref(&cache));
            assert_eq!(fs::read(bundle.join("file")).unwrap(), b"bundle");
            fs::write(cache.join("engine"), b"made here").unwrap();
            fs::rename(cache.join("engine"), cache.join("engine2")).unwrap();
            fs::read("/proc/self/status").unwrap();
            fs::write("/dev/null", b"x").unwrap();
            let denied = |what: &str, result: std::io::Result<()>| {
                assert_eq!(result.map_err(|e| e.kind()), Err(ErrorKind::PermissionDenied), "{what}");
            };
            if !matches!(enforcement, Enforcement::None(_)) {
                denied("a key", fs::read(keys.join("file")).map(drop));
                denied("the configuration", fs::read("/etc/passwd").map(drop));
                denied("the bundle, to write", fs::write(bundle.join("file"), b"changed"));
                denied("a new file", fs::write(keys.join("new"), b"x"));
                denied("a program", std::process::Command::new("/usr/bin/true").status().map(drop));
            }
            if enforcement == Enforcement::Full {
                denied("the network", TcpStream::connect(address).map(drop));
            }
            enforcement
        })
        .join()
        .unwrap();
        println!("this kernel: {enforcement:?}");
        fs::read(path("keys").join("file")).expect("other threads are free");
    }

    #[test]
    fn a_library_is_found_behind_its_links() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::create_dir(&real).unwrap();
        fs::create_dir(&link).unwrap();
        fs::write(real.join("lib.so"), b"").unwrap();
        std::os::unix::fs::symlink(real.join("lib.so"), link.join("lib.so")).unwrap();
        assert_eq!(library_folders(&link.join("lib.so")), [link, real.canonicalize().unwrap()]);
    }
}
