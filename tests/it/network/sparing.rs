//! Updates that wait for their time: told, kept over kills, gone on with by themselves.

use super::{Bench, release};
use crate::support::compile_library;
use crate::support::device::{Device, Options, SLOT, release as first};
use crate::support::faulty_web::Act;
use edgewarden::domain::ReasonCode;
use edgewarden::domain::deployment::Stage;
use edgewarden::domain::maintenance::{Hold, Waiting};
use serde_json::json;

/// What the deployment waits for, as the newest state on MQTT says.
fn waits(device: &Device, hold: Hold) -> (Stage, Waiting) {
    device.until(&format!("a wait for {hold:?}"), |heard| {
        let deployment = heard.states.last()?.deployment.clone()?;
        let waiting = deployment.waiting.filter(|waiting| waiting.hold == hold)?;
        Some((deployment.stage, waiting))
    })
}

/// The device's clock shows this time of tomorrow, in universal time, and goes on from there.
fn tomorrow(options: Options, time: &str) -> Options {
    let day = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date().tomorrow().unwrap();
    let shown: jiff::Timestamp = format!("{day}T{time}Z").parse().unwrap();
    options.env("EDGEWARDEN_TEST_CLOCK", &format!("@{}", shown.as_second())).env("TZ", "UTC")
}

#[test]
fn an_update_waits_for_its_window_over_kills_and_goes_on_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("clock.so");
    compile_library("tests/data/clock.c", &library, &[]);
    let bench = Bench::new(2);
    let options = bench
        .options()
        .env("LD_PRELOAD", library.to_str().unwrap())
        .set("update.windows", vec!["02:00-05:00"]);
    // The first model comes at any time.
    let mut device = Device::serving(tomorrow(options, "01:00:00"), &first(1));
    let update = device.send("update", json!({ "slot": SLOT, "release": release(0) }));
    let (stage, waiting) = waits(&device, Hold::Window);
    assert_eq!(stage, Stage::Staged, "it is fetched, and not tried");
    let until = waiting.until.unwrap();
    assert!(until.ends_with("T02:00:00+00:00"), "{until}");
    let shown = device.cli(["status"]).stdout;
    let line = format!("waits until {until} for a maintenance window (update.windows)");
    assert!(shown.contains(&line) && shown.contains("--now` does not wait"), "{shown}");
    device.until_frames(2);
    drop(update);

    // A power cut, and a start just before the window: it waits, and goes on when that opens.
    device.kill();
    device.forget();
    device.configure(|options| tomorrow(options, "01:59:50"));
    device.start();
    let stages = device.until("the update's end", |heard| {
        (heard.current()? == release(0) && heard.stage()? == Stage::Committed)
            .then(|| heard.states.iter().filter_map(|state| state.deployment.clone()).collect::<Vec<_>>())
    });
    let held = stages.iter().position(|one| one.waiting.as_ref().is_some_and(|one| one.hold == Hold::Window));
    let tried = stages.iter().position(|one| one.stage == Stage::OnTrial);
    assert!(held.is_some() && held < tried, "{stages:?}");

    // A clock that is not set counts as outside, but for who says so.
    device.kill();
    device.forget();
    device.configure(|options| options.env("EDGEWARDEN_TEST_CLOCK", "@20"));
    device.start();
    device.until("it is back", |heard| heard.online().then_some(()));
    drop(device.send("update", json!({ "slot": SLOT, "release": release(1) })));
    let (stage, waiting) = waits(&device, Hold::Clock);
    assert_eq!((stage, waiting.until), (Stage::Staged, None));
    let forced = device.cli(["update", SLOT, &release(1), "--now"]);
    assert_eq!(forced.code, Some(0), "{forced:?}");
    assert_eq!(device.until("a state", |heard| heard.current()), release(1));
}

#[test]
fn a_window_s_end_cuts_a_download_which_goes_on_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("clock.so");
    compile_library("tests/data/clock.c", &library, &[]);
    let bench = Bench::new(1);
    let options = bench
        .options()
        .env("LD_PRELOAD", library.to_str().unwrap())
        .set("repository.stall_timeout", "1h")
        .set("update.windows", vec!["02:00-05:00"])
        .set("update.fetch_in_windows", true);
    let device = Device::serving(tomorrow(options, "04:59:50"), &first(1));
    let (blob, size) = bench.blob(0);
    bench.web.plan(&blob, vec![Act::Stall(100_000)], false);
    drop(device.send("update", json!({ "slot": SLOT, "release": release(0) })));
    let (stage, _) = waits(&device, Hold::Window);
    if stage == Stage::Resolving {
        println!("skipped: this machine took so long to begin that the window had ended");
        return;
    }
    assert_eq!(stage, Stage::Fetching);
    device.command("update", json!({ "slot": SLOT, "release": release(0), "now": true })).unwrap();
    let sent: u64 = bench.web.asked(&blob).iter().map(|asked| asked.sent).sum();
    assert_eq!(sent, size, "what came in the window is kept");
}

#[test]
fn a_metered_connection_brings_only_what_is_small() {
    let bench = Bench::new(2);
    let options = bench
        .options()
        .set("update.connection", "metered")
        .set("update.metered", "small")
        .set("update.metered_max", "100kB");
    let mut device = Device::new(options);
    device.start();
    device.until("it is online", |heard| heard.online().then_some(()));
    drop(device.send("update", json!({ "slot": SLOT, "release": release(0) })));
    let (stage, _) = waits(&device, Hold::Metered);
    assert_eq!(stage, Stage::Fetching);
    assert!(bench.web.asked("blobs/").is_empty(), "nothing but the signed lists was asked for");
    // Another connection, which the device learns at its next start; then one that pays all.
    device.kill();
    device.forget();
    device.configure(|options| options.set("update.connection", "unmetered"));
    device.start();
    device.until("the update's end", |heard| (heard.current()? == release(0)).then_some(()));
    device.stop();
    device.configure(|options| options.set("update.connection", "metered").set("update.metered_max", "10MB"));
    device.start();
    device.update(&release(1)).unwrap();
}

#[test]
fn a_group_begins_spread_and_one_device_at_once() {
    let bench = Bench::new(2);
    let device = Device::serving(bench.options().set("update.start_jitter", "7d"), &first(1));
    let tell = |release: &str| {
        let payload = json!({ "slot": SLOT, "release": release }).to_string();
        device.publish_to("edgewarden/group/line/cmd/update/1".into(), payload, false);
    };
    bench.web.plan("-", Vec::new(), false);
    tell(&release(0));
    // One device in 604 800 begins in the very second in which it is told.
    let (stage, waiting) = waits(&device, Hold::Jitter);
    assert_eq!(stage, Stage::Resolving);
    assert!(waiting.until.is_some() && bench.web.asked("metadata/").is_empty(), "nothing was asked for");
    let aborted = device.command("abort", json!({ "slot": SLOT })).unwrap();
    assert!(aborted["ended"].as_str().unwrap().contains("aborted"), "{aborted}");
    // For this device alone.
    device.update(&release(1)).unwrap();
    let reason = device.command("abort", json!({ "slot": SLOT })).unwrap_err();
    assert_eq!(reason.code, ReasonCode::BadRequest);
}
