//! Keeps what is secret in this process's memory off the disk: out of core dumps, and out of the swap.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Whether the memory of this process can come to lie on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// The machine has no swap.
    NoSwap,
    /// All that this process has and will get stays in memory.
    Locked,
    /// It can; why, and the remedy.
    Swappable(String),
}

/// Keeps all that this process has and will get in memory, where it may: with a limit on locked memory
/// (`RLIMIT_MEMLOCK`) every allocation beyond it would fail, so nothing is locked then. A crash leaves no core
/// dump, for good; systemd's own handler of dumps keeps to that, too.
pub fn keep() -> Kept {
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        tracing::warn!(%error, "a core dump of this process could hold the model in plain");
    }
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    if !has_swap(&swaps) {
        return Kept::NoSwap;
    }
    let remedy = "set LimitMEMLOCK=infinity or MemorySwapMax=0 in the unit, or turn the swap off";
    if getrlimit(Resource::Memlock).current.is_some() {
        return Kept::Swappable(format!("memory that this process may lock is limited; {remedy}"));
    }
    // Only pages that are used: else every stack would be filled up.
    match mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT) {
        Ok(()) => Kept::Locked,
        Err(error) => {
            Kept::Swappable(format!("the kernel does not lock it: {}; {remedy}", std::io::Error::from(error)))
        }
    }
}

/// Any line below the heading. Compressed memory (zram) counts, too: it may be written back to a disk.
fn has_swap(swaps: &str) -> bool {
    swaps.lines().skip(1).any(|line| !line.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swap_is_a_line_below_the_heading() {
        let heading = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        assert!(!has_swap("") && !has_swap(heading));
        assert!(has_swap(&format!("{heading}/dev/zram0   partition  2097148  0  100\n")));
    }
}
