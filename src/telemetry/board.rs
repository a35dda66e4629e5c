//! What the machine says of itself. Every fact may be absent: boards differ, and so do kernels.
//!
//! All paths are below a root, so that the tests have boards of every kind.

use crate::domain::health::clock::TimeKeeper;
use crate::domain::metrics::{BoardMetrics, Throttling};
use procfs::prelude::FromRead;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Raspberry Pi: the firmware's answer to `get_throttled`, in hexadecimal digits.
const PI_THROTTLED: [&str; 2] = [
    "sys/devices/platform/soc/soc:firmware/get_throttled",
    "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled",
];
/// Jetson: load of the graphics processor, 0 to 1000 (Orin, Xavier and Nano each have their own place).
const JETSON_GPU: [&str; 4] = [
    "sys/devices/platform/gpu.0/load",
    "sys/devices/platform/17000000.gpu/load",
    "sys/devices/gpu.0/load",
    "sys/devices/platform/host1x/57000000.gpu/load",
];
/// More zones and rails than any board has.
const MAX_SENSORS: usize = 64;

/// Reads the board.
#[derive(Debug, Clone)]
pub struct Board {
    root: PathBuf,
    state: PathBuf,
}

impl Board {
    /// `root` is `/` outside tests; `state` is a folder on the disk that matters.
    pub fn new(root: impl Into<PathBuf>, state: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), state: state.into() }
    }

    /// All that can be read now. Takes about a millisecond.
    pub fn read(&self) -> BoardMetrics {
        let memory = procfs::Meminfo::from_file(self.root.join("proc/meminfo")).ok();
        let disk = rustix::fs::statvfs(&self.state).ok();
        BoardMetrics {
            load1: procfs::LoadAverage::from_file(self.root.join("proc/loadavg"))
                .ok()
                .map(|load| f64::from(load.one)),
            memory_total_bytes: memory.as_ref().map(|m| m.mem_total),
            memory_available_bytes: memory.as_ref().and_then(|m| m.mem_available),
            disk_total_bytes: disk.as_ref().map(|d| d.f_blocks * d.f_frsize),
            disk_free_bytes: disk.as_ref().map(|d| d.f_bavail * d.f_frsize),
            temperature_celsius: self.temperatures(),
            throttled: self.throttled(),
            gpu_load: JETSON_GPU
                .iter()
                .find_map(|path| self.number::<f64>(path))
                .map(|per_mille| (per_mille / 1000.0).clamp(0.0, 1.0)),
            power_watts: self.power(),
        }
    }

    /// `thermal_zone<n>/{type,temp}`, in thousandths of a degree.
    fn temperatures(&self) -> BTreeMap<String, f64> {
        let mut zones = BTreeMap::new();
        for dir in self.folders("sys/class/thermal", "thermal_zone") {
            // A zone whose sensor sleeps answers with an error, or with −256 °C.
            if let (Some(name), Some(milli)) = (text(&dir.join("type")), text(&dir.join("temp")))
                && let Ok(milli) = milli.parse::<f64>()
                && (-100_000.0..300_000.0).contains(&milli)
            {
                zones.insert(unique(&zones, name), milli / 1000.0);
            }
        }
        zones
    }

    fn throttled(&self) -> Option<Throttling> {
        let bits = PI_THROTTLED.iter().find_map(|path| text(&self.root.join(path)))?;
        let bits = u32::from_str_radix(bits.trim_start_matches("0x"), 16).ok()?;
        Some(Throttling::from_bits(bits))
    }

    /// INA3221 sensors: `in<n>_label`, `in<n>_input` in mV and `curr<n>_input` in mA.
    fn power(&self) -> BTreeMap<String, f64> {
        let mut rails = BTreeMap::new();
        for dir in self.folders("sys/class/hwmon", "hwmon") {
            if text(&dir.join("name")).as_deref() != Some("ina3221") {
                continue;
            }
            // It has three channels.
            for n in 1..=3 {
                let value = |kind: &str| text(&dir.join(format!("{kind}{n}_input")))?.parse::<f64>().ok();
                if let (Some(label), Some(millivolt), Some(milliampere)) =
                    (text(&dir.join(format!("in{n}_label"))), value("in"), value("curr"))
                {
                    rails.insert(unique(&rails, label), millivolt * milliampere / 1e6);
                }
            }
        }
        rails
    }

    fn number<T: std::str::FromStr>(&self, path: &str) -> Option<T> {
        text(&self.root.join(path))?.parse().ok()
    }

    /// Folders of `parent` whose names begin with `prefix`, in a steady order.
    fn folders(&self, parent: &str, prefix: &str) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.root.join(parent)) else { return Vec::new() };
        let wanted = |path: &PathBuf| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(prefix))
        };
        let mut found: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(wanted).collect();
        found.sort();
        found.truncate(MAX_SENSORS);
        found
    }
}

/// What the machine is; does not change while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Operating system, as it calls itself.
    pub os: String,
    /// Version of the kernel.
    pub kernel: String,
    /// Architecture (`x86_64`, `aarch64`).
    pub arch: String,
    /// The board, as its firmware calls it.
    pub board: Option<String>,
    /// The kernel's id of this boot; empty where it tells none.
    pub boot_id: String,
}

/// Reads what the machine is; `root` is `/` outside tests.
pub fn identity(root: &Path) -> Identity {
    let uname = rustix::system::uname();
    let known = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let release = std::fs::read_to_string(root.join("etc/os-release")).unwrap_or_default();
    let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    // A device tree names a board; a PC has it in its DMI table.
    let board = ["proc/device-tree/model", "sys/class/dmi/id/product_name"];
    Identity {
        os: pretty.map_or_else(|| known(uname.sysname()), |name| name.trim_matches('"').to_owned()),
        kernel: known(uname.release()),
        arch: known(uname.machine()),
        board: board.iter().find_map(|path| text(&root.join(path))),
        boot_id: text(&root.join("proc/sys/kernel/random/boot_id")).unwrap_or_default(),
    }
}

/// A hardware clock that is farther from the system's clock keeps some other time, or none.
const RTC_RANGE: u64 = 24 * 3600;

/// What keeps the time where no time service does: a hardware clock in range of `now` (seconds since 1970), or
/// the machine around a container. Asking a hardware clock is slow; do it seldom.
pub fn time_keeper(root: &Path, now: i64) -> Option<TimeKeeper> {
    let clocks = std::fs::read_dir(root.join("sys/class/rtc")).into_iter().flatten().flatten();
    let times = clocks.take(MAX_SENSORS).filter_map(|clock| text(&clock.path().join("since_epoch")));
    if times.filter_map(|time| time.parse::<i64>().ok()).any(|time| time.abs_diff(now) <= RTC_RANGE) {
        return Some(TimeKeeper::HardwareClock);
    }
    // Docker's, Podman's, and that of everything that follows systemd's container interface.
    let marks = [".dockerenv", "run/.containerenv", "run/systemd/container"];
    marks.iter().any(|mark| root.join(mark).exists()).then_some(TimeKeeper::Host)
}

/// A small file's text without the space around it.
fn text(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!text.is_empty() && text.len() <= 256).then(|| text.to_owned())
}

/// The name, with a number where another sensor has it already.
fn unique(taken: &BTreeMap<String, f64>, name: String) -> String {
    if !taken.contains_key(&name) {
        return name;
    }
    (2..=MAX_SENSORS)
        .map(|n| format!("{name}-{n}"))
        .find(|candidate| !taken.contains_key(candidate))
        .unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(files: &[(&str, &str)]) -> (tempfile::TempDir, BoardMetrics) {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let board = Board::new(dir.path(), dir.path()).read();
        (dir, board)
    }

    #[test]
    fn a_machine_that_tells_nothing_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let told = Board::new(dir.path().join("none"), dir.path().join("none")).read();
        assert_eq!(told, BoardMetrics::default());
    }

    #[test]
    fn a_raspberry_pi() {
        let (_dir, told) = board(&[
            ("proc/loadavg", "0.42 0.30 0.20 1/234 567\n"),
            (
                "proc/meminfo",
                "MemTotal:        3884096 kB\nMemFree:          100000 kB\nMemAvailable:    2884096 kB\nBuffers: 1 kB\nCached: 1 kB\nSwapCached: 0 kB\nActive: 1 kB\nInactive: 1 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\nDirty: 0 kB\nWriteback: 0 kB\nAnonPages: 1 kB\nMapped: 1 kB\nSlab: 1 kB\nCommitted_AS: 1 kB\nVmallocTotal: 1 kB\nVmallocUsed: 1 kB\nVmallocChunk: 0 kB\n",
            ),
            ("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n"),
            ("sys/class/thermal/thermal_zone0/temp", "61322\n"),
            ("sys/class/thermal/cooling_device0/type", "fan\n"),
            ("sys/devices/platform/soc/soc:firmware/get_throttled", "50005\n"),
        ]);
        assert!((told.load1.unwrap() - 0.42).abs() < 1e-6);
        assert_eq!(told.memory_total_bytes, Some(3_884_096 * 1024));
        assert_eq!(told.memory_available_bytes, Some(2_884_096 * 1024));
        assert_eq!(told.temperature_celsius, BTreeMap::from([("cpu-thermal".to_owned(), 61.322)]));
        let throttled = told.throttled.unwrap();
        assert!(throttled.under_voltage && throttled.throttled && throttled.since_boot);
        assert!(told.disk_total_bytes.unwrap() >= told.disk_free_bytes.unwrap());
        assert_eq!((told.gpu_load, told.power_watts.len()), (None, 0));
    }

    #[test]
    fn a_jetson_orin() {
        let (_dir, told) = board(&[
            ("sys/devices/platform/gpu.0/load", "374\n"),
            ("sys/class/hwmon/hwmon3/name", "ina3221\n"),
            ("sys/class/hwmon/hwmon3/in1_label", "VDD_IN\n"),
            ("sys/class/hwmon/hwmon3/in1_input", "5072\n"),
            ("sys/class/hwmon/hwmon3/curr1_input", "1000\n"),
            ("sys/class/hwmon/hwmon3/in2_label", "VDD_CPU_GPU_CV\n"),
            ("sys/class/hwmon/hwmon3/in2_input", "not a number\n"),
            ("sys/class/hwmon/hwmon1/name", "pwm-fan\n"),
            ("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n"),
            ("sys/class/thermal/thermal_zone0/temp", "48000\n"),
            ("sys/class/thermal/thermal_zone1/type", "cpu-thermal\n"),
            ("sys/class/thermal/thermal_zone1/temp", "49500\n"),
            ("sys/class/thermal/thermal_zone2/type", "cv0-thermal\n"),
            ("sys/class/thermal/thermal_zone2/temp", "-256000\n"),
        ]);
        assert_eq!(told.gpu_load, Some(0.374));
        assert_eq!(told.power_watts, BTreeMap::from([("VDD_IN".to_owned(), 5.072)]));
        let zones: Vec<_> = told.temperature_celsius.into_iter().collect();
        assert_eq!(zones, [("cpu-thermal".to_owned(), 48.0), ("cpu-thermal-2".to_owned(), 49.5)]);
    }

    #[test]
    fn a_board_has_a_name() {
        let (dir, _) = board(&[
            ("proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.5\0"),
            ("etc/os-release", "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\n"),
            ("proc/sys/kernel/random/boot_id", "8bf6b5cc-1dc2-4f6b-8d1f-6f8f0a9f6f2e\n"),
        ]);
        let told = identity(dir.path());
        assert_eq!(told.board.as_deref(), Some("Raspberry Pi 4 Model B Rev 1.5"));
        assert_eq!(told.os, "Debian GNU/Linux 13 (trixie)");
        assert_eq!(told.boot_id.len(), 36);
        assert!(!told.kernel.is_empty() && !told.arch.is_empty());
        let empty = tempfile::tempdir().unwrap();
        assert_eq!((identity(empty.path()).os.as_str(), identity(empty.path()).board), ("Linux", None));
    }

    #[test]
    fn a_hardware_clock_in_range_keeps_the_time_and_one_that_began_anew_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let (clock, now) = (dir.path().join("sys/class/rtc/rtc0"), 1_780_000_000);
        assert_eq!(time_keeper(dir.path(), now), None);
        std::fs::create_dir_all(&clock).unwrap();
        for (time, keeper) in [
            ("1780000007\n", Some(TimeKeeper::HardwareClock)),
            // In local time, as a second system on the same machine may want it.
            ("1779992800\n", Some(TimeKeeper::HardwareClock)),
            ("1234\n", None),
            ("\n", None),
        ] {
            std::fs::write(clock.join("since_epoch"), time).unwrap();
            assert_eq!(time_keeper(dir.path(), now), keeper, "{time}");
        }
        std::fs::write(dir.path().join(".dockerenv"), "").unwrap();
        assert_eq!(time_keeper(dir.path(), now), Some(TimeKeeper::Host));
    }
}
