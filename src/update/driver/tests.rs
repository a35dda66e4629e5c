//! Whole deployments with a device and a repository that do as they are told, and kills in between.

mod boot_loop;
mod fakes;
mod holds;

use super::*;
use crate::domain::deployment::Stage;
use crate::domain::lifecycle::{Deployment, Event, step};
use crate::sys::small_disk::{fill, small_disk};
use crate::sys::store::Store;
use crate::update::stage::tests::{Fault, Repository};
use fakes::*;
use std::fs;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

#[tokio::test]
async fn an_update_goes_its_whole_way_and_success_comes_after_commit() {
    let mut bench = Bench::new();
    bench.with(&["1.0.0"]).await;
    let running = bench.start(FakeHost::default()).await;
    running.host.until_called("serve 1.0.0").await;
    let mut reports = running.updater.subscribe();
    let ticket = running.updater.update(&slot(), release("2.0.0"), Default::default()).unwrap();
    assert_eq!(good(ticket).await["release"], "detector@2.0.0");
    assert_eq!(bench.newest().stage(), Stage::Committed);
    assert_eq!(bench.links(), pair("2.0.0", "1.0.0"));
    running.until_ended().await;
    let mut stages = Vec::new();
    while let Ok(state) = reports.try_recv() {
        let stage = state.deployment.unwrap().stage;
        if stages.last() != Some(&stage) {
            stages.push(stage);
        }
    }
    use Stage::*;
    assert_eq!(
        stages,
        [Resolving, Fetching, Verifying, Staged, OnTrial, Swapping, Probation, Committed],
        "every stage is reported"
    );
    assert_eq!(running.host.calls(), ["serve 1.0.0", "try", "swap", "observe", "settle"]);
    assert_eq!(running.host.serving().unwrap(), "detector@2.0.0");
    let state = running.updater.state(&slot()).unwrap();
    assert_eq!((state.provider, state.current.unwrap().release), (Some(Provider::Cpu), release("2.0.0")));
    assert_eq!(running.updater.history().unwrap().len(), 2);
}

#[tokio::test]
async fn the_bundle_before_the_previous_one_is_removed() {
    let mut bench = Bench::new();
    bench.with(&["1.0.0", "2.0.0", "3.0.0"]).await;
    assert_eq!(bench.links(), pair("3.0.0", "2.0.0"));
    assert_eq!(bench.models(), 2);
}

#[tokio::test]
async fn every_way_to_be_refused_leaves_the_old_bundle_serving() {
    use ReasonCode::*;
    for (version, resolve, faults, trial, code) in [
        ("9.0.0", Answer::Good, vec![], Answer::Good, NotFound),
        ("2.0.0", Answer::Fail(SignatureInvalid), vec![], Answer::Good, SignatureInvalid),
        ("2.0.0", Answer::Good, vec![Fault::Tampered], Answer::Good, DigestMismatch),
        ("2.0.0", Answer::Good, vec![Fault::DiskFull], Answer::Good, DiskFull),
        ("2.0.0", Answer::Good, vec![Fault::Half], Answer::Good, RepositoryUnreachable),
        ("2.0.0", Answer::Good, vec![], Answer::Fail(GoldenMismatch), GoldenMismatch),
        ("2.0.0", Answer::Good, vec![], Answer::Fail(LoadFailed), LoadFailed),
    ] {
        let mut bench = Bench::new();
        bench.with(&["1.0.0"]).await;
        (bench.faults, bench.resolve) = (faults, resolve);
        let running = bench.start(FakeHost { trial, ..FakeHost::default() }).await;
        let reason =
            bad(running.updater.update(&slot(), release(version), Default::default()).unwrap()).await;
        assert_eq!(reason.code, code, "{reason}");
        assert_eq!(bench.newest().stage(), Stage::Refused);
        assert_eq!(running.until_ended().await, Stage::Refused);
        assert_eq!(bench.links(), (Some("1.0.0".to_owned()), None));
        assert_eq!((running.host.serving().unwrap(), bench.models()), ("detector@1.0.0".to_owned(), 1));
        let parts = fs::read_dir(bench.dir.path().join("downloads")).unwrap().count();
        assert_eq!(parts > 0, code == RepositoryUnreachable, "only a bad link's parts are kept: {code:?}");
    }
}

#[tokio::test]
async fn a_candidate_that_misbehaves_is_rolled_back() {
    use ReasonCode::*;
    let failed = Observation::FrameFailed(Reason::new(Internal, "bad frame"));
    let lost = Observation::ChildLost(Reason::new(ChildCrashed, "signal 11"));
    for (host, code) in [
        (FakeHost { frames: vec![failed; 30], ..FakeHost::default() }, TooManyErrors),
        (FakeHost { frames: vec![lost], ..FakeHost::default() }, ChildCrashed),
        (
            FakeHost { frames: vec![Observation::Frame { total_ms: 99.0 }; 30], ..FakeHost::default() },
            TooSlow,
        ),
        (FakeHost { swap: Answer::Fail(ChildHung), ..FakeHost::default() }, ChildHung),
    ] {
        let mut bench = Bench::new();
        bench.with(&["1.0.0", "2.0.0"]).await;
        let running = bench.start(host).await;
        let reason =
            bad(running.updater.update(&slot(), release("3.0.0"), Default::default()).unwrap()).await;
        assert_eq!(reason.code, code, "{reason}");
        assert_eq!(running.until_ended().await, Stage::RolledBack);
        assert_eq!(bench.links(), pair("2.0.0", "1.0.0"));
        assert_eq!(running.host.serving().unwrap(), "detector@2.0.0");
        assert_eq!(bench.models(), 2, "the candidate is removed");
        let record = running.updater.history().unwrap().pop().unwrap().deployment;
        assert_eq!((record.stage(), record.reason().unwrap().code), (Stage::RolledBack, code));
    }
}

#[tokio::test]
async fn the_first_bundle_of_a_slot_can_fail_too() {
    let mut bench = Bench::new();
    let lost = Observation::ChildLost(Reason::new(ReasonCode::ChildCrashed, "signal 11"));
    let running = bench.start(FakeHost { frames: vec![lost], ..FakeHost::default() }).await;
    assert_eq!(
        bad(running.updater.update(&slot(), release("1.0.0"), Default::default()).unwrap()).await.code,
        ReasonCode::ChildCrashed
    );
    assert_eq!((bench.links(), running.host.serving()), ((None, None), None));
    assert_eq!(running.host.calls().last().unwrap(), "serve nothing");
}

#[tokio::test]
async fn a_shadow_run_is_told_and_decides() {
    for (answer, stage) in
        [(Answer::Good, Stage::Committed), (Answer::Fail(ReasonCode::Disagrees), Stage::Refused)]
    {
        let mut bench = Bench::new();
        bench.with(&["1.0.0", "2.0.0"]).await;
        let running = bench.start(FakeHost { shadow: answer, ..FakeHost::default() }).await;
        let wish = ShadowWish { frames: Some(4), ..ShadowWish::default() };
        let ticket = running.updater.update(&slot(), release("3.0.0"), wish).unwrap();
        match answer {
            Answer::Good => assert_eq!(good(ticket).await["shadow"]["agreement"], 0.75),
            _ => assert_eq!(bad(ticket).await.code, ReasonCode::Disagrees),
        }
        assert_eq!(running.until_ended().await, stage);
        let told = running.updater.state(&slot()).unwrap().deployment.unwrap().shadow.unwrap();
        assert_eq!((told.frames, told.needed), (3, 4), "the outcome has what was found");
        let kept = running.updater.history().unwrap().pop().unwrap().deployment;
        assert_eq!(kept.shadow_report, Some(told));
    }
    let mut bench = Bench::new();
    bench.settings.shadow_frames = 4;
    let running = bench.start(FakeHost::default()).await;
    good(running.updater.update(&slot(), release("1.0.0"), ShadowWish::default()).unwrap()).await;
    assert!(!running.host.calls().contains(&"shadow".to_owned()), "a first bundle has nothing beside it");
    let none = ShadowWish { frames: Some(0), ..ShadowWish::default() };
    good(running.updater.update(&slot(), release("2.0.0"), none).unwrap()).await;
    assert!(!running.host.calls().contains(&"shadow".to_owned()), "this deployment asks for none");
    let odd = ShadowWish { min_agreement: Some(2.0), ..ShadowWish::default() };
    let refused = running.updater.update(&slot(), release("1.0.0"), odd).unwrap_err();
    assert_eq!(refused.code, ReasonCode::BadRequest);
}

/// The places where a deployment can be held up, and how.
fn places() -> Vec<(&'static str, Stage)> {
    vec![
        ("resolve", Stage::Resolving),
        ("fetch", Stage::Fetching),
        ("try", Stage::OnTrial),
        ("shadow", Stage::Shadowing),
        ("probation", Stage::Probation),
    ]
}

impl Bench {
    /// Starts with 1.0.0 and 2.0.0 and holds an update to 3.0.0 up at a place.
    async fn held(&mut self, place: &str) -> (Running, Ticket) {
        self.with(&["1.0.0", "2.0.0"]).await;
        let mut host = FakeHost::default();
        match place {
            "resolve" => self.resolve = Answer::Hang,
            "fetch" => self.faults = vec![Fault::Hang],
            "try" => host.trial = Answer::Hang,
            "shadow" => (host.shadow, self.settings.shadow_frames) = (Answer::Hang, 5),
            "swap" => host.swap = Answer::Hang,
            "probation" => host.frames = vec![],
            _ => unreachable!("{place}"),
        }
        let running = self.start(host).await;
        let ticket = running.updater.update(&slot(), release("3.0.0"), Default::default()).unwrap();
        (running, ticket)
    }
}

#[tokio::test]
async fn an_abort_wins_at_every_stage() {
    for (place, stage) in places() {
        let mut bench = Bench::new();
        let (running, ticket) = bench.held(place).await;
        running.until(stage).await;
        let abort = good(running.updater.abort(&slot()).unwrap()).await;
        assert_eq!(abort["release"], "detector@2.0.0", "{place}");
        assert_eq!(bad(ticket).await.code, ReasonCode::Aborted, "{place}");
        let expected = if place == "probation" { Stage::RolledBack } else { Stage::Refused };
        assert_eq!(running.until_ended().await, expected, "{place}");
        assert_eq!(bench.links(), pair("2.0.0", "1.0.0"), "{place}");
        assert_eq!(running.host.serving().unwrap(), "detector@2.0.0", "{place}");
        assert_eq!(running.host.calls().contains(&"discard".to_owned()), matches!(place, "try" | "shadow"));
    }
}

#[tokio::test]
async fn a_newer_wish_takes_the_place_of_a_running_one() {
    for (place, stage) in places() {
        let mut bench = Bench::new();
        let (running, ticket) = bench.held(place).await;
        running.until(stage).await;
        let newer = running.updater.update(&slot(), release("1.0.0"), Default::default()).unwrap();
        assert_eq!(bad(ticket).await.code, ReasonCode::Superseded, "{place}");
        if place == "fetch" {
            good(newer).await;
            assert_eq!(bench.links(), pair("1.0.0", "2.0.0"), "{place}");
        } else {
            // The same hold-up holds the newer one up too; what counts is that it was begun.
            let mut state = running.updater.slots[&slot()].state.clone();
            let begun = state.wait_for(|state| {
                state.deployment.as_ref().is_some_and(|now| now.release == release("1.0.0"))
            });
            timeout(GUARD, begun).await.unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn the_same_wish_again_joins_the_running_one() {
    let mut bench = Bench::new();
    let (running, ticket) = bench.held("probation").await;
    running.until(Stage::Probation).await;
    let joined = running.updater.update(&slot(), release("3.0.0"), Default::default()).unwrap();
    let feed = running.host.seen.lock().unwrap().feeds.pop().unwrap();
    for _ in 0..10 {
        feed.send(Observation::Frame { total_ms: 5.0 }).await.unwrap();
    }
    good(ticket).await;
    good(joined).await;
    assert_eq!(running.host.calls().iter().filter(|call| *call == "try").count(), 1);
}

/// A kill at every place, then a start: the update is finished, or what it did is undone.
#[tokio::test]
async fn a_kill_at_every_place_is_survived() {
    for place in ["resolve", "fetch", "try", "swap", "probation"] {
        let mut bench = Bench::new();
        let (running, ticket) = bench.held(place).await;
        match place {
            "resolve" => drop(running.until(Stage::Resolving).await),
            "fetch" => {
                while running.repository.asked() == 0 {
                    tokio::task::yield_now().await
                }
            }
            "probation" => running.host.until_called("observe").await,
            call => running.host.until_called(call).await,
        }
        running.updater.stop().await;
        assert_eq!(outcome(ticket).await, None, "nobody is told of a success that did not happen");
        let serving = if place == "probation" { "3.0.0" } else { "2.0.0" };
        assert_eq!(bench.links().0.unwrap(), serving, "{place}");

        let running = bench.start(FakeHost::default()).await;
        assert_eq!(running.until_ended().await, Stage::Committed, "{place}");
        assert_eq!(bench.links(), pair("3.0.0", "2.0.0"), "{place}");
        assert_eq!(running.host.calls()[0], format!("serve {serving}"), "{place}");
        assert_eq!(running.host.serving().unwrap(), "detector@3.0.0", "{place}");
        if place == "fetch" {
            assert!(running.repository.asked() <= 2, "the other file was not fetched again");
        }
    }
}

/// Both links and the journal are written one after the other; here the kill falls between them.
#[tokio::test]
async fn a_kill_between_the_links_and_the_journal_is_survived() {
    for both_links in [false, true] {
        let mut bench = Bench::new();
        let (running, _ticket) = bench.held("swap").await;
        running.host.until_called("swap").await;
        running.updater.stop().await;
        let swapping = bench.newest();
        assert_eq!(swapping.stage(), Stage::Swapping);
        let folders = Folders::prepare(bench.dir.path()).unwrap();
        let previous = if both_links { &swapping.serving } else { &swapping.older };
        slots::set(&folders, &slot(), swapping.candidate(), previous.as_ref()).unwrap();

        let running = bench.start(FakeHost { swap: Answer::Hang, ..FakeHost::default() }).await;
        assert_eq!(running.until_ended().await, Stage::Committed);
        assert_eq!(bench.links(), pair("3.0.0", "2.0.0"));
        assert_eq!(
            running.host.calls(),
            ["serve 3.0.0", "observe", "settle"],
            "no second trial, no second swap"
        );
    }
}

#[tokio::test]
async fn a_kill_while_rolling_back_ends_with_the_old_bundle() {
    let mut bench = Bench::new();
    bench.with(&["1.0.0", "2.0.0"]).await;
    let running = bench.start(FakeHost { frames: vec![], ..FakeHost::default() }).await;
    running.updater.update(&slot(), release("3.0.0"), Default::default()).unwrap();
    running.until(Stage::Probation).await;
    running.updater.stop().await;
    // As if the process had ended right after the decision was recorded.
    let (rolling, _) =
        step(&bench.newest(), Event::Failed(Reason::new(ReasonCode::TooSlow, "slow"))).unwrap();
    bench.journal.record(&rolling).unwrap();
    for serve in [Answer::Hang, Answer::Good] {
        let running = bench.start(FakeHost { serve, ..FakeHost::default() }).await;
        running.host.until_called("serve 2.0.0").await;
        assert!(!running.host.calls().contains(&"serve 3.0.0".to_owned()));
        if serve == Answer::Good {
            assert_eq!(running.until_ended().await, Stage::RolledBack);
        }
        assert_eq!(bench.links(), pair("2.0.0", "1.0.0"), "the links come first");
        running.updater.stop().await;
    }
    assert_eq!(bench.newest().reason().unwrap().code, ReasonCode::TooSlow);
}

#[tokio::test]
async fn a_boot_loop_in_probation_ends_and_does_not_start_the_candidate_again() {
    let mut bench = Bench::new();
    let (running, _ticket) = bench.held("probation").await;
    running.until(Stage::Probation).await;
    running.updater.stop().await;
    for _ in 0..bench.settings.max_boots {
        let running = bench.start(FakeHost { frames: vec![], ..FakeHost::default() }).await;
        running.host.until_called("observe").await;
        assert_eq!(running.host.calls()[0], "serve 3.0.0");
        running.updater.stop().await;
    }
    let running = bench.start(FakeHost::default()).await;
    assert_eq!(running.until_ended().await, Stage::RolledBack);
    assert_eq!(running.host.calls(), ["serve 2.0.0"]);
    assert_eq!(bench.newest().reason().unwrap().code, ReasonCode::BootLoop);
    assert_eq!(bench.links(), pair("2.0.0", "1.0.0"));
}

#[tokio::test]
async fn a_candidate_that_no_longer_loads_after_a_restart_is_rolled_back() {
    let mut bench = Bench::new();
    let (running, _ticket) = bench.held("probation").await;
    running.until(Stage::Probation).await;
    running.updater.stop().await;
    let running =
        bench.start(FakeHost { serve: Answer::Fail(ReasonCode::LoadFailed), ..FakeHost::default() }).await;
    assert_eq!(running.until_ended().await, Stage::RolledBack);
    let reason = bench.newest().reason().unwrap().clone();
    assert_eq!(reason.code, ReasonCode::LoadFailed);
    assert!(reason.detail.contains("; then "), "that the old one fails too is told: {reason}");
    assert_eq!(bench.links(), pair("2.0.0", "1.0.0"));
}

#[tokio::test]
async fn a_lost_journal_costs_the_probation_and_not_the_model() {
    let mut bench = Bench::new();
    let (running, _ticket) = bench.held("probation").await;
    running.until(Stage::Probation).await;
    running.updater.stop().await;
    bench.journal = Journal::new(&Store::open(&bench.dir.path().join("other")).unwrap().store);
    let running = bench.start(FakeHost::default()).await;
    running.host.until_called("serve 3.0.0").await;
    assert_eq!(bench.links(), pair("3.0.0", "2.0.0"));
    good(running.updater.rollback(&slot()).unwrap()).await;
    assert_eq!(running.host.serving().unwrap(), "detector@2.0.0");
}

#[tokio::test]
async fn a_rollback_by_command_swaps_current_and_previous() {
    let mut bench = Bench::new();
    bench.with(&["1.0.0", "2.0.0"]).await;
    let running = bench.start(FakeHost::default()).await;
    for (current, previous) in [("1.0.0", "2.0.0"), ("2.0.0", "1.0.0")] {
        good(running.updater.rollback(&slot()).unwrap()).await;
        assert_eq!(bench.links(), pair(current, previous));
        assert_eq!(running.host.serving().unwrap(), release(current).to_string());
    }
    assert!(!running.host.calls().contains(&"try".to_owned()));
}

#[tokio::test]
async fn a_rollback_during_probation_brings_back_what_served_before() {
    let mut bench = Bench::new();
    let (running, ticket) = bench.held("probation").await;
    running.until(Stage::Probation).await;
    assert_eq!(good(running.updater.rollback(&slot()).unwrap()).await["release"], "detector@2.0.0");
    assert_eq!(bad(ticket).await.code, ReasonCode::Aborted);
    assert_eq!(bench.links(), pair("2.0.0", "1.0.0"));
}

#[tokio::test]
async fn what_was_taken_off_the_list_comes_back_by_no_order() {
    let mut bench = Bench::new();
    let (running, _ticket) = bench.held("probation").await;
    running.until(Stage::Probation).await;
    running.updater.stop().await;
    // While it is on probation, the one before it is revoked.
    bench.delisted = vec![release("2.0.0")];
    let running = bench.start(FakeHost { frames: vec![], ..FakeHost::default() }).await;
    running.host.until_called("observe").await;
    for refused in [running.updater.rollback(&slot()), running.updater.abort(&slot())] {
        let reason = bad(refused.unwrap()).await;
        assert!(reason.code == ReasonCode::NotFound && reason.detail.contains("taken off"), "{reason}");
    }
    // The same release from elsewhere is another wish: it waits for the end of the probation.
    let elsewhere = running
        .updater
        .install(&slot(), "/media/usb/detector@3.0.0.bundle".into(), Default::default())
        .await
        .unwrap();
    // So does one for another release, in its place.
    let waits = running.updater.update(&slot(), release("1.0.0"), Default::default()).unwrap();
    assert_eq!(bad(elsewhere).await.code, ReasonCode::Superseded);
    assert_eq!(bad(running.updater.abort(&slot()).unwrap()).await.code, ReasonCode::NotFound);
    assert_eq!(running.host.serving().unwrap(), "detector@3.0.0");
    let feed = running.host.seen.lock().unwrap().feeds.last().unwrap().clone();
    for _ in 0..10 {
        feed.send(Observation::Frame { total_ms: 5.0 }).await.unwrap();
    }
    running.host.until_called("swap").await;
    running.until(Stage::Probation).await;
    assert_eq!(bench.links(), pair("1.0.0", "3.0.0"));
    drop(waits);
    // Nor where nothing is under way.
    let mut bench = Bench::new();
    bench.with(&["1.0.0", "2.0.0"]).await;
    bench.delisted = vec![release("1.0.0")];
    let running = bench.start(FakeHost::default()).await;
    assert_eq!(bad(running.updater.rollback(&slot()).unwrap()).await.code, ReasonCode::NotFound);
}

#[tokio::test]
async fn what_its_maker_did_not_sign_comes_back_by_no_order_and_when_the_candidate_fails() {
    let mut bench = Bench::new();
    let (running, _ticket) = bench.held("probation").await;
    running.until(Stage::Probation).await;
    running.updater.stop().await;
    // While it is on probation, signatures are asked for.
    bench.settings.require_model_signature = vec!["/nobody.pub".into()];
    let running = bench.start(FakeHost { frames: vec![], ..FakeHost::default() }).await;
    running.host.until_called("observe").await;
    for refused in [running.updater.rollback(&slot()), running.updater.abort(&slot())] {
        let reason = bad(refused.unwrap()).await;
        assert!(reason.detail.contains("nobody.pub") && reason.detail.contains("come back"), "{reason}");
    }
    assert_eq!(running.host.serving().unwrap(), "detector@3.0.0");
    running.updater.stop().await;
    let failing = FakeHost { serve: Answer::Fail(ReasonCode::LoadFailed), ..FakeHost::default() };
    let running = bench.start(failing).await;
    running.host.until_called("serve 2.0.0").await;
    assert_eq!(bench.links(), pair("2.0.0", "1.0.0"));
}

#[tokio::test]
async fn a_candidate_that_fails_falls_back_also_to_what_was_taken_off_the_list() {
    let mut bench = Bench::new();
    let (running, _ticket) = bench.held("probation").await;
    running.until(Stage::Probation).await;
    running.updater.stop().await;
    bench.delisted = vec![release("2.0.0")];
    let failing = FakeHost { serve: Answer::Fail(ReasonCode::LoadFailed), ..FakeHost::default() };
    let running = bench.start(failing).await;
    running.host.until_called("serve 2.0.0").await;
    assert_eq!(bench.links(), pair("2.0.0", "1.0.0"));
}

#[tokio::test]
async fn wishes_that_make_no_sense_are_answered_at_once() {
    let mut bench = Bench::new();
    bench.with(&["1.0.0"]).await;
    let running = bench.start(FakeHost::default()).await;
    let same = good(running.updater.update(&slot(), release("1.0.0"), Default::default()).unwrap()).await;
    assert_eq!(same["changed"], false);
    assert_eq!(bad(running.updater.abort(&slot()).unwrap()).await.code, ReasonCode::BadRequest);
    assert_eq!(bad(running.updater.rollback(&slot()).unwrap()).await.code, ReasonCode::NotFound);
    let unknown =
        running.updater.update(&"other".parse().unwrap(), release("1.0.0"), Default::default()).unwrap_err();
    assert!(unknown.detail.contains("slot other is not configured; there is detector"), "{unknown}");
    assert_eq!(
        running.updater.install(&slot(), "rubbish.bundle".into(), Default::default()).await.unwrap_err().code,
        ReasonCode::Malformed
    );
    assert_eq!(running.host.calls(), ["serve 1.0.0"]);
}

#[tokio::test]
async fn a_bundle_from_a_file_goes_the_same_way() {
    let mut bench = Bench::new();
    bench.with(&["1.0.0"]).await;
    let running = bench.start(FakeHost::default()).await;
    good(
        running
            .updater
            .install(&slot(), "/media/usb/detector@2.0.0.bundle".into(), Default::default())
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(bench.links(), pair("2.0.0", "1.0.0"));
    assert!(matches!(bench.newest().origin, Origin::File { .. }));
}

/// On a real file system that is really full: nothing is lost, and with room again it works.
#[tokio::test]
async fn a_full_disk_refuses_the_update_and_keeps_the_model() {
    let Some((dir, mount)) = small_disk("a_full_disk_refuses_the_update_and_keeps_the_model") else { return };
    let point = dir.path().to_owned();
    let mut bench = Bench::at(dir);
    bench.with(&["1.0.0"]).await;
    let filler = fill(&point);
    let running = bench.start(FakeHost::default()).await;
    let reason = bad(running.updater.update(&slot(), release("2.0.0"), Default::default()).unwrap()).await;
    assert_eq!(reason.code, ReasonCode::DiskFull, "{reason}");
    assert_eq!(bench.links().0.unwrap(), "1.0.0");
    running.updater.stop().await;
    fs::remove_file(&filler).unwrap();
    drop(running.host);
    let journal_lives = {
        let running = bench.start(FakeHost::default()).await;
        let ended = timeout(
            GUARD,
            outcome(running.updater.update(&slot(), release("2.0.0"), Default::default()).unwrap()),
        )
        .await;
        running.updater.stop().await;
        ended.unwrap().unwrap()
    };
    assert!(matches!(journal_lives, Progress::Successful { .. }), "{journal_lives:?}");
    assert_eq!(bench.links().0.unwrap(), "2.0.0");
    drop(bench);
    drop(mount);
}
