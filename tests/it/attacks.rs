//! The attacks that the TUF specification names (1.5.2), carried out against the real agent over a real
//! HTTP server: what becomes of each, what the owner sees, and that the good model serves on. The page
//! `packaging/THREATS.md` lists them; `threats` holds it against these tests.

/// Who has stolen a key: one of a threshold, or the online ones.
mod keys;
/// Who has no key, but all that a device hears: a mirror, a network, a cache.
mod mirror;
/// Who plays with time: old signatures, a clock without a battery, a kill in between.
mod time;

use crate::support::device::{Device, Repository, copy_tree, release};
use edgewarden::domain::Reason;
use edgewarden::domain::deployment::Stage;
use edgewarden::domain::health::ProblemCode;
use std::path::PathBuf;

/// Asks for a release that must not come, and looks at all that the owner can see of the refusal: the answer,
/// the slot's state, health over MQTT, the device's own status, its log. Release 1 must serve on.
fn repelled(device: &Device, wanted: &str) -> Reason {
    let reason = device.update(wanted).expect_err(wanted);
    look(device, wanted, &reason);
    reason
}

fn look(device: &Device, wanted: &str, reason: &Reason) {
    println!("{} {reason}", reason.code.as_str());
    assert!(!reason.detail.contains('\n') && reason.detail.len() > 20, "{reason}");
    let deployment = device.until("the slot's state tells it", |heard| {
        heard.states.last()?.deployment.clone().filter(|one| one.reason.as_ref() == Some(reason))
    });
    assert_eq!((deployment.stage, deployment.release.to_string()), (Stage::Refused, wanted.to_owned()));
    device.until("health tells it", |heard| {
        let problems = &heard.health.last()?.problems;
        let told =
            |code, words: &str| problems.iter().any(|one| one.code == code && one.detail.contains(words));
        told(ProblemCode::DeploymentFailed, &reason.detail).then_some(())
    });
    let shown = device.cli(["status"]);
    assert!(
        shown.stdout.contains(reason.code.as_str()) || shown.stdout.contains(&reason.detail),
        "{shown:?}"
    );
    assert!(device.log().contains(&reason.detail), "the log has it too");
    assert_eq!(device.until("a state", |heard| heard.current()), release(1), "{reason}");
    device.until_frames(2);
    let bundles = std::fs::read_dir(device.path("state/models")).unwrap().count();
    assert_eq!(bundles, 1, "of what was refused nothing stays");
}

/// A copy of the repository as it is now, in a folder of its own, for a mirror to spoil or to keep.
fn copy(repository: &Repository, name: &str) -> PathBuf {
    let to = repository.dir.path().join(name);
    copy_tree(&repository.folder(), &to);
    to
}
