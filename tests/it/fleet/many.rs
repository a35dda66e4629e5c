//! Thousands of devices: whatever the broker has kept of them is read, and nothing is lost for want of room.

use super::{fleet, healthy, json_lines};
use crate::support::ear;
use crate::support::mosquitto::{Mosquitto, Setup};
use serde_json::Value;

/// What so many devices keep at the broker, each with a model.
fn devices(count: usize) -> impl Iterator<Item = (String, Vec<u8>)> {
    (0..count).flat_map(|n| {
        let device = format!("d{n:05}");
        let slot = format!(
            r#"{{"schema":1,"device":"{device}","slot":"detector","current":{{"release":"belt@1.0.0","digest":"{n:064x}"}}}}"#
        );
        let slot = (format!("edgewarden/{device}/model/detector/state"), slot);
        healthy(&device, "many").into_iter().chain([slot]).map(|(topic, text)| (topic, text.into_bytes()))
    })
}

#[test]
fn ten_thousand_devices_are_listed_each_of_them_whole() {
    let setup = Setup { lines: vec!["max_queued_messages 20000"], ..Setup::default() };
    let broker = Mosquitto::with(&setup);
    ear::keep(broker.port, devices(10_000));
    let told = fleet(&broker.url(), &["list", "--json", "--check", "--wait", "120"]);
    assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""));
    let rows = json_lines(&told.stdout);
    assert_eq!(rows.len(), 10_000);
    for row in &rows {
        let whole = [&row["presence"], &row["state"], &row["agent_version"], &row["models"][0]["release"]];
        assert_eq!(whole, ["online", "ok", "9.9.9", "belt@1.0.0"].map(Value::from).each_ref(), "{row}");
    }
}

/// A mosquitto that keeps fewer messages for a reader than there are devices drops the rest, which is told.
#[test]
fn a_broker_that_drops_devices_is_named_with_what_to_set() {
    let broker = Mosquitto::start();
    ear::keep(broker.port, devices(1500));
    let told = fleet(&broker.url(), &["list", "--json", "--check", "--wait", "120"]);
    assert!(told.code == Some(1) && told.stderr.contains("max_queued_messages"), "{}", told.stderr);
    assert!(json_lines(&told.stdout).len() < 1500);
    let told = fleet(&broker.url(), &["send", "group:many", "status", "--timeout", "1s"]);
    assert!(told.stderr.contains("max_queued_messages"), "{}", told.stderr);
}
