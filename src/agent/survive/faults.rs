//! A disk that is full, over its quota, broken or read-only from each operation on, or for one operation.
//!
//! The scenario is played on a disk that fails, until nothing goes on any more; then the disk is mended. An
//! order that failed says why, what serves is whole and the one before or the one after, and the next update
//! works without a restart.

use super::cuts::{leaked, whole};
use super::device::{Device, Note, slot};
use super::fleet::release;
use super::scenario::{self, Scenario, ended};
use crate::domain::ReasonCode;
use crate::domain::command::Progress;
use crate::sys::durable::recorded::{Fault, Recorder};
use rustix::io::Errno;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// A disk that fails for good gets so long to bring everything to a halt; then it is mended.
const HALT: Duration = Duration::from_millis(400);

/// The ways to fail: the error, and whether it stays.
const FAILURES: [(Errno, bool); 6] = [
    (Errno::IO, false),
    (Errno::IO, true),
    (Errno::NOSPC, false),
    (Errno::NOSPC, true),
    (Errno::DQUOT, true),
    (Errno::ROFS, true),
];

async fn endures(scenario: &Scenario, failures: &[(Errno, bool)]) {
    let (fleet, before) = scenario.prepare().await;
    let nobody: Note = Arc::new(|_| {});
    let (mut faults, mut tried, mut refused, mut operations) = (Vec::new(), 0, 0, 0);
    for &(error, lasting) in failures {
        for at in 0.. {
            let state = super::folder();
            copy(before.path(), state.path());
            let recorder = Recorder::at(state.path());
            recorder.set_fault(Some(Fault { at, error, lasting }));
            let started =
                Device::start(state.path(), &fleet, None, scenario.flaws, nobody.clone()).await.unwrap();
            let mut device = started;
            let came = {
                let mut play = std::pin::pin!(scenario.play(&mut device, &fleet));
                match timeout(HALT, &mut play).await {
                    Ok(came) => came,
                    Err(_) => {
                        recorder.set_fault(None);
                        play.await
                    }
                }
            };
            let ended_before = !recorder.was_met();
            recorder.set_fault(None);
            operations = operations.max(at);
            if ended_before {
                break;
            }
            tried += 1;
            let mut fault = |what: String| {
                let how = if lasting { "from" } else { "at" };
                faults.push(format!("{}: {error} {how} operation {at}: {what}", scenario.name));
            };
            for came in came {
                if let Progress::Failed { reason } = came {
                    refused += 1;
                    let clear = match error {
                        Errno::NOSPC | Errno::DQUOT => reason.code == ReasonCode::DiskFull,
                        _ => reason.detail.contains(&format!("os error {}", error.raw_os_error())),
                    };
                    if !clear && scenario.flaws.is_empty() {
                        fault(format!("is not told as what it is: {reason:?}"));
                    }
                }
            }
            if !lasting && device.would_go_on() {
                fault("a restart would go on with what has ended".to_owned());
            }
            match whole(state.path(), &fleet, &device) {
                Ok(Some(bundle)) if scenario.serves.iter().any(|one| bundle.release == release(one)) => {}
                Ok(None) if scenario.before.is_empty() => {}
                other => fault(format!("{other:?} serves")),
            }
            let next = device.updater.update(&slot(), release("5.0.0"), Default::default()).unwrap();
            let next = ended(next).await;
            if !matches!(next, Progress::Successful { .. }) {
                fault(format!("the next update: {next:?}"));
            }
            device.until_idle().await;
            match whole(state.path(), &fleet, &device) {
                Ok(Some(bundle)) if bundle.release == release("5.0.0") => {}
                other => fault(format!("after the next update: {other:?}")),
            }
            leaked(state.path(), &device).into_iter().for_each(|leak| fault(format!("leaked: {leak}")));
            device.stop().await;
        }
    }
    let told = faults.iter().take(12).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(faults.is_empty(), "{} faults\n{told}", faults.len());
    assert!(refused > 0, "no order ever failed");
    super::tell("fault", scenario.name, &format!("{} {operations} {tried} {refused} {tried}", scenario.name));
}

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status();
    assert!(copied.unwrap().success());
}

#[tokio::test]
async fn a_disk_that_fails_at_any_operation_of_an_update_costs_that_update_at_most() {
    endures(&scenario::UPDATE, &FAILURES).await;
}

#[tokio::test]
async fn a_disk_that_fails_at_any_operation_of_a_first_install_costs_that_at_most() {
    endures(&scenario::FIRST, &FAILURES[..4]).await;
}

#[tokio::test]
async fn a_disk_that_fails_at_any_operation_of_an_update_that_is_rolled_back_keeps_the_model() {
    endures(&scenario::ROLLED_BACK, &FAILURES).await;
}

#[tokio::test]
async fn a_disk_that_fails_at_any_operation_of_a_rollback_keeps_a_model() {
    endures(&scenario::ROLLBACK, &FAILURES).await;
}

#[tokio::test]
async fn a_disk_that_fails_at_any_operation_of_an_update_from_a_file_costs_that_at_most() {
    endures(&scenario::FROM_FILE, &FAILURES[..4]).await;
}
