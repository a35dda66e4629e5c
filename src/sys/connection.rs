//! Is the way out paid by the byte? The kernel does not know prices, but it knows modems: a default route over a
//! mobile modem or a dialled link counts as metered. A telephone's hotspot looks like any other network from here;
//! where one is used, the configuration says so.

use std::fs;
use std::path::Path;

/// Kinds of links of `/sys/class/net/<name>/type` that are dialled or come from a modem: PPP, raw IP.
const DIALLED: [&str; 2] = ["512", "519"];

/// Longest of the kernel's files that are read, bytes.
const MAX_FILE: usize = 1 << 20;

/// Whether the best default route leads over a modem; `root` is `/`. Without a default route nothing is known, and
/// nothing counts as metered.
pub fn is_metered(root: &Path) -> bool {
    let read = |path: &str| {
        fs::read_to_string(root.join(path)).ok().filter(|text| text.len() <= MAX_FILE).unwrap_or_default()
    };
    let link = default_v4(&read("proc/net/route")).or_else(|| default_v6(&read("proc/net/ipv6_route")));
    // A name that leaves the folder is none of the kernel's.
    let Some(link) = link.filter(|link| !link.contains('/') && link != "..") else { return false };
    let kind = read(&format!("sys/class/net/{link}/type"));
    let event = read(&format!("sys/class/net/{link}/uevent"));
    DIALLED.contains(&kind.trim()) || event.lines().any(|line| line == "DEVTYPE=wwan")
}

/// The link of the best default route in `/proc/net/route`.
fn default_v4(text: &str) -> Option<String> {
    let routes = text.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [link, target, _, _, _, _, metric, mask, ..] = fields[..] else { return None };
        (target == "00000000" && mask == "00000000").then_some((metric.parse::<u32>().ok()?, link))
    });
    routes.min().map(|(_, link)| link.to_owned())
}

/// The same in `/proc/net/ipv6_route`, whose numbers are hexadecimal. The kernel keeps one there that rejects all.
fn default_v6(text: &str) -> Option<String> {
    let routes = text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [target, length, _, _, _, metric, _, _, _, link] = fields[..] else { return None };
        let is_default = length == "00" && target.bytes().all(|byte| byte == b'0') && link != "lo";
        is_default.then_some((u32::from_str_radix(metric, 16).ok()?, link))
    });
    routes.min().map(|(_, link)| link.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n";

    /// A machine with these routes and links (name, type, lines of its event).
    fn machine(v4: &str, v6: &str, links: &[(&str, &str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/net")).unwrap();
        fs::write(root.path().join("proc/net/route"), format!("{HEAD}{v4}")).unwrap();
        fs::write(root.path().join("proc/net/ipv6_route"), v6).unwrap();
        for (name, kind, event) in links {
            let folder = root.path().join("sys/class/net").join(name);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("type"), format!("{kind}\n")).unwrap();
            fs::write(folder.join("uevent"), event).unwrap();
        }
        root
    }

    const ETH: &str = "eth0\t00000000\t0100A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n";
    const NET: &str = "wwan0\t0000A8C0\t00000000\t0001\t0\t0\t50\t00FFFFFF\t0\t0\t0\n";
    const WWAN: &str = "wwan0\t00000000\t00000000\t0001\t0\t0\t700\t00000000\t0\t0\t0\n";
    const WWAN_FIRST: &str = "wwan0\t00000000\t00000000\t0001\t0\t0\t50\t00000000\t0\t0\t0\n";
    const PPP: &str = "ppp0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n";
    const LINKS: [(&str, &str, &str); 3] = [
        ("eth0", "1", "INTERFACE=eth0\nIFINDEX=2\n"),
        ("wwan0", "1", "DEVTYPE=wwan\nINTERFACE=wwan0\n"),
        ("ppp0", "512", "INTERFACE=ppp0\n"),
    ];

    #[test]
    fn the_best_default_route_decides() {
        let v6 = |link: &str, metric: &str| {
            format!(
                "{0} 00 {0} 00 fe800000000000000000000000000001 {metric} 00000001 00000000 00000003 {link}\n",
                "0".repeat(32)
            )
        };
        for (v4, v6, metered) in [
            (String::new(), String::new(), false),
            (ETH.to_owned(), String::new(), false),
            (format!("{NET}{ETH}{WWAN}"), v6("wwan0", "00000001"), false),
            (format!("{ETH}{WWAN_FIRST}"), String::new(), true),
            (NET.to_owned(), String::new(), false),
            (PPP.to_owned(), String::new(), true),
            (String::new(), v6("wwan0", "00000400"), true),
            (String::new(), v6("lo", "ffffffff") + &v6("eth0", "00000400"), false),
            ("../x\t00000000\t0\t0\t0\t0\t0\t00000000\t0\t0\t0\n".to_owned(), String::new(), false),
            ("rubbish\n".to_owned(), "rubbish\n".to_owned(), false),
        ] {
            let root = machine(&v4, &v6, &LINKS);
            assert_eq!(is_metered(root.path()), metered, "{v4}{v6}");
        }
        assert!(!is_metered(Path::new("/nonexistent")));
    }
}
