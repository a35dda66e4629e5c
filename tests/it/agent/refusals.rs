//! Each reason to refuse a command over MQTT, from the list of reasons: provoked over a real broker against the real
//! agent, it is told to the sender, counted by its name in figures and health, and written into the audit log, and
//! nothing happens. A reason that joins the list does not compile here until there is a way to provoke it.

use super::commands::{ALL, appoint, is_paused, options, order, pause, resume, say, send};
use super::full_disk::obeying_without_room;
use crate::support::device::{Device, PATIENCE, Repository, SLOT, release, signal};
use crate::support::mosquitto::Mosquitto;
use crate::support::operators::{Person, list};
use crate::support::wait_until;
use crate::support::web::Trouble;
use edgewarden::domain::refusal::RefusalKind;
use edgewarden::domain::{Reason, ReasonCode};
use edgewarden::mqtt::payloads::ReplyStatus;
use edgewarden::trust::envelope::Statement;
use jiff::Timestamp;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

struct World {
    _broker: Mosquitto,
    repository: Repository,
    device: Device,
    anna: Person,
    /// Her last number.
    sequence: u64,
}

impl World {
    fn new() -> Self {
        let broker = Mosquitto::start();
        let mut repository = Repository::with(&["v1"]);
        let device = Device::serving(options(&broker, &repository), &release(1));
        let anna = Person::new("anna", 1);
        let mut former = Person::new("former", 5).entry(&ALL);
        former["expires"] = json!("2026-01-01T00:00:00Z");
        let entries = [
            anna.entry(&ALL),
            Person::new("watcher", 2).entry(&["observe"]),
            Person::new("other", 3).entry_for(&ALL, "another-line"),
            former,
        ];
        appoint(&device, &mut repository, &entries);
        Self { _broker: broker, repository, device, anna, sequence: 0 }
    }

    /// A good command with the next number; refused or not, the number is not used again.
    fn good(&mut self) -> Statement {
        self.sequence += 1;
        self.anna.statement(self.device.id(), self.sequence, pause())
    }

    fn with(&mut self, change: impl FnOnce(&mut Statement)) -> Reason {
        let mut statement = self.good();
        change(&mut statement);
        send(&self.device, &self.anna, &statement).unwrap_err()
    }

    fn restart(&mut self) {
        assert!(self.device.stop().success());
        self.device.forget();
        self.device.start();
        self.device.until("it is back", |heard| heard.online().then_some(()));
    }

    fn configured(&mut self, key: &str, value: impl Into<toml::Value>) {
        self.device.configure(|options| options.set(key, value));
        self.restart();
    }
}

/// How a provocation ended.
enum Told {
    /// The sender was answered with this.
    With(Reason),
    /// Nobody can be answered.
    Nobody,
    /// As above; and the log's disk was full.
    Unwritten(Reason),
}

/// Provokes a refusal; `None`, told, where this machine has no way to it.
fn provoke(kind: RefusalKind, world: &mut World) -> Option<Told> {
    let (now, hour) = (Timestamp::now(), Duration::from_secs(3600));
    Some(Told::With(match kind {
        RefusalKind::BadTopic => {
            world.device.publish("cmd/no such command/1", "{}", false);
            return Some(Told::Nobody);
        }
        RefusalKind::Retained => {
            let device = &world.device;
            device.publish("cmd/pause/kept", "{}", true);
            device.until("it came as it was sent first", |heard| {
                heard.acks.iter().any(|ack| ack.id.as_str() == "kept" && ack.status.is_final()).then_some(())
            });
            world.restart();
            let reason = world.device.until("the refusal of what was kept", |heard| {
                heard.acks.iter().find_map(|ack| match &ack.status {
                    ReplyStatus::Failed { reason } if ack.id.as_str() == "kept" => Some(reason.clone()),
                    _ => None,
                })
            });
            world.device.publish("cmd/pause/kept", "", true);
            reason
        }
        RefusalKind::Oversize => {
            let long = format!("{{}}{}", " ".repeat(20_000));
            say(&world.device, "pause", "long", &long).unwrap_err()
        }
        RefusalKind::Malformed => say(&world.device, "pause", "form", r#"{"payloadType":"x"}"#).unwrap_err(),
        RefusalKind::Unsigned => say(&world.device, "pause", "bare", "{}").unwrap_err(),
        RefusalKind::NobodyKnown => {
            assert!(world.device.stop().success());
            // The list that it has kept is spoiled, and there is no other.
            let kept = find(&world.device.path("state"), "operators.target").expect("it keeps the list");
            let good = std::fs::read(&kept).unwrap();
            std::fs::write(&kept, "{}").unwrap();
            world.repository.web.trouble("", Trouble::Status(503));
            world.device.forget();
            world.device.start();
            world.device.until("it is back", |heard| heard.online().then_some(()));
            let reason = world.with(|_| {});
            let told = counted(&world.device, kind);
            assert!(told, "before the next start begins to count anew");
            assert!(world.device.stop().success());
            std::fs::write(&kept, good).unwrap();
            world.repository.web.well();
            world.device.forget();
            world.device.start();
            world.device.until("it is back", |heard| heard.online().then_some(()));
            check_log(&world.device, kind);
            assert_eq!(reason.code.as_str(), code_of(kind).as_str(), "{reason}");
            return Some(Told::Unwritten(reason));
        }
        RefusalKind::UnknownKey => order(&world.device, &Person::new("eve", 4), 1, pause()).unwrap_err(),
        RefusalKind::BadSignature => {
            let statement = world.good();
            let mut changed: Value = serde_json::from_str(&world.anna.sign(&statement)).unwrap();
            let mut other = statement.clone();
            other.sequence += 1000;
            let other: Value = serde_json::from_str(&world.anna.sign(&other)).unwrap();
            changed["signatures"] = other["signatures"].clone();
            say(&world.device, "pause", statement.id.as_str(), &changed.to_string()).unwrap_err()
        }
        RefusalKind::Renamed => {
            let statement = world.good();
            say(&world.device, "resume", statement.id.as_str(), &world.anna.sign(&statement)).unwrap_err()
        }
        RefusalKind::WrongAudience => world.with(|statement| statement.audience = "pi-2".parse().unwrap()),
        RefusalKind::KeyExpired => order(&world.device, &Person::new("former", 5), 1, pause()).unwrap_err(),
        RefusalKind::LacksRole => order(&world.device, &Person::new("watcher", 2), 1, pause()).unwrap_err(),
        RefusalKind::NotTheirs => order(&world.device, &Person::new("other", 3), 1, pause()).unwrap_err(),
        RefusalKind::BadLifetime => world.with(|statement| statement.expires = statement.issued),
        RefusalKind::FromTheFuture => {
            if world.device.status().health.clock_synchronised != Some(true) {
                println!("skipped {kind}: nothing sets this machine's clock, so nothing can be ahead of it");
                return None;
            }
            world.with(|statement| (statement.issued, statement.expires) = (now + hour, now + 2 * hour))
        }
        RefusalKind::Expired => {
            world.with(|statement| (statement.issued, statement.expires) = (now - hour, now - hour / 2))
        }
        RefusalKind::Replayed => {
            let statement = Statement { action: resume().as_object().unwrap().clone(), ..world.good() };
            send(&world.device, &world.anna, &statement).unwrap();
            let again = Statement { id: "again".parse().unwrap(), ..statement };
            send(&world.device, &world.anna, &again).unwrap_err()
        }
        RefusalKind::NotRemembered => return forgetful(),
        RefusalKind::RateLimited => {
            world.configured("commands.per_minute", 2);
            let mut next = |action: Value| {
                world.sequence += 1;
                order(&world.device, &world.anna, world.sequence, action)
            };
            // What is refused for another reason counts for nothing.
            for _ in 0..2 {
                next(resume()).unwrap();
            }
            let reason = next(resume()).unwrap_err();
            // To stop a deployment is never too much, and to look has an allowance of its own.
            let abort = json!({ "command": "abort", "slot": SLOT });
            assert_ne!(next(abort).unwrap_err().code, ReasonCode::RateLimited);
            next(json!({ "command": "status" })).unwrap();
            assert!(counted(&world.device, kind));
            world.configured("commands.per_minute", 10_000);
            check_log(&world.device, kind);
            return Some(Told::Unwritten(reason));
        }
        RefusalKind::Waiting => waiting(),
    }))
}

/// The code that the sender is told.
fn code_of(kind: RefusalKind) -> ReasonCode {
    match kind {
        RefusalKind::BadTopic
        | RefusalKind::Retained
        | RefusalKind::Oversize
        | RefusalKind::Renamed
        | RefusalKind::BadLifetime => ReasonCode::BadRequest,
        RefusalKind::Malformed => ReasonCode::Malformed,
        RefusalKind::Unsigned => ReasonCode::Unsigned,
        RefusalKind::NobodyKnown => ReasonCode::RepositoryUnreachable,
        RefusalKind::UnknownKey | RefusalKind::BadSignature => ReasonCode::SignatureInvalid,
        RefusalKind::WrongAudience => ReasonCode::WrongAudience,
        RefusalKind::KeyExpired | RefusalKind::Expired => ReasonCode::Expired,
        RefusalKind::LacksRole | RefusalKind::NotTheirs => ReasonCode::NotAllowed,
        RefusalKind::FromTheFuture => ReasonCode::NotYetValid,
        RefusalKind::Replayed => ReasonCode::Replayed,
        RefusalKind::NotRemembered => ReasonCode::DiskFull,
        RefusalKind::RateLimited => ReasonCode::RateLimited,
        RefusalKind::Waiting => ReasonCode::Busy,
    }
}

/// Whether figures and health name it.
fn counted(device: &Device, kind: RefusalKind) -> bool {
    let status = device.status();
    let in_health = status.health.commands.expect("it has a broker").refused;
    assert_eq!(in_health, status.metrics.refusals, "both are the same counters");
    in_health.get(kind.as_str()).is_some_and(|count| *count > 0)
}

/// The audit log has it, and is whole.
fn check_log(device: &Device, kind: RefusalKind) {
    let log = device.audit_log().expect("the audit log");
    let found = log.iter().any(|entry| {
        entry["outcome"] == "refused" && entry["refusal"] == kind.as_str() && entry["who"] != Value::Null
    });
    assert!(found, "{kind} is not in the log: {log:#?}");
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    std::fs::read_dir(folder).ok()?.flatten().find_map(|entry| match entry.path() {
        path if path.is_dir() => find(&path, name),
        path => path.ends_with(name).then_some(path),
    })
}

#[test]
fn each_is_told_counted_and_written_down_and_nothing_happens() {
    let mut world = World::new();
    for kind in RefusalKind::ALL {
        let told = match provoke(kind, &mut world) {
            None => continue,
            Some(Told::With(reason)) => Some(reason),
            Some(Told::Nobody) => None,
            Some(Told::Unwritten(reason)) => {
                assert_eq!(reason.code, code_of(kind), "{kind}: {reason}");
                continue;
            }
        };
        if let Some(reason) = told {
            assert_eq!(reason.code, code_of(kind), "{kind}: {reason}");
            assert!(reason.detail.len() > 20, "{kind}: a sentence: {reason}");
        }
        if kind != RefusalKind::Waiting {
            wait_until(kind.as_str(), PATIENCE, || counted(&world.device, kind).then_some(()));
            check_log(&world.device, kind);
        }
        assert!(!is_paused(&world.device), "{kind}: nothing happened");
    }
    // Among all that was refused a good one is taken.
    let good = world.good();
    send(&world.device, &world.anna, &good).unwrap();
    assert!(is_paused(&world.device));
}

/// A disk that is full remembers no number.
fn forgetful() -> Option<Told> {
    let kind = RefusalKind::NotRemembered;
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v1"]);
    let (device, disk, anna) = obeying_without_room(&broker, &mut repository, &ALL, kind.as_str())?;
    let reason = order(&device, &anna, 1, pause()).unwrap_err();
    assert!(counted(&device, kind) && !is_paused(&device));
    // The log may have had no room either: with room again it tells that it lacks a line, where it does.
    disk.make_room();
    wait_until("the store is back", PATIENCE, || order(&device, &anna, 1, resume()).ok());
    wait_until("a line", PATIENCE, || {
        let told = |entry: &Value| entry["refusal"] == kind.as_str() || entry["left_out"].as_u64() > Some(0);
        device.audit_log()?.iter().any(told).then_some(())
    });
    Some(Told::Unwritten(reason))
}

/// Three cameras that do not answer hold all places, and the queue behind them.
fn waiting() -> Reason {
    let kind = RefusalKind::Waiting;
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1"]);
    let more = |name: &str| {
        format!("name = \"{name}\"\nsource = {{ kind = \"synthetic\", width = 64, height = 64 }}\n")
    };
    let device =
        Device::serving(options(&broker, &repository).and(&more("two")).and(&more("three")), &release(1));
    let cameras = wait_until("three cameras", PATIENCE, || {
        let processes = device.status().metrics.processes;
        let cameras: Vec<u32> =
            processes.iter().filter(|one| one.role.starts_with("capture:")).map(|one| one.pid).collect();
        (cameras.len() == 3).then_some(cameras)
    });
    for camera in &cameras {
        signal(*camera, Signal::STOP);
    }
    for number in 0..60 {
        let pipeline = ["main", "two", "three"][number % 3];
        let payload = json!({ "pipeline": pipeline }).to_string();
        device.publish(&format!("cmd/snapshot/wait-{number}"), payload, false);
    }
    let reason = device.until("a refusal", |heard| {
        heard.acks.iter().find_map(|ack| match &ack.status {
            ReplyStatus::Failed { reason } if reason.detail.contains("too many commands wait") => {
                Some(reason.clone())
            }
            _ => None,
        })
    });
    for camera in &cameras {
        signal(*camera, Signal::CONT);
    }
    wait_until(kind.as_str(), PATIENCE, || counted(&device, kind).then_some(()));
    check_log(&device, kind);
    reason
}

/// A flood of refusals is counted, and does not fill the log or push out what matters.
#[test]
fn a_flood_of_refusals_is_counted_and_leaves_the_log_small() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v1"]);
    let device = Device::serving(options(&broker, &repository), &release(1));
    let anna = Person::new("anna", 1);
    repository.publisher.set_operators(&list(&[anna.entry(&ALL)]), Timestamp::now()).unwrap();
    appoint(&device, &mut repository, &[anna.entry(&ALL)]);
    order(&device, &anna, 1, resume()).unwrap();
    for number in 0..200 {
        device.publish(&format!("cmd/pause/flood-{number}"), "{}", false);
    }
    wait_until("all are counted", PATIENCE, || {
        (device.status().metrics.refusals.get("unsigned").copied() == Some(200)).then_some(())
    });
    order(&device, &anna, 2, resume()).unwrap();
    let entries = wait_until("its end", PATIENCE, || {
        let entries = device.audit_log()?;
        let last = entries.last()?;
        (last["id"] == "anna-2" && last["outcome"] == "successful").then_some(entries)
    });
    let refused = entries.iter().filter(|entry| entry["outcome"] == "refused").count() as u64;
    let left_out: u64 = entries.iter().filter_map(|entry| entry["left_out"].as_u64()).sum();
    assert!(refused < 100, "{refused}");
    assert_eq!(refused + left_out, 200, "the log says how many it lacks");
    assert!(entries.iter().any(|entry| entry["id"] == "anna-1"), "what matters is there");
}
