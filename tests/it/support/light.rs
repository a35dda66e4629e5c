//! Devices without models: the real client, spool and command handling, and nothing that looks at pictures. What
//! they say they saw is made up.

use super::ear::{Ear, Heard};
use edgewarden::config::settings::{MqttSettings, SpoolBounds};
use edgewarden::domain::command::{Command, Progress};
use edgewarden::domain::importance::Importance;
use edgewarden::domain::{FrameResult, Output, Reason, StageTimes};
use edgewarden::mqtt::commands::{self, Addressed};
use edgewarden::mqtt::gate::Gate;
use edgewarden::mqtt::payloads::{Birth, CommandReply, ReplyStatus, Stamped};
use edgewarden::mqtt::spool::Spool;
use edgewarden::mqtt::topics::Said;
use edgewarden::mqtt::{self, Handle, Incoming};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Lets everything in that is a command.
struct Open;

impl Gate for Open {
    fn admit<'a>(&'a self, asked: &'a Addressed<'a>) -> BoxFuture<'a, Result<Command, Reason>> {
        Box::pin(std::future::ready(commands::plain(asked)))
    }
}

/// A message that must arrive, with a number of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Told {
    /// Which start of the teller said it.
    pub life: u64,
    /// Its number in that life.
    pub n: u64,
    /// To make it longer.
    pub pad: String,
}

/// Connects a device of this name, in group `line`, to a broker on loopback.
pub fn start(port: u16, name: &str, spool: Spool) -> (Handle, mpsc::Receiver<Incoming>) {
    start_with(&settings(port), name, spool)
}

/// A broker on this port of loopback.
pub fn settings(port: u16) -> MqttSettings {
    MqttSettings {
        host: "127.0.0.1".into(),
        port,
        web_path: None,
        tls: None,
        username: None,
        password_file: None,
        keep_alive: Duration::from_secs(5),
        root: "edgewarden".into(),
        results_per_second: 1000.0,
        spool: SpoolBounds::default(),
    }
}

/// The same, on a way to a broker that differs.
pub fn start_with(settings: &MqttSettings, name: &str, spool: Spool) -> (Handle, mpsc::Receiver<Incoming>) {
    connect(settings, birth(name, "line"), spool, 16).expect("it starts")
}

/// What a device of this name, in this group, says it is.
pub fn birth(name: &str, group: &str) -> Birth {
    Birth {
        device: name.parse().unwrap(),
        groups: vec![group.parse().unwrap()],
        agent_version: "0.1.0".into(),
        boot_id: "light".into(),
        os: "none".into(),
        kernel: "none".into(),
        arch: "none".into(),
        board: None,
        pipelines: vec![],
        commands: vec!["status".into()],
        commands_unsigned: true,
        tls: false,
    }
}

/// Connects the device that this is; so many commands may wait for it.
pub fn connect(
    settings: &MqttSettings,
    birth: Birth,
    spool: Spool,
    waiting: usize,
) -> Result<(Handle, mpsc::Receiver<Incoming>), Reason> {
    let (commands, incoming) = mpsc::channel(waiting);
    let handle = mqtt::start(settings, birth, spool, commands, Arc::new(Open), None)?;
    Ok((handle, incoming))
}

/// Says something that must arrive.
pub fn tell(handle: &Handle, told: &Told) {
    let id = format!("{}-{}", told.life, told.n).parse().unwrap();
    let class = Importance::ALL[(told.n % 4) as usize];
    handle.spooled(&Said::Ack { command: "told".into(), id }, told, None, class);
}

/// What a fleet of light devices did.
#[derive(Debug)]
pub struct Report {
    /// How many.
    pub devices: usize,
    /// Until all were connected and had presented themselves.
    pub connected: Duration,
    /// Messages that must arrive, and how long all of them took.
    pub reported: (usize, Duration),
    /// Until every device had answered the command to the group.
    pub answered: Duration,
    /// Resident bytes of this process before the first device, and once all were connected.
    pub memory: (u64, u64),
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (messages, time) = self.reported;
        let (before, after) = self.memory;
        let each = after.saturating_sub(before) as f64 / 1024.0 / self.devices as f64;
        writeln!(f, "{} devices: the real client, spool and commands; inference made up", self.devices)?;
        writeln!(f, "connected, with their births: {:.2} s", self.connected.as_secs_f64())?;
        writeln!(f, "memory: {each:.0} KiB a device")?;
        let rate = messages as f64 / time.as_secs_f64();
        writeln!(
            f,
            "{messages} messages that must arrive, over the disk: {:.2} s, {rate:.0} a second",
            time.as_secs_f64()
        )?;
        write!(f, "a command to the group, answered by all: {:.3} s", self.answered.as_secs_f64())
    }
}

/// Starts `devices` in this process, lets each report `each` messages and its results, and answer a command to
/// their group. Panics where one is missing.
pub fn fleet(
    port: u16,
    devices: usize,
    each: u64,
    patience: Duration,
    spool: impl Fn(usize) -> Spool,
) -> Report {
    let heard = Arc::new(Heard::default());
    let mut ear = Ear::listen(port, &heard, patience);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let before = resident();
    let begun = Instant::now();
    let handles: Vec<Handle> = (0..devices)
        .map(|n| {
            let _inside = runtime.enter();
            let (handle, mut incoming) = start(port, &format!("light-{n}"), spool(n));
            tokio::spawn(async move {
                while let Some(asked) = incoming.recv().await {
                    let result = serde_json::json!({ "command": asked.request.command.name() });
                    asked.replies.send(Progress::Successful { result });
                }
            });
            handle
        })
        .collect();
    let all_of = |last: &str, messages: &[(String, Vec<u8>)]| {
        let of = messages.iter().filter(|(topic, _)| topic.ends_with(last));
        (of.map(|(topic, _)| topic).collect::<HashSet<_>>().len() == devices).then_some(())
    };
    heard.until("every device online", patience, |messages| all_of("/availability", messages));
    heard.until("every device's birth", patience, |messages| all_of("/birth", messages));
    let connected = begun.elapsed();
    let memory = (before, resident());

    let begun = Instant::now();
    for n in 0..each {
        for handle in &handles {
            tell(handle, &Told { life: 0, n, pad: "x".repeat(300) });
            handle.telemetry(&"belt".parse().unwrap(), &made_up(n));
        }
        for handle in &handles {
            assert!(runtime.block_on(handle.accepted()), "the spool takes it");
        }
    }
    let wanted = devices * each as usize;
    let (mut seen, mut arrived) = (0, HashSet::new());
    heard.until("every message", patience, |messages| {
        let new = messages[seen..].iter().filter(|(topic, _)| topic.contains("/ack/told/"));
        arrived.extend(new.map(|(topic, _)| topic.clone()));
        seen = messages.len();
        (arrived.len() == wanted).then_some(())
    });
    let reported = (wanted, begun.elapsed());

    let begun = Instant::now();
    ear.publish("edgewarden/group/line/cmd/status/g1", b"{}");
    heard.until("every device's answer", patience, |messages| {
        let answers = messages.iter().filter(|(topic, _)| topic.ends_with("/ack/status/g1"));
        let done = answers.filter(|(_, payload)| {
            let reply = Stamped::<CommandReply>::read(payload).expect("a reply");
            matches!(reply.body.status, ReplyStatus::Successful { .. })
        });
        (done.map(|(topic, _)| topic).collect::<HashSet<_>>().len() == devices).then_some(())
    });
    let answered = begun.elapsed();
    for handle in &handles {
        assert_eq!(handle.figures().spool_dropped, 0);
    }
    runtime.shutdown_background();
    Report { devices, connected, reported, answered, memory }
}

/// What no model has seen.
pub fn made_up(seq: u64) -> FrameResult {
    FrameResult {
        seq,
        captured_unix_ns: 1,
        latency_ms: 5.0,
        size: [640, 480],
        output: Output::default(),
        timing_ms: StageTimes::default(),
    }
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}
