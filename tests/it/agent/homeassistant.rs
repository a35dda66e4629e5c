//! What Home Assistant sees of a device: it appears, is told anew when Home Assistant comes up, can be updated from
//! there, and goes away when it is told to.

use crate::support::colour_model::{many_classes_bundle, spot};
use crate::support::device::{Device, Options, PATIENCE, Repository, release};
use crate::support::mosquitto::Mosquitto;
use crate::support::wait_until;
use edgewarden::mqtt::message::{Message, Received};
use edgewarden::mqtt::operator::Operator;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// Somebody at the broker who hears what Home Assistant hears.
struct Home {
    operator: Operator,
    tokio: Runtime,
}

impl Home {
    fn at(broker: &Mosquitto) -> Self {
        let tokio =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let filters = vec!["homeassistant/device/+/config".to_owned()];
        let url = broker.url();
        let connected = Operator::connect(&url, None, "edgewarden", filters, PATIENCE);
        let operator = tokio.block_on(connected).expect("a connection");
        Self { operator, tokio }
    }

    /// The next discovery message that is as wanted.
    fn until(&self, what: &str, wanted: impl Fn(&Received, &Value) -> bool) -> (Received, Value) {
        loop {
            let message = self.tokio.block_on(self.operator.next(PATIENCE));
            let message = message.unwrap_or_else(|| panic!("never: {what}"));
            let value = serde_json::from_slice(&message.payload).unwrap_or_default();
            if wanted(&message, &value) {
                return (message, value);
            }
        }
    }

    fn say(&self, topic: &str, payload: &str) {
        let message = Message {
            topic: topic.to_owned(),
            payload: payload.to_owned().into_bytes().into(),
            ..Message::default()
        };
        self.tokio.block_on(self.operator.publish(message, PATIENCE)).expect("publish");
    }
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value["components"]["update_main"].get(key)?.as_str()
}

#[test]
fn it_appears_is_updated_from_there_and_goes_when_told() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2"]);
    let rules: toml::Table = "classes = [\"nut\"]".parse().unwrap();
    let options = Options::new(&broker, &repository).set("pipeline.events", rules);
    let mut device = Device::serving(options, &release(1));

    // Whoever comes later finds it, with the release that the repository lists.
    let home = Home::at(&broker);
    let button = |value: &Value| text(value, "payload_install").is_some();
    let (_, shown) = home.until("an offer", |_, value| button(value));
    assert_eq!(shown["device"]["name"], device.id().as_str());
    let entities = shown["components"].as_object().unwrap();
    for key in
        ["health", "fps_main", "latency_main", "model_main", "picture_main", "event_main", "count_main_nut"]
    {
        assert!(entities.contains_key(key), "{key} in {:?}", entities.keys());
    }
    assert_eq!(shown["availability"][0]["topic"], format!("edgewarden/{}/availability", device.id()));
    let later = Home::at(&broker);
    later.until("what the broker kept", |message, value| message.retained && button(value));

    // Home Assistant comes up.
    home.say("homeassistant/status", "offline");
    home.say("homeassistant/status", "online");
    let (_, shown) = home.until("it is told anew", |message, value| !message.retained && button(value));

    // Its button, while the source is paused by hand: it is refused, and may be pressed again, under another name.
    device.command("pause", json!({})).unwrap();
    home.say(text(&shown, "command_topic").unwrap(), text(&shown, "payload_install").unwrap());
    let used = shown.clone();
    let (_, shown) = home.until("another name", |_, value| {
        button(value) && text(value, "command_topic") != text(&used, "command_topic")
    });
    device.command("resume", json!({})).unwrap();
    // Pressed twice it is one command.
    let (topic, payload) = (text(&shown, "command_topic").unwrap(), text(&shown, "payload_install").unwrap());
    home.say(topic, payload);
    home.say(topic, payload);
    device.until("the update", |heard| (heard.current()? == release(2)).then_some(()));
    home.until("nothing is newer", |_, value| value["components"].is_object() && !button(value));

    assert!(device.stop().success());
    device.configure(|options| options.set("homeassistant.discovery", false));
    device.start();
    home.until("it is taken away", |message, _| message.payload.is_empty());
    // It listens for signals by then.
    device.status();
    assert!(device.stop().success());
    let late = Home::at(&broker);
    late.say("homeassistant/device/other/config", "{}");
    let (first, _) = late.until("a message", |_, _| true);
    assert_eq!(first.topic, "homeassistant/device/other/config", "the broker keeps nothing of it");
}

/// Where commands need a signature, Home Assistant shows the version and has no button.
#[test]
fn a_device_that_wants_signatures_has_no_button() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2"]);
    let mut device = Device::serving(Options::new(&broker, &repository), &release(1));
    assert!(device.stop().success());
    device.configure(|options| options.set("commands.require_signature", true));
    let home = Home::at(&broker);
    device.start();
    let (_, shown) = home.until("it says so", |message, value| {
        !message.retained && text(value, "value_template").is_some_and(|template| template.contains("@2.0.0"))
    });
    assert_eq!((text(&shown, "command_topic"), text(&shown, "payload_install")), (None, None));
}

/// The names of the classes that are counted there.
fn counted(value: &Value) -> Vec<String> {
    let entities = value["components"].as_object().into_iter().flatten();
    entities.filter_map(|(key, _)| Some(key.strip_prefix("count_main_")?.to_owned())).collect()
}

/// A classifier of 1200 classes: of those that it sees some have a sensor, and those keep it.
#[test]
fn a_model_of_a_thousand_classes_makes_a_few_sensors_that_stay() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&[]);
    let bundle = repository.dir.path().join("pixels");
    std::fs::create_dir(&bundle).unwrap();
    assert_eq!(many_classes_bundle(&bundle), 1200);
    let published = repository.publisher.publish(&bundle, jiff::Timestamp::now(), &|_| {}).unwrap();
    let pictures = repository.dir.path().join("pictures");
    std::fs::create_dir(&pictures).unwrap();
    std::fs::write(pictures.join("005.jpg"), spot(5)).unwrap();
    let rules: toml::Table = "inertia = [1, 1]\nlost_after = \"100ms\"".parse().unwrap();
    let options = Options::new(&broker, &repository).pictures(&pictures).set("pipeline.events", rules);
    let home = Home::at(&broker);
    let mut device = Device::serving(options, &published.release.to_string());
    let (_, shown) = home.until("the one class that is seen", |_, value| !counted(value).is_empty());
    assert!(matches!(&counted(&shown)[..], [one] if one.starts_with("class_0005")), "{shown}");

    // More of them than have room.
    assert!(device.stop().success());
    (100..140).for_each(|class| std::fs::write(pictures.join(format!("{class}.jpg")), spot(class)).unwrap());
    device.start();
    let (message, shown) = home.until("as many as have room", |_, value| counted(value).len() == 32);
    assert!(message.payload.len() < 32 << 10, "{} bytes", message.payload.len());
    let there = counted(&shown);
    assert!(there.iter().any(|class| class.starts_with("class_0005")), "{there:?}");
    device.until("more than that", |heard| (heard.counts.last()?.counts.len() > 36).then_some(()));
    wait_until("it is told", PATIENCE, || device.log().contains("more classes than 32").then_some(()));

    // All that is seen from here on is another class.
    assert!(device.stop().success());
    (100..140).for_each(|class| std::fs::remove_file(pictures.join(format!("{class}.jpg"))).unwrap());
    std::fs::write(pictures.join("005.jpg"), spot(399)).unwrap();
    device.start();
    device.until("the other", |heard| heard.counts.last()?.counts.contains_key("class 0399").then_some(()));
    let later = Home::at(&broker);
    later.say("homeassistant/status", "online");
    let (_, shown) = later.until("what it says now", |message, _| !message.retained);
    assert_eq!(counted(&shown), there);
}
