//! Signed commands against the real agent and a real broker: what is refused, with which code, and that
//! nothing happens then.

use crate::support::device::{Device, Options, PATIENCE, Repository, SLOT, release};
use crate::support::mosquitto::Mosquitto;
use crate::support::operators::{Person, list};
use crate::support::wait_until;
use edgewarden::agent::authority::{Highest, numbers};
use edgewarden::domain::health::{PipelineState, ProblemCode};
use edgewarden::domain::{Reason, ReasonCode};
use edgewarden::mqtt::payloads::ReplyStatus;
use edgewarden::sys::store::Store;
use edgewarden::trust::envelope::Statement;
use edgewarden::update::journal::Journal;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;

pub const ALL: [&str; 3] = ["observe", "operate", "deploy"];

/// A device that looks at its repository each second.
pub fn options(broker: &Mosquitto, repository: &Repository) -> Options {
    // Polling for a change may take many commands.
    Options::new(broker, repository).set("commands.refresh", "1s").set("commands.per_minute", 10_000)
}

/// Publishes a list and waits until the device goes by it.
pub fn appoint(device: &Device, repository: &mut Repository, entries: &[Value]) {
    repository.publisher.set_operators(&list(entries), Timestamp::now()).expect("a good list");
    device.until("signatures are required", |heard| (!heard.births.last()?.commands_unsigned).then_some(()));
}

/// Publishes a payload at `cmd/COMMAND/ID` below a topic and waits for the end of it.
pub fn say_at(device: &Device, topic: &str, command: &str, id: &str, payload: &str) -> Result<Value, Reason> {
    let ended = |heard: &crate::support::device::Heard| -> Vec<ReplyStatus> {
        let ours = heard.acks.iter().filter(|ack| ack.id.as_str() == id && ack.command == command);
        ours.map(|ack| ack.status.clone()).filter(ReplyStatus::is_final).collect()
    };
    let before = ended(&device.heard.lock().unwrap()).len();
    device.publish_to(format!("edgewarden/{topic}/cmd/{command}/{id}"), payload.to_owned(), false);
    match device.until(&format!("the end of {command} {id}"), |heard| ended(heard).get(before).cloned()) {
        ReplyStatus::Successful { result } => Ok(result),
        ReplyStatus::Failed { reason } => Err(reason),
        other => panic!("{other:?} is no end"),
    }
}

pub fn say(device: &Device, command: &str, id: &str, payload: &str) -> Result<Value, Reason> {
    say_at(device, device.id().as_str(), command, id, payload)
}

/// Sends a statement at the topic that belongs to it.
pub fn send(device: &Device, person: &Person, statement: &Statement) -> Result<Value, Reason> {
    let command = statement.action["command"].as_str().unwrap();
    say(device, command, statement.id.as_str(), &person.sign(statement))
}

pub fn order(device: &Device, person: &Person, sequence: u64, action: Value) -> Result<Value, Reason> {
    send(device, person, &person.statement(device.id(), sequence, action))
}

fn code(outcome: Result<Value, Reason>) -> ReasonCode {
    outcome.expect_err("taken").code
}

pub fn pause() -> Value {
    json!({ "command": "pause" })
}

pub fn resume() -> Value {
    json!({ "command": "resume" })
}

pub fn is_paused(device: &Device) -> bool {
    device.status().health.pipelines[0].state == PipelineState::Paused
}

fn update(number: u32) -> Value {
    json!({ "command": "update", "slot": SLOT, "release": release(number) })
}

#[test]
fn where_operators_are_listed_what_changes_the_device_must_be_signed() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v1", "v2"]);
    let device = Device::serving(options(&broker, &repository), &release(1));
    // Nobody is listed, and the broker is on this machine: as on a desk.
    assert!(device.heard.lock().unwrap().births.last().unwrap().commands_unsigned);
    say(&device, "pause", "free", "{}").unwrap();
    say(&device, "resume", "free", "{}").unwrap();

    let anna = Person::new("anna", 1);
    appoint(&device, &mut repository, &[anna.entry(&ALL)]);
    let reason = say(&device, "pause", "unsigned", "{}").unwrap_err();
    assert_eq!(reason.code, ReasonCode::Unsigned);
    assert!(reason.detail.contains("edgewarden sign-command"), "{reason}");
    assert_eq!(code(device.update(&release(2))), ReasonCode::Unsigned);
    assert!(!is_paused(&device));
    // To look needs no signature, and is let in with one.
    device.command("status", json!({})).unwrap();
    order(&device, &anna, 1, json!({ "command": "status" })).unwrap();

    assert_eq!(order(&device, &anna, 2, pause()).unwrap()["paused"], true);
    assert!(is_paused(&device));
    order(&device, &anna, 3, resume()).unwrap();
    assert_eq!(order(&device, &anna, 4, update(2)).unwrap()["release"], json!(release(2)));
    let births = device.heard.lock().unwrap().births.len();
    order(&device, &anna, 5, json!({ "command": "restart" })).unwrap();
    let unsigned = device.until("the next start", |heard| {
        (heard.births.len() > births && heard.online())
            .then(|| heard.births.last().unwrap().commands_unsigned)
    });
    assert!(!unsigned, "known from the start, before any look at the repository");
}

#[test]
fn each_fault_of_a_signed_command_is_refused_with_its_code_and_nothing_happens() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v1", "v2"]);
    let device = Device::serving(options(&broker, &repository), &release(1));
    let synchronised = device.status().health.clock_synchronised == Some(true);
    let anna = Person::new("anna", 1);
    let (watcher, other_line, stranger) =
        (Person::new("watcher", 2), Person::new("other", 3), Person::new("eve", 4));
    let mut former = Person::new("former", 5).entry(&ALL);
    former["expires"] = json!("2026-01-01T00:00:00Z");
    let entries =
        [anna.entry(&ALL), watcher.entry(&["observe"]), other_line.entry_for(&ALL, "another-line"), former];
    appoint(&device, &mut repository, &entries);

    let good = || anna.statement(device.id(), 5, pause());
    let with = |change: &dyn Fn(&mut Statement)| {
        let mut statement = good();
        change(&mut statement);
        send(&device, &anna, &statement)
    };
    let (now, hour) = (Timestamp::now(), Duration::from_secs(3600));
    // For somebody else.
    for audience in ["pi-2", "group:another-line", &format!("group:{}", device.id())] {
        let outcome = with(&|statement| statement.audience = audience.parse().unwrap());
        assert_eq!(code(outcome), ReasonCode::WrongAudience, "{audience}");
    }
    // The time.
    let expired = with(&|statement| (statement.issued, statement.expires) = (now - hour, now - hour / 2));
    assert_eq!(code(expired), ReasonCode::Expired);
    let backwards = with(&|statement| statement.expires = statement.issued);
    assert_eq!(code(backwards), ReasonCode::BadRequest);
    let too_long = with(&|statement| statement.expires = statement.issued + 24 * 31 * hour);
    assert_eq!(code(too_long), ReasonCode::BadRequest);
    if synchronised {
        let future = with(&|statement| (statement.issued, statement.expires) = (now + hour, now + 2 * hour));
        assert_eq!(code(future), ReasonCode::NotYetValid);
    }
    // The key.
    assert_eq!(code(order(&device, &stranger, 5, pause())), ReasonCode::SignatureInvalid);
    assert_eq!(code(order(&device, &Person::new("former", 5), 5, pause())), ReasonCode::Expired);
    assert_eq!(code(order(&device, &other_line, 5, pause())), ReasonCode::NotAllowed);
    for action in [pause(), update(2), json!({ "command": "restart" })] {
        let reason = order(&device, &watcher, 5, action).unwrap_err();
        assert!(reason.code == ReasonCode::NotAllowed && reason.detail.contains("watcher"), "{reason}");
    }
    order(&device, &watcher, 5, json!({ "command": "status" })).unwrap();
    // The signature: changed on its way, and a stranger's in the name of anna.
    let mut changed: Value = serde_json::from_str(&anna.sign(&good())).unwrap();
    let of_resume: Value =
        serde_json::from_str(&anna.sign(&anna.statement(device.id(), 5, resume()))).unwrap();
    changed["signatures"] = of_resume["signatures"].clone();
    let signed_by_another = {
        let mut theirs: Value = serde_json::from_str(&anna.sign(&good())).unwrap();
        let mut statement = good();
        statement.key = stranger.key.id().parse().unwrap();
        let eves: Value = serde_json::from_str(&stranger.sign(&statement)).unwrap();
        theirs["signatures"] = eves["signatures"].clone();
        theirs
    };
    for (id, envelope) in [("changed", changed), ("another", signed_by_another)] {
        let outcome = say(&device, "pause", id, &envelope.to_string());
        assert_eq!(code(outcome), ReasonCode::SignatureInvalid, "{id}");
    }
    let mut bare: Value = serde_json::from_str(&anna.sign(&good())).unwrap();
    bare["signatures"] = json!([]);
    assert_eq!(code(say(&device, "pause", "bare", &bare.to_string())), ReasonCode::SignatureInvalid);
    // The form.
    assert_eq!(code(say(&device, "pause", "form", r#"{"payloadType":"x"}"#)), ReasonCode::Malformed);
    let oversized = format!("{}{}", anna.sign(&good()), " ".repeat(20_000));
    let reason = say(&device, "pause", "large", &oversized).unwrap_err();
    assert!(reason.code == ReasonCode::BadRequest && reason.detail.contains("16384"), "{reason}");
    // The topic, which nobody has signed: another command, another id.
    for (command, id) in [("resume", good().id.to_string()), ("pause", "other-name".to_owned())] {
        let reason = say(&device, command, &id, &anna.sign(&good())).unwrap_err();
        assert!(reason.code == ReasonCode::BadRequest && reason.detail.contains("was signed as"), "{reason}");
    }
    // The action.
    let install = with(&|statement| {
        statement.action = json!({ "command": "install", "file": "/x" }).as_object().unwrap().clone();
    });
    assert_eq!(code(install), ReasonCode::BadRequest);

    assert!(!is_paused(&device), "none of them did anything");
    assert_eq!(device.until("a state", |heard| heard.current()), release(1));
    assert!(device.status().metrics.mqtt.commands_refused >= 20, "the owner can count them");
    // And none of them used the number up. Beside a good signature a bad one changes nothing.
    let mut two: Value = serde_json::from_str(&anna.sign(&good())).unwrap();
    let bad = of_resume["signatures"][0].clone();
    two["signatures"].as_array_mut().unwrap().insert(0, bad);
    say(&device, "pause", good().id.as_str(), &two.to_string()).unwrap();
    assert!(is_paused(&device));
}

#[test]
fn a_retained_command_is_refused_however_well_it_is_signed() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v1"]);
    let device = Device::serving(options(&broker, &repository), &release(1));
    let anna = Person::new("anna", 1);
    appoint(&device, &mut repository, &[anna.entry(&ALL)]);
    let restart = json!({ "command": "restart" });
    order(&device, &anna, 1, restart.clone()).unwrap();
    let births = device.until("the next start", |heard| {
        (heard.births.len() > 1 && heard.online()).then_some(heard.births.len())
    });
    // The broker keeps a good command for the next subscription.
    let kept = anna.statement(device.id(), 2, pause());
    device.publish(&format!("cmd/pause/{}", kept.id), anna.sign(&kept), true);
    device.until("it came as it was sent first", |heard| {
        heard.acks.iter().any(|ack| ack.id == kept.id && ack.status.is_final()).then_some(())
    });
    order(&device, &anna, 3, resume()).unwrap();
    order(&device, &anna, 4, restart).unwrap();
    device.until("another start", |heard| (heard.births.len() > births && heard.online()).then_some(()));
    let reason = wait_until("the refusal of what was kept", PATIENCE, || {
        let heard = device.heard.lock().unwrap();
        heard.acks.iter().find_map(|ack| match &ack.status {
            ReplyStatus::Failed { reason } if ack.id == kept.id => Some(reason.clone()),
            _ => None,
        })
    });
    assert!(reason.code == ReasonCode::BadRequest && reason.detail.contains("retained"), "{reason}");
    device.until_frames(3);
    assert!(!is_paused(&device));
}

#[test]
fn a_group_is_commanded_by_those_who_may() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v1"]);
    let device = Device::serving(options(&broker, &repository), &release(1));
    let (ours, others) = (Person::new("ours", 1), Person::new("others", 2));
    appoint(&device, &mut repository, &[ours.entry_for(&ALL, "line"), others.entry_for(&ALL, "hall")]);
    let to_group = |person: &Person, sequence: u64, action: Value| {
        let statement = person.statement("group:line", sequence, action);
        let command = statement.action["command"].as_str().unwrap().to_owned();
        say_at(&device, "group/line", &command, statement.id.as_str(), &person.sign(&statement))
    };
    assert_eq!(code(to_group(&others, 1, pause())), ReasonCode::NotAllowed);
    order(&device, &ours, 100, pause()).unwrap();
    // Each audience has its numbers: 1 comes before 100 and is good.
    to_group(&ours, 1, resume()).unwrap();
    assert!(!is_paused(&device));
    let again = ours.statement("group:line", 1, pause());
    let again = say_at(&device, "group/line", "pause", again.id.as_str(), &ours.sign(&again));
    assert_eq!(code(again), ReasonCode::Replayed);
    // A broker that passes a group's command on at the device's own topic gains nothing: it is obeyed once.
    let statement = ours.statement("group:line", 2, pause());
    say(&device, "pause", statement.id.as_str(), &ours.sign(&statement)).unwrap();
    assert!(is_paused(&device));
}

#[test]
fn a_revoked_key_is_refused_from_the_moment_the_device_knows() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v1"]);
    let mut device = Device::serving(options(&broker, &repository), &release(1));
    let (anna, ben) = (Person::new("anna", 1), Person::new("ben", 2));
    appoint(&device, &mut repository, &[anna.entry(&ALL), ben.entry(&ALL)]);
    order(&device, &anna, 1, pause()).unwrap();
    order(&device, &anna, 2, resume()).unwrap();

    let list = list(&[ben.entry(&ALL)]);
    repository.publisher.set_operators(&list, Timestamp::now()).unwrap();
    let mut sequence = 2;
    let refused = wait_until("the revocation is known", PATIENCE, || {
        sequence += 1;
        order(&device, &anna, sequence, resume()).err()
    });
    assert_eq!(refused.code, ReasonCode::SignatureInvalid, "{refused}");
    order(&device, &ben, 1, resume()).unwrap();
    // Also after a restart without a network: what is kept is the new list.
    repository.web.trouble("", crate::support::web::Trouble::Status(503));
    assert!(device.stop().success());
    device.forget();
    device.start();
    device.until("it is back", |heard| heard.online().then_some(()));
    assert_eq!(code(order(&device, &anna, 1000, pause())), ReasonCode::SignatureInvalid);
    order(&device, &ben, 2, resume()).unwrap();
    assert!(!is_paused(&device));
}

/// The number is durable before the act: a power cut between the two loses the command, and never runs it
/// twice.
#[test]
fn a_command_whose_agent_was_killed_is_not_run_again_and_the_refusal_is_told() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v1", "v2"]);
    let mut device = Device::serving(options(&broker, &repository), &release(1));
    let anna = Person::new("anna", 1);
    appoint(&device, &mut repository, &[anna.entry(&ALL)]);

    // Killed as soon as the number is durable; what it began by then its journal goes on with.
    let statement = anna.statement(device.id(), 7, update(2));
    let envelope = anna.sign(&statement);
    device.publish(&format!("cmd/update/{}", statement.id), envelope.clone(), false);
    wait_until("the number is durable", PATIENCE, || {
        device.log().contains("its number is durable").then_some(())
    });
    device.kill();
    let store = || Store::open(&device.path("state/store")).unwrap().store;
    let name = format!("{}/{}", anna.key.id(), device.id());
    assert_eq!(numbers(&store()).get(&name).unwrap().unwrap().sequence, 7);
    // And one that was killed exactly between: the number is there, and nothing else.
    let between = Highest { sequence: 8, id: "anna-8".parse().unwrap(), at: Timestamp::now() };
    {
        let store = store();
        numbers(&store).put(&name, &between).unwrap();
        store.sync().unwrap();
    }
    device.until("the last will", |heard| (heard.availability.last()? == "offline").then_some(()));
    device.forget();
    device.start();
    device.until("it is back", |heard| heard.online().then_some(()));

    let replayed = say(&device, "update", statement.id.as_str(), &envelope).unwrap_err();
    assert_eq!(replayed.code, ReasonCode::Replayed, "{replayed}");
    let lost = order(&device, &anna, 8, pause()).unwrap_err();
    assert!(lost.code == ReasonCode::Replayed && lost.detail.contains("ask for the state"), "{lost}");
    assert!(!is_paused(&device));
    order(&device, &anna, 9, json!({ "command": "status" })).unwrap();
    assert!(device.stop().success());
    let opened = Store::open(&device.path("state/store")).unwrap();
    let history = Journal::new(&opened.store).history().unwrap();
    let of_v2 = history.iter().filter(|ended| ended.deployment.release.to_string() == release(2));
    assert!(of_v2.count() <= 1, "{history:#?}");
}

/// Who holds the broker has every command that ever passed, and sends them again in whatever order.
#[test]
fn a_stolen_broker_can_hold_commands_back_and_nothing_else() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v1"]);
    let mut device = Device::serving(options(&broker, &repository), &release(1));
    let (anna, ben) = (Person::new("anna", 1), Person::new("ben", 2));
    appoint(&device, &mut repository, &[anna.entry(&ALL), ben.entry(&ALL)]);
    let signed = |sequence: u64, action: Value| {
        let statement = anna.statement(device.id(), sequence, action);
        let envelope = anna.sign(&statement);
        (statement, envelope)
    };
    let (first, second, third, fourth) =
        (signed(1, pause()), signed(2, pause()), signed(3, pause()), signed(4, resume()));
    let pass_on = |device: &Device, (statement, envelope): &(Statement, String)| {
        let command = statement.action["command"].as_str().unwrap();
        say(device, command, statement.id.as_str(), envelope)
    };
    // The third arrives before the others: they were held back too long.
    pass_on(&device, &third).unwrap();
    for late in [&first, &second] {
        assert_eq!(code(pass_on(&device, late)), ReasonCode::Replayed);
    }
    pass_on(&device, &fourth).unwrap();
    // A double of one that is still remembered is answered as before, and does nothing.
    assert_eq!(pass_on(&device, &third).unwrap()["paused"], true);
    assert!(!is_paused(&device));
    // Another operator's numbers are another row.
    order(&device, &ben, 1, resume()).unwrap();
    // The agent forgets what it answered, and not what it has seen.
    assert!(device.stop().success());
    device.forget();
    device.start();
    device.until("it is back", |heard| heard.online().then_some(()));
    for old in [&fourth, &third, &first, &second, &third] {
        assert_eq!(code(pass_on(&device, old)), ReasonCode::Replayed);
    }
    assert!(!is_paused(&device));
    device.until_frames(3);
}

/// Operator-key compromise. The thief may deploy; whatever he does, what runs is something that the offline
/// keys have signed.
#[test]
fn operator_key_compromise_can_only_choose_among_the_models_that_the_offline_keys_signed() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v1", "v2"]);
    let device = Device::serving(options(&broker, &repository), &release(1));
    let thief = Person::new("anna", 1);
    appoint(&device, &mut repository, &[thief.entry(&ALL)]);
    let mut sequence = 0;
    let mut command = |action: Value| {
        sequence += 1;
        order(&device, &thief, sequence, action)
    };
    // A release that nobody published.
    assert_eq!(code(command(update(3))), ReasonCode::NotFound);
    // A model of his own, in a repository that he signs with the key that he has, put in the place of ours.
    let theirs = Repository::with(&["v1", "v2", "v5"]);
    let foreign = theirs.dir.path().join("repository");
    repository.web.serve(&foreign);
    assert!(code(command(update(5))).is_trust());
    repository.web.serve(&repository.folder());
    // A file of his own: not over MQTT.
    let file = json!({ "command": "install", "file": "/tmp/evil.bundle" });
    assert_eq!(code(command(file)), ReasonCode::BadRequest);
    // Bytes of his own under a name that is signed.
    repository.web.trouble(&Repository::model_blob("v2"), crate::support::web::Trouble::Flip);
    assert!(code(command(update(2))).is_trust());
    repository.web.well();
    assert_eq!(device.until("a state", |heard| heard.current()), release(1));
    device.until_frames(3);
    // What he can do: choose among what the owner signed, until his key is revoked.
    command(update(2)).unwrap();
    assert_eq!(device.until("a state", |heard| heard.current()), release(2));
    repository.publisher.set_operators(&list(&[]), Timestamp::now()).unwrap();
    let refused = wait_until("the revocation is known", PATIENCE, || command(resume()).err());
    assert_eq!(refused.code, ReasonCode::SignatureInvalid);
}

/// One person with one key: no list is needed where signatures are asked for.
#[test]
fn the_policy_is_that_of_the_configuration_and_the_owner_commands_where_nobody_is_listed() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2"]);
    let strict = options(&broker, &repository)
        .set("commands.require_signature", true)
        .set("commands.unsigned_observe", false);
    let mut device = Device::new(strict);
    device.start();
    device.until("it is there", |heard| heard.online().then_some(()));
    assert!(!device.heard.lock().unwrap().births.last().unwrap().commands_unsigned);
    assert!(!device.status().health.commands.unwrap().insecure);
    assert_eq!(code(say(&device, "status", "1", "{}")), ReasonCode::Unsigned);
    assert_eq!(code(device.update(&release(1))), ReasonCode::Unsigned);
    // The key folder of the repository holds the one key; the command line signs with it.
    let key = repository.dir.path().join("keys/signing.pem");
    let sign = |action: Value| {
        let arguments =
            ["sign-command", "--json", "--key", key.to_str().unwrap(), "--to", device.id().as_str()];
        let action = action.to_string();
        let ended = crate::support::Edgewarden::run(arguments.into_iter().chain(["--action", &action]));
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let told: Value = serde_json::from_str(&ended.stdout).unwrap();
        let text = |key: &str| told[key].as_str().unwrap().to_owned();
        let command = serde_json::from_str::<Value>(&action).unwrap()["command"].as_str().unwrap().to_owned();
        assert_eq!(text("topic"), format!("edgewarden/{}/cmd/{command}/{}", device.id(), text("id")));
        say(&device, &command, &text("id"), &text("envelope"))
    };
    assert_eq!(sign(update(1)).unwrap()["release"], json!(release(1)));
    sign(json!({ "command": "status" })).unwrap();
    assert_eq!(code(order(&device, &Person::new("eve", 4), 1, pause())), ReasonCode::SignatureInvalid);

    // Whoever wants none: unsigned commands are taken although operators are listed.
    let mut repository = repository;
    let anna = Person::new("anna", 1);
    repository.publisher.set_operators(&list(&[anna.entry(&["observe"])]), Timestamp::now()).unwrap();
    assert!(device.stop().success());
    device.configure(|options| {
        options.set("commands.require_signature", "auto").set("commands.insecure", true)
    });
    device.forget();
    device.start();
    device.until("it is back", |heard| heard.online().then_some(()));
    wait_until("the list is known", PATIENCE, || {
        device.log().contains("operators: 1 are listed").then_some(())
    });
    say(&device, "pause", "2", "{}").unwrap();
    // It is named what it is.
    let health = device.status().health;
    assert!(health.commands.as_ref().unwrap().insecure);
    assert!(health.problems.iter().any(|problem| problem.code == ProblemCode::Insecure), "{health:?}");
    // What is signed is judged all the same.
    assert_eq!(code(order(&device, &anna, 1, resume())), ReasonCode::NotAllowed);
    assert!(is_paused(&device));
}

/// Commands are judged by the trust clock: a device that knows of a later time than its system clock goes by
/// that, and does not take what seems to come from its future for wrong.
#[test]
fn the_time_of_a_command_is_judged_by_the_trust_clock() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v1"]);
    let mut device = Device::serving(options(&broker, &repository), &release(1));
    let anna = Person::new("anna", 1);
    appoint(&device, &mut repository, &[anna.entry(&ALL)]);
    assert!(device.stop().success());
    let day = Duration::from_secs(86_400);
    let known = Timestamp::now() + 20 * day;
    std::fs::write(device.path("state/clock"), known.to_string()).unwrap();
    device.forget();
    device.start();
    device.until("it is back", |heard| heard.online().then_some(()));
    // Good by the system clock, over by what is known to have passed.
    assert_eq!(code(order(&device, &anna, 1, pause())), ReasonCode::Expired);
    let mut later = anna.statement(device.id(), 2, resume());
    (later.issued, later.expires) = (known + 2 * day, known + 3 * day);
    // The clock is certainly wrong, so nothing can be too early.
    send(&device, &anna, &later).unwrap();
    // And the numbers hold.
    assert_eq!(
        code(send(&device, &anna, &Statement { id: "again".parse().unwrap(), ..later })),
        ReasonCode::Replayed
    );
}
