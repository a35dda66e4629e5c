//! Old signatures shown for ever, and clocks that are wrong.

use super::{copy, repelled};
use crate::support::compile_library;
use crate::support::device::{Device, Options, Repository, model, release};
use crate::support::mosquitto::Mosquitto;
use edgewarden::domain::ReasonCode::*;
use edgewarden::trust::{Expiry, InitOptions};
use jiff::{SignedDuration, Timestamp};

/// So many days ago.
fn ago(days: i64) -> Timestamp {
    Timestamp::now() - SignedDuration::from_hours(24 * days)
}

#[test]
fn indefinite_freeze() {
    let broker = Mosquitto::start();
    let options = InitOptions { expiry: Expiry { timestamp: 1, ..Expiry::default() } };
    let mut repository = Repository::at(&["v1"], options, Timestamp::now());
    let device = Device::serving(Options::new(&broker, &repository), &release(1));
    // What was signed two days ago for one day is kept by the mirror, and shown from then on.
    repository.publisher.publish(&model("v2"), ago(2), &|_| {}).unwrap();
    let frozen = copy(&repository, "frozen");
    repository.publisher.refresh(Timestamp::now()).unwrap();
    repository.web.serve(&frozen);
    let reason = repelled(&device, &release(2));
    assert_eq!(reason.code, Expired);
    assert!(
        reason.detail.contains("timestamp expired at") && reason.detail.contains("repo refresh"),
        "{reason}"
    );
    repository.web.serve(&repository.folder());
    device.update(&release(2)).unwrap();
}

#[test]
fn a_board_without_a_clock_and_one_whose_clock_jumps() {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("clock.so");
    compile_library("tests/data/clock.c", &library, &[]);
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v1", "v2", "v5"]);
    let at = |options: Options, time: &str| options.env("EDGEWARDEN_TEST_CLOCK", time);
    let options = Options::new(&broker, &repository).env("LD_PRELOAD", library.to_str().unwrap());
    // Twenty seconds into 1970, as a board says that has no battery.
    const NO_BATTERY: &str = "@20";
    const IN_91_DAYS: &str = "+7862400";
    let restart = |device: &mut Device, time: &str| {
        device.stop();
        device.forget();
        device.configure(|options| at(options, time));
        device.start();
        device.until_frames(1);
    };

    // It starts in 1970, and takes what is good today all the same.
    let mut device = Device::serving(at(options, NO_BATTERY), &release(1));
    // What it remembers; nothing as long as no later time than the build's was accepted.
    let floor = |device: &Device| -> Option<Timestamp> {
        Some(std::fs::read_to_string(device.path("state/clock")).ok()?.trim().parse().unwrap())
    };
    assert_eq!(floor(&device), None);
    // Its clock jumps far ahead: nothing is good any more, and nothing is remembered of it.
    restart(&mut device, IN_91_DAYS);
    assert_eq!(repelled(&device, &release(2)).code, Expired);
    assert_eq!(floor(&device), None);
    // The right time: all is well, and is remembered.
    let today = Timestamp::now();
    restart(&mut device, "+0");
    assert_eq!(device.update("belt-inspector@7.0.0").unwrap_err().code, NotFound);
    device.update(&release(2)).unwrap();
    assert!(floor(&device) >= Some(today));
    // In 1970 again: what has expired meanwhile stays expired.
    restart(&mut device, NO_BATTERY);
    repository.publish_at("v1", "1.0.1", ago(100));
    let reason = device.update(&release(5)).unwrap_err();
    assert_eq!(reason.code, Expired, "{reason}");
    assert_eq!(device.until("a state", |heard| heard.current()), release(2));
    repository.publisher.refresh(Timestamp::now()).unwrap();
    device.update(&release(5)).unwrap();
    assert!(floor(&device) >= Some(today), "and time never counts backwards");
}
