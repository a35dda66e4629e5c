//! Starts of the agent that end badly again and again, and what the agent does about them.

use super::*;

/// Starts the agent, waits until its device is told this, and ends it as a crash does.
async fn crash_after(bench: &mut Bench, call: &str) {
    let running = bench.start(FakeHost { frames: vec![], ..FakeHost::default() }).await;
    running.host.until_called(call).await;
    assert_eq!(running.host.calls()[0], call);
    running.updater.stop().await;
}

async fn until_safe(running: &Running) -> Reason {
    let mut state = running.updater.slots[&slot()].state.clone();
    let state = timeout(GUARD, state.wait_for(|state| state.safe_mode.is_some())).await.unwrap().unwrap();
    state.safe_mode.clone().unwrap()
}

#[tokio::test]
async fn a_model_that_takes_the_agent_down_gives_way_to_the_one_before_it_and_then_to_safe_mode() {
    let mut bench = Bench::new();
    bench.with(&["1.0.0", "2.0.0"]).await;
    let max = bench.settings.max_starts;
    for _ in 0..max {
        crash_after(&mut bench, "serve 2.0.0").await;
    }
    crash_after(&mut bench, "serve 1.0.0").await;
    let fallback = bench.newest();
    assert_eq!(fallback.cause.as_ref().unwrap().code, ReasonCode::BootLoop);
    for _ in 1..max {
        crash_after(&mut bench, "serve 1.0.0").await;
    }
    assert_eq!(bench.links(), pair("1.0.0", "2.0.0"));

    let running = bench.start(FakeHost::default()).await;
    let reason = until_safe(&running).await;
    assert!(reason.code == ReasonCode::BootLoop && reason.detail.contains("detector@1.0.0"), "{reason}");
    assert_eq!(running.host.calls(), ["serve nothing"]);
    // An update is taken, and ends the safe mode.
    good(running.updater.update(&slot(), release("3.0.0"), Default::default()).unwrap()).await;
    assert_eq!(running.host.serving().unwrap(), "detector@3.0.0");
    assert_eq!(running.updater.state(&slot()).unwrap().safe_mode, None);
    running.updater.stop().await;
    crash_after(&mut bench, "serve 3.0.0").await;
}

#[tokio::test]
async fn a_refused_update_leaves_safe_mode_as_it_is_and_a_rollback_ends_it() {
    let mut bench = Bench::new();
    bench.with(&["1.0.0", "2.0.0"]).await;
    for call in ["serve 2.0.0", "serve 1.0.0"] {
        for _ in 0..bench.settings.max_starts {
            crash_after(&mut bench, call).await;
        }
    }
    let trial = Answer::Fail(ReasonCode::GoldenMismatch);
    let running = bench.start(FakeHost { trial, ..FakeHost::default() }).await;
    until_safe(&running).await;
    bad(running.updater.update(&slot(), release("3.0.0"), Default::default()).unwrap()).await;
    assert_eq!((running.host.serving(), bench.links()), (None, pair("1.0.0", "2.0.0")));
    until_safe(&running).await;
    good(running.updater.rollback(&slot()).unwrap()).await;
    assert_eq!(running.host.serving().unwrap(), "detector@2.0.0");
    assert_eq!(running.updater.state(&slot()).unwrap().safe_mode, None);
}

#[tokio::test]
async fn ends_that_somebody_asked_for_count_against_no_model() {
    let mut bench = Bench::new();
    bench.with(&["1.0.0", "2.0.0"]).await;
    for _ in 0..bench.settings.max_starts * 2 {
        let running = bench.start(FakeHost::default()).await;
        running.host.until_called("serve 2.0.0").await;
        running.updater.ends_on_purpose().await;
        running.updater.stop().await;
    }
    assert_eq!(bench.links(), pair("2.0.0", "1.0.0"));
}

#[tokio::test]
async fn an_agent_that_stays_up_in_safe_mode_tries_the_model_once_more() {
    let mut bench = Bench::new();
    bench.with(&["1.0.0"]).await;
    for _ in 0..bench.settings.max_starts {
        crash_after(&mut bench, "serve 1.0.0").await;
    }
    // As a crash in that one start leaves it.
    let mut starts = bench.journal.starts(&slot()).unwrap().unwrap();
    starts.try_once(bench.newest().candidate().unwrap().digest, bench.settings.max_starts);
    bench.journal.record_starts(&slot(), &starts).unwrap();
    bench.settings.settled = Duration::from_millis(1);
    let running = bench.start(FakeHost::default()).await;
    running.host.until_called("serve 1.0.0").await;
    assert_eq!(running.host.calls(), ["serve nothing", "serve 1.0.0"]);
    let mut state = running.updater.slots[&slot()].state.clone();
    timeout(GUARD, state.wait_for(|state| state.safe_mode.is_none())).await.unwrap().unwrap();
    assert_eq!(running.host.serving().unwrap(), "detector@1.0.0");
    // It stays up now: a later crash is the first one again.
    let stain = bench.journal.starts(&slot()).unwrap();
    timeout(GUARD, async {
        while bench.journal.starts(&slot()).unwrap() == stain {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    running.updater.stop().await;
    bench.settings.settled = GUARD;
    crash_after(&mut bench, "serve 1.0.0").await;
    crash_after(&mut bench, "serve 1.0.0").await;
}

#[tokio::test]
async fn where_what_a_rollback_puts_back_is_broken_too_the_last_good_one_serves() {
    let mut bench = Bench::new();
    bench.with(&["1.0.0", "2.0.0"]).await;
    let running = bench.start(FakeHost { frames: vec![], ..FakeHost::default() }).await;
    running.updater.update(&slot(), release("3.0.0"), Default::default()).unwrap();
    running.until(Stage::Probation).await;
    running.updater.stop().await;
    let (rolling, _) =
        step(&bench.newest(), Event::Failed(Reason::new(ReasonCode::TooSlow, "slow"))).unwrap();
    bench.journal.record(&rolling).unwrap();
    for _ in 0..bench.settings.max_starts {
        let running = bench.start(FakeHost { serve: Answer::Hang, ..FakeHost::default() }).await;
        running.host.until_called("serve 2.0.0").await;
        running.updater.stop().await;
    }
    let running = bench.start(FakeHost::default()).await;
    assert_eq!(running.until_ended().await, Stage::RolledBack);
    assert_eq!(running.host.serving().unwrap(), "detector@1.0.0");
    assert_eq!(bench.links(), (Some("1.0.0".to_owned()), None));
}

#[tokio::test]
async fn a_model_that_was_taken_off_the_list_does_not_come_back_by_a_boot_loop() {
    let mut bench = Bench::new();
    bench.with(&["1.0.0", "2.0.0"]).await;
    bench.delisted = vec![release("1.0.0")];
    for _ in 0..bench.settings.max_starts {
        crash_after(&mut bench, "serve 2.0.0").await;
    }
    let running = bench.start(FakeHost::default()).await;
    until_safe(&running).await;
    assert_eq!(
        (running.host.calls(), bench.links()),
        (vec!["serve nothing".to_owned()], pair("2.0.0", "1.0.0"))
    );
}
