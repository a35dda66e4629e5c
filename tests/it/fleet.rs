//! The operator's command line, `edgewarden fleet`, with the real program, a real mosquitto and real daemons.

/// The example of an access list, held against a real mosquitto.
mod access_list;
/// Messages of devices that were taken over, or that nobody has ever seen before.
mod hostile;
/// Thousands of devices.
mod many;
/// Commands to a device and to a group, with and without a signature; pictures.
mod sending;
/// Tables, live and not, and all of one device.
mod tables;
/// A broker behind a web server.
mod web;

use crate::support::device::{Device, PATIENCE};
use crate::support::mosquitto::Mosquitto;
use crate::support::{Edgewarden, Ended, wait_until};
use bytes::Bytes;
use edgewarden::domain::Reason;
use edgewarden::mqtt::message::Message;
use edgewarden::mqtt::operator::Operator;
use serde_json::Value;
use std::process::Command;

/// A command below `fleet`, which the user's own file does not reach.
fn command(broker: &str, arguments: &[&str]) -> Command {
    let mut command = Edgewarden::command();
    command.arg("fleet").args(arguments).args(["--broker", broker]).env("XDG_CONFIG_HOME", "/nonexistent");
    command
}

/// Runs it to its end.
fn fleet(broker: &str, arguments: &[&str]) -> Ended {
    let output = command(broker, arguments).output().expect("start the binary");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    let ended =
        Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) };
    // No reader is a terminal here, so nothing may be there that only a terminal understands.
    let free = |text: &str| !text.chars().any(|c| c.is_control() && c != '\n');
    assert!(free(&ended.stdout) && free(&ended.stderr), "{ended:?}");
    ended
}

/// The lines of its answer, each of them JSON.
fn json_lines(text: &str) -> Vec<Value> {
    let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    text.lines().map(read).collect()
}

/// Its rows, once they give a value: what a device has said reaches the broker a moment later.
fn rows<T>(broker: &str, what: &str, found: impl Fn(&[Value]) -> Option<T>) -> T {
    wait_until(what, PATIENCE, || {
        let ended = fleet(broker, &["list", "--json"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        found(&json_lines(&ended.stdout))
    })
}

/// The row of a device.
fn row_of<'a>(rows: &'a [Value], device: &str) -> Option<&'a Value> {
    rows.iter().find(|row| row["device"] == device)
}

/// Somebody at the broker who says what he likes.
struct Somebody {
    operator: Operator,
    tokio: tokio::runtime::Runtime,
}

impl Somebody {
    fn at(broker: &Mosquitto) -> Self {
        Self::as_user(broker, "", &[])
    }

    /// Under a name, hearing what the filters let through.
    fn as_user(broker: &Mosquitto, user: &str, filters: &[&str]) -> Self {
        let tokio =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let at = if user.is_empty() { String::new() } else { format!("{user}@") };
        let url = format!("mqtt://{at}127.0.0.1:{}", broker.port);
        let filters = filters.iter().map(|filter| (*filter).to_owned()).collect();
        let operator =
            tokio.block_on(Operator::connect(&url, None, "edgewarden", filters, PATIENCE)).unwrap();
        Self { operator, tokio }
    }

    /// Says it; a broker's refusal is the error.
    fn says(&self, topic: &str, payload: impl Into<Bytes>, retain: bool) -> Result<(), Reason> {
        let message =
            Message { topic: topic.to_owned(), payload: payload.into(), retain, ..Message::default() };
        self.tokio.block_on(self.operator.publish(message, PATIENCE))
    }

    /// The next message of a topic that ends so.
    fn hears(&self, end: &str) -> (String, Bytes) {
        loop {
            let message =
                self.tokio.block_on(self.operator.next(PATIENCE)).unwrap_or_else(|| panic!("no {end}"));
            if message.topic.ends_with(end) {
                return (message.topic, message.payload);
            }
        }
    }

    /// A message of each kind that a healthy device keeps at the broker.
    fn plays(&self, device: &str, group: &str) {
        for (topic, payload) in healthy(device, group) {
            self.says(&topic, payload, true).unwrap();
        }
    }
}

/// What a healthy device without a slot keeps at the broker.
fn healthy(device: &str, group: &str) -> [(String, String); 3] {
    let stamp = r#""schema":1,"message_id":"01890000-0000-7000-8000-000000000000","message_seq":1"#;
    let now = jiff::Timestamp::now();
    let document = |body: String| format!(r#"{{{stamp},"sent_at":"{now}","device":"{device}",{body}}}"#);
    [
        ("birth", document(format!(r#""groups":["{group}"],"agent_version":"9.9.9""#))),
        (
            "health",
            document(r#""state":"ok","problems":[],"pipelines":[],"clock_synchronised":true"#.to_owned()),
        ),
        ("availability", "online".to_owned()),
    ]
    .map(|(below, payload)| (format!("edgewarden/{device}/{below}"), payload))
}

/// Waits until a device of a test's own has said that it is there.
fn until_online(device: &Device) {
    device.until("the device is online", |heard| heard.online().then_some(()));
}
