//! Takes from this process what it does not need, before it touches bytes that came from elsewhere.
//!
//! A model file is parsed by a large C++ library. Should a model manage to take it over, the process
//! can read the system's libraries and its own bundle, write the engine cache and the frames' shared
//! memory, and reach nothing else: no key, no configuration, no network, no other program and no other
//! process. The kernel's parts are Landlock (files, ports, signals) and seccomp (system calls, in
//! `calls`), as far as this kernel has them; what it has not is told, loudly.
//!
//! What this does not close: shared memory of the same user in `/dev/shm`, which frames travel in; on which
//! processors another process of the same user runs; and what the kernel tells of files that cannot be
//! opened (that they are there, their size).

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod calls;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[path = "lockdown/no_calls.rs"]
mod calls;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};
use std::path::{Path, PathBuf};

/// The newest rules asked for (Linux 6.12); older kernels enforce the part that they know.
const WANTED: ABI = ABI::V6;

/// What every process with a runtime in it must read: libraries, their configuration, what they ask
/// the kernel about processor and boards.
const SYSTEM: [&str; 8] = [
    "/usr",
    "/lib",
    "/lib64",
    "/opt/nvidia",
    "/etc/ld.so.cache",
    "/etc/nv_tegra_release",
    // Which library speaks to a graphics processor (OpenVINO).
    "/etc/OpenCL",
    "/sys",
];

/// Files below `/dev` that the runtime and its drivers read, write and command, by the beginning of
/// their names: the usual ones, NVIDIA's, and the graphics nodes.
const DEVICES: [&str; 11] =
    ["null", "zero", "full", "random", "urandom", "nvidia", "nvhost", "nvmap", "nvgpu", "nvsciipc", "dri"];
/// The same, by their whole names.
const EXACT_DEVICES: [&str; 1] = ["dxg"];

/// What the locked process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs a model: nobody is spoken to, nothing is started.
    Model,
    /// Reads a source by itself (a camera, pictures, a serial port), and wakes the models through sockets in the
    /// frames' folder. Nothing is started.
    Reader,
    /// Listens to a broker: the network is needed. Nothing is started.
    Client,
    /// Starts programs that read a source, the user's own among them, and knows nothing of their files:
    /// only what changes the machine is refused, to them as well.
    Starter,
}

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

/// What is enforced, part by part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// Files, ports and signals.
    pub files: Enforcement,
    /// System calls.
    pub calls: Enforcement,
}

impl Lock {
    /// What is not enforced, for people; empty where everything is.
    pub fn gaps(&self) -> Vec<&str> {
        [&self.files, &self.calls]
            .into_iter()
            .filter_map(|part| match part {
                Enforcement::Full => None,
                Enforcement::Partial(what) | Enforcement::None(what) => Some(what.as_str()),
            })
            .collect()
    }

    /// Logs how it stands with `whose` process.
    pub fn tell(&self, whose: &str) {
        match self.gaps().as_slice() {
            [] => tracing::debug!("{whose} process is locked in"),
            gaps => tracing::warn!("{whose} process is not wholly locked in: {}", gaps.join("; ")),
        }
    }
}

/// Locks this thread, and all threads that it will start, in for good: `read` (folders or files) may be
/// read, `write` (folders) may be read and written, besides what the system's libraries need, and system
/// calls are refused that `role` has no use for. Call it before another thread is started.
pub fn lock_down(role: Role, read: &[PathBuf], write: &[PathBuf]) -> Lock {
    let (lock, held) = lock(role, read, write);
    // For as long as this process lives.
    held.leak();
    lock
}

fn lock(role: Role, read: &[PathBuf], write: &[PathBuf]) -> (Lock, Vec<Held>) {
    no_new_privileges();
    let restricted = restrict(read, write);
    let calls = refuse(role);
    let (files, held) = match restricted {
        Ok((Landlock(Ok(abi)), held)) => (missing(abi, role, calls == Enforcement::Full), held),
        Ok((Landlock(Err(why)), _)) => (Enforcement::None(why.to_owned()), Vec::new()),
        Err(error) => (Enforcement::None(format!("Landlock refused its rules: {error}")), Vec::new()),
    };
    (Lock { files, calls }, held)
}

/// Like [`lock_down`], but whatever files and ports there are stay open: for a role whose files nobody here
/// can know.
pub fn refuse_calls(role: Role) -> Lock {
    no_new_privileges();
    Lock { files: Enforcement::Full, calls: refuse(role) }
}

/// What this machine would enforce for a model's process: tried on a thread, which ends with it.
pub fn probe() -> Lock {
    let tried = std::thread::spawn(|| lock(Role::Model, &[], &[]).0).join();
    tried.unwrap_or_else(|_| {
        let none = || Enforcement::None("locking a thread in has failed; see the log".to_owned());
        Lock { files: none(), calls: none() }
    })
}

fn no_new_privileges() {
    if let Err(error) = rustix::thread::set_no_new_privs(true) {
        tracing::warn!(%error, "this process may still gain privileges by running other programs");
    }
}

fn refuse(role: Role) -> Enforcement {
    calls::refuse(role).map_or_else(Enforcement::None, |()| Enforcement::Full)
}

/// The kernel's version of it, or why there is none.
struct Landlock(Result<ABI, &'static str>);

/// What is enforced, and what must stay open for it.
fn restrict(read: &[PathBuf], write: &[PathBuf]) -> Result<(Landlock, Vec<Held>), RulesetError> {
    let all = AccessFs::from_all(WANTED);
    // No program is run from here: libraries are mapped, which is reading.
    let writing = all & !AccessFs::Execute;
    let reading = AccessFs::from_read(WANTED) & !AccessFs::Execute;
    let own = held(&own_proc());
    // Threads are named there.
    let threads = held(&["/proc/self/task".into()]);
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
        .add_rules(rules(&own, reading))?
        .add_rules(rules(&threads, reading | AccessFs::WriteFile))?
        .add_rules(path_beneath_rules(write, writing))?
        .restrict_self()?;
    let landlock = match status.landlock {
        LandlockStatus::NotImplemented => {
            Err("this kernel has no Landlock; Linux 5.13 or newer with CONFIG_SECURITY_LANDLOCK has")
        }
        LandlockStatus::NotEnabled => Err("Landlock is off; add landlock to the kernel's lsm= list at boot"),
        LandlockStatus::Available { effective_abi, .. } => Ok(effective_abi),
    };
    Ok((Landlock(landlock), own.into_iter().chain(threads).collect()))
}

/// What a kernel of this Landlock version does not enforce, and refused system calls do not either.
fn missing(abi: ABI, role: Role, calls: bool) -> Enforcement {
    let parts = [
        (ABI::V3, "cutting files short (Linux 6.2)", false),
        (ABI::V4, "TCP (Linux 6.7)", calls),
        (ABI::V5, "commands to devices (Linux 6.10)", false),
        (ABI::V6, "signals and abstract sockets (Linux 6.12)", calls && role == Role::Model),
    ];
    let open = parts.iter().filter(|(needs, _, refused)| abi < *needs && !refused);
    let missing: Vec<&str> = open.map(|(_, what, _)| *what).collect();
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
    entries.flatten().filter(|entry| is_device(&entry.file_name())).map(|entry| entry.path()).collect()
}

fn is_device(name: &std::ffi::OsStr) -> bool {
    let name = name.as_encoded_bytes();
    DEVICES.iter().any(|wanted| name.starts_with(wanted.as_bytes()))
        || EXACT_DEVICES.iter().any(|wanted| name == wanted.as_bytes())
}

/// What the kernel tells of the machine, and of this process: `/proc` but for the other processes.
fn own_proc() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_process = |name: &std::ffi::OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    let general = entries.filter(|entry| !is_process(&entry.file_name())).map(|entry| entry.path());
    std::iter::once(PathBuf::from("/proc/self")).chain(general).collect()
}

/// A file that is held open, and whether it is a folder. A rule is bound to the file that was opened for it,
/// and `/proc` makes its files anew whenever the kernel has dropped them from its memory, unless they are
/// held.
type Held = (PathFd, bool);

fn held(paths: &[PathBuf]) -> Vec<Held> {
    paths.iter().filter_map(|path| Some((PathFd::new(path).ok()?, path.is_dir()))).collect()
}

fn rules(
    held: &[Held],
    access: BitFlags<AccessFs>,
) -> impl Iterator<Item = Result<PathBeneath<&PathFd>, RulesetError>> {
    held.iter().map(move |(file, is_folder)| {
        let fitting = if *is_folder { access } else { access & AccessFs::from_file(WANTED) };
        Ok(PathBeneath::new(file, fitting))
    })
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
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn what_a_kernel_lacks_is_named() {
        assert_eq!(missing(ABI::V7, Role::Model, false), Enforcement::Full);
        let told = |role, calls| match missing(ABI::V2, role, calls) {
            Enforcement::Partial(text) => text,
            other => panic!("{other:?}"),
        };
        let text = told(Role::Model, false);
        assert!(text.contains("TCP (Linux 6.7)") && text.contains("6.2"), "{text}");
        // What is refused as a system call needs no newer kernel.
        let text = told(Role::Model, true);
        assert!(!text.contains("TCP") && !text.contains("signals") && text.contains("6.2"), "{text}");
        assert!(told(Role::Reader, true).contains("abstract sockets"));
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
        let socket = path("agent.sock");
        let _agent = UnixListener::bind(&socket).unwrap();
        let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
        let kill = |other: Option<rustix::process::Pid>| {
            rustix::process::test_kill_process(other.unwrap()).map_err(std::io::Error::from)
        };
        let lock = std::thread::spawn(move || {
            let lock = lock_down(Role::Model, std::slice::from_ref(&bundle), std::slice::from_ref(&cache));
            assert_eq!(fs::read(bundle.join("file")).unwrap(), b"bundle");
            fs::write(cache.join("engine"), b"made here").unwrap();
            fs::rename(cache.join("engine"), cache.join("engine2")).unwrap();
            for told in
                ["/proc/self/status", "/proc/self/task", "/proc/cpuinfo", "/proc/sys/vm/overcommit_memory"]
            {
                fs::metadata(told).and_then(|_| fs::File::open(told)).unwrap();
            }
            std::thread::Builder::new().name("another".to_owned()).spawn(|| {}).unwrap().join().unwrap();
            fs::write("/dev/null", b"x").unwrap();
            let denied = |what: &str, result: std::io::Result<()>| {
                assert_eq!(result.map_err(|e| e.kind()), Err(ErrorKind::PermissionDenied), "{what}");
            };
            let other = format!("/proc/{}/status", rustix::process::getppid().unwrap().as_raw_pid());
            if !matches!(lock.files, Enforcement::None(_)) {
                denied("another process", fs::read(other).map(drop));
                denied("a key", fs::read(keys.join("file")).map(drop));
                denied("the configuration", fs::read("/etc/passwd").map(drop));
                denied("the bundle, to write", fs::write(bundle.join("file"), b"changed"));
                denied("a new file", fs::write(keys.join("new"), b"x"));
            }
            if lock.calls == Enforcement::Full {
                denied("the rights of a key", fs::set_permissions(keys.join("file"), mode(0o666)));
                denied("a socket of this machine", UnixStream::connect(&socket).map(drop));
                denied("another process's end", kill(rustix::process::getppid()));
            }
            if lock.gaps().is_empty() {
                denied("the network", TcpStream::connect(address).map(drop));
                denied("a program", std::process::Command::new("/usr/bin/true").status().map(drop));
            }
            lock
        })
        .join()
        .unwrap();
        println!("this kernel: {lock:?}");
        fs::read(path("keys").join("file")).expect("other threads are free");
    }

    #[test]
    fn what_starts_programs_goes_on_doing_so_and_a_client_keeps_its_network() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        std::thread::spawn(|| {
            refuse_calls(Role::Starter);
            let ended = std::process::Command::new("/bin/sh").args(["-c", "true | cat"]).status().unwrap();
            assert!(ended.success());
        })
        .join()
        .unwrap();
        std::thread::spawn(move || {
            let lock = refuse_calls(Role::Client);
            TcpStream::connect(address).unwrap();
            let program = std::process::Command::new("/usr/bin/true").status();
            assert_eq!(program.is_err(), lock.calls == Enforcement::Full, "{lock:?}");
        })
        .join()
        .unwrap();
    }

    #[test]
    fn disks_are_no_devices_of_a_model() {
        for (name, wanted) in [
            ("null", true),
            ("nvidia0", true),
            ("nvidia-uvm", true),
            ("nvhost-ctrl-gpu", true),
            ("dri", true),
            ("nvme0n1", false),
            ("nvram", false),
            ("sda", false),
            ("dxg-other", false),
        ] {
            assert_eq!(is_device(name.as_ref()), wanted, "{name}");
        }
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
