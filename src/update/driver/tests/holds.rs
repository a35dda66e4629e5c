//! Updates that wait: told, kept over restarts, ended by whoever says so, and aborted at once.

use super::*;
use crate::domain::maintenance::{Connection, Hold, Metered, Rules, StartWish};
use crate::sys::local_time::LocalTime;

const NOW: StartWish = StartWish { now: true, spread: false };
const GROUP: StartWish = StartWish { now: false, spread: true };

/// A device with a model, on which updates wait by these rules.
async fn bench(rules: Rules) -> Bench {
    let mut bench = Bench::new();
    bench.with(&["1.0.0"]).await;
    bench.settings.rules = rules;
    bench
}

fn metered() -> Rules {
    Rules { connection: Connection::Metered, metered: Metered::Never, ..Rules::default() }
}

fn spread() -> Rules {
    Rules { start_jitter: Duration::from_secs(1 << 30), ..Rules::default() }
}

/// No window is open today, and none tomorrow.
fn closed() -> Rules {
    let days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    let day = days[(usize::from(LocalTime::now().moment().day) + 3) % 7];
    Rules { windows: vec![format!("{day} 02:00-03:00").parse().unwrap()], ..Rules::default() }
}

impl Running {
    /// Asks for 2.0.0.
    fn ask(&self, start: StartWish) -> Ticket {
        self.updater.update_when(&slot(), release("2.0.0"), Default::default(), start).unwrap()
    }

    /// Waits until the deployment is held, and gives its stage and whether the time is known when it goes on.
    async fn until_held(&self, hold: Hold) -> (Stage, bool) {
        let mut state = self.updater.slots[&slot()].state.clone();
        let held = |state: &SlotState| {
            let deployment = state.deployment.as_ref()?;
            let waiting = deployment.waiting.as_ref().filter(|waiting| waiting.hold == hold)?;
            Some((deployment.stage, waiting.until.is_some()))
        };
        let found = timeout(GUARD, state.wait_for(|state| held(state).is_some())).await;
        let state = found.unwrap_or_else(|_| panic!("never held: {:?}", self.updater.states())).unwrap();
        held(&state).unwrap()
    }
}

#[tokio::test]
async fn a_wait_is_told_survives_restarts_and_ends_by_an_order_that_says_now() {
    for (rules, wish, hold, expected) in [
        (metered(), StartWish::default(), Hold::Metered, (Stage::Fetching, false)),
        (spread(), GROUP, Hold::Jitter, (Stage::Resolving, true)),
        (closed(), StartWish::default(), Hold::Window, (Stage::Staged, true)),
        (Rules { fetch_in_windows: true, ..closed() }, GROUP, Hold::Window, (Stage::Resolving, true)),
    ] {
        let mut bench = bench(rules).await;
        let running = bench.start(FakeHost::default()).await;
        let mut ticket = running.ask(wish);
        assert_eq!(running.until_held(hold).await, expected);
        let waits = |told: &Progress| match told {
            Progress::Executing { detail, .. } => detail.starts_with("detector@2.0.0 waits"),
            Progress::Successful { .. } | Progress::Failed { .. } => false,
        };
        timeout(GUARD, ticket.wait_for(waits)).await.expect("the wait is told").unwrap();
        assert!(!running.host.calls().iter().any(|call| call == "try"));
        let before = bench.newest().start;
        running.updater.stop().await;

        let running = bench.start(FakeHost::default()).await;
        assert_eq!(running.until_held(hold).await, expected, "after a restart");
        assert_eq!(bench.newest().start, before);
        // The same once more changes nothing, and is told how it ends.
        let again = running.ask(wish);
        let now = running.ask(NOW);
        good(again).await;
        good(now).await;
        assert_eq!(bench.links(), pair("2.0.0", "1.0.0"));
        assert!(bench.newest().start.now);
        assert_eq!(running.until_ended().await, Stage::Committed);
    }
}

#[tokio::test]
async fn a_wait_is_aborted_and_superseded_at_once() {
    for (rules, wish, hold) in [
        (metered(), StartWish::default(), Hold::Metered),
        (spread(), GROUP, Hold::Jitter),
        (closed(), StartWish::default(), Hold::Window),
    ] {
        let mut bench = bench(rules).await;
        let running = bench.start(FakeHost::default()).await;
        let ticket = running.ask(wish);
        running.until_held(hold).await;
        let newer = running.updater.update_when(&slot(), release("3.0.0"), Default::default(), wish).unwrap();
        assert_eq!(bad(ticket).await.code, ReasonCode::Superseded);
        running.until_held(hold).await;
        good(running.updater.abort(&slot()).unwrap()).await;
        assert_eq!(bad(newer).await.code, ReasonCode::Aborted);
        assert_eq!(bench.links(), (Some("1.0.0".to_owned()), None));
        assert_eq!(running.host.serving().unwrap(), "detector@1.0.0");
    }
}

#[tokio::test]
async fn nothing_waits_that_need_not() {
    // A device without a model takes its first one in any window; a rollback never waits.
    let mut empty = Bench::new();
    empty.settings.rules = Rules { fetch_in_windows: true, ..closed() };
    let running = empty.start(FakeHost::default()).await;
    good(running.ask(StartWish::default())).await;
    running.updater.stop().await;

    let mut bench = Bench::new();
    bench.with(&["1.0.0", "2.0.0"]).await;
    bench.settings.rules = Rules { fetch_in_windows: true, ..closed() };
    let running = bench.start(FakeHost::default()).await;
    good(running.updater.rollback(&slot()).unwrap()).await;
    running.updater.stop().await;
    // Nor an order for this device alone for the sake of its group.
    bench.settings.rules = spread();
    let running = bench.start(FakeHost::default()).await;
    good(running.ask(StartWish::default())).await;
    assert_eq!(bench.newest().start.not_before, None);
}

#[tokio::test]
async fn an_order_for_this_device_ends_the_delay_of_its_group() {
    let mut bench = bench(spread()).await;
    let running = bench.start(FakeHost::default()).await;
    let group = running.ask(GROUP);
    running.until_held(Hold::Jitter).await;
    good(running.ask(StartWish::default())).await;
    good(group).await;
}

#[tokio::test]
async fn what_is_taken_off_the_list_while_it_waits_is_not_tried() {
    let mut bench = bench(closed()).await;
    let running = bench.start(FakeHost::default()).await;
    running.ask(StartWish::default());
    running.until_held(Hold::Window).await;
    running.updater.stop().await;
    bench.delisted = vec![release("2.0.0")];
    let running = bench.start(FakeHost::default()).await;
    running.until_held(Hold::Window).await;
    let reason = bad(running.ask(NOW)).await;
    assert!(reason.code == ReasonCode::NotFound && reason.detail.contains("while it waited"), "{reason}");
    assert_eq!(bench.links(), (Some("1.0.0".to_owned()), None));
    assert!(!running.host.calls().iter().any(|call| call == "try"));
}

#[tokio::test]
async fn whoever_asks_again_and_again_takes_no_room() {
    let mut bench = bench(closed()).await;
    let running = bench.start(FakeHost::default()).await;
    let first = running.ask(StartWish::default());
    running.until_held(Hold::Window).await;
    let mut others = Vec::new();
    for _ in 0..20 {
        let ticket = running.ask(StartWish::default());
        // Taken from the queue, which is bounded, too.
        let mut seen = ticket.clone();
        let waits = |progress: &Progress| matches!(progress, Progress::Executing { detail, .. } if detail.contains("waits"));
        timeout(GUARD, seen.wait_for(waits)).await.unwrap().unwrap();
        others.push(ticket);
    }
    assert_eq!(bad(first).await.code, ReasonCode::Superseded);
    good(running.ask(NOW)).await;
    good(others.pop().unwrap()).await;
}
