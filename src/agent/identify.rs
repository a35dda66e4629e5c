//! Who this device is, for whoever stands before a shelf of them.

use crate::config::Settings;
use crate::domain::Digest;
use crate::sys::background;
use crate::telemetry::board;
use crate::telemetry::led::Led;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

/// Network interfaces that are told.
const MAX_INTERFACES: usize = 16;

/// Tells who this is, and begins to blink for so many seconds (0: not at all). Reads some files: not on a thread of
/// async code.
pub fn identify(settings: &Settings, blink_s: u64) -> Value {
    let root = Path::new("/");
    let board::Identity { os, kernel, arch, board, boot_id } = board::identity(root);
    let text = |path: &str| {
        let text = std::fs::read_to_string(root.join(path)).ok()?;
        let text = text.trim_matches(|c: char| c == '\0' || c.is_whitespace()).to_owned();
        (!text.is_empty()).then_some(text)
    };
    // The machine's id is not for everybody; whoever has it can make this of it and compare.
    let machine = text("etc/machine-id")
        .map(|id| Digest::from_bytes(Sha256::digest(format!("edgewarden {id}")).into()).to_string());
    json!({
        "device": settings.device.id,
        "groups": settings.device.groups,
        "agent_version": env!("CARGO_PKG_VERSION"),
        "board": board,
        "serial": text("proc/device-tree/serial-number"),
        "machine_sha256": machine,
        "os": os,
        "kernel": kernel,
        "arch": arch,
        "boot_id": boot_id,
        "address": settings.mqtt.as_ref().and_then(|mqtt| address(&mqtt.host, mqtt.port)),
        "interfaces": interfaces(root),
        "light": blink(root, blink_s),
    })
}

/// Our own address on the way to the broker. Nothing is sent.
fn address(host: &str, port: u16) -> Option<IpAddr> {
    // A name is not looked up: that may take long.
    let broker: IpAddr = if host == "localhost" { "127.0.0.1".parse().ok()? } else { host.parse().ok()? };
    let any: IpAddr = if broker.is_ipv4() { "0.0.0.0".parse().ok()? } else { "::".parse().ok()? };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((broker, port)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Names and hardware addresses of the network's interfaces.
fn interfaces(root: &Path) -> Vec<Value> {
    let entries = std::fs::read_dir(root.join("sys/class/net")).into_iter().flatten().flatten();
    let mut found: Vec<(String, String)> = entries
        .filter_map(|entry| {
            let mac = std::fs::read_to_string(entry.path().join("address")).ok()?.trim().to_owned();
            let real = !mac.is_empty() && mac != "00:00:00:00:00:00";
            real.then(|| (entry.file_name().to_string_lossy().into_owned(), mac))
        })
        .collect();
    found.sort();
    found.truncate(MAX_INTERFACES);
    found.into_iter().map(|(name, mac)| json!({ "name": name, "mac": mac })).collect()
}

/// Begins to blink, and says which light, or why none.
fn blink(root: &Path, seconds: u64) -> Value {
    if seconds == 0 {
        return json!({ "blinks": false, "why": "it was not asked for" });
    }
    match Led::find(root) {
        Ok(led) => {
            let name = led.name();
            match background::spawn_blocking(move || led.blink(Duration::from_secs(seconds))) {
                Ok(_) => json!({ "blinks": true, "name": name, "for_s": seconds }),
                Err(reason) => json!({ "blinks": false, "why": reason.detail }),
            }
        }
        Err(why) => json!({ "blinks": false, "why": why }),
    }
}
