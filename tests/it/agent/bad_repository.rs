//! Repositories that were tampered with, are old, broken, slow or lying: each is refused with its reason,
//! and the model that serves goes on.

use crate::support::device::{Device, Options, Repository, SLOT, copy_tree, release};
use crate::support::mosquitto::Mosquitto;
use crate::support::web::Trouble;
use edgewarden::domain::deployment::Stage;
use edgewarden::domain::health::ProblemCode;
use edgewarden::domain::{Reason, ReasonCode};
use edgewarden::trust::{Expiry, InitOptions};

/// Asks for a release that must not come; gives the reason after a look at all that must have stayed.
fn refused(device: &Device, wanted: &str) -> Reason {
    let reason = device.update(wanted).expect_err(wanted);
    assert!(!reason.detail.contains('\n') && reason.detail.len() > 20, "{reason}");
    let deployment = device.until("the refusal is told", |heard| {
        heard.states.last()?.deployment.clone().filter(|one| one.reason.as_ref() == Some(&reason))
    });
    assert_eq!((deployment.stage, deployment.release.to_string()), (Stage::Refused, wanted.to_owned()));
    assert_eq!(device.until("a state", |heard| heard.current()), release(1), "{reason}");
    let problems = device.status().health.problems;
    assert!(problems.iter().any(|problem| problem.code == ProblemCode::DeploymentFailed), "{problems:?}");
    device.until_frames(2);
    println!("{reason}");
    reason
}

#[test]
fn whatever_the_web_server_does_the_model_serves_on() {
    use ReasonCode::{
        DigestMismatch, Malformed, NotFound, RepositoryUnreachable, SignatureInvalid, SizeMismatch,
    };
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v1", "v2"]);
    let device = Device::serving(Options::new(&broker, &repository), &release(1));
    let blob = Repository::model_blob("v2");
    let timestamp = "metadata/timestamp.json";
    for (part, trouble, codes, words) in [
        (timestamp, Trouble::Status(503), &[RepositoryUnreachable][..], "503"),
        (timestamp, Trouble::Status(404), &[RepositoryUnreachable], "timestamp.json"),
        (timestamp, Trouble::Stall(0), &[RepositoryUnreachable], "timestamp.json"),
        (timestamp, Trouble::Reset(20), &[RepositoryUnreachable], "timestamp.json"),
        (timestamp, Trouble::Flip, &[SignatureInvalid, Malformed], "timestamp"),
        (".snapshot.json", Trouble::Flip, &[DigestMismatch], "snapshot"),
        (".targets.json", Trouble::Flip, &[DigestMismatch], "targets"),
        (".manifest.json", Trouble::Flip, &[DigestMismatch], "belt-inspector"),
        (".manifest.json", Trouble::Longer(1), &[SizeMismatch], "belt-inspector"),
        (".manifest.json", Trouble::Status(404), &[RepositoryUnreachable], "belt-inspector"),
        (&blob, Trouble::Status(404), &[NotFound], &blob[6..]),
        (&blob, Trouble::Longer(1000), &[SizeMismatch], &blob[6..]),
        (&blob, Trouble::Shorter(1000), &[SizeMismatch], &blob[6..]),
        (&blob, Trouble::Flip, &[DigestMismatch], "model.onnx"),
        (&blob, Trouble::Stall(5000), &[RepositoryUnreachable], &blob[6..]),
        (&blob, Trouble::Reset(5000), &[RepositoryUnreachable], &blob[6..]),
    ] {
        if [".snapshot.json", ".targets.json"].contains(&part) {
            // What the device has seen already it does not fetch again.
            repository.publish_variant(
                "v1",
                if part == ".targets.json" { "1.0.2" } else { "1.0.1" },
                |_, _| {},
            );
        }
        repository.web.trouble(part, trouble);
        let reason = refused(&device, &release(2));
        assert!(codes.contains(&reason.code), "{part} {trouble:?}: {reason}");
        assert!(reason.detail.contains(words), "{part} {trouble:?}: {reason}");
        repository.web.well();
    }
    let seen = device.status();
    assert_eq!(seen.metrics.deployments["refused"], 16);
    // All well again: it goes on where the last try was cut off.
    device.update(&release(2)).unwrap();
    assert!(repository.web.asked().iter().any(|(path, from)| path.contains(&blob) && *from > 0), "resumed");
    assert!(
        !device.status().health.problems.iter().any(|problem| problem.code == ProblemCode::DeploymentFailed)
    );
}

#[test]
fn a_repository_that_is_gone_is_told_in_health() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1"]);
    let device = Device::serving(Options::new(&broker, &repository), &release(1));
    let Repository { dir: _dir, web, .. } = repository;
    drop(web);
    let reason = refused(&device, &release(2));
    assert_eq!(reason.code, ReasonCode::RepositoryUnreachable);
    let health = device.status().health;
    assert!(
        health.problems.iter().any(|problem| problem.code == ProblemCode::RepositoryUnreachable),
        "{health:?}"
    );
    assert!(!health.repository.reached);
}

#[test]
fn strangers_and_old_metadata_are_refused() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v1"]);
    let kept = repository.dir.path().join("kept");
    copy_tree(&repository.folder(), &kept);
    repository.publish_variant("v2", "2.0.0", |_, _| {});
    let device = Device::serving(Options::new(&broker, &repository), &release(1));

    let stranger = Repository::with(&["v2"]);
    repository.web.serve(&stranger.folder());
    let reason = refused(&device, &release(2));
    assert!(reason.code.is_trust(), "{reason}");

    // Served again as it was before the device saw something newer.
    repository.web.serve(&kept);
    assert_eq!(refused(&device, &release(2)).code, ReasonCode::OlderThanSeen);
    repository.web.serve(&repository.folder());
    device.update(&release(2)).unwrap();
}

#[test]
fn expired_metadata_is_refused_with_what_the_publisher_must_do() {
    let broker = Mosquitto::start();
    let options = InitOptions { expiry: Expiry { timestamp: 1, ..Expiry::default() } };
    let long_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * 30);
    let repository = Repository::at(&["v1"], options, long_ago);
    let mut device = Device::new(Options::new(&broker, &repository));
    device.start();
    let reason = device.update(&release(1)).unwrap_err();
    assert!(reason.code == ReasonCode::Expired && reason.detail.contains("repo refresh"), "{reason}");
    let ended = device.cli(["update", SLOT, &release(1)]);
    assert_eq!(ended.code, Some(2), "refused for trust: {ended:?}");
}

#[test]
fn a_device_without_certificates_takes_models_over_http() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1"]);
    let options = Options::new(&broker, &repository);
    let bare = options.env("SSL_CERT_FILE", "/dev/null").env("SSL_CERT_DIR", "/nonexistent");
    let device = Device::serving(bare, &release(1));
    assert!(device.cli(["status"]).stdout.contains("reached"));
}
