//! What is on the disk after each step, whatever comes between.

use super::*;
use crate::domain::audit::Who;

const BASE: &str = "[health]\ninterval = \"7s\"\n";

fn folder() -> (tempfile::TempDir, Remote) {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("agent.toml");
    fs::write(&config, BASE).unwrap();
    let remote = Remote::new(&config);
    (dir, remote)
}

fn wish(values: serde_json::Value) -> Wish {
    Wish {
        values: values.as_object().unwrap().clone().into_iter().collect(),
        subject: Subject {
            who: Who::Anonymous,
            to: "pi".into(),
            command: "set".into(),
            id: "1".into(),
            arguments: serde_json::Value::Null,
        },
        answer: None,
        before: Before::default(),
    }
}

fn interval(remote: &Remote) -> u64 {
    config::load_in(&remote.config, &Surroundings::default()).unwrap().health.interval.as_secs()
}

fn end(remote: &Remote) -> Option<Progress> {
    remote.read_mark().unwrap().unwrap().end
}

#[test]
fn a_change_counts_at_once_and_is_put_back_after_too_many_starts() {
    let (_dir, remote) = folder();
    assert!(matches!(remote.begin(wish(json!({ "health.interval": "5s" }))), Ok(Begun::OnTrial)));
    assert_eq!(interval(&remote), 5);
    for start in 0..MAX_STARTS {
        remote.starts().unwrap();
        assert_eq!((interval(&remote), end(&remote)), (5, None), "start {start}");
    }
    remote.starts().unwrap();
    assert_eq!(interval(&remote), 7);
    assert!(!remote.file.exists(), "there was none before");
    let Some(Progress::Failed { reason }) = end(&remote) else { panic!("it has failed") };
    assert!(reason.code == ReasonCode::NotWell && reason.detail.contains("3 times"), "{reason}");
    remote.starts().unwrap();
    assert_eq!(interval(&remote), 7, "and stays so");
}

#[test]
fn the_former_values_come_back_and_not_only_the_defaults() {
    let (_dir, remote) = folder();
    remote.begin(wish(json!({ "health.interval": "5s" }))).unwrap_or_else(|reason| panic!("{reason}"));
    fs::remove_file(&remote.mark).unwrap();
    remote
        .begin(wish(json!({ "health.interval": "3s", "log.level": "debug" })))
        .unwrap_or_else(|reason| panic!("{reason}"));
    assert_eq!(interval(&remote), 3);
    assert!(remote.give_up("it is ill").unwrap());
    assert_eq!(interval(&remote), 5);
    assert!(!remote.give_up("again").unwrap(), "once");
    // What is over is no reason to refuse the next one.
    assert!(matches!(remote.begin(wish(json!({ "health.interval": null }))), Ok(Begun::OnTrial)));
    assert_eq!(interval(&remote), 7);
}

#[test]
fn what_does_not_hold_or_changes_nothing_is_not_written() {
    let (dir, remote) = folder();
    for (values, says) in [
        (json!({ "health.interval": "1ms" }), "health.interval: \"1ms\" is out of range"),
        (json!({ "mqtt.results_per_second": 1 }), "mqtt.url: is missing"),
        (json!({ "pipeline.other.fps": 1 }), "source"),
        (json!({ "update.fetch_in_windows": true }), "there are no windows"),
    ] {
        let reason = remote.begin(wish(values)).err().unwrap();
        assert!(reason.code == ReasonCode::BadRequest && reason.detail.contains(says), "{reason}");
    }
    assert!(matches!(remote.begin(wish(json!({ "log.level": null }))), Ok(Begun::AsBefore(_))));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the main file alone");
}

#[test]
fn one_at_a_time_and_a_cut_before_the_drop_in_is_told() {
    let (_dir, remote) = folder();
    remote.begin(wish(json!({ "health.interval": "5s" }))).unwrap_or_else(|reason| panic!("{reason}"));
    let reason = remote.begin(wish(json!({ "health.interval": "6s" }))).err().unwrap();
    assert_eq!(reason.code, ReasonCode::Busy);
    // The power failed between the mark and the drop-in.
    fs::remove_file(&remote.file).unwrap();
    remote.starts().unwrap();
    let Some(Progress::Failed { reason }) = end(&remote) else { panic!("it has failed") };
    assert!(reason.detail.contains("power cut"), "{reason}");
    assert_eq!(interval(&remote), 7);
}
