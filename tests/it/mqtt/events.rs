//! Events through the spool: which of them may be left out.

use super::*;
use edgewarden::domain::event::{Count, Counts, EndReason, Event, EventId, Kind};
use edgewarden::mqtt::payloads::event::{CountsMessage, EventMessage};

fn event(id: u128, frames: u64) -> Event {
    Event {
        id: EventId(uuid::Uuid::from_u128(id)),
        label: "car".into(),
        score: 0.5,
        best_score: 0.75,
        bbox: Some([1.0, 2.0, 3.0, 4.0]),
        size: [640, 480],
        zones: vec![],
        entered_zones: vec![],
        start: jiff::Timestamp::UNIX_EPOCH,
        seen: jiff::Timestamp::UNIX_EPOCH,
        end: None,
        duration_s: 1.0,
        frames,
        seq: frames,
        reason: None,
    }
}

/// Without a broker, over a restart of the agent: each beginning and end, and of the updates the newest.
#[tokio::test(flavor = "multi_thread")]
async fn each_beginning_and_end_arrives_and_of_the_updates_the_newest() {
    let pipeline = "yard".parse().unwrap();
    let dir = tempfile::tempdir().unwrap();
    {
        let opened = Store::open(dir.path()).unwrap();
        let spool = Spool::open(DiskStore::new(&opened.store));
        let (handle, _incoming) = start_with(&settings(free_port()), spool);
        for id in 1..=3 {
            handle.event(&pipeline, Kind::New, &event(id, 1));
            for frames in 2..=50 {
                handle.event(&pipeline, Kind::Update, &event(id, frames));
            }
            handle.event(&pipeline, Kind::End, &event(id, 50).ended(EndReason::Lost));
        }
        handle.shutdown(PATIENCE).await;
    }
    let broker = Mosquitto::start();
    let operator = operator(&broker).await;
    let opened = Store::open(dir.path()).unwrap();
    let spool = Spool::open(DiskStore::new(&opened.store));
    let (handle, _incoming) = start_with(&settings(broker.port), spool);
    // The last word of this run is heard after all of the former.
    handle.event(&pipeline, Kind::New, &event(9, 1));
    let mut told = Vec::new();
    loop {
        let (_, message) = heard(&operator, |said| matches!(said, Said::Event(_))).await;
        assert!(!message.retained);
        let message = Stamped::<EventMessage>::read(&message.payload).unwrap().body;
        if message.event.id == event(9, 1).id {
            break;
        }
        told.push((message.event.id.0.as_u128(), message.kind, message.event.frames));
    }
    let life = |id| [(id, Kind::New, 1), (id, Kind::Update, 50), (id, Kind::End, 50)];
    assert_eq!(told, [life(1), life(2), life(3)].concat());

    let counts: Counts = [("car".to_owned(), Count { begun: 3, active: 0 })].into();
    handle.counts(&pipeline, &counts);
    let (_, message) = heard(&operator, |said| matches!(said, Said::Counts(_))).await;
    assert_eq!(Stamped::<CountsMessage>::read(&message.payload).unwrap().body.counts, counts);
    until("all is acknowledged", || handle.figures().spool_len == 0).await;
}
