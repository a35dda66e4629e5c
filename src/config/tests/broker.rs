//! `[mqtt]`: the ways to a broker, and what is kept for it.

use super::*;
use crate::config::settings::{MqttSettings, SpoolBounds};

fn mqtt(text: &str) -> MqttSettings {
    read(&format!("{SMALLEST}[mqtt]\n{text}\n")).unwrap().mqtt.unwrap()
}

#[test]
fn a_broker_is_reached_plainly_over_tls_or_through_a_web_server() {
    for (url, port, tls, path) in [
        ("mqtt://h", 1883, false, None),
        ("mqtts://h", 8883, true, None),
        ("ws://h", 80, false, Some("/mqtt")),
        ("wss://h", 443, true, Some("/mqtt")),
        ("wss://h:8443/broker/ws", 8443, true, Some("/broker/ws")),
        ("ws://h:9001/", 9001, false, Some("/mqtt")),
    ] {
        let mqtt = mqtt(&format!("url = \"{url}\""));
        let got = (mqtt.host.as_str(), mqtt.port, mqtt.tls.is_some(), mqtt.web_path.as_deref());
        assert_eq!(got, ("h", port, tls, path), "{url}");
    }
    assert!(mqtt("url = \"wss://h\"\nca_file = \"ca.pem\"").tls.unwrap().ca_file.is_some());
    for (text, told) in [
        ("url = \"ws://h\"\nca_file = \"a\"", "mqtt.url: is without TLS"),
        ("url = \"wss://u:hunter2@h/mqtt\"", "mqtt.url: names a user or a password"),
        ("url = \"wss://h/mqtt?a=b\"", "nothing may follow the path"),
    ] {
        let faults = faults(&format!("{SMALLEST}[mqtt]\n{text}\n"));
        assert!(faults.iter().any(|fault| fault.contains(told)), "{text}: {faults:?}");
    }
}

#[test]
fn what_is_kept_for_a_broker_has_bounds_of_its_own() {
    assert_eq!(mqtt("url = \"mqtt://h\"").spool, SpoolBounds::default());
    let most = mqtt("url = \"mqtt://h\"\nspool_messages = 1000000\nspool_bytes = \"1GiB\"").spool;
    assert_eq!(most, SpoolBounds { messages: 1_000_000, bytes: 1 << 30 });
}
