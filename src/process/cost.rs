//! What a child may cost: its priority, its share of memory, and how the kernel is to choose when memory
//! runs out. Set from outside by the agent, right after the child is started.
//!
//! A candidate loads and runs in the shadow at low priority (nice 19), and gets its normal priority when
//! it takes over. The way back is not free: a process without CAP_SYS_NICE may lower a nice value again
//! only within RLIMIT_NICE, which is 0 by default (seen as an ordinary user on Linux 6.18: EACCES; and
//! SCHED_IDLE, once taken, is not left either: EPERM). So a child is slowed down only where it can be
//! brought back: with the capability, or with `LimitNICE=+0` of the systemd unit. Nice is a thread's own:
//! every thread of the child is set, and threads that start later inherit it. `/proc/PID/autogroup` could
//! be set back and forth by an ordinary user, but acts between sessions only, and not under systemd where
//! the services have cgroups with the processor controller.
//!
//! The limit on memory is RLIMIT_DATA: private writable memory, which is what models and arenas are made
//! of. RLIMIT_AS would count address space that drivers of graphics processors only reserve, and a cgroup
//! needs a delegated tree, which an agent that is started by hand has not.

use crate::domain::{Reason, ReasonCode};
use crate::sys::memory_only;
use rustix::process::{Pid, Resource, Rlimit, getpriority_process, getrlimit, prlimit, setpriority_process};
use std::path::PathBuf;

/// The lowest there is.
pub const LOW: i32 = 19;
/// Added to the agent's own score: the kernel is to end a model before the agent that starts it again.
const OOM_SCORE: i32 = 400;
/// Bit of CAP_SYS_NICE.
const CAP_SYS_NICE: u32 = 23;

/// Sets what every child gets: no core dump (a model's memory fills a disk), and a higher score when
/// memory runs out. What cannot be set is logged.
pub fn limit(pid: u32) {
    let process = target(pid).ok_or_else(|| "there is no such process".to_owned());
    if let Err(why) = process.and_then(|process| memory_only::no_core_dump(Some(process))) {
        tracing::warn!(pid, "the child may leave a core dump: {why}");
    }
    let own =
        std::fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|text| text.trim().parse().ok());
    let score = (own.unwrap_or(0) + OOM_SCORE).min(1000);
    if let Err(error) = std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()) {
        tracing::warn!(pid, %error, "the kernel may end the agent before its child when memory runs out");
    }
}

/// Limits the private writable memory of a child, bytes; 0 leaves it unlimited.
pub fn limit_memory(pid: u32, bytes: u64) {
    if bytes > 0
        && let Err(error) = set(pid, Resource::Data, bytes)
    {
        tracing::warn!(pid, %error, "the child has no limit of memory");
    }
}

fn set(pid: u32, resource: Resource, bytes: u64) -> std::io::Result<()> {
    let process = target(pid).ok_or(std::io::ErrorKind::NotFound)?;
    prlimit(Some(process), resource, Rlimit { current: Some(bytes), maximum: Some(bytes) })?;
    Ok(())
}

/// A fault that comes from memory that was refused gets the code for that, with the remedy.
pub fn refused_memory(reason: Reason, memory_limit: u64) -> Reason {
    // The C++ library's, ONNX Runtime's arena's, CUDA's and the system's words for it.
    const WORDS: [&str; 4] = ["bad_alloc", "allocate memory", "out of memory", "allocation failed"];
    let lower = reason.detail.to_lowercase();
    let fits =
        matches!(reason.code, ReasonCode::LoadFailed | ReasonCode::Internal | ReasonCode::ChildCrashed);
    if !fits || !WORDS.iter().any(|word| lower.contains(word)) {
        return reason;
    }
    let remedy = match memory_limit {
        0 => "use a smaller model, or free memory on the device".to_owned(),
        limit => format!("use a smaller model, or raise runtime.memory_limit (now {} MiB)", limit >> 20),
    };
    Reason::new(ReasonCode::OutOfMemory, format!("{}; memory was refused: {remedy}", reason.detail))
}

/// At which priority a child starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// The agent's own.
    Normal,
    /// The lowest, until it is raised.
    Low,
}

impl Priority {
    /// Low, where a child can be brought back from there.
    pub fn low_if_it_can_rise() -> Self {
        if can_come_back() {
            return Self::Low;
        }
        tracing::debug!("stays at normal priority: without LimitNICE=+0 it could not come back to it");
        Self::Normal
    }
}

/// Lowers a child that is about to end: giving back a model's memory takes milliseconds, and is nobody's
/// hurry. It is not raised again.
pub fn lower_for_good(pid: u32) {
    if let Err(error) = set_all(pid, LOW) {
        tracing::debug!(pid, %error, "ends at the priority it has");
    }
}

/// Gives a child the agent's own priority.
pub fn raise(pid: u32) {
    if let Err(error) = set_all(pid, own_nice()) {
        tracing::warn!(pid, %error, "its priority cannot be raised; it serves at the lowest");
    }
}

fn own_nice() -> i32 {
    getpriority_process(None).unwrap_or(0)
}

/// Whether a child at low priority can be brought back to the agent's own.
fn can_come_back() -> bool {
    let limit = getrlimit(Resource::Nice).current;
    let within =
        limit.is_none_or(|limit| i64::try_from(limit).unwrap_or(i64::MAX) >= i64::from(20 - own_nice()));
    let capable = || {
        let status = procfs::process::Process::myself().and_then(|own| own.status());
        status.is_ok_and(|status| status.capeff >> CAP_SYS_NICE & 1 == 1)
    };
    within || capable()
}

/// All threads; twice, because one may start another meanwhile.
fn set_all(pid: u32, nice: i32) -> std::io::Result<()> {
    for _ in 0..2 {
        for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let thread = entry?.file_name().to_str().and_then(|name| name.parse().ok()).and_then(target);
            match thread.map(|thread| setpriority_process(Some(thread), nice)) {
                // One that has ended meanwhile.
                None | Some(Ok(()) | Err(rustix::io::Errno::SRCH)) => {}
                Some(Err(error)) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

fn target(pid: u32) -> Option<Pid> {
    // 0 would be this process.
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// How often the kernel has ended a process because memory ran out: in this process's cgroup and on the
/// whole machine, as far as it tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OomKills(Vec<(PathBuf, u64)>);

impl OomKills {
    /// Reads the counters.
    pub fn now() -> Self {
        let cgroups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self(
            counters(&cgroups)
                .into_iter()
                .filter_map(|path| read(&path).map(|count| (path, count)))
                .collect(),
        )
    }

    /// True when one of the counters has risen since.
    pub fn risen(&self) -> bool {
        self.0.iter().any(|(path, before)| read(path).is_some_and(|now| now > *before))
    }
}

/// The files with counters, for the text of `/proc/self/cgroup`: cgroup 2, cgroup 1, the machine.
fn counters(cgroups: &str) -> Vec<PathBuf> {
    let mut files = vec![PathBuf::from("/proc/vmstat")];
    for line in cgroups.lines() {
        // The root's path is a single slash.
        let line = line.trim_end_matches('/');
        let mut parts = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        if number == "0" {
            files.push(format!("/sys/fs/cgroup{path}/memory.events").into());
        } else if controllers.split(',').any(|controller| controller == "memory") {
            files.push(format!("/sys/fs/cgroup/memory{path}/memory.oom_control").into());
        }
    }
    files
}

/// The number after `oom_kill`.
fn read(path: &std::path::Path) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_of_both_kinds_of_cgroups_are_found() {
        let files = |text| counters(text).iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        assert_eq!(
            files("0::/system.slice/edgewarden.service\n"),
            ["/proc/vmstat", "/sys/fs/cgroup/system.slice/edgewarden.service/memory.events"]
        );
        assert_eq!(
            files("5:cpu,memory:/a/b\n4:pids:/\n0::/\nodd\n"),
            ["/proc/vmstat", "/sys/fs/cgroup/memory/a/b/memory.oom_control", "/sys/fs/cgroup/memory.events"]
        );
    }

    #[test]
    fn a_counter_that_stands_still_has_not_risen() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let write = |text: &str| std::fs::write(file.path(), text).unwrap();
        write("oom 4\noom_kill 3\noom_group_kill 0\n");
        let before = OomKills(vec![(file.path().to_owned(), read(file.path()).unwrap())]);
        assert!(!before.risen());
        write("oom 9\noom_kill 4\n");
        assert!(before.risen());
    }

    #[test]
    fn refused_memory_is_told_from_other_faults() {
        let told = |code, detail: &str, limit| refused_memory(Reason::new(code, detail), limit);
        let reason = told(ReasonCode::LoadFailed, "load m.onnx: std::bad_alloc", 64 << 20);
        assert_eq!(reason.code, ReasonCode::OutOfMemory);
        assert!(reason.detail.contains("memory_limit (now 64 MiB)"), "{reason}");
        let reason = told(ReasonCode::LoadFailed, "CUDA failure 2: out of memory", 0);
        assert!(reason.code == ReasonCode::OutOfMemory && reason.detail.contains("free memory"), "{reason}");
        assert_eq!(told(ReasonCode::LoadFailed, "no such operator", 1).code, ReasonCode::LoadFailed);
        assert_eq!(told(ReasonCode::GoldenMismatch, "class bad_alloc", 1).code, ReasonCode::GoldenMismatch);
    }

    #[test]
    fn a_child_is_slowed_down_with_all_its_threads_and_comes_back() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id();
        let nice = || getpriority_process(target(pid)).unwrap();
        lower_for_good(pid);
        assert_eq!(nice(), LOW);
        let can = can_come_back();
        assert_eq!(Priority::low_if_it_can_rise(), if can { Priority::Low } else { Priority::Normal });
        raise(pid);
        assert_eq!(nice(), if can { own_nice() } else { LOW });

        limit(pid);
        limit_memory(pid, 64 << 20);
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let line = |name: &str| limits.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        assert!(line("Max data size").contains("67108864"), "{limits}");
        // 0 would still start a program that collects dumps.
        let core = line("Max core file size");
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["1", "1"], "{limits}");
        let score: i32 =
            std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim().parse().unwrap();
        let own: i32 = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
        assert_eq!(score, (own + OOM_SCORE).min(1000));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
