//! The device `pi-1`, which these tests connect to a broker, an operator who hears it, and what is waited for.

use crate::support::light;
use crate::support::mosquitto::Mosquitto;
use edgewarden::config::settings::MqttSettings;
use edgewarden::domain::deployment::{BundleRef, DeploymentState, SlotState, Stage};
use edgewarden::domain::{DeviceId, Digest, Reason, ReasonCode};
use edgewarden::mqtt::message::Received;
use edgewarden::mqtt::operator::Operator;
use edgewarden::mqtt::payloads::{Birth, Stamped};
use edgewarden::mqtt::spool::{MemoryStore, Spool};
use edgewarden::mqtt::topics::{Audience, Said, Topic, Topics};
use edgewarden::mqtt::{Handle, Incoming, State};
use std::time::Duration;
use tokio::sync::mpsc;

/// A guard against hanging, not a measure.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub fn device() -> DeviceId {
    birth().device
}

pub fn birth() -> Birth {
    light::birth("pi-1", "line-3")
}

/// One command may wait for it.
pub fn start_with(settings: &MqttSettings, spool: Spool) -> (Handle, mpsc::Receiver<Incoming>) {
    connect(settings, spool).expect("it starts")
}

pub fn connect(settings: &MqttSettings, spool: Spool) -> Result<(Handle, mpsc::Receiver<Incoming>), Reason> {
    light::connect(settings, birth(), spool, 1)
}

pub fn start(broker: &Mosquitto) -> (Handle, mpsc::Receiver<Incoming>) {
    start_with(&light::settings(broker.port), Spool::open(MemoryStore::default()))
}

pub async fn operator(broker: &Mosquitto) -> Operator {
    let all = Topics::new("edgewarden").unwrap().all_of(&device());
    Operator::connect(&broker.url(), None, "edgewarden", vec![all], PATIENCE).await.unwrap()
}

pub async fn until_up(handle: &Handle) {
    let mut state = handle.connected();
    let up = state.wait_for(|state| state.generation().is_some());
    tokio::time::timeout(PATIENCE, up).await.expect("connected in time").unwrap();
}

pub async fn until_down(handle: &Handle) -> Reason {
    let mut state = handle.connected();
    let down = state.wait_for(|state| matches!(state, State::Down { .. }));
    match &*tokio::time::timeout(PATIENCE, down).await.expect("known in time").unwrap() {
        State::Down { reason } => reason.clone(),
        other => panic!("{other:?}"),
    }
}

/// Waits for a fact that the pump makes true.
pub async fn until(what: &str, fact: impl Fn() -> bool) {
    let wait = async {
        while !fact() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// The next thing that the device says at a topic that `wanted` accepts.
pub async fn heard(operator: &Operator, wanted: impl Fn(&Said) -> bool) -> (Said, Received) {
    loop {
        let message = operator.next(PATIENCE).await.expect("the device says it in time");
        if let Some(Topic::Said { said, .. }) = operator.topics().parse(&message.topic)
            && wanted(&said)
        {
            return (said, message);
        }
    }
}

pub async fn heard_text(operator: &Operator, wanted: Said) -> (String, bool) {
    let (_, message) = heard(operator, |said| *said == wanted).await;
    (String::from_utf8(message.payload.to_vec()).unwrap(), message.retained)
}

pub async fn heard_state(operator: &Operator) -> (SlotState, bool) {
    let (_, message) = heard(operator, |said| matches!(said, Said::SlotState(_))).await;
    (Stamped::<SlotState>::read(&message.payload).unwrap().body, message.retained)
}

pub fn slot_state(stage: Stage, progress: f32, detail: &str) -> SlotState {
    let release = "belt@1.0.0".parse::<edgewarden::domain::Release>().unwrap();
    SlotState {
        slot: "detector".parse().unwrap(),
        current: Some(BundleRef { release: release.clone(), digest: Digest::from_bytes([7; 32]) }),
        previous: None,
        provider: None,
        deployment: Some(DeploymentState {
            id: "d1".parse().unwrap(),
            release,
            stage,
            progress: Some(progress),
            reason: (!detail.is_empty()).then(|| Reason::new(ReasonCode::TooSlow, detail)),
            shadow: None,
            cause: None,
            waiting: None,
            transfer: None,
        }),
        safe_mode: None,
    }
}

pub fn to_device() -> Audience {
    Audience::Device(device())
}
