//! A device that runs on while its token, its certificate or its broker's password is renewed, and one that is
//! up before its network.

use super::secret;
use crate::support::certificates::{Authority, Dates, Pair};
use crate::support::device::{Device, Options, PATIENCE, Repository, SLOT, release};
use crate::support::mosquitto::{Mosquitto, Setup};
use crate::support::secure_web::Server;
use crate::support::wait_until;
use crate::support::web::{Trouble, Web};
use edgewarden::domain::ReasonCode;
use edgewarden::domain::deployment::Stage;
use edgewarden::domain::health::{HealthState, PipelineState, ProblemCode};
use serde_json::json;
use std::path::Path;

/// Puts another certificate with its key where the device looks for them.
fn install(pair: &Pair, folder: &Path) {
    for (from, to) in [(&pair.key, "device.key"), (&pair.cert, "device.pem")] {
        secret(&folder.join(to), &std::fs::read_to_string(from).unwrap());
    }
}

#[test]
fn a_renewed_token_and_a_renewed_certificate_are_taken_up_without_a_restart() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2"]);
    let (servers, devices) = (Authority::new(), Authority::new());
    let host = servers.sign("localhost", Dates::Good);
    let web = Server::https(&repository.folder(), &host, Some(&devices.cert()));
    let folder = repository.dir.path();
    let text = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let token = secret(&folder.join("token"), "first-token");
    install(&devices.sign("first", Dates::Good), folder);
    web.tell(json!({ "token": "first-token", "client": "first" }));
    let options = Options::new(&broker, &repository)
        .set("repository.url", format!("https://localhost:{}/", web.port))
        .set("repository.ca_file", servers.cert().to_str().unwrap())
        .set("repository.cert_file", text("device.pem"))
        .set("repository.key_file", text("device.key"))
        .set("repository.token_file", token.to_str().unwrap());
    let device = Device::serving(options, &release(1));
    let agent = device.pid();

    // Revoked there, and not renewed here: told, and the model serves on.
    web.tell(json!({ "token": "second-token", "client": "second" }));
    let reason = device.update(&release(2)).unwrap_err();
    assert_eq!(reason.code, ReasonCode::RepositoryUnreachable);
    assert!(reason.detail.contains("401") && reason.detail.contains("renew it in"), "{reason}");
    assert!(!device.status().health.repository.reached);
    secret(&token, "second-token\n");
    let reason = device.update(&release(2)).unwrap_err();
    assert!(reason.detail.contains("403"), "the certificate is still the first: {reason}");
    // A key whose certificate is still to come leaves the first one in use.
    let second = devices.sign("second", Dates::Good);
    secret(&folder.join("device.key"), &std::fs::read_to_string(&second.key).unwrap());
    let reason = device.update(&release(2)).unwrap_err();
    assert!(reason.detail.contains("403"), "{reason}");
    install(&second, folder);
    device.update(&release(2)).unwrap();
    assert!(device.status().health.repository.reached);
    assert_eq!(device.pid(), agent);
    let log = device.log();
    assert!(log.contains("going on with the former one"), "{log}");
    assert!(!log.contains("first-token") && !log.contains("second-token"), "a token is in the log");
}

#[test]
fn a_password_that_was_changed_counts_from_the_next_connection_on() {
    let mut broker = Mosquitto::with(&Setup { login: Some(("pi", "old")), ..Setup::default() });
    let folder = tempfile::tempdir().unwrap();
    let file = secret(&folder.path().join("password"), "old\n");
    let options = Options::default()
        .set("mqtt.url", broker.url())
        .set("mqtt.username", "pi")
        .set("mqtt.password_file", file.to_str().unwrap());
    let mut device = Device::new(options);
    device.start();
    let reached = |device: &Device| device.status().health.mqtt.reached;
    wait_until("the broker lets it in", PATIENCE, || reached(&device).then_some(()));
    let agent = device.pid();
    broker.change_password("pi", "new");
    broker.restart();
    wait_until("the broker refuses the old one", PATIENCE, || {
        let told = device.status().health.mqtt.last_error?;
        told.detail.contains("mqtt.password_file").then_some(())
    });
    secret(&file, "new\n");
    wait_until("the broker lets it in again", PATIENCE, || reached(&device).then_some(()));
    assert_eq!(device.pid(), agent);
}

#[test]
fn a_device_without_authorities_serves_though_its_broker_wants_tls() {
    let repository = Repository::with(&["v1"]);
    let plain = Mosquitto::start();
    let mut device = Device::serving(Options::new(&plain, &repository), &release(1));
    device.stop();
    let servers = Authority::new();
    let host = servers.sign("localhost", Dates::Good);
    let lines = format!("certfile {}\nkeyfile {}", host.cert.display(), host.key.display());
    let secure = Mosquitto::with(&Setup { lines: vec![lines.leak()], ..Setup::default() });
    let authorities = device.path("authorities.pem");
    std::fs::write(&authorities, "").unwrap();
    let file = authorities.to_str().unwrap().to_owned();
    device.configure(|options| {
        options
            .set("mqtt.url", format!("mqtts://localhost:{}", secure.port))
            .env("SSL_CERT_FILE", &file)
            .env("SSL_CERT_DIR", "/nonexistent")
    });
    device.start();
    let health = wait_until("a running pipeline", PATIENCE, || {
        let health = device.status().health;
        (health.pipelines[0].state == PipelineState::Running).then_some(health)
    });
    assert_eq!(health.state, HealthState::Degraded);
    let told = health.problems.iter().find(|problem| problem.code == ProblemCode::BrokerUnreachable);
    let told = &told.unwrap_or_else(|| panic!("{:?}", health.problems)).detail;
    assert!(told.contains("apt install ca-certificates") && told.contains("mqtt.ca_file"), "{told}");
    // As after `apt install ca-certificates`.
    std::fs::copy(servers.cert(), &authorities).unwrap();
    wait_until("the broker", PATIENCE, || device.status().health.mqtt.reached.then_some(()));
}

#[test]
fn an_update_that_goes_on_after_a_reboot_waits_for_the_network() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2"]);
    let mut device = Device::serving(Options::new(&broker, &repository), &release(1));
    repository.web.trouble(&Repository::model_blob("v2"), Trouble::Stall(1000));
    drop(device.send("update", json!({ "slot": SLOT, "release": release(2) })));
    device.until("it fetches", |heard| (heard.stage() == Some(Stage::Fetching)).then_some(()));
    device.kill();
    let folder = repository.folder();
    let Repository { dir: _dir, web, .. } = repository;
    let address = web.address();
    drop(web);
    device.forget();
    device.start();
    // The tries of one request are over by then (repository.retries = 2), and it goes on asking.
    wait_until("it waits for its repository", PATIENCE, || {
        device.log().contains("waits for its repository").then_some(())
    });
    device.until_frames(3);
    assert_eq!(device.until("the old one serves", |heard| heard.current()), release(1));
    let _web = Web::start_at(&folder, address);
    device.until("the update's end", |heard| (heard.stage() == Some(Stage::Committed)).then_some(()));
    assert_eq!(device.until("the new one serves", |heard| heard.current()), release(2));
}

#[test]
fn an_update_that_may_not_wait_fails_as_before() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2"]);
    let options = Options::new(&broker, &repository).set("update.resume_max", "0s");
    let mut device = Device::serving(options, &release(1));
    repository.web.trouble(&Repository::model_blob("v2"), Trouble::Stall(1000));
    drop(device.send("update", json!({ "slot": SLOT, "release": release(2) })));
    device.until("it fetches", |heard| (heard.stage() == Some(Stage::Fetching)).then_some(()));
    device.kill();
    let Repository { dir: _dir, web, .. } = repository;
    drop(web);
    device.forget();
    device.start();
    device.until("the refusal", |heard| (heard.stage() == Some(Stage::Refused)).then_some(()));
}
