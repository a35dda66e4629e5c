//! What the package brings: the systemd unit and its neighbours, manual pages, as the tools that will read
//! them see them. A tool that this machine lacks is named, and its part skipped.

use crate::support::{Edgewarden, root};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Exposure at most, tenths: what the unit must close.
const EXPOSURE: &str = "15";
/// The first systemd whose `systemd-analyze security` knows `--offline`.
const OFFLINE: u32 = 250;

fn packaging(file: &str) -> PathBuf {
    root().join("packaging").join(file)
}

fn read(file: &str) -> String {
    fs::read_to_string(packaging(file)).unwrap()
}

/// Runs a tool; `None`, said aloud, where it is not installed.
fn tool(program: &str, arguments: &[&str]) -> Option<Output> {
    // Some are only where root looks.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    match Command::new(program).args(arguments).env("PATH", path).env("LC_ALL", "C.UTF-8").output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: {program} is not installed");
            None
        }
        Err(error) => panic!("{program}: {error}"),
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// The settings of a unit file or drop-in: section, key, value.
fn settings(text: &str) -> Vec<(String, String, String)> {
    let (mut section, mut found) = (String::new(), Vec::new());
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("no setting: {line}"));
        found.push((section.clone(), key.to_owned(), value.to_owned()));
    }
    found
}

/// The unit in a folder of its own, with our binary in place of the installed one, and with the drop-ins.
fn unit_here(folder: &Path, drop_ins: &[&str]) -> String {
    let unit = folder.join("edgewarden.service");
    let binary = Edgewarden::path().to_str().unwrap();
    let text = read("edgewarden.service");
    assert!(text.contains("ExecStart=/usr/bin/edgewarden run "));
    fs::write(&unit, text.replace("/usr/bin/edgewarden", binary)).unwrap();
    let beside = folder.join("edgewarden.service.d");
    fs::create_dir(&beside).unwrap();
    for name in drop_ins {
        fs::copy(packaging("edgewarden.service.d").join(name), beside.join(name)).unwrap();
    }
    unit.to_str().unwrap().to_owned()
}

#[test]
fn systemd_takes_every_line_of_the_unit_and_its_drop_in() {
    let folder = tempfile::tempdir().unwrap();
    let unit = unit_here(folder.path(), &["jetson.conf"]);
    let Some(output) = tool("systemd-analyze", &["verify", "--man=no", &unit]) else { return };
    let said = said(&output);
    // It also reads what ours names; other packages' units may be at fault.
    let ours: Vec<_> =
        said.lines().filter(|line| line.contains("edgewarden") || line.contains("jetson")).collect();
    assert!(ours.is_empty(), "{ours:#?}");
}

#[test]
fn the_unit_is_closed_as_far_as_it_says() {
    // 0 would still start a program that collects core dumps.
    let core = ("Service".into(), "LimitCORE".into(), "1".into());
    assert!(settings(&read("edgewarden.service")).contains(&core));
    let Some(version) = tool("systemd-analyze", &["--version"]) else { return };
    let version = said(&version);
    let number: u32 = version
        .split_whitespace()
        .nth(1)
        .and_then(|word| word.split(['.', '~', '-']).next())
        .and_then(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("which systemd is {version}?"));
    if number < OFFLINE {
        eprintln!("skipped: systemd {number} is older than {OFFLINE}, which can examine a file");
        return;
    }
    let threshold = format!("--threshold={EXPOSURE}");
    let unit = packaging("edgewarden.service");
    let output = tool(
        "systemd-analyze",
        &["security", "--offline=true", "--no-pager", &threshold, unit.to_str().unwrap()],
    )
    .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("Overall exposure level"), "{}", said(&output));
}

/// A drop-in may add to lists and open what its lines name, and must not touch how the agent is run.
#[test]
fn the_jetson_drop_in_opens_devices_and_code_at_run_time_and_nothing_else() {
    let opened = settings(&read("edgewarden.service.d/jetson.conf"));
    assert!(opened.contains(&("Service".into(), "MemoryDenyWriteExecute".into(), "no".into())));
    let devices: Vec<_> = opened.iter().filter(|(_, key, _)| key == "DeviceAllow").collect();
    assert_eq!(devices.len() + 1, opened.len(), "{opened:?}");
    for (_, _, value) in devices {
        let (device, access) = value.split_once(' ').unwrap();
        let nvidia = ["/dev/nv", "/dev/host1x", "char-nv"].iter().any(|start| device.starts_with(start));
        assert!(nvidia && access == "rw", "{value}");
    }
}

/// What the agent cannot do without; a stricter line somewhere would take it away in silence.
#[test]
fn the_unit_leaves_open_what_the_agent_needs() {
    let unit = settings(&read("edgewarden.service"));
    let values = |key: &str| -> Vec<&str> {
        unit.iter().filter(|(_, name, _)| name == key).map(|(_, _, value)| value.as_str()).collect()
    };
    assert_eq!(values("Type"), ["notify"]);
    assert_eq!(values("LimitNICE"), ["+0"], "candidates run at low priority");
    assert_eq!(values("RestrictAddressFamilies"), ["AF_UNIX AF_INET AF_INET6"]);
    assert_eq!(values("SystemCallErrorNumber"), ["EPERM"]);
    let calls = values("SystemCallFilter");
    for needed in ["landlock_restrict_self", "seccomp"] {
        assert!(calls.iter().any(|calls| calls.split(' ').any(|call| call == needed)), "{needed}: {calls:?}");
    }
    assert!(!calls.iter().any(|calls| calls.starts_with('~') && calls.contains("@resources")), "{calls:?}");
    for device in ["video4linux", "media", "drm", "ttyUSB", "ttyACM", "ttyAMA"] {
        let line = format!("char-{device} rw");
        assert!(values("DeviceAllow").contains(&line.as_str()), "{line}");
    }
    for closed in ["PrivateDevices", "PrivateNetwork", "SupplementaryGroups", "ProcSubset"] {
        assert!(values(closed).is_empty(), "{closed}");
    }
}

#[test]
fn the_user_is_made_with_its_groups_also_where_they_are_missing() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    let at = format!("--root={}", root.path().display());
    let file = packaging("edgewarden.sysusers");
    let Some(dry) = tool("systemd-sysusers", &[&at, "--dry-run", file.to_str().unwrap()]) else { return };
    // An older one knows no dry run; it then makes them below, which tells as much.
    if dry.status.success() {
        assert!(said(&dry).contains("edgewarden"), "{}", said(&dry));
        assert!(!root.path().join("etc/passwd").exists(), "a dry run writes nothing");
    }
    let output = tool("systemd-sysusers", &[&at, file.to_str().unwrap()]).unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let passwd = fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    let user = passwd.lines().find(|line| line.starts_with("edgewarden:")).unwrap();
    assert!(user.ends_with(":/var/lib/edgewarden:/usr/sbin/nologin"), "{user}");
    let groups = fs::read_to_string(root.path().join("etc/group")).unwrap();
    for group in ["video", "render", "dialout", "gpio", "i2c"] {
        let line = groups.lines().find(|line| line.starts_with(&format!("{group}:")));
        assert!(line.is_some_and(|line| line.ends_with(":edgewarden")), "{group}: {groups}");
    }
}

#[test]
fn folders_are_made_with_their_rights() {
    let file = packaging("edgewarden.tmpfiles");
    let folder = tempfile::tempdir().unwrap();
    // Owners can be set by root only; the rights can be seen by all.
    let lines = read("edgewarden.tmpfiles");
    let own: String = lines
        .lines()
        .filter(|line| line.starts_with("d "))
        .map(|line| {
            let words: Vec<_> = line.split(' ').collect();
            assert_eq!(words.len(), 6, "{line}");
            assert_eq!(words[5], "-", "nothing of the agent's is cleaned up: {line}");
            format!("d {} {} - - -\n", words[1], words[2])
        })
        .collect();
    let copy = folder.path().join("edgewarden.conf");
    fs::write(&copy, own).unwrap();
    let at = format!("--root={}", folder.path().display());
    let Some(output) = tool("systemd-tmpfiles", &[&at, "--create", copy.to_str().unwrap()]) else { return };
    assert!(output.status.success(), "{}", said(&output));
    use std::os::unix::fs::PermissionsExt as _;
    for (path, mode) in [("etc/edgewarden/config.d", 0o1775), ("var/lib/edgewarden", 0o750)] {
        let made = folder.path().join(path).metadata().unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(made.permissions().mode() & 0o7777, mode, "{path}");
    }
    // The line as it is: the unit makes the same folder with the same rights.
    let unit = settings(&read("edgewarden.service"));
    assert!(unit.iter().any(|(_, key, value)| key == "StateDirectoryMode" && value == "0750"));
    let lines = fs::read_to_string(file).unwrap();
    assert!(lines.contains("d /var/lib/edgewarden 0750 edgewarden edgewarden -"));
    assert!(lines.contains("d /etc/edgewarden/config.d 1775 root edgewarden -"), "`set` writes there");
}

/// A rule that names a group which nobody makes is dropped by udev, with a line in the journal.
#[test]
fn the_udev_rule_names_groups_that_the_user_is_in() {
    let sysusers = read("edgewarden.sysusers");
    let groups: BTreeSet<&str> =
        sysusers.lines().filter_map(|line| line.strip_prefix("m edgewarden ")).collect();
    let rules = read("edgewarden.rules");
    let mut seen = 0;
    for line in rules.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        for part in line.split(", ") {
            let (key, value) = part.split_once('=').unwrap_or_else(|| panic!("no rule: {part}"));
            let value = value.trim_start_matches('=');
            assert!(value.len() > 2 && value.starts_with('"') && value.ends_with('"'), "{line}");
            assert!(["SUBSYSTEM", "KERNEL", "GROUP", "MODE"].contains(&key), "{line}");
            if key == "GROUP" {
                assert!(groups.contains(value.trim_matches('"')), "{line}");
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 3);
}

#[test]
fn every_command_has_a_manual_page_that_man_reads_without_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man");
    let ended = Edgewarden::run(["man", pages.to_str().unwrap()]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let mut names: Vec<String> =
        fs::read_dir(&pages).unwrap().map(|page| page.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    for wanted in ["edgewarden.1", "edgewarden-run.1", "edgewarden-bundle.1", "edgewarden-bundle-init.1"] {
        assert!(names.iter().any(|name| name == wanted), "{wanted}: {names:?}");
    }
    for hidden in ["edgewarden-child.1", "edgewarden-man.1", "edgewarden-help.1", "edgewarden-bundle-help.1"]
    {
        assert!(!names.iter().any(|name| name == hidden), "{hidden}");
    }
    let help = Edgewarden::run(["--help"]).stdout;
    for line in
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty())
    {
        let Some(command) = line.strip_prefix("  ").and_then(|line| line.split(' ').next()) else { continue };
        let page = format!("edgewarden-{command}.1");
        assert!(command.is_empty() || command == "help" || names.contains(&page), "{page}");
    }
    let publish = fs::read_to_string(pages.join("edgewarden-repo-publish.1")).unwrap();
    assert!(publish.contains(".TH edgewarden-repo-publish 1"), "{publish}");
    assert!(publish.contains("edgewarden repo publish"), "its synopsis is the whole command: {publish}");
    for name in &names {
        let page = pages.join(name);
        let Some(output) = tool("man", &["--warnings", "-l", page.to_str().unwrap()]) else { return };
        assert!(output.status.success(), "{name}: {}", said(&output));
        assert!(output.stderr.is_empty(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_folder_for_pages_that_cannot_be_made_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let folder = file.path().join("man");
    let ended = Edgewarden::run(["man", folder.to_str().unwrap()]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains(folder.to_str().unwrap()), "{}", ended.stderr);
}

/// A wheel with a library of a few bytes, which names the symbol versions that a real one would.
fn wheel(folder: &Path, name: &str, files: &[&str]) -> PathBuf {
    let path = folder.join(name);
    let script = r#"
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w") as wheel:
    for name in sys.argv[2:]:
        content = b"\0".join([b"\x7fELF", b"GLIBC_2.17", b"GLIBC_2.31", b"GLIBC_2.9", b"GLIBCXX_3.4.26", b"libgcc_s.so.1", b""])
        if name.endswith("LICENSE"): content = b"MIT License\n\nCopyright (c) Somebody\n"
        wheel.writestr(zipfile.ZipInfo(name, (2026, 2, 3, 4, 5, 6)), content)
"#;
    let made = Command::new("python3").args(["-c", script]).arg(&path).args(files).output().unwrap();
    assert!(made.status.success(), "{}", said(&made));
    path
}

const NOTICES: [&str; 2] = ["onnxruntime/LICENSE", "onnxruntime/ThirdPartyNotices.txt"];

fn package(wheel: &Path, out: &Path) -> Output {
    Command::new(packaging("onnxruntime-deb.sh")).arg("--out").arg(out).arg(wheel).output().unwrap()
}

#[test]
fn a_wheel_of_another_machine_becomes_a_package_that_is_the_same_each_time() {
    let Some(_) = tool("dpkg-deb", &["--version"]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let core = "onnxruntime/capi/libonnxruntime.so.9.8.7";
    let cuda = "onnxruntime/capi/libonnxruntime_providers_cuda.so";
    let bridge = "onnxruntime/capi/libonnxruntime_providers_shared.so";
    let files: Vec<&str> = [core, cuda, bridge, "onnxruntime/capi/x.py"].into_iter().chain(NOTICES).collect();
    let wheel = wheel(folder.path(), "onnxruntime_gpu-9.8.7-cp310-cp310-linux_aarch64.whl", &files);
    let name = "edgewarden-onnxruntime-gpu_9.8.7_arm64.deb";
    let [first, second] = ["first", "second"].map(|out| {
        let out = folder.path().join(out);
        let made = package(&wheel, &out);
        assert!(made.status.success(), "{}", said(&made));
        out.join(name)
    });
    assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap(), "two runs differ");

    let field = |field| said(&tool("dpkg-deb", &["-f", first.to_str().unwrap(), field]).unwrap());
    assert_eq!(field("Depends").trim(), "libc6 (>= 2.31), libgcc-s1 (>= 4.2), libstdc++6 (>= 9)");
    assert_eq!(field("Architecture").trim(), "arm64");
    assert_eq!(field("Provides").trim(), "edgewarden-onnxruntime-provider (= 9.8.7)");
    assert_eq!(field("Conflicts").trim(), "edgewarden-onnxruntime-provider", "only one at a time");
    let contents = said(&tool("dpkg-deb", &["-c", first.to_str().unwrap()]).unwrap());
    for wanted in [
        "./usr/lib/edgewarden/onnxruntime/libonnxruntime.so -> libonnxruntime.so.9.8.7",
        "./usr/lib/edgewarden/onnxruntime/libonnxruntime_providers_cuda.so\n",
        "./usr/lib/edgewarden/onnxruntime/libonnxruntime_providers_shared.so\n",
        "./usr/share/doc/edgewarden-onnxruntime-gpu/copyright\n",
        "./usr/share/doc/edgewarden-onnxruntime-gpu/ThirdPartyNotices.txt.gz\n",
    ] {
        assert!(contents.contains(wanted), "{wanted}: {contents}");
    }
    assert!(!contents.contains("x.py"), "{contents}");
    for line in contents.lines() {
        assert!(line.contains(" root/root ") && line.contains(" 2026-02-03 "), "{line}");
    }
}

#[test]
fn a_wheel_that_cannot_be_taken_is_refused_with_the_reason() {
    let Some(_) = tool("dpkg-deb", &["--version"]) else { return };
    let pins = read("onnxruntime.sha256");
    let pinned = pins.lines().find_map(|line| line.split_once(" x86_64")).unwrap().0;
    let core = format!("onnxruntime/capi/libonnxruntime.so.{pinned}");
    let usual = format!("onnxruntime-{pinned}-cp312-cp312-manylinux_2_28_x86_64.whl");
    let with_notices =
        |library: &str| [library].into_iter().chain(NOTICES).map(str::to_owned).collect::<Vec<_>>();
    for (name, files, reason) in [
        (usual.as_str(), with_notices(&core), "not the pinned"),
        ("onnxruntime-1.2.3-cp312-cp312-win_amd64.whl", with_notices(&core), "not the name of a Linux wheel"),
        (
            "onnxruntime-1.2.3-cp312-cp312-linux_aarch64.whl",
            with_notices("onnxruntime/x.so"),
            "no libonnxruntime.so",
        ),
        ("onnxruntime-1.2.3-cp312-cp312-linux_aarch64.whl", vec![core.clone()], "no licence"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let made = package(&wheel(folder.path(), name, &files), &folder.path().join("out"));
        assert_eq!(made.status.code(), Some(1), "{}", said(&made));
        assert!(said(&made).contains(reason), "{reason}: {}", said(&made));
        assert!(!folder.path().join("out").exists(), "nothing is left");
    }
}
