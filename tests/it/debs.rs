//! The agent's Debian package without a build of it: what it names is there, what is made of the sources is right,
//! and its scripts do under the real dpkg what a user counts on, in a throw-away root. The built packages are tried by
//! `packaging/build-debs.sh` and `packaging/device-test.sh`. A tool that this machine lacks is named, and its test skipped.

use crate::support::root;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What [`Command`] gave, or `None`, said aloud, where the program is not installed.
fn run(command: &mut Command) -> Option<Output> {
    // dpkg wants to see root's folders.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    match command.env("PATH", path).env("LC_ALL", "C.UTF-8").output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: {} is not installed", command.get_program().display());
            None
        }
        Err(error) => panic!("{command:?}: {error}"),
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// Its standard output, where it ended well.
fn answer(output: &Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn toml_of(file: &str) -> toml::Table {
    fs::read_to_string(root().join(file)).unwrap().parse().unwrap()
}

fn strings(value: &toml::Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
}

/// `[package.metadata.deb]`.
fn deb() -> toml::Table {
    toml_of("Cargo.toml")["package"]["metadata"]["deb"].as_table().unwrap().clone()
}

/// Source, destination and rights of each file of the package.
fn assets() -> Vec<[String; 3]> {
    deb()["assets"].as_array().unwrap().iter().map(|one| strings(one).try_into().unwrap()).collect()
}

/// The file's path in the package.
fn installed(source: &str, destination: &str) -> String {
    let name = source.rsplit('/').next().unwrap();
    if destination.ends_with('/') { format!("{destination}{name}") } else { destination.to_owned() }
}

#[test]
fn ring_is_the_only_crypto_library_that_speaks_tls() {
    let lock = toml_of("Cargo.lock");
    let names: Vec<&str> =
        lock["package"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names.iter().filter(|name| **name == "ring").count(), 1, "one version of it");
    let others = ["aws-lc", "boring", "graviola", "mbedtls", "native-tls", "openssl", "s2n-tls", "wolfssl"];
    // Finds certificates in the folders that OpenSSL uses, and is no part of it.
    let found: Vec<_> = names
        .into_iter()
        .filter(|name| *name != "openssl-probe" && others.iter().any(|other| name.starts_with(other)))
        .collect();
    assert!(found.is_empty(), "{found:?}: set the features of whoever asks for it, see `cargo tree -i`");
}

#[test]
fn the_package_names_files_that_are_there_and_forgets_none() {
    let assets = assets();
    for [source, destination, mode] in &assets {
        let made = source.starts_with("target/release/");
        let pattern = root().join(source);
        let found = || glob::glob(pattern.to_str().unwrap()).unwrap().any(|file| file.unwrap().is_file());
        assert!(made || found(), "{source} is missing");
        assert!(destination.starts_with("usr/"), "{destination}: nothing else is the package's");
        assert_eq!(mode, if destination == "usr/bin/" { "755" } else { "644" }, "{source}");
    }
    let packed: BTreeSet<&str> = assets
        .iter()
        .map(|[source, ..]| source.as_str())
        .filter_map(|source| source.strip_prefix("packaging/"))
        .collect();
    for entry in fs::read_dir(root().join("packaging")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.starts_with("edgewarden.") && !name.ends_with(".d") {
            assert!(packed.contains(name.as_str()), "{name} is in no package");
        }
    }
    // What the unit, the scripts and the texts in the package name.
    let paths: BTreeSet<String> =
        assets.iter().map(|[source, destination, _]| installed(source, destination)).collect();
    for named in [
        "bin/edgewarden",
        "share/edgewarden/minimal.toml",
        "share/edgewarden/agent.toml",
        "share/edgewarden/jetson.conf",
    ] {
        assert!(paths.contains(&format!("usr/{named}")), "{named}: {paths:#?}");
    }
}

/// `Depends` is written by hand, and build-debs.sh holds each program against the number in it.
#[test]
fn the_oldest_glibc_of_depends_is_the_one_that_programs_are_held_against() {
    let depends = strings(&deb()["depends"]);
    let script = fs::read_to_string(root().join("packaging/build-debs.sh")).unwrap();
    let held = script.lines().find_map(|line| line.strip_prefix("oldest_glibc=")).unwrap();
    assert!(depends.contains(&format!("libc6 (>= {held})")), "{held}: {depends:?}");
    let recommends = strings(&deb()["recommends"]);
    let runtime = fs::read_to_string(root().join("packaging/onnxruntime_deb.py")).unwrap();
    let provider =
        runtime.lines().find_map(|line| line.strip_prefix("PROVIDER = ")).unwrap().trim_matches('"');
    assert!(recommends.iter().any(|one| one.split(" | ").any(|name| name == provider)), "{recommends:?}");
}

fn changelog(text: &str, version: &str) -> Output {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    Command::new("python3")
        .arg(root().join("packaging/deb_changelog.py"))
        .arg(file.path())
        .args([version, "1800000000"])
        .output()
        .unwrap()
}

#[test]
fn the_changelog_becomes_debians_with_every_line() {
    let ours = fs::read_to_string(root().join("packaging/CHANGELOG.md")).unwrap();
    let text = answer(&changelog(&ours, env!("CARGO_PKG_VERSION")));
    let bullets = |text: &str, start: &str| text.lines().filter(|line| line.starts_with(start)).count();
    assert!(bullets(&text, "  * ") >= bullets(&ours, "- "), "{text}");
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &text).unwrap();
    let Some(parsed) =
        run(Command::new("dpkg-parsechangelog").arg("-l").arg(file.path()).args(["--show-field", "Version"]))
    else {
        return;
    };
    assert!(parsed.stderr.is_empty(), "{}", said(&parsed));
    assert_eq!(answer(&parsed).trim(), env!("CARGO_PKG_VERSION"));
}

#[test]
fn what_is_unreleased_belongs_to_the_version_that_is_built() {
    let text =
        "# Changes\n\n## Unreleased\n\nGroup:\n\n- New\n  and longer.\n\n## 0.3.0 (2027-01-31)\n\n- Old.\n";
    let made = answer(&changelog(text, "0.4.0-rc.1"));
    let wanted = "edgewarden (0.4.0~rc.1) unstable; urgency=medium\n\n  [ Group ]\n  * New and longer.\n\n \
                  -- Edgewarden <packages@edgewarden.invalid>  Fri, 15 Jan 2027 08:00:00 +0000\n\nedgewarden (0.3.0) unstable; \
                  urgency=medium\n\n  * Old.\n\n -- Edgewarden <packages@edgewarden.invalid>  Sun, 31 Jan 2027 00:00:00 +0000\n\n";
    assert_eq!(made, wanted);
    let same = answer(&changelog(text, "0.3.0"));
    assert_eq!(same.matches("edgewarden (").count(), 1, "{same}");
    assert!(same.contains("New and longer.") && same.contains("Old."), "{same}");
    let undated = answer(&changelog("## Unreleased\n\n- New\n\n## 0.3.0\n\n- Old.\n", "0.4.0"));
    assert!(undated.contains("08:00:00 +0000") && undated.contains("07:59:59 +0000"), "in order: {undated}");
    let refused = changelog("## Soon\n\n- New\n", "0.4.0");
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("line 1"), "{}", said(&refused));
}

#[test]
fn the_notices_name_what_is_linked_and_nothing_else() {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let tree = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--format-version", "1", "--filter-platform", &triple])
        .current_dir(root())
        .output()
        .unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), answer(&tree)).unwrap();
    let text = answer(
        &Command::new("python3")
            .arg(root().join("packaging/notices.py"))
            .stdin(fs::File::open(file.path()).unwrap())
            .output()
            .unwrap(),
    );
    let listed: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    for linked in ["ring", "tokio", "turbojpeg-sys", "rustls-webpki"] {
        assert!(listed.contains(&linked), "{linked}");
    }
    for absent in ["proptest", "serde_derive", "cmake", "edgewarden", "windows-sys"] {
        assert!(!listed.contains(&absent), "{absent}");
    }
    // C sources inside a crate have terms of their own.
    assert!(text.contains("libjpeg-turbo/LICENSE.md"), "those of libjpeg-turbo");
    assert!(text.contains("LICENSE-BoringSSL"), "those of ring");
}

/// A package with the scripts and the files of ours that need no build.
fn package(folder: &Path, version: &str) -> Option<PathBuf> {
    let tree = folder.join(format!("tree-{version}"));
    for [source, destination, _] in assets() {
        if source.starts_with("target/") || source.contains('*') {
            continue;
        }
        let target = tree.join(installed(&source, &destination));
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(root().join(source), target).unwrap();
    }
    // A later version brings another default, so that it would show where a user's file was overwritten.
    let minimal = tree.join("usr/share/edgewarden/minimal.toml");
    fs::write(&minimal, format!("# {version}\n{}", fs::read_to_string(&minimal).unwrap())).unwrap();
    let control = tree.join("DEBIAN");
    fs::create_dir(&control).unwrap();
    fs::write(
        control.join("control"),
        format!("Package: edgewarden\nVersion: {version}\nArchitecture: all\nMaintainer: T <t@example.com>\nDescription: test\n"),
    )
    .unwrap();
    for name in ["postinst", "prerm", "postrm", "triggers"] {
        let to = control.join(name);
        fs::copy(root().join("packaging/debian").join(name), &to).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(if name == "triggers" { 0o644 } else { 0o755 }))
            .unwrap();
    }
    fs::set_permissions(&control, fs::Permissions::from_mode(0o755)).unwrap();
    let deb = folder.join(format!("edgewarden_{version}_all.deb"));
    let made = run(Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(&tree).arg(&deb))?;
    assert!(made.status.success(), "{}", said(&made));
    Some(deb)
}

/// dpkg on a root of its own; scripts run outside of it, with its path in `DPKG_ROOT`.
fn dpkg(root: &Path, arguments: &[&str]) -> Option<String> {
    let output = run(Command::new("dpkg")
        .arg(format!("--root={}", root.display()))
        .args(["--force-script-chrootless", "--force-not-root", "--force-bad-path", "--force-unsafe-io"])
        .args(arguments))?;
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    Some(said(&output))
}

#[test]
fn upgrades_keep_what_is_the_users_and_only_a_purge_takes_it() {
    for needed in ["systemd-sysusers", "systemd-tmpfiles"] {
        if run(Command::new(needed).arg("--version")).is_none() {
            return;
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let device = folder.path().join("device");
    for made in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "etc", "var/log"] {
        fs::create_dir_all(device.join(made)).unwrap();
    }
    fs::write(device.join("var/lib/dpkg/status"), "").unwrap();
    let (Some(first), Some(second)) = (package(folder.path(), "1.0"), package(folder.path(), "2.0")) else {
        return;
    };
    let [first, second] = [&first, &second].map(|deb| deb.to_str().unwrap());
    let [config, state, drop_in] =
        ["etc/edgewarden/agent.toml", "var/lib/edgewarden", "etc/edgewarden/config.d/10-mine.toml"]
            .map(|path| device.join(path));
    if dpkg(&device, &["--install", first]).is_none() {
        return;
    }
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.starts_with("# 1.0\n"), "{text}");
    assert_eq!(config.metadata().unwrap().permissions().mode() & 0o777, 0o644);
    assert!(state.is_dir() && drop_in.parent().unwrap().is_dir());
    let users = fs::read_to_string(device.join("etc/passwd")).unwrap();
    assert!(users.contains("edgewarden:"), "{users}");

    // Untouched, it stays as it is all the same: it is the user's from the first moment.
    dpkg(&device, &["--install", second]).unwrap();
    assert_eq!(fs::read_to_string(&config).unwrap(), text);
    fs::write(&config, "# edited\n").unwrap();
    fs::write(&drop_in, "# mine\n").unwrap();
    fs::write(state.join("journal"), "state").unwrap();
    let kept = || {
        assert_eq!(fs::read_to_string(&config).unwrap(), "# edited\n");
        assert_eq!(fs::read_to_string(&drop_in).unwrap(), "# mine\n");
        assert_eq!(fs::read_to_string(state.join("journal")).unwrap(), "state");
    };
    let said = dpkg(&device, &["--install", first]).unwrap();
    assert!(!said.contains("onfiguration file"), "no question about it: {said}");
    kept();
    dpkg(&device, &["--remove", "edgewarden"]).unwrap();
    assert!(!device.join("usr/lib/systemd/system/edgewarden.service").exists());
    kept();
    dpkg(&device, &["--install", second]).unwrap();
    kept();
    // A file that was deleted means the same as an empty one, and the unit starts with it.
    fs::remove_file(&config).unwrap();
    dpkg(&device, &["--install", second]).unwrap();
    assert!(fs::read_to_string(&config).unwrap().starts_with("# 2.0\n"));

    dpkg(&device, &["--purge", "edgewarden"]).unwrap();
    let left = answer(&Command::new("find").arg(&device).args(["-name", "*edgewarden*"]).output().unwrap());
    assert_eq!(left, "", "a purge leaves nothing");
    assert!(device.join("etc/passwd").exists());
}

#[test]
fn scripts_refuse_what_they_do_not_know_and_are_plain_sh() {
    for name in ["postinst", "prerm", "postrm"] {
        let script = root().join("packaging/debian").join(name);
        assert_eq!(script.metadata().unwrap().permissions().mode() & 0o111, 0o111, "{name}");
        let checked = Command::new("sh").arg("-n").arg(&script).output().unwrap();
        assert!(checked.status.success(), "{name}: {}", said(&checked));
    }
    let refused =
        Command::new("sh").arg(root().join("packaging/debian/postinst")).arg("dance").output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("dance"), "{}", said(&refused));
}

/// Also those that no test runs, such as the power cuts of `packaging/device-test.sh`.
#[test]
fn no_script_has_a_fault_that_its_interpreter_sees() {
    let (mut shells, mut pythons) = (0, 0);
    for folder in [".ci", "cross", "packaging", "packaging/device-test"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if !path.is_file() {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let mut command = if text.starts_with("#!/usr/bin/env bash") {
                shells += 1;
                let mut bash = Command::new("bash");
                bash.arg("-n");
                bash
            } else if path.extension().is_some_and(|extension| extension == "py") {
                pythons += 1;
                let mut python = Command::new("python3");
                python.args(["-c", "import ast, sys; ast.parse(open(sys.argv[1]).read(), sys.argv[1])"]);
                python
            } else {
                continue;
            };
            let checked = command.arg(&path).output().unwrap();
            assert!(checked.status.success(), "{}: {}", path.display(), said(&checked));
        }
    }
    assert!(shells > 10 && pythons > 5, "{shells} {pythons}");
}

/// A key of gpg in a folder of its own, whose agent ends with it.
struct Keys(tempfile::TempDir);

impl Keys {
    /// `None`, said aloud, without gpg.
    fn new() -> Option<Self> {
        let keys = Self(tempfile::tempdir().unwrap());
        let made = run(keys.with(&mut Command::new("gpg")).args([
            "--batch",
            "--quiet",
            "--passphrase",
            "",
            "--quick-generate-key",
            "packages@example.com",
            "ed25519",
            "sign",
            "never",
        ]))?;
        answer(&made);
        Some(keys)
    }

    fn with<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("GNUPGHOME", self.0.path())
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = self.with(&mut Command::new("gpgconf")).args(["--kill", "all"]).output();
    }
}

/// What apt on a device says of the package edgewarden; its state lies in `device`.
fn apt(device: &Path, repository: &Path) -> Output {
    for made in ["lists/partial", "archives/partial"] {
        fs::create_dir_all(device.join(made)).unwrap();
    }
    for made in ["status", "preferences"] {
        fs::write(device.join(made), "").unwrap();
    }
    let sources = device.join("edgewarden.sources");
    let key = repository.join("edgewarden.asc");
    fs::write(
        &sources,
        format!(
            "Types: deb\nURIs: file://{}\nSuites: stable\nComponents: main\nArchitectures: amd64\nSigned-By: {}\n",
            repository.display(),
            key.display()
        ),
    )
    .unwrap();
    let at = device.display();
    let config = device.join("apt.conf");
    fs::write(
        &config,
        format!(
            "APT::Architecture \"amd64\"; APT::Sandbox::User \"\"; Dir::State \"{at}\"; Dir::State::status \"{at}/status\"; \
             Dir::Cache \"{at}\"; Dir::Etc::SourceList \"{}\"; Dir::Etc::SourceParts \"-\"; Dir::Etc::Preferences \"-\"; \
             Dir::Etc::PreferencesParts \"-\"; Dir::Log \"{at}\";",
            sources.display()
        ),
    )
    .unwrap();
    let update = Command::new("apt-get")
        .args(["update", "--error-on=any"])
        .env("APT_CONFIG", &config)
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap();
    if !update.status.success() {
        return update;
    }
    Command::new("apt-cache")
        .args(["madison", "edgewarden"])
        .env("APT_CONFIG", &config)
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap()
}

#[test]
fn apt_takes_the_repository_of_the_script_and_nothing_that_was_changed_in_it() {
    for (tool, arguments) in
        [("apt-ftparchive", ["--version"]), ("apt-get", ["--version"]), ("xz", ["--version"])]
    {
        if run(Command::new(tool).args(arguments)).is_none() {
            return;
        }
    }
    let Some(keys) = Keys::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (Some(first), Some(second)) = (package(folder.path(), "1.0"), package(folder.path(), "2.0")) else {
        return;
    };
    let repository = folder.path().join("repository");
    let add = |deb: &Path| {
        let mut command = Command::new(root().join("packaging/apt-repository.sh"));
        command.args(["--key", "packages@example.com"]).arg(&repository).arg(deb);
        keys.with(&mut command).output().unwrap()
    };
    // apt wants packages of its architecture: "all" alone would leave the index empty.
    let of_a_machine = |deb: PathBuf| {
        let tree = deb.with_extension("tree");
        answer(&Command::new("dpkg-deb").arg("--raw-extract").arg(&deb).arg(&tree).output().unwrap());
        let control = tree.join("DEBIAN/control");
        let text = fs::read_to_string(&control).unwrap().replace("Architecture: all", "Architecture: amd64");
        fs::write(&control, text).unwrap();
        answer(
            &Command::new("dpkg-deb")
                .args(["--root-owner-group", "--build"])
                .arg(&tree)
                .arg(&deb)
                .output()
                .unwrap(),
        );
        deb
    };
    let (first, second) = (of_a_machine(first), of_a_machine(second));
    for deb in [&first, &second] {
        answer(&add(deb));
    }
    let found = answer(&apt(&folder.path().join("device"), &repository));
    for version in ["1.0", "2.0"] {
        assert!(
            found.contains(&format!("edgewarden | {version:>10} |"))
                || found.contains(&format!("| {version} |")),
            "{found}"
        );
    }

    fs::write(&second, fs::read(&first).unwrap()).unwrap();
    assert!(add(&second).status.success(), "the same package again");
    answer(
        &Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Zgzip", "--build"])
            .arg(first.with_extension("tree"))
            .arg(&first)
            .output()
            .unwrap(),
    );
    let refused = add(&first);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("another version"), "{}", said(&refused));

    let index = repository.join("dists/stable/main/binary-amd64/Packages.xz");
    fs::write(&index, b"hostile").unwrap();
    fs::write(index.with_extension(""), b"hostile").unwrap();
    let refused = apt(&folder.path().join("other"), &repository);
    assert!(!refused.status.success(), "{}", said(&refused));
}
