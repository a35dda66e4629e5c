//! Many devices in one process: the real client, spool and command handling; inference is made up. On a broker that is
//! there already; `packaging/bench-fleet.sh` starts one.
//!
//! ```text
//! fleet PORT DEVICES MESSAGES FOLDER     so many devices, each with so many messages that must arrive
//! ```
//!
//! The devices' spools lie in one store on the disk. What listens to them is in this process, too, and keeps what it
//! hears; the memory of a device is what came with it up to its birth, before any report.

use edgewarden::mqtt::spool::{DiskStore, Spool};
use edgewarden::sys::store::Store;
use std::path::Path;
use std::time::Duration;

#[allow(dead_code, reason = "the tests use all of it")]
#[path = "../tests/it/support/ear.rs"]
mod ear;
#[allow(dead_code, reason = "the tests use all of it")]
#[path = "../tests/it/support/light.rs"]
mod light;

type Fault = Box<dyn std::error::Error>;

fn main() -> Result<(), Fault> {
    // Cargo adds `--bench`.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let [port, devices, each, folder] = &args[..] else {
        eprintln!("usage: fleet PORT DEVICES MESSAGES FOLDER; packaging/bench-fleet.sh fills it in");
        return Ok(());
    };
    let (devices, each): (usize, u64) = (devices.parse()?, each.parse()?);
    let store = Store::open(&Path::new(folder).join("store")).map_err(|error| error.to_string())?.store;
    let spool = |n| Spool::open(DiskStore::named(&store, n));
    let report = light::fleet(port.parse()?, devices, each, Duration::from_secs(300), spool);
    println!("{report}");
    Ok(())
}
