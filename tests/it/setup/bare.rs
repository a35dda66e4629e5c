//! The agent before and beside its configuration.

use super::Machine;
use crate::support::device::{Device, Options, PATIENCE, Repository, SLOT, release, run_to_its_end, signal};
use crate::support::mosquitto::{Mosquitto, Setup};
use crate::support::wait_until;
use edgewarden::domain::health::{HealthState, PipelineState, ProblemCode};
use edgewarden::domain::status::DeviceStatus;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Stdio};
use std::time::Duration;

/// An agent that ends with the value.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn status(machine: &Machine) -> DeviceStatus {
    wait_until("an answer of the local socket", PATIENCE, || {
        let ended = machine.run(&["status", "--json"]);
        (ended.code == Some(0)).then(|| serde_json::from_str(&ended.stdout).unwrap())
    })
}

#[test]
fn a_device_that_nobody_has_set_up_runs_and_names_the_next_step() {
    let machine = Machine::new();
    // First no file at all, then one that names nothing.
    for file in [None, Some("# nothing yet\n")] {
        if let Some(text) = file {
            std::fs::write(machine.config(), text).unwrap();
        }
        let path = machine.path("notify.sock");
        let _ = std::fs::remove_file(&path);
        let supervisor = UnixDatagram::bind(&path).unwrap();
        supervisor.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let child = machine
            .command(&["run"])
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "300000")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut agent = Agent(child);
        let until = |words: &str| {
            wait_until(words, PATIENCE, || {
                let mut buffer = [0; 1024];
                let length = supervisor.recv(&mut buffer).ok()?;
                let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
                said.lines().any(|line| line.starts_with(words)).then_some(said)
            })
        };
        until("READY=1");
        let told = until("STATUS=degraded");
        assert!(told.contains("nothing is configured yet") && told.contains("edgewarden setup"), "{told}");
        // No frame will ever feed it, and it is fed again and again.
        for _ in 0..3 {
            until("WATCHDOG=1");
        }
        let health = status(&machine).health;
        assert_eq!(health.state, HealthState::Degraded);
        assert_eq!(health.problems[0].code, ProblemCode::NotConfigured);
        let text = machine.run(&["status"]);
        assert!(text.stdout.contains("sudo edgewarden setup"), "{}", text.stdout);
        assert!(!text.stdout.contains("PIPELINE"), "no table without rows: {}", text.stdout);
        for command in [&["update", "detector", "a@1.0.0"][..], &["rollback", "detector"], &["pause", "main"]]
        {
            let ended = machine.run(command);
            assert_eq!(ended.code, Some(1), "{command:?}: {ended:?}");
        }
        let ended = machine.run(&["install", machine.path("config.d/00-paths.toml").to_str().unwrap()]);
        assert!(ended.stderr.contains("edgewarden setup"), "{ended:?}");
        signal(agent.0.id(), rustix::process::Signal::TERM);
        assert!(wait_until("the agent's end", PATIENCE, || agent.0.try_wait().unwrap()).success());
    }
}

#[test]
fn a_configuration_that_is_there_but_wrong_is_refused() {
    let machine = Machine::new();
    std::fs::write(machine.config(), "[mqt]\nurl = \"mqtt://a\"\n").unwrap();
    let ended = run_to_its_end(&machine.config());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("agent.toml:1: mqt: unknown key; did you mean mqtt?"), "{ended:?}");
    std::fs::write(machine.config(), "").unwrap();
    std::fs::write(machine.drop_in(), "\n[update]\nmax_boots = 0\n").unwrap();
    let ended = run_to_its_end(&machine.config());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("50-setup.toml:3: update.max_boots"), "{ended:?}");
    // A name that somebody gave is not taken for a fresh machine.
    let ended = run_to_its_end(&machine.path("agnt.toml"));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("cannot read this file"), "{ended:?}");
}

#[test]
fn check_names_the_files_and_the_missing_pipeline() {
    let machine = Machine::new();
    let first = machine.run(&["check"]);
    assert!(first.stdout.contains("agent.toml, but config.d/00-paths.toml"), "{}", first.stdout);
    assert!(first.stdout.contains("pipelines: there is none"), "{}", first.stdout);
    assert!(first.stdout.contains("edgewarden setup"), "{}", first.stdout);
    std::fs::write(machine.config(), "[[pipeline]]\nsource = { kind = \"synthetic\" }\n").unwrap();
    std::fs::write(machine.drop_in(), "[device]\nid = \"press-7\"\n").unwrap();
    let second = machine.run(&["check"]);
    let files = "agent.toml + config.d/00-paths.toml + config.d/50-setup.toml: device press-7, 1 pipeline";
    assert!(second.stdout.contains(files), "{}", second.stdout);
}

#[test]
fn a_password_comes_from_a_systemd_credential() {
    let broker = Mosquitto::with(&Setup { login: Some(("pi", "right")), ..Setup::default() });
    let credentials = tempfile::tempdir().unwrap();
    let options = Options::default()
        .set("mqtt.url", broker.url())
        .set("mqtt.username", "pi")
        .set("mqtt.password_file", "credential:mqtt-password")
        .env("CREDENTIALS_DIRECTORY", credentials.path().to_str().unwrap());
    let mut device = Device::new(options);
    // Without LoadCredential= in the unit.
    device.start();
    assert_eq!(device.ended().code(), Some(1));
    assert!(device.log().contains("mqtt-password"), "{}", device.log());
    assert!(device.log().contains("LoadCredential="), "{}", device.log());
    std::fs::write(credentials.path().join("mqtt-password"), "right\n").unwrap();
    device.start();
    wait_until("the broker lets it in", PATIENCE, || device.status().health.mqtt.reached.then_some(()));
}

#[test]
fn a_device_without_certificates_serves_though_its_repository_wants_them() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1"]);
    let options = Options::new(&broker, &repository);
    let mut device = Device::serving(options, &release(1));
    device.stop();
    device.configure(|options| {
        options
            .set("repository.url", "https://127.0.0.1:1/")
            .env("SSL_CERT_FILE", "/dev/null")
            .env("SSL_CERT_DIR", "/nonexistent")
    });
    device.forget();
    device.start();
    device.until_frames(3);
    let health = device.status().health;
    assert_eq!(health.pipelines[0].state, PipelineState::Running);
    let told = health.problems.iter().find(|problem| problem.code == ProblemCode::RepositoryUnreachable);
    let told = told.unwrap_or_else(|| panic!("{:?}", health.problems));
    assert!(told.detail.contains("install ca-certificates"), "{}", told.detail);
    assert!(!health.repository.reached && health.state == HealthState::Degraded);
    let refused = device.cli(["update", SLOT, &release(2)]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("ca-certificates"), "{refused:?}");
}
