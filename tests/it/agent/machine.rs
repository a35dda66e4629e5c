//! The daemon on its machine: the local socket and its exit statuses, Prometheus, the service manager,
//! and two agents side by side.

use crate::support::device::{Device, Options, PATIENCE, Repository, SLOT, release, run_to_its_end, signal};
use crate::support::mosquitto::free_port;
use crate::support::web::Trouble;
use crate::support::{Edgewarden, wait_until};
use edgewarden::domain::health::PipelineState;
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// A device without a broker: what it is told comes over its socket.
fn local(options: Options, first: &str) -> Device {
    let mut device = Device::new(options);
    device.start();
    device.status();
    let done = device.cli(["update", SLOT, first]);
    assert_eq!(done.code, Some(0), "{done:?}");
    device
}

fn export(repository: &Repository, release: &str) -> String {
    let file = repository.dir.path().join(format!("{release}.bundle")).display().to_string();
    let folder = repository.folder().display().to_string();
    let ended = Edgewarden::run(["repo", "export", &folder, release, "--output", &file]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    file
}

#[test]
fn a_device_without_a_network_is_run_from_its_own_command_line() {
    let repository = Repository::with(&["v1", "v2", "v5"]);
    let port = free_port();
    let mut device = Device::new(
        Options::default().repository(&repository).set("health.prometheus", format!("127.0.0.1:{port}")),
    );
    let one_line = |ended: &crate::support::Ended, code: i32, words: &str| {
        assert_eq!(ended.code, Some(code), "{ended:?}");
        // Progress goes there too; of faults there is one line, the last.
        let faults: Vec<&str> =
            ended.stderr.lines().filter(|line| line.starts_with("edgewarden: ")).collect();
        assert!(faults.len() == 1 && ended.stderr.trim_end().ends_with(faults[0]), "{ended:?}");
        assert!(faults[0].contains(words), "{ended:?}");
    };
    one_line(&device.cli(["status"]), 1, "no agent is running");
    device.start();
    device.status();
    // The repository is never asked: everything comes from a stick.
    repository.web.trouble("", Trouble::Status(503));
    one_line(&device.cli(["rollback", SLOT]), 1, "no previous");
    let first = export(&repository, &release(1));
    let installed = device.cli(["install", &first, "--json"]);
    assert_eq!(installed.code, Some(0), "{installed:?}");
    let last: serde_json::Value = serde_json::from_str(installed.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(last["status"], "successful");
    assert_eq!(device.cli(["install", &export(&repository, &release(2))]).code, Some(0));
    let current = |device: &Device| device.status().slots[0].current.as_ref().unwrap().release.to_string();
    assert_eq!(current(&device), release(2));
    assert_eq!(device.cli(["rollback", SLOT]).code, Some(0));
    assert_eq!(current(&device), release(1));
    let text = device.cli(["status"]);
    assert!(text.code == Some(0) && text.stdout.contains(&release(1)), "{text:?}");

    one_line(&device.cli(["rollback", "none"]), 1, SLOT);
    one_line(&device.cli(["install", "/nonexistent.bundle"]), 1, "/nonexistent.bundle");
    assert_eq!(device.cli(["rollback"]).code, Some(64));
    assert_eq!(device.cli(["update", SLOT, "newest"]).code, Some(64));
    // With a changed byte in its model; and of another publisher.
    let damaged = export(&repository, &release(5));
    let mut bytes = std::fs::read(&damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&damaged, &bytes).unwrap();
    one_line(&device.cli(["install", &damaged]), 2, "belt-inspector@5.0.0");
    let stranger = Repository::with(&["v2"]);
    one_line(&device.cli(["install", &export(&stranger, &release(2))]), 2, "sign");
    assert_eq!(current(&device), release(1));

    let page = wait_until("Prometheus' page", PATIENCE, || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: x\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        page.contains("edgewarden_swaps_total{} 3").then_some(page)
    });
    for words in ["outcome=\"committed\"", "edgewarden_frames", "# EOF"] {
        assert!(page.contains(words), "{words} in {page}");
    }
    assert!(device.stop().success());
    assert!(!device.path("run/agent.sock").exists());
}

/// A supervisor's socket, with a watchdog of 0.6 s.
struct Supervisor {
    folder: tempfile::TempDir,
    socket: UnixDatagram,
}

impl Supervisor {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify.sock")).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        Self { folder, socket }
    }

    fn watches(&self, options: Options) -> Options {
        let path = self.folder.path().join("notify.sock");
        options.env("NOTIFY_SOCKET", path.to_str().unwrap()).env("WATCHDOG_USEC", "600000")
    }

    fn hears(&self) -> Option<String> {
        let mut buffer = [0; 1024];
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    fn until(&self, words: &str) -> String {
        wait_until(words, PATIENCE, || {
            self.hears().filter(|said| said.lines().any(|line| line.starts_with(words)))
        })
    }

    /// The kernel keeps ten messages; an agent with more to say would wait for their reader.
    fn reads_all(&self) {
        while self.hears().is_some() {}
    }
}

#[test]
fn the_service_manager_hears_of_life_while_the_agent_mends_what_hangs_and_not_from_a_frozen_one() {
    let repository = Repository::with(&["v1"]);
    let supervisor = Supervisor::new();
    let options = Options::default().repository(&repository).set("runtime.frame_deadline", "2s");
    let mut device = local(supervisor.watches(options), &release(1));
    assert!(supervisor.until("READY=1").contains("STATUS="));
    supervisor.until("STATUS=");
    wait_until("frames", PATIENCE, || {
        supervisor.reads_all();
        (device.status().health.pipelines[0].state == PipelineState::Running).then_some(())
    });
    supervisor.until("WATCHDOG=1");
    // For more than three times the watchdog's limit no frame is finished.
    let hung = device.child("infer");
    supervisor.reads_all();
    signal(hung, Signal::STOP);
    for _ in 0..5 {
        supervisor.until("WATCHDOG=1");
    }
    wait_until("another child", PATIENCE, || {
        supervisor.until("WATCHDOG=1");
        (device.child("infer") != hung).then_some(())
    });

    let agent = device.pid();
    signal(agent, Signal::STOP);
    // What it said before may still lie there.
    supervisor.reads_all();
    assert_eq!(supervisor.hears(), None, "a frozen agent feeds nobody");
    signal(agent, Signal::CONT);
    supervisor.until("WATCHDOG=1");
    assert!(device.stop().success());
    supervisor.until("STOPPING=1");
}

/// One that gives a frame every two seconds, which is more than three times the watchdog's limit.
#[test]
fn a_slow_pace_a_paused_camera_and_a_film_s_end_starve_no_watchdog() {
    let repository = Repository::with(&["v1"]);
    let pictures = repository.dir.path().join("pictures");
    std::fs::create_dir(&pictures).unwrap();
    let picture = crate::support::root().join("packaging/models/v1/golden/1.jpg");
    for number in 0..5 {
        std::fs::copy(&picture, pictures.join(format!("{number}.jpg"))).unwrap();
    }
    let scene: toml::Table = "kind = \"synthetic\"\nwidth = 320\nheight = 240".parse().unwrap();
    let mut once: toml::Table = "kind = \"folder\"\nrepeat = false".parse().unwrap();
    once.insert("path".into(), pictures.to_str().unwrap().into());
    for (source, fps) in [(scene, toml::Value::from(0.5)), (once, "max".into())] {
        let supervisor = Supervisor::new();
        let options = Options::default()
            .repository(&repository)
            .set("pipeline.fps", fps)
            .set("update.probation_frames", 1)
            .set("pipeline.source", source);
        let mut device = local(supervisor.watches(options), &release(1));
        supervisor.reads_all();
        for _ in 0..15 {
            supervisor.until("WATCHDOG=1");
        }
        device.cli(["pause"]);
        supervisor.reads_all();
        for _ in 0..10 {
            supervisor.until("WATCHDOG=1");
        }
        assert!(device.stop().success());
    }
}

#[test]
fn two_agents_on_one_machine_do_not_meet() {
    let repository = Repository::with(&["v1", "v2"]);
    let mut one = local(Options::default().repository(&repository), &release(1));
    let two = local(Options::default().repository(&repository), &release(2));
    for (device, expected) in [(&one, release(1)), (&two, release(2))] {
        let status = wait_until("frames", PATIENCE, || {
            let status = device.status();
            (status.metrics.pipelines[0].frames.answered > 5).then_some(status)
        });
        assert_eq!(status.slots[0].current.as_ref().unwrap().release.to_string(), expected);
        let frames = status.metrics.pipelines[0].frames;
        assert!(frames.answered + frames.skipped + frames.unserved <= frames.captured + 1, "{frames:?}");
    }
    // The same state folder is refused, also under another runtime folder.
    let text = std::fs::read_to_string(one.path("agent.toml")).unwrap();
    let config = one.path("second.toml");
    std::fs::write(&config, text.replace("\"run\"", "\"other\"")).unwrap();
    let second = run_to_its_end(&config);
    assert_eq!(second.code, Some(1), "{second:?}");
    let told = second.stderr.lines().last().unwrap();
    assert!(told.contains("another agent uses this state folder"), "{second:?}");
    // The same runtime folder too, under another state folder: the socket has its owner.
    std::fs::write(&config, text.replace("\"state\"", "\"elsewhere\"")).unwrap();
    let third = run_to_its_end(&config);
    assert_eq!(third.code, Some(1), "{third:?}");
    assert!(third.stderr.lines().last().unwrap().contains("an agent already answers"), "{third:?}");
    assert_eq!(one.status().health.pipelines[0].state, PipelineState::Running, "the first one lives on");
    // One ends, the other goes on.
    assert!(one.stop().success());
    let before = two.status().metrics.pipelines[0].frames.answered;
    wait_until("frames of the other", PATIENCE, || {
        (two.status().metrics.pipelines[0].frames.answered > before + 3).then_some(())
    });
}

/// As a package manager does it: the new file is renamed over the old one, and the agent is restarted only then.
#[test]
fn an_agent_whose_program_was_replaced_ends_an_update_with_children_of_its_own() {
    let repository = Repository::with(&["v1", "v2"]);
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("edgewarden");
    std::fs::copy(Edgewarden::path(), &program).unwrap();
    let device = local(Options::default().repository(&repository).program(&program), &release(1));

    let next = folder.path().join("edgewarden.dpkg-new");
    std::fs::write(&next, "#!/bin/sh\nexit 1\n").unwrap();
    std::fs::set_permissions(&next, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&next, &program).unwrap();
    let done = device.cli(["update", SLOT, &release(2)]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let child = device.child("infer");
    let called = |file: &str| std::fs::read_to_string(format!("/proc/{child}/{file}")).unwrap();
    assert_eq!(called("comm"), "edgewarden\n");
    assert!(called("cmdline").starts_with("edgewarden\0child\0infer"), "{}", called("cmdline"));
}
