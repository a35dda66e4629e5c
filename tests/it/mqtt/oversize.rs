//! Messages that are larger than a message may be, or than the broker takes: refused before the spool, counted and
//! told; and a limit that comes later holds up nothing.

use super::*;
use edgewarden::domain::importance::Dropped;
use edgewarden::mqtt::payloads::DroppedReport;
use std::io::Write;

fn state_of(slot: &str, detail: &str) -> SlotState {
    SlotState { slot: slot.parse().unwrap(), ..slot_state(Stage::Refused, 1.0, detail) }
}

fn on_disk(dir: &std::path::Path) -> Spool {
    Spool::open(DiskStore::new(&Store::open(dir).unwrap().store))
}

/// Another line for the broker, which counts from its next start on.
fn configure(broker: &Mosquitto, line: &str) {
    let conf = std::fs::File::options().append(true).open(broker.dir.path().join("mosquitto.conf"));
    writeln!(conf.unwrap(), "{line}").unwrap();
}

/// What the device says was dropped, all in all.
async fn told_as_dropped(operator: &Operator) -> Dropped {
    let (_, message) = heard(operator, |said| *said == Said::Dropped).await;
    Stamped::<DroppedReport>::read(&message.payload).unwrap().body.since_start
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_never_reaches_the_spool() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Mosquitto::with(&Setup { lines: vec!["max_packet_size 4000"], ..Setup::default() });
    let (handle, _incoming) = start_with(&settings(broker.port), on_disk(dir.path()));
    until_up(&handle).await;
    let hearing = operator(&broker).await;
    // More than any message may have; and more than this broker takes.
    for (large, dropped) in [(200_000, 1), (5_000, 2)] {
        handle.slot_state(&state_of("large", &"x".repeat(large)));
        until("it is counted", || handle.figures().dropped.deployment == dropped).await;
    }
    // It is told with the next message; what comes after that only a minute later.
    handle.slot_state(&state_of("small", ""));
    assert!((1..=2).contains(&told_as_dropped(&hearing).await.deployment));
    until("nothing waits", || handle.figures().spool_len == 0).await;
    hearing.close(PATIENCE).await;
    broker.stop();
    until_down(&handle).await;

    // What a broker takes is known while it is away.
    handle.slot_state(&state_of("large", &"x".repeat(5_000)));
    handle.slot_state(&state_of("another", ""));
    assert!(handle.accepted().await);
    let figures = handle.figures();
    assert_eq!((figures.spool_len, figures.dropped.deployment), (1, 3), "{figures:?}");
    broker.restart();
    let hearing = operator(&broker).await;
    heard(&hearing, |said| *said == Said::SlotState("another".parse().unwrap())).await;
    until("nothing waits", || handle.figures().spool_len == 0).await;
}

/// A broker that tells its limit, and one that does not: it answers what is too large, or ends the connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_was_lowered_after_the_spool_took_a_message_holds_up_nothing() {
    for limit in ["max_packet_size 4000", "message_size_limit 2000"] {
        let dir = tempfile::tempdir().unwrap();
        let mut broker = Mosquitto::start();
        let (handle, _incoming) = start_with(&settings(broker.port), on_disk(dir.path()));
        until_up(&handle).await;
        broker.stop();
        until_down(&handle).await;
        let slots: Vec<String> = (0..4).map(|n| format!("small-{n}")).collect();
        for (slot, large) in slots.iter().zip([5_000, 30_000, 100_000, 0]) {
            handle.slot_state(&state_of(slot, ""));
            if large > 0 {
                handle.slot_state(&state_of(&format!("large-{large}"), &"x".repeat(large)));
            }
        }
        assert!(handle.accepted().await);
        assert_eq!(handle.figures().spool_len, 7);

        configure(&broker, limit);
        broker.restart();
        let hearing = operator(&broker).await;
        for slot in &slots {
            heard(&hearing, |said| *said == Said::SlotState(slot.parse().unwrap())).await;
        }
        until(&format!("nothing waits with {limit}"), || handle.figures().spool_len == 0).await;
        until("each is counted", || handle.figures().dropped.deployment == 3).await;
        // The next one is refused before the spool, and the connection stays.
        let connects = handle.figures().connects;
        handle.slot_state(&state_of("large", &"x".repeat(5_100)));
        until("it is counted", || handle.figures().dropped.deployment == 4).await;
        handle.slot_state(&state_of("last", ""));
        heard(&hearing, |said| *said == Said::SlotState("last".parse().unwrap())).await;
        assert_eq!(handle.figures().connects, connects, "{limit}");
    }
}
