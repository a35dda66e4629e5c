//! What our own processes cost, from `/proc`.

use crate::domain::metrics::ProcessMetrics;
use procfs::process::Process;
use std::collections::HashMap;
use std::time::Instant;

/// Reads processes by their pid and remembers their processor time, for the share since the last time.
#[derive(Debug, Default)]
pub struct Processes {
    /// Per pid: start of the process (so that a pid used again is not mistaken), seconds, when.
    last: HashMap<u32, (u64, f64, Instant)>,
}

impl Processes {
    /// The figures of processes given by role and pid; one that is gone is left out.
    pub fn read(&mut self, processes: &[(String, u32)], now: Instant) -> Vec<ProcessMetrics> {
        let figures: Vec<_> =
            processes.iter().filter_map(|(role, pid)| self.read_one(role, *pid, now)).collect();
        self.last.retain(|pid, _| figures.iter().any(|process| process.pid == *pid));
        figures
    }

    fn read_one(&mut self, role: &str, pid: u32, now: Instant) -> Option<ProcessMetrics> {
        let process = Process::new(i32::try_from(pid).ok()?).ok()?;
        let stat = process.stat().ok()?;
        let cpu_seconds = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
        let cpu = match self.last.insert(pid, (stat.starttime, cpu_seconds, now)) {
            Some((start, before, then)) if start == stat.starttime && now > then => {
                Some((cpu_seconds - before).max(0.0) / (now - then).as_secs_f64())
            }
            Some(_) | None => None,
        };
        let pss_bytes = pss(&process);
        Some(ProcessMetrics {
            role: role.to_owned(),
            pid,
            rss_bytes: stat.rss * procfs::page_size(),
            pss_bytes,
            cpu,
            cpu_seconds,
        })
    }
}

/// What one process has and has used: bytes of memory (shared pages by share where the kernel tells it),
/// and seconds of processor time since its start. `None` when it is gone. Reads a handful of small files.
pub fn cost(pid: u32) -> Option<(u64, f64)> {
    let process = Process::new(i32::try_from(pid).ok()?).ok()?;
    let stat = process.stat().ok()?;
    // Nanoseconds where the kernel has them, for a few frames of a small model; else hundredths of a second.
    let exact = || -> Option<f64> {
        let mut ns = 0_u64;
        for thread in std::fs::read_dir(format!("/proc/{pid}/task")).ok()? {
            let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            ns += text.split_whitespace().next()?.parse::<u64>().ok()?;
        }
        Some(ns as f64 / 1e9)
    };
    let ticks = || (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
    Some((pss(&process).unwrap_or(stat.rss * procfs::page_size()), exact().unwrap_or_else(ticks)))
}

/// Proportional memory needs `smaps_rollup`, which a kernel may lack or another user's process deny.
fn pss(process: &Process) -> Option<u64> {
    process.smaps_rollup().ok()?.memory_map_rollup.0.first()?.extension.map.get("Pss").copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn our_own_process_is_seen_and_one_that_is_gone_is_not() {
        let mut processes = Processes::default();
        let own = std::process::id();
        let wanted = [("agent".to_owned(), own), ("infer:x".to_owned(), u32::MAX / 4)];
        let first = processes.read(&wanted, Instant::now());
        assert_eq!(first.len(), 1);
        assert_eq!((first[0].role.as_str(), first[0].pid, first[0].cpu), ("agent", own, None));
        assert!(first[0].rss_bytes > 1 << 20, "{:?}", first[0]);
        if let Some(pss) = first[0].pss_bytes {
            assert!(pss > 0 && pss <= first[0].rss_bytes * 2, "bytes, not KiB: {:?}", first[0]);
        }

        let end = Instant::now() + Duration::from_millis(100);
        let mut spin = 0_u64;
        while Instant::now() < end {
            spin = std::hint::black_box(spin.wrapping_add(1));
        }
        let (memory, cpu) = cost(own).unwrap();
        assert!(memory > 1 << 20 && cpu > 0.0, "{memory} bytes, {cpu} s");
        assert_eq!(cost(u32::MAX / 4), None);
        let second = processes.read(&wanted, Instant::now());
        assert!(second[0].cpu.is_some() && second[0].cpu_seconds >= first[0].cpu_seconds);
    }
}
