//! Keeps what is secret in this process's memory off the disk: out of core dumps, and out of the swap.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use std::io;

/// The limit on core dumps (`RLIMIT_CORE`, bytes) with which there is none at all. With 0 the kernel writes no
/// file, but still hands the dump to a program that `core_pattern` names with a pipe (systemd-coredump, apport);
/// exactly 1 stops that, too.
const NO_DUMP: u64 = 1;

/// Whether the memory of this process can come to lie on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// The machine has no swap now, and memory may not be locked.
    NoSwap,
    /// All that this process has and will get stays in memory.
    Locked,
    /// It can; why, and the remedy.
    Swappable(String),
}

impl Kept {
    /// Says in the log how it is.
    pub fn tell(&self) {
        match self {
            Self::NoSwap => tracing::debug!("an encrypted model, and a machine without swap"),
            Self::Locked => tracing::debug!("an encrypted model: this process is kept out of the swap"),
            Self::Swappable(why) => {
                tracing::warn!("an encrypted model may come to lie in the swap in plain: {why}");
            }
        }
    }
}

/// Keeps all that this process has and will get in memory, where it may: with a limit on locked memory
/// (`RLIMIT_MEMLOCK`) every allocation beyond it would fail, so nothing is locked then. A crash leaves no core
/// dump, for good.
pub fn keep() -> Kept {
    if let Err(why) = no_core_dump(None) {
        tracing::warn!("a core dump of this process could hold the model in plain: {why}");
    }
    let swaps = std::fs::read_to_string("/proc/swaps");
    decide(swaps, getrlimit(Resource::Memlock).current, || {
        // Only pages that are used: else every stack would be filled up.
        Ok(mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)?)
    })
}

/// Takes from a process (this one when `None`), for good, that it can leave a core dump, on the disk or with a
/// program that collects them.
///
/// # Errors
/// Why a dump is still possible; nothing need stop for it.
pub fn no_core_dump(process: Option<Pid>) -> Result<(), String> {
    let none = Rlimit { current: Some(NO_DUMP), maximum: Some(NO_DUMP) };
    let Err(error) = prlimit(process, Resource::Core, none) else { return Ok(()) };
    // A child has what this process has.
    Err(match getrlimit(Resource::Core).maximum {
        Some(0) => "the limit on core dumps is 0 already and may not be raised to 1: none is written to the disk, but \
                    a program that core_pattern names gets it; start the agent with the limit 1 (LimitCORE=1 in the \
                    unit)"
            .to_owned(),
        Some(_) | None => format!("the limit on core dumps cannot be set: {}", io::Error::from(error)),
    })
}

/// What comes of the text of `/proc/swaps`, of the limit on locked memory (`None`: without) and of locking it,
/// which is tried only without a limit: a swap may be turned on at any time.
fn decide(swaps: io::Result<String>, limit: Option<u64>, lock: impl FnOnce() -> io::Result<()>) -> Kept {
    let why = match limit {
        Some(_) => "memory that this process may lock is limited".to_owned(),
        None => match lock() {
            Ok(()) => return Kept::Locked,
            Err(error) => format!("the kernel does not lock it: {error}"),
        },
    };
    let remedy = "set LimitMEMLOCK=infinity or MemorySwapMax=0 in the unit (for a command: ulimit -l unlimited), or \
                  turn the swap off";
    match swaps {
        Ok(swaps) if !has_swap(&swaps) => Kept::NoSwap,
        Ok(_) => Kept::Swappable(format!("{why}; {remedy}")),
        Err(error) => Kept::Swappable(format!(
            "whether there is a swap is not known (/proc/swaps: {error}), and {why}; {remedy}"
        )),
    }
}

/// Any line below the heading. Compressed memory (zram) counts, too: it may be written back to a disk.
fn has_swap(swaps: &str) -> bool {
    swaps.lines().skip(1).any(|line| !line.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADING: &str = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";

    #[test]
    fn memory_is_locked_where_it_may_be_and_what_is_not_known_counts_as_swap() {
        let none = || Ok(HEADING.to_owned());
        let zram = || Ok(format!("{HEADING}/dev/zram0   partition  2097148  0  100\n"));
        let unknown = || Err(io::Error::from(io::ErrorKind::NotFound));
        let good = || Ok(());
        let bad = || Err(io::Error::from(io::ErrorKind::PermissionDenied));
        let never = || unreachable!("locked beyond its limit");
        for swaps in [none(), zram(), unknown()] {
            assert_eq!(decide(swaps, None, good), Kept::Locked, "a swap can come later");
        }
        assert_eq!(decide(none(), Some(8 << 20), never), Kept::NoSwap);
        assert_eq!(decide(none(), None, bad), Kept::NoSwap);
        for (kept, part) in [
            (decide(zram(), Some(8 << 20), never), "is limited; set LimitMEMLOCK"),
            (decide(zram(), None, bad), "permission denied; set LimitMEMLOCK"),
            (decide(unknown(), Some(0), never), "is not known (/proc/swaps"),
            (decide(unknown(), None, bad), "is not known (/proc/swaps"),
        ] {
            let Kept::Swappable(why) = kept else { panic!("{part}: {kept:?}") };
            assert!(why.contains(part), "{part}: {why}");
        }
    }
}
