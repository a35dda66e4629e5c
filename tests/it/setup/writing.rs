//! Setup by flags alone, as a script or an image does it.

use super::{Machine, contents, has_cameras};
use crate::support::device::{Device, Options, PATIENCE, Repository, release};
use crate::support::mosquitto::{Mosquitto, Setup};
use crate::support::{Ended, wait_until};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).mode() & 0o777
}

fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().to_str().unwrap().to_owned()
}

/// What the command says of its failure, for machines as it was asked.
fn message(ended: &Ended) -> String {
    let said: serde_json::Value = serde_json::from_str(&ended.stderr).expect("one JSON object");
    said["message"].as_str().expect("a message").to_owned()
}

#[test]
fn a_machine_becomes_a_device_that_reports_and_takes_models() {
    let repository = Repository::with(&["v1"]);
    let root = text(repository.publisher.pinned_root());
    let machine = Machine::new();
    let flags = |broker: &str| -> Vec<String> {
        let flags = [
            "--device-id",
            "press-7",
            "--group",
            "line-3",
            "--camera",
            "synthetic",
            "--broker",
            broker,
            "--username",
            "press",
            "--repository",
            repository.web.url().leak(),
            "--root",
            &root,
        ];
        flags.map(str::to_owned).to_vec()
    };
    // The broker is to be told of the device first: an image is prepared at a desk.
    let first = flags("mqtt://broker.example.com");
    let first: Vec<&str> = first.iter().map(String::as_str).chain(["--no-check"]).collect();
    let (ended, said) = machine.setup(&first);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!((&said["device"], &said["findings"]), (&"press-7".into(), &serde_json::json!([])));

    // What was written, for whom.
    assert_eq!(std::fs::read(machine.path("root.json")).unwrap(), std::fs::read(&root).unwrap());
    assert_eq!((mode(&machine.path("root.json")), mode(&machine.drop_in())), (0o644, 0o644));
    let password = machine.path("mqtt-password");
    let key = machine.path("state/device-key.pem");
    assert_eq!((mode(&password), mode(&key), mode(&machine.path("state"))), (0o600, 0o600, 0o750));
    let secret = std::fs::read_to_string(&password).unwrap().trim().to_owned();
    assert_eq!(secret.len(), 48);
    assert!(!ended.stdout.contains(&secret), "a secret is not printed");
    let pem = std::fs::read_to_string(&key).unwrap();
    assert!(!ended.stdout.contains(pem.lines().nth(1).unwrap()));
    // By another program's reading of the key.
    let openssl = std::process::Command::new("openssl")
        .args(["pkey", "-pubout", "-outform", "DER", "-in"])
        .arg(&key)
        .output()
        .unwrap();
    let public: String = openssl.stdout[12..].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(said["key"]["public"], public.as_str());
    // The owner of the repository can compare these.
    let sum = std::process::Command::new("sha256sum").arg(&root).output().unwrap();
    assert!(String::from_utf8_lossy(&sum.stdout).starts_with(said["root"]["sha256"].as_str().unwrap()));
    let ids = serde_json::from_slice::<serde_json::Value>(&std::fs::read(&root).unwrap()).unwrap();
    let id = ids["signed"]["keys"].as_object().unwrap().keys().next().unwrap().clone();
    assert_eq!(said["root"]["keys"][0]["id"], id.as_str());

    // The broker is given exactly the lines that setup prints, and the password from its file.
    let acl: Vec<&str> =
        said["broker"]["acl"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    let broker = Mosquitto::with(&Setup {
        login: Some(("press", secret.clone().leak())),
        lines: vec!["acl_file {dir}/acl"],
        files: vec![("acl", (acl.join("\n") + "\n").leak())],
    });
    // The second time only what has changed is said, and there is something to be replaced.
    let url = broker.url();
    let (ended, _) = machine.setup(&["--broker", &url]);
    assert_eq!(ended.code, Some(64), "{ended:?}");
    assert!(ended.stderr.contains("would be replaced") && ended.stderr.contains("--yes"), "{ended:?}");
    assert_eq!(machine.written()["mqtt"]["url"].as_str(), Some("mqtt://broker.example.com"));
    let (ended, again) = machine.setup(&["--broker", &url, "--yes"]);
    assert_eq!(ended.code, Some(0), "{again:#}");
    assert_eq!((&again["ok"], &again["key"]), (&true.into(), &said["key"]), "the key stays");
    assert_eq!(again["written"], serde_json::json!([machine.drop_in()]), "the rest stays");
    let finding = |subject: &str| {
        let all = again["findings"].as_array().unwrap();
        all.iter().find(|one| one["subject"] == subject).unwrap()["detail"].as_str().unwrap().to_owned()
    };
    assert!(finding("broker").contains("takes the connection"));
    assert!(finding("repository").contains("signed, 1 releases"));
    assert_eq!(std::fs::read_to_string(&password).unwrap().trim(), secret, "the password stays");
    assert!(!machine.config().exists(), "the main file is the user's");

    // The agent with what setup wrote, and nothing else.
    let mut device = Device::new(Options::default());
    std::fs::remove_file(device.path("agent.toml")).unwrap();
    std::fs::create_dir(device.path("config.d")).unwrap();
    std::fs::copy(machine.drop_in(), device.path("config.d/50-setup.toml")).unwrap();
    let paths = std::fs::read_to_string(machine.path("config.d/00-paths.toml")).unwrap();
    std::fs::write(device.path("config.d/00-paths.toml"), paths).unwrap();
    device.start();
    let up = wait_until("the broker lets it in", PATIENCE, || {
        let status = device.status();
        status.health.mqtt.reached.then_some(status)
    });
    assert_eq!(up.health.device.as_str(), "press-7");
    let done = device.cli(["update", "detector", &release(1)]);
    assert_eq!(done.code, Some(0), "{done:?}");
    wait_until("what must arrive has arrived", PATIENCE, || {
        let mqtt = device.status().metrics.mqtt;
        // What the access list forbids would be dropped and counted.
        assert_eq!(mqtt.spool_dropped, 0, "{mqtt:?}");
        (mqtt.published > 0 && mqtt.spool_len == 0).then_some(())
    });
    assert_eq!(mode(&key), 0o600);
    assert!(device.stop().success());
}

#[test]
fn root_gives_the_agents_files_to_the_agent() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can give files away");
        return;
    }
    let machine = Machine::new();
    std::fs::create_dir(machine.path("state")).unwrap();
    chown(machine.path("state"), Some(4242), Some(4343)).unwrap();
    let (ended, _) = machine.setup(&[
        "--camera",
        "none",
        "--broker",
        "mqtt://b",
        "--username",
        "u",
        "--device-id",
        "a",
        "--no-check",
    ]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for secret in ["mqtt-password", "state/device-key.pem", "state/model-key.txt"] {
        let metadata = std::fs::metadata(machine.path(secret)).unwrap();
        assert_eq!(
            (metadata.uid(), metadata.gid(), metadata.mode() & 0o777),
            (4242, 4343, 0o600),
            "{secret}"
        );
    }
    assert_eq!(std::fs::metadata(machine.drop_in()).unwrap().uid(), 0);
}

#[test]
fn no_model_key_is_made_where_the_configuration_names_others() {
    let machine = Machine::new();
    std::fs::write(
        machine.path("config.d/10-key.toml"),
        "[runtime]\nmodel_keys = [\"credential:model-key\"]\n",
    )
    .unwrap();
    let flags = ["setup", "--yes", "--camera", "none", "--broker", "none", "--device-id", "a", "--no-check"];
    let ended = machine.run(&flags);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("recipient   that of runtime.model_keys"), "{ended:?}");
    assert!(machine.path("state/device-key.pem").exists() && !machine.path("state/model-key.txt").exists());
    // Without, it is made.
    std::fs::remove_file(machine.path("config.d/10-key.toml")).unwrap();
    let ended = machine.run(&flags);
    assert!(ended.stdout.contains("recipient   age1"), "{ended:?}");
    assert!(machine.path("state/model-key.txt").exists());
}

#[test]
fn others_are_sent_to_root_before_anything_is_written() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can become somebody else");
        return;
    }
    use std::os::unix::process::CommandExt;
    let machine = Machine::new();
    std::fs::set_permissions(machine.path(""), std::fs::Permissions::from_mode(0o755)).unwrap();
    let before = contents(&machine.path(""));
    let program = machine.path("edgewarden");
    // The build's folder may be closed to others.
    std::fs::copy(crate::support::Edgewarden::path(), &program).unwrap();
    let output = std::process::Command::new(&program)
        .args(["setup", "--camera", "synthetic", "--broker", "none", "--device-id", "a", "--config"])
        .arg(machine.config())
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("run it with sudo"), "{said}");
    std::fs::remove_file(&program).unwrap();
    assert_eq!(contents(&machine.path("")), before);
}

#[test]
fn what_makes_no_sense_is_refused_and_nothing_is_written() {
    let repository = Repository::with(&["v1"]);
    let good = text(repository.publisher.pinned_root());
    let machine = Machine::new();
    let no_root = text(machine.path("no-root.json"));
    std::fs::write(&no_root, "{\"signed\": {}}").unwrap();
    let tampered = text(machine.path("tampered.json"));
    let changed = std::fs::read_to_string(&good).unwrap().replace("\"version\": 1", "\"version\": 3");
    std::fs::write(&tampered, changed).unwrap();
    let folder = machine.path("");
    let before = contents(&folder);
    let quiet = ["--camera", "synthetic", "--broker", "none", "--device-id", "a"];
    for (flags, code, words) in [
        (&["--broker", "http://b"][..], 64, "mqtt.url: \"http://\" is no way to a broker"),
        (&["--broker", "mqtt://u:hunter2@b"], 64, "mqtt.url: names a user or a password"),
        (&["--camera", "rtsp://u:hunter2@cam/"], 64, "do not belong in a URL"),
        (&["--camera", "/nowhere"], 64, "is not there, or no camera"),
        (&["--device-id", "a/b"], 64, "device id"),
        (&["--repository", "ftp://r/"], 64, "no way to a repository"),
        (&["--repository", "http://r/"], 64, "name its root.json with --root"),
        (&["--root", "/nowhere.json"], 1, "is not there"),
        (&["--root", &no_root], 2, "no-root.json"),
        (&["--root", &tampered], 2, "signature"),
    ] {
        // Later flags of one name would be refused as doubles.
        let rest = quiet.chunks(2).filter(|pair| !flags.contains(&pair[0])).flatten().copied();
        let all: Vec<&str> = flags.iter().copied().chain(rest).collect();
        let (ended, _) = machine.setup(&all);
        assert_eq!(ended.code, Some(code), "{flags:?}: {ended:?}");
        assert!(message(&ended).contains(words), "{flags:?}: {ended:?}");
        assert!(!ended.stderr.contains("hunter2") && ended.stdout.is_empty(), "{ended:?}");
        assert_eq!(contents(&folder), before, "{flags:?} wrote something");
    }
    // A fault in the user's own file is told with its place.
    std::fs::write(machine.config(), "[device]\nidd = 1\n").unwrap();
    let (ended, _) = machine.setup(&quiet);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(message(&ended).contains("agent.toml:2: device.idd: unknown key"), "{ended:?}");
}

#[test]
fn a_dry_run_shows_all_and_writes_nothing() {
    let repository = Repository::with(&["v1"]);
    let machine = Machine::new();
    let before = contents(&machine.path(""));
    let root = text(repository.publisher.pinned_root());
    let url = repository.web.url();
    let flags =
        ["--dry-run", "--device-id", "a", "--camera", "synthetic", "--broker", "none", "--repository"];
    let flags: Vec<&str> = flags.into_iter().chain([url.as_str(), "--root", &root]).collect();
    let (ended, said) = machine.setup(&flags);
    assert_eq!(ended.code, Some(0), "{said:#}");
    assert_eq!((&said["written"], &said["key"]), (&serde_json::json!([]), &serde_json::Value::Null));
    assert!(said["drop_in"]["text"].as_str().unwrap().contains("[[pipeline]]"));
    // The repository is asked with the root that would be pinned.
    let findings = said["findings"].as_array().unwrap();
    let found = findings.iter().find(|one| one["subject"] == "repository").unwrap();
    assert!(found["level"] == "ok" && found["detail"].as_str().unwrap().contains("signed"), "{found}");
    assert_eq!(contents(&machine.path("")), before);

    let shown = machine.run(&[&["setup"][..], &flags].concat());
    for words in ["  + [[pipeline]]", "  + id = \"a\"", "SHA-256 ", "signs root", "device id   a", "--config"]
    {
        assert!(shown.stdout.contains(words), "{words}: {}", shown.stdout);
    }
    assert_eq!(contents(&machine.path("")), before);
}

#[test]
fn the_users_own_file_keeps_its_say() {
    let machine = Machine::new();
    let own = "[device]\nid = \"mine\"\n[mqtt]\nurl = \"mqtt://own\"\n\
               [[pipeline]]\nname = \"belt\"\nslot = \"nuts\"\nsource = { kind = \"synthetic\", seed = 7 }\n";
    std::fs::write(machine.config(), own).unwrap();
    let (ended, said) = machine.setup(&["--no-check"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(machine.written(), toml::Table::new(), "all of it is said already");
    assert_eq!(
        (&said["device"], &said["next"][1]),
        (&"mine".into(), &format!("edgewarden status --config {}", text(machine.config())).into())
    );
    // Asked for, the pipeline of that file gets another source.
    let folder = text(machine.path("pictures"));
    std::fs::create_dir(&folder).unwrap();
    let (ended, _) = machine.setup(&["--no-check", "--yes", "--camera", &folder]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let expected: toml::Table =
        format!("[[pipeline]]\nname = \"belt\"\nsource = {{ kind = \"folder\", path = \"{folder}\" }}\n")
            .parse()
            .unwrap();
    assert_eq!(machine.written(), expected);
    assert_eq!(std::fs::read_to_string(machine.config()).unwrap(), own);
    let checked = machine.run(&["check", "--json"]);
    assert!(checked.stdout.contains("1 pipeline"), "still one: {}", checked.stdout);
}

#[test]
fn later_drop_ins_may_build_on_what_setup_wrote() {
    let machine = Machine::new();
    let flags = ["--device-id", "a", "--camera", "synthetic", "--broker", "mqtt://b", "--no-check"];
    assert_eq!(machine.setup(&flags).0.code, Some(0));
    // Alone it would be faulty: a broker without a URL.
    std::fs::write(machine.path("config.d/60-mine.toml"), "[mqtt]\nkeep_alive = \"60s\"\n").unwrap();
    let (ended, said) = machine.setup(&["--group", "g", "--no-check", "--yes"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!((&said["groups"][0], &said["device"]), (&"g".into(), &"a".into()));
    assert_eq!(machine.written()["mqtt"]["url"].as_str(), Some("mqtt://b"));
    // Faults of other files are told with their place, and those of a torn drop-in of ours are mended.
    std::fs::write(machine.drop_in(), "[mqtt\n").unwrap();
    assert_eq!(machine.setup(&["--group", "g", "--no-check", "--yes"]).0.code, Some(1));
    std::fs::remove_file(machine.path("config.d/60-mine.toml")).unwrap();
    let (ended, said) = machine.setup(&flags.iter().copied().chain(["--yes"]).collect::<Vec<_>>());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(said["notes"].to_string().contains("nothing of it is kept"), "{said:#}");
    assert_eq!(machine.written()["mqtt"]["url"].as_str(), Some("mqtt://b"));
}

#[test]
fn the_ribbon_cable_cameras_that_the_boards_program_lists_are_found() {
    if has_cameras() {
        return;
    }
    let machine = Machine::new();
    let list = |lines: &str| {
        let program = machine.path("rpicam-hello");
        let script = format!("#!/bin/sh\n[ \"$1\" = --list-cameras ] || exit 9\ncat <<'END'\n{lines}\nEND\n");
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    let setup = |more: &[&str]| {
        let path = format!("{}:{}", text(machine.path("")), std::env::var("PATH").unwrap());
        let output = machine
            .command(&["setup", "--json", "--dry-run", "--no-check", "--broker", "none", "--device-id", "a"])
            .args(more)
            .env("PATH", path)
            .output()
            .unwrap();
        (
            output.status.code(),
            serde_json::from_slice(&output.stdout).unwrap_or(serde_json::Value::Null),
            output.stderr,
        )
    };
    let one = "Available cameras\n-----------------\n\
               0 : imx219 [3280x2464 10-bit RGGB] (/base/soc/i2c0mux/i2c@1/imx219@10)\n    \
               Modes: 'SRGGB10_CSI2P' : 640x480 [206.65 fps - (1000, 752)/1280x960 crop]";
    list(one);
    let (code, said, _) = setup(&[]);
    assert_eq!(code, Some(0), "{said:#}");
    assert_eq!(said["cameras"][0]["camera"], "csi:0");
    assert_eq!(said["cameras"][0]["name"], "imx219 [3280x2464 10-bit RGGB]");
    let text = said["drop_in"]["text"].as_str().unwrap();
    assert!(text.contains("kind = \"csi_pi\""), "{text}");

    list(&format!("{one}\n1 : imx477 [4056x3040] (/base/soc/i2c0mux/i2c@0/imx477@1a)"));
    let (code, _, why) = setup(&[]);
    let why = String::from_utf8_lossy(&why).into_owned();
    assert_eq!(code, Some(64), "{why}");
    assert!(why.contains("2 cameras were found") && why.contains("csi:0, csi:1"), "{why}");
    let (code, said, _) = setup(&["--camera", "csi:1"]);
    assert_eq!(code, Some(0));
    assert!(said["drop_in"]["text"].as_str().unwrap().contains("camera = 1"), "{said:#}");

    list("No cameras available!");
    let (code, said, _) = setup(&[]);
    assert_eq!(code, Some(0), "a device may do without: {said:#}");
    assert!(said["notes"].to_string().contains("camera: none"), "{said:#}");
}
