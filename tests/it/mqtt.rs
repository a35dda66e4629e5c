//! The device's side of MQTT against a real mosquitto: presence, commands, and that what must
//! arrive does.

/// Events: which of them may be left out.
mod events;
/// Messages that are too large.
mod oversize;

/// The device, and who hears it.
mod pi;

use crate::support::certificates::{Authority, Dates};
use crate::support::light::{made_up, settings};
use crate::support::mosquitto::{Mosquitto, Setup, free_port};
use edgewarden::config::settings::TlsSettings;
use edgewarden::domain::command::{Command, Progress};
use edgewarden::domain::deployment::{SlotState, Stage};
use edgewarden::domain::metrics::MetricsReport;
use edgewarden::domain::{FrameResult, ReasonCode};
use edgewarden::mqtt::message::Message;
use edgewarden::mqtt::operator::Operator;
use edgewarden::mqtt::payloads::{Birth, CommandReply, ReplyStatus, Stamped};
use edgewarden::mqtt::spool::{DiskStore, MemoryStore, Spool};
use edgewarden::mqtt::topics::{Audience, Said};
use edgewarden::sys::store::Store;
use pi::*;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn the_device_presents_itself_to_whoever_comes_later() {
    let broker = Mosquitto::start();
    let (handle, _incoming) = start(&broker);
    handle.slot_state(&slot_state(Stage::Committed, 1.0, ""));
    until("the state is acknowledged", || handle.figures().published >= 3).await;

    let operator = operator(&broker).await;
    let mut kept = std::collections::BTreeMap::new();
    while kept.len() < 3 {
        let message = operator.next(PATIENCE).await.expect("three retained messages");
        assert!(message.retained, "{}", message.topic);
        kept.insert(message.topic, message.payload);
    }
    assert_eq!(kept["edgewarden/pi-1/availability"], "online");
    let presented: Stamped<Birth> = serde_json::from_slice(&kept["edgewarden/pi-1/birth"]).unwrap();
    assert_eq!(presented.body, birth());
    let state: Stamped<SlotState> =
        serde_json::from_slice(&kept["edgewarden/pi-1/model/detector/state"]).unwrap();
    assert_eq!(state.body, slot_state(Stage::Committed, 1.0, ""));

    handle.telemetry(&"belt".parse().unwrap(), &made_up(41));
    let (_, message) = heard(&operator, |said| matches!(said, Said::Telemetry(_))).await;
    assert!(!message.retained);
    assert_eq!(Stamped::<FrameResult>::read(&message.payload).unwrap().body, made_up(41));
    handle.metrics(&MetricsReport::default());
    heard(&operator, |said| *said == Said::Metrics).await;
    handle.snapshot(&"belt".parse().unwrap(), vec![0xff, 0xd8].into()).unwrap();
    let (_, jpeg) = heard(&operator, |said| matches!(said, Said::Snapshot(_))).await;
    assert_eq!(&jpeg.payload[..], [0xff, 0xd8]);
    assert!(handle.snapshot(&"belt".parse().unwrap(), vec![0; 128 << 10].into()).is_err());
    assert!(handle.link_health().reached);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_says_offline_for_a_device_that_is_cut_off() {
    let broker = Mosquitto::start();
    let (handle, _incoming) = start(&broker);
    let operator = operator(&broker).await;
    assert_eq!(heard_text(&operator, Said::Availability).await.0, "online");
    drop(handle);
    assert_eq!(heard_text(&operator, Said::Availability).await, ("offline".into(), false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_end_sends_what_waits_and_says_offline_last() {
    let broker = Mosquitto::start();
    let (handle, _incoming) = start(&broker);
    let operator = operator(&broker).await;
    heard_text(&operator, Said::Availability).await;
    for stage in [Stage::Fetching, Stage::Verifying, Stage::Staged] {
        handle.slot_state(&slot_state(stage, 0.5, ""));
    }
    handle.shutdown(PATIENCE).await;
    for stage in [Stage::Fetching, Stage::Verifying, Stage::Staged] {
        assert_eq!(heard_state(&operator).await.0, slot_state(stage, 0.5, ""));
    }
    assert_eq!(heard_text(&operator, Said::Availability).await.0, "offline");
    assert_eq!(handle.figures().spool_len, 0);
    handle.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_answered_step_by_step_and_a_double_is_not_run_again() {
    let broker = Mosquitto::start();
    let (handle, mut incoming) = start(&broker);
    until_up(&handle).await;
    let operator = operator(&broker).await;
    let arguments = serde_json::json!({ "slot": "detector", "release": "belt@2.0.0" });
    let id = "job-7".parse().unwrap();
    let mut pending =
        operator.command_with_id(&to_device(), "update", &arguments, &id, PATIENCE).await.unwrap();

    let asked = incoming.recv().await.unwrap();
    assert_eq!(asked.request.id, id);
    assert_eq!(asked.request.command.name(), "update");
    asked.replies.send(Progress::Executing { detail: "fetching".into(), fraction: Some(0.5) });
    asked.replies.send(Progress::Successful { result: serde_json::json!({ "stage": "committed" }) });
    asked.replies.send(Progress::Successful { result: serde_json::json!("too late") });
    drop(asked);
    let done = ReplyStatus::Successful { result: serde_json::json!({ "stage": "committed" }) };
    for expected in [
        ReplyStatus::Init,
        ReplyStatus::Executing { detail: "fetching".into(), fraction: Some(0.5) },
        done.clone(),
    ] {
        let reply = pending.next(PATIENCE).await.expect("a reply");
        assert_eq!(
            reply,
            CommandReply { device: device(), command: "update".into(), id: id.clone(), status: expected }
        );
    }

    let mut again =
        operator.command_with_id(&to_device(), "update", &arguments, &id, PATIENCE).await.unwrap();
    assert_eq!(again.next(PATIENCE).await.expect("the former reply").status, done);
    assert!(incoming.try_recv().is_err(), "the agent did not hear of the double");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_to_a_group_without_a_response_topic_is_acknowledged_at_the_devices_own() {
    let broker = Mosquitto::start();
    let (handle, mut incoming) = start(&broker);
    until_up(&handle).await;
    let operator = operator(&broker).await;
    let group = Audience::Group("line-3".parse().unwrap());
    let id = "g1".parse().unwrap();
    // The second names a device's topic as its response topic: that is not obeyed.
    for response_topic in [None, Some("edgewarden/pi-2/cmd/restart/1".to_owned())] {
        let command = if response_topic.is_none() { "status" } else { "restart" };
        let topic = operator.topics().command(&group, command, &id);
        operator.publish(Message { topic, response_topic, ..Message::default() }, PATIENCE).await.unwrap();
        drop(incoming.recv().await.unwrap());
        let ack = Said::Ack { command: command.into(), id: id.clone() };
        let reply = |text: String| serde_json::from_str::<Stamped<CommandReply>>(&text).unwrap().body.status;
        assert_eq!(reply(heard_text(&operator, ack.clone()).await.0), ReplyStatus::Init);
        let ReplyStatus::Failed { reason } = reply(heard_text(&operator, ack).await.0) else {
            panic!("a command that the agent dropped has failed")
        };
        assert_eq!(reason.code, ReasonCode::Internal);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_command_is_refused_with_its_reason() {
    let broker = Mosquitto::start();
    let operator = operator(&broker).await;
    let topic = operator.topics().command(&to_device(), "restart", &"old".parse().unwrap());
    let kept = Message { topic, payload: "{}".into(), retain: true, ..Message::default() };
    operator.publish(kept, PATIENCE).await.unwrap();

    let (handle, mut incoming) = start(&broker);
    let ack = Said::Ack { command: "restart".into(), id: "old".parse().unwrap() };
    let refused = heard_text(&operator, ack).await.0;
    assert!(refused.contains("retained by the broker"), "{refused}");
    until_up(&handle).await;
    for (command, arguments, says) in [
        ("update", serde_json::json!({ "slot": "detector" }), "missing field `release`"),
        ("status", serde_json::json!({ "pad": "x".repeat(20 << 10) }), "16384 are allowed"),
        ("format", serde_json::json!({}), "no such command"),
    ] {
        let mut pending = operator.command(&to_device(), command, &arguments, PATIENCE).await.unwrap();
        let reason = pending.finish(PATIENCE).await.unwrap_err();
        assert_eq!(reason.code, ReasonCode::BadRequest);
        assert!(reason.detail.contains(says), "{reason}");
    }
    assert!(incoming.try_recv().is_err(), "the agent heard of none");

    // One command fits into the agent's queue here; the next one hears that it is busy.
    let _first = operator.command(&to_device(), "status", &serde_json::json!({}), PATIENCE).await.unwrap();
    let id = "later".parse().unwrap();
    let arguments = serde_json::json!({});
    let mut second =
        operator.command_with_id(&to_device(), "status", &arguments, &id, PATIENCE).await.unwrap();
    assert_eq!(second.finish(PATIENCE).await.unwrap_err().code, ReasonCode::Busy);
    let first = incoming.recv().await.unwrap();
    assert_eq!(first.request.command, Command::Status);
    let mut second =
        operator.command_with_id(&to_device(), "status", &arguments, &id, PATIENCE).await.unwrap();
    let asked = incoming.recv().await.expect("a busy answer is no double");
    asked.replies.send(Progress::Successful { result: serde_json::json!(1) });
    assert_eq!(second.finish(PATIENCE).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_offline_arrives_in_order_after_a_restart_of_the_agent() {
    let stages = [Stage::Resolving, Stage::Fetching, Stage::Verifying, Stage::OnTrial, Stage::RolledBack];
    let dir = tempfile::tempdir().unwrap();
    {
        let opened = Store::open(dir.path()).unwrap();
        let spool = Spool::open(DiskStore::new(&opened.store));
        let (handle, _incoming) = start_with(&settings(free_port()), spool);
        for stage in stages {
            // Within a stage only the newest is kept.
            for step in 1..=4_u8 {
                handle.slot_state(&slot_state(stage, f32::from(step) / 4.0, ""));
            }
        }
        handle.telemetry(&"belt".parse().unwrap(), &made_up(1));
        assert_eq!(handle.figures().live_dropped, 1, "results are not kept");
        handle.shutdown(PATIENCE).await;
        assert_eq!(handle.figures().spool_len, stages.len() as u64);
    }
    let broker = Mosquitto::start();
    let operator = operator(&broker).await;
    let opened = Store::open(dir.path()).unwrap();
    let spool = Spool::open(DiskStore::new(&opened.store));
    let (handle, _incoming) = start_with(&settings(broker.port), spool);
    for stage in stages {
        assert_eq!(heard_state(&operator).await, (slot_state(stage, 1.0, ""), false));
    }
    until("all is acknowledged", || handle.figures().spool_len == 0).await;
    assert_eq!(handle.figures().spool_dropped, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_forgot_everything_is_told_again() {
    let mut broker = Mosquitto::start();
    let (handle, mut incoming) = start(&broker);
    handle.slot_state(&slot_state(Stage::Committed, 1.0, ""));
    until("the state is acknowledged", || handle.figures().published >= 3).await;
    broker.stop();
    let reason = until_down(&handle).await;
    assert_eq!(reason.code, ReasonCode::BrokerUnreachable, "{reason}");
    handle.slot_state(&slot_state(Stage::Fetching, 0.1, ""));
    handle.slot_state(&slot_state(Stage::RolledBack, 1.0, "slow"));
    broker.restart();
    until_up(&handle).await;
    until("the spool is empty", || handle.figures().spool_len == 0).await;
    assert_eq!(handle.figures().connects, 2);

    let operator = operator(&broker).await;
    let mut topics = std::collections::BTreeSet::new();
    while topics.len() < 3 {
        let message = operator.next(PATIENCE).await.expect("three retained messages");
        if message.topic.ends_with("/state") {
            let state: Stamped<SlotState> = serde_json::from_slice(&message.payload).unwrap();
            assert_eq!(state.body, slot_state(Stage::RolledBack, 1.0, "slow"), "the newest is kept");
        }
        topics.insert(message.topic);
    }
    // The broker lost our subscriptions with the session, too.
    let mut pending =
        operator.command(&to_device(), "status", &serde_json::json!({}), PATIENCE).await.unwrap();
    let asked = incoming.recv().await.unwrap();
    asked.replies.send(Progress::Successful { result: serde_json::json!({}) });
    pending.finish(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_the_broker_comes_and_goes() {
    const STATES: u16 = 400;
    let mut broker = Mosquitto::start();
    let (handle, _incoming) = start(&broker);
    until_up(&handle).await;
    let numbered = |n: u16| {
        // Each a deployment of its own, so that none takes the place of another.
        let mut state = slot_state(Stage::Committed, 1.0, "");
        state.deployment.as_mut().unwrap().id = format!("d{n}").parse().unwrap();
        state
    };
    let teller = handle.clone();
    let telling = tokio::spawn(async move {
        for n in 0..STATES {
            teller.slot_state(&numbered(n));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    for connects in 2..=4 {
        broker.restart();
        until("connected again", || handle.figures().connects >= connects).await;
    }
    telling.await.unwrap();
    until("the spool is empty", || handle.figures().spool_len == 0).await;
    let figures = handle.figures();
    assert_eq!(figures.spool_dropped, 0);
    assert!(figures.published >= u64::from(STATES), "{figures:?}");
    assert_eq!(heard_state(&operator(&broker).await).await, (numbered(STATES - 1), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_wait_at_the_broker_while_the_agent_restarts() {
    let broker = Mosquitto::start();
    let (handle, _incoming) = start(&broker);
    until_up(&handle).await;
    handle.shutdown(PATIENCE).await;
    let operator = operator(&broker).await;
    let mut pending =
        operator.command(&to_device(), "status", &serde_json::json!({}), PATIENCE).await.unwrap();
    let (handle, mut incoming) = start(&broker);
    let asked = tokio::time::timeout(PATIENCE, incoming.recv()).await.expect("it was kept").unwrap();
    asked.replies.send(Progress::Successful { result: serde_json::json!({ "ok": true }) });
    assert_eq!(pending.finish(PATIENCE).await.unwrap(), serde_json::json!({ "ok": true }));
    until("all is acknowledged", || handle.figures().spool_len == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_refuses_or_is_not_there_is_named_with_the_remedy() {
    let broker = Mosquitto::with(&Setup { login: Some(("pi", "right")), ..Setup::default() });
    let mut settings = settings(broker.port);
    let (handle, _incoming) = start_with(&settings, Spool::open(MemoryStore::default()));
    let reason = until_down(&handle).await;
    assert_eq!(reason.code, ReasonCode::BrokerRefused);
    assert!(reason.detail.contains("set mqtt.username"), "{reason}");

    let password = broker.dir.path().join("secret");
    settings.username = Some("pi".into());
    settings.password_file = Some(password.clone());
    std::fs::write(&password, "wrong\n").unwrap();
    let (handle, _incoming) = start_with(&settings, Spool::open(MemoryStore::default()));
    let reason = until_down(&handle).await;
    assert_eq!(reason.code, ReasonCode::BrokerRefused);
    assert!(
        reason.detail.contains("refuses user \"pi\"") && reason.detail.contains("password_file"),
        "{reason}"
    );
    assert_eq!(handle.link_health().last_error, Some(reason));

    std::fs::write(&password, "right\n").unwrap();
    let (handle, _incoming) = start_with(&settings, Spool::open(MemoryStore::default()));
    until_up(&handle).await;

    settings.port = free_port();
    let (handle, _incoming) = start_with(&settings, Spool::open(MemoryStore::default()));
    let reason = until_down(&handle).await;
    assert_eq!(reason.code, ReasonCode::BrokerUnreachable);
    assert!(reason.detail.contains("nothing listens there"), "{reason}");

    settings.password_file = Some(broker.dir.path().join("missing"));
    let reason = connect(&settings, Spool::open(MemoryStore::default())).unwrap_err();
    assert!(reason.detail.contains("missing") && reason.detail.contains("password_file"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_will_never_take_does_not_hold_up_the_rest() {
    let broker = Mosquitto::with(&Setup {
        login: Some(("pi", "right")),
        lines: vec!["max_packet_size 4000", "acl_file {dir}/acl"],
        files: vec![(
            "acl",
            "user pi\ntopic deny edgewarden/pi-1/model/forbidden/state\ntopic edgewarden/#\n",
        )],
    });
    let mut settings = settings(broker.port);
    let password = broker.dir.path().join("secret");
    std::fs::write(&password, "right").unwrap();
    settings.username = Some("pi".into());
    settings.password_file = Some(password);
    let (handle, _incoming) = start_with(&settings, Spool::open(MemoryStore::default()));
    until_up(&handle).await;

    handle.slot_state(&slot_state(Stage::Refused, 1.0, &"long ".repeat(1000)));
    let mut forbidden = slot_state(Stage::Refused, 1.0, "");
    forbidden.slot = "forbidden".parse().unwrap();
    handle.slot_state(&forbidden);
    handle.slot_state(&slot_state(Stage::Committed, 1.0, ""));
    until("the spool is empty", || {
        let figures = handle.figures();
        figures.spool_len == 0 && figures.dropped.deployment == 2
    })
    .await;
    assert_eq!(handle.figures().connects, 1, "no connection was lost over it");
    let operator = Operator::connect(
        &format!("mqtt://pi:right@127.0.0.1:{}", broker.port),
        None,
        "edgewarden",
        vec!["edgewarden/pi-1/model/+/state".into()],
        PATIENCE,
    )
    .await
    .unwrap();
    assert_eq!(heard_state(&operator).await, (slot_state(Stage::Committed, 1.0, ""), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_checked_on_both_sides() {
    let (authority, other) = (Authority::new(), Authority::named("other"));
    let (server, client) = (authority.sign("localhost", Dates::Good), authority.sign("pi-1", Dates::Good));
    let conf = format!("{}\nrequire_certificate true", authority.listener(&server));
    let broker = Mosquitto::with(&Setup { lines: vec![conf.leak()], ..Setup::default() });
    let mut settings = settings(broker.port);
    settings.host = "localhost".into();

    let client = Some((client.cert, client.key));
    settings.tls = Some(TlsSettings { ca_file: Some(authority.cert()), client: client.clone() });
    let (handle, _incoming) = start_with(&settings, Spool::open(MemoryStore::default()));
    until_up(&handle).await;
    assert!(handle.link_health().target.unwrap().starts_with("mqtts://localhost:"));

    settings.tls = Some(TlsSettings { ca_file: Some(other.cert()), client: client.clone() });
    let (handle, _incoming) = start_with(&settings, Spool::open(MemoryStore::default()));
    let reason = until_down(&handle).await;
    assert_eq!(reason.code, ReasonCode::BrokerRefused);
    assert!(reason.detail.contains("UnknownIssuer") && reason.detail.contains("ca_file"), "{reason}");

    settings.tls = Some(TlsSettings { ca_file: Some(authority.cert()), client: None });
    let (handle, _incoming) = start_with(&settings, Spool::open(MemoryStore::default()));
    until_down(&handle).await;

    let empty = broker.dir.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    settings.tls = Some(TlsSettings { ca_file: Some(empty), client });
    let reason = connect(&settings, Spool::open(MemoryStore::default())).unwrap_err();
    assert!(reason.detail.contains("empty.pem"), "{reason}");
}
