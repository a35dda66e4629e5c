//! What a device says of itself over MQTT besides its messages: that it is there, and what it had to drop.

use crate::support::certificates::{Authority, Dates};
use crate::support::device::{Device, Options};
use crate::support::ear::{Ear, Heard};
use crate::support::light::{self, Told};
use crate::support::mosquitto::{Mosquitto, Setup, free_port};
use crate::support::wait_until;
use crate::support::web::Web;
use edgewarden::config::settings::{MqttSettings, SpoolBounds, TlsSettings};
use edgewarden::domain::importance::{Dropped, Importance};
use edgewarden::mqtt::State;
use edgewarden::mqtt::payloads::{DroppedReport, Stamp, Stamped};
use edgewarden::mqtt::spool::{MemoryStore, Spool};
use edgewarden::mqtt::topics::Said;
use std::sync::Arc;
use std::time::Duration;

/// A guard against hanging, not a measure.
const PATIENCE: Duration = Duration::from_secs(60);
const AVAILABILITY: &str = "edgewarden/light/availability";

fn spool() -> Spool {
    Spool::open(MemoryStore::default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_will_that_comes_late_is_contradicted() {
    let (broker, heard) = (Mosquitto::start(), Arc::new(Heard::default()));
    let mut ear = Ear::listen(broker.port, &heard, PATIENCE);
    let (handle, _incoming) = light::start(broker.port, "light", spool());
    let said = |words: &'static [&str]| {
        move |messages: &[(String, Vec<u8>)]| {
            let all = messages.iter().filter(|(topic, _)| topic == AVAILABILITY);
            all.map(|(_, word)| std::str::from_utf8(word).unwrap()).eq(words.iter().copied()).then_some(())
        }
    };
    heard.until("that it is there", PATIENCE, said(&["online"]));
    // As a broker does that notices the end of the former connection only now.
    ear.publish(AVAILABILITY, b"offline");
    heard.until("that it still is", PATIENCE, said(&["online", "offline", "online"]));
    // Its own goodbye is the last word.
    handle.shutdown(PATIENCE).await;
    ear.catch_up(1);
    heard.until("the goodbye", PATIENCE, said(&["online", "offline", "online", "offline"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_dropped_is_told_once_there_is_room_again() {
    let (mut broker, heard) = (Mosquitto::start(), Arc::new(Heard::default()));
    broker.stop();
    let bounds = SpoolBounds { messages: 100, bytes: 1 << 20 };
    let spool = Spool::with_bounds(MemoryStore::default(), bounds);
    let (handle, _incoming) = light::start(broker.port, "light", spool);
    for n in 1..=150 {
        let said = Said::Ack { command: "told".into(), id: n.to_string().parse().unwrap() };
        let class = if n <= 40 { Importance::Reply } else { Importance::Event };
        handle.spooled(&said, Told { life: 0, n, pad: String::new() }, None, class);
    }
    assert!(handle.accepted().await);
    let expected = Dropped { event: 50, ..Dropped::default() };
    assert_eq!(handle.figures().dropped, expected);
    broker.restart();
    let _ear = Ear::listen(broker.port, &heard, PATIENCE);
    let told = heard.until("what was dropped", PATIENCE, |messages| {
        let found = messages.iter().find(|(topic, _)| topic == "edgewarden/light/dropped")?;
        Some(Stamped::<DroppedReport>::read(&found.1).expect("one of ours"))
    });
    assert_eq!(told.body, DroppedReport { dropped: expected, since_start: expected });
    let told = heard.until("all that was kept", PATIENCE, |messages| {
        let kept = messages.iter().filter(|(topic, _)| topic.contains("/ack/told/"));
        let n = |json: &Vec<u8>| Stamped::<Told>::read(json).expect("one of ours").body.n;
        let kept: std::collections::BTreeSet<u64> = kept.map(|(_, json)| n(json)).collect();
        (kept.len() == 100).then_some(kept)
    });
    let expected: Vec<u64> = (1..=40).chain(91..=150).collect();
    assert_eq!(told.into_iter().collect::<Vec<u64>>(), expected, "the replies, and the newest events");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_tells_when_it_was_made_and_when_it_was_sent() {
    let (mut broker, heard) = (Mosquitto::start(), Arc::new(Heard::default()));
    broker.stop();
    let (handle, _incoming) = light::start(broker.port, "light", spool());
    light::tell(&handle, &Told { life: 0, n: 1, pad: String::new() });
    assert!(handle.accepted().await);
    let waited = jiff::Timestamp::now();
    broker.restart();
    let _ear = Ear::listen(broker.port, &heard, PATIENCE);
    let stamp: Stamp = heard.until("the message", PATIENCE, |messages| {
        let found = messages.iter().find(|(topic, _)| topic.ends_with("/ack/told/0-1"))?;
        Some(serde_json::from_slice(&found.1).expect("one of ours"))
    });
    assert!(stamp.made_at.unwrap() < waited && stamp.sent_at.unwrap() > waited, "{stamp:?}");
    assert_eq!((stamp.device.unwrap().as_str(), stamp.boot_id.as_deref()), ("light", Some("light")));
    assert!(stamp.message_seq > 0 && stamp.run_id.is_some());
}

/// A broker with a listener for websockets beside the plain one, the port of that, and an ear at the plain one.
pub fn web_broker(more: &str, heard: &Arc<Heard>) -> (Mosquitto, u16, Ear) {
    // Somebody else may take the second port before the broker does; it ends then.
    for _ in 0..5 {
        let port = free_port();
        let lines = format!("listener {port} 127.0.0.1\nprotocol websockets\n{more}");
        let broker = Mosquitto::with(&Setup { lines: vec![lines.leak()], ..Setup::default() });
        if let Ok(ear) = Ear::try_listen(broker.port, heard, PATIENCE) {
            return (broker, port, ear);
        }
    }
    panic!("mosquitto ended five times");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_is_reached_through_a_web_server() {
    let authority = Authority::new();
    let pair = authority.sign("localhost", Dates::Good);
    let tls = authority.listener(&pair);
    let trusting = TlsSettings { ca_file: Some(authority.cert()), client: None };
    for (more, tls, scheme) in [("", None, "ws"), (tls.as_str(), Some(trusting), "wss")] {
        let heard = Arc::new(Heard::default());
        let (_broker, port, mut ear) = web_broker(more, &heard);
        let host = "localhost".to_owned();
        let settings = MqttSettings { host, web_path: Some("/mqtt".into()), tls, ..light::settings(port) };
        let (handle, mut incoming) = light::start_with(&settings, "light", spool());
        assert_eq!(handle.link_health().target.unwrap(), format!("{scheme}://localhost:{port}/mqtt"));
        light::tell(&handle, &Told { life: 0, n: 1, pad: "x".repeat(100_000) });
        heard.until("the message", PATIENCE, |messages| {
            messages.iter().any(|(topic, _)| topic.ends_with("/ack/told/0-1")).then_some(())
        });
        ear.publish("edgewarden/light/cmd/status/1", b"{}");
        let asked = tokio::time::timeout(PATIENCE, incoming.recv()).await.expect("in time");
        assert_eq!(asked.unwrap().request.command.name(), "status");
        handle.shutdown(PATIENCE).await;
    }
    // Something listens there that knows nothing of MQTT.
    let web = Web::start(std::path::Path::new("/nonexistent"));
    let port = web.url().trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap();
    let settings = MqttSettings { web_path: Some("/mqtt".into()), ..light::settings(port) };
    let (handle, _incoming) = light::start_with(&settings, "light", spool());
    let mut state = handle.connected();
    let down = state.wait_for(|state| matches!(state, State::Down { .. }));
    tokio::time::timeout(PATIENCE, down).await.expect("in time").unwrap();
    let told = handle.link_health().last_error.unwrap();
    assert!(told.detail.contains("404") && told.detail.contains("mqtt.url"), "{told}");
}

/// As a service manager hands a secret over: in a folder that the environment names.
#[test]
fn a_password_comes_as_a_credential_of_the_service_manager() {
    let broker = Mosquitto::with(&Setup { login: Some(("pi", "right")), ..Setup::default() });
    let options = Options::default().set("mqtt.url", broker.url()).set("mqtt.username", "pi");
    let options = options.set("mqtt.password_file", "credential:mqtt-password");
    let credentials = tempfile::tempdir().unwrap();
    let mut device = Device::new(options.env("CREDENTIALS_DIRECTORY", credentials.path().to_str().unwrap()));
    std::fs::write(credentials.path().join("mqtt-password"), "right\n").unwrap();
    device.start();
    wait_until("the link", PATIENCE, || device.status().health.mqtt.reached.then_some(()));
    assert!(device.stop().success());
}
