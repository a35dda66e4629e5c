//! What the spool writes to the disk for a message, and how fast it is; `packaging/bench-spool.sh` runs it.
//!
//! ```text
//! spool FOLDER MESSAGES BYTES      in this folder, so many messages with payloads of so many bytes
//! ```
//!
//! Each row is a fresh store: the messages go through it in orders of so many at once (one sync each), are read as the
//! pump reads them, and are removed. What is counted is what the process gave to the disk (`write_bytes` of
//! `/proc/self/io`: pages, without the file system's own journal) and what it passed to `write` (`wchar`); `grown` is
//! what the process has grown by when the last was taken.

use edgewarden::config::settings::SpoolBounds;
use edgewarden::domain::importance::Importance;
use edgewarden::mqtt::spool::{DiskStore, Spool, Spooled};
use edgewarden::sys::store::Store;
use std::collections::HashSet;
use std::path::Path;
use std::time::Instant;

type Fault = Box<dyn std::error::Error>;

fn main() -> Result<(), Fault> {
    // Cargo adds `--bench`.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let [folder, messages, bytes] = &args[..] else {
        eprintln!("usage: spool FOLDER MESSAGES BYTES; packaging/bench-spool.sh fills it in");
        return Ok(());
    };
    let (messages, bytes): (usize, usize) = (messages.parse()?, bytes.parse()?);
    println!("{messages} messages of {bytes} bytes");
    println!(
        "{:>8} {:>12} {:>16} {:>18} {:>12} {:>12}",
        "at once", "messages/s", "disk B/message", "written B/message", "file KiB", "grown KiB"
    );
    for (waiting, title) in [(false, "each is acknowledged at once"), (true, "all wait, then all arrive")] {
        println!("{title}:");
        for at_once in [1, 8, 64, 256] {
            let folder = Path::new(folder).join(format!("{at_once}-{waiting}"));
            row(&folder, messages, bytes, at_once, waiting)?;
            std::fs::remove_dir_all(&folder)?;
        }
    }
    Ok(())
}

fn row(folder: &Path, messages: usize, bytes: usize, at_once: usize, waiting: bool) -> Result<(), Fault> {
    let store = Store::open(&folder.join("store")).map_err(|error| error.to_string())?.store;
    let mut spool = Spool::with_bounds(DiskStore::new(&store), SpoolBounds { messages, bytes: 1 << 30 });
    let (before, begun, none) = (written()?, Instant::now(), HashSet::new());
    let at_first = resident()?;
    let message = |n: usize| Spooled {
        topic: "edgewarden/press-7-left/event/camera".into(),
        retain: false,
        payload: format!("{{\"n\":{n:012},\"pad\":\"{}\"}}", "x".repeat(bytes.saturating_sub(30))),
        correlation: None,
        replaces: None,
        class: Importance::Event,
        timed: true,
    };
    let mut n = 0;
    while n < messages {
        let some: Vec<Spooled> = (n..messages.min(n + at_once)).map(message).collect();
        n += some.len();
        spool.push(some, &none);
        while !waiting && !spool.is_empty() {
            send(&mut spool);
        }
    }
    let grown = resident()?.saturating_sub(at_first);
    while !spool.is_empty() {
        send(&mut spool);
    }
    spool.sync();
    let (time, after) = (begun.elapsed().as_secs_f64(), written()?);
    let of = |n: usize| (after[n] - before[n]) as f64 / messages as f64;
    let file: u64 = std::fs::read_dir(folder.join("store"))?
        .flatten()
        .filter_map(|entry| entry.metadata().ok().map(|metadata| metadata.len()))
        .sum();
    println!(
        "{at_once:>8} {:>12.0} {:>16.0} {:>18.0} {:>12} {:>12}",
        messages as f64 / time,
        of(1),
        of(0),
        file / 1024,
        grown / 1024
    );
    Ok(())
}

/// As the pump does: a window, acknowledged one by one.
fn send(spool: &mut Spool) {
    for (id, _) in spool.after(0, 32) {
        spool.remove(id);
    }
}

/// Resident bytes of this process.
fn resident() -> Result<u64, Fault> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// Bytes passed to `write`, and bytes given to the disk.
fn written() -> Result<[u64; 2], Fault> {
    let io = std::fs::read_to_string("/proc/self/io")?;
    let of = |name: &str| -> Result<u64, Fault> {
        let line =
            io.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such line in /proc/self/io")?;
        Ok(line.trim().parse()?)
    };
    Ok([of("wchar:")?, of("write_bytes:")?])
}
